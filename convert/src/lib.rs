//! Makes the files that [`llava`] runs: a crate of its own, so that programs which only run models need none of its
//! dependencies.
//!
//! [`hf`] makes GGUF pairs of Hugging Face checkpoints, [`quantize`] smaller files of a GGUF file, and [`diff`] says what
//! differs between two.

pub mod diff;
pub mod hf;
pub mod quantize;
