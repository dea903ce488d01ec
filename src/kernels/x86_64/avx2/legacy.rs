//! Blocks of 32 against quantised activations.

use super::lanes::{half_to_f32, load_i8x32, load_u8x16};
use super::level::Level;
use super::matmul_q8::{Columns, DotQ8, add_min, add_signed, add_unsigned};
use crate::quant::iq4::{IQ4_NL, VALUES};
use crate::quant::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use std::arch::x86_64::*;

/// Low nibbles, then high nibbles.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn nibbles(qs: &[u8; 16]) -> __m256i {
    let low = load_u8x16(qs);
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(low), low);
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// 16 in the bytes whose bit is set.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fifth_bits(qh: [u8; 4]) -> __m256i {
    let bits = _mm256_set1_epi32(i32::from_le_bytes(qh));
    // Byte i gets the byte of `bits` that holds bit i, …
    let spread = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let bytes = _mm256_shuffle_epi8(bits, spread);
    // … and is compared with that bit alone.
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}

impl DotQ8 for Q4_0 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn accumulate<L: Level, const C: usize>(&self, x: Columns<'_>, at: usize, acc: &mut [__m256; C]) {
        let w = _mm256_sub_epi8(nibbles(&self.qs), _mm256_set1_epi8(8));
        let d = _mm256_set1_ps(half_to_f32(self.d));
        // SAFETY: the contract of this function.
        unsafe { add_signed::<L, C>(w, None, d, x, at, acc) };
    }
}

impl DotQ8 for Q4_1 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn accumulate<L: Level, const C: usize>(&self, x: Columns<'_>, at: usize, acc: &mut [__m256; C]) {
        let d = _mm256_set1_ps(half_to_f32(self.d));
        // SAFETY: the contract of this function.
        unsafe {
            add_unsigned::<L, C>(nibbles(&self.qs), None, d, x, at, acc);
            add_min(half_to_f32(self.m), x, at, acc);
        }
    }
}

impl DotQ8 for Q5_0 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn accumulate<L: Level, const C: usize>(&self, x: Columns<'_>, at: usize, acc: &mut [__m256; C]) {
        let w = _mm256_or_si256(nibbles(&self.qs), fifth_bits(self.qh));
        let w = _mm256_sub_epi8(w, _mm256_set1_epi8(16));
        let d = _mm256_set1_ps(half_to_f32(self.d));
        // SAFETY: the contract of this function.
        unsafe { add_signed::<L, C>(w, None, d, x, at, acc) };
    }
}

impl DotQ8 for Q5_1 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn accumulate<L: Level, const C: usize>(&self, x: Columns<'_>, at: usize, acc: &mut [__m256; C]) {
        let w = _mm256_or_si256(nibbles(&self.qs), fifth_bits(self.qh));
        let d = _mm256_set1_ps(half_to_f32(self.d));
        // SAFETY: the contract of this function.
        unsafe {
            add_unsigned::<L, C>(w, None, d, x, at, acc);
            add_min(half_to_f32(self.m), x, at, acc);
        }
    }
}

impl DotQ8 for Q8_0 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn accumulate<L: Level, const C: usize>(&self, x: Columns<'_>, at: usize, acc: &mut [__m256; C]) {
        let d = _mm256_set1_ps(half_to_f32(self.d));
        // SAFETY: the contract of this function.
        unsafe { add_signed::<L, C>(load_i8x32(&self.qs), None, d, x, at, acc) };
    }
}

impl DotQ8 for IQ4_NL {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn accumulate<L: Level, const C: usize>(&self, x: Columns<'_>, at: usize, acc: &mut [__m256; C]) {
        let table = _mm256_broadcastsi128_si256(load_u8x16(&VALUES.map(|v| v as u8)));
        let w = _mm256_shuffle_epi8(table, nibbles(&self.qs));
        let d = _mm256_set1_ps(half_to_f32(self.d));
        // SAFETY: the contract of this function.
        unsafe { add_signed::<L, C>(w, None, d, x, at, acc) };
    }
}
