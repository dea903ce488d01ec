//! Activation functions against f64, over a grid of all f32 and a dense one where the curves bend.

use super::{Random, each_table, ulp};
use crate::kernels::Kernels;
use crate::kernels::scalar::erf::erfc;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Every 20,011th f32, and −30..30 in steps of about 1e-4. Not a multiple of 8 long.
fn grid() -> Vec<f32> {
    let all = (0..=u32::MAX).step_by(20_011).map(f32::from_bits).filter(|x| x.is_finite());
    let bends = (-300_000..=300_000).map(|i| i as f32 * 1.0001e-4);
    let edges = [0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, -1e-45, 88.7, -88.7, -103.9];
    let mut x: Vec<f32> = all.chain(bends).chain(edges).collect();
    x.truncate(x.len() / 8 * 8 - 3);
    x.extend(edges.iter().take(4));
    x
}

/// Checks `got` against `want(x)` within `ulps(x)` units in the last place or `absolute`.
fn check(kernels: &Kernels, got: &[f32], want: impl Fn(f64) -> f64, ulps: impl Fn(f64) -> f64, absolute: f64) {
    let mut worst = (0.0, 0.0);
    for (&x, &got) in grid().iter().zip(got) {
        let x = f64::from(x);
        let want = want(x);
        let error = (f64::from(got) - want).abs();
        assert!(
            error <= (ulps(x) * ulp(want)).max(absolute),
            "{}: f({x:e}) is {got:e}, not {want:e}: {:.1} ulp",
            kernels.name,
            error / ulp(want)
        );
        if error > absolute && error / ulp(want) > worst.0 {
            worst = (error / ulp(want), x);
        }
    }
    println!("worst: {:.2} ulp at {:e}", worst.0, worst.1);
}

/// Nothing smaller than this comes out of the tail of an activation function.
const TAIL: f64 = 1e-36;

#[test]
fn silu_is_within_4_ulp() {
    each_table(|kernels| {
        let mut x = grid();
        let ones = vec![1.0; x.len()];
        (kernels.silu_mul)(&mut x, &ones);
        check(kernels, &x, |x| x / (1.0 + (-x).exp()), |_| 4.0, TAIL);
    });
}

#[test]
fn silu_multiplies_with_up() {
    each_table(|kernels| {
        for n in 1..20 {
            let mut random = Random(n);
            let (gate, up) = (random.f32s(n as usize), random.f32s(n as usize));
            let mut alone = gate.clone();
            (kernels.silu_mul)(&mut alone, &vec![1.0; n as usize]);
            let mut both = gate.clone();
            (kernels.silu_mul)(&mut both, &up);
            for i in 0..n as usize {
                let want = f64::from(alone[i]) * f64::from(up[i]);
                assert!((f64::from(both[i]) - want).abs() <= 1.5 * ulp(want), "{} length {n}, {i}", kernels.name);
            }
        }
    });
}

#[test]
fn gelu_quick_is_within_4_ulp_and_the_rounding_of_its_argument() {
    each_table(|kernels| {
        let mut x = grid();
        (kernels.gelu_quick)(&mut x);
        // In the tail, e^(1.702 x), an argument off by half a unit in the last place is off by that times itself.
        let ulps = |x: f64| 4.0 + (-1.702 * x).max(0.0) * 2.0;
        check(kernels, &x, |x| x / (1.0 + (-1.702 * x).exp()), ulps, TAIL);
    });
}

#[test]
fn gelu_erf_is_within_8_ulp() {
    each_table(|kernels| {
        let mut x = grid();
        (kernels.gelu_erf)(&mut x);
        check(kernels, &x, |x| 0.5 * x * erfc(-x * FRAC_1_SQRT_2), |_| 8.0, TAIL);
    });
}

#[test]
fn gelu_tanh_is_within_4_ulp_and_the_rounding_of_its_argument() {
    each_table(|kernels| {
        let mut x = grid();
        (kernels.gelu_tanh)(&mut x);
        let argument = |x: f64| (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x);
        // The formula as it stands loses its last digits below x = −3 even in f64, and all of them below −7, …
        let literal = |x: f64| 0.5 * x * (1.0 + argument(x).tanh());
        // … where the other form of tanh has them.
        let tail = |x: f64| x / (1.0 + (-2.0 * argument(x)).exp());
        let want = |x: f64| if x > -3.0 { literal(x) } else { tail(x) };
        check(kernels, &x, want, |x| 4.0 + (-2.0 * argument(x)).max(0.0) * 4.0, TAIL);
    });
}

#[test]
fn activations_at_infinity_and_nan_are_what_the_formulas_give() {
    each_table(|kernels| {
        let input = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0];
        for i in 0..4 {
            let mut x = input;
            match i {
                0 => (kernels.silu_mul)(&mut x, &[1.0; 4]),
                1 => (kernels.gelu_quick)(&mut x),
                2 => (kernels.gelu_erf)(&mut x),
                _ => (kernels.gelu_tanh)(&mut x),
            }
            assert_eq!(x[0], f32::INFINITY, "{} {i}", kernels.name);
            assert!(x[1].is_nan(), "{} {i}: −∞ · 0", kernels.name);
            assert!(x[2].is_nan(), "{} {i}", kernels.name);
            assert!(x[3].is_finite(), "{} {i}: neighbours are untouched", kernels.name);
        }
    });
}
