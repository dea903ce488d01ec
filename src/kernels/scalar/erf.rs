//! The complementary error function.

use std::f64::consts::{FRAC_2_SQRT_PI, PI};

/// `1 − erf(x)`, to 13 digits or better (`e^(−x²)` costs some beyond x = 20).
///
/// Abramowitz and Stegun, *Handbook of Mathematical Functions*: the series 7.1.6 near zero, whose terms are all of
/// one sign, and the continued fraction 7.1.14 beyond.
pub(in crate::kernels) fn erfc(x: f64) -> f64 {
    if x.abs() < 2.0 {
        // erf(x) = 2/√π e^(−x²) Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1))
        let (mut term, mut sum) = (x, x);
        for n in 1..60 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        1.0 - FRAC_2_SQRT_PI * (-x * x).exp() * sum
    } else if x < 0.0 {
        2.0 - erfc(-x)
    } else {
        // erfc(x) = e^(−x²)/√π · 1/(x + (1/2)/(x + (2/2)/(x + (3/2)/(x + …))))
        let tail = (1..=80).rev().fold(0.0, |tail, n| 0.5 * f64::from(n) / (x + tail));
        (-x * x).exp() / (PI.sqrt() * (x + tail))
    }
}

#[cfg(test)]
mod tests {
    use super::erfc;

    /// (x, erfc(x)) to 17 digits, by mpmath: `mp.dps = 40; nstr(erfc(x), 17)`.
    const TABLE: [(f64, f64); 30] = [
        (0.0, 1.0),
        (1e-09, 0.999_999_998_871_620_8),
        (-1e-09, 1.0000000011283792),
        (0.1, 0.887_537_083_981_715),
        (-0.1, 1.1124629160182849),
        (0.5, 0.479_500_122_186_953_5),
        (-0.5, 1.5204998778130465),
        (0.84375, 0.23277433876765837),
        (1.0, 0.15729920705028513),
        (-1.0, 1.842_700_792_949_715),
        (1.25, 7.709987174354177e-2),
        (1.5, 3.3894853524689273e-2),
        (-1.5, 1.9661051464753107),
        (1.9, 7.2095707647425328e-3),
        (1.99999, 4.677_941_655_034_253e-3),
        (2.0, 4.677_734_981_047_266e-3),
        (2.00001, 4.677_528_315_327_072e-3),
        (-2.0, 1.9953222650189527),
        (2.5, 4.069_520_174_449_589e-4),
        (3.0, 2.209_049_699_858_544e-5),
        (-3.0, 1.9999779095030014),
        (3.5, 7.430_983_723_414_128e-7),
        (4.0, 1.541_725_790_028_002e-8),
        (-4.0, 1.999_999_984_582_742),
        (5.0, 1.537_459_794_428_035e-12),
        (6.0, 2.1519736712498913e-17),
        (8.0, 1.1224297172982927e-29),
        (10.0, 2.088_487_583_762_545e-45),
        (15.0, 7.212_994_172_451_207e-100),
        (26.0, 5.663_192_408_856_143e-296),
    ];

    #[test]
    fn erfc_matches_mpmath_to_13_digits() {
        for (x, want) in TABLE {
            let got = erfc(x);
            // e^(−x²) carries the rounding of x²: x² units of 2⁻⁵³.
            let tolerance = 1e-13 + x * x * f64::EPSILON;
            assert!((got - want).abs() <= tolerance * want, "erfc({x}) = {got:e}, not {want:e}");
        }
    }

    #[test]
    fn erfc_at_the_ends() {
        assert_eq!(erfc(f64::INFINITY), 0.0);
        assert_eq!(erfc(f64::NEG_INFINITY), 2.0);
        assert!(erfc(f64::NAN).is_nan());
    }
}
