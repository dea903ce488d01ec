//! The bytes behind a file: a mapping or a buffer, shared by everything that reads from it.

use crate::error::{Error, Result};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A file's bytes.
#[derive(Clone)]
pub(super) enum Storage {
    Map(Arc<memmap2::Mmap>),
    Owned(Arc<Vec<u8>>),
    Static(&'static [u8]),
}

impl Storage {
    /// Maps `path` for reading.
    pub(super) fn map(path: &Path) -> Result<Self> {
        // Before it is opened: opening a pipe waits for its writer.
        let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if !metadata.is_file() {
            return Err(Error::invalid(path.display().to_string(), "file", "is not a regular file"));
        }
        if metadata.len() == 0 {
            return Err(Error::invalid(path.display().to_string(), "file", "is empty"));
        }
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        // SAFETY: the mapping is private and read-only. As with every mapping, shrinking the file while the model
        // is in use makes the operating system end the process; the documentation of `Model::open` says so and
        // names `Model::from_bytes` for files that may change.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Ok(Self::Map(Arc::new(map)))
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Owned(bytes) => bytes,
            Self::Static(bytes) => bytes,
        }
    }
}

/// A range of a file's bytes that keeps the file alive. Cheap to clone.
#[derive(Clone)]
pub struct Span {
    storage: Storage,
    start: usize,
    len: usize,
}

impl Span {
    /// `start..start + len` of `storage`; `None` if that is not inside it.
    pub(super) fn new(storage: Storage, start: usize, len: usize) -> Option<Self> {
        let end = start.checked_add(len)?;
        (end <= storage.as_slice().len()).then_some(Self { storage, start, len })
    }

    /// Where in the file it lies.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.start.saturating_add(self.len)
    }

    /// A span of its own bytes, for tensors made in memory.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self { storage: Storage::Owned(Arc::new(bytes)), start: 0, len }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.storage.as_slice().get(self.range()).unwrap_or_default()
    }

    /// Lets the memory go that a mapped span takes; it is read from the file again when it is used. For who goes through
    /// a file larger than memory.
    pub fn release(&self) {
        #[cfg(unix)]
        if let Storage::Map(map) = &self.storage {
            // SAFETY: the pages are those of a private mapping that nobody writes to, so that they hold the same bytes when
            // they are read again.
            // Where the system refuses, the memory stays.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, self.start, self.len) };
        }
    }
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Span({}..+{})", self.start, self.len)
    }
}
