//! How the integer matmul takes blocks apart: written once for all levels.

use super::lanes::load_u8x16;
use crate::quant::Block;
use std::arch::aarch64::*;

/// A quantised block type: 32 values of a row at a time, and the scales of four rows at a time.
///
/// The values, scales and minima are those of [`Block::unpack`], to the bit.
pub(super) trait Weights: Block {
    /// Whether the type has minima.
    const MINS: bool;

    /// What the scales and minima of a block in each of four rows are made from.
    type Scales: Scales;

    /// # Safety
    /// The CPU has NEON.
    unsafe fn scales(rows: [&Self; 4]) -> Self::Scales;

    /// Values `32 j..32 j + 32` of the block.
    ///
    /// # Safety
    /// The CPU has NEON.
    unsafe fn quants(&self, j: usize) -> [int8x16_t; 2];
}

/// Scales and minima of four rows, row `r` in lane `r`.
pub(super) trait Scales: Copy {
    /// The scale of group `g`.
    ///
    /// # Safety
    /// The CPU has NEON.
    unsafe fn scale(&self, g: usize) -> float32x4_t;

    /// The minimum of group `g`; anything if the type has none.
    ///
    /// # Safety
    /// The CPU has NEON.
    unsafe fn min(&self, g: usize) -> float32x4_t;
}

/// 16 integers, −128..=127, of each of four rows.
#[derive(Clone, Copy)]
pub(super) struct Table(uint8x16x4_t);

impl Table {
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn new([a, b, c, d]: [uint8x16_t; 4]) -> Self {
        Self(uint8x16x4_t(a, b, c, d))
    }

    /// Integer `g` of row `r` in lane `r`.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn get(&self, g: usize) -> float32x4_t {
        // The upper byte of lane `r` is byte `g` of vector `r`; the others are out of range, which gives zero.
        const OUT: u8 = 0x80;
        const FIRST: [u8; 16] = [OUT, OUT, OUT, 0, OUT, OUT, OUT, 16, OUT, OUT, OUT, 32, OUT, OUT, OUT, 48];
        let index = vaddq_u8(load_u8x16(&FIRST), vdupq_n_u8(g as u8));
        // Taken for a fixed-point number with 24 fractional bits, the lane is the signed byte.
        vcvtq_n_f32_s32::<24>(vreinterpretq_s32_u8(vqtbl4q_u8(self.0, index)))
    }
}

/// Each byte shifted right by `n` bits.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn shift_right(v: uint8x16_t, n: usize) -> uint8x16_t {
    vshlq_u8(v, vdupq_n_s8(-(n as i8)))
}
