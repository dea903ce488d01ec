//! Integer matmul with VNNI: a lane of every vector is a weight row.
//!
//! An output is `Σ s_x · (Σ s_w · dot − m_w · Σx)` over the activation blocks of 32, in ascending order, in one chain of
//! multiply-adds; the integers `dot` are exact. Few columns take weights straight from their blocks ([`few`]), many take
//! them unpacked into the L1 cache ([`super::panel`]): the order, and so the result to the bit, is the same.
//!
//! The chain has `k / 32` links with at most six roundings inside each, so it is within the bound of the scalar chain of
//! `k / 16`, relative to the sum of the magnitudes of the products.

use super::panel;
use super::rows::Rows;
use super::unpack::{Groups, Unpack};
use crate::kernels::{OutTile, Q8Rows};
use std::arch::x86_64::*;

/// Columns from which it pays to unpack weights first.
const MANY: usize = 4;

/// `out[c, r] = Σ_k w[r, k] · x[c, k]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn q8<B: Unpack>(w: &[u8], x: Q8Rows<'_>, out: &mut OutTile<'_>, scratch: &mut Vec<f32>) {
    x.check(out.cols());
    let row_bytes = x.k / B::LEN * size_of::<B>();
    assert_eq!(x.k % B::LEN, 0, "whole blocks in a row");
    assert_eq!(Some(w.len()), out.rows().checked_mul(row_bytes), "weights for the tile");

    let whole = out.rows() / 16 * 16;
    // SAFETY: `w` has `whole` rows, a multiple of 16, of `x.k` values; `x` has a row for each column.
    unsafe { rows::<B>(w.as_ptr(), row_bytes, 0, whole, x, out, scratch) };
    let rest = out.rows() - whole;
    if rest > 0 {
        // Rows of zeros make up the sixteen.
        let mut padded = vec![0u8; 16 * row_bytes];
        padded[..rest * row_bytes].copy_from_slice(&w[whole * row_bytes..]);
        // SAFETY: as above; results of the added rows are not stored.
        unsafe { rows::<B>(padded.as_ptr(), row_bytes, whole, rest, x, out, scratch) };
    }
}

/// Rows `first..first + count` of the tile; `w` is the first of them, and if `count` is not a multiple of 16, rows follow
/// that make it one.
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL and VNNI; there are that many rows of `x.k` values at `w`; `x` has `out.cols()` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows<B: Unpack>(
    w: *const u8,
    row_bytes: usize,
    first: usize,
    count: usize,
    x: Q8Rows<'_>,
    out: &mut OutTile<'_>,
    scratch: &mut Vec<f32>,
) {
    // SAFETY: the contract of this function.
    unsafe {
        if out.cols() >= MANY {
            return panel::multiply::<B>(w, row_bytes, first, count, x, out, scratch);
        }
        for r in (0..count).step_by(16) {
            let rows = w.add(r * row_bytes);
            let lanes = (count - r).min(16);
            match out.cols() {
                0 => {}
                1 => few::<B, 1>(rows, row_bytes, x, first + r, lanes, out),
                2 => few::<B, 2>(rows, row_bytes, x, first + r, lanes, out),
                _ => few::<B, 3>(rows, row_bytes, x, first + r, lanes, out),
            }
        }
    }
}

/// Sixteen rows by `C` columns, straight from the blocks.
///
/// # Safety
/// As for [`rows`]; 16 rows at `w`, `lanes` of them wanted, which are rows `row..row + lanes` of the tile.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn few<B: Unpack, const C: usize>(
    w: *const u8,
    row_bytes: usize,
    x: Q8Rows<'_>,
    row: usize,
    lanes: usize,
    out: &mut OutTile<'_>,
) {
    let blocks = row_bytes / size_of::<B>();
    let mut acc = [_mm512_setzero_ps(); C];
    let (mut scales, mut mins): (Groups, Groups) = ([_mm512_setzero_ps(); 16], [_mm512_setzero_ps(); 16]);
    // SAFETY: 16 rows of `blocks` blocks; `x` has C columns of as many values.
    unsafe {
        let mut rows = Rows::new(w, row_bytes);
        for b in 0..blocks {
            B::scales(rows, &mut scales, &mut mins);
            let columns = std::array::from_fn(|c| x.qs.as_ptr().add(c * x.k + b * B::LEN));
            // The next sixteen rows come in order while these are gone through side by side.
            let ahead = w.wrapping_add(16 * row_bytes + b * 16 * size_of::<B>());
            let dots = B::dots::<C>(rows, columns, ahead);
            for c in 0..C {
                for j in 0..B::LEN / 32 {
                    let at = c * (x.k / 32) + b * (B::LEN / 32) + j;
                    let sums = [*x.sums.as_ptr().add(2 * at), *x.sums.as_ptr().add(2 * at + 1)].map(i32::from);
                    let t = if B::GROUP == 32 {
                        term::<B, 1>([dots[c][j]], [scales[j]], [mins[j]], [sums[0] + sums[1]])
                    } else {
                        let g = 2 * j;
                        term::<B, 2>(
                            [dots[c][g], dots[c][g + 1]],
                            [scales[g], scales[g + 1]],
                            [mins[g], mins[g + 1]],
                            sums,
                        )
                    };
                    acc[c] = _mm512_fmadd_ps(t, _mm512_set1_ps(*x.scales.as_ptr().add(at)), acc[c]);
                }
            }
            rows = rows.skip(size_of::<B>());
        }
        for (c, acc) in acc.into_iter().enumerate() {
            _mm512_mask_storeu_ps(out.at(c, row), mask(lanes), acc);
        }
    }
}

/// `Σ_g s_w · dot − m_w · Σx` of an activation block, whose `G` groups have the sums `sums`. The dots are still of the
/// unsigned values.
#[inline]
#[target_feature(enable = "avx512f")]
fn term<B: Unpack, const G: usize>(
    dots: [__m512i; G],
    scales: [__m512; G],
    mins: [__m512; G],
    sums: [i32; G],
) -> __m512 {
    let mut t = _mm512_setzero_ps();
    for g in 0..G {
        let dot =
            if B::OFFSET == 0 { dots[g] } else { _mm512_sub_epi32(dots[g], _mm512_set1_epi32(B::OFFSET * sums[g])) };
        let dot = _mm512_cvtepi32_ps(dot);
        t = if g == 0 { _mm512_mul_ps(dot, scales[0]) } else { _mm512_fmadd_ps(dot, scales[g], t) };
    }
    if B::MINS {
        for g in 0..G {
            t = _mm512_fnmadd_ps(mins[g], _mm512_set1_ps(sums[g] as f32), t);
        }
    }
    t
}

/// The first `lanes` lanes.
#[inline(always)]
pub(super) fn mask(lanes: usize) -> __mmask16 {
    ((1u32 << lanes) - 1) as u16
}
