//! Both matmuls against exact sums in f64.

use super::{Activations, Random, assert_same_bits, each_table};
use crate::kernels::{Bf16Columns, OutTile, Q8Rows};
use crate::quant::iq4::IQ4_NL;
use crate::quant::k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use crate::quant::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use crate::quant::{Block, BlockType, Unpacked, dequantize};
use half::{bf16, f16};

/// The exact product of a weight row and an activation row, and the sum of the magnitudes of its terms.
pub(super) type Exact = fn(&[u8], Q8Rows<'_>) -> (f64, f64);

/// Quantised types with the offsets of their f16 fields.
pub(super) const QUANTISED: [(BlockType, &[usize], Exact); 11] = [
    (BlockType::Q4_0, &[0], exact::<Q4_0>),
    (BlockType::Q4_1, &[0, 2], exact::<Q4_1>),
    (BlockType::Q5_0, &[0], exact::<Q5_0>),
    (BlockType::Q5_1, &[0, 2], exact::<Q5_1>),
    (BlockType::Q8_0, &[0], exact::<Q8_0>),
    (BlockType::Q2_K, &[80, 82], exact::<Q2_K>),
    (BlockType::Q3_K, &[108], exact::<Q3_K>),
    (BlockType::Q4_K, &[0, 2], exact::<Q4_K>),
    (BlockType::Q5_K, &[0, 2], exact::<Q5_K>),
    (BlockType::Q6_K, &[208], exact::<Q6_K>),
    (BlockType::IQ4_NL, &[0], exact::<IQ4_NL>),
];

fn exact<B: Block>(w: &[u8], x: Q8Rows<'_>) -> (f64, f64) {
    let mut u = Unpacked::new();
    let (mut sum, mut magnitude) = (0.0, 0.0);
    for (b, block) in bytemuck::cast_slice::<u8, B>(w).iter().enumerate() {
        block.unpack(&mut u);
        for i in 0..B::LEN {
            let (scale, min) = (f64::from(u.scales[i / B::GROUP]), f64::from(u.mins[i / B::GROUP]));
            let at = b * B::LEN + i;
            let x = f64::from(x.qs[at]) * f64::from(x.scales[at / 32]);
            let product = scale * f64::from(u.q[i]) * x;
            sum += product - min * x;
            magnitude += product.abs() + (min * x).abs();
        }
    }
    (sum, magnitude)
}

/// Random blocks with moderate scales of both signs. Now and then a block of all zeros, all ones, or 0x80, which is
/// −128 for int8; now and then a zero or a subnormal scale.
pub(super) fn random_weights(t: BlockType, halves: &[usize], blocks: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = random.bytes(blocks * t.block_bytes());
    for block in bytes.chunks_exact_mut(t.block_bytes()) {
        match random.below(8) {
            0 => block.fill(0x00),
            1 => block.fill(0xff),
            2 => block.fill(0x80),
            _ => {}
        }
        for &at in halves {
            let scale = match random.below(8) {
                0 => f16::ZERO,
                1 => f16::from_bits(random.below(0x400) as u16),
                _ => f16::from_f32(random.f32() * 0.1),
            };
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}

/// Random activations; some blocks at full scale with alternating signs, some zero.
pub(super) fn random_activations(cols: usize, k: usize, random: &mut Random) -> Vec<f32> {
    let mut x = random.f32s(cols * k);
    for block in x.chunks_exact_mut(32) {
        match random.below(6) {
            0 => block.iter_mut().enumerate().for_each(|(i, x)| *x = if i % 2 == 0 { -3.0 } else { 3.0 }),
            1 => block.fill(-0.5),
            2 => block.fill(0.0),
            _ => {}
        }
    }
    x
}

#[test]
fn q8_is_exact_up_to_the_rounding_of_the_sum() {
    each_table(|kernels| {
        for (t, halves, exact) in QUANTISED {
            let mut random = Random(1);
            for blocks in [1, 2, 3, 7] {
                let k = blocks * t.block_len();
                let (cols, rows) = (5, 9);
                let w = random_weights(t, halves, rows * blocks, &mut random);
                let x = Activations::quantize(&random_activations(cols, k, &mut random), cols, kernels);
                let mut out = vec![f32::NAN; cols * rows];
                kernels.matmul_q8[t as usize].unwrap()(
                    &w,
                    x.rows(),
                    &mut OutTile::new(&mut out, cols, rows),
                    &mut Vec::new(),
                );
                for c in 0..cols {
                    for r in 0..rows {
                        let (want, magnitude) = exact(&w[r * w.len() / rows..][..w.len() / rows], x.rows().row(c));
                        // One rounding for each of the k/32 terms of a running sum and a few for each term, both of
                        // at most 2⁻²⁴. A Q2_K, Q3_K or Q6_K block of 32 is two terms in the scalar table.
                        let tolerance = (k as f64 / 16.0 + 8.0) * 2f64.powi(-24) * magnitude;
                        let got = f64::from(out[c * rows + r]);
                        assert!(
                            (got - want).abs() <= tolerance,
                            "{} {t} k {k} ({c}, {r}): {got:e}, not {want:e}",
                            kernels.name
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn q8_gives_the_same_bits_for_any_number_of_rows_and_columns_from_any_address() {
    each_table(|kernels| {
        for (t, halves, _) in QUANTISED {
            let mut random = Random(2);
            let k = 3 * t.block_len();
            let row_bytes = t.row_bytes(k).unwrap();
            let f = kernels.matmul_q8[t as usize].unwrap();
            let (most_cols, most_rows) = (9, 70);
            let mut w = random_weights(t, halves, most_rows * 3, &mut random);
            w.insert(0, 0);
            let w = &w[1..];
            let x = random_activations(most_cols, k, &mut random);
            let mut alone = vec![f32::NAN; most_cols * most_rows];
            for c in 0..most_cols {
                let x = Activations::quantize(&x[c * k..][..k], 1, kernels);
                for r in 0..most_rows {
                    let out = &mut alone[c * most_rows + r..][..1];
                    f(&w[r * row_bytes..][..row_bytes], x.rows(), &mut OutTile::new(out, 1, 1), &mut Vec::new());
                }
            }
            for cols in 1..=most_cols {
                let x = Activations::quantize(&x[..cols * k], cols, kernels);
                for rows in (1..=9).chain([33, most_rows]) {
                    let mut out = vec![f32::NAN; cols * rows];
                    let mut tile = OutTile::new(&mut out, cols, rows);
                    f(&w[..rows * row_bytes], x.rows(), &mut tile, &mut Vec::new());
                    for c in 0..cols {
                        let what = format!("{} {t} {cols} × {rows}, column {c}", kernels.name);
                        assert_same_bits(&out[c * rows..][..rows], &alone[c * most_rows..][..rows], &what);
                    }
                }
            }
        }
    });
}

#[cfg(target_arch = "x86_64")]
#[test]
fn q8_gives_the_same_bits_with_and_without_avx_vnni() {
    use crate::kernels::x86_64::avx2;
    q8_gives_the_same_bits_in_all(&avx2::kernels().chain(avx2::evex_twin()).collect::<Vec<_>>());
}

#[cfg(target_arch = "aarch64")]
#[test]
fn q8_gives_the_same_bits_in_all_tables_for_aarch64() {
    q8_gives_the_same_bits_in_all(&crate::kernels::aarch64::kernels());
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn q8_gives_the_same_bits_in_all(tables: &[&crate::kernels::Kernels]) {
    let Some(first) = tables.first() else { return println!("skipped: this machine has none of the tables") };
    for (t, halves, _) in QUANTISED {
        let mut random = Random(7);
        let (rows, k) = (11, 4 * t.block_len());
        let w = random_weights(t, halves, rows * 4, &mut random);
        for cols in 1..=6 {
            let x = Activations::quantize(&random_activations(cols, k, &mut random), cols, first);
            let results = tables.iter().map(|kernels| {
                let mut out = vec![f32::NAN; cols * rows];
                let mut tile = OutTile::new(&mut out, cols, rows);
                kernels.matmul_q8[t as usize].unwrap()(&w, x.rows(), &mut tile, &mut Vec::new());
                out
            });
            let results: Vec<_> = results.collect();
            for (table, out) in tables.iter().zip(&results) {
                assert_same_bits(out, &results[0], &format!("{} {t} {cols} columns", table.name));
            }
        }
    }
}

#[test]
fn q8_survives_any_bytes_and_any_activations() {
    each_table(|kernels| {
        for (t, _, _) in QUANTISED {
            let mut random = Random(3);
            let (cols, rows, k) = (5, 6, 2 * t.block_len());
            let mut x = random.f32s(cols * k);
            x[0] = f32::NAN;
            x[k] = f32::INFINITY;
            x[2 * k] = -f32::MAX;
            let x = Activations::quantize(&x, cols, kernels);
            for _ in 0..50 {
                let w = random.bytes(rows * t.row_bytes(k).unwrap());
                let mut out = vec![0.0; cols * rows];
                let mut tile = OutTile::new(&mut out, cols, rows);
                kernels.matmul_q8[t as usize].unwrap()(&w, x.rows(), &mut tile, &mut Vec::new());
                assert!(out[..2 * rows].iter().all(|y| y.is_nan()), "{} {t}: NaN and ∞ must show", kernels.name);
            }
        }
    });
}

#[test]
fn f32_is_within_the_bound_of_a_sum_of_k_products() {
    each_table(|kernels| {
        for t in BlockType::ALL {
            let mut random = Random(4);
            let halves = QUANTISED.iter().find(|q| q.0 == t).map_or(&[][..], |q| q.1);
            let lengths: Vec<_> = if t.is_float() { (1..=70).chain([515]).collect() } else { vec![1, 2, 3] };
            for k in lengths.into_iter().map(|n| n * t.block_len()) {
                let (cols, rows) = (4, 6);
                let w = float_weights(t, rows * k, &mut random)
                    .unwrap_or_else(|| random_weights(t, halves, rows * k / t.block_len(), &mut random));
                let x = random.f32s(cols * k);
                let mut out = vec![f32::NAN; cols * rows];
                kernels.matmul_f32[t as usize](&w, &x, k, &mut OutTile::new(&mut out, cols, rows), &mut Vec::new());
                let mut values = vec![0.0; rows * k];
                dequantize(t, &w, &mut values);
                for c in 0..cols {
                    for r in 0..rows {
                        let products = values[r * k..][..k].iter().zip(&x[c * k..]);
                        let products = products.map(|(&w, &x)| f64::from(w) * f64::from(x));
                        let want: f64 = products.clone().sum();
                        let tolerance = (k + 1) as f64 * 2f64.powi(-24) * products.map(f64::abs).sum::<f64>();
                        let got = f64::from(out[c * rows + r]);
                        let what = format!("{} {t} k {k} ({c}, {r})", kernels.name);
                        assert!((got - want).abs() <= tolerance, "{what}: {got:e}, not {want:e}");
                    }
                }
            }
        }
    });
}

/// Weights of a float type; `None` for the others.
fn float_weights(t: BlockType, n: usize, random: &mut Random) -> Option<Vec<u8>> {
    let x = random.f32s(n);
    match t {
        BlockType::F32 => Some(x.iter().flat_map(|x| x.to_le_bytes()).collect()),
        BlockType::F16 => Some(x.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()),
        BlockType::BF16 => Some(x.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect()),
        _ => None,
    }
}

#[test]
fn f32_gives_the_same_bits_for_any_number_of_rows_and_columns_from_any_address() {
    each_table(|kernels| {
        for t in BlockType::ALL {
            let mut random = Random(5);
            let k = if t.is_float() { 45 } else { 2 * t.block_len() };
            let row_bytes = t.row_bytes(k).unwrap();
            let f = kernels.matmul_f32[t as usize];
            let halves = QUANTISED.iter().find(|q| q.0 == t).map_or(&[][..], |q| q.1);
            let (most_cols, most_rows) = (9, 70);
            let mut w = float_weights(t, most_rows * k, &mut random)
                .unwrap_or_else(|| random_weights(t, halves, most_rows * 2, &mut random));
            w.insert(0, 0);
            let w = &w[1..];
            let x = random.f32s(most_cols * k);
            let mut alone = vec![f32::NAN; most_cols * most_rows];
            for c in 0..most_cols {
                for r in 0..most_rows {
                    let mut tile = OutTile::new(&mut alone[c * most_rows + r..][..1], 1, 1);
                    f(&w[r * row_bytes..][..row_bytes], &x[c * k..][..k], k, &mut tile, &mut Vec::new());
                }
            }
            for cols in 1..=most_cols {
                for rows in (1..=9).chain([most_rows]) {
                    let mut out = vec![f32::NAN; cols * rows];
                    let mut tile = OutTile::new(&mut out, cols, rows);
                    f(&w[..rows * row_bytes], &x[..cols * k], k, &mut tile, &mut vec![f32::NAN; 3]);
                    for c in 0..cols {
                        let what = format!("{} {t} {cols} × {rows}, column {c}", kernels.name);
                        assert_same_bits(&out[c * rows..][..rows], &alone[c * most_rows..][..rows], &what);
                    }
                }
            }
        }
    });
}

#[test]
fn matmuls_write_their_window_and_nothing_else() {
    each_table(|kernels| {
        let mut random = Random(6);
        let (cols, rows, stride, k) = (5, 7, 11, 64);
        let w = random_weights(BlockType::Q8_0, &[0], rows * 2, &mut random);
        let x = random.f32s(cols * k);
        let q = Activations::quantize(&x, cols, kernels);
        let untouched = f32::from_bits(0x7fc0_1234);
        let mut scratch = Vec::new();
        for integer in [true, false] {
            let mut out = vec![untouched; cols * stride];
            // SAFETY: the last element, (4, 6), is at 2 + 4 · 11 + 6 < 55.
            let mut tile = unsafe { OutTile::from_raw(out.as_mut_ptr().add(2), cols, rows, stride) };
            if integer {
                kernels.matmul_q8[BlockType::Q8_0 as usize].unwrap()(&w, q.rows(), &mut tile, &mut scratch);
            } else {
                kernels.matmul_f32[BlockType::Q8_0 as usize](&w, &x, k, &mut tile, &mut scratch);
            }
            for (i, y) in out.iter().enumerate() {
                let inside = (2..2 + rows).contains(&(i % stride));
                assert_eq!(y.to_bits() != untouched.to_bits(), inside, "{} element {i}", kernels.name);
            }
        }
    });
}

/// Weights rounded to bf16, and activations that are bf16 already.
fn bf16_case(t: BlockType, rows: usize, cols: usize, k: usize, random: &mut Random) -> (Vec<u8>, Vec<f32>, Vec<bf16>) {
    let halves = QUANTISED.iter().find(|q| q.0 == t).map_or(&[][..], |q| q.1);
    let w = float_weights(t, rows * k, random)
        .unwrap_or_else(|| random_weights(t, halves, rows * k / t.block_len(), random));
    let mut values = vec![0.0; rows * k];
    dequantize(t, &w, &mut values);
    let x = random.f32s(cols * k).into_iter().map(bf16::from_f32).collect();
    (w, values.into_iter().map(|w| bf16::from_f32(w).to_f32()).collect(), x)
}

/// `x`, `[cols, k]`, as the kernels take it.
pub(super) fn bf16_columns(x: &[bf16], cols: usize, k: usize) -> Vec<bf16> {
    let mut packed = vec![bf16::NAN; Bf16Columns::len(cols, k)];
    for c in 0..cols {
        for (start, values) in Bf16Columns::places(c, cols, k) {
            packed[start + values.len()] = bf16::ZERO;
            packed[start..][..values.len()].copy_from_slice(&x[c * k..][values]);
        }
    }
    packed
}

#[test]
fn bf16_is_within_the_bound_of_a_sum_of_k_products() {
    each_table(|kernels| {
        let Some(bf16) = &kernels.bf16 else { return };
        for t in BlockType::ALL {
            let mut random = Random(7);
            let lengths: Vec<_> =
                if t.is_float() { (1..=40).chain([255, 256, 257, 600]).collect() } else { vec![1, 2, 9] };
            for k in lengths.into_iter().map(|n| n * t.block_len()) {
                let (rows, cols) = (37, 17);
                let (w, values, x) = bf16_case(t, rows, cols, k, &mut random);
                let mut out = vec![f32::NAN; cols * rows];
                let packed = bf16_columns(&x, cols, k);
                let columns = Bf16Columns::new(&packed, cols, k);
                (bf16.matmul)(t, &w, columns, &mut OutTile::new(&mut out, cols, rows), &mut Vec::new());
                for c in 0..cols {
                    for r in 0..rows {
                        let products = values[r * k..][..k].iter().zip(&x[c * k..]);
                        let products = products.map(|(&w, x)| f64::from(w) * f64::from(x.to_f32()));
                        let want: f64 = products.clone().sum();
                        // Products of values that count as zero are below 2⁻¹²⁶.
                        let tolerance =
                            (k + 1) as f64 * (2f64.powi(-24) * products.map(f64::abs).sum::<f64>() + 2f64.powi(-126));
                        let got = f64::from(out[c * rows + r]);
                        let what = format!("{} {t} k {k} ({c}, {r})", kernels.name);
                        assert!((got - want).abs() <= tolerance, "{what}: {got:e}, not {want:e}");
                    }
                }
            }
        }
    });
}

#[test]
fn bf16_gives_the_same_bits_for_any_number_of_rows_and_columns() {
    each_table(|kernels| {
        let Some(bf16) = &kernels.bf16 else { return };
        for t in [BlockType::F16, BlockType::Q8_0] {
            let (k, most_rows, most_cols) = (320, 40, 30);
            let (w, _, x) = bf16_case(t, most_rows, most_cols, k, &mut Random(8));
            let mut all = vec![f32::NAN; most_cols * most_rows];
            let packed = bf16_columns(&x, most_cols, k);
            let columns = Bf16Columns::new(&packed, most_cols, k);
            (bf16.matmul)(t, &w, columns, &mut OutTile::new(&mut all, most_cols, most_rows), &mut Vec::new());
            for (rows, cols) in [(1, 1), (15, 2), (16, 3), (17, 11), (33, 13), (39, 29)] {
                let mut out = vec![f32::NAN; cols * rows];
                let bytes = &w[..rows * t.row_bytes(k).unwrap()];
                let packed = bf16_columns(&x[..cols * k], cols, k);
                let columns = Bf16Columns::new(&packed, cols, k);
                (bf16.matmul)(t, bytes, columns, &mut OutTile::new(&mut out, cols, rows), &mut Vec::new());
                for c in 0..cols {
                    assert_same_bits(&out[c * rows..][..rows], &all[c * most_rows..][..rows], &format!("{t} {rows}"));
                }
            }
        }
    });
}

#[test]
fn bf16_rounds_to_nearest_even() {
    each_table(|kernels| {
        let Some(bf16) = &kernels.bf16 else { return };
        let mut random = Random(9);
        let special = [
            0.0,
            -0.0,
            1.0,
            f32::MAX,
            f32::INFINITY,
            f32::NEG_INFINITY,
            1.0 + 1.0 / 256.0,
            1.0 + 3.0 / 256.0,
            1e-38,
            -3e38,
        ];
        for n in (0..40).chain([1000]) {
            let mut x: Vec<f32> = (0..n).map(|_| random.f32() * 2f32.powi(random.below(60) as i32 - 30)).collect();
            x.iter_mut().zip(special).for_each(|(x, s)| *x = s);
            let mut out = vec![half::bf16::ONE; n];
            (bf16.round)(&x, &mut out);
            for (x, out) in x.iter().zip(out) {
                let want = half::bf16::from_f32(*x);
                let tiny = x.abs() < f32::MIN_POSITIVE && out.to_f32() == 0.0;
                assert!(out.to_bits() == want.to_bits() || tiny, "{x:e}: {out}, not {want}");
            }
        }
        let mut out = [half::bf16::ONE];
        (bf16.round)(&[f32::NAN], &mut out);
        assert!(out[0].is_nan());
    });
}
