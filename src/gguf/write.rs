//! Writing GGUF.

use super::value::{Array, Value};
use crate::error::{Error, Result};
use crate::quant::BlockType;
use crate::replace::replace;
use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

const ALIGNMENT: usize = 32;

/// Collects metadata and tensors and writes them as a GGUF version 3 file.
///
/// ```
/// use llava::gguf::{File, Value, Writer};
/// use llava::quant::BlockType;
///
/// let mut w = Writer::new();
/// w.set("general.architecture", Value::String("llama".into()));
/// w.tensor("output_norm.weight", &[4], BlockType::F32, vec![0; 16])?;
/// let file = File::from_bytes(w.to_bytes())?;
/// assert_eq!(file.tensor("output_norm.weight").unwrap().dims(), [4]);
/// # Ok::<(), llava::Error>(())
/// ```
#[derive(Default)]
pub struct Writer<'a> {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Tensor<'a>>,
}

struct Tensor<'a> {
    name: String,
    dims: Vec<usize>,
    block_type: BlockType,
    data: Cow<'a, [u8]>,
}

impl<'a> Writer<'a> {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key`, replacing an earlier value.
    pub fn set(&mut self, key: impl Into<String>, value: Value) -> &mut Self {
        let key = key.into();
        match self.metadata.iter_mut().find(|(k, _)| *k == key) {
            Some((_, v)) => *v = value,
            None => self.metadata.push((key, value)),
        }
        self
    }

    /// Adds a tensor: dimensions fastest first, `data` its blocks row after row.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the name is taken or too long, or the size of `data` is not what the
    /// dimensions and the type make it.
    pub fn tensor(
        &mut self,
        name: impl Into<String>,
        dims: &[usize],
        block_type: BlockType,
        data: impl Into<Cow<'a, [u8]>>,
    ) -> Result<&mut Self> {
        let (name, data) = (name.into(), data.into());
        if name.len() > 63 || self.tensors.iter().any(|t| t.name == name) {
            return Err(Error::argument("name", format!("{name:?} is longer than 63 bytes or stands twice")));
        }
        let row = dims.first().and_then(|&d| block_type.row_bytes(d));
        let bytes = row.and_then(|b| dims.iter().skip(1).try_fold(b, |n, &d| n.checked_mul(d)));
        if !(1..=4).contains(&dims.len()) || bytes != Some(data.len()) {
            return Err(Error::argument(
                "data",
                format!("{name}: {} bytes do not make a {block_type} tensor of {dims:?}", data.len()),
            ));
        }
        self.tensors.push(Tensor { name, dims: dims.to_vec(), block_type, data });
        Ok(self)
    }

    /// Writes the file to `out`.
    ///
    /// # Errors
    /// What `out` returns.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut head = Vec::new();
        head.extend(b"GGUF");
        head.extend(3u32.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            string(&mut head, key);
            head.extend(value.type_id().to_le_bytes());
            put(&mut head, value);
        }
        let mut offset = 0u64;
        for t in &self.tensors {
            string(&mut head, &t.name);
            head.extend((t.dims.len() as u32).to_le_bytes());
            for &d in &t.dims {
                head.extend((d as u64).to_le_bytes());
            }
            head.extend(t.block_type.ggml_id().to_le_bytes());
            head.extend(offset.to_le_bytes());
            offset += t.data.len().next_multiple_of(ALIGNMENT) as u64;
        }
        out.write_all(&head)?;
        out.write_all(padding(head.len()))?;
        for t in &self.tensors {
            out.write_all(&t.data)?;
            out.write_all(padding(t.data.len()))?;
        }
        Ok(())
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.write(&mut out) {
            Ok(()) => out,
            Err(_) => unreachable!("a Vec takes every write"),
        }
    }

    /// Writes `path`: into a temporary file beside it, renamed when complete.
    ///
    /// # Errors
    /// [`Error::Io`] if writing fails; `path` is then as it was.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        replace(path, |mut out| self.write(&mut out)).map_err(|e| Error::io(path, e))
    }
}

fn padding(len: usize) -> &'static [u8] {
    &[0; ALIGNMENT][..len.next_multiple_of(ALIGNMENT) - len]
}

fn string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.push(*v),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(*v as u8),
        Value::String(v) => string(out, v),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
        Value::Array(a) => {
            out.extend(a.type_id().to_le_bytes());
            out.extend((a.len() as u64).to_le_bytes());
            match a {
                Array::U8(v) => out.extend(v),
                Array::I8(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
                Array::U16(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
                Array::I16(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
                Array::U32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
                Array::I32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
                Array::F32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
                Array::Bool(v) => out.extend(v.iter().map(|&b| b as u8)),
                Array::String(v) => v.iter().for_each(|s| string(out, s)),
                Array::U64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
                Array::I64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
                Array::F64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
            }
        }
    }
}
