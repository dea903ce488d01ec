//! With `sdot`, which adds four products of bytes to each lane: Armv8.4, and most since Cortex-A55, A75 and Apple's A11.

use super::super::{Kernels, OutTile, Q8Rows};
use super::column::Column;
use super::matmul_q8::{Level, Tile, q8};
use super::panel::Group;
use super::weights::Weights;
use super::{rows_by_columns, table};
use std::arch::aarch64::*;
use std::arch::asm;

pub(super) static KERNELS: Kernels = table::<DotProd>("dotprod");

pub(super) struct DotProd;

/// Lane `i` of the result: lane `i` of `acc` and the products of bytes `4i..4i + 4`. The intrinsic is not in stable Rust.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the CPU has the instruction; only registers are touched.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc, in(vreg) w, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// The same with bytes `4 LANE..4 LANE + 4` of `x` for every lane.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot_lane<const LANE: usize>(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the CPU has the instruction; only registers are touched.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{lane}]", inout(vreg) acc, in(vreg) w, in(vreg) x,
            lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

impl Level for DotProd {
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn run<B: Weights>(w: &[u8], x: Q8Rows<'_>, out: &mut OutTile<'_>, scratch: &mut Vec<f32>) {
        // SAFETY: the contract of this function.
        unsafe { q8::<B, Self>(w, x, out, scratch) }
    }

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn dot(lanes: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        sdot(lanes, w, x)
    }

    /// Four values of each row side by side, so that the lanes of `sdot` are the rows.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn arrange(w: [[int8x16_t; 2]; 4]) -> [int8x16_t; 8] {
        let [a, b] = [0, 1].map(|half| {
            let [a, b, c, d] = w.map(|w| vreinterpretq_s32_s8(w[half]));
            let pairs = [vtrn1q_s32(a, b), vtrn2q_s32(a, b), vtrn1q_s32(c, d), vtrn2q_s32(c, d)];
            let [even_ab, odd_ab, even_cd, odd_cd] = pairs.map(|p| vreinterpretq_s64_s32(p));
            [
                vtrn1q_s64(even_ab, even_cd),
                vtrn1q_s64(odd_ab, odd_cd),
                vtrn2q_s64(even_ab, even_cd),
                vtrn2q_s64(odd_ab, odd_cd),
            ]
            .map(|v| vreinterpretq_s8_s64(v))
        });
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
    }

    // Not inlined, for one copy of it serves all types.
    #[inline(never)]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn tile<const SPLIT: bool, const MINS: bool>(panels: &[&[Group]], columns: &[Column<'_>]) -> Tile {
        // SAFETY: the contract of this function.
        unsafe { rows_by_columns::tile::<Self, SPLIT, MINS>(panels, columns) }
    }
}

impl rows_by_columns::Dots for DotProd {
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn dots<const SPLIT: bool>(w: &[int8x16_t; 8], x: [int8x16_t; 2]) -> [int32x4_t; 2] {
        let zero = vdupq_n_s32(0);
        let first = sdot_lane::<0>(zero, w[0], x[0]);
        let first = sdot_lane::<1>(first, w[1], x[0]);
        let first = sdot_lane::<2>(first, w[2], x[0]);
        let first = sdot_lane::<3>(first, w[3], x[0]);
        let second = sdot_lane::<0>(if SPLIT { zero } else { first }, w[4], x[1]);
        let second = sdot_lane::<1>(second, w[5], x[1]);
        let second = sdot_lane::<2>(second, w[6], x[1]);
        let second = sdot_lane::<3>(second, w[7], x[1]);
        if SPLIT { [first, second] } else { [second; 2] }
    }
}
