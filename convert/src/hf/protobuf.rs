//! Protocol buffers' wire format (<https://protobuf.dev/programming-guides/encoding>): of files that SentencePiece and ONNX
//! write.

/// The value of a field.
pub enum Field<'a> {
    /// A number.
    Varint(u64),
    /// Eight bytes, which nothing here needs.
    Fixed64,
    /// A text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// Four bytes: a float.
    Fixed32([u8; 4]),
}

/// The fields of a message with their numbers; `None` where it is damaged, and nothing after.
pub fn fields(mut rest: &[u8]) -> impl Iterator<Item = Option<(u64, Field<'_>)>> {
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

/// Takes a number off the front.
pub fn varint(rest: &mut &[u8]) -> Option<u64> {
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
