//! Smaller files of a GGUF file, as `llama-quantize` makes them: the same types for the same tensors, the same blocks.
//!
//! ```no_run
//! use llava::gguf::File;
//! use llava_convert::quantize::{Options, quantize};
//! use std::ops::ControlFlow;
//!
//! let file = File::open("llava-f16.gguf")?;
//! let options = Options::new("q4_k_m".parse()?);
//! let report = quantize(&file, "llava-q4_k_m.gguf", &options, &mut |_| ControlFlow::Continue(()))?;
//! println!("{} to {} bytes", report.bytes_before(), report.bytes_after());
//! # Ok::<(), llava::Error>(())
//! ```

mod check;
mod collect;
mod encode;
mod imatrix;
mod mixture;
mod text;

pub use check::{Comparison, compare};
pub use collect::Collector;
pub(crate) use encode::{Encoder, Loss};
pub use imatrix::ImportanceMatrix;
pub use mixture::{Mixture, Model, fallback, is_quantisable, type_of};

use llava::Error;
use llava::gguf::{File, TensorInfo, Value, Writer};
use llava::quant::{self, BlockType};
use regex::Regex;
use std::cell::RefCell;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::thread;

/// How a file is quantised.
pub struct Options {
    /// Which tensor gets which type.
    pub mixture: Mixture,
    /// Types for tensors whose names match, before the mixture; the first that matches counts.
    pub tensors: Vec<(Regex, BlockType)>,
    /// How much the error of each weight counts.
    pub importance: Option<ImportanceMatrix>,
    /// Allow tensors that are quantised already. Their error adds to the new one.
    pub requantize: bool,
    /// Threads to compute with.
    pub threads: usize,
}

impl Options {
    /// The mixture and nothing else, on as many threads as the process may use.
    pub fn new(mixture: Mixture) -> Self {
        let threads = thread::available_parallelism().map_or(1, |n| n.get());
        Self { mixture, tensors: Vec::new(), importance: None, requantize: false, threads }
    }
}

/// How far it is, before each part of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The tensor.
    pub tensor: &'a str,
    /// Bytes of the source that are done.
    pub done: u64,
    /// All bytes of the source.
    pub total: u64,
}

/// What became of each tensor.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of the file.
    pub tensors: Vec<Tensor>,
}

/// What became of a tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions, fastest first.
    pub dims: Vec<usize>,
    /// Its type before.
    pub from: BlockType,
    /// Its type now.
    pub to: BlockType,
    /// Its bytes before.
    pub bytes_before: u64,
    /// Its bytes now.
    pub bytes_after: u64,
    /// The norm of what it lost over its own norm; 0 for one that was copied.
    pub error: f64,
}

impl Report {
    /// Bytes of all tensors before.
    pub fn bytes_before(&self) -> u64 {
        self.tensors.iter().map(|t| t.bytes_before).sum()
    }

    /// Bytes of all tensors now.
    pub fn bytes_after(&self) -> u64 {
        self.tensors.iter().map(|t| t.bytes_after).sum()
    }
}

/// Writes `file` with other types to `path`, by way of a temporary file beside it. `on_progress` can cancel.
///
/// # Errors
/// [`Error::Unsupported`] for tensors of types that are not read, and for quantised ones unless that is allowed;
/// [`Error::InvalidModel`] for weights that are no finite numbers; [`Error::InvalidArgument`] if nothing can be made of the
/// importance matrix; [`Error::Cancelled`]; [`Error::Io`]. `path` is then as it was.
pub fn quantize(
    file: &File,
    path: impl AsRef<Path>,
    options: &Options,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Report, Error> {
    let path = path.as_ref();
    let model = Model::of(file, options.importance.is_some())?;
    let total = file.tensors().iter().map(|t| t.bytes() as u64).sum();
    let job = Job {
        file,
        options,
        total,
        state: RefCell::new(State { on_progress, done: 0, report: Report::default(), failed: None }),
    };
    let mut writer = Writer::new();
    for (key, value) in file.metadata() {
        // A split model is joined.
        if !key.starts_with("split.") {
            writer.set(key.clone(), value.clone());
        }
    }
    writer.set("general.file_type", Value::U32(options.mixture.file_type()));
    writer.set("general.quantization_version", Value::U32(2));
    if let Some(importance) = &options.importance {
        importance.check(file)?;
        importance.describe(&mut writer);
    }
    for tensor in file.tensors() {
        let to = job.type_of(tensor, &model)?;
        let job = &job;
        writer.tensor_with(tensor.name(), tensor.dims(), to, move |out| job.write(tensor, to, out))?;
    }
    let written = writer.save(path);
    drop(writer);
    let state = job.state.into_inner();
    match (written, state.failed) {
        (Ok(()), _) => Ok(state.report),
        (Err(_), Some(reason)) => Err(reason),
        (Err(e), None) => Err(e),
    }
}

struct Job<'a> {
    file: &'a File,
    options: &'a Options,
    total: u64,
    state: RefCell<State<'a>>,
}

struct State<'a> {
    on_progress: &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    done: u64,
    report: Report,
    /// Why writing failed, where the writer cannot know.
    failed: Option<Error>,
}

impl Job<'_> {
    fn type_of(&self, tensor: &TensorInfo, model: &Model) -> Result<BlockType, Error> {
        let (name, columns) = (tensor.name(), tensor.dims()[0]);
        let unsupported =
            |reason: String| Error::Unsupported { file: self.file.name().to_owned(), field: name.to_owned(), reason };
        let from = tensor
            .block_type()
            .ok_or_else(|| unsupported(format!("type {}, which is not read", tensor.type_name())))?;
        if !is_quantisable(name, tensor.dims()) {
            return Ok(from);
        }
        let named = self.options.tensors.iter().find(|(pattern, _)| pattern.is_match(name));
        let to = match named {
            Some(&(_, kind)) => fallback(kind, columns),
            None => type_of(self.options.mixture, model, name, columns),
        };
        if to != from && !from.is_float() && !self.options.requantize {
            return Err(unsupported(format!(
                "is {from} already, and quantising it again adds to its error: start from an F16, BF16 or F32 file, or \
                 allow requantizing"
            )));
        }
        Ok(to)
    }

    /// Writes a tensor's blocks, some rows at a time.
    fn write(&self, tensor: &TensorInfo, to: BlockType, out: &mut dyn Write) -> io::Result<()> {
        let (Some(from), Some(span)) = (tensor.block_type(), tensor.data()) else { return Ok(()) };
        let (columns, data) = (tensor.dims()[0], span.as_slice());
        let Some(row_bytes) = from.row_bytes(columns).filter(|&b| b > 0) else { return Ok(()) };
        let importance = self.options.importance.as_ref().and_then(|i| i.of(tensor.name()));
        let encoder = Encoder { to, columns, importance, threads: self.options.threads };
        let (mut loss, mut buffer, mut bytes_after) = (Loss::default(), Vec::new(), 0);
        for part in data.chunks(encoder.rows_at_once() * row_bytes) {
            self.report(tensor.name(), part.len())?;
            if from == to {
                out.write_all(part)?;
                bytes_after += part.len();
                continue;
            }
            let read = |row: usize, x: &mut [f32]| quant::dequantize(from, &part[row * row_bytes..][..row_bytes], x);
            encoder.encode(part.len() / row_bytes, read, &mut buffer, &mut loss);
            if let Some(reason) = loss.complaint(to) {
                let (file, field) = (self.file.name().to_owned(), tensor.name().to_owned());
                return Err(self.fail(Error::InvalidModel { file, field, reason }));
            }
            out.write_all(&buffer)?;
            bytes_after += buffer.len();
            span.release();
        }
        span.release();
        self.state.borrow_mut().report.tensors.push(Tensor {
            name: tensor.name().to_owned(),
            dims: tensor.dims().to_vec(),
            from,
            to,
            bytes_before: data.len() as u64,
            bytes_after: bytes_after as u64,
            error: loss.error(),
        });
        Ok(())
    }

    /// Says how far it is before `bytes` more of the source.
    fn report(&self, tensor: &str, bytes: usize) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let done = state.done;
        state.done += bytes as u64;
        if (state.on_progress)(Progress { tensor, done, total: self.total }).is_break() {
            drop(state);
            return Err(self.fail(Error::Cancelled));
        }
        Ok(())
    }

    fn fail(&self, reason: Error) -> io::Error {
        self.state.borrow_mut().failed = Some(reason);
        io::Error::other("see the reason kept")
    }
}
