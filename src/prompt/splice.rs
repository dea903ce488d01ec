//! Where text and images meet.

use super::Piece;
use crate::tokenizer::{Special, Tokenizer};

/// One place in the model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// A token.
    Token(u32),
    /// All the embeddings of an image, by its number in the conversation from 0.
    Image(usize),
}

/// The input that a rendered prompt stands for.
///
/// Each text is tokenised on its own, as in the reference (`tokenizer_image_token`), so with SentencePiece the text after
/// an image begins with the token of a space. BOS stands in front of the first piece only, if the vocabulary wants it.
pub fn splice(pieces: &[Piece], tokenizer: &Tokenizer) -> Vec<Slot> {
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let mut out = Vec::from_iter(bos.map(Slot::Token));
    let mut images = 0..;
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.extend(tokenizer.encode(text, Special::Parse, false).into_iter().map(Slot::Token)),
            Piece::Image => out.extend(images.next().map(Slot::Image)),
        }
    }
    out
}
