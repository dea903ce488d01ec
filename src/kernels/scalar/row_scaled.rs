//! int8 matmul with scales of whole rows.

use super::super::OutTile;
use super::super::row_scaled::{Column, Columns, DIGIT, FRACTION, Line, MEANS, Outlier, Requantise, row_scale, shift};
use crate::quant::Unpacked;

/// See [`Quantize`](super::super::row_scaled::Quantize).
pub(super) fn quantize(x: &[f32], low: &mut [Line], (c, cols): (usize, usize), outliers: &mut Vec<Outlier>) -> Column {
    assert!(c < cols && low.len() == cols * x.len().div_ceil(64) && x.len().is_multiple_of(4), "room for the column");
    let mut sums = [0f32; 16];
    for x in x.chunks(16) {
        sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x.abs());
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    let largest = x.iter().fold(0f32, |max, x| max.max(x.abs()));
    let scale = (largest.min(MEANS * (sums[0] / x.len() as f32)) / DIGIT).max(largest / (128.0 * DIGIT));
    let inverse = 1.0 / scale;
    if x.iter().any(|v| !v.is_finite()) {
        return Column { scale: f32::NAN, ..Column::default() };
    }
    if inverse.is_infinite() {
        return Column::default();
    }
    let (mut sum, before) = (0, outliers.len());
    for (at, x) in x.chunks_exact(4).enumerate() {
        let mut digits = [0; 4];
        for (i, x) in x.iter().enumerate() {
            let q = (x * inverse).round_ties_even() as i32;
            let high = if q.abs() <= 127 { 0 } else { (q + 64) >> 7 };
            digits[i] = high as i8;
            low[at / 16 * cols + c].0[at % 16 * 4 + i] = (q - 128 * high) as i8;
            sum += q;
        }
        if digits != [0; 4] {
            outliers.push(Outlier { at: at as u32, digits: i32::from_le_bytes(digits.map(|d| d as u8)) });
        }
    }
    Column { scale, sum, outliers: outliers.len() - before }
}

/// See [`Matmul`](super::super::row_scaled::Matmul).
pub(super) fn matmul<B: Requantise>(
    w: &[u8],
    k: usize,
    x: &[Columns],
    bias: Option<&[f32]>,
    out: &mut OutTile<'_>,
    _scratch: &mut Vec<f32>,
) {
    let w: &[B] = bytemuck::cast_slice(w);
    let blocks = k / B::LEN;
    assert!(w.len() == out.rows() * blocks && k.is_multiple_of(B::LEN), "weights for the tile");
    assert_eq!(x.iter().map(|x| x.columns().len()).sum::<usize>(), out.cols(), "activations for the tile");
    assert!(bias.is_none_or(|b| b.len() == out.rows()), "bias");
    assert!(x.iter().all(|x| x.k() == k), "activations for the weights");
    let mut row = vec![0; k];
    for r in 0..out.rows() {
        let row_scale = requantise(&w[r * blocks..][..blocks], &mut row);
        let mut c = 0;
        for x in x {
            let mut outliers = x.outliers().iter();
            for (i, column) in x.columns().iter().enumerate() {
                let low = |j: usize| i32::from(x.low()[j / 64 * x.columns().len() + i].0[j % 64]);
                let mut dot: i32 = row.iter().enumerate().map(|(j, w)| w * low(j)).sum();
                for o in outliers.by_ref().take(column.outliers) {
                    for (w, digit) in row[4 * o.at as usize..].iter().zip(o.digits.to_le_bytes()) {
                        dot += w * 128 * i32::from(digit as i8);
                    }
                }
                let y = dot as f32 * row_scale * column.scale;
                out.set(c, r, y + bias.map_or(0.0, |bias| bias[r]));
                c += 1;
            }
        }
    }
}

/// A row's values in −128..=127; returns its scale.
fn requantise<B: Requantise>(w: &[B], row: &mut [i32]) -> f32 {
    let mut u = Unpacked::new();
    let groups = B::LEN / B::GROUP;
    let mut bound = 0f32;
    for block in w {
        block.unpack(&mut u);
        for (scale, min) in u.scales[..groups].iter().zip(&u.mins) {
            let group = B::bound(*scale, *min);
            bound = if group.is_finite() { bound.max(group) } else { f32::NAN };
            if bound.is_nan() {
                return bound;
            }
        }
    }
    let (scale, inverse) = row_scale(bound);
    let shift = shift::<B>();
    for (block, row) in w.iter().zip(row.chunks_exact_mut(B::LEN)) {
        block.unpack(&mut u);
        for (i, value) in row.iter_mut().enumerate() {
            let more = if B::MINIMA { FRACTION } else { 0 };
            let factor = u.scales[i / B::GROUP] * inverse * (1u32 << (15 + more - shift)) as f32;
            let factor = (factor.round_ties_even() as i32).min(32767);
            let q = ((i32::from(u.q[i]) << shift) * factor + (1 << 14)) >> 15;
            let q = match B::MINIMA {
                true => {
                    let min = (u.mins[i / B::GROUP] * inverse * (1 << FRACTION) as f32).round_ties_even() as i32;
                    (q - min + (1 << (FRACTION - 1))) >> FRACTION
                }
                false => q,
            };
            *value = q.min(127);
        }
    }
    scale
}
