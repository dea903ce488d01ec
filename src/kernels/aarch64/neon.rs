//! What every aarch64 processor has: bytes are multiplied to 16 bits and added up in steps.

use super::super::{Kernels, OutTile, Q8Rows};
use super::column::Column;
use super::lanes::sums;
use super::matmul_q8::{Level, Tile, q8};
use super::panel::Group;
use super::weights::Weights;
use super::{rows_by_columns, table};
use std::arch::aarch64::*;

pub(super) static KERNELS: Kernels = table::<Neon>("neon");

pub(super) struct Neon;

impl Level for Neon {
    #[target_feature(enable = "neon")]
    unsafe fn run<B: Weights>(w: &[u8], x: Q8Rows<'_>, out: &mut OutTile<'_>, scratch: &mut Vec<f32>) {
        // SAFETY: the contract of this function.
        unsafe { q8::<B, Self>(w, x, out, scratch) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn dot(lanes: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // At most 2 · 128 · 127: no overflow.
        let pairs = vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x);
        vpadalq_s16(lanes, pairs)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn arrange(w: [[int8x16_t; 2]; 4]) -> [int8x16_t; 8] {
        let [a, b, c, d] = w;
        [a[0], b[0], c[0], d[0], a[1], b[1], c[1], d[1]]
    }

    // Not inlined, for one copy of it serves all types.
    #[inline(never)]
    #[target_feature(enable = "neon")]
    unsafe fn tile<const SPLIT: bool, const MINS: bool>(panels: &[&[Group]], columns: &[Column<'_>]) -> Tile {
        // SAFETY: the contract of this function.
        unsafe { rows_by_columns::tile::<Self, SPLIT, MINS>(panels, columns) }
    }
}

impl rows_by_columns::Dots for Neon {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn dots<const SPLIT: bool>(w: &[int8x16_t; 8], x: [int8x16_t; 2]) -> [int32x4_t; 2] {
        let zero = vdupq_n_s32(0);
        let (mut first, mut second) = ([zero; 4], [zero; 4]);
        for r in 0..4 {
            // SAFETY: the CPU has NEON.
            unsafe {
                first[r] = Self::dot(zero, w[r], x[0]);
                second[r] = Self::dot(if SPLIT { zero } else { first[r] }, w[4 + r], x[1]);
            }
        }
        if SPLIT { [sums(first), sums(second)] } else { [sums(second); 2] }
    }
}
