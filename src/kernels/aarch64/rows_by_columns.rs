//! The tile of the levels that compute four rows by one column at a time.

use super::column::{Column, group_sums};
use super::matmul_q8::{Tile, add};
use super::panel::Group;
use std::arch::aarch64::*;

/// Integer dot products of four rows with a column.
pub(super) trait Dots {
    /// Row `r` in lane `r`: of each half if `SPLIT`, else of the whole in the first vector.
    ///
    /// # Safety
    /// The CPU has the level's instructions.
    unsafe fn dots<const SPLIT: bool>(w: &[int8x16_t; 8], x: [int8x16_t; 2]) -> [int32x4_t; 2];
}

/// [`super::matmul_q8::Level::tile`]. Inlined, so that `L::dots` can be inlined here.
///
/// # Safety
/// The CPU has the instructions of `L`; the columns have a block for each group.
#[inline(always)]
pub(super) unsafe fn tile<L: Dots, const SPLIT: bool, const MINS: bool>(
    panels: &[&[Group]],
    columns: &[Column<'_>],
) -> Tile {
    // SAFETY: the CPU has NEON.
    let mut out = [[unsafe { vdupq_n_f32(0.0) }; 4]; 2];
    for (out, panel) in out.iter_mut().zip(panels) {
        // SAFETY: the contract of this function.
        *out = unsafe {
            match *columns {
                [a] => columns_at_once::<L, 1, SPLIT, MINS>(panel, [a]),
                [a, b] => columns_at_once::<L, 2, SPLIT, MINS>(panel, [a, b]),
                [a, b, c] => columns_at_once::<L, 3, SPLIT, MINS>(panel, [a, b, c]),
                [a, b, c, d] => columns_at_once::<L, 4, SPLIT, MINS>(panel, [a, b, c, d]),
                _ => unreachable!("one to four columns in a tile"),
            }
        };
    }
    out
}

/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn columns_at_once<L: Dots, const C: usize, const SPLIT: bool, const MINS: bool>(
    panel: &[Group],
    columns: [Column<'_>; C],
) -> [float32x4_t; 4] {
    // SAFETY: the contract of this function.
    unsafe {
        let mut acc = [vdupq_n_f32(0.0); 4];
        for (b, group) in panel.iter().enumerate() {
            let (w, scales) = (group.quants(), group.scales::<SPLIT>());
            let mins = if MINS { group.mins::<SPLIT>() } else { scales };
            for c in 0..C {
                let x = columns[c];
                let dots = L::dots::<SPLIT>(&w, x.quants(b));
                let (x_scale, x_sums) = (vdupq_n_f32(x.scale(b)), group_sums::<SPLIT>(vdup_n_s32(x.sums(b))));
                acc[c] = add::<SPLIT, MINS>(acc[c], dots, scales, mins, x_sums, x_scale);
            }
        }
        acc
    }
}
