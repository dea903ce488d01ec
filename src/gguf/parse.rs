//! The bytes of one file → metadata and tensor table.

#![warn(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use super::storage::{Span, Storage};
use super::value::{Array, Value};
use super::{File, TensorInfo};
use crate::error::{Error, Result};
use crate::quant::BlockType;
use std::collections::HashMap;

/// llama.cpp's limit on a tensor name, one byte less for its NUL.
const MAX_NAME: usize = 63;
/// The format's own limit on a key.
const MAX_KEY: usize = 65_535;
/// Limits far above every real file (a 70B model has about 700 tensors and 40 keys, the largest vocabularies have
/// 300,000 tokens): a file of any size, sparse ones too, can't make the table itself exhaust memory.
const MAX_ENTRIES: usize = 1 << 16;
const MAX_STRING: usize = 1 << 24;
const MAX_ELEMENTS: usize = 1 << 24;
const DEFAULT_ALIGNMENT: usize = 32;

pub(super) fn parse(name: &str, storage: Storage) -> Result<File> {
    let mut c = Cursor { file: name, bytes: storage.as_slice(), at: 0 };
    let version = header(&mut c)?;
    // The least a tensor's description takes: name length, dimension count, one dimension, type, offset.
    let n_tensors = c.count("tensor count", 32, MAX_ENTRIES)?;
    // The least a key takes: its length, the type, a byte of value.
    let n_keys = c.count("metadata count", 13, MAX_ENTRIES)?;

    let mut metadata: Vec<(String, Value)> = Vec::with_capacity(n_keys);
    let mut index = HashMap::with_capacity(n_keys);
    for i in 0..n_keys {
        let key = c.name(&format!("metadata key {i}"), MAX_KEY)?;
        let value = c.value(&key)?;
        if index.insert(key.clone(), i).is_some() {
            return Err(c.invalid(&key, "this key stands twice in the metadata"));
        }
        metadata.push((key, value));
    }

    let alignment = match index.get("general.alignment").and_then(|&i| metadata.get(i)).map(|(_, v)| v) {
        None => DEFAULT_ALIGNMENT,
        Some(v) => match v.as_int().and_then(|a| usize::try_from(a).ok()) {
            Some(a) if a.is_power_of_two() && a <= 1 << 20 => a,
            _ => return Err(c.invalid("general.alignment", format!("is {v}, not a power of two up to 1048576"))),
        },
    };

    let mut infos = Vec::with_capacity(n_tensors);
    for i in 0..n_tensors {
        infos.push(raw_tensor(&mut c, i)?);
    }
    let data_start = if n_tensors == 0 {
        c.at
    } else {
        c.at.checked_next_multiple_of(alignment).ok_or_else(|| c.invalid("general.alignment", "overflows"))?
    };

    let mut tensors = Vec::with_capacity(n_tensors);
    let mut names = HashMap::with_capacity(n_tensors);
    for (i, raw) in infos.into_iter().enumerate() {
        if names.insert(raw.name.clone(), i).is_some() {
            return Err(c.invalid(raw.name, "this tensor stands twice in the file"));
        }
        tensors.push(place(&c, &storage, raw, data_start, alignment)?);
    }
    disjoint(&c, &tensors)?;
    Ok(File { name: name.to_owned(), version, metadata, index, tensors, tensor_index: names })
}

/// Refuses tensors that share bytes: with them a small file could ask for any amount of memory.
fn disjoint(c: &Cursor<'_>, tensors: &[TensorInfo]) -> Result<()> {
    let mut spans: Vec<_> = tensors.iter().filter_map(|t| Some((t.data.as_ref()?.range(), t.name()))).collect();
    spans.sort_unstable_by_key(|(range, _)| range.start);
    for ((a, first), (b, second)) in spans.iter().zip(spans.iter().skip(1)) {
        if b.start < a.end {
            return Err(c.invalid(*second, format!("overlaps the tensor {first}")));
        }
    }
    Ok(())
}

fn header(c: &mut Cursor<'_>) -> Result<u32> {
    let magic = c.take("magic", 4)?;
    if magic != b"GGUF" {
        let what = match magic {
            b"tjgg" | b"lmgg" | b"fmgg" | b"algg" | b"ggjt" | b"ggml" | b"ggmf" | b"ggla" => {
                "a ggml file from before GGUF; convert it again"
            }
            _ if c.bytes.starts_with(b"PK") => "a zip archive or PyTorch pickle, not GGUF",
            _ if c.bytes.starts_with(b"version https://git-lfs") => {
                "a git-lfs pointer, not the model itself; fetch the real file"
            }
            _ => "not a GGUF file",
        };
        return Err(c.invalid("magic", format!("{what} (starts with {magic:02x?}, expected \"GGUF\")")));
    }
    let version = c.u32("version")?;
    match version {
        2 | 3 => Ok(version),
        v if v.swap_bytes() == 2 || v.swap_bytes() == 3 => {
            Err(Error::unsupported(c.file, "version", "a big-endian file; only little-endian is read"))
        }
        v => Err(Error::unsupported(c.file, "version", format!("GGUF version {v}; versions 2 and 3 are read"))),
    }
}

struct RawTensor {
    name: String,
    dims: Vec<usize>,
    type_id: u32,
    offset: u64,
}

fn raw_tensor(c: &mut Cursor<'_>, i: usize) -> Result<RawTensor> {
    let name = c.name(&format!("name of tensor {i}"), MAX_NAME)?;
    let n_dims = c.u32(&name)?;
    if !(1..=4).contains(&n_dims) {
        return Err(c.invalid(name, format!("has {n_dims} dimensions, expected 1 to 4")));
    }
    let mut dims = Vec::with_capacity(4);
    for _ in 0..n_dims {
        let d = c.u64(&name)?;
        match usize::try_from(d) {
            Ok(d) if d > 0 => dims.push(d),
            _ => return Err(c.invalid(name, format!("has a dimension of {d}"))),
        }
    }
    Ok(RawTensor { type_id: c.u32(&name)?, offset: c.u64(&name)?, name, dims })
}

/// Checks that a tensor of a known type lies inside the file, and gives it its bytes.
fn place(c: &Cursor<'_>, storage: &Storage, raw: RawTensor, start: usize, alignment: usize) -> Result<TensorInfo> {
    let RawTensor { name, dims, type_id, offset } = raw;
    let block_type = BlockType::from_ggml_id(type_id);
    let mut data = None;
    if let Some(t) = block_type {
        let row = dims.first().copied().unwrap_or_default();
        if !row.is_multiple_of(t.block_len()) {
            return Err(c.invalid(name, format!("rows of {row} values are not whole {t} blocks of {}", t.block_len())));
        }
        let bytes = t.row_bytes(row).and_then(|b| dims.iter().skip(1).try_fold(b, |n, &d| n.checked_mul(d)));
        let at = usize::try_from(offset).ok().and_then(|o| start.checked_add(o));
        let (Some(bytes), Some(at)) = (bytes, at) else {
            return Err(c.invalid(name, format!("dimensions {dims:?} at offset {offset} overflow")));
        };
        if at.checked_rem(alignment) != Some(0) {
            return Err(c.invalid(name, format!("offset {offset} is not a multiple of the alignment, {alignment}")));
        }
        data = Span::new(storage.clone(), at, bytes);
        if data.is_none() {
            let end = at.saturating_add(bytes);
            return Err(c.invalid(
                name,
                format!("needs bytes up to {end} and the file has {}: it is cut short or damaged", c.bytes.len()),
            ));
        }
    }
    Ok(TensorInfo { name, dims, type_id, block_type, data })
}

/// Reads the file front to back; every read names the field for the error.
struct Cursor<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn invalid(&self, field: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::invalid(self.file, field, reason)
    }

    fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn take(&mut self, field: &str, n: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n);
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(slice) => {
                self.at = self.at.saturating_add(n);
                Ok(slice)
            }
            None => Err(self.invalid(
                field,
                format!("the file ends here: {n} bytes expected at {}, {} left", self.at, self.remaining()),
            )),
        }
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let slice = self.take(field, N)?;
        slice.try_into().map_err(|_| self.invalid(field, "short read"))
    }

    fn u32(&mut self, field: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    fn u64(&mut self, field: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A count of things that take at least `least` bytes each: bounded by `limit` and by what is left of the file.
    fn count(&mut self, field: &str, least: usize, limit: usize) -> Result<usize> {
        let n = self.u64(field)?;
        let most = self.remaining().checked_div(least).unwrap_or(usize::MAX);
        match usize::try_from(n) {
            Ok(n) if n <= most.min(limit) => Ok(n),
            _ if limit < most => Err(self.invalid(field, format!("{n}, and at most {limit} are accepted"))),
            _ => Err(self.invalid(field, format!("{n}, but the rest of the file has room for {most} at most"))),
        }
    }

    fn string(&mut self, field: &str, limit: usize) -> Result<String> {
        let n = self.count(field, 1, limit)?;
        let bytes = self.take(field, n)?;
        match std::str::from_utf8(bytes) {
            Ok(s) => Ok(s.to_owned()),
            Err(e) => Err(self.invalid(field, format!("is not UTF-8 ({e})"))),
        }
    }

    /// A string that messages can call a thing by.
    fn name(&mut self, field: &str, limit: usize) -> Result<String> {
        let name = self.string(field, limit)?;
        if name.is_empty() { Err(self.invalid(field, "is empty")) } else { Ok(name) }
    }

    fn value(&mut self, key: &str) -> Result<Value> {
        Ok(match self.u32(key)? {
            0 => Value::U8(u8::from_le_bytes(self.array(key)?)),
            1 => Value::I8(i8::from_le_bytes(self.array(key)?)),
            2 => Value::U16(u16::from_le_bytes(self.array(key)?)),
            3 => Value::I16(i16::from_le_bytes(self.array(key)?)),
            4 => Value::U32(self.u32(key)?),
            5 => Value::I32(i32::from_le_bytes(self.array(key)?)),
            6 => Value::F32(f32::from_le_bytes(self.array(key)?)),
            7 => Value::Bool(self.bool(key)?),
            8 => Value::String(self.string(key, MAX_STRING)?),
            9 => Value::Array(self.elements(key)?),
            10 => Value::U64(self.u64(key)?),
            11 => Value::I64(i64::from_le_bytes(self.array(key)?)),
            12 => Value::F64(f64::from_le_bytes(self.array(key)?)),
            t => return Err(self.invalid(key, format!("value type {t} does not exist"))),
        })
    }

    fn bool(&mut self, key: &str) -> Result<bool> {
        match self.array::<1>(key)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [b] => Err(self.invalid(key, format!("a bool of {b}"))),
        }
    }

    fn elements(&mut self, key: &str) -> Result<Array> {
        let kind = self.u32(key)?;
        macro_rules! numbers {
            ($variant:ident, $t:ty) => {{
                const N: usize = size_of::<$t>();
                let n = self.count(key, N, MAX_ELEMENTS)?;
                let bytes = self.take(key, n.saturating_mul(N))?;
                let (chunks, _) = bytes.as_chunks::<N>();
                Array::$variant(chunks.iter().map(|b| <$t>::from_le_bytes(*b)).collect())
            }};
        }
        Ok(match kind {
            0 => numbers!(U8, u8),
            1 => numbers!(I8, i8),
            2 => numbers!(U16, u16),
            3 => numbers!(I16, i16),
            4 => numbers!(U32, u32),
            5 => numbers!(I32, i32),
            6 => numbers!(F32, f32),
            7 => {
                let n = self.count(key, 1, MAX_ELEMENTS)?;
                Array::Bool((0..n).map(|_| self.bool(key)).collect::<Result<_>>()?)
            }
            8 => {
                let n = self.count(key, 8, MAX_ELEMENTS)?;
                Array::String((0..n).map(|_| self.string(key, MAX_STRING)).collect::<Result<_>>()?)
            }
            9 => return Err(self.invalid(key, "an array of arrays, which no model uses")),
            10 => numbers!(U64, u64),
            11 => numbers!(I64, i64),
            12 => numbers!(F64, f64),
            t => return Err(self.invalid(key, format!("array element type {t} does not exist"))),
        })
    }
}
