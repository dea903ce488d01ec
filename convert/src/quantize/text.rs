//! A text in chunks, cut as llama.cpp's `llama-imatrix` and `llama-perplexity` cut theirs, so that figures can be compared.

use llava::tokenizer::Special;
use llava::{Error, Input, Model};

/// Positions of a chunk, unless the caller or the model's context wants fewer.
pub const CHUNK: usize = 512;

/// The tokens of `text` in chunks of `len`, each with the token that begins texts in place of its first, where the model
/// adds one. What is left at the end is left out, unless it is all there is.
///
/// # Errors
/// [`Error::InvalidArgument`] for a text of fewer than three tokens.
pub fn chunks(model: &Model, text: &str, len: usize) -> Result<Vec<Vec<u32>>, Error> {
    let tokenizer = model.tokenizer();
    let tokens = tokenizer.encode(text, Special::Plain, tokenizer.adds_bos());
    // One position more than the input is kept for an answer.
    let len = len.min(model.context() - 1).min(tokens.len());
    if len < 3 {
        let reason = format!("is {} tokens, and at least 3 are needed", tokens.len());
        return Err(Error::InvalidArgument { name: "text", reason });
    }
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let mut chunks: Vec<_> = tokens.chunks_exact(len).map(<[u32]>::to_vec).collect();
    for (first, bos) in chunks.iter_mut().filter_map(|c| c.first_mut().zip(bos)) {
        *first = bos;
    }
    Ok(chunks)
}

/// What the model reads.
pub fn input(chunk: &[u32]) -> Vec<Input> {
    chunk.iter().copied().map(Input::Token).collect()
}
