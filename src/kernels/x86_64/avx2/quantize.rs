//! Activations to int8, and f16 weights to f32.

use super::super::super::Q8_BLOCK;
use super::lanes::{load, load_f16, load_f16_partial, store, store_partial};
use half::f16;
use std::arch::x86_64::*;

/// One row, bit-equal to scalar's `quantize_q8` (but for the payload of NaN scales).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn quantize_q8(x: &[f32], qs: &mut [i8], scales: &mut [f32], sums: &mut [i16]) {
    let blocks = x.len() / Q8_BLOCK;
    assert_eq!(x.len(), blocks * Q8_BLOCK, "whole blocks in a row");
    assert_eq!((qs.len(), scales.len(), sums.len()), (x.len(), blocks, 2 * blocks), "outputs for the row");

    let (vectors, _) = x.as_chunks::<8>();
    let (qs, _) = qs.as_chunks_mut::<Q8_BLOCK>();
    let (sums, _) = sums.as_chunks_mut::<2>();
    for (b, (x, qs)) in vectors.as_chunks::<4>().0.iter().zip(qs).enumerate() {
        let x = x.each_ref().map(|x| load(x));
        let scale = max_magnitude(x) / 127.0;
        let inverse = 1.0 / scale;
        if !scale.is_finite() || inverse.is_infinite() {
            scales[b] = if scale.is_finite() { 0.0 } else { f32::NAN };
            qs.fill(0);
            sums[b] = [0; 2];
            continue;
        }
        scales[b] = scale;
        let inverse = _mm256_set1_ps(inverse);
        let q = x.map(|x| _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse)));
        // Packing works in 128-bit halves, so groups of four come out in the order 0 2 4 6 1 3 5 7.
        let q = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        let q = _mm256_permutevar8x32_epi32(q, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        // SAFETY: `qs` has the 32 bytes written.
        unsafe { _mm256_storeu_si256(qs.as_mut_ptr().cast(), q) };
        sums[b] = half_sums(q);
    }
}

/// The largest magnitude, infinite or NaN if one of the values is: as integers, the magnitudes of NaN are above
/// infinity's.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn max_magnitude(x: [__m256; 4]) -> f32 {
    let [a, b, c, d] = x.map(|x| _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fff_ffff)));
    let m = _mm256_max_epi32(_mm256_max_epi32(a, b), _mm256_max_epi32(c, d));
    let m = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256::<1>(m));
    let m = _mm_max_epi32(m, _mm_unpackhi_epi64(m, m));
    let m = _mm_max_epi32(m, _mm_shuffle_epi32::<1>(m));
    f32::from_bits(_mm_cvtsi128_si32(m) as u32)
}

/// Sums of values 0..16 and 16..32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn half_sums(q: __m256i) -> [i16; 2] {
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
    let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    let s = _mm256_hadd_epi32(fours, fours);
    let s = _mm256_hadd_epi32(s, s);
    [_mm256_extract_epi32::<0>(s) as i16, _mm256_extract_epi32::<4>(s) as i16]
}

/// Little-endian f16 to f32.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dequantize_f16(bytes: &[u8], out: &mut [f32]) {
    let (halves, rest) = bytes.as_chunks::<2>();
    assert!(rest.is_empty() && halves.len() == out.len(), "bytes for the values");
    let (chunks, rest) = halves.as_chunks::<8>();
    let (outs, out_rest) = out.as_chunks_mut::<8>();
    for (x, out) in chunks.iter().zip(outs) {
        store(out, load_f16(&x.map(f16::from_le_bytes)));
    }
    if !rest.is_empty() {
        let mut last = [f16::ZERO; 8];
        for (last, x) in last.iter_mut().zip(rest) {
            *last = f16::from_le_bytes(*x);
        }
        store_partial(out_rest, load_f16_partial(&last));
    }
}
