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
pub mod quant;
mod sample;
mod session;
mod threads;
mod vision;
mod weights;

pub use error::{Error, Result};
pub use image::Image;
pub use vision::Embedding;
