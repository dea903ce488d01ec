//! int8 matmul with scales of whole rows: a lane of every vector is a weight row, and sums stay in registers for all of
//! `k`. See [`crate::kernels::row_scaled`].
//!
//! Rows are quantised again as they are unpacked, 32 at a time, into memory that stays in the L2 cache while all columns
//! go by. `vpdpbusd` takes them with 128 added, so sums start from −128 times the column's.

use super::matmul_q8::mask;
use super::rows::{Quads, Rows, transpose};
use super::sums::{R, aligned};
use super::unpack::{Groups, Unpack};
use crate::kernels::OutTile;
use crate::kernels::row_scaled::{COLS, Column, Columns, DIGIT, FRACTION, Line, MEANS, Outlier, Requantise, shift};
use std::arch::x86_64::*;

/// See [`Quantize`](crate::kernels::row_scaled::Quantize).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn quantize(x: &[f32], low: &mut [Line], (c, cols): (usize, usize), outliers: &mut Vec<Outlier>) -> Column {
    assert!(c < cols && low.len() == cols * x.len().div_ceil(64) && x.len().is_multiple_of(4), "room for the column");
    // SAFETY: lanes outside the mask are not read; the others lie in the slice.
    let load = |x: &[f32]| unsafe { _mm512_maskz_loadu_ps(mask(x.len().min(16)), x.as_ptr()) };
    let (mut sums, mut largest) = (_mm512_setzero_ps(), _mm512_setzero_si512());
    for x in x.chunks(16) {
        let x = _mm512_abs_ps(load(x));
        sums = _mm512_add_ps(sums, x);
        // As integers, the magnitudes of NaN are above infinity's.
        largest = _mm512_max_epi32(largest, _mm512_castps_si512(x));
    }
    let mut halves = [0f32; 16];
    // SAFETY: sixteen values.
    unsafe { _mm512_storeu_ps(halves.as_mut_ptr(), sums) };
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            halves[i] += halves[i + half];
        }
    }
    let largest = f32::from_bits(_mm512_reduce_max_epi32(largest) as u32);
    if !largest.is_finite() {
        return Column { scale: f32::NAN, ..Column::default() };
    }
    let scale = (largest.min(MEANS * (halves[0] / x.len() as f32)) / DIGIT).max(largest / (128.0 * DIGIT));
    let inverse = 1.0 / scale;
    if inverse.is_infinite() {
        return Column::default();
    }
    let (mut sums, before) = (_mm512_setzero_si512(), outliers.len());
    let inverse = _mm512_set1_ps(inverse);
    for (i, x) in x.chunks(16).enumerate() {
        let q = _mm512_cvtps_epi32(_mm512_mul_ps(load(x), inverse));
        sums = _mm512_add_epi32(sums, q);
        let big = _mm512_cmpgt_epi32_mask(_mm512_abs_epi32(q), _mm512_set1_epi32(127));
        let mut digits = q;
        if big != 0 {
            let high = _mm512_srai_epi32::<7>(_mm512_add_epi32(q, _mm512_set1_epi32(64)));
            let high = _mm512_maskz_mov_epi32(big, high);
            digits = _mm512_sub_epi32(q, _mm512_slli_epi32::<7>(high));
            let mut fours = [0i32; 4];
            // SAFETY: sixteen bytes.
            unsafe { _mm_storeu_si128(fours.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(high)) };
            for (j, digits) in fours.into_iter().enumerate().filter(|(_, digits)| *digits != 0) {
                outliers.push(Outlier { at: (4 * i + j) as u32, digits });
            }
        }
        let line = &mut low[i / 4 * cols + c].0[i % 4 * 16..][..16];
        // SAFETY: sixteen bytes; lanes that `x` does not have are zero.
        unsafe { _mm_storeu_si128(line.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(digits)) };
    }
    Column { scale, sum: _mm512_reduce_add_epi32(sums), outliers: outliers.len() - before }
}

/// Sixteen rows' values, and what is known of their groups.
struct Panel {
    /// Four values of each row, the rows side by side: `[k / 4, 16 rows, 4]`, with 128 added.
    values: *mut __m512i,
    /// Scales, then minima if there are any: `[groups, 16 rows]`.
    groups: *mut __m512,
}

/// See [`Matmul`](crate::kernels::row_scaled::Matmul).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn matmul<B: Unpack + Requantise>(
    w: &[u8],
    k: usize,
    x: &[Columns],
    bias: Option<&[f32]>,
    out: &mut OutTile<'_>,
    scratch: &mut Vec<f32>,
) {
    let row_bytes = k / B::LEN * size_of::<B>();
    assert_eq!(k % B::LEN, 0, "whole blocks in a row");
    assert_eq!(Some(w.len()), out.rows().checked_mul(row_bytes), "weights for the tile");
    assert_eq!(x.iter().map(|x| x.columns().len()).sum::<usize>(), out.cols(), "activations for the tile");
    assert!(bias.is_none_or(|b| b.len() == out.rows()), "bias");
    assert!(x.iter().all(|x| x.k() == k), "activations for the weights");

    // Values of a line that are not there meet zeros, so any will do.
    let (vectors, groups) = (k.div_ceil(64) * 16, k / B::GROUP * if B::MINIMA { 2 } else { 1 });
    let start: *mut __m512i = aligned(scratch, (R * vectors + groups) * 16).as_mut_ptr().cast();
    let panels: [Panel; R] = std::array::from_fn(|r| Panel {
        values: start.wrapping_add(r * vectors),
        groups: start.wrapping_add(R * vectors).cast(),
    });

    for first in (0..out.rows()).step_by(16 * R) {
        let lanes: [usize; R] = std::array::from_fn(|r| out.rows().saturating_sub(first + 16 * r).min(16));
        let mut scales = [_mm512_setzero_ps(); R];
        let mut biases = [_mm512_setzero_ps(); R];
        for r in (0..R).filter(|r| lanes[*r] > 0) {
            let (row, n) = (first + 16 * r, lanes[r]);
            let bytes = &w[row * row_bytes..][..n * row_bytes];
            // SAFETY: sixteen rows of `k` values, and panels in `scratch` with room for them; a bias for each lane.
            unsafe {
                scales[r] = if n == 16 {
                    panels[r].unpack::<B>(Rows::new(bytes.as_ptr(), row_bytes), k)
                } else {
                    // Rows of zeros make up the sixteen.
                    let mut padded = vec![0u8; 16 * row_bytes];
                    padded[..bytes.len()].copy_from_slice(bytes);
                    panels[r].unpack::<B>(Rows::new(padded.as_ptr(), row_bytes), k)
                };
                if let Some(bias) = bias {
                    biases[r] = _mm512_maskz_loadu_ps(mask(n), bias.as_ptr().add(row));
                }
            }
        }
        let rows = Weights { values: std::array::from_fn(|r| panels[r].values), scales, biases, first, lanes };
        let mut c = 0;
        for x in x {
            // SAFETY: `check`ed columns, `c` and so many more are those of the tile; values of `k` and up to a line.
            unsafe { columns(&rows, x, c, k.div_ceil(64), out) };
            c += x.columns().len();
        }
    }
}

impl Panel {
    /// Sixteen rows; returns their scales.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW; the rows have `k` values, whole blocks, and the panel has room for them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack<B: Unpack + Requantise>(&self, rows: Rows, k: usize) -> __m512 {
        let (blocks, groups) = (k / B::LEN, B::LEN / B::GROUP);
        let all_mins = self.groups.wrapping_add(blocks * groups);
        let (mut scales, mut mins): (Groups, Groups) = ([_mm512_setzero_ps(); 16], [_mm512_setzero_ps(); 16]);
        let mut bound = _mm512_setzero_si512();
        let magnitude = |x: __m512| _mm512_castps_si512(_mm512_abs_ps(x));
        let mut at = rows;
        for b in 0..blocks {
            // SAFETY: the contract of this function.
            unsafe { B::scales(at, &mut scales, &mut mins) };
            for g in 0..groups {
                let i = b * groups + g;
                let most = _mm512_mul_ps(scales[g], _mm512_set1_ps(B::LARGEST as f32));
                // As integers, the magnitudes of NaN are above infinity's.
                if B::MINIMA {
                    let most = magnitude(_mm512_sub_ps(most, mins[g]));
                    bound = _mm512_max_epi32(bound, _mm512_max_epi32(magnitude(mins[g]), most));
                    // SAFETY: inside the panel.
                    unsafe { *all_mins.add(i) = mins[g] };
                } else {
                    bound = _mm512_max_epi32(bound, magnitude(most));
                }
                // SAFETY: inside the panel.
                unsafe { *self.groups.add(i) = scales[g] };
            }
            at = at.skip(size_of::<B>());
        }
        let (scale, inverse) = row_scale(_mm512_castsi512_ps(bound));
        let one = _mm512_mul_ps(inverse, _mm512_set1_ps(factor_unit::<B>()));
        let unit = _mm512_set1_ps((1 << FRACTION) as f32);
        let mut at = rows;
        for b in 0..blocks {
            // SAFETY: the contract of this function; places are inside the panel.
            unsafe {
                let group = |i: usize| {
                    let factor = _mm512_cvtps_epi32(_mm512_mul_ps(*self.groups.add(i), one));
                    let factor = twice(_mm512_min_epi32(factor, _mm512_set1_epi32(32767)));
                    if !B::MINIMA {
                        return (factor, _mm512_setzero_si512());
                    }
                    let min = _mm512_mul_ps(_mm512_mul_ps(*all_mins.add(i), inverse), unit);
                    (factor, twice(_mm512_cvtps_epi32(min)))
                };
                let to = self.values.add(b * B::LEN / 4);
                B::values(at, |j, halves| {
                    let i = b * groups + j * (32 / B::GROUP);
                    let first = group(i);
                    let second = if B::GROUP == 32 { first } else { group(i + 1) };
                    let [low, high] = halves;
                    requantise::<B>(low, first, to.add(8 * j));
                    requantise::<B>(high, second, to.add(8 * j + 4));
                });
            }
            at = at.skip(size_of::<B>());
        }
        scale
    }
}

/// What a factor is counted in.
const fn factor_unit<B: Requantise>() -> f32 {
    let more = if B::MINIMA { FRACTION } else { 0 };
    (1u32 << (15 + more - shift::<B>())) as f32
}

/// [`crate::kernels::row_scaled::row_scale`] of every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn row_scale(bound: __m512) -> (__m512, __m512) {
    let scale = _mm512_div_ps(bound, _mm512_set1_ps(DIGIT));
    let inverse = _mm512_div_ps(_mm512_set1_ps(1.0), scale);
    let infinity = _mm512_set1_ps(f32::INFINITY);
    // False for NaN, too.
    let finite = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(scale, infinity);
    let invertible = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(inverse, infinity) & finite;
    let scale = _mm512_maskz_mov_ps(invertible, scale);
    (_mm512_mask_mov_ps(_mm512_set1_ps(f32::NAN), finite, scale), _mm512_maskz_mov_ps(invertible, inverse))
}

/// The low half of every double word in both halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn twice(x: __m512i) -> __m512i {
    let low = _mm512_and_si512(x, _mm512_set1_epi32(0xffff));
    _mm512_or_si512(low, _mm512_slli_epi32::<16>(x))
}

/// Sixteen values of each row by the factors, and less the minima, of the rows.
///
/// # Safety
/// The CPU has AVX-512 F and BW; four vectors at `to`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn requantise<B: Unpack + Requantise>(q: Quads, (factor, min): (__m512i, __m512i), to: *mut __m512i) {
    let offset = _mm512_set1_epi16(B::OFFSET as i16);
    let up = _mm_cvtsi32_si128(shift::<B>() as i32);
    let scaled = |q: __m512i| {
        let q = if B::OFFSET == 0 { q } else { _mm512_sub_epi16(q, offset) };
        let q = if shift::<B>() == 0 { q } else { _mm512_sll_epi16(q, up) };
        let q = _mm512_mulhrs_epi16(q, factor);
        let q = match B::MINIMA {
            true => {
                let half = _mm512_set1_epi16(1 << (FRACTION - 1));
                _mm512_srai_epi16::<FRACTION>(_mm512_add_epi16(_mm512_sub_epi16(q, min), half))
            }
            false => q,
        };
        _mm512_min_epi16(q, _mm512_set1_epi16(127))
    };
    for (i, v) in transpose(q).into_iter().enumerate() {
        let even = scaled(_mm512_and_si512(v, _mm512_set1_epi16(0xff)));
        let odd = scaled(_mm512_srli_epi16::<8>(v));
        let both = _mm512_mask_mov_epi8(_mm512_slli_epi16::<8>(odd), 0x5555_5555_5555_5555, even);
        // SAFETY: the contract of this function.
        unsafe { *to.add(i) = _mm512_xor_si512(both, _mm512_set1_epi8(-128)) };
    }
}

/// Unpacked rows `first..` of the tile, `lanes` of each sixteen.
struct Weights {
    values: [*mut __m512i; R],
    scales: [__m512; R],
    biases: [__m512; R],
    first: usize,
    lanes: [usize; R],
}

/// All rows by the columns of `x`, which are those from `c` on of the tile; `lines` of 64 values.
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL and VNNI; weights and columns have so many lines, the tile has the rows and columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn columns(w: &Weights, x: &Columns, c: usize, lines: usize, out: &mut OutTile<'_>) {
    macro_rules! sizes {
        ($($n:literal)+) => {
            match x.columns().len() {
                // SAFETY: the contract of this function.
                $($n => unsafe { dots::<$n>(w, x, lines) },)+
                _ => return,
            }
        };
    }
    const { assert!(COLS == 14) };
    // Columns of a result are far apart, and nothing of them is in a cache yet.
    for i in 0..x.columns().len() {
        for r in (0..R).filter(|r| w.lanes[*r] > 0) {
            _mm_prefetch::<_MM_HINT_T0>(out.at(c + i, w.first + 16 * r).cast_const().cast());
        }
    }
    let dots = sizes!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    let mut outliers = x.outliers();
    for (i, column) in x.columns().iter().enumerate() {
        let (own, rest) = outliers.split_at(column.outliers);
        outliers = rest;
        let mut sums: [__m512i; R] = std::array::from_fn(|r| dots[r][i]);
        if !own.is_empty() {
            let mut high = [_mm512_setzero_si512(); R];
            for o in own {
                let x = _mm512_set1_epi32(o.digits);
                for r in 0..R {
                    // SAFETY: `check`ed places are inside the panel.
                    let w = unsafe { *w.values[r].add(o.at as usize) };
                    high[r] = _mm512_dpbusd_epi32(high[r], w, x);
                }
            }
            for r in 0..R {
                sums[r] = _mm512_add_epi32(sums[r], _mm512_slli_epi32::<7>(high[r]));
            }
        }
        for r in (0..R).filter(|r| w.lanes[*r] > 0) {
            let y =
                _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[r]), w.scales[r]), _mm512_set1_ps(column.scale));
            // SAFETY: the rows and the column are the tile's.
            unsafe {
                _mm512_mask_storeu_ps(out.at(c + i, w.first + 16 * r), mask(w.lanes[r]), _mm512_add_ps(y, w.biases[r]));
            }
        }
    }
}

/// The sums of all low digits, from −128 times the sums of the columns on.
///
/// # Safety
/// As for [`columns`]; there are `C` columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn dots<const C: usize>(w: &Weights, x: &Columns, lines: usize) -> [[__m512i; COLS]; R] {
    // SAFETY: the contract of this function.
    unsafe {
        let mut acc: [[__m512i; C]; R] =
            [std::array::from_fn(|i| _mm512_set1_epi32(-128 * x.columns().get_unchecked(i).sum)); R];
        let mut lanes: [*const __m512i; R] = std::array::from_fn(|r| w.values[r].cast_const());
        let mut low: *const i8 = x.low().as_ptr().cast();
        for _ in 0..lines {
            for p in 0..16 {
                let w: [__m512i; R] = std::array::from_fn(|r| _mm512_load_si512(lanes[r].add(p)));
                for i in 0..C {
                    let x = _mm512_set1_epi32(low.add(64 * i + 4 * p).cast::<i32>().read());
                    for r in 0..R {
                        acc[r][i] = _mm512_dpbusd_epi32(acc[r][i], w[r], x);
                    }
                }
            }
            lanes = lanes.map(|at| at.add(16));
            low = low.add(64 * C);
        }
        let mut all = [[_mm512_setzero_si512(); COLS]; R];
        for r in 0..R {
            all[r][..C].copy_from_slice(&acc[r]);
        }
        all
    }
}
