//! The language model: the LLaMA family (`llama`, `qwen2`, `phi3`).

pub mod config;
pub mod forward;
pub mod kv;
pub mod page;
pub mod rope;

pub use config::Config;
pub use forward::{Decoder, Row};

#[cfg(test)]
mod tests;
