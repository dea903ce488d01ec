//! LLaVA inference from GGUF files.

mod error;
#[doc(hidden)]
pub mod kernels;
#[doc(hidden)]
pub mod quant;

pub use error::{Error, Result};
