//! Sums, dot products and conversions of rows.

use super::lanes::{load, load_f16, load_f16_partial, load_partial, store, store_partial, sum};
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

/// Four running sums of eight lanes hide the latency of the multiply-add; each takes every fourth vector.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot(x: &[f32], len: usize, at: impl Fn(usize) -> __m256, rest: __m256) -> f32 {
    assert_eq!(x.len(), len, "row length");
    let mut acc = [_mm256_setzero_ps(); 4];
    let (chunks, x_rest) = x.as_chunks::<8>();
    let (quads, last) = chunks.as_chunks::<4>();
    for (i, quad) in quads.iter().enumerate() {
        for (j, x) in quad.iter().enumerate() {
            acc[j] = _mm256_fmadd_ps(load(x), at(4 * i + j), acc[j]);
        }
    }
    for (j, x) in last.iter().enumerate() {
        acc[j] = _mm256_fmadd_ps(load(x), at(4 * quads.len() + j), acc[j]);
    }
    acc[3] = _mm256_fmadd_ps(load_partial(x_rest), rest, acc[3]);
    sum(_mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3])))
}

/// `Σ x · y`; like scalar's within `len · 2⁻²⁴ · Σ |x y|`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_f32(x: &[f32], y: &[f32]) -> f32 {
    let (chunks, rest) = y.as_chunks::<8>();
    dot(x, y.len(), |i| load(&chunks[i]), load_partial(rest))
}

/// `Σ x · y`, y in half precision; accurate as [`dot_f32`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_f16(x: &[f32], y: &[f16]) -> f32 {
    let (chunks, rest) = y.as_chunks::<8>();
    dot(x, y.len(), |i| load_f16(&chunks[i]), load_f16_partial(rest))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn axpy(y: &mut [f32], a: f32, len: usize, at: impl Fn(usize) -> __m256, rest: __m256) {
    assert_eq!(y.len(), len, "row length");
    let a = _mm256_set1_ps(a);
    let (chunks, y_rest) = y.as_chunks_mut::<8>();
    for (i, y) in chunks.iter_mut().enumerate() {
        let v = _mm256_fmadd_ps(a, at(i), load(y));
        store(y, v);
    }
    let v = _mm256_fmadd_ps(a, rest, load_partial(y_rest));
    store_partial(y_rest, v);
}

/// `y += a · x`, rounded once where scalar rounds twice.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn axpy_f32(y: &mut [f32], a: f32, x: &[f32]) {
    let (chunks, rest) = x.as_chunks::<8>();
    axpy(y, a, x.len(), |i| load(&chunks[i]), load_partial(rest));
}

/// `y += a · x`, x in half precision, rounded once.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn axpy_f16(y: &mut [f32], a: f32, x: &[f16]) {
    let (chunks, rest) = x.as_chunks::<8>();
    axpy(y, a, x.len(), |i| load_f16(&chunks[i]), load_f16_partial(rest));
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
