//! The activation function of CLIP's towers, in place.

use super::attention::exp;
use super::matmul_q8::mask;
use std::arch::x86_64::*;

/// `x / (1 + e^−t)`, t = 1.702 x; within 4 units in the last place, and in the tail 2 |t|, for the rounding of t.
#[target_feature(enable = "avx512f")]
pub(super) fn gelu_quick(x: &mut [f32]) {
    for x in x.chunks_mut(16) {
        let lanes = mask(x.len());
        // SAFETY: lanes outside the mask are neither read nor written; the others lie in the slice.
        unsafe {
            let v = _mm512_maskz_loadu_ps(lanes, x.as_ptr());
            let e = exp(_mm512_mul_ps(v, _mm512_set1_ps(-1.702)));
            let y = _mm512_div_ps(v, _mm512_add_ps(e, _mm512_set1_ps(1.0)));
            _mm512_mask_storeu_ps(x.as_mut_ptr(), lanes, y);
        }
    }
}
