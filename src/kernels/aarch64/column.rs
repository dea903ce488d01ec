//! One row of quantised activations, read without checks in the inner loops.

use super::super::Q8Rows;
use std::arch::aarch64::*;

/// An activation row: a column of the result.
#[derive(Clone, Copy)]
pub(super) struct Column<'a>(Q8Rows<'a>);

impl<'a> Column<'a> {
    /// Column `c` of `x`, whose lengths have been checked.
    pub(super) fn new(x: Q8Rows<'a>, c: usize) -> Self {
        Self(x.row(c))
    }

    /// Quantised values of block `b`.
    ///
    /// # Safety
    /// The CPU has NEON; there is such a block.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn quants(self, b: usize) -> [int8x16_t; 2] {
        debug_assert!(32 * b + 32 <= self.0.qs.len());
        // SAFETY: inside `qs`, by the contract of this function.
        unsafe {
            let at = self.0.qs.as_ptr().add(32 * b);
            [vld1q_s8(at), vld1q_s8(at.add(16))]
        }
    }

    /// The scale of block `b`.
    ///
    /// # Safety
    /// As for `quants`.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn scale(self, b: usize) -> f32 {
        debug_assert!(b < self.0.scales.len());
        // SAFETY: inside `scales`, by the contract of this function.
        unsafe { *self.0.scales.as_ptr().add(b) }
    }

    /// The sums of the two halves of block `b`, in the low and the high half of a word.
    ///
    /// # Safety
    /// As for `quants`.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn sums(self, b: usize) -> i32 {
        debug_assert!(2 * b + 2 <= self.0.sums.len());
        // SAFETY: inside `sums`, by the contract of this function.
        unsafe { self.0.sums.as_ptr().add(2 * b).cast::<i32>().read_unaligned() }
    }
}

/// What the minima of two columns are multiplied with, from their [`Column::sums`]: for two groups of 16 the sums of
/// the halves, for one group of 32 the sum, twice. Even lanes hold the first column, odd lanes the second.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn group_sums<const SPLIT: bool>(sums: int32x2_t) -> [float32x4_t; 2] {
    let halves = vreinterpret_s16_s32(sums);
    if SPLIT {
        let halves = vcvtq_f32_s32(vmovl_s16(halves));
        let [first, second] = [vuzp1q_f32(halves, halves), vuzp2q_f32(halves, halves)];
        [first, second]
    } else {
        let whole = vcvt_f32_s32(vpaddl_s16(halves));
        [vcombine_f32(whole, whole); 2]
    }
}
