//! Four weight rows, unpacked once for all columns.

use super::lanes::{load, load_i8x16, store, store_i8x16};
use super::matmul_q8::Level;
use super::weights::{Scales, Weights};
use bytemuck::{Pod, Zeroable};
use std::arch::aarch64::*;

/// 32 values of each of four rows.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Group {
    /// The values, arranged as the level wants them: four vectors of the first 16 of each row, four of the second.
    q: [[i8; 16]; 8],
    /// Scales of the rows; of the second 16 values if they have their own.
    scales: [[f32; 4]; 2],
    /// Minima likewise, if the type has any.
    mins: [[f32; 4]; 2],
}

impl Group {
    /// f32 in a group, for scratch.
    pub(super) const F32S: usize = size_of::<Self>() / size_of::<f32>();

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn quants(&self) -> [int8x16_t; 8] {
        // Eight are too many for the compiler to inline `map`.
        let mut q = [vdupq_n_s8(0); 8];
        for (v, q) in q.iter_mut().zip(&self.q) {
            *v = load_i8x16(q);
        }
        q
    }

    /// The second is the first unless `SPLIT`.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn scales<const SPLIT: bool>(&self) -> [float32x4_t; 2] {
        [load(&self.scales[0]), load(&self.scales[usize::from(SPLIT)])]
    }

    /// The second is the first unless `SPLIT`.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn mins<const SPLIT: bool>(&self) -> [float32x4_t; 2] {
        [load(&self.mins[0]), load(&self.mins[usize::from(SPLIT)])]
    }
}

/// Unpacks four rows of the same length into as many groups as they have 32 values.
///
/// # Safety
/// The CPU has what `L` needs.
#[target_feature(enable = "neon")]
pub(super) unsafe fn pack<B: Weights, L: Level>(rows: [&[B]; 4], panel: &mut [Group]) {
    let per_block = B::LEN / 32;
    for (b, groups) in panel.chunks_exact_mut(per_block).enumerate() {
        let blocks = rows.map(|row| &row[b]);
        // SAFETY: the contract of this function.
        unsafe {
            let scales = B::scales(blocks);
            for (j, group) in groups.iter_mut().enumerate() {
                let values = L::arrange(std::array::from_fn(|r| blocks[r].quants(j)));
                for (q, v) in group.q.iter_mut().zip(values) {
                    store_i8x16(q, v);
                }
                let parts = 32 / B::GROUP;
                for part in 0..parts {
                    store(&mut group.scales[part], scales.scale(parts * j + part));
                    if B::MINS {
                        store(&mut group.mins[part], scales.min(parts * j + part));
                    }
                }
            }
        }
    }
}
