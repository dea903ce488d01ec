//! Activations to int8, and f16 weights to f32.

use super::super::Q8_BLOCK;
use super::lanes::{load, load_f16, load_f16_partial, store, store_i8x16, store_partial};
use half::f16;
use std::arch::aarch64::*;

/// One row, bit-equal to scalar's `quantize_q8` (but for the payload of NaN scales).
#[target_feature(enable = "neon")]
pub(super) fn quantize_q8(x: &[f32], qs: &mut [i8], scales: &mut [f32], sums: &mut [i16]) {
    let blocks = x.len() / Q8_BLOCK;
    assert_eq!(x.len(), blocks * Q8_BLOCK, "whole blocks in a row");
    assert_eq!((qs.len(), scales.len(), sums.len()), (x.len(), blocks, 2 * blocks), "outputs for the row");

    let (vectors, _) = x.as_chunks::<4>();
    let (halves, _) = qs.as_chunks_mut::<16>();
    let (halves, _) = halves.as_chunks_mut::<2>();
    let (sums, _) = sums.as_chunks_mut::<2>();
    for (b, (x, qs)) in vectors.as_chunks::<8>().0.iter().zip(halves).enumerate() {
        let x = x.each_ref().map(|x| load(x));
        let scale = max_magnitude(x) / 127.0;
        let inverse = 1.0 / scale;
        if !scale.is_finite() || inverse.is_infinite() {
            scales[b] = if scale.is_finite() { 0.0 } else { f32::NAN };
            *qs = [[0; 16]; 2];
            sums[b] = [0; 2];
            continue;
        }
        scales[b] = scale;
        for half in 0..2 {
            let x = &x[4 * half..][..4];
            let q = |i: usize| vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(x[i], inverse)));
            let [low, high] = [vcombine_s16(q(0), q(1)), vcombine_s16(q(2), q(3))];
            let q = vcombine_s8(vqmovn_s16(low), vqmovn_s16(high));
            store_i8x16(&mut qs[half], q);
            sums[b][half] = vaddlvq_s8(q);
        }
    }
}

/// The largest magnitude, infinite or NaN if one of the values is: as integers, the magnitudes of NaN are above
/// infinity's.
#[inline]
#[target_feature(enable = "neon")]
fn max_magnitude(x: [float32x4_t; 8]) -> f32 {
    let m = x.map(|x| vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7fff_ffff)));
    f32::from_bits(vmaxvq_u32(m.into_iter().fold(vdupq_n_u32(0), |a, b| vmaxq_u32(a, b))))
}

/// Little-endian f16 to f32.
#[target_feature(enable = "neon")]
pub(super) fn dequantize_f16(bytes: &[u8], out: &mut [f32]) {
    let (halves, rest) = bytes.as_chunks::<2>();
    assert!(rest.is_empty() && halves.len() == out.len(), "bytes for the values");
    let (chunks, rest) = halves.as_chunks::<4>();
    let (outs, out_rest) = out.as_chunks_mut::<4>();
    for (x, out) in chunks.iter().zip(outs) {
        store(out, load_f16(&x.map(f16::from_le_bytes)));
    }
    if !rest.is_empty() {
        let mut last = [f16::ZERO; 4];
        for (last, x) in last.iter_mut().zip(rest) {
            *last = f16::from_le_bytes(*x);
        }
        store_partial(out_rest, load_f16_partial(&last));
    }
}
