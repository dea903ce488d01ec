//! SentencePiece's byte-pair encoding, as LLaMA, Vicuna and Mistral use it.
//!
//! The two neighbours whose concatenation is the token of the highest score are joined, the leftmost first, until none
//! is left; what is no token then falls apart into byte tokens.
//!
//! The `tokenizers` crate's merge table can express this only where no two scores are equal: it ranks pairs, and pairs
//! of equal score would be joined in the order of the table instead of from the left. Files that were converted without
//! scores have all of them equal, so the merging is done here.

#![warn(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use super::vocabulary::{TokenType, Vocabulary};
use crate::error::{Error, Result};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

/// SentencePiece writes a space as this character.
pub(super) const SPACE: char = '\u{2581}';

/// The merging half of a SentencePiece tokenizer.
pub(super) struct Spm {
    /// Tokens that text can become: no control tokens, and bytes only by falling apart.
    pieces: HashMap<String, (u32, f32)>,
    bytes: Vec<Option<u32>>,
    unknown: Option<u32>,
}

/// A run of the text that is or may become a token; runs form a chain.
struct Symbol {
    start: usize,
    /// Zero once it has been joined to its left neighbour.
    len: usize,
    prev: Option<usize>,
    next: Option<usize>,
}

/// Two neighbours that can be joined.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    len: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

impl Spm {
    pub(super) fn new(v: &Vocabulary, types: &[TokenType]) -> Result<Self> {
        let mut pieces = HashMap::with_capacity(v.tokens.len());
        let mut bytes = vec![None; 256];
        for (((text, &score), &kind), id) in v.tokens.iter().zip(&v.scores).zip(types).zip(0u32..) {
            if score.is_nan() {
                return Err(Error::invalid(
                    &v.file,
                    "tokenizer.ggml.scores",
                    format!("the score of token {id} is NaN"),
                ));
            }
            if let Some(slot) = byte_of(text).and_then(|b| bytes.get_mut(usize::from(b))) {
                *slot = Some(id);
            }
            if !matches!(kind, TokenType::Control | TokenType::Unknown | TokenType::Byte) {
                // Adding zero makes the two zeros compare equal.
                pieces.insert(text.clone(), (id, score + 0.0));
            }
        }
        Ok(Self { pieces, bytes, unknown: v.unknown })
    }

    /// Appends the tokens of `text`, in which spaces have been replaced by [`SPACE`].
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
        for (i, (start, c)) in text.char_indices().enumerate() {
            let next = i.checked_add(1).filter(|_| start.saturating_add(c.len_utf8()) < text.len());
            symbols.push(Symbol { start, len: c.len_utf8(), prev: i.checked_sub(1), next });
        }
        let mut queue: BinaryHeap<Pair> =
            symbols.iter().enumerate().filter_map(|(i, s)| self.pair(text, &symbols, Some(i), s.next)).collect();
        while let Some(pair) = queue.pop() {
            let (Some(left), Some(right)) = (symbols.get(pair.left), symbols.get(pair.right)) else { continue };
            // One of the two has been joined to something else since.
            if left.len == 0 || right.len == 0 || left.len.saturating_add(right.len) != pair.len {
                continue;
            }
            let (before, after) = (left.prev, right.next);
            if let Some(right) = symbols.get_mut(pair.right) {
                right.len = 0;
            }
            if let Some(left) = symbols.get_mut(pair.left) {
                left.len = pair.len;
                left.next = after;
            }
            if let Some(next) = after.and_then(|i| symbols.get_mut(i)) {
                next.prev = Some(pair.left);
            }
            queue.extend(self.pair(text, &symbols, before, Some(pair.left)));
            queue.extend(self.pair(text, &symbols, Some(pair.left), after));
        }
        for symbol in symbols.iter().filter(|s| s.len > 0) {
            let Some(piece) = text.get(symbol.start..symbol.start.saturating_add(symbol.len)) else { continue };
            match self.pieces.get(piece) {
                Some(&(id, _)) => out.push(id),
                None => out.extend(piece.bytes().filter_map(|b| self.byte(b).or(self.unknown))),
            }
        }
    }

    fn byte(&self, b: u8) -> Option<u32> {
        self.bytes.get(usize::from(b)).copied().flatten()
    }

    fn pair(&self, text: &str, symbols: &[Symbol], left: Option<usize>, right: Option<usize>) -> Option<Pair> {
        let (left, right) = (left?, right?);
        let (l, r) = (symbols.get(left)?, symbols.get(right)?);
        let len = l.len.checked_add(r.len)?;
        let (_, score) = self.pieces.get(text.get(l.start..l.start.checked_add(len)?)?)?;
        Some(Pair { score: *score, left, right, len })
    }
}

/// The byte that a token like `<0x0A>` stands for.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then(|| u8::from_str_radix(hex, 16).ok())?
}
