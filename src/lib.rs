//! Answers questions about images with LLaVA models, straight from GGUF files, on the CPU.
//!
//! A LLaVA is a pair of files: a language model, and an *mmproj* with the vision tower and the projector that turns
//! what the tower sees into tokens of the language model. `docs/formats.md` in the repository lists which are read.
//!
//! # Describe an image
//!
//! ```
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/transformers")).unwrap();
//! use llava::{Image, Model};
//!
//! let model = Model::open("llava")?; // a GGUF file, or a folder with a pair
//! let image = Image::open("images/wide.png")?;
//! println!("{}", model.describe(&image)?);
//! # Ok::<(), llava::Error>(())
//! ```
//!
//! A [`Model`] is immutable, shared between threads and cheap to clone. [`Model::builder`] names the mmproj, the number
//! of threads, the context length and more; [`Model::from_bytes`] takes files from memory. An [`Image`] comes from a
//! file, from encoded bytes ([`Image::from_bytes`]), or from pixels ([`Image::from_pixels`]).
//!
//! # Ask, and ask on
//!
//! A [`Session`] is a conversation. It keeps what it has computed: the second question costs only what is new in it.
//!
//! ```
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/transformers")).unwrap();
//! # use llava::{Generation, Image, Model};
//! # let model = Model::open("llava")?;
//! # let image = Image::open("images/wide.png")?;
//! let mut session = model.session();
//! session.set_generation(Generation { max_tokens: 8, ..Generation::default() })?;
//! let answer = session.ask("What is on the mat?", &[&image])?;
//! println!("{} ({} tokens)", answer.text, answer.token_ids.len());
//! let answer = session.ask("What colour is it?", &[])?;
//! assert_eq!(answer.image_tokens, model.image_tokens(image.width(), image.height())?);
//! # Ok::<(), llava::Error>(())
//! ```
//!
//! [`Generation`] says how answers are made: their length, sampling, stop texts, log-probabilities. The default is
//! greedy, so the same question has the same answer, on any number of threads.
//!
//! # Text as it comes
//!
//! [`Session::stream`] is an iterator, [`Session::ask_with`] a callback. Neither ever hands out half a character.
//!
//! ```
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/transformers")).unwrap();
//! # use llava::{Generation, Image, Model};
//! # let model = Model::open("llava")?;
//! # let image = Image::open("images/wide.png")?;
//! # let mut session = model.session();
//! # session.set_generation(Generation { max_tokens: 8, ..Generation::default() })?;
//! for piece in session.stream("What is this?", &[&image])? {
//!     print!("{}", piece?);
//! }
//! # Ok::<(), llava::Error>(())
//! ```
//!
//! # Many questions about one image
//!
//! [`Session::prefill`] runs the image once and [`Session::fork`] shares the result; [`Session::score`] says how likely
//! each of some given answers is.
//!
//! ```
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/transformers")).unwrap();
//! # use llava::{Image, Model};
//! # let model = Model::open("llava")?;
//! # let image = Image::open("images/wide.png")?;
//! let mut base = model.session();
//! base.prefill(&[&image])?;
//! for question in ["Is it asleep?", "Is it indoors?"] {
//!     let scores = base.fork().score(question, &[], &["yes", "no"])?;
//!     println!("{question} {}", if scores[0].logprob > scores[1].logprob { "yes" } else { "no" });
//! }
//! # Ok::<(), llava::Error>(())
//! ```
//!
//! [`Model::encode`] gives the image's tokens as an [`Embedding`], `[tokens, d_model]`, which can be
//! [attached](Session::attach) to any session, saved and loaded.
//!
//! # Many images
//!
//! A [`Batch`] reads the weights once for all its answers; each is the one that its question gets alone.
//!
//! ```
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/transformers")).unwrap();
//! # use llava::{Batch, Generation, Image, Model};
//! # let model = Model::open("llava")?;
//! let mut batch = Batch::new(&model);
//! for path in ["images/wide.png", "images/tall.png"] {
//!     let mut session = model.session();
//!     session.set_generation(Generation { max_tokens: 8, ..Generation::default() })?;
//!     batch.push(session, "Describe the image.", &[&Image::open(path)?])?;
//! }
//! for (_session, answer) in batch.run() {
//!     println!("{}", answer?.text);
//! }
//! # Ok::<(), llava::Error>(())
//! ```
//!
//! # Errors
//!
//! Every error is an [`Error`]: a variant for the program, a sentence for the person. A damaged file, image or
//! chat template is an error and never a panic, as long as a model file does not change while it is open
//! ([`Model::open`]). A call that fails leaves a session as it was.
//!
//! ```
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/transformers")).unwrap();
//! # use llava::{Error, Image, Model};
//! # let model = Model::builder("llava/lm.gguf").context(16).load()?;
//! # let image = Image::open("images/wide.png")?;
//! match model.describe(&image) {
//!     Err(Error::ContextFull { needed, context, .. }) => assert!(needed >= context),
//!     other => panic!("{other:?}"),
//! }
//! # Ok::<(), llava::Error>(())
//! ```
//!
//! # Threads, cancelling and progress
//!
//! A model has one pool of threads, as many as the process may use unless [`ModelBuilder::threads`] says fewer. Sessions
//! on different threads may run at the same time and take turns at it. A [`Control`] stops a session or a batch from
//! another thread; what there is of the answer is returned with [`FinishReason::Cancelled`]. It also says how far the
//! work before the first word is: [`Control::on_progress`].
//!
//! ```
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/transformers")).unwrap();
//! # use llava::{Error, FinishReason, Image, Model};
//! # let model = Model::open("llava")?;
//! # let image = Image::open("images/wide.png")?;
//! let mut session = model.session();
//! let control = session.control();
//! let answer = session.ask_with("What is this?", &[&image], |_| {
//!     control.cancel(); // from here or from any other thread
//!     std::ops::ControlFlow::Continue(())
//! })?;
//! assert_eq!(answer.finish_reason, FinishReason::Cancelled);
//! # Ok::<(), llava::Error>(())
//! ```
//!
//! # Logging
//!
//! The library logs through the [`log`](https://docs.rs/log) crate: warnings about files that had to be guessed at, and
//! what was chosen at level `debug`.

#[doc(hidden)]
pub mod bench;
mod cpu;
mod decoder;
mod error;
pub mod gguf;
#[cfg(test)]
mod golden;
#[cfg(feature = "hub")]
pub mod hub;
pub mod image;
#[doc(hidden)]
pub mod kernels;
mod model;
#[doc(hidden)]
pub mod npy;
pub mod prompt;
pub mod quant;
mod replace;
mod sample;
mod session;
mod threads;
pub mod tokenizer;
mod vision;
mod weights;

pub use cpu::{Control, Progress, Stage};
pub use decoder::Config as DecoderConfig;
pub use decoder::kv::KvType;
pub use error::{Error, Result};
pub use image::{Image, PixelFormat};
pub use model::{DESCRIBE, Input, Model, ModelBuilder};
#[doc(hidden)]
pub use replace::replace;
pub use sample::{Generation, TokenLogprob};
pub use session::{Answer, Batch, FinishReason, Score, Session, Stream, Timings, TokenInfo};
#[doc(hidden)]
pub use vision::Vision;
pub use vision::{Config as VisionConfig, Embedding, ProjectorKind};
