//! An opened GGUF model: one file, or several that belong together.

#![warn(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use super::parse::parse;
use super::storage::{Span, Storage};
use super::value::{Array, Value};
use crate::error::{Error, Result};
use crate::quant::BlockType;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// More parts than any model has; their names have five digits.
const MAX_PARTS: u32 = 10_000;

/// A validated GGUF file: metadata, and tensors whose bytes are known to be there.
#[derive(Debug)]
pub struct File {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) metadata: Vec<(String, Value)>,
    pub(super) index: HashMap<String, usize>,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) tensor_index: HashMap<String, usize>,
}

/// A tensor's description and its bytes.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    pub(super) name: String,
    pub(super) dims: Vec<usize>,
    pub(super) type_id: u32,
    pub(super) block_type: Option<BlockType>,
    pub(super) data: Option<Span>,
}

impl TensorInfo {
    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Dimensions, fastest first (ggml's `ne`): a matrix is `[in, out]`, its rows `in` long.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// How the values are stored; `None` for a type that the engine does not read.
    pub fn block_type(&self) -> Option<BlockType> {
        self.block_type
    }

    /// The type's name, also of types that the engine does not read.
    pub fn type_name(&self) -> String {
        match self.block_type {
            Some(t) => t.name().to_owned(),
            None => foreign_type_name(self.type_id).map_or(format!("type {}", self.type_id), str::to_owned),
        }
    }

    /// The bytes; `None` for a type that the engine does not read.
    pub fn data(&self) -> Option<&Span> {
        self.data.as_ref()
    }

    /// Size in bytes; 0 for a type that the engine does not read.
    pub fn bytes(&self) -> usize {
        self.data.as_ref().map_or(0, |d| d.as_slice().len())
    }
}

impl File {
    /// Maps `path`, and the other parts of a split model (`NAME-00001-of-00003.gguf`, …) beside it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let first = parse(&path.display().to_string(), Storage::map(path)?)?;
        let Some(count) = first.u32("split.count")?.filter(|&n| n > 1) else { return Ok(first) };
        if count > MAX_PARTS {
            let reason = format!("the model has {count} parts, at most {MAX_PARTS} are read");
            return Err(Error::invalid(first.name(), "split.count", reason));
        }
        let parts = split_paths(path, count).ok_or_else(|| {
            Error::invalid(
                first.name(),
                "split.count",
                format!("the model has {count} parts, but the file is not named NAME-00001-of-{count:05}.gguf"),
            )
        })?;
        let files = parts.iter().map(|p| parse(&p.display().to_string(), Storage::map(p)?)).collect::<Result<_>>()?;
        join(files)
    }

    /// Reads a model from memory. A split model is not joined: use [`File::from_parts`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::from_parts(vec![bytes])
    }

    /// Reads a model from memory, all parts of a split model in order.
    pub fn from_parts(parts: Vec<Vec<u8>>) -> Result<Self> {
        join(parts.into_iter().map(|b| parse("<memory>", Storage::Owned(b.into()))).collect::<Result<_>>()?)
    }

    /// Reads a model that is part of the program.
    pub fn from_static(bytes: &'static [u8]) -> Result<Self> {
        join(vec![parse("<memory>", Storage::Static(bytes))?])
    }

    /// The path it was opened by, or `<memory>`; for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The format's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Keys and values in the order of the file.
    pub fn metadata(&self) -> &[(String, Value)] {
        &self.metadata
    }

    /// All tensors in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensor_index.get(name).and_then(|&i| self.tensors.get(i))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).and_then(|&i| self.metadata.get(i)).map(|(_, v)| v)
    }

    /// An unsigned integer, stored in any integer type. An error if the key holds something else.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "an integer from 0 to 4294967295", |v| u32::try_from(v.as_int()?).ok())
    }

    /// A finite floating point number.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a finite number", |v| match v {
            Value::F32(x) => x.is_finite().then_some(*x),
            Value::F64(x) => (*x as f32).is_finite().then_some(*x as f32),
            _ => None,
        })
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |v| match v {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |v| match v {
            Value::String(s) => Some(s.as_str()),
            _ => None,
        })
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of strings", |v| match v {
            Value::Array(Array::String(s)) => Some(s.as_slice()),
            _ => None,
        })
    }

    /// An array of integers of any width.
    pub fn i64s(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.typed(key, "an array of integers", |v| match v {
            Value::Array(a) => a.to_i64s(),
            _ => None,
        })
    }

    /// An array of f32.
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "an array of f32", |v| match v {
            Value::Array(Array::F32(x)) => Some(x.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(&'a self, key: &str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => match read(v) {
                Some(t) => Ok(Some(t)),
                None => Err(Error::invalid(&self.name, key, format!("expected {what}, found {} ({v})", v.type_name()))),
            },
        }
    }

    /// `value`, or an error that says the key is missing.
    pub fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::invalid(&self.name, key, "this required key is missing"))
    }
}

/// The paths of all parts of a split model, from the path of the first.
fn split_paths(path: &Path, count: u32) -> Option<Vec<PathBuf>> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(&format!("-00001-of-{count:05}.gguf"))?;
    Some((1..=count).map(|i| path.with_file_name(format!("{stem}-{i:05}-of-{count:05}.gguf"))).collect())
}

/// Joins the parts of a split model; one file that is not split is returned as it is.
fn join(parts: Vec<File>) -> Result<File> {
    let n = parts.len();
    let mut parts = parts.into_iter();
    let Some(mut whole) = parts.next() else {
        return Err(Error::invalid("<memory>", "file", "no bytes were given"));
    };
    let count = whole.u32("split.count")?.unwrap_or(1).max(1) as usize;
    if count != n {
        return Err(Error::invalid(&whole.name, "split.count", format!("the model has {count} parts, {n} were given")));
    }
    for (i, part) in std::iter::once(None).chain(parts.map(Some)).enumerate() {
        let this = part.as_ref().unwrap_or(&whole);
        if let Some(no) = this.u32("split.no")?.filter(|&no| no as usize != i) {
            return Err(Error::invalid(&this.name, "split.no", format!("is part {no}, expected part {i}")));
        }
        let Some(part) = part else { continue };
        for tensor in part.tensors {
            if whole.tensor_index.insert(tensor.name.clone(), whole.tensors.len()).is_some() {
                return Err(Error::invalid(&part.name, tensor.name, "this tensor stands in two parts"));
            }
            whole.tensors.push(tensor);
        }
    }
    if let Some(total) = whole.u32("split.tensors.count")?.filter(|&t| n > 1 && t as usize != whole.tensors.len()) {
        let found = whole.tensors.len();
        return Err(Error::invalid(&whole.name, "split.tensors.count", format!("is {total}, the parts have {found}")));
    }
    Ok(whole)
}

/// ggml's names for the types that the engine does not read.
fn foreign_type_name(id: u32) -> Option<&'static str> {
    Some(match id {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return None,
    })
}
