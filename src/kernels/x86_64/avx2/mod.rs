//! AVX2.
use super::super::Kernels;
pub(crate) fn kernels() -> Option<&'static Kernels> {
    None
}
