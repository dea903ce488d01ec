//! The tensors of a checkpoint folder: safetensors files, sharded or not. Nothing in them is trusted.

use super::{invalid, onnx};
use half::{bf16, f16};
use llava::Error;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The longest header that the safetensors library reads.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor whose values are read when they are wanted.
#[derive(Clone)]
pub struct Tensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// Rows first.
    pub shape: Vec<usize>,
    store: Store,
    /// What a LoRA adds to it.
    pub lora: Option<Arc<Lora>>,
}

#[derive(Clone)]
enum Store {
    File { file: Arc<Shard>, start: u64, kind: Kind },
    Memory(Arc<Vec<f32>>),
}

/// A file with tensors.
struct Shard {
    path: PathBuf,
    file: Mutex<File>,
}

/// How numbers are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    F64,
    F32,
    F16,
    BF16,
}

/// `scale · b · a`, which is added to a matrix.
pub struct Lora {
    /// `[rank, in]`.
    pub a: Vec<f32>,
    /// `[out, rank]`.
    pub b: Vec<f32>,
    /// The rank.
    pub rank: usize,
    /// The factor.
    pub scale: f32,
}

/// What a header says of a tensor.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// All tensors of a folder, by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Reads the headers of a folder's safetensors files, or an ONNX file. A folder without either has no tensors.
///
/// # Errors
/// [`Error::Io`]; [`Error::InvalidModel`] for files that break the format, lack what the index promises, or have what it does
/// not; [`Error::Unsupported`] for types that are not read, and where there are only pickles.
pub fn open(folder: &Path) -> Result<Tensors, Error> {
    if folder.extension().is_some_and(|e| e == "onnx") {
        return onnx::open(folder);
    }
    let index = folder.join("model.safetensors.index.json");
    if index.exists() {
        return sharded(folder, &index);
    }
    let mut found = Tensors::new();
    let (mut files, mut pickles) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })? {
        let path = entry.map_err(|source| Error::Io { path: folder.to_owned(), source })?.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("safetensors") => files.push(path),
            Some("bin" | "pt" | "pth") => pickles.push(path),
            _ => {}
        }
    }
    files.sort();
    for path in &files {
        for (name, tensor) in shard(path)? {
            if found.insert(name.clone(), tensor).is_some() {
                let reason = "stands in more than one file of the folder, and there is no model.safetensors.index.json";
                return Err(invalid(path, &name, reason));
            }
        }
    }
    // A LLaVA's projector and its other trained parts may be pickles beside safetensors.
    let weights = |path: &PathBuf| {
        let name = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
        ["pytorch_model", "mm_projector", "non_lora_trainables", "adapter_model", "consolidated"]
            .iter()
            .any(|w| name.starts_with(w))
            && !files.iter().any(|f| f.file_stem() == path.file_stem())
            && !(name.starts_with("pytorch_model") && files.iter().any(|f| f.to_string_lossy().contains("model")))
    };
    pickles.retain(weights);
    pickles.sort();
    match pickles.first() {
        Some(path) => Err(Error::Unsupported {
            file: path.display().to_string(),
            field: "format".into(),
            reason:
                "is a Python pickle, which can run any program when it is read: write it as safetensors first, with \
                     Python: `from safetensors.torch import save_file; import torch; save_file(torch.load(\"X.bin\", \
                     weights_only=True), \"X.safetensors\")`"
                    .into(),
        }),
        None => Ok(found),
    }
}

fn sharded(folder: &Path, index: &Path) -> Result<Tensors, Error> {
    let bytes = fs::read(index).map_err(|source| Error::Io { path: index.to_owned(), source })?;
    let Index { weight_map } =
        serde_json::from_slice(&bytes).map_err(|e| invalid(index, "weight_map", &e.to_string()))?;
    let mut files: Vec<&String> = weight_map.values().collect();
    files.sort();
    files.dedup();
    let mut found = Tensors::new();
    for file in files {
        if Path::new(file).file_name().is_none_or(|name| name != file.as_str()) {
            return Err(invalid(index, "weight_map", &format!("names the file {file:?}, which is not in the folder")));
        }
        let path = folder.join(file);
        for (name, tensor) in shard(&path)? {
            match weight_map.get(&name) {
                Some(stated) if stated == file => found.insert(name, tensor),
                Some(stated) => {
                    let reason = format!("is in {file}, and the index says {stated}");
                    return Err(invalid(index, &name, &reason));
                }
                None => return Err(invalid(index, &name, &format!("is in {file}, and the index does not know it"))),
            };
        }
    }
    match weight_map.iter().find(|(name, _)| !found.contains_key(*name)) {
        Some((name, file)) => Err(invalid(index, name, &format!("is not in {file}, where the index says it is"))),
        None => Ok(found),
    }
}

/// The tensors of one file.
fn shard(path: &Path) -> Result<Vec<(String, Tensor)>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let mut size = [0; 8];
    let too_short = |field: &str| invalid(path, field, &format!("the file is cut short: it has {len} bytes"));
    file.read_exact(&mut size).map_err(|_| too_short("header"))?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER {
        return Err(invalid(
            path,
            "header",
            &format!("says it is {size} bytes long, and at most {MAX_HEADER} are read"),
        ));
    }
    if size > len - 8 {
        return Err(too_short("header"));
    }
    let mut header = vec![0; usize::try_from(size).map_err(|_| too_short("header"))?];
    file.read_exact(&mut header).map_err(|_| too_short("header"))?;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|e| invalid(path, "header", &format!("is no JSON object: {e}")))?;
    let data = 8 + size;
    let shared = Arc::new(Shard { path: path.to_owned(), file: Mutex::new(file) });
    let mut found = Vec::new();
    let mut spans = Vec::new();
    for (name, value) in header {
        if name == "__metadata__" {
            continue;
        }
        let entry: Entry = serde_json::from_value(value).map_err(|e| invalid(path, &name, &e.to_string()))?;
        let Some(kind) = Kind::of(&entry.dtype) else {
            let reason = format!("is stored as {}; F64, F32, F16 and BF16 are read", entry.dtype);
            return Err(Error::Unsupported { file: path.display().to_string(), field: name, reason });
        };
        let (start, end) = entry.data_offsets;
        let values = entry.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
        let bytes = values.and_then(|n| n.checked_mul(kind.bytes() as u64));
        if end < start || bytes != Some(end - start) {
            let reason = format!("has bytes {start} to {end}, which {:?} of {} don't take", entry.shape, entry.dtype);
            return Err(invalid(path, &name, &reason));
        }
        if end > len - data {
            return Err(invalid(path, &name, &format!("ends at byte {end} of {}: the file is cut short", len - data)));
        }
        spans.push((start, end, name.clone()));
        let store = Store::File { file: shared.clone(), start: data + start, kind };
        found.push((name.clone(), Tensor { name, shape: entry.shape, store, lora: None }));
    }
    spans.sort();
    match spans.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        Some(pair) => Err(invalid(path, &pair[1].2, &format!("overlaps {}", pair[0].2))),
        None => Ok(found),
    }
}

impl Kind {
    fn of(dtype: &str) -> Option<Self> {
        Some(match dtype {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F64 => bytes.as_chunks().0.iter().zip(out).for_each(|(b, x)| *x = f64::from_le_bytes(*b) as f32),
            Self::F32 => bytes.as_chunks().0.iter().zip(out).for_each(|(b, x)| *x = f32::from_le_bytes(*b)),
            Self::F16 => bytes.as_chunks().0.iter().zip(out).for_each(|(b, x)| *x = f16::from_le_bytes(*b).to_f32()),
            Self::BF16 => bytes.as_chunks().0.iter().zip(out).for_each(|(b, x)| *x = bf16::from_le_bytes(*b).to_f32()),
        }
    }
}

impl Tensor {
    /// A tensor with these values.
    pub fn from_values(name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self { name: name.into(), shape, store: Store::Memory(Arc::new(values)), lora: None }
    }

    /// The file that it is in.
    pub fn file(&self) -> PathBuf {
        match &self.store {
            Store::File { file, .. } => file.path.clone(),
            Store::Memory(_) => "<memory>".into(),
        }
    }

    /// Values in all.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Reads `count` rows of `columns` values each, from row `first` on.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read_rows(&self, first: usize, count: usize, columns: usize, out: &mut [f32]) -> io::Result<()> {
        let out = &mut out[..count * columns];
        match &self.store {
            Store::Memory(values) => out.copy_from_slice(&values[first * columns..][..count * columns]),
            Store::File { file, start, kind } => {
                let mut bytes = vec![0; count * columns * kind.bytes()];
                let mut file = file.file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(start + (first * columns * kind.bytes()) as u64))?;
                file.read_exact(&mut bytes)?;
                kind.decode(&bytes, out);
            }
        }
        if let Some(lora) = &self.lora {
            for (row, out) in (first..).zip(out.chunks_exact_mut(columns)) {
                lora.add(row, out);
            }
        }
        Ok(())
    }

    /// All values.
    ///
    /// # Errors
    /// Those of reading.
    pub fn values(&self) -> Result<Vec<f32>, Error> {
        let mut out = vec![0.0; self.len()];
        self.read_rows(0, 1, self.len(), &mut out).map_err(|source| Error::Io { path: self.file(), source })?;
        Ok(out)
    }
}

impl Lora {
    fn add(&self, row: usize, out: &mut [f32]) {
        let columns = out.len();
        for (b, a) in self.b[row * self.rank..][..self.rank].iter().zip(self.a.chunks_exact(columns)) {
            let factor = self.scale * b;
            out.iter_mut().zip(a).for_each(|(x, a)| *x += factor * a);
        }
    }
}
