//! Exponential, sigmoid and the normal distribution function, four at a time; the formulas of the AVX2 table.

use crate::kernels::coefficients::{CDF_NEAR, CDF_TAIL, EXP, LN_2};
use std::arch::aarch64::*;
use std::f32::consts::LOG2_E;

/// `e^x`, within 1 unit in the last place. NaN stays NaN.
///
/// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`; `2ⁿ` is applied in two factors, so that results near both ends of the range
/// come out.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn exp(x: float32x4_t) -> float32x4_t {
    // e^89 overflows and e^−104 rounds to zero. Minimum and maximum of NEON keep NaN.
    let x = vmaxq_f32(vdupq_n_f32(-104.0), vminq_f32(vdupq_n_f32(89.0), x));
    let n = vrndnq_f32(vmulq_f32(x, vdupq_n_f32(LOG2_E)));
    let r = vfmsq_f32(x, n, vdupq_n_f32(LN_2[0]));
    let r = vfmsq_f32(r, n, vdupq_n_f32(LN_2[1]));
    let p = polynomial(r, EXP);

    let n = vcvtq_s32_f32(n);
    let half = vshrq_n_s32::<1>(n);
    vmulq_f32(vmulq_f32(p, power_of_two(half)), power_of_two(vsubq_s32(n, half)))
}

/// `2ⁿ` for −127 < n < 128.
#[inline]
#[target_feature(enable = "neon")]
fn power_of_two(n: int32x4_t) -> float32x4_t {
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))))
}

/// Horner's scheme; the coefficient of the highest power first.
#[inline]
#[target_feature(enable = "neon")]
fn polynomial<const N: usize>(x: float32x4_t, coefficients: [f32; N]) -> float32x4_t {
    let mut p = vdupq_n_f32(coefficients[0]);
    for &c in &coefficients[1..] {
        p = vfmaq_f32(vdupq_n_f32(c), p, x);
    }
    p
}

/// `x · sigmoid(t) = x / (1 + e^−t)`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn times_sigmoid(x: float32x4_t, t: float32x4_t) -> float32x4_t {
    vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0), exp(vnegq_f32(t))))
}

/// The normal distribution function `Φ(x) = (1 + erf(x / √2)) / 2`, within 7 units in the last place down to x = −13,
/// where results become subnormal.
///
/// One polynomial near zero, one with an exponential beyond; see [`CDF_NEAR`] and [`CDF_TAIL`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn normal_cdf(x: float32x4_t) -> float32x4_t {
    let one = vdupq_n_f32(1.0);
    let half = vdupq_n_f32(0.5);
    let near = vfmaq_f32(half, x, polynomial(vmulq_f32(x, x), CDF_NEAR));

    let u = vabsq_f32(x);
    let is_near = vcltq_f32(u, one);
    // Φ(−20) is zero in f32, and 20² is harmless.
    let u = vminq_f32(vdupq_n_f32(20.0), u);
    let t = vdivq_f32(one, vfmaq_f32(one, u, vdupq_n_f32(0.25)));
    // The rounding error of u² matters in the exponent: e^−(s + d)/2 = e^(−s/2) (1 − d/2), here with −d.
    let s = vmulq_f32(u, u);
    let minus_d = vfmsq_f32(s, u, u);
    let e = exp(vmulq_f32(s, vdupq_n_f32(-0.5)));
    let e = vfmaq_f32(e, vmulq_f32(minus_d, half), e);
    let tail = vmulq_f32(e, vmulq_f32(t, polynomial(t, CDF_TAIL)));
    let is_negative = vcltzq_s32(vreinterpretq_s32_f32(x));
    let far = vbslq_f32(is_negative, tail, vsubq_f32(one, tail));
    vbslq_f32(is_near, near, far)
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{load, store};
    use super::{exp, normal_cdf};
    use crate::kernels::scalar::erf::erfc;
    use std::arch::aarch64::float32x4_t;
    use std::f64::consts::FRAC_1_SQRT_2;

    /// Puts every 9973rd f32 from −∞ to ∞ through `f` and gives the worst error against `want` in units in the last
    /// place, the smallest of which is that of subnormals.
    #[target_feature(enable = "neon")]
    fn worst_ulps(f: impl Fn(float32x4_t) -> float32x4_t, want: impl Fn(f64) -> f64) -> (f64, f32) {
        let mut worst = (0.0, 0.0);
        let grid: Vec<f32> = (0..=u32::MAX).step_by(9973).map(f32::from_bits).filter(|x| !x.is_nan()).collect();
        for x in grid.as_chunks::<4>().0 {
            let mut got = [0.0; 4];
            store(&mut got, f(load(x)));
            for (&x, got) in x.iter().zip(got) {
                let want = want(f64::from(x));
                let rounded = want as f32;
                if rounded.is_infinite() {
                    assert_eq!(got, rounded, "f({x:e})");
                } else {
                    let ulp = f64::from(rounded.next_up()) - f64::from(rounded);
                    let error = (f64::from(got) - want).abs() / ulp;
                    assert!(!error.is_nan(), "f({x:e}) is {got}");
                    if error > worst.0 {
                        worst = (error, x);
                    }
                }
            }
        }
        println!("worst: {:.3} ulp at {:e}", worst.0, worst.1);
        worst
    }

    #[test]
    fn exp_is_within_1_ulp_for_every_9973rd_f32() {
        // SAFETY: every aarch64 processor with an operating system has NEON.
        let (ulps, x) = unsafe { worst_ulps(|x| exp(x), f64::exp) };
        assert!(ulps <= 1.0, "{ulps} ulp at {x:e}");
    }

    #[test]
    fn normal_cdf_is_within_7_ulp_for_every_9973rd_f32() {
        let want = |x: f64| 0.5 * erfc(-x * FRAC_1_SQRT_2);
        // SAFETY: every aarch64 processor with an operating system has NEON.
        let (ulps, x) = unsafe { worst_ulps(|x| normal_cdf(x), want) };
        assert!(ulps <= 7.0, "{ulps} ulp at {x:e}");
    }
}
