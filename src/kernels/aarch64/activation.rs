//! The activation functions, in place.

use super::lanes::{load, load_partial, store, store_partial};
use super::math::{normal_cdf, times_sigmoid};
use std::arch::aarch64::*;
use std::f32::consts::{FRAC_2_SQRT_PI, SQRT_2};

/// Applies `f` to every value.
#[inline]
#[target_feature(enable = "neon")]
fn map(x: &mut [f32], mut f: impl FnMut(float32x4_t) -> float32x4_t) {
    let (chunks, rest) = x.as_chunks_mut::<4>();
    for x in chunks {
        store(x, f(load(x)));
    }
    if !rest.is_empty() {
        store_partial(rest, f(load_partial(rest)));
    }
}

/// `gate = gate · sigmoid(gate) · up`; within 4 units in the last place, as long as `e^−gate` is finite.
#[target_feature(enable = "neon")]
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "row length");
    let (gates, gate_rest) = gate.as_chunks_mut::<4>();
    let (ups, up_rest) = up.as_chunks::<4>();
    for (gate, up) in gates.iter_mut().zip(ups) {
        let x = load(gate);
        store(gate, vmulq_f32(times_sigmoid(x, x), load(up)));
    }
    if !gate_rest.is_empty() {
        let x = load_partial(gate_rest);
        store_partial(gate_rest, vmulq_f32(times_sigmoid(x, x), load_partial(up_rest)));
    }
}

/// `x · sigmoid(t)`, t = 1.702 x; within 4 units in the last place, and in the tail 2 |t|, for the rounding of t.
#[target_feature(enable = "neon")]
pub(super) fn gelu_quick(x: &mut [f32]) {
    map(x, |x| times_sigmoid(x, vmulq_f32(x, vdupq_n_f32(1.702))));
}

/// `x · Φ(x)`; within 8 units in the last place.
#[target_feature(enable = "neon")]
pub(super) fn gelu_erf(x: &mut [f32]) {
    map(x, |x| vmulq_f32(x, normal_cdf(x)));
}

/// `x · sigmoid(2u)`, as in the scalar table; within 4 units in the last place, and in the tail 8 |u|, for the
/// rounding of u.
#[target_feature(enable = "neon")]
pub(super) fn gelu_tanh(x: &mut [f32]) {
    map(x, |x| {
        // 2u = 2 √(2/π) x (1 + 0.044715 x²), and 2 √(2/π) = 2/√π · √2
        let cubic = vfmaq_f32(vdupq_n_f32(1.0), vmulq_f32(x, x), vdupq_n_f32(0.044715));
        times_sigmoid(x, vmulq_f32(vmulq_f32(x, vdupq_n_f32(FRAC_2_SQRT_PI * SQRT_2)), cubic))
    });
}
