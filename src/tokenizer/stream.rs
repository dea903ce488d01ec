//! Turning tokens back into text while they arrive.

#![warn(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use super::Tokenizer;

/// Joins the bytes of tokens into text, holding back the bytes of a character until it is whole.
///
/// At most three bytes are held. Bytes that can never become a character turn into U+FFFD. Control tokens give nothing.
#[derive(Clone, Debug)]
pub struct TextStream {
    pending: Vec<u8>,
    /// SentencePiece puts a space in front of the first word, which is not part of the text.
    strip_space: bool,
}

impl TextStream {
    /// A stream for the start of a text.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self { pending: Vec::new(), strip_space: tokenizer.space_prefix }
    }

    /// The text that `token` completes; empty while a character is incomplete and for ids outside the vocabulary.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> String {
        self.pending.extend(tokenizer.token_bytes(token).unwrap_or_default());
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    rest = after;
                    let Some(bad) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = rest.get(bad..).unwrap_or_default();
                }
            }
        }
        self.pending = rest.to_vec();
        self.strip(text)
    }

    /// Ends the text: an incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned();
        self.strip(text)
    }

    fn strip(&mut self, mut text: String) -> String {
        if self.strip_space && !text.is_empty() {
            self.strip_space = false;
            if text.starts_with(' ') {
                text.remove(0);
            }
        }
        text
    }
}
