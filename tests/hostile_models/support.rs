//! The golden models as raw material, and the conditions that every case has to meet.

use llava::gguf::{File, Value, Writer};
use llava::prompt::Template;
use llava::quant::BlockType;
use llava::{Answer, Error, Generation, Image, Model, PixelFormat};
use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// All that this test binary may hold at one time. The models take less than 1 MB, a picture less than 10 MB, and
/// a hostile file must not change the order of that.
const MEMORY: usize = 256 << 20;
/// What one case may take; the slowest take some tenths of a second.
const TIME: Duration = Duration::from_secs(20);

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

pub struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(p, layout) }
    }
}

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
    PEAK.fetch_max(live, Ordering::Relaxed);
}

/// Runs one case: it must not panic, not take more than [`TIME`], and not ask for more than [`MEMORY`].
pub fn survives<T>(case: &str, run: impl FnOnce() -> T) -> T {
    static RUNNING: Mutex<Vec<(String, Instant)>> = Mutex::new(Vec::new());
    static WATCHDOG: OnceLock<()> = OnceLock::new();
    // A hanging case can't be stopped, so the process is.
    WATCHDOG.get_or_init(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let running = RUNNING.lock().unwrap();
                if let Some((case, _)) = running.iter().find(|(_, start)| start.elapsed() > TIME) {
                    eprintln!("{case}: not finished after {TIME:?}");
                    std::process::exit(101);
                }
            }
        });
    });
    RUNNING.lock().unwrap().push((case.to_owned(), Instant::now()));
    let result = catch_unwind(AssertUnwindSafe(run));
    RUNNING.lock().unwrap().retain(|(c, _)| c != case);
    let peak = PEAK.load(Ordering::Relaxed);
    assert!(peak < MEMORY, "{case}: {peak} bytes allocated");
    result.unwrap_or_else(|_| panic!("{case}: panicked"))
}

/// Loads a model from memory and asks it one short question, about a picture if there is an mmproj.
pub fn run(lm: Vec<u8>, mmproj: Option<Vec<u8>>) -> Result<Answer, Error> {
    let with_image = mmproj.is_some();
    let model = Model::from_bytes(lm, mmproj)?;
    ask(&model, with_image)
}

/// Asks one short question.
pub fn ask(model: &Model, with_image: bool) -> Result<Answer, Error> {
    let mut session = model.session();
    session.set_template(Template::by_name("mistral_instruct")?);
    session.set_generation(Generation { max_tokens: 2, ..Generation::default() })?;
    let image = picture();
    let images: &[&Image] = if with_image { &[&image] } else { &[] };
    session.ask("Hi", images)
}

pub fn picture() -> Image {
    let pixels: Vec<u8> = (0..40 * 24 * 3).map(|i| (i * 31 % 251) as u8).collect();
    Image::from_pixels(&pixels, 40, 24, 120, PixelFormat::Rgb).unwrap()
}

/// An error about a file that was given as bytes names it so, and the field, and gives a reason.
pub fn check_error(case: &str, error: &Error) {
    match error {
        Error::InvalidModel { file, field, reason } | Error::Unsupported { file, field, reason } => {
            assert!(file == "<memory>" && !field.is_empty() && !reason.is_empty(), "{case}: {error}");
        }
        Error::PairMismatch { .. } | Error::ContextFull { .. } | Error::OutOfMemory { .. } => {}
        other => panic!("{case}: an error of the wrong kind: {other:?}"),
    }
    assert!(error.to_string().len() < 4000, "{case}: a message of {} bytes", error.to_string().len());
}

pub fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden/transformers", name].iter().collect()
}

pub fn golden_bytes(name: &str) -> Vec<u8> {
    std::fs::read(golden(name)).unwrap()
}

/// A golden file, taken apart to be changed.
#[derive(Clone)]
pub struct Edit {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, Vec<usize>, BlockType, Vec<u8>)>,
}

impl Edit {
    pub fn golden(name: &str) -> Self {
        let file = File::open(golden(name)).unwrap();
        let tensor = |t: &llava::gguf::TensorInfo| {
            (t.name().to_owned(), t.dims().to_vec(), t.block_type().unwrap(), t.data().unwrap().as_slice().to_vec())
        };
        Self { metadata: file.metadata().to_vec(), tensors: file.tensors().iter().map(tensor).collect() }
    }

    pub fn lm() -> Self {
        Self::golden("llava/lm.gguf")
    }

    pub fn mmproj() -> Self {
        Self::golden("llava/mmproj.gguf")
    }

    pub fn set(mut self, key: &str, value: Value) -> Self {
        self.metadata.retain(|(k, _)| k != key);
        self.metadata.push((key.to_owned(), value));
        self
    }

    pub fn u32(self, key: &str, value: u32) -> Self {
        self.set(key, Value::U32(value))
    }

    /// Without the key or the tensor, which must be there.
    pub fn without(mut self, name: &str) -> Self {
        let before = self.metadata.len() + self.tensors.len();
        self.metadata.retain(|(k, _)| k != name);
        self.tensors.retain(|t| t.0 != name);
        assert_eq!(self.metadata.len() + self.tensors.len(), before - 1, "{name}");
        self
    }

    pub fn rename(mut self, from: &str, to: &str) -> Self {
        self.tensors.iter_mut().find(|t| t.0 == from).unwrap().0 = to.to_owned();
        self
    }

    /// A tensor instead of one of the same name, or a new one.
    pub fn tensor(mut self, name: &str, dims: &[usize], block_type: BlockType, data: Vec<u8>) -> Self {
        let new = (name.to_owned(), dims.to_vec(), block_type, data);
        match self.tensors.iter_mut().find(|t| t.0 == name) {
            Some(t) => *t = new,
            None => self.tensors.push(new),
        }
        self
    }

    /// A tensor of zeros in f32.
    pub fn zeros(self, name: &str, dims: &[usize]) -> Self {
        self.tensor(name, dims, BlockType::F32, vec![0; 4 * dims.iter().product::<usize>()])
    }

    pub fn tensors(&self) -> &[(String, Vec<usize>, BlockType, Vec<u8>)] {
        &self.tensors
    }

    pub fn metadata(&self) -> &[(String, Value)] {
        &self.metadata
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        for (key, value) in &self.metadata {
            w.set(key.as_str(), value.clone());
        }
        for (name, dims, block_type, data) in &self.tensors {
            w.tensor(name.as_str(), dims, *block_type, data.as_slice()).unwrap();
        }
        w.to_bytes()
    }
}

/// A folder of its own, removed at the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("llava-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder left behind harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
