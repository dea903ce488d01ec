//! What differs between two GGUF files: keys, shapes and types, values.
//!
//! ```no_run
//! use llava::gguf::File;
//! use llava_convert::diff::diff;
//! use std::ops::ControlFlow;
//!
//! let (a, b) = (File::open("llava-f16.gguf")?, File::open("llava-q4_k_m.gguf")?);
//! for tensor in diff(&a, &b, &mut |_, _| ControlFlow::Continue(()))?.tensors {
//!     println!("{} {:?}", tensor.name, tensor.error);
//! }
//! # Ok::<(), llava::Error>(())
//! ```

use llava::Error;
use llava::gguf::{Array, File, TensorInfo, Value};
use llava::quant;
use std::ops::ControlFlow;

/// What differs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diff<'a> {
    /// Keys, those of the first file first.
    pub keys: Vec<Key<'a>>,
    /// Tensors, those of the first file first.
    pub tensors: Vec<Tensor<'a>>,
    /// How many tensors have the same type, shape and bytes.
    pub same_tensors: usize,
}

/// A key that one file lacks, or that has different values.
#[derive(Clone, Debug, PartialEq)]
pub struct Key<'a> {
    /// The key.
    pub key: &'a str,
    /// In the first file.
    pub a: Option<&'a Value>,
    /// In the second.
    pub b: Option<&'a Value>,
}

/// A tensor that one file lacks, or that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// In the first file.
    pub a: Option<Shape<'a>>,
    /// In the second.
    pub b: Option<Shape<'a>>,
    /// The norm of the difference over the norm in the first file, where the values can be compared.
    pub error: Option<f64>,
}

/// A tensor's type and dimensions.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape<'a> {
    /// Its type by ggml's name.
    pub kind: String,
    /// Fastest first, as in ggml.
    pub dims: &'a [usize],
}

impl Diff<'_> {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.tensors.is_empty()
    }
}

impl Key<'_> {
    /// Of two arrays of one type, where they first differ; one may have ended there.
    pub fn first_difference(&self) -> Option<usize> {
        fn first<T: PartialEq>(a: &[T], b: &[T]) -> Option<usize> {
            let shorter = a.len().min(b.len());
            a.iter().zip(b).position(|(a, b)| a != b).or((a.len() != b.len()).then_some(shorter))
        }
        let (Some(Value::Array(a)), Some(Value::Array(b))) = (self.a, self.b) else { return None };
        match (a, b) {
            (Array::U8(a), Array::U8(b)) => first(a, b),
            (Array::I8(a), Array::I8(b)) => first(a, b),
            (Array::U16(a), Array::U16(b)) => first(a, b),
            (Array::I16(a), Array::I16(b)) => first(a, b),
            (Array::U32(a), Array::U32(b)) => first(a, b),
            (Array::I32(a), Array::I32(b)) => first(a, b),
            (Array::F32(a), Array::F32(b)) => first(a, b),
            (Array::Bool(a), Array::Bool(b)) => first(a, b),
            (Array::String(a), Array::String(b)) => first(a, b),
            (Array::U64(a), Array::U64(b)) => first(a, b),
            (Array::I64(a), Array::I64(b)) => first(a, b),
            (Array::F64(a), Array::F64(b)) => first(a, b),
            _ => None,
        }
    }
}

/// Compares two files. `on_progress` is called before each tensor of the first file with the bytes that are done and all of
/// them; it can cancel.
///
/// # Errors
/// [`Error::Cancelled`].
pub fn diff<'a>(
    a: &'a File,
    b: &'a File,
    on_progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Diff<'a>, Error> {
    let mut found = Diff::default();
    for (key, value) in a.metadata() {
        let other = b.get(key);
        if other != Some(value) {
            found.keys.push(Key { key, a: Some(value), b: other });
        }
    }
    let only_b = b.metadata().iter().filter(|(key, _)| a.get(key).is_none());
    found.keys.extend(only_b.map(|(key, value)| Key { key, a: None, b: Some(value) }));

    let total = a.tensors().iter().map(|t| t.bytes() as u64).sum();
    let mut done = 0;
    for t in a.tensors() {
        if on_progress(done, total).is_break() {
            return Err(Error::Cancelled);
        }
        done += t.bytes() as u64;
        match b.tensor(t.name()) {
            Some(other) if same(t, other) => found.same_tensors += 1,
            other => found.tensors.push(Tensor {
                name: t.name(),
                a: Some(shape(t)),
                b: other.map(shape),
                error: other.and_then(|other| error(t, other)),
            }),
        }
        for span in t.data().into_iter().chain(b.tensor(t.name()).and_then(TensorInfo::data)) {
            span.release();
        }
    }
    let only_b = b.tensors().iter().filter(|t| a.tensor(t.name()).is_none());
    found.tensors.extend(only_b.map(|t| Tensor { name: t.name(), a: None, b: Some(shape(t)), error: None }));
    Ok(found)
}

fn shape(t: &TensorInfo) -> Shape<'_> {
    Shape { kind: t.type_name(), dims: t.dims() }
}

fn same<'a>(a: &'a TensorInfo, b: &'a TensorInfo) -> bool {
    let bytes = |t: &'a TensorInfo| t.data().map(|d| d.as_slice());
    shape(a) == shape(b) && bytes(a) == bytes(b)
}

/// The norm of the difference over the norm of `a`.
fn error(a: &TensorInfo, b: &TensorInfo) -> Option<f64> {
    if a.dims() != b.dims() {
        return None;
    }
    let columns = *a.dims().first()?;
    let mut rows = Vec::new();
    for t in [a, b] {
        let kind = t.block_type()?;
        rows.push((kind, t.data()?.as_slice().chunks_exact(kind.row_bytes(columns).filter(|&n| n > 0)?)));
    }
    let ((kind_b, rows_b), (kind_a, rows_a)) = (rows.pop()?, rows.pop()?);
    let (mut x, mut y) = (vec![0f32; columns], vec![0f32; columns]);
    let (mut lost, mut all) = (0.0, 0.0);
    for (row_a, row_b) in rows_a.zip(rows_b) {
        quant::dequantize(kind_a, row_a, &mut x);
        quant::dequantize(kind_b, row_b, &mut y);
        for (x, y) in x.iter().zip(&y) {
            lost += f64::from(x - y).powi(2);
            all += f64::from(*x).powi(2);
        }
    }
    Some(if lost == 0.0 { 0.0 } else { (lost / all).sqrt() })
}
