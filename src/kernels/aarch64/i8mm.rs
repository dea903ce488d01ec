//! With `smmla` as well, which multiplies two rows by two columns, eight bytes deep: Armv8.6, and Neoverse V1, Apple's
//! M2 and what came after them.

use super::super::{Kernels, OutTile, Q8Rows};
use super::column::{Column, group_sums};
use super::dotprod::sdot;
use super::matmul_q8::{Level, Tile, add, q8};
use super::panel::Group;
use super::table;
use super::weights::Weights;
use std::arch::aarch64::*;
use std::arch::asm;

pub(super) static KERNELS: Kernels = table::<I8mm>("i8mm");

pub(super) struct I8mm;

/// Adds the products of rows `[w₀, w₁]` and columns `[x₀, x₁]`, each half a vector, to `[w₀x₀, w₀x₁, w₁x₀, w₁x₁]`. The
/// intrinsic is not in stable Rust.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the CPU has the instruction; only registers are touched.
    unsafe {
        asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc, in(vreg) w, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// The low halves of both, the high halves of both.
#[inline]
#[target_feature(enable = "neon")]
fn interleave(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
    [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))]
}

/// Two values in lanes 0 and 2, 1 and 3.
#[inline]
#[target_feature(enable = "neon")]
fn alternate(a: f32, b: f32) -> float32x4_t {
    let v = vset_lane_f32::<1>(b, vdup_n_f32(a));
    vcombine_f32(v, v)
}

impl Level for I8mm {
    #[target_feature(enable = "neon,dotprod,i8mm")]
    unsafe fn run<B: Weights>(w: &[u8], x: Q8Rows<'_>, out: &mut OutTile<'_>, scratch: &mut Vec<f32>) {
        // SAFETY: the contract of this function.
        unsafe { q8::<B, Self>(w, x, out, scratch) }
    }

    #[inline]
    #[target_feature(enable = "neon,dotprod,i8mm")]
    unsafe fn dot(lanes: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        sdot(lanes, w, x)
    }

    /// Eight values each of rows 0 and 1, and of rows 2 and 3, side by side.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn arrange(w: [[int8x16_t; 2]; 4]) -> [int8x16_t; 8] {
        let [[a, b], [c, d]] = [0, 1].map(|half| {
            let [a, b, c, d] = w.map(|w| w[half]);
            [interleave(a, b), interleave(c, d)]
        });
        [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]
    }

    // Not inlined, for one copy of it serves all types.
    #[inline(never)]
    #[target_feature(enable = "neon,dotprod,i8mm")]
    unsafe fn tile<const SPLIT: bool, const MINS: bool>(panels: &[&[Group]], columns: &[Column<'_>]) -> Tile {
        // A column without a partner is its own; that result is dropped.
        let last = columns.len() - 1;
        let pair = |c: usize| [columns[c], columns[(c + 1).min(last)]];
        // SAFETY: the contract of this function.
        unsafe {
            match (panels, last) {
                (&[a], 0..2) => pairs::<1, 1, SPLIT, MINS>([a], [pair(0)]),
                (&[a], 2..4) => pairs::<1, 2, SPLIT, MINS>([a], [pair(0), pair(2)]),
                (&[a, b], 0..2) => pairs::<2, 1, SPLIT, MINS>([a, b], [pair(0)]),
                (&[a, b], 2..4) => pairs::<2, 2, SPLIT, MINS>([a, b], [pair(0), pair(2)]),
                _ => unreachable!("one or two panels by one to four columns in a tile"),
            }
        }
    }
}

/// `N` panels by `P` pairs of columns.
///
/// # Safety
/// The CPU has dotprod and i8mm; the columns have a block for each group, the panels the same number.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn pairs<const N: usize, const P: usize, const SPLIT: bool, const MINS: bool>(
    panels: [&[Group]; N],
    columns: [[Column<'_>; 2]; P],
) -> Tile {
    let zero = vdupq_n_s32(0);
    // Of each panel and pair rows 0 and 1, rows 2 and 3; lanes as of `smmla`.
    let mut acc = [[[vdupq_n_f32(0.0); 2]; 2]; 2];
    for b in 0..panels[0].len() {
        let mut x = [[[vdupq_n_s8(0); 2]; 2]; P];
        for p in 0..P {
            // SAFETY: the contract of this function.
            let [first, second] = unsafe { [columns[p][0].quants(b), columns[p][1].quants(b)] };
            x[p] = [interleave(first[0], second[0]), interleave(first[1], second[1])];
        }
        for n in 0..N {
            // SAFETY: the contract of this function.
            let group = unsafe { panels[n].get_unchecked(b) };
            let (w, scales) = (group.quants(), group.scales::<SPLIT>());
            let mins = if MINS { group.mins::<SPLIT>() } else { scales };
            let spread = |v: [float32x4_t; 2]| [v.map(|v| vzip1q_f32(v, v)), v.map(|v| vzip2q_f32(v, v))];
            let (scales, mins) = (spread(scales), spread(mins));
            for p in 0..P {
                let [first, second] = columns[p];
                // SAFETY: the contract of this function.
                let (x_scale, x_sums) = unsafe {
                    let x_sums = vset_lane_s32::<1>(second.sums(b), vdup_n_s32(first.sums(b)));
                    (alternate(first.scale(b), second.scale(b)), group_sums::<SPLIT>(x_sums))
                };
                for r in 0..2 {
                    let low = smmla(smmla(zero, w[2 * r], x[p][0][0]), w[2 * r + 1], x[p][0][1]);
                    let high = if SPLIT { zero } else { low };
                    let high = smmla(smmla(high, w[4 + 2 * r], x[p][1][0]), w[5 + 2 * r], x[p][1][1]);
                    let dots = if SPLIT { [low, high] } else { [high; 2] };
                    acc[n][p][r] = add::<SPLIT, MINS>(acc[n][p][r], dots, scales[r], mins[r], x_sums, x_scale);
                }
            }
        }
    }
    // Back to a vector for each column.
    acc.map(|[[a, b], [c, d]]| [vuzp1q_f32(a, b), vuzp2q_f32(a, b), vuzp1q_f32(c, d), vuzp2q_f32(c, d)])
}
