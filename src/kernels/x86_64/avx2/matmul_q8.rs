//! Integer matmul.
//!
//! 32 weights meet 32 activations at a time: their products, four to a lane, are multiplied by the integer scales of the
//! k-quants; the eight sums become f32, are scaled and added to eight lanes. The lanes of an output are added at its end.
//! This order, and the result to the bit, is the same however many rows and columns are in flight.
//!
//! Integers are exact, so the result is the same at every [`Level`] too. What differs from scalar is the order of the f32
//! sum. Here as there an output is the end of a chain of at most `k / 16` additions and a few more roundings, so both are
//! within `(k / 16 + 8) · 2⁻²⁴` of the exact result, relative to the sum of the magnitudes of the products.

use super::super::super::{OutTile, Q8Rows};
use super::lanes::sum;
use super::level::Level;
use crate::quant::Block;
use std::arch::x86_64::*;

/// A block type that can be multiplied with quantised activations.
pub(super) trait DotQ8: Block {
    /// Adds the block's products with activation blocks `at..at + LEN / 32` of each column to the column's lanes.
    ///
    /// # Safety
    /// The CPU has AVX2, FMA, F16C and what `L` needs; `x` has `C` columns and that many blocks.
    unsafe fn accumulate<L: Level, const C: usize>(&self, x: Columns<'_>, at: usize, acc: &mut [__m256; C]);
}

/// Activation rows, lengths checked.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    rows: Q8Rows<'a>,
    first: usize,
}

impl Columns<'_> {
    /// Quantised values of block `b` of column `c`.
    ///
    /// # Safety
    /// The CPU has AVX2, FMA and F16C; there is such a column and such a block.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn quants(&self, c: usize, b: usize) -> __m256i {
        let at = (self.first + c) * self.rows.k + 32 * b;
        debug_assert!(at + 32 <= self.rows.qs.len());
        // SAFETY: inside `qs`, by the contract of this function and the check of the lengths in `q8`.
        unsafe { _mm256_loadu_si256(self.rows.qs.as_ptr().add(at).cast()) }
    }

    /// The scale of block `b` of column `c` in every lane.
    ///
    /// # Safety
    /// As for `quants`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn scale(&self, c: usize, b: usize) -> __m256 {
        let at = (self.first + c) * (self.rows.k / 32) + b;
        debug_assert!(at < self.rows.scales.len());
        // SAFETY: inside `scales`, as above.
        _mm256_set1_ps(unsafe { *self.rows.scales.as_ptr().add(at) })
    }

    /// The scales of blocks `b..b + 8` of column `c`.
    ///
    /// # Safety
    /// As for `quants`, for all these blocks.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn scales(&self, c: usize, b: usize) -> __m256 {
        let at = (self.first + c) * (self.rows.k / 32) + b;
        debug_assert!(at + 8 <= self.rows.scales.len());
        // SAFETY: inside `scales`, as above.
        unsafe { _mm256_loadu_ps(self.rows.scales.as_ptr().add(at)) }
    }

    /// The sums of the half blocks of blocks `b..b + 8` of column `c`.
    ///
    /// # Safety
    /// As for `scales`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn sums(&self, c: usize, b: usize) -> __m256i {
        let at = (self.first + c) * (self.rows.k / 16) + 2 * b;
        debug_assert!(at + 16 <= self.rows.sums.len());
        // SAFETY: inside `sums`, as above.
        unsafe { _mm256_loadu_si256(self.rows.sums.as_ptr().add(at).cast()) }
    }

    /// The sum of block `b` of column `c` in lane 0, zeros in the others.
    ///
    /// # Safety
    /// As for `quants`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn sum(&self, c: usize, b: usize) -> __m256 {
        let at = (self.first + c) * (self.rows.k / 16) + 2 * b;
        debug_assert!(at + 2 <= self.rows.sums.len());
        // SAFETY: inside `sums`, as above.
        let halves = unsafe { _mm_loadu_si32(self.rows.sums.as_ptr().add(at).cast()) };
        _mm256_cvtepi32_ps(_mm256_zextsi128_si256(_mm_madd_epi16(halves, _mm_set1_epi16(1))))
    }
}

/// Adds `d · s_x · Σ scales · w · x` for 32 signed weights; `scales` go with 2 weights each; without them they
/// are ones.
///
/// # Safety
/// The CPU has AVX2, FMA, F16C and what `L` needs; `x` has `C` columns and a block `at`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn add_signed<L: Level, const C: usize>(
    w: __m256i,
    scales: Option<__m256i>,
    d: __m256,
    x: Columns<'_>,
    at: usize,
    acc: &mut [__m256; C],
) {
    // Unsigned by signed: |w| · (x with the sign of w).
    let magnitude = _mm256_abs_epi8(w);
    for (c, acc) in acc.iter_mut().enumerate() {
        // SAFETY: the contract of this function.
        unsafe { add::<L>(magnitude, _mm256_sign_epi8(x.quants(c, at), w), scales, d, x.scale(c, at), acc) };
    }
}

/// The same for unsigned weights up to 127.
///
/// # Safety
/// As for [`add_signed`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn add_unsigned<L: Level, const C: usize>(
    w: __m256i,
    scales: Option<__m256i>,
    d: __m256,
    x: Columns<'_>,
    at: usize,
    acc: &mut [__m256; C],
) {
    for (c, acc) in acc.iter_mut().enumerate() {
        // SAFETY: the contract of this function.
        unsafe { add::<L>(w, x.quants(c, at), scales, d, x.scale(c, at), acc) };
    }
}

/// Adds `d · s · scales · w · x` to the lanes of a column.
///
/// # Safety
/// The CPU has AVX2, FMA, F16C and what `L` needs.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add<L: Level>(w: __m256i, x: __m256i, scales: Option<__m256i>, d: __m256, s: __m256, acc: &mut __m256) {
    // SAFETY: the contract of this function.
    let dot = unsafe {
        match scales {
            Some(scales) => L::scaled_dot(w, x, scales),
            None => L::dot(w, x),
        }
    };
    *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(d, s), *acc);
}

/// Adds `m · s_x · Σ x` for one block of 32.
///
/// # Safety
/// As for [`add_signed`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn add_min<const C: usize>(m: f32, x: Columns<'_>, at: usize, acc: &mut [__m256; C]) {
    for (c, acc) in acc.iter_mut().enumerate() {
        // SAFETY: the contract of this function.
        let (sum, s) = unsafe { (x.sum(c, at), x.scale(c, at)) };
        *acc = _mm256_fmadd_ps(sum, _mm256_mul_ps(_mm256_set1_ps(m), s), *acc);
    }
}

/// Subtracts `dmin · s_x · mins · Σ x` for eight blocks of 32; `mins` go with half a block each.
///
/// # Safety
/// As for [`add_signed`], with blocks `at..at + 8`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn subtract_mins<const C: usize>(
    mins: __m256i,
    dmin: f32,
    x: Columns<'_>,
    at: usize,
    acc: &mut [__m256; C],
) {
    for (c, acc) in acc.iter_mut().enumerate() {
        // SAFETY: the contract of this function.
        let (sums, s) = unsafe { (x.sums(c, at), x.scales(c, at)) };
        let dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, mins));
        *acc = _mm256_fnmadd_ps(dot, _mm256_mul_ps(_mm256_set1_ps(dmin), s), *acc);
    }
}

/// Weight rows that are gone through for each group of columns; with rows of a few kilobytes they stay in the L2 cache.
const PANEL: usize = 32;

/// `out[c, r] = Σ_k w[r, k] · x[c, k]`.
///
/// # Safety
/// The CPU has AVX2, FMA, F16C and what `L` needs.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn q8<B: DotQ8, L: Level>(w: &[u8], x: Q8Rows<'_>, out: &mut OutTile<'_>) {
    x.check(out.cols());
    let w: &[B] = bytemuck::cast_slice(w);
    assert_eq!(w.len() * B::LEN, out.rows() * x.k, "weights for the tile");
    let row_blocks = x.k / B::LEN;
    assert_eq!(row_blocks * B::LEN, x.k, "whole blocks in a row");

    for panel in (0..out.rows()).step_by(PANEL) {
        let end = (panel + PANEL).min(out.rows());
        let mut c = 0;
        // Four columns share the work of unpacking; with fewer, several rows at once hide the latency of the sums.
        while c < out.cols() {
            let mut r = panel;
            // SAFETY: `c` and the tile's columns stay below `out.cols()`, the columns that `x` was checked for.
            unsafe {
                c += match out.cols() - c {
                    4.. => {
                        while r < end {
                            r += tile::<B, L, 1, 4>(w, row_blocks, r, x, c, out);
                        }
                        4
                    }
                    2.. => {
                        while r + 2 <= end {
                            r += tile::<B, L, 2, 2>(w, row_blocks, r, x, c, out);
                        }
                        while r < end {
                            r += tile::<B, L, 1, 2>(w, row_blocks, r, x, c, out);
                        }
                        2
                    }
                    _ => {
                        while r + 4 <= end {
                            r += tile::<B, L, 4, 1>(w, row_blocks, r, x, c, out);
                        }
                        while r < end {
                            r += tile::<B, L, 1, 1>(w, row_blocks, r, x, c, out);
                        }
                        1
                    }
                };
            }
        }
    }
}

/// Rows `r..r + R` by columns `c..c + C`; returns `R`.
///
/// # Safety
/// The CPU has AVX2, FMA, F16C and what `L` needs; `x` has `c + C` rows of `row_blocks · B::LEN` values.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<B: DotQ8, L: Level, const R: usize, const C: usize>(
    w: &[B],
    row_blocks: usize,
    r: usize,
    x: Q8Rows<'_>,
    c: usize,
    out: &mut OutTile<'_>,
) -> usize {
    let x = Columns { rows: x, first: c };
    let rows: [&[B]; R] = std::array::from_fn(|i| &w[(r + i) * row_blocks..][..row_blocks]);
    let mut acc = [[_mm256_setzero_ps(); C]; R];
    for b in 0..row_blocks {
        for i in 0..R {
            // SAFETY: the contract of this function.
            unsafe { rows[i][b].accumulate::<L, C>(x, b * (B::LEN / 32), &mut acc[i]) };
        }
    }
    for i in 0..R {
        for j in 0..C {
            out.set(c + j, r + i, sum(acc[i][j]));
        }
    }
    R
}
