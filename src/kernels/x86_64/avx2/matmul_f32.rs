//! f32 matmul.
//!
//! Weight rows are dequantised a panel at a time into scratch, where they stay in the L2 cache while all columns pass.
//! Each output has eight lanes, lane `i` taking `k ≡ i (mod 8)` in ascending order, and is like scalar's within
//! `k · 2⁻²⁴ · Σ |w x|`.

use super::super::super::{Dequantize, OutTile};
use super::lanes::{mask, sum};
use crate::quant::BlockType;
use std::arch::x86_64::*;

/// Values in a panel: 256 KiB.
const PANEL_VALUES: usize = 1 << 16;

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
    assert_eq!(w.len(), out.rows() * row_bytes, "weights for the tile");
    assert_eq!(x.len(), out.cols() * k, "activations for the tile");
    let panel_rows = (PANEL_VALUES / k.max(1) / 4 * 4).clamp(4, 64);

    for first in (0..out.rows()).step_by(panel_rows) {
        let rows = panel_rows.min(out.rows() - first);
        let bytes = &w[first * row_bytes..][..rows * row_bytes];
        let panel = if t == BlockType::F32 {
            bytes.as_ptr().cast()
        } else {
            if scratch.len() < rows * k {
                scratch.resize(rows * k, 0.0);
            }
            dequantize(bytes, &mut scratch[..rows * k]);
            scratch.as_ptr()
        };
        // SAFETY: `panel` points to rows · k values (at any address, for F32), `x` has cols · k.
        unsafe { multiply(panel, rows, x, k, first, out) };
    }
}

/// A panel of rows by all columns, four rows and three columns at a time.
///
/// # Safety
/// The CPU has AVX2, FMA and F16C; `panel` is valid for reads of rows · k values, `x` has `out.cols() · k`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply(panel: *const f32, rows: usize, x: &[f32], k: usize, first: usize, out: &mut OutTile<'_>) {
    let mut c = 0;
    while c < out.cols() {
        let mut r = 0;
        // SAFETY: rows r.. and columns c.. stay inside, by the conditions.
        unsafe {
            let column = x.as_ptr().add(c * k);
            if out.cols() - c >= 3 {
                while r + 4 <= rows {
                    r += tile::<4, 3>(panel.add(r * k), column, k, first + r, c, out);
                }
                while r < rows {
                    r += tile::<1, 3>(panel.add(r * k), column, k, first + r, c, out);
                }
                c += 3;
            } else {
                while r + 4 <= rows {
                    r += tile::<4, 1>(panel.add(r * k), column, k, first + r, c, out);
                }
                while r < rows {
                    r += tile::<1, 1>(panel.add(r * k), column, k, first + r, c, out);
                }
                c += 1;
            }
        }
    }
}

/// `R` rows at `w` by `C` columns at `x`, written at row `r`, column `c`; returns `R`.
///
/// # Safety
/// The CPU has AVX2, FMA and F16C; `w` is valid for reads of R · k values, `x` of C · k, at any address.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const R: usize, const C: usize>(
    w: *const f32,
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
            let w = unsafe { _mm256_loadu_ps(w.add(i * k + at)) };
            for j in 0..C {
                acc[i][j] = _mm256_fmadd_ps(w, x[j], acc[i][j]);
            }
        }
    }
    if whole < k {
        let inside = mask(k - whole);
        // SAFETY: lanes outside the mask, those past k, are not read.
        let x: [__m256; C] = std::array::from_fn(|j| unsafe { _mm256_maskload_ps(x.add(j * k + whole), inside) });
        for i in 0..R {
            // SAFETY: as above.
            let w = unsafe { _mm256_maskload_ps(w.add(i * k + whole), inside) };
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
