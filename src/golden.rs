//! Test support: the golden files that `tests/golden/transformers/make.py` made.

use crate::cpu::{Control, Cpu};
use crate::gguf::File;
use crate::kernels::Kernels;
use crate::npy;
use std::path::PathBuf;

pub(crate) fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden/transformers", name].iter().collect()
}

pub(crate) fn gguf(name: &str) -> File {
    File::open(path(name)).unwrap()
}

pub(crate) fn array(name: &str) -> Vec<f32> {
    npy::load(&path(name)).unwrap().0
}

/// The cases of one kind.
pub(crate) fn cases(kind: &str) -> Vec<serde_json::Value> {
    let manifest: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path("manifest.json")).unwrap()).unwrap();
    let cases: Vec<_> = manifest["cases"].as_array().unwrap().iter().filter(|c| c["kind"] == kind).cloned().collect();
    assert!(!cases.is_empty());
    cases
}

/// Norm of the difference over the norm of the expected values.
pub(crate) fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len(), "number of values");
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)))
        / norm(&mut expected.iter().map(|x| f64::from(*x)))
}

/// Every kernel table, with 1 and with 3 threads, activations unquantised.
pub(crate) fn devices() -> Vec<Cpu> {
    let tables = Kernels::available();
    tables.into_iter().flat_map(|k| [1, 3].map(|threads| Cpu::new(k, threads, true).unwrap())).collect()
}

pub(crate) fn never() -> Control {
    Control::default()
}
