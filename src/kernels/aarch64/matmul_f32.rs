//! f32 matmul.
//!
//! Weight rows are dequantised a panel at a time into scratch, where they stay in the L2 cache while all columns pass.
//! Rows of F32, and of F16 and BF16 if few columns need them, are read where they are. Each output has four lanes,
//! lane `i` taking `k ≡ i (mod 4)` in ascending order, and is like scalar's within `k · 2⁻²⁴ · Σ |w x|`.

use super::super::{Dequantize, OutTile};
use super::lanes::{load_partial, sum, widen_f16};
use crate::quant::BlockType;
use std::arch::aarch64::*;

/// Values in a panel: 256 KiB.
const PANEL_VALUES: usize = 1 << 16;

/// With more columns than this, weights are converted once into scratch rather than for each group of columns.
const FEW_COLUMNS: usize = 4;

/// `out[c, r] = Σ_k w[r, k] · x[c, k]` with weights of type `t`, which `dequantize` turns into f32.
#[target_feature(enable = "neon")]
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
    /// Bytes of a weight.
    const BYTES: usize;

    /// The address of the first weight.
    fn address(self) -> *const u8;

    /// The 4 weights that start `n` weights further on.
    ///
    /// # Safety
    /// The CPU has NEON; the weights are there to read.
    unsafe fn load(self, n: usize) -> float32x4_t;

    /// Weights somewhere else.
    fn at(address: *const u8) -> Self;
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
    const BYTES: usize = 4;

    fn address(self) -> *const u8 {
        self.0
    }

    fn at(address: *const u8) -> Self {
        Self(address)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(self, n: usize) -> float32x4_t {
        // SAFETY: the contract of this function; bytes may start anywhere.
        vreinterpretq_f32_u8(unsafe { vld1q_u8(self.0.add(4 * n)) })
    }
}

impl Source for Half {
    const BYTES: usize = 2;

    fn address(self) -> *const u8 {
        self.0
    }

    fn at(address: *const u8) -> Self {
        Self(address)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(self, n: usize) -> float32x4_t {
        // SAFETY: the contract of this function; bytes may start anywhere.
        widen_f16(vreinterpret_u16_u8(unsafe { vld1_u8(self.0.add(2 * n)) }))
    }
}

impl Source for Brain {
    const BYTES: usize = 2;

    fn address(self) -> *const u8 {
        self.0
    }

    fn at(address: *const u8) -> Self {
        Self(address)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(self, n: usize) -> float32x4_t {
        // SAFETY: the contract of this function; bytes may start anywhere.
        let bits = vreinterpret_u16_u8(unsafe { vld1_u8(self.0.add(2 * n)) });
        vreinterpretq_f32_u32(vshll_n_u16::<16>(bits))
    }
}

/// The `n` weights, at most 4, that start `at` weights further on, and zeros in the other lanes.
///
/// # Safety
/// The CPU has NEON; the weights are there to read.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load_weights_partial<S: Source>(w: S, at: usize, n: usize) -> float32x4_t {
    let mut padded = [0u8; 16];
    assert!(n <= 4);
    // SAFETY: n weights are readable by the contract, and `padded` has room for four of the widest type.
    unsafe {
        std::ptr::copy_nonoverlapping(w.address().add(at * S::BYTES), padded.as_mut_ptr(), n * S::BYTES);
        S::at(padded.as_ptr()).load(0)
    }
}

/// Rows of weights by all columns, four rows and up to four columns at a time; the first is row `first` of `out`.
///
/// # Safety
/// The CPU has NEON; `w` has rows · k weights to read, `x` has `out.cols()` · k values.
#[target_feature(enable = "neon")]
unsafe fn multiply<S: Source>(w: S, first: usize, rows: usize, x: &[f32], k: usize, out: &mut OutTile<'_>) {
    let mut c = 0;
    while c < out.cols() {
        let four = out.cols() - c >= 4;
        let mut r = 0;
        while r < rows {
            // SAFETY: rows r.. and columns c.. stay inside, by the conditions.
            r += unsafe {
                match (rows - r >= 4, four) {
                    (true, true) => tile::<S, 4, 4>(w, r, x, k, first, c, out),
                    (false, true) => tile::<S, 1, 4>(w, r, x, k, first, c, out),
                    (true, false) => tile::<S, 4, 1>(w, r, x, k, first, c, out),
                    (false, false) => tile::<S, 1, 1>(w, r, x, k, first, c, out),
                }
            };
        }
        c += if four { 4 } else { 1 };
    }
}

/// Rows `r..r + R` of the panel by columns `c..c + C`; returns `R`.
///
/// # Safety
/// The CPU has NEON; `w` has (r + R) · k weights to read, `x` (c + C) · k values.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn tile<S: Source, const R: usize, const C: usize>(
    w: S,
    r: usize,
    x: &[f32],
    k: usize,
    first: usize,
    c: usize,
    out: &mut OutTile<'_>,
) -> usize {
    debug_assert!((c + C) * k <= x.len());
    // SAFETY: the contract of this function.
    let x = unsafe { x.as_ptr().add(c * k) };
    let mut acc = [[vdupq_n_f32(0.0); C]; R];
    let whole = k / 4 * 4;
    for at in (0..whole).step_by(4) {
        // SAFETY: at + 4 ≤ k.
        let x: [float32x4_t; C] = std::array::from_fn(|j| unsafe { vld1q_f32(x.add(j * k + at)) });
        for i in 0..R {
            // SAFETY: at + 4 ≤ k.
            let w = unsafe { w.load((r + i) * k + at) };
            for j in 0..C {
                acc[i][j] = vfmaq_f32(acc[i][j], w, x[j]);
            }
        }
    }
    if whole < k {
        let n = k - whole;
        // SAFETY: n values are left.
        let rest = |j| load_partial(unsafe { std::slice::from_raw_parts(x.add(j * k + whole), n) });
        let x: [float32x4_t; C] = std::array::from_fn(rest);
        for i in 0..R {
            // SAFETY: n weights are left.
            let w = unsafe { load_weights_partial(w, (r + i) * k + whole, n) };
            for j in 0..C {
                acc[i][j] = vfmaq_f32(acc[i][j], w, x[j]);
            }
        }
    }
    for i in 0..R {
        for j in 0..C {
            out.set(c + j, first + r + i, sum(acc[i][j]));
        }
    }
    R
}
