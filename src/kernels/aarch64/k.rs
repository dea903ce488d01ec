//! Super-blocks of 256 taken apart, 32 values at a time.

use super::lanes::{halves_to_f32, load_i8x16, load_u8x16, load_u8x16_at};
use super::weights::{Scales, Table, Weights, shift_right};
use crate::quant::k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, q4_k_scales_mins};
use std::arch::aarch64::*;

/// `d` and integer scales.
#[derive(Clone, Copy)]
pub(super) struct Super {
    d: float32x4_t,
    scales: Table,
}

/// `d`, `dmin`, and integer scales and minima.
#[derive(Clone, Copy)]
pub(super) struct SuperWithMins<const FIRST_MIN: usize> {
    d: float32x4_t,
    dmin: float32x4_t,
    scales: Table,
    /// From `FIRST_MIN` on; the table of the scales where both fit into one.
    mins: Table,
}

impl Scales for Super {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scale(&self, g: usize) -> float32x4_t {
        vmulq_f32(self.d, self.scales.get(g))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn min(&self, _g: usize) -> float32x4_t {
        vdupq_n_f32(0.0)
    }
}

impl<const FIRST_MIN: usize> Scales for SuperWithMins<FIRST_MIN> {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scale(&self, g: usize) -> float32x4_t {
        vmulq_f32(self.d, self.scales.get(g))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn min(&self, g: usize) -> float32x4_t {
        vmulq_f32(self.dmin, self.mins.get(FIRST_MIN + g))
    }
}

/// 32 bytes from `at` on.
#[inline]
#[target_feature(enable = "neon")]
fn load_u8x32(bytes: &[u8], at: usize) -> [uint8x16_t; 2] {
    [load_u8x16_at(bytes, at), load_u8x16_at(bytes, at + 16)]
}

/// 4-bit fields of group `j`.
#[inline]
#[target_feature(enable = "neon")]
fn four_bits(qs: &[u8; 128], j: usize) -> [uint8x16_t; 2] {
    load_u8x32(qs, j / 2 * 32).map(|q| vandq_u8(shift_right(q, j % 2 * 4), vdupq_n_u8(15)))
}

/// 2-bit fields of group `j`.
#[inline]
#[target_feature(enable = "neon")]
fn two_bits(qs: &[u8; 64], j: usize) -> [uint8x16_t; 2] {
    load_u8x32(qs, j / 4 * 32).map(|q| vandq_u8(shift_right(q, j % 4 * 2), vdupq_n_u8(3)))
}

/// All ones in the bytes whose bit of group `j` is set.
#[inline]
#[target_feature(enable = "neon")]
fn one_bit(bits: &[u8; 32], j: usize) -> [uint8x16_t; 2] {
    load_u8x32(bits, 0).map(|b| vtstq_u8(b, vdupq_n_u8(1 << j)))
}

impl Weights for Q2_K {
    const MINS: bool = true;
    type Scales = SuperWithMins<0>;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scales(rows: [&Self; 4]) -> Self::Scales {
        let bytes = rows.map(|b| load_u8x16(&b.scales));
        SuperWithMins {
            d: halves_to_f32(rows.map(|b| b.d)),
            dmin: halves_to_f32(rows.map(|b| b.dmin)),
            scales: Table::new(bytes.map(|b| vandq_u8(b, vdupq_n_u8(15)))),
            mins: Table::new(bytes.map(|b| vshrq_n_u8::<4>(b))),
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(&self, j: usize) -> [int8x16_t; 2] {
        two_bits(&self.qs, j).map(|q| vreinterpretq_s8_u8(q))
    }
}

/// `q3_k_scales`, as bytes of two's complement.
#[inline]
#[target_feature(enable = "neon")]
fn q3_k_scales(bytes: &[u8; 12]) -> uint8x16_t {
    let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    let low = vcreate_u8(u64::from(word(0)) | u64::from(word(4)) << 32);
    let low = vcombine_u8(low, vshr_n_u8::<4>(low));
    // The upper two bits of scale g stand in byte 8 + g % 4, at bit g / 4 · 2.
    let high = vreinterpretq_u8_u32(vdupq_n_u32(word(8)));
    let shifts = vcombine_s8(vcreate_s8(0xfefe_fefe_0000_0000), vcreate_s8(0xfafa_fafa_fcfc_fcfc));
    let high = vandq_u8(vshlq_u8(high, shifts), vdupq_n_u8(3));
    // The insertion keeps the low nibbles alone.
    vsubq_u8(vsliq_n_u8::<4>(low, high), vdupq_n_u8(32))
}

impl Weights for Q3_K {
    const MINS: bool = false;
    type Scales = Super;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scales(rows: [&Self; 4]) -> Super {
        let scales = Table::new(rows.map(|b| q3_k_scales(&b.scales)));
        Super { d: halves_to_f32(rows.map(|b| b.d)), scales }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(&self, j: usize) -> [int8x16_t; 2] {
        let (low, third) = (two_bits(&self.qs, j), one_bit(&self.hmask, j));
        // A clear bit means −4: all bits above the low two set.
        let join = |i: usize| vreinterpretq_s8_u8(vorrq_u8(low[i], vbicq_u8(vdupq_n_u8(0xfc), third[i])));
        [join(0), join(1)]
    }
}

/// Scales in entries 0..8, minima in entries 8..16 of Q4_K and Q5_K.
#[inline]
#[target_feature(enable = "neon")]
fn scales_mins(rows: [&[u8; 12]; 4]) -> Table {
    Table::new(rows.map(|bytes| {
        let (scales, mins) = q4_k_scales_mins(bytes);
        vcombine_u8(vcreate_u8(u64::from_le_bytes(scales)), vcreate_u8(u64::from_le_bytes(mins)))
    }))
}

impl Weights for Q4_K {
    const MINS: bool = true;
    type Scales = SuperWithMins<8>;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scales(rows: [&Self; 4]) -> Self::Scales {
        let both = scales_mins(rows.map(|b| &b.scales));
        let (d, dmin) = (halves_to_f32(rows.map(|b| b.d)), halves_to_f32(rows.map(|b| b.dmin)));
        SuperWithMins { d, dmin, scales: both, mins: both }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(&self, j: usize) -> [int8x16_t; 2] {
        four_bits(&self.qs, j).map(|q| vreinterpretq_s8_u8(q))
    }
}

impl Weights for Q5_K {
    const MINS: bool = true;
    type Scales = SuperWithMins<8>;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scales(rows: [&Self; 4]) -> Self::Scales {
        let both = scales_mins(rows.map(|b| &b.scales));
        let (d, dmin) = (halves_to_f32(rows.map(|b| b.d)), halves_to_f32(rows.map(|b| b.dmin)));
        SuperWithMins { d, dmin, scales: both, mins: both }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(&self, j: usize) -> [int8x16_t; 2] {
        let (low, fifth) = (four_bits(&self.qs, j), one_bit(&self.qh, j));
        let join = |i: usize| vreinterpretq_s8_u8(vorrq_u8(low[i], vandq_u8(vdupq_n_u8(16), fifth[i])));
        [join(0), join(1)]
    }
}

impl Weights for Q6_K {
    const MINS: bool = false;
    type Scales = Super;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scales(rows: [&Self; 4]) -> Super {
        let scales = Table::new(rows.map(|b| vreinterpretq_u8_s8(load_i8x16(&b.scales))));
        Super { d: halves_to_f32(rows.map(|b| b.d)), scales }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(&self, j: usize) -> [int8x16_t; 2] {
        let low = load_u8x32(&self.ql, j / 4 * 64 + j % 2 * 32).map(|q| shift_right(q, j / 2 % 2 * 4));
        let high = load_u8x32(&self.qh, j / 4 * 32).map(|q| shift_right(q, j % 4 * 2));
        let join = |i: usize| {
            // The insertion keeps the low nibble alone.
            let q = vandq_u8(vsliq_n_u8::<4>(low[i], high[i]), vdupq_n_u8(63));
            vsubq_s8(vreinterpretq_s8_u8(q), vdupq_n_s8(32))
        };
        [join(0), join(1)]
    }
}
