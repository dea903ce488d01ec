//! Super-blocks of 256 against quantised activations, 32 values at a time.
//!
//! Fields of 1, 2 and 4 bits are shifted as 16-bit lanes; what crosses over from the neighbouring byte is masked off.

use super::lanes::{half_to_f32, load_u8x16, load_u8x32};
use super::level::Level;
use super::matmul_q8::{Columns, DotQ8, add_signed, add_unsigned, subtract_mins};
use crate::quant::k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, q3_k_scales, q4_k_scales_mins};
use std::arch::x86_64::*;

/// The integer scales of a super-block with 16 of them; a group of 32 values needs two.
#[derive(Clone, Copy)]
struct Scales16 {
    /// Scales 0..8, twice.
    low: __m256i,
    /// Scales 8..16, twice.
    high: __m256i,
}

impl Scales16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn new(scales: __m256i) -> Self {
        Self {
            low: _mm256_permute2x128_si256::<0x00>(scales, scales),
            high: _mm256_permute2x128_si256::<0x11>(scales, scales),
        }
    }

    /// Scale `2j` in the lower half, scale `2j + 1` in the upper half.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn pair(self, j: usize) -> __m256i {
        let first = 0x0100 + 0x0404 * (j % 4) as i16;
        let select = _mm256_set_m128i(_mm_set1_epi16(first + 0x0202), _mm_set1_epi16(first));
        _mm256_shuffle_epi8(if j < 4 { self.low } else { self.high }, select)
    }
}

/// Scale `j` of 8 in every lane; `scales` has them in both halves.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scale(scales: __m256i, j: usize) -> __m256i {
    _mm256_shuffle_epi8(scales, _mm256_set1_epi16(0x0100 + 0x0202 * j as i16))
}

impl DotQ8 for Q2_K {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn accumulate<L: Level, const C: usize>(&self, x: Columns<'_>, at: usize, acc: &mut [__m256; C]) {
        let bytes = load_u8x16(&self.scales);
        let nibble = _mm_set1_epi8(15);
        let scales = Scales16::new(_mm256_cvtepu8_epi16(_mm_and_si128(bytes, nibble)));
        let mins = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16::<4>(bytes), nibble));
        let d = _mm256_set1_ps(half_to_f32(self.d));
        // SAFETY: the contract of this function.
        unsafe { subtract_mins(mins, half_to_f32(self.dmin), x, at, acc) };
        for half in 0..2 {
            let mut qs = load_u8x32(&self.qs, 32 * half);
            for j in 4 * half..4 * half + 4 {
                let w = _mm256_and_si256(qs, _mm256_set1_epi8(3));
                qs = _mm256_srli_epi16::<2>(qs);
                // SAFETY: the contract of this function.
                unsafe { add_unsigned::<L, C>(w, Some(scales.pair(j)), d, x, at + j, acc) };
            }
        }
    }
}

impl DotQ8 for Q3_K {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn accumulate<L: Level, const C: usize>(&self, x: Columns<'_>, at: usize, acc: &mut [__m256; C]) {
        let scales = q3_k_scales(&self.scales).map(|s| s as u8);
        let scales = Scales16::new(_mm256_cvtepi8_epi16(load_u8x16(&scales)));
        let d = _mm256_set1_ps(half_to_f32(self.d));
        let mut third = load_u8x32(&self.hmask, 0);
        for half in 0..2 {
            let mut qs = load_u8x32(&self.qs, 32 * half);
            for j in 4 * half..4 * half + 4 {
                let low = _mm256_and_si256(qs, _mm256_set1_epi8(3));
                let high = _mm256_slli_epi16::<2>(_mm256_and_si256(third, _mm256_set1_epi8(1)));
                let w = _mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(4));
                qs = _mm256_srli_epi16::<2>(qs);
                third = _mm256_srli_epi16::<1>(third);
                // SAFETY: the contract of this function.
                unsafe { add_signed::<L, C>(w, Some(scales.pair(j)), d, x, at + j, acc) };
            }
        }
    }
}

/// The scales, in both halves, and the minima, each twice, of Q4_K and Q5_K.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scales_mins(bytes: &[u8; 12]) -> (__m256i, __m256i) {
    let (scales, mins) = q4_k_scales_mins(bytes);
    let scales = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(i64::from_le_bytes(scales)));
    let mins = _mm_cvtsi64_si128(i64::from_le_bytes(mins));
    (_mm256_broadcastsi128_si256(scales), _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(mins, mins)))
}

impl DotQ8 for Q4_K {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn accumulate<L: Level, const C: usize>(&self, x: Columns<'_>, at: usize, acc: &mut [__m256; C]) {
        let (scales, mins) = scales_mins(&self.scales);
        let d = _mm256_set1_ps(half_to_f32(self.d));
        let nibble = _mm256_set1_epi8(15);
        // SAFETY: the contract of this function.
        unsafe { subtract_mins(mins, half_to_f32(self.dmin), x, at, acc) };
        for j in 0..4 {
            let qs = load_u8x32(&self.qs, 32 * j);
            let low = _mm256_and_si256(qs, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(qs), nibble);
            // SAFETY: the contract of this function.
            unsafe {
                add_unsigned::<L, C>(low, Some(scale(scales, 2 * j)), d, x, at + 2 * j, acc);
                add_unsigned::<L, C>(high, Some(scale(scales, 2 * j + 1)), d, x, at + 2 * j + 1, acc);
            }
        }
    }
}

impl DotQ8 for Q5_K {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn accumulate<L: Level, const C: usize>(&self, x: Columns<'_>, at: usize, acc: &mut [__m256; C]) {
        let (scales, mins) = scales_mins(&self.scales);
        let d = _mm256_set1_ps(half_to_f32(self.d));
        let nibble = _mm256_set1_epi8(15);
        let one = _mm256_set1_epi8(1);
        let mut fifth = load_u8x32(&self.qh, 0);
        // SAFETY: the contract of this function.
        unsafe { subtract_mins(mins, half_to_f32(self.dmin), x, at, acc) };
        for j in 0..4 {
            let qs = load_u8x32(&self.qs, 32 * j);
            let low = _mm256_and_si256(qs, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(qs), nibble);
            let low = _mm256_or_si256(low, _mm256_slli_epi16::<4>(_mm256_and_si256(fifth, one)));
            fifth = _mm256_srli_epi16::<1>(fifth);
            let high = _mm256_or_si256(high, _mm256_slli_epi16::<4>(_mm256_and_si256(fifth, one)));
            fifth = _mm256_srli_epi16::<1>(fifth);
            // SAFETY: the contract of this function.
            unsafe {
                add_unsigned::<L, C>(low, Some(scale(scales, 2 * j)), d, x, at + 2 * j, acc);
                add_unsigned::<L, C>(high, Some(scale(scales, 2 * j + 1)), d, x, at + 2 * j + 1, acc);
            }
        }
    }
}

impl DotQ8 for Q6_K {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn accumulate<L: Level, const C: usize>(&self, x: Columns<'_>, at: usize, acc: &mut [__m256; C]) {
        let scales = self.scales.map(|s| s as u8);
        let scales = Scales16::new(_mm256_cvtepi8_epi16(load_u8x16(&scales)));
        let d = _mm256_set1_ps(half_to_f32(self.d));
        let nibble = _mm256_set1_epi8(15);
        for half in 0..2 {
            let low = [load_u8x32(&self.ql, 64 * half), load_u8x32(&self.ql, 64 * half + 32)];
            let low = [low[0], low[1], _mm256_srli_epi16::<4>(low[0]), _mm256_srli_epi16::<4>(low[1])];
            let mut high = load_u8x32(&self.qh, 32 * half);
            for (j, low) in low.into_iter().enumerate() {
                let upper = _mm256_slli_epi16::<4>(_mm256_and_si256(high, _mm256_set1_epi8(3)));
                high = _mm256_srli_epi16::<2>(high);
                let w = _mm256_or_si256(_mm256_and_si256(low, nibble), upper);
                let w = _mm256_sub_epi8(w, _mm256_set1_epi8(32));
                let j = 4 * half + j;
                // SAFETY: the contract of this function.
                unsafe { add_signed::<L, C>(w, Some(scales.pair(j)), d, x, at + j, acc) };
            }
        }
    }
}
