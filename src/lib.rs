//! LLaVA inference from GGUF files.

mod error;

pub use error::{Error, Result};
