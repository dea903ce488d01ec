//! Byte-level byte-pair encoding, as LLaMA 3, Qwen and SmolLM use it.
//!
//! Text is cut into words, each byte of a word is written as one printable character, and the `tokenizers` crate joins
//! those by the merge table.

use super::split::Split;
use super::vocabulary::{TokenType, Vocabulary};
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab};

/// What `tokenizer.ggml.pre` stands for.
pub(super) struct Pre {
    names: &'static [&'static str],
    split: Split,
    /// A word that is a token is not merged up from its bytes.
    ignore_merges: bool,
    /// Whether a prompt begins with BOS where the file does not say.
    pub(super) add_bos: bool,
}

/// The names and what they imply are llama.cpp's (`llama_vocab::impl::load`).
const PRES: &[Pre] = &[
    Pre { names: &["default"], split: Split::Default, ignore_merges: false, add_bos: false },
    Pre {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        split: Split::Llama3,
        ignore_merges: true,
        add_bos: true,
    },
    Pre { names: &["dbrx", "smaug-bpe"], split: Split::Llama3, ignore_merges: false, add_bos: false },
    Pre {
        names: &["qwen2", "stablelm2", "deepseek-r1-qwen", "hunyuan", "megrez"],
        split: Split::Qwen2,
        ignore_merges: false,
        add_bos: false,
    },
    Pre { names: &["tekken"], split: Split::Tekken, ignore_merges: true, add_bos: true },
    Pre {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        split: Split::SmolLm,
        ignore_merges: false,
        add_bos: false,
    },
    Pre {
        names: &["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4"],
        split: Split::Gpt2,
        ignore_merges: false,
        add_bos: false,
    },
];

impl Pre {
    /// The pre-tokenizer that `v` names; `default` where it names none.
    pub(super) fn of(v: &Vocabulary) -> Result<&'static Self> {
        let name = v.pre.as_deref().filter(|name| !name.is_empty()).unwrap_or_else(|| {
            log::warn!(
                "{}: tokenizer.ggml.pre is missing: words are split as for `default`, which may be wrong",
                v.file
            );
            "default"
        });
        PRES.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| {
            let known: Vec<&str> = PRES.iter().flat_map(|pre| pre.names).copied().collect();
            Error::unsupported(
                &v.file,
                "tokenizer.ggml.pre",
                format!("the pre-tokenizer `{name}` is not known; known are {}", known.join(", ")),
            )
        })
    }
}

/// A byte-level tokenizer.
pub(super) struct Bpe {
    model: BPE,
    split: Split,
    /// The character that each byte is written as.
    letters: [char; 256],
    /// The bytes that have a token. Some vocabularies lack bytes that valid UTF-8 rarely has.
    known: [bool; 256],
    bytes: HashMap<char, u8>,
}

impl Bpe {
    pub(super) fn new(v: &Vocabulary, types: &[TokenType], pre: &Pre) -> Result<Self> {
        if v.merges.is_empty() {
            return Err(Error::invalid(&v.file, "tokenizer.ggml.merges", "a vocabulary of model `gpt2` needs merges"));
        }
        let is_text = |kind: &TokenType| !matches!(kind, TokenType::Control | TokenType::Unknown);
        let vocab: Vocab = (v.tokens.iter().zip(types).zip(0u32..))
            .filter(|((_, kind), _)| is_text(kind))
            .map(|((text, _), id)| (text.clone(), id))
            .collect();
        let mut seen = HashSet::with_capacity(v.merges.len());
        let mut merges = Vec::with_capacity(v.merges.len());
        let mut joined = String::new();
        for merge in &v.merges {
            // The space that separates the two is not the first character. Of equal merges the first counts.
            let space = merge.char_indices().skip(1).find(|&(_, c)| c == ' ').map(|(i, _)| i);
            let Some((left, right)) = space.map(|i| (&merge[..i], &merge[i + 1..])) else { continue };
            joined.clear();
            joined.extend([left, right]);
            // The crate refuses a table that names absent tokens; such a merge can have no effect.
            let (Some(&l), Some(&r), true) = (vocab.get(left), vocab.get(right), vocab.contains_key(&joined)) else {
                continue;
            };
            if seen.insert((l, r)) {
                merges.push((left.to_owned(), right.to_owned()));
            }
        }
        if merges.len() < v.merges.len() {
            let dropped = v.merges.len() - merges.len();
            log::warn!("{}: {dropped} of {} merges are of no effect", v.file, v.merges.len());
        }
        let letters = byte_letters();
        let known = letters.map(|c| vocab.contains_key(c.encode_utf8(&mut [0; 4]) as &str));
        // Without a cache: the crate never frees what it caches for a thread.
        let model = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .ignore_merges(pre.ignore_merges)
            .cache_capacity(0)
            .build()
            .map_err(|e| Error::invalid(&v.file, "tokenizer.ggml.merges", e.to_string()))?;
        let bytes = letters.iter().copied().zip(0..=255).collect();
        Ok(Self { model, split: pre.split, letters, known, bytes })
    }

    /// Appends the tokens of `text`. Bytes that the vocabulary lacks are left out, as llama.cpp does.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        for word in self.split.words(text) {
            let mut part = String::with_capacity(word.len());
            for byte in word.bytes().map(usize::from) {
                if self.known[byte] {
                    part.push(self.letters[byte]);
                } else {
                    self.merge(&part, out);
                    part.clear();
                }
            }
            self.merge(&part, out);
        }
    }

    fn merge(&self, word: &str, out: &mut Vec<u32>) {
        // The only failure is an unknown token that is not in the vocabulary, and the model was given none.
        out.extend(self.model.tokenize(word).unwrap_or_default().into_iter().map(|token| token.id));
    }

    /// The bytes that the text of a token stands for.
    pub(super) fn decode(&self, text: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        for c in text.chars() {
            match self.bytes.get(&c) {
                Some(&byte) => out.push(byte),
                None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out
    }
}

/// GPT-2's printable stand-ins for bytes: printable ones are themselves, the others follow from U+0100.
fn byte_letters() -> [char; 256] {
    let mut next = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
        _ => next.next().unwrap_or_default(),
    })
}
