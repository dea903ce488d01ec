//! The one error type of the crate.

use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, with what was expected, what was found, and where.
///
/// Each variant is one thing a caller may want to react to; the text is for the person at the keyboard.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read, mapped or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// A GGUF file breaks the format, or its contents contradict each other.
    #[error("{file}: {field}: {reason}")]
    InvalidModel {
        /// The file's name, or `<memory>`.
        file: String,
        /// The metadata key, tensor or header field at fault.
        field: String,
        /// What was found and what was expected.
        reason: String,
    },

    /// A GGUF file is sound, but uses something this engine does not implement.
    #[error("{file}: {field}: {reason}")]
    Unsupported {
        /// The file's name, or `<memory>`.
        file: String,
        /// The metadata key or tensor at fault.
        field: String,
        /// What was found and what is supported.
        reason: String,
    },

    /// The language model and the mmproj do not belong together.
    #[error("{mmproj} does not fit {model}: {reason}")]
    PairMismatch {
        /// The language model's file.
        model: String,
        /// The vision tower's and projector's file.
        mmproj: String,
        /// The quantity that differs.
        reason: String,
    },

    /// No model was named, or none was found where one was named.
    #[error("{0}")]
    ModelNotFound(String),

    /// An image cannot be decoded or is over a limit.
    #[error("{name}: {reason}")]
    InvalidImage {
        /// The image's path, or `<memory>`.
        name: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A chat template does not compile, fails, or loses an image.
    #[error("chat template {name}: {reason}")]
    Template {
        /// The template's name, or `tokenizer.chat_template`.
        name: String,
        /// What went wrong.
        reason: String,
    },

    /// The prompt does not fit into the context.
    #[error(
        "the prompt takes {needed} tokens ({image_tokens} of them for images), which leaves no room for an answer in a \
         context of {context}: shorten the prompt, send fewer images, or use a longer context (this model allows {trained})"
    )]
    ContextFull {
        /// Tokens that the conversation so far and the prompt need.
        needed: usize,
        /// How many of those are image tokens.
        image_tokens: usize,
        /// The context length in use.
        context: usize,
        /// The context length that the model was trained with.
        trained: usize,
    },

    /// An argument is outside its range.
    #[error("{name}: {reason}")]
    InvalidArgument {
        /// The argument.
        name: &'static str,
        /// Its value and its range.
        reason: String,
    },

    /// Something would need more memory than there is or than is allowed.
    #[error("{what} needs {bytes} bytes of memory: {reason}")]
    OutOfMemory {
        /// What was to be allocated.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit, or the allocator's refusal.
        reason: String,
    },

    /// A model could not be had from the Hugging Face Hub.
    #[error("{what}: {reason}")]
    Download {
        /// The URL, or the setting at fault.
        what: String,
        /// What the server or the network said, and what may help.
        reason: String,
    },

    /// The operation was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), source }
    }

    pub(crate) fn invalid(file: impl Into<String>, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidModel { file: file.into(), field: printable(field.into()), reason: printable(reason.into()) }
    }

    pub(crate) fn unsupported(file: impl Into<String>, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { file: file.into(), field: printable(field.into()), reason: printable(reason.into()) }
    }

    pub(crate) fn image(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidImage { name: name.into(), reason: reason.into() }
    }

    #[cfg(feature = "hub")]
    pub(crate) fn download(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Download { what: printable(what.into()), reason: printable(reason.into()) }
    }

    pub(crate) fn argument(name: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidArgument { name, reason: reason.into() }
    }
}

/// Text that may quote a file: cut to what a person reads, and without what steers a terminal.
fn printable(text: String) -> String {
    const MAX: usize = 600;
    let cut = text.char_indices().nth(MAX).map_or(text.len(), |(i, _)| i);
    let kept: String =
        text[..cut].chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if cut < text.len() { kept + "…" } else { kept }
}
