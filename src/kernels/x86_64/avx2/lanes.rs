//! Eight lanes of f32: loads, stores, sums.

use half::f16;
use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load(x: &[f32; 8]) -> __m256 {
    // SAFETY: the reference covers the 32 bytes read.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store(x: &mut [f32; 8], v: __m256) {
    // SAFETY: the reference covers the 32 bytes written.
    unsafe { _mm256_storeu_ps(x.as_mut_ptr(), v) }
}

/// All ones in the first `n` lanes, zeros in the others.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn mask(n: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// At most 8 values, zeros in the other lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_partial(x: &[f32]) -> __m256 {
    // SAFETY: lanes outside the mask are not read; the others lie in the slice.
    unsafe { _mm256_maskload_ps(x.as_ptr(), mask(x.len())) }
}

/// As many lanes as `x` has values, at most 8.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store_partial(x: &mut [f32], v: __m256) {
    // SAFETY: lanes outside the mask are not written; the others lie in the slice.
    unsafe { _mm256_maskstore_ps(x.as_mut_ptr(), mask(x.len()), v) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_f16(x: &[f16; 8]) -> __m256 {
    // SAFETY: the reference covers the 16 bytes read.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(x.as_ptr().cast()) })
}

/// At most 8 values, zeros in the other lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_f16_partial(x: &[f16]) -> __m256 {
    let mut padded = [f16::ZERO; 8];
    padded[..x.len()].copy_from_slice(x);
    load_f16(&padded)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_i8x32(x: &[i8; 32]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes read.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

/// 32 of `x`, from `at` on. Panics if there are fewer.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_u8x32(x: &[u8], at: usize) -> __m256i {
    let x = &x[at..at + 32];
    // SAFETY: the slice covers the 32 bytes read.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_u8x16(x: &[u8; 16]) -> __m128i {
    // SAFETY: the reference covers the 16 bytes read.
    unsafe { _mm_loadu_si128(x.as_ptr().cast()) }
}

/// An f16 field of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn half_to_f32(bytes: [u8; 2]) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(u16::from_le_bytes(bytes)))))
}

/// Lanes added as `((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7))`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sum(v: __m256) -> f32 {
    let s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)))
}

/// The same for two vectors of four f64, added first.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sum_f64([a, b]: [__m256d; 2]) -> f64 {
    let s = _mm256_add_pd(a, b);
    let s = _mm_add_pd(_mm256_castpd256_pd128(s), _mm256_extractf128_pd::<1>(s));
    _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)))
}

/// Lanes 0..4 and 4..8 as f64.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn widen(v: __m256) -> [__m256d; 2] {
    [_mm256_cvtps_pd(_mm256_castps256_ps128(v)), _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(v))]
}

/// The reverse of [`widen`], rounding.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn narrow([low, high]: [__m256d; 2]) -> __m256 {
    _mm256_set_m128(_mm256_cvtpd_ps(high), _mm256_cvtpd_ps(low))
}
