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
    bytes: usize,
    data: Data<'a>,
}

enum Data<'a> {
    Here(Cow<'a, [u8]>),
    /// Made while the file is written.
    Later(Box<Make<'a>>),
}

/// Writes a tensor's blocks.
type Make<'a> = dyn Fn(&mut dyn Write) -> io::Result<()> + 'a;

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
        let bytes = tensor_bytes(&name, dims, block_type)?;
        if bytes != data.len() {
            let reason = format!("{name}: {} bytes, expected {bytes} for {block_type} of {dims:?}", data.len());
            return Err(Error::argument("data", reason));
        }
        self.add(name, dims, block_type, bytes, Data::Here(data))
    }

    /// Adds a tensor whose blocks `make` writes, row after row, when the file is written: for those that need not be in
    /// memory all at once.
    ///
    /// # Errors
    /// As [`Writer::tensor`]. Writing the file fails if `make` writes another number of bytes than the dimensions and the
    /// type ask for.
    pub fn tensor_with(
        &mut self,
        name: impl Into<String>,
        dims: &[usize],
        block_type: BlockType,
        make: impl Fn(&mut dyn Write) -> io::Result<()> + 'a,
    ) -> Result<&mut Self> {
        let name = name.into();
        let bytes = tensor_bytes(&name, dims, block_type)?;
        self.add(name, dims, block_type, bytes, Data::Later(Box::new(make)))
    }

    fn add(
        &mut self,
        name: String,
        dims: &[usize],
        block_type: BlockType,
        bytes: usize,
        data: Data<'a>,
    ) -> Result<&mut Self> {
        if name.len() > 63 || self.tensors.iter().any(|t| t.name == name) {
            return Err(Error::argument("name", format!("{name:?} is longer than 63 bytes or stands twice")));
        }
        self.tensors.push(Tensor { name, dims: dims.to_vec(), block_type, bytes, data });
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
            offset += t.bytes.next_multiple_of(ALIGNMENT) as u64;
        }
        out.write_all(&head)?;
        out.write_all(padding(head.len()))?;
        for t in &self.tensors {
            match &t.data {
                Data::Here(data) => out.write_all(data)?,
                Data::Later(make) => {
                    let mut counted = Counted { out, bytes: 0 };
                    make(&mut counted)?;
                    if counted.bytes != t.bytes {
                        let reason = format!("{}: {} bytes were made, expected {}", t.name, counted.bytes, t.bytes);
                        return Err(io::Error::other(reason));
                    }
                }
            }
            out.write_all(padding(t.bytes))?;
        }
        Ok(())
    }

    /// The file's bytes. Panics if a tensor that is [made](Writer::tensor_with) fails.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.write(&mut out) {
            Ok(()) => out,
            Err(e) => panic!("a Vec takes every write: {e}"),
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

/// Bytes of a tensor.
fn tensor_bytes(name: &str, dims: &[usize], block_type: BlockType) -> Result<usize> {
    let row = dims.first().and_then(|&d| block_type.row_bytes(d));
    let bytes = row.and_then(|b| dims.iter().skip(1).try_fold(b, |n, &d| n.checked_mul(d)));
    bytes
        .filter(|_| (1..=4).contains(&dims.len()))
        .ok_or_else(|| Error::argument("dims", format!("{name}: there is no {block_type} tensor of {dims:?}")))
}

/// Counts what is written.
struct Counted<'w, W> {
    out: &'w mut W,
    bytes: usize,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.out.write(buf)?;
        self.bytes += n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
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
