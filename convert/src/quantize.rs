//! Smaller files of a GGUF file.
