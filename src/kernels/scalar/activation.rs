//! Softmax and the activation functions, in place.

use super::erf::erfc;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// `exp(x − max) / Σ`. A row of −∞ alone becomes NaN.
pub(super) fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in &mut *x {
        let e = (f64::from(*x) - f64::from(max)).exp();
        sum += e;
        *x = e as f32;
    }
    for x in x {
        *x = (f64::from(*x) / sum) as f32;
    }
}

/// `gate = gate · sigmoid(gate) · up`.
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "row length");
    for (gate, &up) in gate.iter_mut().zip(up) {
        let x = f64::from(*gate);
        *gate = (x / (1.0 + (-x).exp()) * f64::from(up)) as f32;
    }
}

/// `x · sigmoid(1.702 x)`.
pub(super) fn gelu_quick(x: &mut [f32]) {
    map(x, |x| x / (1.0 + (-1.702 * x).exp()));
}

/// `x · (1 + erf(x / √2)) / 2`, without the cancellation: `1 + erf(z) = erfc(−z)`.
pub(super) fn gelu_erf(x: &mut [f32]) {
    map(x, |x| 0.5 * x * erfc(-x * FRAC_1_SQRT_2));
}

/// `x · (1 + tanh(u)) / 2` with `u = √(2/π) (x + 0.044715 x³)`, without the cancellation:
/// `(1 + tanh(u)) / 2 = sigmoid(2u)`.
pub(super) fn gelu_tanh(x: &mut [f32]) {
    map(x, |x| {
        let u = FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * (x + 0.044715 * x * x * x);
        x / (1.0 + (-2.0 * u).exp())
    });
}

fn map(x: &mut [f32], f: impl Fn(f64) -> f64) {
    for x in x {
        *x = f(f64::from(*x)) as f32;
    }
}
