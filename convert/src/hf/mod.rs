//! Hugging Face checkpoints as GGUF pairs: LLaVA in its original layout and in transformers', and plain language models.
//!
//! ```no_run
//! use llava_convert::hf::{Options, convert};
//! use std::ops::ControlFlow;
//!
//! let report = convert("llava-1.5-7b-hf", "models/llava", &Options::default(), &mut |_| ControlFlow::Continue(()))?;
//! for file in &report.files {
//!     println!("{}", file.path.display());
//! }
//! # Ok::<(), llava::Error>(())
//! ```

mod checkpoint;
mod lora;
mod onnx;
mod plan;
mod protobuf;
mod sentencepiece;
mod settings;
mod text;
mod tokenizer;
mod vision;

pub use plan::Ignored;

use crate::quantize::{Encoder, Loss, Mixture, Model, Progress, Tensor, is_quantisable, type_of};
use llava::Error;
use llava::gguf::{Value, Writer};
use llava::quant::BlockType;
use plan::{Inventory, Part, Planned};
use settings::Settings;
use std::cell::RefCell;
use std::fs;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use text::Text;
use vision::{Sources, Vision};

/// How a checkpoint is converted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Types of the language model's tensors.
    pub text: Mixture,
    /// Types of the mmproj's tensors.
    pub mmproj: Mixture,
    /// The folder of the language model that a projector or a LoRA was trained for.
    pub base: Option<PathBuf>,
    /// The folder of the vision tower, or its ONNX file, where the checkpoint only names it.
    pub tower: Option<PathBuf>,
    /// Threads to compute with.
    pub threads: usize,
}

impl Default for Options {
    /// F16, on as many threads as the process may use.
    fn default() -> Self {
        let threads = thread::available_parallelism().map_or(1, |n| n.get());
        Self { text: Mixture::F16, mmproj: Mixture::F16, base: None, tower: None, threads }
    }
}

/// What was written, and what was not.
#[derive(Clone, Debug)]
pub struct Report {
    /// The language model, and the mmproj if the checkpoint is a LLaVA's.
    pub files: Vec<Written>,
    /// Tensors of the checkpoint that are in neither.
    pub ignored: Vec<Ignored>,
}

/// A file that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Where.
    pub path: PathBuf,
    /// Its tensors, before as F32, whatever the checkpoint has.
    pub tensors: Vec<Tensor>,
}

/// Converts the checkpoint in the folder `from` to a pair of files in the folder `to`, which is made if need be. Both appear
/// there when both are complete. `on_progress` can cancel.
///
/// # Errors
/// [`Error::Io`]; [`Error::InvalidModel`] for a checkpoint that is damaged, incomplete or contradicts itself;
/// [`Error::Unsupported`] for what the engine does not run; [`Error::ModelNotFound`] if a base or a tower must be named;
/// [`Error::Cancelled`]. Nothing is written then.
pub fn convert(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    options: &Options,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Report, Error> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let mut source = Source::open(from, options)?;
    let text = Text::new(source.text.clone())?;
    let vision = source.vision()?;
    let inventory = &mut source.inventory;
    let text_tensors = text.tensors(inventory)?;
    let vision_tensors = vision.as_ref().map(|v| v.tensors(inventory, text.width())).transpose()?.unwrap_or_default();
    inventory.check_empty()?;
    let rows = text_tensors.first().and_then(|t| t.source.shape.first()).copied().unwrap_or(0);
    let name = name_of(from);

    let mut writer = head(text.arch, &name, options.text);
    text.keys(&mut writer, rows)?;
    let folders: Vec<&Path> = std::iter::once(from).chain(options.base.as_deref()).collect();
    tokenizer::read(&folders, &source.text)?.write(&mut writer, rows, from)?;
    let file = format!("{name}-{}.gguf", options.text.name());
    let mut files = vec![Plan { file, writer, mixture: options.text, model: text.model(), tensors: &text_tensors }];
    if let Some(vision) = &vision {
        let mut writer = head("clip", &name, options.mmproj);
        writer.set("general.type", Value::String("mmproj".into()));
        vision.keys(&mut writer, text.width());
        let file = format!("mmproj-{name}-{}.gguf", options.mmproj.name());
        let model = vision.model();
        files.push(Plan { file, writer, mixture: options.mmproj, model, tensors: &vision_tensors });
    }
    let total = text_tensors.iter().chain(&vision_tensors).map(|t| t.source.len() as u64).sum();
    let job = Job {
        total,
        threads: options.threads,
        state: RefCell::new(State { on_progress, done: 0, written: Vec::new(), failed: None }),
    };
    let files = job.run(files, to)?;
    Ok(Report { files, ignored: source.inventory.ignored })
}

/// An error about a checkpoint.
fn invalid(path: &Path, field: &str, reason: &str) -> Error {
    Error::InvalidModel { file: path.display().to_string(), field: field.to_owned(), reason: reason.to_owned() }
}

/// The folder's own name, without what would make it another path.
fn name_of(folder: &Path) -> String {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    whole.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}

fn head<'a>(arch: &str, name: &str, mixture: Mixture) -> Writer<'a> {
    let mut writer = Writer::new();
    writer.set("general.architecture", Value::String(arch.to_owned()));
    writer.set("general.name", Value::String(name.to_owned()));
    writer.set("general.file_type", Value::U32(mixture.file_type()));
    writer.set("general.quantization_version", Value::U32(2));
    writer
}

/// A checkpoint, with what it builds on.
struct Source<'a> {
    from: &'a Path,
    options: &'a Options,
    inventory: Inventory,
    /// LLaVA's configuration.
    llava: Settings,
    /// The language model's.
    text: Settings,
}

impl<'a> Source<'a> {
    fn open(from: &'a Path, options: &'a Options) -> Result<Self, Error> {
        let config = |folder: &Path| {
            let path = folder.join("config.json");
            Ok::<_, Error>(settings::read(&path)?.map(|json| Settings::new(path, json)))
        };
        let own = config(from)?;
        let base = options.base.as_deref().map(config).transpose()?.flatten();
        let Some(llava) = own.clone().or(base.clone()) else {
            return Err(invalid(&from.join("config.json"), "file", "is missing"));
        };
        // transformers keeps the language model's settings apart, the original mixes them with its own.
        let text = [own, base].into_iter().flatten().map(|c| c.sub("text_config").unwrap_or(c.clone()).or(c));
        let text = text.reduce(Settings::or).unwrap_or_default();

        let mut inventory = Inventory::new(from);
        let (tensors, lora) = lora::split(checkpoint::open(from)?)?;
        inventory.add(tensors, None)?;
        if let Some(base) = &options.base {
            inventory.add(checkpoint::open(base)?, None)?;
        }
        let source = Self { from, options, inventory, llava, text };
        if !source.inventory.has(Part::Text) {
            let reason = format!(
                "{} has no language model: name the folder of the one that it was trained for as its base",
                from.display()
            );
            return Err(Error::ModelNotFound(reason));
        }
        source.merge(lora)
    }

    /// Adds what a LoRA was trained to add.
    fn merge(mut self, lora: lora::Matrices) -> Result<Self, Error> {
        if !lora.is_empty() {
            let path = self.from.join("adapter_config.json");
            let settings = settings::read(&path)?.ok_or_else(|| invalid(&path, "file", "is missing"))?;
            lora::merge(lora, &Settings::new(path, settings), &mut self.inventory)?;
        }
        Ok(self)
    }

    /// The vision tower, of a LLaVA.
    fn vision(&mut self) -> Result<Option<Vision>, Error> {
        if !self.inventory.has(Part::Projector) {
            return Ok(None);
        }
        let named = self.llava.str("mm_vision_tower").map(PathBuf::from);
        let folder = self.options.tower.clone().or(named.clone().filter(|path| path.is_dir()));
        if let Some(folder) = &folder {
            self.inventory.add(checkpoint::open(folder)?, Some(&[Part::Tower]))?;
        }
        if !self.inventory.has(Part::Tower) {
            let named = named.map(|n| format!(" ({})", n.display())).unwrap_or_default();
            let reason = format!(
                "{} has no vision tower: name the folder of the one{named} that it was trained with",
                self.from.display()
            );
            return Err(Error::ModelNotFound(reason));
        }
        let read = |folder: &Path, file: &str| {
            let path = folder.join(file);
            Ok::<_, Error>(settings::read(&path)?.map(|json| Settings::new(path, json)).unwrap_or_default())
        };
        let mut tower = self.llava.sub("vision_config");
        let mut processor = read(self.from, "preprocessor_config.json")?;
        processor = processor.or(read(self.from, "processor_config.json")?.sub("image_processor").unwrap_or_default());
        if let Some(folder) = folder.filter(|f| f.is_dir()) {
            let config = read(&folder, "config.json")?;
            // Of a whole CLIP, or of its tower alone.
            let own = config.sub("vision_config").unwrap_or(config);
            tower = Some(tower.unwrap_or_default().or(own));
            processor = processor.or(read(&folder, "preprocessor_config.json")?);
        }
        let sources = Sources { llava: &self.llava, tower, processor };
        Vision::new(&self.inventory, &sources).map(Some)
    }
}

/// A file to be written.
struct Plan<'a> {
    file: String,
    writer: Writer<'a>,
    mixture: Mixture,
    model: Model,
    tensors: &'a [Planned],
}

struct Job<'a> {
    total: u64,
    threads: usize,
    state: RefCell<State<'a>>,
}

struct State<'a> {
    on_progress: &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    done: u64,
    /// Tensors of the file that is being written.
    written: Vec<Tensor>,
    /// Why writing failed, where the writer cannot know.
    failed: Option<Error>,
}

impl Job<'_> {
    /// Writes all files in a folder of their own, and moves them together.
    fn run<'p>(&'p self, files: Vec<Plan<'p>>, to: &Path) -> Result<Vec<Written>, Error> {
        let io = |path: &Path, source| Error::Io { path: path.to_owned(), source };
        let made = !to.exists();
        let partial = to.join(format!(".partial-{}", std::process::id()));
        fs::create_dir_all(&partial).map_err(|e| io(&partial, e))?;
        let write = || {
            let mut written = Vec::new();
            for plan in files {
                let file = plan.file.clone();
                written.push((file.clone(), self.write(plan, &partial.join(file))?));
            }
            let mut out = Vec::new();
            for (file, tensors) in written {
                let path = to.join(&file);
                fs::rename(partial.join(&file), &path).map_err(|e| io(&path, e))?;
                out.push(Written { path, tensors });
            }
            Ok(out)
        };
        let result = write();
        // Nothing more can be done about a folder that can't be removed.
        let _ = fs::remove_dir_all(&partial);
        if result.is_err() && made {
            let _ = fs::remove_dir(to);
        }
        result
    }

    fn write<'p>(&'p self, plan: Plan<'p>, path: &Path) -> Result<Vec<Tensor>, Error> {
        let Plan { mut writer, mixture, model, tensors, .. } = plan;
        for t in tensors {
            let to = type_for(t, mixture, &model);
            writer.tensor_with(&t.name, &t.dims(), to, move |out| self.tensor(t, to, out))?;
        }
        let result = writer.save(path);
        let mut state = self.state.borrow_mut();
        match (result, state.failed.take()) {
            (Err(_), Some(reason)) => Err(reason),
            (result, _) => result.map(|()| std::mem::take(&mut state.written)),
        }
    }

    /// Writes a tensor's blocks, some rows at a time.
    fn tensor(&self, t: &Planned, to: BlockType, out: &mut dyn Write) -> io::Result<()> {
        let (dims, source) = (t.dims(), &t.source);
        let columns = dims[0];
        let rows = source.len() / columns.max(1);
        let encoder = Encoder { to, columns, importance: None, threads: self.threads };
        let (mut loss, mut buffer, mut values, mut bytes_after) = (Loss::default(), Vec::new(), Vec::new(), 0);
        let mut first = 0;
        while first < rows {
            let n = encoder.rows_at_once().min(rows - first);
            self.report(&t.name, n * columns)?;
            values.resize(n * columns, 0.0);
            if t.interleaved_heads == 0 {
                source.read_rows(first, n, columns, &mut values)?;
            } else {
                for (row, values) in (first..).zip(values.chunks_exact_mut(columns)) {
                    source.read_rows(t.source_row(row, rows), 1, columns, values)?;
                }
            }
            let read = |row: usize, x: &mut [f32]| x.copy_from_slice(&values[row * columns..][..columns]);
            encoder.encode(n, read, &mut buffer, &mut loss);
            if let Some(reason) = loss.complaint(to) {
                return Err(self.fail(invalid(&source.file(), &source.name, &reason)));
            }
            out.write_all(&buffer)?;
            bytes_after += buffer.len();
            first += n;
        }
        self.state.borrow_mut().written.push(Tensor {
            name: t.name.clone(),
            dims,
            from: BlockType::F32,
            to,
            bytes_before: 4 * source.len() as u64,
            bytes_after: bytes_after as u64,
            error: loss.error(),
        });
        Ok(())
    }

    /// Says how far it is before `values` more.
    fn report(&self, tensor: &str, values: usize) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let done = state.done;
        state.done += values as u64;
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

/// The type of a tensor; where it is a vector or a position's, single precision.
fn type_for(t: &Planned, mixture: Mixture, model: &Model) -> BlockType {
    let dims = t.dims();
    // Readers know a convolution's kernels in these two types.
    if t.name.contains(".patch_embd.weight") {
        return if mixture.block_type() == BlockType::F32 { BlockType::F32 } else { BlockType::F16 };
    }
    match is_quantisable(&t.name, &dims) {
        true => type_of(mixture, model, &t.name, dims[0]),
        false => BlockType::F32,
    }
}
