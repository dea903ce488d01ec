//! Attention against the formula in f64, and against itself with other rows beside it.

use super::{Random, assert_same_bits, each_table};
use crate::decoder::kv::KvType;
use crate::decoder::page::Page;
use crate::kernels::attention::{KvPage, PAGE, Queries};
use crate::kernels::{Bf16Kernels, Kernels, OutTile, scalar};

const KINDS: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Q8_0];

/// Keys and values of one head, `[positions, dim]`, in pages.
fn pages(kind: KvType, dim: usize, k: &[f32], v: &[f32]) -> Vec<Page> {
    k.chunks(PAGE * dim)
        .zip(v.chunks(PAGE * dim))
        .map(|(k, v)| {
            let mut page = Page::new(kind, 1, dim).unwrap();
            let mut head = page.heads_mut(0, 1).next().unwrap();
            for (t, (k, v)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
                head.store(&scalar::KERNELS, t, k, v);
            }
            page
        })
        .collect()
}

fn attend(kernels: &Kernels, q: &Queries<'_>, pages: &[Page]) -> Vec<f32> {
    let mut out = vec![7.0; q.rows * q.heads * q.dim];
    let mut tile = OutTile::new(&mut out, q.rows, q.heads * q.dim);
    (kernels.attend)(q, &|i| pages[i].head(0), &mut tile, &mut vec![f32::NAN; 100]);
    out
}

/// The formula in f64 on the stored keys and values: results, and for each the bound that [`Kernels::attend`] states,
/// with the rounding of subnormal numbers.
fn reference(q: &Queries<'_>, pages: &[Page]) -> Vec<(f64, f64)> {
    let mut out = Vec::new();
    let dim = q.dim;
    let stored: Vec<KvPage<'_>> = pages.iter().map(|p| p.head(0)).collect();
    let key = |t: usize, d: usize| f64::from(stored[t / PAGE].key(d, t % PAGE));
    let value = |t: usize, d: usize| f64::from(stored[t / PAGE].value(dim, t % PAGE, d));
    let scale = 1.0 / (dim as f64).sqrt();
    for row in 0..q.rows {
        for head in 0..q.heads {
            let x = q.query(row, head);
            let n = q.visible(row);
            let products = |t: usize| (0..dim).map(move |d| f64::from(x[d]) * key(t, d));
            let scores: Vec<f64> = (0..n).map(|t| scale * products(t).sum::<f64>()).collect();
            let size = (0..n).map(|t| scale * products(t).map(f64::abs).sum::<f64>()).fold(0.0, f64::max);
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let e: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = e.iter().sum();
            for d in 0..dim {
                let result = (0..n).map(|t| e[t] / total * value(t, d)).sum();
                let largest = (0..n).map(|t| value(t, d).abs()).fold(0.0, f64::max);
                out.push((result, (dim + n) as f64 * 2f64.powi(-22) * (1.0 + size) * largest + n as f64 * 1.5e-45));
            }
        }
    }
    out
}

fn check(kernels: &Kernels, q: &Queries<'_>, pages: &[Page], what: &str) {
    for (i, (got, (want, bound))) in attend(kernels, q, pages).iter().zip(reference(q, pages)).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= bound, "{} {what}: value {i} is {got:e}, not {want:e}: {error:e} > {bound:e}", kernels.name);
    }
}

fn kinds(dim: usize) -> impl Iterator<Item = KvType> {
    KINDS.into_iter().filter(move |&kind| kind != KvType::Q8_0 || dim.is_multiple_of(32))
}

#[test]
fn attention_of_every_length_is_within_its_bound() {
    each_table(|kernels| {
        let mut random = Random(1);
        let dim = 32;
        let (k, v, x) = (random.f32s(130 * dim), random.f32s(130 * dim), random.f32s(3 * dim));
        for kind in KINDS {
            let pages = pages(kind, dim, &k, &v);
            for visible in 1..=130 {
                let q = Queries { x: &x, stride: 3 * dim, rows: 1, heads: 3, dim, visible, causal: true };
                check(kernels, &q, &pages, &format!("{kind}, {visible} positions"));
            }
        }
    });
}

#[test]
fn attention_of_every_shape_is_within_its_bound() {
    each_table(|kernels| {
        let mut random = Random(2);
        for dim in [2, 5, 12, 16, 32, 64, 72, 80, 96, 128, 136] {
            let (k, v) = (random.f32s(200 * dim), random.f32s(200 * dim));
            for kind in kinds(dim) {
                let pages = pages(kind, dim, &k, &v);
                for heads in [1, 2, 4, 8] {
                    for (rows, visible, causal) in [(1, 77, true), (17, 120, true), (30, 1, true), (23, 129, false)] {
                        let stride = heads * dim + 3;
                        let x: Vec<f32> = random.f32s(rows * stride).iter().map(|x| 4.0 * x).collect();
                        let q = Queries { x: &x, stride, rows, heads, dim, visible, causal };
                        check(kernels, &q, &pages, &format!("{kind}, dim {dim}, {heads} heads, {rows} rows"));
                    }
                }
            }
        }
    });
}

#[test]
fn attention_to_extreme_keys_and_values_is_within_its_bound() {
    each_table(|kernels| {
        let (mut random, dim, n) = (Random(3), 64, 150);
        let x = random.f32s(20 * dim);
        let q = Queries { x: &x, stride: dim, rows: 20, heads: 1, dim, visible: 131, causal: true };
        let (k, v) = (random.f32s(n * dim), random.f32s(n * dim));
        let times = |x: &[f32], factor: f32| x.iter().map(|x| x * factor).collect::<Vec<_>>();
        let growing: Vec<f32> = k.iter().enumerate().map(|(i, k)| k * (i / dim) as f32).collect();
        for kind in KINDS {
            for (what, k, v) in [
                ("keys all zero", vec![0.0; n * dim], v.clone()),
                ("equal keys", k[..dim].repeat(n), v.clone()),
                ("growing keys", growing.clone(), v.clone()),
                ("large keys", times(&k, 6e4), v.clone()),
                ("subnormal keys", times(&k, 1e-40), v.clone()),
                ("large values", k.clone(), times(&v, 6e4)),
                ("subnormal values", k.clone(), times(&v, 1e-42)),
            ] {
                check(kernels, &q, &pages(kind, dim, &k, &v), &format!("{kind}, {what}"));
            }
        }
        let pages = pages(KvType::F32, dim, &times(&k, 1e36), &times(&v, 1e35));
        assert!(attend(kernels, &q, &pages).iter().all(|x| x.is_finite()), "{}: the largest score wins", kernels.name);
    });
}

#[test]
fn a_row_has_the_same_bits_alone_and_with_others() {
    each_table(|kernels| {
        let mut random = Random(4);
        for dim in [12, 32, 64, 80, 128] {
            let n = 200;
            let (k, v) = (random.f32s(n * dim), random.f32s(n * dim));
            for kind in kinds(dim) {
                let pages = pages(kind, dim, &k, &v);
                for heads in [1, 3, 7] {
                    let (rows, stride) = (100, heads * dim);
                    let x = random.f32s(rows * stride);
                    let all = Queries { x: &x, stride, rows, heads, dim, visible: n - rows + 1, causal: true };
                    let together = attend(kernels, &all, &pages);
                    for size in [1, 2, 5, 12, 40] {
                        for first in (0..rows).step_by(size) {
                            let rows = size.min(rows - first);
                            let (x, visible) = (&x[first * stride..], all.visible(first));
                            let alone = attend(kernels, &Queries { x, rows, visible, ..all }, &pages);
                            let what = format!("{} {kind}, dim {dim}, {heads} heads, row {first}", kernels.name);
                            assert_same_bits(&alone, &together[first * stride..][..rows * stride], &what);
                        }
                    }
                    let one = Queries { heads: 1, ..all };
                    let first = attend(kernels, &one, &pages);
                    for row in 0..rows {
                        assert_same_bits(&first[row * dim..][..dim], &together[row * stride..][..dim], kernels.name);
                    }
                }
            }
        }
    });
}

#[test]
fn a_row_does_not_depend_on_what_comes_after_it() {
    each_table(|kernels| {
        let (mut random, dim, n) = (Random(5), 32, 100);
        let (mut k, mut v, x) = (random.f32s(n * dim), random.f32s(n * dim), random.f32s(40 * dim));
        let q = Queries { x: &x, stride: dim, rows: 40, heads: 1, dim, visible: 30, causal: true };
        let before = attend(kernels, &q, &pages(KvType::F16, dim, &k, &v));
        k[66 * dim..].fill(f32::NAN);
        v[66 * dim..].fill(f32::INFINITY);
        let after = attend(kernels, &q, &pages(KvType::F16, dim, &k, &v));
        let sound = (66 - 30 + 1) * dim;
        assert_same_bits(&after[..sound], &before[..sound], kernels.name);
        assert!(after[sound..].iter().all(|x| x.is_nan()), "{}: and those rows see it", kernels.name);
    });
}

/// The rounding of a query, a key, a weight and a value to bf16 is 2⁻⁹ each; a score's error goes into the exponent.
#[test]
fn attention_in_bf16_is_within_the_rounding_of_its_operands() {
    each_table(|kernels| {
        let Some(bf16) = &kernels.bf16 else { return };
        let mut random = Random(5);
        for (rows, dim) in [(1, 1), (3, 16), (17, 33), (40, 64), (50, 80), (197, 64)] {
            let stride = dim + 3;
            let (k, v, x) = (random.f32s(rows * stride), random.f32s(rows * stride), random.f32s(rows * stride));
            let last = (rows - 1) * stride + dim;
            let mut kv = vec![half::bf16::ONE; Bf16Kernels::kv_len(rows, dim)];
            (bf16.pack)(&k[..last], &v[..last], stride, dim, &mut kv);
            let q = Queries { x: &x, stride, rows, heads: 1, dim, visible: rows, causal: false };
            let mut out = vec![7.0; rows * dim];
            (bf16.attend)(&q, &kv, &mut OutTile::new(&mut out, rows, dim), &mut vec![f32::NAN; 100]);
            let compact = |x: &[f32]| -> Vec<f32> { x.chunks(stride).flat_map(|x| &x[..dim]).copied().collect() };
            let stored = pages(KvType::F32, dim, &compact(&k), &compact(&v));
            for (i, (got, (want, _))) in out.iter().zip(reference(&q, &stored)).enumerate() {
                let bound = 2f64.powi(-8) * (2.0 * (dim as f64).sqrt() + 2.0);
                let error = (f64::from(*got) - want).abs();
                assert!(error <= bound, "{} {rows} × {dim}: value {i} is {got:e}, not {want:e}", kernels.name);
            }
        }
    });
}
