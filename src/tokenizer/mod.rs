//! Text to tokens and back, from the vocabulary inside a GGUF file.
//!
//! The ids are llama.cpp's, for the SentencePiece vocabularies (`tokenizer.ggml.model = "llama"`) and the byte-level
//! ones (`gpt2`) of the LLaVA family, on any text. One difference is deliberate: text that is tokenised
//! [plainly](Special::Plain) never becomes a control token, whatever the vocabulary.

mod bpe;
mod special;
mod split;
mod spm;
mod stream;
mod unicode;
mod vocabulary;

pub use special::Special;
pub use stream::TextStream;
pub use vocabulary::{TokenType, Vocabulary};

use crate::error::{Error, Result};
use crate::gguf::File;
use bpe::{Bpe, Pre};
use special::{Fragment, Specials};
use spm::Spm;
use std::collections::HashMap;

/// Texts that end an answer, whatever the file says about them: many files name the wrong end of sequence, or give
/// these tokens a wrong type. The list is llama.cpp's.
const STOPS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    // Padding, repository and file separators of code models.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// Texts of further tokens that are control tokens whatever their type says: the fill-in-the-middle marks.
const CONTROLS: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];

/// Turns text into token ids and back. Immutable; share it between threads.
pub struct Tokenizer {
    kind: Kind,
    specials: Specials,
    tokens: Vec<String>,
    types: Vec<TokenType>,
    ids: HashMap<String, u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    stops: Vec<u32>,
    adds_bos: bool,
    space_prefix: bool,
}

enum Kind {
    Spm(Spm),
    Bpe(Box<Bpe>),
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.tokens.len()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// The tokenizer of a text model's GGUF file.
    ///
    /// # Errors
    /// As [`Vocabulary::from_gguf`] and [`Tokenizer::new`].
    pub fn from_gguf(file: &File) -> Result<Self> {
        Self::new(Vocabulary::from_gguf(file)?)
    }

    /// Builds a tokenizer.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the model or the pre-tokenizer is not known, [`Error::InvalidModel`] if the vocabulary
    /// is empty, has a token twice, a score that is no number, or arrays of different lengths.
    pub fn new(mut v: Vocabulary) -> Result<Self> {
        let invalid = |reason: String| Error::invalid(&v.file, "tokenizer.ggml.tokens", reason);
        let n = v.tokens.len();
        if n == 0 {
            return Err(invalid("the vocabulary is empty".into()));
        }
        if v.scores.len() != n || v.types.len() != n || u32::try_from(n).is_err() {
            let (scores, types) = (v.scores.len(), v.types.len());
            return Err(invalid(format!("there are {n} tokens, {scores} scores and {types} types")));
        }
        let mut ids = HashMap::with_capacity(n);
        for (text, id) in v.tokens.iter_mut().zip(0u32..) {
            if text.is_empty() {
                *text = format!("[EMPTY_{id}]");
            }
            if let Some(first) = ids.insert(text.clone(), id) {
                let reason = format!("the token `{}` stands there twice, as {first} and {id}", text.escape_debug());
                return Err(Error::invalid(&v.file, "tokenizer.ggml.tokens", reason));
            }
        }
        let in_range = |id: Option<u32>| id.filter(|&id| (id as usize) < n);
        let (bos, eos) = (in_range(v.bos), in_range(v.eos));
        let mut stops: Vec<u32> = STOPS.iter().filter_map(|&text| ids.get(text).copied()).collect();
        let mut types = std::mem::take(&mut v.types);
        for &id in stops.iter().chain(CONTROLS.iter().filter_map(|&text| ids.get(text))) {
            types[id as usize] = TokenType::Control;
        }
        stops.extend([eos, in_range(v.eot), in_range(v.eom)].into_iter().flatten());
        stops.sort_unstable();
        stops.dedup();
        v.unknown = in_range(v.unknown);

        let (kind, adds_bos, space_prefix) = match v.model.as_str() {
            "llama" => (Kind::Spm(Spm::new(&v, &types)?), true, v.add_space_prefix.unwrap_or(true)),
            "gpt2" => {
                let pre = Pre::of(&v)?;
                (Kind::Bpe(Box::new(Bpe::new(&v, &types, pre)?)), pre.add_bos, false)
            }
            other => {
                let reason = format!("the tokenizer `{other}` is not known; known are llama (SentencePiece) and gpt2");
                return Err(Error::unsupported(&v.file, "tokenizer.ggml.model", reason));
            }
        };
        Ok(Self {
            specials: Specials::new(&v.tokens, &types, v.strip_after_special),
            adds_bos: v.add_bos.unwrap_or(adds_bos) && bos.is_some(),
            kind,
            tokens: v.tokens,
            types,
            ids,
            bos,
            eos,
            stops,
            space_prefix,
        })
    }

    /// The tokens of `text`, with BOS in front if `add_bos` is set and the vocabulary has one.
    ///
    /// SentencePiece vocabularies put a space in front of the text and of whatever follows a special token.
    pub fn encode(&self, text: &str, special: Special, add_bos: bool) -> Vec<u32> {
        let mut out = Vec::from_iter(self.bos.filter(|_| add_bos));
        let mut after_special = true;
        for fragment in self.specials.cut(text, special) {
            match (fragment, &self.kind) {
                (Fragment::Token(id), _) => out.push(id),
                (Fragment::Text(text), Kind::Bpe(bpe)) => bpe.encode(text, &mut out),
                (Fragment::Text(text), Kind::Spm(spm)) => {
                    let mut escaped = String::with_capacity(text.len() + 16);
                    escaped.extend((self.space_prefix && after_special).then_some(spm::SPACE));
                    escaped.extend(text.chars().map(|c| if c == ' ' { spm::SPACE } else { c }));
                    spm.encode(&escaped, &mut out);
                }
            }
            after_special = matches!(fragment, Fragment::Token(_));
        }
        out
    }

    /// The text of `tokens`: control tokens give nothing, and bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut stream = TextStream::new(self);
        let mut text: String = tokens.iter().map(|&token| stream.push(self, token)).collect();
        text.push_str(&stream.finish());
        text
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether prompts begin with [`Tokenizer::bos`].
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// The tokens that end an answer, ascending.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stops
    }

    /// Whether `token` ends an answer.
    pub fn is_stop(&self, token: u32) -> bool {
        self.stops.binary_search(&token).is_ok()
    }

    /// The number of tokens. A model may have more rows in its output: those must never be sampled.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// The id of the token that is written `text` in the vocabulary.
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The token as the vocabulary writes it, in which a space may be `▁` or `Ġ`.
    pub fn token_text(&self, token: u32) -> Option<&str> {
        self.tokens.get(token as usize).map(String::as_str)
    }

    /// The token's type; tokens that end an answer are control tokens whatever the file says.
    pub fn token_type(&self, token: u32) -> Option<TokenType> {
        self.types.get(token as usize).copied()
    }

    /// The bytes that `token` adds to a text: none for control tokens, `None` for an id outside the vocabulary.
    pub fn token_bytes(&self, token: u32) -> Option<Vec<u8>> {
        let text = self.token_text(token)?;
        Some(match (self.token_type(token)?, &self.kind) {
            (TokenType::Normal, Kind::Spm(_)) => text.replace(spm::SPACE, " ").into_bytes(),
            (TokenType::Normal, Kind::Bpe(bpe)) => bpe.decode(text),
            (TokenType::UserDefined, _) => text.as_bytes().to_vec(),
            (TokenType::Byte, _) => Vec::from_iter(spm::byte_of(text)),
            _ => Vec::new(),
        })
    }
}
