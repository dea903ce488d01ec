//! GGUF, the file format of ggml's models: reading (mapped or from bytes, split files too) and writing.
//!
//! The format is described in ggml's `docs/gguf.md`. Versions 2 and 3, little-endian, are read; version 3 is
//! written. Everything a file says is checked before it is used: a hostile file gives an [`Error`](crate::Error)
//! that names the file, the field and the reason.

mod file;
mod parse;
mod storage;
mod value;
mod write;

pub use file::{File, TensorInfo};
pub use storage::Span;
pub use value::{Array, Value};
pub use write::Writer;
