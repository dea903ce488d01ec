//! Normalisations of one row, in f64 up to the weights: each result is rounded twice, and within two units in the last
//! place of the formula (layer norm: in the last place of the larger of its two terms).

use super::lanes::{load, load_partial, narrow, store, store_partial, widen};
use std::arch::aarch64::*;

/// Sum of `f` over all values, in f64.
#[inline]
#[target_feature(enable = "neon")]
fn total(x: &[f32], vector: impl Fn(float64x2_t) -> float64x2_t, one: impl Fn(f64) -> f64) -> f64 {
    let mut acc = [vdupq_n_f64(0.0); 2];
    let (chunks, rest) = x.as_chunks::<4>();
    for x in chunks {
        let [low, high] = widen(load(x));
        acc = [vaddq_f64(acc[0], vector(low)), vaddq_f64(acc[1], vector(high))];
    }
    rest.iter().fold(vaddvq_f64(vaddq_f64(acc[0], acc[1])), |sum, &x| sum + one(f64::from(x)))
}

/// `out = f(x, others)`, value by value.
#[inline]
#[target_feature(enable = "neon")]
fn zip<const N: usize>(
    x: &[f32],
    others: [&[f32]; N],
    out: &mut [f32],
    f: impl Fn(float32x4_t, [float32x4_t; N]) -> float32x4_t,
) {
    let (chunks, rest) = x.as_chunks::<4>();
    let (outs, out_rest) = out.as_chunks_mut::<4>();
    let others = others.map(|o| o.as_chunks::<4>());
    for (i, (x, out)) in chunks.iter().zip(outs).enumerate() {
        store(out, f(load(x), others.map(|(o, _)| load(&o[i]))));
    }
    if !rest.is_empty() {
        store_partial(out_rest, f(load_partial(rest), others.map(|(_, o)| load_partial(o))));
    }
}

#[target_feature(enable = "neon")]
pub(super) fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((w.len(), out.len()), (x.len(), x.len()), "row length");
    let squares = total(x, |x| vmulq_f64(x, x), |x| x * x);
    let scale = vdupq_n_f64(1.0 / (squares / x.len() as f64 + f64::from(eps)).sqrt());
    zip(x, [w], out, |x, [w]| vmulq_f32(narrow(widen(x).map(|x| vmulq_f64(x, scale))), w));
}

#[target_feature(enable = "neon")]
pub(super) fn layer_norm(x: &[f32], w: &[f32], b: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((w.len(), b.len(), out.len()), (x.len(), x.len(), x.len()), "row length");
    let n = x.len() as f64;
    let mean = total(x, |x| x, |x| x) / n;
    let means = vdupq_n_f64(mean);
    let square = |x| {
        let d = vsubq_f64(x, means);
        vmulq_f64(d, d)
    };
    let variance = total(x, square, |x| (x - mean) * (x - mean)) / n;
    let scale = vdupq_n_f64(1.0 / (variance + f64::from(eps)).sqrt());
    zip(x, [w, b], out, |x, [w, b]| {
        let centred = widen(x).map(|x| vmulq_f64(vsubq_f64(x, means), scale));
        vfmaq_f32(b, narrow(centred), w)
    });
}
