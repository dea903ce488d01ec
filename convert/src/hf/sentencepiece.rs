//! SentencePiece's `tokenizer.model`: the parts of its protocol buffer (`sentencepiece_model.proto`) that matter.

use super::invalid;
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

enum Field<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// The fields of a message with their numbers; `None` where it is damaged, and nothing after.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = Option<(u64, Field<'_>)>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => Field::Varint(varint(rest)?),
        1 => rest.split_off(..8).map(|_| Field::Fixed64)?,
        2 => {
            let len = usize::try_from(varint(rest)?).ok()?;
            Field::Bytes(rest.split_off(..len)?)
        }
        5 => Field::Fixed32(rest.split_off(..4)?.try_into().ok()?),
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_into_fields() {
        let bytes = [8, 150, 1, 18, 2, b'h', b'i', 29, 0, 0, 128, 63];
        let found: Vec<_> = fields(&bytes).collect();
        assert!(matches!(
            found[..],
            [Some((1, Field::Varint(150))), Some((2, Field::Bytes(b"hi"))), Some((3, Field::Fixed32([0, 0, 128, 63])))]
        ));
        for len in 1..bytes.len() {
            // No panic, and no endless loop.
            assert!(fields(&bytes[..len]).count() <= 4);
        }
        assert!(fields(&[255; 30]).next().unwrap().is_none());
    }
}
