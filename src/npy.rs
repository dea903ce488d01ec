//! NumPy's `.npy` files of float32 (format version 1.0): how arrays leave and enter for comparison.

use crate::error::{Error, Result};
use crate::replace::replace;
use std::path::Path;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Writes `values`, row-major with the given shape, through a temporary file.
///
/// # Errors
/// [`Error::Io`]; `path` is then as it was.
pub fn save(path: &Path, values: &[f32], shape: &[usize]) -> Result<()> {
    assert_eq!(values.len(), shape.iter().product::<usize>(), "shape");
    let dims: Vec<String> = shape.iter().map(|d| format!("{d},")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", dims.join(" "));
    while !(MAGIC.len() + 4 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    replace(path, |out| {
        out.write_all(MAGIC)?;
        out.write_all(&[1, 0])?;
        out.write_all(&(header.len() as u16).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))
    })
    .map_err(|e| Error::io(path, e))
}

/// Reads a float32 array in C order: its values and its shape.
///
/// # Errors
/// [`Error::Io`]; [`Error::InvalidArgument`] if the file is anything else.
pub fn load(path: &Path) -> Result<(Vec<f32>, Vec<usize>)> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    parse(&bytes)
        .ok_or_else(|| Error::argument("path", format!("{} is not a NumPy file of float32 in C order", path.display())))
}

fn parse(bytes: &[u8]) -> Option<(Vec<f32>, Vec<usize>)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (len, rest) = match rest {
        [1, _, a, b, rest @ ..] => (u16::from_le_bytes([*a, *b]) as usize, rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return None,
    };
    let header = std::str::from_utf8(rest.get(..len)?).ok()?;
    if !header.contains("'<f4'") || !header.contains("'fortran_order': False") {
        return None;
    }
    let shape = header.split("'shape': (").nth(1)?.split(')').next()?;
    let shape = shape.split(',').map(str::trim).filter(|d| !d.is_empty());
    let shape: Vec<usize> = shape.map(|d| d.parse().ok()).collect::<Option<_>>()?;
    let (values, tail) = rest.get(len..)?.as_chunks::<4>();
    let expected = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    (tail.is_empty() && values.len() == expected)
        .then(|| (values.iter().map(|v| f32::from_le_bytes(*v)).collect(), shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_survive_a_round_trip() {
        let dir = std::env::temp_dir().join(format!("llava-npy-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.npy");
        let values: Vec<f32> = (0..12).map(|i| i as f32 * 0.5 - 1.0).collect();
        for shape in [vec![12], vec![3, 4], vec![2, 3, 2]] {
            save(&path, &values, &shape).unwrap();
            assert_eq!(std::fs::read(&path).unwrap().len() % 64, 48);
            assert_eq!(load(&path).unwrap(), (values.clone(), shape));
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn anything_else_is_refused() {
        let header = |h: &str| [MAGIC, &[1, 0], &(h.len() as u16).to_le_bytes(), h.as_bytes()].concat();
        for bytes in [
            b"".to_vec(),
            b"\x93NUMPY\x01\x00\xff\xff".to_vec(),
            header("{'descr': '<f8', 'fortran_order': False, 'shape': (0,), }"),
            header("{'descr': '<f4', 'fortran_order': True, 'shape': (0,), }"),
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }"),
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551615, 2), }"),
        ] {
            assert!(parse(&bytes).is_none());
        }
    }
}
