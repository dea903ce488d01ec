//! LLaVA inference from GGUF files.

mod cpu;
mod decoder;
mod error;
pub mod gguf;
pub mod kernels;
pub mod quant;
mod threads;
mod weights;

pub use error::{Error, Result};
