//! Importance matrices: for each matrix, the mean square of each value that its columns are multiplied with.
//!
//! llama.cpp writes them as GGUF (`general.type` "imatrix") and, before 2025, in a format of its own; both are read.

use super::is_quantisable;
use llava::Error;
use llava::gguf::{File, Value, Writer};
use llava::quant::BlockType;
use std::collections::BTreeMap;
use std::path::Path;

/// What an importance matrix says of one tensor.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    /// Sums of squares, one for each column.
    squares: Vec<f32>,
    /// How many rows of activations were summed.
    count: f32,
    /// The means.
    importance: Vec<f32>,
}

/// An importance matrix: how much the error of each column's weights counts.
#[derive(Clone, Debug, Default)]
pub struct ImportanceMatrix {
    name: String,
    datasets: Vec<String>,
    chunks: u32,
    chunk_size: u32,
    entries: BTreeMap<String, Entry>,
}

/// Of a tensor's name to those of the GGUF format.
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

impl ImportanceMatrix {
    /// An empty one, which is collected from `dataset` in `chunk_size` positions at a time.
    pub fn new(dataset: impl Into<String>, chunk_size: usize) -> Self {
        let dataset = dataset.into();
        Self {
            name: dataset.clone(),
            datasets: vec![dataset],
            chunks: 0,
            chunk_size: u32::try_from(chunk_size).unwrap_or(u32::MAX),
            entries: BTreeMap::new(),
        }
    }

    /// Reads a file of llama.cpp's, or one written by [`ImportanceMatrix::save`].
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::InvalidModel`] if it is no importance matrix, or damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let io = |source| Error::Io { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(io)?;
        let name = path.display().to_string();
        if bytes.starts_with(b"GGUF") { from_gguf(&File::from_bytes(bytes)?, name) } else { from_dat(&bytes, name) }
    }

    /// Adds activations, rows as wide as `tensor` has columns.
    pub fn add(&mut self, tensor: &str, rows: &[f32], width: usize) {
        let entry = self.entries.entry(tensor.to_owned()).or_insert_with(|| Entry {
            squares: vec![0.0; width],
            count: 0.0,
            importance: Vec::new(),
        });
        for row in rows.chunks_exact(width) {
            entry.squares.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * x);
            entry.count += 1.0;
        }
    }

    /// Counts a chunk of the text; what was added until then is in the importances.
    pub fn end_chunk(&mut self) {
        self.chunks += 1;
        for entry in self.entries.values_mut() {
            entry.importance = mean(&entry.squares, entry.count);
        }
    }

    /// An error if a sum of squares is no finite number: `model` is damaged.
    pub(super) fn validate(&self, model: &str) -> Result<(), Error> {
        match self.entries.iter().find(|(_, e)| e.squares.iter().any(|s| !s.is_finite())) {
            Some((name, _)) => Err(invalid(model, name, "meets activations that are no finite numbers")),
            None => Ok(()),
        }
    }

    /// Tensors it knows.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The importance of `tensor`'s columns.
    pub fn of(&self, tensor: &str) -> Option<&[f32]> {
        self.entries.get(tensor).map(|e| &e.importance[..])
    }

    /// An error if it does not belong to `file`: it knows none of its tensors, or has another number of columns for one.
    pub(super) fn check(&self, file: &File) -> Result<(), Error> {
        let mut known = 0;
        for (name, entry) in &self.entries {
            let Some(tensor) = file.tensor(name) else { continue };
            known += 1;
            // A convolution's kernels are multiplied with as a matrix, and stay as they are.
            if !is_quantisable(name, tensor.dims()) {
                continue;
            }
            let (found, expected) = (entry.importance.len(), tensor.dims()[0]);
            if found != expected {
                let reason = format!("{name} has {found} columns, and {expected} in {}", file.name());
                return Err(Error::InvalidArgument { name: "imatrix", reason });
            }
        }
        if known == 0 {
            let reason = format!("{} knows no tensor of {}", self.name, file.name());
            return Err(Error::InvalidArgument { name: "imatrix", reason });
        }
        Ok(())
    }

    /// Notes in a quantised file what it was made with, under llama.cpp's keys.
    pub(super) fn describe(&self, writer: &mut Writer<'_>) {
        writer.set("quantize.imatrix.file", Value::String(self.name.clone()));
        if let Some(dataset) = self.datasets.first() {
            writer.set("quantize.imatrix.dataset", Value::String(dataset.clone()));
        }
        writer.set("quantize.imatrix.entries_count", Value::U32(u32::try_from(self.len()).unwrap_or(u32::MAX)));
        writer.set("quantize.imatrix.chunks_count", Value::U32(self.chunks));
    }

    /// Writes it as GGUF, by way of a temporary file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let mut writer = Writer::new();
        writer.set("general.type", Value::String("imatrix".into()));
        writer.set("imatrix.datasets", Value::Array(llava::gguf::Array::String(self.datasets.clone())));
        writer.set("imatrix.chunk_count", Value::U32(self.chunks));
        writer.set("imatrix.chunk_size", Value::U32(self.chunk_size));
        for (name, e) in &self.entries {
            let bytes = |x: &[f32]| -> Vec<u8> { x.iter().flat_map(|v| v.to_le_bytes()).collect() };
            writer.tensor(format!("{name}{SUMS}"), &[e.squares.len(), 1], BlockType::F32, bytes(&e.squares))?;
            writer.tensor(format!("{name}{COUNTS}"), &[1, 1], BlockType::F32, bytes(&[e.count]))?;
        }
        writer.save(path)
    }
}

fn mean(squares: &[f32], count: f32) -> Vec<f32> {
    // A matrix of experts that were never asked has no count; it counts evenly.
    squares.iter().map(|s| if count > 0.0 { s / count } else { 1.0 }).collect()
}

fn invalid(file: &str, field: &str, reason: impl Into<String>) -> Error {
    Error::InvalidModel { file: file.to_owned(), field: field.to_owned(), reason: reason.into() }
}

fn from_gguf(file: &File, name: String) -> Result<ImportanceMatrix, Error> {
    if file.str("general.type")? != Some("imatrix") {
        return Err(invalid(&name, "general.type", "this GGUF file is no importance matrix"));
    }
    let floats = |tensor: &str| -> Result<Option<Vec<f32>>, Error> {
        let Some(t) = file.tensor(tensor) else { return Ok(None) };
        let (Some(BlockType::F32), Some(data)) = (t.block_type(), t.data()) else {
            return Err(invalid(&name, tensor, format!("is {}, expected F32", t.type_name())));
        };
        Ok(Some(data.as_slice().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()))
    };
    let mut entries = BTreeMap::new();
    for tensor in file.tensors() {
        let Some(of) = tensor.name().strip_suffix(SUMS) else { continue };
        let counts = floats(&format!("{of}{COUNTS}"))?;
        let (Some(squares), Some(&[count])) = (floats(tensor.name())?, counts.as_deref()) else {
            return Err(invalid(&name, of, format!("needs one number in {of}{COUNTS}")));
        };
        if !count.is_finite() || squares.iter().any(|s| !s.is_finite() || *s < 0.0) {
            return Err(invalid(&name, of, "has sums of squares that are none"));
        }
        entries.insert(of.to_owned(), Entry { importance: mean(&squares, count), squares, count });
    }
    Ok(ImportanceMatrix {
        datasets: file.strings("imatrix.datasets")?.unwrap_or_default().to_vec(),
        chunks: file.u32("imatrix.chunk_count")?.unwrap_or(0),
        chunk_size: file.u32("imatrix.chunk_size")?.unwrap_or(0),
        entries,
        name,
    })
}

/// The format before GGUF: a count of entries; of each its name, a number of calls and the values times it.
fn from_dat(bytes: &[u8], name: String) -> Result<ImportanceMatrix, Error> {
    let mut rest = bytes;
    let mut take =
        |n: usize| rest.split_off(..n).ok_or_else(|| invalid(&name, "file", "ends early, or is no importance matrix"));
    fn number(bytes: &[u8]) -> usize {
        bytes.try_into().map_or(0, |b| u32::from_le_bytes(b) as usize)
    }
    let mut entries = BTreeMap::new();
    for _ in 0..number(take(4)?) {
        let len = number(take(4)?);
        let tensor = String::from_utf8_lossy(take(len)?).into_owned();
        let calls = number(take(4)?) as f32;
        let len = number(take(4)?);
        let values = take(len.saturating_mul(4))?;
        let squares: Vec<f32> = values.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if squares.iter().any(|s| !s.is_finite() || *s < 0.0) {
            return Err(invalid(&name, &tensor, "has sums of squares that are none"));
        }
        entries.insert(tensor, Entry { importance: mean(&squares, calls), squares, count: calls });
    }
    Ok(ImportanceMatrix { name, entries, ..ImportanceMatrix::default() })
}
