//! Where the sums of many columns wait between chunks of `k`, and where they go in the end.

use super::matmul_q8::mask;
use std::arch::x86_64::*;

/// Sixteens of rows that share a pass over the columns.
pub(super) const R: usize = 2;

/// Running sums of a column and 32 rows.
pub(super) type Column = [f32; 16 * R];

/// The sums of all columns of a pass and of 32 rows.
pub(super) struct Sums {
    /// One for each column, aligned to a cache line.
    pub(super) waiting: *mut Column,
    /// Whether there are none yet.
    pub(super) first: bool,
    /// Where they go after the last chunk: that of the first row and column, and the distance of columns.
    pub(super) out: Option<(*mut f32, usize)>,
    /// Rows of each sixteen.
    pub(super) lanes: [usize; R],
}

impl Sums {
    /// Those of columns `c..c + C`.
    ///
    /// # Safety
    /// The CPU has AVX-512 F; `waiting` is good for the columns.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn load<const C: usize>(&self, c: usize) -> [[__m512; C]; R] {
        let mut sums = [[_mm512_setzero_ps(); C]; R];
        if !self.first {
            for r in 0..R {
                for i in 0..C {
                    // SAFETY: the contract of this function.
                    sums[r][i] = unsafe { _mm512_load_ps(self.waiting.add(c + i).cast::<f32>().add(16 * r)) };
                }
            }
        }
        sums
    }

    /// The reverse; after the last chunk, to `out`.
    ///
    /// # Safety
    /// The CPU has AVX-512 F; `waiting` or `out` is good for the columns, in all lanes that there are.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn store<const C: usize>(&self, c: usize, sums: [[__m512; C]; R]) {
        for r in 0..R {
            for i in 0..C {
                // SAFETY: the contract of this function.
                unsafe {
                    match self.out {
                        None => _mm512_store_ps(self.waiting.add(c + i).cast::<f32>().add(16 * r), sums[r][i]),
                        Some((out, stride)) => {
                            let out = out.wrapping_add((c + i) * stride + 16 * r);
                            _mm512_mask_storeu_ps(out, mask(self.lanes[r]), sums[r][i]);
                        }
                    }
                }
            }
        }
    }
}

/// `len` elements of `scratch` from the beginning of a cache line on.
pub(super) fn aligned(scratch: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if scratch.len() < len + 16 {
        scratch.resize(len + 16, 0.0);
    }
    let skip = scratch.as_ptr().align_offset(64);
    assert!(skip < 16, "an aligned start");
    &mut scratch[skip..][..len]
}
