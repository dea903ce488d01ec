//! Integer matmul: what the three levels share.
//!
//! Four weight rows at a time. 32 weights meet 32 activations in an integer dot product for each row and scale, which
//! is exact in any order; it becomes f32 and goes through the same few operations in the same order, [`add`], at every
//! level and in every shape. So an output has one running sum over `k / 32` terms, and the same bits in the three
//! tables, however many rows and columns are in flight.
//!
//! One column takes weights apart as they pass. More share the work: rows are unpacked into scratch, 16 at a time so
//! that they stay in the L2 cache while the columns pass, and meet them four columns at a time.
//!
//! Each term has up to six roundings of its own, and `k / 32` follow: within `(k / 16 + 8) · 2⁻²⁴` of the exact result,
//! relative to the sum of the magnitudes of the products, as scalar's.

use super::super::{OutTile, Q8Rows};
use super::column::{Column, group_sums};
use super::lanes::{store, sums};
use super::panel::{Group, pack};
use super::weights::{Scales, Weights};
use std::arch::aarch64::*;

/// Results: row `r` of panel `p` and column `c` is lane `r` of vector `[p][c]`.
pub(super) type Tile = [[float32x4_t; 4]; 2];

/// An instruction set's way of multiplying bytes.
pub(super) trait Level {
    /// [`q8`], compiled for the level.
    ///
    /// # Safety
    /// The CPU has the level's instructions.
    unsafe fn run<B: Weights>(w: &[u8], x: Q8Rows<'_>, out: &mut OutTile<'_>, scratch: &mut Vec<f32>);

    /// Adds products of weights and activations to the lanes, in any way whose total is the dot product.
    ///
    /// # Safety
    /// The CPU has the level's instructions.
    unsafe fn dot(lanes: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t;

    /// Values of four rows as `tile` wants them in a [`Group`].
    ///
    /// # Safety
    /// The CPU has the level's instructions.
    unsafe fn arrange(w: [[int8x16_t; 2]; 4]) -> [int8x16_t; 8];

    /// One panel of four rows, or two, by up to four columns. `SPLIT` says that the type has groups of 16, `MINS` that
    /// it has minima.
    ///
    /// # Safety
    /// The CPU has the level's instructions; the columns have a block for each group, the panels the same number.
    unsafe fn tile<const SPLIT: bool, const MINS: bool>(panels: &[&[Group]], columns: &[Column<'_>]) -> Tile;
}

/// Adds `s_x · (s_w · dot − m_w · Σ q_x)` to four outputs, the parts of a split group one after the other. What is not
/// split or has no minima ignores the arguments it does not need.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add<const SPLIT: bool, const MINS: bool>(
    acc: float32x4_t,
    dots: [int32x4_t; 2],
    scales: [float32x4_t; 2],
    mins: [float32x4_t; 2],
    x_sums: [float32x4_t; 2],
    x_scale: float32x4_t,
) -> float32x4_t {
    let mut term = vmulq_f32(vcvtq_f32_s32(dots[0]), scales[0]);
    if SPLIT {
        term = vfmaq_f32(term, vcvtq_f32_s32(dots[1]), scales[1]);
    }
    if MINS {
        term = vfmsq_f32(term, mins[0], x_sums[0]);
        if SPLIT {
            term = vfmsq_f32(term, mins[1], x_sums[1]);
        }
    }
    vfmaq_f32(acc, term, x_scale)
}

/// The dot products of four rows with group `j` of 32 of their blocks, block `at` of the activations, added to `acc`.
///
/// # Safety
/// The CPU has the instructions of `L`; `x` has such a block.
#[inline(always)]
unsafe fn add_group<B: Weights, L: Level>(
    acc: float32x4_t,
    blocks: [&B; 4],
    scales: &B::Scales,
    j: usize,
    x: Column<'_>,
    at: usize,
) -> float32x4_t {
    // SAFETY: the contract of this function.
    unsafe {
        let zero = vdupq_n_s32(0);
        let q = x.quants(at);
        let (mut first, mut second) = ([zero; 4], [zero; 4]);
        for r in 0..4 {
            let w = blocks[r].quants(j);
            first[r] = L::dot(zero, w[0], q[0]);
            second[r] = L::dot(if B::GROUP == 16 { zero } else { first[r] }, w[1], q[1]);
        }
        let (x_scale, x_sums) = (vdupq_n_f32(x.scale(at)), vdup_n_s32(x.sums(at)));
        if B::GROUP == 16 {
            let s = [scales.scale(2 * j), scales.scale(2 * j + 1)];
            let (dots, x_sums) = ([sums(first), sums(second)], group_sums::<true>(x_sums));
            if B::MINS {
                add::<true, true>(acc, dots, s, [scales.min(2 * j), scales.min(2 * j + 1)], x_sums, x_scale)
            } else {
                add::<true, false>(acc, dots, s, s, x_sums, x_scale)
            }
        } else {
            let s = [scales.scale(j); 2];
            let (dots, x_sums) = ([sums(second); 2], group_sums::<false>(x_sums));
            if B::MINS {
                add::<false, true>(acc, dots, s, [scales.min(j); 2], x_sums, x_scale)
            } else {
                add::<false, false>(acc, dots, s, s, x_sums, x_scale)
            }
        }
    }
}

/// Four rows by one column.
///
/// # Safety
/// The CPU has the instructions of `L`; `x` and the rows are of the same length.
#[inline(always)]
unsafe fn one_column<B: Weights, L: Level>(rows: [&[B]; 4], x: Column<'_>) -> float32x4_t {
    let per_block = B::LEN / 32;
    // SAFETY: the contract of this function.
    unsafe {
        let mut acc = vdupq_n_f32(0.0);
        for b in 0..rows[0].len() {
            // Each row has this many blocks.
            let blocks = [0, 1, 2, 3].map(|r| rows[r].get_unchecked(b));
            let scales = B::scales(blocks);
            // Two at a time, the low and the high nibbles of the same bytes in Q4_K and Q5_K.
            for half in 0..per_block.div_ceil(2) {
                let j = 2 * half;
                acc = add_group::<B, L>(acc, blocks, &scales, j, x, b * per_block + j);
                if per_block > 1 {
                    acc = add_group::<B, L>(acc, blocks, &scales, j + 1, x, b * per_block + j + 1);
                }
            }
        }
        acc
    }
}

/// Writes the first `rows` lanes at row `r`.
#[inline]
#[target_feature(enable = "neon")]
fn write(v: float32x4_t, out: &mut OutTile<'_>, c: usize, r: usize, rows: usize) {
    let mut lanes = [0.0; 4];
    store(&mut lanes, v);
    for (i, value) in lanes.into_iter().enumerate().take(rows) {
        out.set(c, r + i, value);
    }
}

/// Weight rows that are unpacked together.
const PANEL: usize = 16;

/// `out[c, r] = Σ_k w[r, k] · x[c, k]`.
///
/// Inlined into each level's `run`, so that the level's instructions can be inlined here.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn q8<B: Weights, L: Level>(w: &[u8], x: Q8Rows<'_>, out: &mut OutTile<'_>, scratch: &mut Vec<f32>) {
    x.check(out.cols());
    let w: &[B] = bytemuck::cast_slice(w);
    assert_eq!(w.len() * B::LEN, out.rows() * x.k, "weights for the tile");
    let row_blocks = x.k / B::LEN;
    assert_eq!(row_blocks * B::LEN, x.k, "whole blocks in a row");
    let (rows, cols) = (out.rows(), out.cols());
    // Past the last row, the last row again; its result is not written.
    let row = |r: usize| &w[r.min(rows - 1) * row_blocks..][..row_blocks];
    let four = |r: usize| [row(r), row(r + 1), row(r + 2), row(r + 3)];

    if cols == 1 {
        for r in (0..rows).step_by(4) {
            // SAFETY: the contract of this function, and the checks of the lengths.
            unsafe { write(one_column::<B, L>(four(r), Column::new(x, 0)), out, 0, r, rows - r) };
        }
        return;
    }

    let groups = x.k / 32;
    let tile: unsafe fn(&[&[Group]], &[Column<'_>]) -> Tile = match (B::GROUP == 16, B::MINS) {
        (false, false) => L::tile::<false, false>,
        (false, true) => L::tile::<false, true>,
        (true, false) => L::tile::<true, false>,
        (true, true) => L::tile::<true, true>,
    };
    let needed = PANEL / 4 * groups * Group::F32S;
    if scratch.len() < needed {
        scratch.resize(needed, 0.0);
    }
    let panels: &mut [Group] = bytemuck::cast_slice_mut(&mut scratch[..needed]);
    for first in (0..rows).step_by(PANEL) {
        let end = (first + PANEL).min(rows);
        for (i, r) in (first..end).step_by(4).enumerate() {
            // SAFETY: the contract of this function.
            unsafe { pack::<B, L>(four(r), &mut panels[i * groups..][..groups]) };
        }
        for c in (0..cols).step_by(4) {
            let columns: [_; 4] = std::array::from_fn(|j| Column::new(x, (c + j).min(cols - 1)));
            let columns = &columns[..(cols - c).min(4)];
            for r in (first..end).step_by(8) {
                let panel = |r: usize| &panels[(r - first) / 4 * groups..][..groups];
                let pair = [panel(r), panel(if r + 4 < end { r + 4 } else { r })];
                let pair = if r + 4 < end { &pair[..] } else { &pair[..1] };
                // SAFETY: the contract of this function, and the checks of the lengths.
                unsafe {
                    let sums = tile(pair, columns);
                    for (p, sums) in sums.iter().enumerate().take(pair.len()) {
                        for (j, &sums) in sums.iter().enumerate().take(columns.len()) {
                            write(sums, out, c + j, r + 4 * p, end - r - 4 * p);
                        }
                    }
                }
            }
        }
    }
}
