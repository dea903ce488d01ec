//! Exponential, sigmoid and the normal distribution function, eight at a time.

use crate::kernels::coefficients::{CDF_NEAR, CDF_TAIL, EXP, LN_2};
use std::arch::x86_64::*;
use std::f32::consts::LOG2_E;

/// `e^x`, within 1 unit in the last place (0.94 is the worst for |x| > 0.01). NaN stays NaN.
///
/// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`; `2ⁿ` is applied in two factors, so that results near both ends of the range
/// come out.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn exp(x: __m256) -> __m256 {
    // e^89 overflows and e^−104 rounds to zero. The operand order keeps NaN.
    let x = _mm256_max_ps(_mm256_set1_ps(-104.0), _mm256_min_ps(_mm256_set1_ps(89.0), x));
    let n =
        _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(x, _mm256_set1_ps(LOG2_E)));
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN_2[0]), x);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN_2[1]), r);
    let p = polynomial(r, EXP);

    let n = _mm256_cvtps_epi32(n);
    let half = _mm256_srai_epi32::<1>(n);
    _mm256_mul_ps(_mm256_mul_ps(p, power_of_two(half)), power_of_two(_mm256_sub_epi32(n, half)))
}

/// `2ⁿ` for −127 < n < 128.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn power_of_two(n: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))
}

/// Horner's scheme; the coefficient of the highest power first.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn polynomial<const N: usize>(x: __m256, coefficients: [f32; N]) -> __m256 {
    let mut p = _mm256_set1_ps(coefficients[0]);
    for &c in &coefficients[1..] {
        p = _mm256_fmadd_ps(p, x, _mm256_set1_ps(c));
    }
    p
}

/// `x · sigmoid(t) = x / (1 + e^−t)`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn times_sigmoid(x: __m256, t: __m256) -> __m256 {
    let e = exp(_mm256_sub_ps(_mm256_setzero_ps(), t));
    _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0), e))
}

/// The normal distribution function `Φ(x) = (1 + erf(x / √2)) / 2`, within 7 units in the last place (6.7 is the worst
/// for 1/16 < |x| < 14) down to x = −13, where results become subnormal.
///
/// One polynomial near zero, one with an exponential beyond; see [`CDF_NEAR`] and [`CDF_TAIL`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn normal_cdf(x: __m256) -> __m256 {
    let one = _mm256_set1_ps(1.0);
    let half = _mm256_set1_ps(0.5);
    let near = _mm256_fmadd_ps(x, polynomial(_mm256_mul_ps(x, x), CDF_NEAR), half);

    let u = _mm256_andnot_ps(_mm256_set1_ps(-0.0), x);
    let is_near = _mm256_cmp_ps::<_CMP_LT_OQ>(u, one);
    // Φ(−20) is zero in f32, and 20² is harmless.
    let u = _mm256_min_ps(_mm256_set1_ps(20.0), u);
    let t = _mm256_div_ps(one, _mm256_fmadd_ps(u, _mm256_set1_ps(0.25), one));
    // The rounding error of u² matters in the exponent: e^−(s + d)/2 = e^(−s/2) (1 − d/2).
    let s = _mm256_mul_ps(u, u);
    let d = _mm256_fmsub_ps(u, u, s);
    let e = exp(_mm256_mul_ps(s, _mm256_set1_ps(-0.5)));
    let e = _mm256_fnmadd_ps(_mm256_mul_ps(d, half), e, e);
    let tail = _mm256_mul_ps(e, _mm256_mul_ps(t, polynomial(t, CDF_TAIL)));
    let far = _mm256_blendv_ps(_mm256_sub_ps(one, tail), tail, x);
    _mm256_blendv_ps(far, near, is_near)
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{load, store};
    use super::{exp, normal_cdf};
    use crate::kernels::scalar::erf::erfc;
    use std::arch::x86_64::__m256;
    use std::f64::consts::FRAC_1_SQRT_2;

    /// Puts every 997th f32 from −∞ to ∞ through `f` and gives the worst error against `want` in units in the last
    /// place, the smallest of which is that of subnormals.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn worst_ulps(f: impl Fn(__m256) -> __m256, want: impl Fn(f64) -> f64) -> (f64, f32) {
        let mut worst = (0.0, 0.0);
        let grid: Vec<f32> = (0..=u32::MAX).step_by(997).map(f32::from_bits).filter(|x| !x.is_nan()).collect();
        for x in grid.as_chunks::<8>().0 {
            let mut got = [0.0; 8];
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
    fn exp_is_within_1_ulp_for_every_997th_f32() {
        if super::super::kernels().next().is_none() {
            return println!("skipped: no AVX2");
        }
        // SAFETY: checked above.
        let (ulps, x) = unsafe { worst_ulps(|x| exp(x), f64::exp) };
        assert!(ulps <= 1.0, "{ulps} ulp at {x:e}");
    }

    #[test]
    fn normal_cdf_is_within_7_ulp_for_every_997th_f32() {
        if super::super::kernels().next().is_none() {
            return println!("skipped: no AVX2");
        }
        let want = |x: f64| 0.5 * erfc(-x * FRAC_1_SQRT_2);
        // SAFETY: checked above.
        let (ulps, x) = unsafe { worst_ulps(|x| normal_cdf(x), want) };
        assert!(ulps <= 7.0, "{ulps} ulp at {x:e}");
    }
}
