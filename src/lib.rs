//! LLaVA inference from GGUF files.

mod error;
pub mod gguf;
pub mod prompt;
pub mod quant;
pub mod tokenizer;

pub use error::{Error, Result};
