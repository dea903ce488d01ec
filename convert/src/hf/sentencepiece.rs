//! SentencePiece's `tokenizer.model`: the parts of its protocol buffer (`sentencepiece_model.proto`) that matter.

use super::invalid;
use super::protobuf::{Field, fields};
use super::tokenizer::{NORMAL, Vocabulary};
use llava::Error;
use std::path::Path;

/// A vocabulary.
pub struct Model {
    pieces: Vec<(String, f32, i32)>,
    dummy_prefix: bool,
}

impl Model {
    /// As it is written to GGUF, whose types have the same numbers.
    pub fn into_vocabulary(self) -> Vocabulary {
        Vocabulary::sentencepiece(self.pieces, self.dummy_prefix)
    }
}

/// Reads a file.
///
/// # Errors
/// [`Error::Io`]; [`Error::InvalidModel`] if it is damaged; [`Error::Unsupported`] for another algorithm than BPE.
pub fn read(path: &Path) -> Result<Model, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let damaged = || invalid(path, "file", "is no SentencePiece model, or is damaged");
    let mut model = Model { pieces: Vec::new(), dummy_prefix: true };
    // SentencePiece's own default.
    let mut algorithm = 1;
    for field in fields(&bytes) {
        match field.ok_or_else(damaged)? {
            (1, Field::Bytes(piece)) => model.pieces.push(self::piece(piece).ok_or_else(damaged)?),
            (2, Field::Bytes(trainer)) => {
                for field in fields(trainer) {
                    if let (3, Field::Varint(n)) = field.ok_or_else(damaged)? {
                        algorithm = n;
                    }
                }
            }
            (3, Field::Bytes(normalizer)) => {
                for field in fields(normalizer) {
                    if let (3, Field::Varint(n)) = field.ok_or_else(damaged)? {
                        model.dummy_prefix = n != 0;
                    }
                }
            }
            _ => {}
        }
    }
    if model.pieces.is_empty() {
        return Err(damaged());
    }
    if algorithm != 2 {
        return Err(Error::Unsupported {
            file: path.display().to_string(),
            field: "trainer_spec.model_type".into(),
            reason: format!("is {algorithm}; BPE (2) is converted"),
        });
    }
    Ok(model)
}

/// Text, score and type.
fn piece(bytes: &[u8]) -> Option<(String, f32, i32)> {
    let (mut text, mut score, mut kind) = (String::new(), 0.0, NORMAL);
    for field in fields(bytes) {
        match field? {
            (1, Field::Bytes(b)) => text = String::from_utf8(b.to_vec()).ok()?,
            (2, Field::Fixed32(b)) => score = f32::from_le_bytes(b),
            (3, Field::Varint(n @ 1..=6)) => kind = n as i32,
            (3, _) => return None,
            _ => {}
        }
    }
    score.is_finite().then_some((text, score, kind))
}
