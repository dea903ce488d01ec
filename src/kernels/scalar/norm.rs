//! Normalisations of one row.

/// `out = x / sqrt(mean(x²) + eps) · w`.
pub(super) fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((w.len(), out.len()), (x.len(), x.len()), "row length");
    let squares: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let scale = 1.0 / (squares / x.len() as f64 + f64::from(eps)).sqrt();
    for i in 0..x.len() {
        out[i] = (f64::from(x[i]) * scale * f64::from(w[i])) as f32;
    }
}

/// `out = (x − mean) / sqrt(var + eps) · w + b`, with the biased variance.
pub(super) fn layer_norm(x: &[f32], w: &[f32], b: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!((w.len(), b.len(), out.len()), (x.len(), x.len(), x.len()), "row length");
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(eps)).sqrt();
    for i in 0..x.len() {
        out[i] = ((f64::from(x[i]) - mean) * scale * f64::from(w[i]) + f64::from(b[i])) as f32;
    }
}
