//! Makes the files that [`llava`] runs: a crate of its own, so that programs which only run models need none of its
//! dependencies.
//!
//! [`quantize`] makes smaller files of a GGUF file, and [`diff`] says what differs between two.

pub mod diff;
pub mod quantize;
