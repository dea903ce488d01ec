//! Normalisations of one row, in f64 up to the weights: each result is rounded twice, and within two units in the last
//! place of the formula (layer norm: in the last place of the larger of its two terms).

use super::lanes::{load, load_partial, narrow, store, store_partial, sum_f64, widen};
use std::arch::x86_64::*;

/// Sum of `f` over all values, in f64.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn total(x: &[f32], f: impl Fn(__m256d) -> __m256d) -> f64 {
    let mut acc = [_mm256_setzero_pd(); 2];
    let (chunks, rest) = x.as_chunks::<8>();
    for x in chunks {
        let [low, high] = widen(load(x));
        acc = [_mm256_add_pd(acc[0], f(low)), _mm256_add_pd(acc[1], f(high))];
    }
    let [low, high] = widen(load_partial(rest));
    let n = _mm256_set1_epi64x(rest.len() as i64);
    let inside_low = _mm256_castsi256_pd(_mm256_cmpgt_epi64(n, _mm256_setr_epi64x(0, 1, 2, 3)));
    let inside_high = _mm256_castsi256_pd(_mm256_cmpgt_epi64(n, _mm256_setr_epi64x(4, 5, 6, 7)));
    acc[0] = _mm256_add_pd(acc[0], _mm256_and_pd(f(low), inside_low));
    acc[1] = _mm256_add_pd(acc[1], _mm256_and_pd(f(high), inside_high));
    sum_f64(acc)
}

/// `out = f(x, others)`, value by value.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn zip<const N: usize>(x: &[f32], others: [&[f32]; N], out: &mut [f32], f: impl Fn(__m256, [__m256; N]) -> __m256) {
    let (chunks, rest) = x.as_chunks::<8>();
    let (outs, out_rest) = out.as_chunks_mut::<8>();
    let others = others.map(|o| o.as_chunks::<8>());
    for (i, (x, out)) in chunks.iter().zip(outs).enumerate() {
        store(out, f(load(x), others.map(|(o, _)| load(&o[i]))));
    }
    if !rest.is_empty() {
        store_partial(out_rest, f(load_partial(rest), others.map(|(_, o)| load_partial(o))));
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((w.len(), out.len()), (x.len(), x.len()), "row length");
    let squares = total(x, |x| _mm256_mul_pd(x, x));
    let scale = _mm256_set1_pd(1.0 / (squares / x.len() as f64 + f64::from(eps)).sqrt());
    zip(x, [w], out, |x, [w]| _mm256_mul_ps(narrow(widen(x).map(|x| _mm256_mul_pd(x, scale))), w));
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn layer_norm(x: &[f32], w: &[f32], b: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((w.len(), b.len(), out.len()), (x.len(), x.len(), x.len()), "row length");
    let n = x.len() as f64;
    let mean = total(x, |x| x) / n;
    let means = _mm256_set1_pd(mean);
    let variance = total(x, |x| {
        let d = _mm256_sub_pd(x, means);
        _mm256_mul_pd(d, d)
    }) / n;
    let scale = _mm256_set1_pd(1.0 / (variance + f64::from(eps)).sqrt());
    zip(x, [w, b], out, |x, [w, b]| {
        let centred = widen(x).map(|x| _mm256_mul_pd(_mm256_sub_pd(x, means), scale));
        _mm256_fmadd_ps(narrow(centred), w, b)
    });
}
