//! Sums and conversions of rows.

use super::lanes::{load, load_partial};
use half::f16;
use std::arch::x86_64::*;

/// `y += x`, bit-equal to scalar's.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add(y: &mut [f32], x: &[f32]) {
    assert_eq!(y.len(), x.len(), "row length");
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// Rounds to half precision, nearest even; bit-equal to scalar's but for the payload of NaN.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn to_f16(x: &[f32], out: &mut [f16]) {
    assert_eq!(x.len(), out.len(), "row length");
    let (chunks, rest) = x.as_chunks::<8>();
    let (outs, out_rest) = out.as_chunks_mut::<8>();
    for (x, out) in chunks.iter().zip(outs) {
        *out = round(load(x));
    }
    out_rest.copy_from_slice(&round(load_partial(rest))[..rest.len()]);
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn round(v: __m256) -> [f16; 8] {
    let bits = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
    let mut out = [f16::ZERO; 8];
    // SAFETY: `out` has the 16 bytes written.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), bits) };
    out
}
