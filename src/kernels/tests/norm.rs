//! Norms against f64.

use super::{Random, each_table, ulp};

#[test]
fn rms_norm_is_within_2_ulp() {
    each_table(|kernels| {
        for n in (1..=40).chain([4096]) {
            for scale in [1e-20, 1e-3, 1.0, 1e5, 1e25] {
                let mut random = Random(n);
                let x: Vec<f32> = random.f32s(n as usize).iter().map(|x| x * scale).collect();
                let w = random.f32s(n as usize);
                let mut got = vec![f32::NAN; x.len()];
                (kernels.rms_norm)(&x, &w, 1e-5, &mut got);
                let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
                for i in 0..x.len() {
                    let want = f64::from(x[i]) / (mean + f64::from(1e-5f32)).sqrt() * f64::from(w[i]);
                    let error = (f64::from(got[i]) - want).abs();
                    assert!(error <= 2.0 * ulp(want), "{} n {n} scale {scale} {i}: {:e}", kernels.name, got[i]);
                }
            }
        }
    });
}

#[test]
fn layer_norm_is_within_2_ulp_of_its_larger_term_even_far_from_zero() {
    each_table(|kernels| {
        for n in (1..=40).chain([1024]) {
            for offset in [0.0, 1.0, -1000.0] {
                let mut random = Random(n);
                let x: Vec<f32> = random.f32s(n as usize).iter().map(|x| x + offset).collect();
                let (w, b) = (random.f32s(n as usize), random.f32s(n as usize));
                let mut got = vec![f32::NAN; x.len()];
                (kernels.layer_norm)(&x, &w, &b, 1e-5, &mut got);
                let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
                let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n as f64;
                for i in 0..x.len() {
                    let scaled = (f64::from(x[i]) - mean) / (variance + f64::from(1e-5f32)).sqrt() * f64::from(w[i]);
                    let want = scaled + f64::from(b[i]);
                    let error = (f64::from(got[i]) - want).abs();
                    let tolerance = 2.0 * ulp(scaled.abs().max(f64::from(b[i]).abs()));
                    assert!(error <= tolerance, "{} n {n} offset {offset} {i}: {:e}", kernels.name, got[i]);
                }
            }
        }
    });
}

#[test]
fn a_nan_spreads_over_its_row() {
    each_table(|kernels| {
        for at in 0..13 {
            let mut x = [1.0; 13];
            x[at] = f32::NAN;
            let mut out = [0.0; 13];
            (kernels.rms_norm)(&x, &[1.0; 13], 1e-5, &mut out);
            assert!(out.iter().all(|y| y.is_nan()), "{} rms {at}", kernels.name);
            (kernels.layer_norm)(&x, &[1.0; 13], &[0.0; 13], 1e-5, &mut out);
            assert!(out.iter().all(|y| y.is_nan()), "{} layer {at}", kernels.name);
        }
    });
}
