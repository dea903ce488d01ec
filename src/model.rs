//! A model: the language model, the tower and projector, the tokenizer and the chat template, ready to run.

use crate::cpu::{Control, Cpu, Observer, Segment, Stage};
use crate::decoder::kv::{KvCache, KvShape, KvType};
use crate::decoder::{self, Decoder, Row};
use crate::error::{Error, Result};
use crate::gguf::File;
use crate::image::Image;
use crate::kernels::Kernels;
use crate::prompt::Template;
use crate::sample::Generation;
use crate::session::{Answer, Session};
use crate::threads;
use crate::tokenizer::Tokenizer;
use crate::vision::{self, Embedding, Vision};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The environment variable that names the model for [`Model::load`].
const MODEL_VARIABLE: &str = "LLAVA_MODEL";
/// The question that [`Model::describe`] asks.
pub const DESCRIBE: &str = "Describe the image.";

/// A loaded LLaVA. Immutable, shared between threads, and cheap to clone; sessions keep it alive.
///
/// ```
/// # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/transformers")).unwrap();
/// let model = llava::Model::open("llava/lm.gguf")?; // the mmproj lies beside it
/// println!("{}", model.describe(&llava::Image::open("images/wide.png")?)?);
/// # Ok::<(), llava::Error>(())
/// ```
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    cpu: Cpu,
    decoder: Decoder,
    vision: Option<Vision>,
    tokenizer: Tokenizer,
    template: Template,
    template_reason: String,
    context: usize,
    kv: KvType,
    name: String,
    mmproj: Option<String>,
}

/// Where a model file comes from.
enum Source {
    Path(PathBuf),
    Bytes(Vec<u8>),
}

impl Source {
    fn read(self) -> Result<File> {
        match self {
            Self::Path(path) => File::open(path),
            Self::Bytes(bytes) => File::from_bytes(bytes),
        }
    }
}

/// Which mmproj goes with a language model.
enum Mmproj {
    /// The one beside it, if there is one.
    Beside,
    Given(Source),
    None,
}

/// Settings of a model, before it is loaded.
///
/// ```
/// # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/transformers")).unwrap();
/// let model = llava::Model::builder("llava/lm.gguf").mmproj("llava-next/mmproj.gguf").threads(4).context(64).load()?;
/// assert_eq!(model.context(), 64);
/// # Ok::<(), llava::Error>(())
/// ```
pub struct ModelBuilder {
    lm: Source,
    mmproj: Mmproj,
    threads: Option<usize>,
    context: Option<usize>,
    kv: Option<KvType>,
    template: Option<String>,
    exact: bool,
    kernels: Option<String>,
    observer: Option<Observer>,
}

impl Model {
    /// The model that the environment variable `LLAVA_MODEL` names: a GGUF file, or a folder with a pair.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] if the variable is not set; those of [`Model::open`].
    pub fn load() -> Result<Self> {
        Self::default_builder()?.load()
    }

    /// Settings for the model of [`Model::load`].
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] if the variable is not set.
    pub fn default_builder() -> Result<ModelBuilder> {
        match std::env::var_os(MODEL_VARIABLE).filter(|path| !path.is_empty()) {
            Some(path) => Ok(Self::builder(path)),
            None => Err(Error::ModelNotFound(format!(
                "no model was named: give the path of a GGUF file (or of a folder with a language model and its \
                 mmproj), or set {MODEL_VARIABLE} to it"
            ))),
        }
    }

    /// Opens a language model and the mmproj beside it: `path` is the language model's GGUF file (for a split model
    /// its first part), or a folder that holds one pair.
    ///
    /// The files are mapped, not read: they must not be changed or cut short while the model is in use, or the
    /// system ends the process. For files that may change, read them and use [`Model::from_bytes`].
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::InvalidModel`] and [`Error::Unsupported`] for the files, [`Error::PairMismatch`] if
    /// they do not belong together, [`Error::ModelNotFound`] if a folder does not hold exactly one pair.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path.as_ref()).load()
    }

    /// A model from the contents of its files; without `mmproj` it takes no images.
    ///
    /// # Errors
    /// Those of [`Model::open`].
    pub fn from_bytes(lm: Vec<u8>, mmproj: Option<Vec<u8>>) -> Result<Self> {
        Self::builder_from_bytes(lm, mmproj).load()
    }

    /// Settings for the model of [`Model::from_bytes`].
    pub fn builder_from_bytes(lm: Vec<u8>, mmproj: Option<Vec<u8>>) -> ModelBuilder {
        let mmproj = mmproj.map_or(Mmproj::None, |bytes| Mmproj::Given(Source::Bytes(bytes)));
        ModelBuilder::new(Source::Bytes(lm), mmproj)
    }

    /// Settings for the model at `path`, as in [`Model::open`]. With the feature `hub`, `hf:OWNER/REPO[:FILE or TYPE]` is a
    /// model of the Hugging Face Hub, which is downloaded into its cache if need be (`hub`).
    pub fn builder(path: impl Into<PathBuf>) -> ModelBuilder {
        ModelBuilder::new(Source::Path(path.into()), Mmproj::Beside)
    }

    /// Describes an image: [`DESCRIBE`], answered greedily. See [`Session`] for everything else.
    ///
    /// # Errors
    /// Those of [`Session::ask`].
    pub fn describe(&self, image: &Image) -> Result<String> {
        Ok(self.session().ask(DESCRIBE, &[image])?.text)
    }

    /// A new conversation.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// Encodes an image once, for use in any number of sessions: image tokens, `[tokens, d_model]`.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] if the model has no mmproj; [`Error::OutOfMemory`].
    pub fn encode(&self, image: &Image) -> Result<Embedding> {
        self.encode_with(image, &Control::default())
    }

    /// [`Model::encode`] that can be cancelled and says how far it is.
    ///
    /// # Errors
    /// Also [`Error::Cancelled`].
    pub fn encode_with(&self, image: &Image, control: &Control) -> Result<Embedding> {
        self.vision()?.encode(&self.0.cpu, control, image)
    }

    /// The vision tower's features of an image before the projector, without the class token, and their shape
    /// `[tiles · patches, d_vision]`.
    ///
    /// # Errors
    /// Those of [`Model::encode`].
    pub fn features(&self, image: &Image) -> Result<(Vec<f32>, [usize; 2])> {
        let vision = self.vision()?;
        let features = vision.features(&self.0.cpu, &Control::default(), &vision.preprocess(image)?)?;
        let width = vision.config.feature_width();
        let rows = features.len() / width;
        Ok((features, [rows, width]))
    }

    /// Next-token logits after each of the last `n` positions of `input`, `[n, n_vocab]`, in a cache of its own.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n` is not 1 to the number of positions, or `input` holds a token outside the
    /// vocabulary or an embedding of the wrong width; [`Error::ContextFull`].
    pub fn logits(&self, input: &[Input], n: usize) -> Result<Vec<f32>> {
        self.logits_with(input, n, &Control::default())
    }

    /// [`Model::logits`] that can be cancelled and says how far it is.
    ///
    /// # Errors
    /// Also [`Error::Cancelled`].
    pub fn logits_with(&self, input: &[Input], n: usize, control: &Control) -> Result<Vec<f32>> {
        let positions = input.iter().map(Input::positions).sum();
        if n == 0 || n > positions {
            let reason = format!("is {n}, expected 1 to the {positions} positions of the input");
            return Err(Error::argument("n", reason));
        }
        self.check_context(positions, input.iter().map(Input::image_tokens).sum())?;
        let mut logits = Vec::new();
        self.prefill(&mut KvCache::new(self.kv_shape()), input, n, control, &mut logits)?;
        Ok(logits)
    }

    /// Continues `input` as it is, without a template: for prompts written by hand.
    ///
    /// # Errors
    /// Those of [`Model::logits`] and of [`Session::set_generation`].
    pub fn generate(&self, input: &[Input], generation: &Generation) -> Result<Answer> {
        self.generate_with(input, generation, &Control::default(), |_| ControlFlow::Continue(()))
    }

    /// [`Model::generate`] that can be cancelled, says how far the prompt is, and hands out the text as
    /// [`Session::ask_with`] does.
    ///
    /// # Errors
    /// Also [`Error::Cancelled`], before the first token.
    pub fn generate_with(
        &self,
        input: &[Input],
        generation: &Generation,
        control: &Control,
        on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer> {
        let mut session = self.session();
        session.set_generation(generation.clone())?;
        session.complete(input, control, on_text)
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.0.tokenizer
    }

    /// The chat template in use, and why it was chosen.
    pub fn template(&self) -> (&Template, &str) {
        (&self.0.template, &self.0.template_reason)
    }

    /// The language model's geometry.
    pub fn decoder_config(&self) -> &decoder::Config {
        &self.0.decoder.config
    }

    /// The tower's geometry, if the model has one.
    pub fn vision_config(&self) -> Option<&vision::Config> {
        self.0.vision.as_ref().map(|v| &v.config)
    }

    /// Image tokens that a picture of `width` × `height` pixels takes.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] if the model has no mmproj.
    pub fn image_tokens(&self, width: u32, height: u32) -> Result<usize> {
        Ok(self.vision()?.tokens((width, height)))
    }

    /// Positions that a conversation may take.
    pub fn context(&self) -> usize {
        self.0.context
    }

    /// Bytes that the KV cache of `positions` positions takes.
    pub fn kv_bytes(&self, positions: usize) -> u64 {
        self.kv_shape().bytes(positions)
    }

    /// The files it came from: the language model's and, if it has one, the mmproj's. `<memory>` for bytes.
    pub fn files(&self) -> (&str, Option<&str>) {
        (&self.0.name, self.0.mmproj.as_deref())
    }

    /// The kernels in use and the number of threads.
    pub fn device(&self) -> (&'static str, usize) {
        self.0.cpu.describe()
    }

    pub(crate) fn vision(&self) -> Result<&Vision> {
        self.0.vision.as_ref().ok_or_else(|| {
            Error::ModelNotFound(format!(
                "{} has no vision tower: no mmproj was named, and none lies beside it; name the mmproj that belongs to it",
                self.0.name
            ))
        })
    }

    pub(crate) fn cpu(&self) -> &Cpu {
        &self.0.cpu
    }

    pub(crate) fn decoder(&self) -> &Decoder {
        &self.0.decoder
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn kv_shape(&self) -> KvShape {
        self.0.decoder.kv_shape(self.0.kv)
    }

    /// An error if `needed` positions and one for an answer do not fit.
    pub(crate) fn check_context(&self, needed: usize, image_tokens: usize) -> Result<()> {
        let context = self.0.context;
        if needed < context {
            return Ok(());
        }
        let trained = self.0.decoder.config.context_length;
        Err(Error::ContextFull { needed, image_tokens, context, trained })
    }

    /// Runs `input` at the next positions of `cache`; `logits` receives those after each of the last `n` positions,
    /// `[n, n_vocab]`.
    pub(crate) fn prefill(
        &self,
        cache: &mut KvCache,
        input: &[Input],
        n: usize,
        control: &Control,
        logits: &mut Vec<f32>,
    ) -> Result<()> {
        let decoder = &self.0.decoder;
        let mut rows = Vec::with_capacity(input.iter().map(Input::positions).sum());
        for i in input {
            match i {
                Input::Token(id) => rows.push(Row::Token(*id)),
                Input::Image(e) => rows.extend(e.values().chunks_exact(e.width()).map(Row::Embedding)),
            }
        }
        let passes = rows.len().div_ceil(decoder.max_rows());
        let _stage = control.begin(Stage::Prefill, passes * decoder.config.n_layer)?;
        let mut unwanted = rows.len().saturating_sub(n);
        logits.clear();
        let mut chunk_logits = Vec::new();
        for rows in rows.chunks(decoder.max_rows()) {
            let wanted: Vec<usize> = (unwanted.min(rows.len())..rows.len()).collect();
            unwanted -= unwanted.min(rows.len());
            let mut segments = [Segment { cache, rows: rows.len() }];
            decoder.forward(&mut self.0.cpu.enter(control), &mut segments, rows, &wanted, &mut chunk_logits)?;
            logits.extend_from_slice(&chunk_logits);
        }
        Ok(())
    }
}

/// Models are equal if they are clones of one.
impl PartialEq for Model {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Model {}

/// One piece of the language model's input.
#[derive(Clone, Debug)]
pub enum Input {
    /// A token.
    Token(u32),
    /// An encoded image.
    Image(Embedding),
}

impl Input {
    /// Positions it takes.
    pub(crate) fn positions(&self) -> usize {
        match self {
            Self::Token(_) => 1,
            Self::Image(e) => e.tokens(),
        }
    }

    pub(crate) fn image_tokens(&self) -> usize {
        match self {
            Self::Token(_) => 0,
            Self::Image(e) => e.tokens(),
        }
    }

    /// Whether both are the same token or clones of the same embedding.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(a), Self::Token(b)) => a == b,
            (Self::Image(a), Self::Image(b)) => a.id() == b.id(),
            _ => false,
        }
    }
}

impl ModelBuilder {
    fn new(lm: Source, mmproj: Mmproj) -> Self {
        Self {
            lm,
            mmproj,
            threads: None,
            context: None,
            kv: None,
            template: None,
            exact: false,
            kernels: None,
            observer: None,
        }
    }

    /// The mmproj, instead of the one found beside the language model.
    pub fn mmproj(mut self, path: impl Into<PathBuf>) -> Self {
        self.mmproj = Mmproj::Given(Source::Path(path.into()));
        self
    }

    /// No mmproj, whatever lies beside the language model: the model takes no images.
    pub fn text_only(mut self) -> Self {
        self.mmproj = Mmproj::None;
        self
    }

    /// Threads to compute with; as many as the process may use by default, and never more.
    pub fn threads(mut self, n: usize) -> Self {
        self.threads = Some(n);
        self
    }

    /// Positions that a conversation may take. By default what the model was trained with. Memory for the KV cache
    /// is taken as positions fill.
    pub fn context(mut self, positions: usize) -> Self {
        self.context = Some(positions);
        self
    }

    /// How the KV cache is stored; half precision by default, single with [`exact`](Self::exact).
    /// [`KvType::Q8_0`] is an error where the width of the model's heads is no multiple of 32.
    pub fn kv_type(mut self, kind: KvType) -> Self {
        self.kv = Some(kind);
        self
    }

    /// A conversation style by name, instead of the one chosen for the model.
    pub fn template(mut self, name: impl Into<String>) -> Self {
        self.template = Some(name.into());
        self
    }

    /// Computes in f32 throughout: activations and the KV cache are not rounded. Slow; for comparison.
    pub fn exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// Kernels by name (`scalar`, `avx2`, `avx512`, …) instead of the best the machine supports; for comparison.
    pub fn kernels(mut self, name: impl Into<String>) -> Self {
        self.kernels = Some(name.into());
        self
    }

    /// Calls `observer` before each product of the model with a matrix: with the tensor's name, the rows that it is
    /// multiplied with, and their width. Importance matrices are made of them.
    pub fn observe(mut self, observer: impl FnMut(&str, &[f32], usize) + Send + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Loads the model.
    ///
    /// # Errors
    /// Those of [`Model::open`]; [`Error::InvalidArgument`] for a setting out of range.
    pub fn load(self) -> Result<Model> {
        self.load_with(&Control::default())
    }

    /// [`ModelBuilder::load`] that can be cancelled and says how far it is.
    ///
    /// # Errors
    /// Also [`Error::Cancelled`].
    pub fn load_with(self, control: &Control) -> Result<Model> {
        let (lm, mmproj) = match hub_spec(&self.lm) {
            Some(spec) => pull(&spec, self.mmproj, control)?,
            None => (self.lm, self.mmproj),
        };
        // Files, decoder, vision, tokenizer and template.
        let _stage = control.begin(Stage::Load, 4)?;
        let look = matches!(mmproj, Mmproj::Beside);
        let (lm, beside) = match lm {
            Source::Path(path) if path.is_dir() => find_pair(&path, look)?,
            Source::Path(path) => {
                let beside = if look { find_mmproj(&path)? } else { None };
                (Source::Path(path).read()?, beside)
            }
            bytes => (bytes.read()?, None),
        };
        let mmproj = match mmproj {
            Mmproj::Beside => beside,
            Mmproj::Given(source) => Some(source.read()?),
            Mmproj::None => None,
        };
        control.step()?;
        if self.threads == Some(0) {
            return Err(Error::argument("threads", "is 0, expected 1 or more"));
        }
        let kernels = match &self.kernels {
            None => Kernels::best(),
            Some(name) => {
                let all = Kernels::available();
                let names: Vec<_> = all.iter().map(|k| k.name).collect();
                let missing = || Error::argument("kernels", format!("{name:?}; this machine has {}", names.join(", ")));
                all.iter().find(|k| k.name == name).copied().ok_or_else(missing)?
            }
        };
        let mut context = 0;
        let decoder = Decoder::from_gguf(&lm, |config| {
            context = self.context.unwrap_or_else(|| config.default_context());
            context
        })?;
        let most = decoder.config.context_length;
        if context == 0 || context > most {
            return Err(Error::argument("context", format!("is {context}, expected 1 to {most} for this model")));
        }
        let kv = self.kv.unwrap_or(if self.exact { KvType::F32 } else { KvType::F16 });
        kv.check(decoder.config.head_dim)?;
        control.step()?;
        let vision = mmproj.as_ref().map(Vision::from_gguf).transpose()?;
        if let (Some(vision), Some(mmproj)) = (&vision, &mmproj) {
            let (from, to) = (vision.width(), decoder.config.d_model);
            if from != to {
                return Err(Error::PairMismatch {
                    model: lm.name().to_owned(),
                    mmproj: mmproj.name().to_owned(),
                    reason: format!("the projector makes tokens {from} wide, and the language model is {to} wide"),
                });
            }
        }
        control.step()?;
        let tokenizer = Tokenizer::from_gguf(&lm)?;
        if tokenizer.vocab_size() > decoder.n_vocab {
            let reason = format!("{} tokens, and token_embd has {} rows", tokenizer.vocab_size(), decoder.n_vocab);
            return Err(Error::invalid(lm.name(), "tokenizer.ggml.tokens", reason));
        }
        let (template, template_reason) = match &self.template {
            Some(name) => (Template::by_name(name)?, "named by the caller".to_owned()),
            None => {
                let (name, own) = (lm.str("general.name")?, lm.str("tokenizer.chat_template")?);
                Template::choose(name, own, &tokenizer)
            }
        };
        control.step()?;
        let threads = self.threads.unwrap_or(usize::MAX).min(threads::available());
        let cpu =
            Cpu::new(kernels, threads, self.exact).map_err(|e| Error::io("thread pool", e))?.observed(self.observer);
        log::debug!(
            "{}: {} kernels, {threads} threads, template {} ({template_reason})",
            lm.name(),
            kernels.name,
            template.name()
        );
        Ok(Model(Arc::new(Inner {
            cpu,
            decoder,
            vision,
            tokenizer,
            template,
            template_reason,
            context,
            kv,
            name: lm.name().to_owned(),
            mmproj: mmproj.map(|file| file.name().to_owned()),
        })))
    }
}

/// `OWNER/REPO…` of a path that is no path: `hf:OWNER/REPO…`.
fn hub_spec(lm: &Source) -> Option<String> {
    match lm {
        Source::Path(path) => path.to_str()?.strip_prefix("hf:").map(str::to_owned),
        Source::Bytes(_) => None,
    }
}

/// The files of a model on the Hugging Face Hub.
#[cfg(feature = "hub")]
fn pull(spec: &str, mmproj: Mmproj, control: &Control) -> Result<(Source, Mmproj)> {
    let pair = crate::hub::Hub::from_env()?.pull(spec, control)?;
    let mmproj = match (mmproj, pair.mmproj) {
        (Mmproj::Beside, Some(path)) => Mmproj::Given(Source::Path(path)),
        (Mmproj::Beside, None) => Mmproj::None,
        (named, _) => named,
    };
    Ok((Source::Path(pair.model), mmproj))
}

#[cfg(not(feature = "hub"))]
fn pull(spec: &str, _: Mmproj, _: &Control) -> Result<(Source, Mmproj)> {
    let reason = "the library was built without the feature `hub`: download the files, and give their path";
    Err(Error::unsupported(format!("hf:{spec}"), "model", reason))
}

fn is_mmproj(file: &File) -> bool {
    matches!(file.str("general.architecture"), Ok(Some("clip")))
}

fn gguf_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let is_gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        if is_gguf && !is_later_part(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether the file is part 2 or later of a split model, `NAME-00002-of-00003.gguf`.
fn is_later_part(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    match stem.rsplit_once("-of-").and_then(|(head, _)| head.rsplit_once('-')) {
        Some((_, part)) => part.len() == 5 && part != "00001" && part.bytes().all(|b| b.is_ascii_digit()),
        None => false,
    }
}

/// The pair that a folder holds.
fn find_pair(folder: &Path, with_mmproj: bool) -> Result<(File, Option<File>)> {
    let (mut lms, mut mmprojs) = (Vec::new(), Vec::new());
    for path in gguf_files(folder)? {
        let file = File::open(path)?;
        if matches!(file.str("general.type"), Ok(Some("imatrix"))) {
            continue;
        }
        if is_mmproj(&file) { &mut mmprojs } else { &mut lms }.push(file);
    }
    let lm = only(lms, folder, "language model")?.ok_or_else(|| {
        Error::ModelNotFound(format!("{} holds no language model as GGUF; name a .gguf file", folder.display()))
    })?;
    Ok((lm, if with_mmproj { only(mmprojs, folder, "mmproj")? } else { None }))
}

/// The mmproj beside a language model: the one file in its folder that says so by its name and its contents.
fn find_mmproj(lm: &Path) -> Result<Option<File>> {
    let folder = lm.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A folder that can't be listed is no reason to refuse the model named in it.
    let Ok(paths) = gguf_files(folder) else { return Ok(None) };
    let mut found = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.contains("mmproj") && path != lm {
            found.push(File::open(path)?);
        }
    }
    found.retain(is_mmproj);
    only(found, folder, "mmproj")
}

fn only(mut files: Vec<File>, folder: &Path, what: &str) -> Result<Option<File>> {
    if files.len() > 1 {
        let names: Vec<_> = files.iter().map(File::name).collect();
        return Err(Error::ModelNotFound(format!(
            "{} holds more than one {what}: {}; name the one to use",
            folder.display(),
            names.join(", ")
        )));
    }
    Ok(files.pop())
}
