//! int8 matmul with scales of whole rows.

use super::matmul::{QUANTISED, random_activations, random_weights};
use super::{Random, assert_same_bits, each_table};
use crate::kernels::row_scaled::{self, Columns, MEANS};
use crate::kernels::{Kernels, OutTile, scalar};
use crate::quant::{BlockType, dequantize};

fn pack(kernels: &Kernels, x: &[f32], k: usize) -> Vec<Columns> {
    let n = x.len() / k;
    let quantize = kernels.row_scaled.as_ref().unwrap().quantize;
    let tile = |i| {
        let columns = row_scaled::tile(n, i);
        let mut tile = Columns::default();
        tile.pack(quantize, &x[columns.start * k..columns.end * k], k);
        tile
    };
    (0..n.div_ceil(row_scaled::COLS)).map(tile).collect()
}

/// The quantised values, as integers, and their scale, of each column.
fn columns(tiles: &[Columns], k: usize) -> Vec<(Vec<i32>, f32)> {
    let mut all = Vec::new();
    for t in tiles {
        assert_eq!(t.k(), k);
        let (cols, mut outliers) = (t.columns().len(), t.outliers().iter());
        for (c, column) in t.columns().iter().enumerate() {
            let mut q: Vec<i32> = (0..k).map(|j| i32::from(t.low()[j / 64 * cols + c].0[j % 64])).collect();
            for o in outliers.by_ref().take(column.outliers) {
                assert_ne!(o.digits, 0);
                for (q, digit) in q[4 * o.at as usize..].iter_mut().zip(o.digits.to_le_bytes()) {
                    *q += 128 * i32::from(digit as i8);
                }
            }
            assert_eq!(q.iter().sum::<i32>(), column.sum);
            all.push((q, column.scale));
        }
    }
    all
}

/// Rows of activations of every kind: even, with a few large values, with one that is beyond two digits, zero, subnormal.
fn difficult_activations(cols: usize, k: usize, random: &mut Random) -> Vec<f32> {
    let mut x = random_activations(cols, k, random);
    for (c, x) in x.chunks_exact_mut(k).enumerate() {
        match c % 7 {
            1 => x.iter_mut().step_by(13).for_each(|x| *x *= 40.0),
            2 => x[k / 2] = 1e6,
            3 => x.fill(0.0),
            4 => x.iter_mut().for_each(|x| *x *= 1e-41),
            5 => x.fill(-2.0),
            6 => x[k - 1] = f32::MAX,
            _ => {}
        }
    }
    x
}

#[test]
fn two_digits_are_within_half_a_step() {
    each_table(|kernels| {
        if kernels.row_scaled.is_none() {
            return;
        }
        for k in [32, 96, 256, 1024] {
            let x = difficult_activations(15, k, &mut Random(11));
            let tiles = pack(kernels, &x, k);
            for ((q, scale), x) in columns(&tiles, k).into_iter().zip(x.chunks_exact(k)) {
                let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
                let mean = x.iter().map(|x| f64::from(x.abs())).sum::<f64>() / k as f64;
                let most = (f64::from(MEANS) * mean / 127.0).max(f64::from(largest) / 127.0 / 128.0);
                assert!(f64::from(scale) <= most * 1.0001, "{} k {k}: scale {scale:e}", kernels.name);
                for (q, x) in q.iter().zip(x) {
                    let (got, x) = (f64::from(*q) * f64::from(scale), f64::from(*x));
                    // The inverse of the scale is rounded.
                    let tolerance = f64::from(scale) * (0.5 + 16256.0 * 2f64.powi(-22)) + 4e-37;
                    assert!((got - x).abs() <= tolerance, "{} k {k}: {got:e}, not {x:e}", kernels.name);
                }
            }
        }
    });
}

#[test]
fn columns_are_quantised_to_the_same_bits_in_every_table() {
    each_table(|kernels| {
        if kernels.row_scaled.is_none() {
            return;
        }
        for k in [4, 32, 60, 96, 1024] {
            let mut x = difficult_activations(33, k, &mut Random(12));
            x[0] = f32::NAN;
            x[k + 3] = f32::NEG_INFINITY;
            let (got, want) = (pack(kernels, &x, k), pack(&scalar::KERNELS, &x, k));
            let (got, want) = (columns(&got, k), columns(&want, k));
            assert!(got[0].1.is_nan() && got[1].1.is_nan());
            for (c, (got, want)) in got.iter().zip(&want).enumerate().skip(2) {
                assert_eq!(got.0, want.0, "{} k {k} column {c}", kernels.name);
                assert_eq!(got.1.to_bits(), want.1.to_bits(), "{} k {k} column {c}", kernels.name);
            }
        }
    });
}

fn matmul(kernels: &Kernels, t: BlockType, w: &[u8], x: &[Columns], k: usize, bias: Option<&[f32]>) -> Vec<f32> {
    let run = kernels.row_scaled.as_ref().unwrap().matmul[t as usize].unwrap();
    let rows = w.len() / t.row_bytes(k).unwrap();
    let cols = x.iter().map(|x| x.columns().len()).sum();
    let mut out = vec![f32::NAN; rows * cols];
    run(w, k, x, bias, &mut OutTile::new(&mut out, cols, rows), &mut vec![f32::NAN; 3]);
    out
}

#[test]
fn products_are_within_half_a_step_of_every_weight() {
    each_table(|kernels| {
        if kernels.row_scaled.is_none() {
            return;
        }
        for (t, halves, _) in QUANTISED {
            let mut random = Random(13);
            for blocks in [1, 2, 3, 7] {
                let k = blocks * t.block_len();
                let (rows, cols) = (9, 17);
                let w = random_weights(t, halves, rows * blocks, &mut random);
                let bias = random.f32s(rows);
                let x = pack(kernels, &random_activations(cols, k, &mut random), k);
                let out = matmul(kernels, t, &w, &x, k, Some(&bias));
                let mut values = vec![0.0; rows * k];
                dequantize(t, &w, &mut values);
                for (c, (q, scale)) in columns(&x, k).into_iter().enumerate() {
                    for r in 0..rows {
                        let row = &values[r * k..][..k];
                        // The bound of a group is at most this many times its largest value: unless a block has it, the
                        // largest `q` of its type is as large as all its values, and a minimum adds to that.
                        let x = q.iter().map(|q| f64::from(*q) * f64::from(scale));
                        let want: f64 = row.iter().zip(x.clone()).map(|(w, x)| f64::from(*w) * x).sum();
                        let step = f64::from(bound(t, &w[r * w.len() / rows..][..w.len() / rows])) / 127.0;
                        let tolerance = step * 0.63 * x.map(f64::abs).sum::<f64>();
                        let got = f64::from(out[c * rows + r]) - f64::from(bias[r]);
                        let what = format!("{} {t} k {k} ({c}, {r})", kernels.name);
                        assert!((got - want).abs() <= tolerance + 1e-6, "{what}: {got:e}, not {want:e}");
                    }
                }
            }
        }
    });
}

/// The largest magnitude that a row's scales and minima allow.
fn bound(t: BlockType, w: &[u8]) -> f32 {
    use crate::quant::iq4::IQ4_NL;
    use crate::quant::k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
    use crate::quant::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
    fn of<B: row_scaled::Requantise>(w: &[u8]) -> f32 {
        let mut u = crate::quant::Unpacked::new();
        let mut most = 0f32;
        for block in bytemuck::cast_slice::<u8, B>(w) {
            block.unpack(&mut u);
            for g in 0..B::LEN / B::GROUP {
                most = most.max(B::bound(u.scales[g], u.mins[g]));
            }
        }
        most
    }
    match t {
        BlockType::Q4_0 => of::<Q4_0>(w),
        BlockType::Q4_1 => of::<Q4_1>(w),
        BlockType::Q5_0 => of::<Q5_0>(w),
        BlockType::Q5_1 => of::<Q5_1>(w),
        BlockType::Q8_0 => of::<Q8_0>(w),
        BlockType::Q2_K => of::<Q2_K>(w),
        BlockType::Q3_K => of::<Q3_K>(w),
        BlockType::Q4_K => of::<Q4_K>(w),
        BlockType::Q5_K => of::<Q5_K>(w),
        BlockType::Q6_K => of::<Q6_K>(w),
        _ => of::<IQ4_NL>(w),
    }
}

#[test]
fn products_have_the_same_bits_in_every_table_and_for_any_number_of_rows_and_columns() {
    each_table(|kernels| {
        if kernels.row_scaled.is_none() {
            return;
        }
        for (t, halves, _) in QUANTISED {
            let mut random = Random(14);
            let k = 3 * t.block_len();
            let row_bytes = t.row_bytes(k).unwrap();
            let (most_cols, most_rows) = (30, 70);
            let mut w = random_weights(t, halves, most_rows * 3, &mut random);
            w.insert(0, 0);
            let w = &w[1..];
            let x = difficult_activations(most_cols, k, &mut random);
            let want = matmul(&scalar::KERNELS, t, w, &pack(&scalar::KERNELS, &x, k), k, None);
            for cols in (1..=15).chain([most_cols]) {
                let x = pack(kernels, &x[..cols * k], k);
                for rows in [1, 2, 15, 16, 17, 31, 32, 33, most_rows] {
                    let out = matmul(kernels, t, &w[..rows * row_bytes], &x, k, None);
                    for c in 0..cols {
                        let what = format!("{} {t} {cols} × {rows}, column {c}", kernels.name);
                        assert_same_bits(&out[c * rows..][..rows], &want[c * most_rows..][..rows], &what);
                    }
                }
            }
        }
    });
}

#[test]
fn any_bytes_and_any_activations_are_survived() {
    each_table(|kernels| {
        if kernels.row_scaled.is_none() {
            return;
        }
        for (t, _, _) in QUANTISED {
            let mut random = Random(15);
            let (cols, rows, k) = (5, 6, 2 * t.block_len());
            let mut x = random.f32s(cols * k);
            x[0] = f32::NAN;
            x[k] = f32::INFINITY;
            x[2 * k] = -f32::MAX;
            let tiles = pack(kernels, &x, k);
            let reference = pack(&scalar::KERNELS, &x, k);
            for _ in 0..50 {
                let w = random.bytes(rows * t.row_bytes(k).unwrap());
                let out = matmul(kernels, t, &w, &tiles, k, None);
                assert!(out[..2 * rows].iter().all(|y| y.is_nan()), "{} {t}: NaN and ∞ must show", kernels.name);
                let want = matmul(&scalar::KERNELS, t, &w, &reference, k, None);
                let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(out.iter().zip(&want).all(same), "{} {t}", kernels.name);
            }
        }
    });
}
