//! An encoded image.

use crate::error::{Error, Result};
use crate::npy;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An image as the language model sees it: image tokens, `[tokens, width]`. Cheap to clone; can be used in any
/// number of sessions with the model that made it, saved, and loaded again.
#[derive(Clone)]
pub struct Embedding {
    values: Arc<[f32]>, // [tokens, width]
    width: usize,
    /// Tells embeddings apart in a session's cache; clones share it.
    id: u64,
}

impl Embedding {
    /// An embedding from its values, `[tokens, width]`, row by row.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the values are not whole rows, or there are none.
    pub fn new(values: Vec<f32>, width: usize) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if width == 0 || values.is_empty() || !values.len().is_multiple_of(width) {
            let reason = format!("{} values do not make rows of {width}", values.len());
            return Err(Error::argument("values", reason));
        }
        Ok(Self { values: values.into(), width, id: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    /// Number of image tokens.
    pub fn tokens(&self) -> usize {
        self.values.len() / self.width
    }

    /// Width of a token, the language model's `d_model`.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The values, `[tokens, width]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Writes a NumPy file, float32 `[tokens, width]`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        npy::save(path.as_ref(), &self.values, &[self.tokens(), self.width])
    }

    /// Reads what [`Embedding::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::InvalidArgument`] if it is not a NumPy file of float32 `[tokens, width]`.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        match npy::load(path.as_ref())? {
            (values, shape) if shape.len() == 2 => Self::new(values, shape[1]),
            (_, shape) => {
                Err(Error::argument("path", format!("an array of shape {shape:?}, expected [tokens, width]")))
            }
        }
    }
}

impl std::fmt::Debug for Embedding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Embedding([{}, {}])", self.tokens(), self.width)
    }
}
