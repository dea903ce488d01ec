//! LLaVA inference from GGUF files.

mod cpu;
mod decoder;
mod error;
pub mod gguf;
#[cfg(test)]
mod golden;
pub mod image;
#[doc(hidden)]
pub mod kernels;
mod model;
#[doc(hidden)]
pub mod npy;
pub mod prompt;
pub mod quant;
mod sample;
mod session;
mod threads;
pub mod tokenizer;
mod vision;
mod weights;

pub use cpu::Canceller;
pub use decoder::Config as DecoderConfig;
pub use decoder::kv::KvType;
pub use error::{Error, Result};
pub use image::{Image, PixelFormat};
pub use model::{Input, Model, ModelBuilder};
pub use sample::{Generation, TokenLogprob};
pub use session::{Answer, Batch, FinishReason, Score, Session, Stream, Timings, TokenInfo};
#[doc(hidden)]
pub use vision::Vision;
pub use vision::{Config as VisionConfig, Embedding, ProjectorKind};
