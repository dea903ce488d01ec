//! Conversions of rows. `add` needs nothing here: the compiler vectorises scalar's.

use super::lanes::{load, load_partial, narrow_f16};
use half::f16;
use std::arch::aarch64::*;

/// Rounds to half precision, nearest even; bit-equal to scalar's but for the payload of NaN.
#[target_feature(enable = "neon")]
pub(super) fn to_f16(x: &[f32], out: &mut [f16]) {
    assert_eq!(x.len(), out.len(), "row length");
    let (chunks, rest) = x.as_chunks::<4>();
    let (outs, out_rest) = out.as_chunks_mut::<4>();
    for (x, out) in chunks.iter().zip(outs) {
        *out = round(load(x));
    }
    out_rest.copy_from_slice(&round(load_partial(rest))[..rest.len()]);
}

#[inline]
#[target_feature(enable = "neon")]
fn round(v: float32x4_t) -> [f16; 4] {
    let mut out = [f16::ZERO; 4];
    // SAFETY: `out` has the 8 bytes written.
    unsafe { vst1_u16(out.as_mut_ptr().cast(), narrow_f16(v)) };
    out
}
