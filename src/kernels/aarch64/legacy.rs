//! Blocks of 32 taken apart.

use super::lanes::{halves_to_f32, load_i8x16, load_u8x16};
use super::weights::{Scales, Weights};
use crate::quant::iq4::{IQ4_NL, VALUES};
use crate::quant::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use std::arch::aarch64::*;

/// A scale for each row.
#[derive(Clone, Copy)]
pub(super) struct Plain(float32x4_t);

/// A scale and a minimum for each row.
#[derive(Clone, Copy)]
pub(super) struct WithMin(float32x4_t, float32x4_t);

impl Scales for Plain {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scale(&self, _g: usize) -> float32x4_t {
        self.0
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn min(&self, _g: usize) -> float32x4_t {
        vdupq_n_f32(0.0)
    }
}

impl Scales for WithMin {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scale(&self, _g: usize) -> float32x4_t {
        self.0
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn min(&self, _g: usize) -> float32x4_t {
        self.1
    }
}

/// Low nibbles, high nibbles.
#[inline]
#[target_feature(enable = "neon")]
fn nibbles(qs: &[u8; 16]) -> [uint8x16_t; 2] {
    let qs = load_u8x16(qs);
    [vandq_u8(qs, vdupq_n_u8(15)), vshrq_n_u8::<4>(qs)]
}

/// All ones in the bytes whose bit is set.
#[inline]
#[target_feature(enable = "neon")]
fn fifth_bits(qh: [u8; 4]) -> [uint8x16_t; 2] {
    // Bytes 0 and 1 of `qh` eight times each, then bytes 2 and 3, each against its own bit.
    let bytes = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(qh)));
    let first = load_u8x16(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
    let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    let second = vaddq_u8(first, vdupq_n_u8(2));
    [vtstq_u8(vqtbl1q_u8(bytes, first), bit), vtstq_u8(vqtbl1q_u8(bytes, second), bit)]
}

impl Weights for Q4_0 {
    const MINS: bool = false;
    type Scales = Plain;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scales(rows: [&Self; 4]) -> Plain {
        Plain(halves_to_f32(rows.map(|b| b.d)))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(&self, _j: usize) -> [int8x16_t; 2] {
        nibbles(&self.qs).map(|q| vsubq_s8(vreinterpretq_s8_u8(q), vdupq_n_s8(8)))
    }
}

impl Weights for Q4_1 {
    const MINS: bool = true;
    type Scales = WithMin;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scales(rows: [&Self; 4]) -> WithMin {
        WithMin(halves_to_f32(rows.map(|b| b.d)), vnegq_f32(halves_to_f32(rows.map(|b| b.m))))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(&self, _j: usize) -> [int8x16_t; 2] {
        nibbles(&self.qs).map(|q| vreinterpretq_s8_u8(q))
    }
}

impl Weights for Q5_0 {
    const MINS: bool = false;
    type Scales = Plain;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scales(rows: [&Self; 4]) -> Plain {
        Plain(halves_to_f32(rows.map(|b| b.d)))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(&self, _j: usize) -> [int8x16_t; 2] {
        let (low, fifth) = (nibbles(&self.qs), fifth_bits(self.qh));
        // Without the fifth bit the value is the nibble − 16: the nibble with the four upper bits set.
        let join = |i: usize| vreinterpretq_s8_u8(vorrq_u8(low[i], vbicq_u8(vdupq_n_u8(0xf0), fifth[i])));
        [join(0), join(1)]
    }
}

impl Weights for Q5_1 {
    const MINS: bool = true;
    type Scales = WithMin;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scales(rows: [&Self; 4]) -> WithMin {
        WithMin(halves_to_f32(rows.map(|b| b.d)), vnegq_f32(halves_to_f32(rows.map(|b| b.m))))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(&self, _j: usize) -> [int8x16_t; 2] {
        let (low, fifth) = (nibbles(&self.qs), fifth_bits(self.qh));
        let join = |i: usize| vreinterpretq_s8_u8(vorrq_u8(low[i], vandq_u8(vdupq_n_u8(16), fifth[i])));
        [join(0), join(1)]
    }
}

impl Weights for Q8_0 {
    const MINS: bool = false;
    type Scales = Plain;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scales(rows: [&Self; 4]) -> Plain {
        Plain(halves_to_f32(rows.map(|b| b.d)))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(&self, _j: usize) -> [int8x16_t; 2] {
        let (halves, _) = self.qs.as_chunks::<16>();
        [load_i8x16(&halves[0]), load_i8x16(&halves[1])]
    }
}

impl Weights for IQ4_NL {
    const MINS: bool = false;
    type Scales = Plain;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn scales(rows: [&Self; 4]) -> Plain {
        Plain(halves_to_f32(rows.map(|b| b.d)))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(&self, _j: usize) -> [int8x16_t; 2] {
        let table = load_i8x16(&VALUES);
        nibbles(&self.qs).map(|q| vqtbl1q_s8(table, q))
    }
}
