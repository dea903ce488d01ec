//! The k-quants: 256 values, whose groups of 16 or 32 have scales of their own, which are quantised in turn.

use super::WITH_IMPORTANCE;
use super::fit::{self, Search, TINY, nearest};
use crate::quant::half_to_f32;
use crate::quant::k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, q3_k_scales, q4_k_scales_mins};
use half::f16;

/// What the values of a block count for, `[256]`; absent if nobody has measured it.
type Importance<'a> = Option<&'a [f32; 256]>;

fn groups<const N: usize>(x: &[f32; 256]) -> &[[f32; N]] {
    x.as_chunks().0
}

fn sum_of_squares(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |sum, v| sum + v * v)
}

/// The importance of each value of a group, made larger for large values: `variance` is that of the block, or twice it.
fn weigh<const N: usize>(x: &[f32; N], importance: &[f32; 256], group: usize, variance: f32) -> [f32; N] {
    std::array::from_fn(|i| importance[N * group + i] * (variance + x[i] * x[i]).sqrt())
}

fn sum(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |sum, v| sum + v)
}

fn half(x: f32) -> [u8; 2] {
    f16::from_f32(x).to_le_bytes()
}

/// The codes of values for which scale and minimum are known as they will be read; a group without a scale keeps those it
/// has.
fn again<const N: usize>(x: &[f32; N], d: f32, m: f32, range: (i32, i32), codes: &mut [u8]) {
    if d == 0.0 {
        return;
    }
    for (code, &v) in codes.iter_mut().zip(x) {
        *code = (nearest((v + m) / d).clamp(range.0, range.1) - range.0) as u8;
    }
}

pub(super) fn q2_k(x: &[f32; 256], importance: Importance<'_>) -> Q2_K {
    let mut codes = [0; 256];
    let (mut scales, mut mins, mut weights) = ([0f32; 16], [0f32; 16], [0f32; 16]);
    let variance = sum_of_squares(x) / 256.0;
    for (g, x) in groups::<16>(x).iter().enumerate() {
        let (w, search) = match importance {
            None => (x.map(f32::abs), Search { first: -0.5, step: 0.1, steps: 15, absolute: true }),
            Some(importance) => (weigh(x, importance, g, variance), WITH_IMPORTANCE),
        };
        weights[g] = sum(&w);
        (scales[g], mins[g]) = fit::scale_and_minimum(3, x, &w, search, &mut codes[16 * g..][..16]);
    }
    let (mut ls, mut lm) = ([0; 16], [0; 16]);
    let (d, dmin) = match importance {
        None => (plain(15, &scales, &mut ls), plain(15, &mins, &mut lm)),
        Some(_) => (fit::positive(15, &scales, &weights, &mut ls), fit::positive(15, &mins, &weights, &mut lm)),
    };
    let (d, dmin) = (half(d), half(dmin));
    for (g, x) in groups::<16>(x).iter().enumerate() {
        let (scale, min) = (half_to_f32(d) * f32::from(ls[g]), half_to_f32(dmin) * f32::from(lm[g]));
        again(x, scale, min, (0, 3), &mut codes[16 * g..][..16]);
    }
    Q2_K { scales: std::array::from_fn(|g| ls[g] | lm[g] << 4), qs: two_bits(&codes), d, dmin }
}

pub(super) fn q3_k(x: &[f32; 256], importance: Importance<'_>) -> Q3_K {
    let mut codes = [0; 256];
    let (mut scales, mut weights) = ([0f32; 16], [0f32; 16]);
    let variance = 2.0 * sum_of_squares(x) / 256.0;
    for (g, x) in groups::<16>(x).iter().enumerate() {
        scales[g] = match importance {
            None => fit::scale_by_turns(4, x, &mut codes[16 * g..][..16]),
            Some(importance) => {
                let w = weigh(x, importance, g, variance);
                weights[g] = sum(&w);
                fit::scale(4, x, &w, &mut codes[16 * g..][..16])
            }
        };
    }
    let mut ls = [0; 16]; // 0..64, for −32..32
    let d = match importance {
        Some(_) => fit::scale(32, &scales, &weights, &mut ls),
        None => {
            let largest = fit::largest(&scales);
            let inverse = -32.0 / largest;
            if largest != 0.0 {
                ls = scales.map(|s| (nearest(inverse * s).clamp(-32, 31) + 32) as u8);
            }
            if largest != 0.0 { 1.0 / inverse } else { 0.0 }
        }
    };
    let mut packed = [0; 12];
    for (g, &l) in ls.iter().enumerate() {
        packed[g % 8] |= (l & 15) << (g / 8 * 4);
        packed[8 + g % 4] |= l >> 4 << (g / 4 * 2);
    }
    let d = half(d);
    for ((g, x), scale) in groups::<16>(x).iter().enumerate().zip(q3_k_scales(&packed)) {
        again(x, half_to_f32(d) * f32::from(scale), 0.0, (-4, 3), &mut codes[16 * g..][..16]);
    }
    Q3_K { hmask: one_bit(&codes, 2), qs: two_bits(&codes.map(|c| c & 3)), scales: packed, d }
}

pub(super) fn q4_k(x: &[f32; 256], importance: Importance<'_>) -> Q4_K {
    let plain = Search { first: -1.0, step: 0.1, steps: 20, absolute: false };
    let (d, dmin, scales, codes) = with_minima(15, x, importance, plain);
    Q4_K { d, dmin, scales, qs: four_bits(&codes) }
}

pub(super) fn q5_k(x: &[f32; 256], importance: Importance<'_>) -> Q5_K {
    let plain = Search { first: -0.5, step: 0.1, steps: 15, absolute: false };
    let (d, dmin, scales, codes) = with_minima(31, x, importance, plain);
    Q5_K { d, dmin, scales, qh: one_bit(&codes, 4), qs: four_bits(&codes.map(|c| c & 15)) }
}

/// Codes `0..=n` in groups of 32 with 6-bit scales and minima: Q4_K and Q5_K.
fn with_minima(
    n: i32,
    x: &[f32; 256],
    importance: Importance<'_>,
    search: Search,
) -> ([u8; 2], [u8; 2], [u8; 12], [u8; 256]) {
    let mut codes = [0; 256];
    let (mut scales, mut mins, mut weights) = ([0f32; 8], [0f32; 8], [0f32; 8]);
    let variance = 2.0 * sum_of_squares(x) / 256.0;
    for (g, x) in groups::<32>(x).iter().enumerate() {
        let (w, search) = match importance {
            None => {
                let mean = (sum_of_squares(x) / 32.0).sqrt();
                (x.map(|v| mean + v.abs()), search)
            }
            Some(importance) => (weigh(x, importance, g, variance), WITH_IMPORTANCE),
        };
        weights[g] = sum(&w);
        (scales[g], mins[g]) = fit::scale_and_minimum(n, x, &w, search, &mut codes[32 * g..][..32]);
    }
    let (mut ls, mut lm) = ([0; 8], [0; 8]);
    let (d, dmin) = match importance {
        None => (plain(63, &scales, &mut ls), plain(63, &mins, &mut lm)),
        Some(_) => (fit::positive(63, &scales, &weights, &mut ls), fit::positive(63, &mins, &weights, &mut lm)),
    };
    let mut packed = [0; 12];
    for g in 0..4 {
        packed[g] = ls[g] & 63 | ls[g + 4] >> 4 << 6;
        packed[g + 4] = lm[g] & 63 | lm[g + 4] >> 4 << 6;
        packed[g + 8] = ls[g + 4] & 15 | (lm[g + 4] & 15) << 4;
    }
    let (d, dmin) = (half(d), half(dmin));
    let (ls, lm) = q4_k_scales_mins(&packed);
    for (g, x) in groups::<32>(x).iter().enumerate() {
        let (scale, min) = (half_to_f32(d) * f32::from(ls[g]), half_to_f32(dmin) * f32::from(lm[g]));
        again(x, scale, min, (0, n), &mut codes[32 * g..][..32]);
    }
    (d, dmin, packed, codes)
}

/// Codes `0..=n` of numbers that are not negative, by the largest of them; returns the scale.
fn plain<const N: usize>(n: u8, x: &[f32; N], codes: &mut [u8; N]) -> f32 {
    let max = x.iter().fold(0f32, |max, &v| if v > max { v } else { max });
    let inverse = if max > 0.0 { f32::from(n) / max } else { 0.0 };
    *codes = x.map(|v| (nearest(inverse * v) as u8).min(n));
    max / f32::from(n)
}

pub(super) fn q6_k(x: &[f32; 256], importance: Importance<'_>) -> Q6_K {
    let mut codes = [0; 256];
    let mut scales = [0f32; 16];
    for (g, x) in groups::<16>(x).iter().enumerate() {
        let w = match importance {
            None => x.map(|v| v * v),
            Some(importance) => std::array::from_fn(|i| importance[16 * g + i]),
        };
        scales[g] = fit::scale(32, x, &w, &mut codes[16 * g..][..16]);
    }
    let largest = fit::largest(&scales);
    if largest.abs() < TINY {
        return Q6_K { ql: [0; 128], qh: [0; 64], scales: [0; 16], d: half(0.0) };
    }
    let inverse = -128.0 / largest;
    let d = half(1.0 / inverse);
    let ls = scales.map(|s| nearest(inverse * s).min(127) as i8);
    for (g, x) in groups::<16>(x).iter().enumerate() {
        again(x, half_to_f32(d) * f32::from(ls[g]), 0.0, (-32, 31), &mut codes[16 * g..][..16]);
    }
    // Groups of 32 `j` and `j + 2` of each half share bytes.
    let ql = std::array::from_fn(|i| {
        let at = i / 64 * 128 + i % 64;
        codes[at] & 15 | (codes[at + 64] & 15) << 4
    });
    Q6_K { ql, qh: two_bits(&codes.map(|c| c >> 4)), scales: ls, d }
}

/// The fields of `unpack`'s helpers, the other way round.
fn four_bits(codes: &[u8; 256]) -> [u8; 128] {
    std::array::from_fn(|i| {
        let at = i / 32 * 64 + i % 32;
        codes[at] | codes[at + 32] << 4
    })
}

fn two_bits(codes: &[u8; 256]) -> [u8; 64] {
    std::array::from_fn(|i| {
        let at = i / 32 * 128 + i % 32;
        codes[at] | codes[at + 32] << 2 | codes[at + 64] << 4 | codes[at + 96] << 6
    })
}

/// Bit `bit` of all codes.
fn one_bit(codes: &[u8; 256], bit: u32) -> [u8; 32] {
    std::array::from_fn(|i| (0..8).fold(0, |byte, j| byte | (codes[32 * j + i] >> bit & 1) << j))
}
