//! f32 matmul.
//!
//! Weight rows are dequantised a panel at a time into scratch, where they stay in the L2 cache while all columns pass.
//! Rows of F32, and of F16 and BF16 if few columns need them, are read where they are. Each output has eight lanes,
//! lane `i` taking `k ≡ i (mod 8)` in ascending order, and is like scalar's within `k · 2⁻²⁴ · Σ |w x|`.

use super::super::super::{Dequantize, OutTile};
use super::lanes::{mask, sum};
use crate::quant::BlockType;
use half::f16;
use std::arch::x86_64::*;

/// Values in a panel: 256 KiB.
const PANEL_VALUES: usize = 1 << 16;

/// With more columns than this, weights are converted once into scratch rather than for each group of columns.
const FEW_COLUMNS: usize = 3;

/// `out[c, r] = Σ_k w[r, k] · x[c, k]` with weights of type `t`, which `dequantize` turns into f32.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn f32(
    t: BlockType,
    dequantize: Dequantize,
    w: &[u8],
    x: &[f32],
    k: usize,
    out: &mut OutTile<'_>,
    scratch: &mut Vec<f32>,
) {
    let row_bytes = t.row_bytes(k).expect("whole blocks in a row");
    assert_eq!(Some(w.len()), out.rows().checked_mul(row_bytes), "weights for the tile");
    assert_eq!(Some(x.len()), out.cols().checked_mul(k), "activations for the tile");

    let panel_rows = (PANEL_VALUES / k.max(1) / 4 * 4).clamp(4, 64);
    for first in (0..out.rows()).step_by(panel_rows) {
        let rows = panel_rows.min(out.rows() - first);
        let panel = &w[first * row_bytes..][..rows * row_bytes];
        let few = out.cols() <= FEW_COLUMNS;
        // SAFETY: `panel` holds rows · k weights of type `t`, and so does `scratch` of f32; `x` cols · k activations.
        unsafe {
            match t {
                BlockType::F32 => multiply(Single(panel.as_ptr()), first, rows, x, k, out),
                BlockType::F16 if few => multiply(Half(panel.as_ptr()), first, rows, x, k, out),
                BlockType::BF16 if few => multiply(Brain(panel.as_ptr()), first, rows, x, k, out),
                _ => {
                    if scratch.len() < rows * k {
                        scratch.resize(rows * k, 0.0);
                    }
                    let scratch = &mut scratch[..rows * k];
                    dequantize(panel, scratch);
                    multiply(Single(scratch.as_ptr().cast()), first, rows, x, k, out);
                }
            }
        }
    }
}

/// Weights of one type at any address.
trait Source: Copy {
    /// `n` weights further on.
    ///
    /// # Safety
    /// They are in the same matrix.
    unsafe fn skip(self, n: usize) -> Self;

    /// The first 8 weights.
    ///
    /// # Safety
    /// The CPU has AVX2, FMA and F16C; the weights are there to read.
    unsafe fn load(self) -> __m256;

    /// The first `n` weights, at most 8, and zeros in the other lanes.
    ///
    /// # Safety
    /// As for `load`, for `n` weights.
    unsafe fn load_partial(self, n: usize) -> __m256;
}

/// F32.
#[derive(Clone, Copy)]
struct Single(*const u8);

/// F16.
#[derive(Clone, Copy)]
struct Half(*const u8);

/// BF16.
#[derive(Clone, Copy)]
struct Brain(*const u8);

impl Source for Single {
    #[inline(always)]
    unsafe fn skip(self, n: usize) -> Self {
        // SAFETY: the contract of this function.
        Self(unsafe { self.0.add(4 * n) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(self) -> __m256 {
        // SAFETY: the contract of this function.
        unsafe { _mm256_loadu_ps(self.0.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_partial(self, n: usize) -> __m256 {
        // SAFETY: lanes outside the mask are not read.
        unsafe { _mm256_maskload_ps(self.0.cast(), mask(n)) }
    }
}

impl Source for Half {
    #[inline(always)]
    unsafe fn skip(self, n: usize) -> Self {
        // SAFETY: the contract of this function.
        Self(unsafe { self.0.add(2 * n) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(self) -> __m256 {
        // SAFETY: the contract of this function.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(self.0.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_partial(self, n: usize) -> __m256 {
        // SAFETY: the contract of this function.
        _mm256_cvtph_ps(unsafe { load_u16_partial(self.0, n) })
    }
}

impl Source for Brain {
    #[inline(always)]
    unsafe fn skip(self, n: usize) -> Self {
        // SAFETY: the contract of this function.
        Self(unsafe { self.0.add(2 * n) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(self) -> __m256 {
        // SAFETY: the contract of this function.
        widen_bf16(unsafe { _mm_loadu_si128(self.0.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_partial(self, n: usize) -> __m256 {
        // SAFETY: the contract of this function.
        widen_bf16(unsafe { load_u16_partial(self.0, n) })
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen_bf16(v: __m128i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(v)))
}

/// # Safety
/// `n` values of 2 bytes, at most 8, are there to read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load_u16_partial(from: *const u8, n: usize) -> __m128i {
    let mut padded = [f16::ZERO; 8];
    assert!(n <= padded.len());
    // SAFETY: 2n bytes are readable by the contract, and `padded` has room for them.
    unsafe { std::ptr::copy_nonoverlapping(from, padded.as_mut_ptr().cast(), 2 * n) };
    // SAFETY: `padded` has 16 bytes.
    unsafe { _mm_loadu_si128(padded.as_ptr().cast()) }
}

/// Rows of weights by all columns, four rows and three columns at a time; the first is row `first` of `out`.
///
/// # Safety
/// The CPU has AVX2, FMA and F16C; `w` has rows · k weights to read, `x` has `out.cols()` · k values.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply<S: Source>(w: S, first: usize, rows: usize, x: &[f32], k: usize, out: &mut OutTile<'_>) {
    let mut c = 0;
    while c < out.cols() {
        let mut r = 0;
        // SAFETY: rows r.. and columns c.. stay inside, by the conditions.
        unsafe {
            let column = x.as_ptr().add(c * k);
            if out.cols() - c >= 3 {
                while r + 4 <= rows {
                    r += tile::<S, 4, 3>(w.skip(r * k), column, k, first + r, c, out);
                }
                while r < rows {
                    r += tile::<S, 1, 3>(w.skip(r * k), column, k, first + r, c, out);
                }
                c += 3;
            } else {
                while r + 4 <= rows {
                    r += tile::<S, 4, 1>(w.skip(r * k), column, k, first + r, c, out);
                }
                while r < rows {
                    r += tile::<S, 1, 1>(w.skip(r * k), column, k, first + r, c, out);
                }
                c += 1;
            }
        }
    }
}

/// `R` rows at `w` by `C` columns at `x`, written at row `r`, column `c`; returns `R`.
///
/// # Safety
/// The CPU has AVX2, FMA and F16C; `w` has R · k weights to read, `x` C · k values.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<S: Source, const R: usize, const C: usize>(
    w: S,
    x: *const f32,
    k: usize,
    r: usize,
    c: usize,
    out: &mut OutTile<'_>,
) -> usize {
    let mut acc = [[_mm256_setzero_ps(); C]; R];
    let whole = k / 8 * 8;
    for at in (0..whole).step_by(8) {
        // SAFETY: at + 8 ≤ k.
        let x: [__m256; C] = std::array::from_fn(|j| unsafe { _mm256_loadu_ps(x.add(j * k + at)) });
        for i in 0..R {
            // SAFETY: at + 8 ≤ k.
            let w = unsafe { w.skip(i * k + at).load() };
            for j in 0..C {
                acc[i][j] = _mm256_fmadd_ps(w, x[j], acc[i][j]);
            }
        }
    }
    if whole < k {
        let n = k - whole;
        // SAFETY: lanes outside the mask, those past k, are not read.
        let x: [__m256; C] = std::array::from_fn(|j| unsafe { _mm256_maskload_ps(x.add(j * k + whole), mask(n)) });
        for i in 0..R {
            // SAFETY: n weights are left.
            let w = unsafe { w.skip(i * k + whole).load_partial(n) };
            for j in 0..C {
                acc[i][j] = _mm256_fmadd_ps(w, x[j], acc[i][j]);
            }
        }
    }
    for i in 0..R {
        for j in 0..C {
            out.set(c + j, r + i, sum(acc[i][j]));
        }
    }
    R
}
