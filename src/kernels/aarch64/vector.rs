//! Dot products and conversions of rows. `add` needs nothing here: the compiler vectorises scalar's.

use super::lanes::{load, load_f16, load_f16_partial, load_partial, narrow_f16, store, store_partial, sum};
use half::f16;
use std::arch::aarch64::*;

/// Four running sums of four lanes hide the latency of the multiply-add; each takes every fourth vector.
#[inline]
#[target_feature(enable = "neon")]
fn dot(x: &[f32], len: usize, at: impl Fn(usize) -> float32x4_t, rest: float32x4_t) -> f32 {
    assert_eq!(x.len(), len, "row length");
    let mut acc = [vdupq_n_f32(0.0); 4];
    let (chunks, x_rest) = x.as_chunks::<4>();
    let (quads, last) = chunks.as_chunks::<4>();
    for (i, quad) in quads.iter().enumerate() {
        for (j, x) in quad.iter().enumerate() {
            acc[j] = vfmaq_f32(acc[j], load(x), at(4 * i + j));
        }
    }
    for (j, x) in last.iter().enumerate() {
        acc[j] = vfmaq_f32(acc[j], load(x), at(4 * quads.len() + j));
    }
    acc[3] = vfmaq_f32(acc[3], load_partial(x_rest), rest);
    sum(vaddq_f32(vaddq_f32(acc[0], acc[1]), vaddq_f32(acc[2], acc[3])))
}

/// `Σ x · y`; like scalar's within `len · 2⁻²⁴ · Σ |x y|`.
#[target_feature(enable = "neon")]
pub(super) fn dot_f32(x: &[f32], y: &[f32]) -> f32 {
    let (chunks, rest) = y.as_chunks::<4>();
    dot(x, y.len(), |i| load(&chunks[i]), load_partial(rest))
}

/// `Σ x · y`, y in half precision; accurate as [`dot_f32`].
#[target_feature(enable = "neon")]
pub(super) fn dot_f16(x: &[f32], y: &[f16]) -> f32 {
    let (chunks, rest) = y.as_chunks::<4>();
    dot(x, y.len(), |i| load_f16(&chunks[i]), load_f16_partial(rest))
}

#[inline]
#[target_feature(enable = "neon")]
fn axpy(y: &mut [f32], a: f32, len: usize, at: impl Fn(usize) -> float32x4_t, rest: float32x4_t) {
    assert_eq!(y.len(), len, "row length");
    let a = vdupq_n_f32(a);
    let (chunks, y_rest) = y.as_chunks_mut::<4>();
    for (i, y) in chunks.iter_mut().enumerate() {
        let v = vfmaq_f32(load(y), a, at(i));
        store(y, v);
    }
    let v = vfmaq_f32(load_partial(y_rest), a, rest);
    store_partial(y_rest, v);
}

/// `y += a · x`, rounded once where scalar rounds twice.
#[target_feature(enable = "neon")]
pub(super) fn axpy_f32(y: &mut [f32], a: f32, x: &[f32]) {
    let (chunks, rest) = x.as_chunks::<4>();
    axpy(y, a, x.len(), |i| load(&chunks[i]), load_partial(rest));
}

/// `y += a · x`, x in half precision, rounded once.
#[target_feature(enable = "neon")]
pub(super) fn axpy_f16(y: &mut [f32], a: f32, x: &[f16]) {
    let (chunks, rest) = x.as_chunks::<4>();
    axpy(y, a, x.len(), |i| load_f16(&chunks[i]), load_f16_partial(rest));
}

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
