//! Attention with `vdpbf16ps`, of rows that all see the same keys: queries, keys, values and probabilities are rounded to
//! bf16, sums are f32.
//!
//! A few queries at a time meet all keys, so there is one softmax for each. Every element is one chain in ascending order
//! of what is summed over.

use super::matmul_q8::mask;
use super::rows::{Rows, transpose};
use crate::kernels::OutTile;
use crate::kernels::attention::Queries;
use crate::kernels::row_scaled::{COLS, tile};
use half::bf16;
use std::arch::x86_64::*;
use std::f32::consts::LOG2_E;

/// Keys and values of one head, `[rows, dim]` with rows `stride` apart, to `2 · rows · dim` values, both rounded up to a
/// multiple of 16: keys `[rows / 16, dim / 2, 16 rows, 2]`, then values `[rows / 2, dim / 16, 16, 2 rows]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn pack(k: &[f32], v: &[f32], stride: usize, dim: usize, to: &mut [bf16]) {
    let rows = k.len().div_ceil(stride);
    let inside = rows.saturating_sub(1) * stride + dim;
    let (padded, width) = (rows.next_multiple_of(16), dim.next_multiple_of(16));
    assert!(dim <= stride && k.len() >= inside && v.len() >= inside, "keys and values");
    assert_eq!(to.len(), 2 * padded * width, "room for keys and values");
    let (keys, values) = to.split_at_mut(padded * width);
    // Sixteen values of a row from `d` on, zeros where there are none.
    let load = |x: &[f32], row: usize, d: usize| {
        let n = if row < rows { dim.saturating_sub(d).min(16) } else { 0 };
        // SAFETY: lanes outside the mask are not read; the others lie in the row.
        let x = unsafe { _mm512_maskz_loadu_ps(mask(n), x.as_ptr().wrapping_add(row * stride + d)) };
        // SAFETY: bits are bits.
        unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) }
    };
    for (group, keys) in keys.chunks_exact_mut(16 * width).enumerate() {
        for d in (0..width).step_by(16) {
            let mut side = [[bf16::ZERO; 16]; 16];
            for (r, side) in side.iter_mut().enumerate() {
                // SAFETY: sixteen values.
                unsafe { _mm256_storeu_si256(side.as_mut_ptr().cast(), load(k, 16 * group + r, d)) };
            }
            // SAFETY: sixteen rows of 32 bytes; the chunk has 16 vectors for sixteen values.
            unsafe {
                let side = Rows::new(side.as_ptr().cast(), 32);
                for i in 0..2 {
                    for (j, v) in transpose(side.quads(16 * i)).into_iter().enumerate() {
                        _mm512_storeu_si512(keys.as_mut_ptr().add(16 * d + 32 * (4 * i + j)).cast(), v);
                    }
                }
            }
        }
    }
    for (pair, values) in values.chunks_exact_mut(2 * width).enumerate() {
        for d in (0..width).step_by(16) {
            let [first, second] = [0, 1].map(|i| _mm512_cvtepu16_epi32(load(v, 2 * pair + i, d)));
            let both = _mm512_or_si512(first, _mm512_slli_epi32::<16>(second));
            // SAFETY: inside the chunk.
            unsafe { _mm512_storeu_si512(values.as_mut_ptr().add(2 * d).cast(), both) };
        }
    }
}

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    /// Keys.
    seen: usize,
    /// Keys, a multiple of 16.
    padded: usize,
    /// Width of a head, a multiple of 16.
    width: usize,
}

/// `out = softmax(q · K / √dim) V` for every query, one head; `kv` as [`pack`] leaves it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
pub(super) fn attend(q: &Queries<'_>, kv: &[bf16], out: &mut OutTile<'_>, scratch: &mut Vec<f32>) {
    q.check(out);
    assert!(q.heads == 1 && !q.causal, "queries that see the same keys");
    let size = Sizes { seen: q.visible, padded: q.visible.next_multiple_of(16), width: q.dim.next_multiple_of(16) };
    assert_eq!(kv.len(), 2 * size.padded * size.width, "keys and values");
    let (keys, values) = kv.split_at(size.padded * size.width);
    let parts = [COLS * size.width / 2, COLS * size.padded, COLS * size.padded / 2];
    if scratch.len() < parts.iter().sum() {
        scratch.resize(parts.iter().sum(), 0.0);
    }
    let (queries, rest) = scratch.split_at_mut(parts[0]);
    let (scores, rest) = rest.split_at_mut(parts[1]);
    let queries: &mut [bf16] = bytemuck::cast_slice_mut(queries);
    let weights: &mut [bf16] = bytemuck::cast_slice_mut(&mut rest[..parts[2]]);
    // Scores are logarithms to base 2.
    let scale = _mm512_set1_ps(q.scale() * LOG2_E);
    for i in 0..q.rows.div_ceil(COLS) {
        let rows = tile(q.rows, i);
        for (row, to) in rows.clone().zip(queries.chunks_exact_mut(size.width)) {
            for (x, to) in q.query(row, 0).chunks(16).zip(to.chunks_exact_mut(16)) {
                // SAFETY: lanes outside the mask are not read; sixteen values are written.
                unsafe {
                    let x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask(x.len()), x.as_ptr()), scale);
                    let bits = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x));
                    _mm256_storeu_si256(to.as_mut_ptr().cast(), bits);
                }
            }
        }
        let mut totals = [0.0; COLS];
        // SAFETY: `rows.len()` queries, scores and weights, of the sizes that the slices were cut to.
        unsafe {
            macro_rules! sizes {
                ($f:ident, $rows:expr, $args:tt, $($n:literal)+) => {
                    match $rows { $($n => $f::<$n> $args,)+ _ => unreachable!("rows of a tile") }
                };
            }
            const { assert!(COLS == 14) };
            let (qs, s, p) = (queries.as_ptr(), scores.as_mut_ptr(), weights.as_mut_ptr());
            sizes!(score, rows.len(), (qs, keys.as_ptr(), s, size), 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
            for (r, total) in totals.iter_mut().enumerate().take(rows.len()) {
                *total = softmax(s.add(r * size.padded), p.add(r * size.padded), size);
            }
            // Half the queries by four vectors of a head.
            let half = rows.len().div_ceil(2);
            for first in (0..rows.len()).step_by(half) {
                let n = half.min(rows.len() - first);
                let (p, totals) = (p.add(first * size.padded).cast_const(), &totals[first..]);
                let at = rows.start + first;
                sizes!(mix, n, (p, values.as_ptr(), totals, size, q.dim, at, out), 1 2 3 4 5 6 7);
            }
        }
    }
}

/// Scores of `C` queries, `[C, padded]`.
///
/// # Safety
/// The CPU has AVX-512 F and BF16; pointers are good for the sizes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn score<const C: usize>(q: *const bf16, keys: *const bf16, scores: *mut f32, size: Sizes) {
    let group = 16 * size.width;
    let mut at = 0;
    // SAFETY: the contract of this function; groups of sixteen keys stay below `padded`.
    unsafe {
        while at + 32 <= size.padded {
            score_groups::<C, 2>(q, keys.add(at * size.width), group, scores.add(at), size);
            at += 32;
        }
        if at < size.padded {
            score_groups::<C, 1>(q, keys.add(at * size.width), group, scores.add(at), size);
        }
    }
}

/// # Safety
/// As for [`score`]; `G` groups of sixteen keys, `group` values apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn score_groups<const C: usize, const G: usize>(
    q: *const bf16,
    keys: *const bf16,
    group: usize,
    scores: *mut f32,
    size: Sizes,
) {
    // SAFETY: the contract of this function.
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); C]; G];
        for p in 0..size.width / 2 {
            let k: [__m512bh; G] = std::array::from_fn(|g| pairs(keys.add(g * group + 32 * p)));
            for i in 0..C {
                let q = pair(q.add(i * size.width + 2 * p));
                for g in 0..G {
                    acc[g][i] = _mm512_dpbf16_ps(acc[g][i], k[g], q);
                }
            }
        }
        for g in 0..G {
            for i in 0..C {
                _mm512_storeu_ps(scores.add(i * size.padded + 16 * g), acc[g][i]);
            }
        }
    }
}

/// `2^(score − largest)` of one query in bf16, zeros from `seen` on; returns the sum.
///
/// # Safety
/// The CPU has AVX-512 F, DQ, VL and BF16; both pointers are good for `padded` values.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn softmax(scores: *const f32, weights: *mut bf16, size: Sizes) -> f32 {
    // SAFETY: the contract of this function.
    unsafe {
        let lanes = |i: usize| mask(size.seen.saturating_sub(i).min(16));
        let mut max = _mm512_set1_ps(f32::NEG_INFINITY);
        for i in (0..size.padded).step_by(16) {
            max = _mm512_mask_max_ps(max, lanes(i), _mm512_loadu_ps(scores.add(i)), max);
        }
        let max = _mm512_set1_ps(_mm512_reduce_max_ps(max));
        let mut total = _mm512_setzero_ps();
        for i in (0..size.padded).step_by(16) {
            let e = exp2(_mm512_sub_ps(_mm512_loadu_ps(scores.add(i)), max));
            let e = _mm512_maskz_mov_ps(lanes(i), e);
            total = _mm512_add_ps(total, e);
            let bits = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(e));
            _mm256_storeu_si256(weights.add(i).cast(), bits);
        }
        _mm512_reduce_add_ps(total)
    }
}

/// `2^x` for `x` up to 0, within 3e-6 of it: Taylor's polynomial. NaN stays NaN.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp2(x: __m512) -> __m512 {
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let r = _mm512_sub_ps(x, n);
    let mut p = _mm512_set1_ps(1.333_355_8e-3);
    for c in [9.618_129e-3, 5.550_411e-2, 0.240_226_5, std::f32::consts::LN_2, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    _mm512_scalef_ps(p, n)
}

/// Values by the weights of `C` queries, over their totals, to columns `at..` of `out`.
///
/// # Safety
/// The CPU has AVX-512 F, VL and BF16; pointers are good for the sizes, `out` has the columns of `dim` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn mix<const C: usize>(
    weights: *const bf16,
    values: *const bf16,
    totals: &[f32],
    size: Sizes,
    dim: usize,
    at: usize,
    out: &mut OutTile<'_>,
) {
    let mut d = 0;
    // SAFETY: the contract of this function; vectors from `d` on lie in `width`.
    unsafe {
        while d + 64 <= size.width {
            mix_vectors::<C, 4>(weights, values, totals, size, dim, d, at, out);
            d += 64;
        }
        while d < size.width {
            mix_vectors::<C, 1>(weights, values, totals, size, dim, d, at, out);
            d += 16;
        }
    }
}

/// # Safety
/// As for [`mix`]; `V` vectors from `d` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn mix_vectors<const C: usize, const V: usize>(
    weights: *const bf16,
    values: *const bf16,
    totals: &[f32],
    size: Sizes,
    dim: usize,
    d: usize,
    at: usize,
    out: &mut OutTile<'_>,
) {
    // SAFETY: the contract of this function.
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); V]; C];
        for p in 0..size.seen.div_ceil(2) {
            let v: [__m512bh; V] = std::array::from_fn(|j| pairs(values.add(2 * (p * size.width + d) + 32 * j)));
            for i in 0..C {
                let w = pair(weights.add(i * size.padded + 2 * p));
                for j in 0..V {
                    acc[i][j] = _mm512_dpbf16_ps(acc[i][j], v[j], w);
                }
            }
        }
        for i in 0..C {
            let total = _mm512_set1_ps(totals[i]);
            for j in 0..V {
                let first = d + 16 * j;
                let lanes = mask(dim.saturating_sub(first).min(16));
                if lanes != 0 {
                    _mm512_mask_storeu_ps(out.at(at + i, first), lanes, _mm512_div_ps(acc[i][j], total));
                }
            }
        }
    }
}

/// Sixteen pairs.
///
/// # Safety
/// The CPU has AVX-512 F; 32 values at `at`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn pairs(at: *const bf16) -> __m512bh {
    // SAFETY: the contract of this function; bits are bits.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(at.cast())) }
}

/// One pair in every lane.
///
/// # Safety
/// The CPU has AVX-512 F; two values at `at`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn pair(at: *const bf16) -> __m512bh {
    // SAFETY: the contract of this function; bits are bits.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(at.cast::<i32>().read_unaligned())) }
}
