//! The vocabulary as a GGUF file stores it, checked but not interpreted.

#![warn(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use crate::error::{Error, Result};
use crate::gguf::File;

/// Longest token in bytes: every token of an answer may add this much to its text. Real ones stay below 1000.
const MAX_TOKEN: usize = 1 << 14;

/// What a token stands for (`tokenizer.ggml.token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// A piece of text.
    Normal,
    /// Stands for text that has no other token.
    Unknown,
    /// Steers the model (beginning, end, roles of a chat); never part of the text.
    Control,
    /// A piece of text that is cut out before anything else is tokenised.
    UserDefined,
    /// Reserved.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
    /// Any other number.
    Undefined,
}

impl TokenType {
    fn from_gguf(n: i64) -> Self {
        match n {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Undefined,
        }
    }
}

/// The `tokenizer.ggml.*` keys of a GGUF file.
///
/// `scores` and `types` are as long as `tokens`; ids are indices into `tokens`.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// The file's name, for messages.
    pub file: String,
    /// `tokenizer.ggml.model`: `llama` (SentencePiece) or `gpt2` (byte-level BPE).
    pub model: String,
    /// `tokenizer.ggml.pre`: how byte-level BPE splits text into words.
    pub pre: Option<String>,
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// The tokens' scores; zero where the file has none.
    pub scores: Vec<f32>,
    /// The tokens' types; normal where the file has none.
    pub types: Vec<TokenType>,
    /// Merges of byte-level BPE, `left right`, the first one strongest.
    pub merges: Vec<String>,
    /// Beginning of sequence.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// End of turn.
    pub eot: Option<u32>,
    /// End of message.
    pub eom: Option<u32>,
    /// The token for text that has no other.
    pub unknown: Option<u32>,
    /// Whether a prompt begins with `bos`; `None` leaves it to the kind of vocabulary.
    pub add_bos: Option<bool>,
    /// Whether text gets a space in front; `None` leaves it to the kind of vocabulary.
    pub add_space_prefix: Option<bool>,
    /// Whether white space after a special token is dropped. GGUF does not store it; llama.cpp goes by `general.name`.
    pub strip_after_special: bool,
}

impl Vocabulary {
    /// An empty vocabulary of the given model, with the ids that llama.cpp assumes for it.
    pub fn new(file: impl Into<String>, model: impl Into<String>) -> Self {
        let model = model.into();
        let (bos, eos, unknown) = match model.as_str() {
            "llama" => (Some(1), Some(2), Some(0)),
            _ => (Some(11), Some(11), None),
        };
        Self {
            file: file.into(),
            model,
            pre: None,
            tokens: Vec::new(),
            scores: Vec::new(),
            types: Vec::new(),
            merges: Vec::new(),
            bos,
            eos,
            eot: None,
            eom: None,
            unknown,
            add_bos: None,
            add_space_prefix: None,
            strip_after_special: false,
        }
    }

    /// Reads the vocabulary of a text model.
    ///
    /// # Errors
    /// [`Error::InvalidModel`] if a required key is missing, has the wrong type or the wrong length. As in llama.cpp a
    /// special id outside the vocabulary is ignored.
    pub fn from_gguf(file: &File) -> Result<Self> {
        const MODEL: &str = "tokenizer.ggml.model";
        const TOKENS: &str = "tokenizer.ggml.tokens";
        let mut v = Self::new(file.name(), file.required(MODEL, file.str(MODEL)?)?);
        v.pre = file.str("tokenizer.ggml.pre")?.map(str::to_owned);
        v.tokens = file.required(TOKENS, file.strings(TOKENS)?)?.to_vec();
        let n = v.tokens.len();
        if let Some((id, text)) = v.tokens.iter().enumerate().find(|(_, text)| text.len() > MAX_TOKEN) {
            let reason = format!("token {id} has {} bytes, and at most {MAX_TOKEN} are accepted", text.len());
            return Err(Error::invalid(file.name(), TOKENS, reason));
        }
        let fits = |key: &str, len: usize| match len < n {
            true => Err(Error::invalid(file.name(), key, format!("has {len} entries for {n} tokens"))),
            false => Ok(()),
        };
        v.scores = vec![0.0; n];
        if let Some(scores) = file.f32s("tokenizer.ggml.scores")? {
            fits("tokenizer.ggml.scores", scores.len())?;
            v.scores = scores.iter().take(n).copied().collect();
        }
        v.types = vec![TokenType::Normal; n];
        if let Some(types) = file.i64s("tokenizer.ggml.token_type")? {
            fits("tokenizer.ggml.token_type", types.len())?;
            v.types = types.into_iter().take(n).map(TokenType::from_gguf).collect();
        }
        v.merges = file.strings("tokenizer.ggml.merges")?.unwrap_or_default().to_vec();
        for (key, id) in [
            ("tokenizer.ggml.bos_token_id", &mut v.bos),
            ("tokenizer.ggml.eos_token_id", &mut v.eos),
            ("tokenizer.ggml.eot_token_id", &mut v.eot),
            ("tokenizer.ggml.eom_token_id", &mut v.eom),
            ("tokenizer.ggml.unknown_token_id", &mut v.unknown),
        ] {
            *id = id.filter(|&i| (i as usize) < n);
            match file.get(key).and_then(|value| value.as_int()) {
                Some(i) if (0..n as i128).contains(&i) => *id = Some(i as u32),
                Some(i) => log::warn!("{}: {key} is {i}, outside the vocabulary of {n} tokens: ignored", file.name()),
                None => {}
            }
        }
        v.add_bos = file.bool("tokenizer.ggml.add_bos_token")?;
        v.add_space_prefix = file.bool("tokenizer.ggml.add_space_prefix")?;
        let name = file.str("general.name")?.unwrap_or_default().to_lowercase();
        v.strip_after_special = name.contains("phi-3") || name.contains("phi3");
        Ok(v)
    }
}
