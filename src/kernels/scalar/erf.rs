//! The complementary error function.

use std::f64::consts::{FRAC_2_SQRT_PI, PI};

/// `1 − erf(x)`, to 13 digits or better (`e^(−x²)` costs some beyond x = 20).
///
/// Abramowitz and Stegun, *Handbook of Mathematical Functions*: the series 7.1.6 near zero, whose terms are all of
/// one sign, and the continued fraction 7.1.14 beyond.
pub(super) fn erfc(x: f64) -> f64 {
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
        (1e-09, 0.99999999887162083),
        (-1e-09, 1.0000000011283792),
        (0.1, 0.8875370839817151),
        (-0.1, 1.1124629160182849),
        (0.5, 0.47950012218695346),
        (-0.5, 1.5204998778130465),
        (0.84375, 0.23277433876765837),
        (1.0, 0.15729920705028513),
        (-1.0, 1.8427007929497149),
        (1.25, 7.709987174354177e-2),
        (1.5, 3.3894853524689273e-2),
        (-1.5, 1.9661051464753107),
        (1.9, 7.2095707647425328e-3),
        (1.99999, 4.6779416550342534e-3),
        (2.0, 4.6777349810472658e-3),
        (2.00001, 4.6775283153270724e-3),
        (-2.0, 1.9953222650189527),
        (2.5, 4.0695201744495894e-4),
        (3.0, 2.2090496998585441e-5),
        (-3.0, 1.9999779095030014),
        (3.5, 7.4309837234141275e-7),
        (4.0, 1.5417257900280019e-8),
        (-4.0, 1.9999999845827421),
        (5.0, 1.5374597944280349e-12),
        (6.0, 2.1519736712498913e-17),
        (8.0, 1.1224297172982927e-29),
        (10.0, 2.0884875837625448e-45),
        (15.0, 7.2129941724512067e-100),
        (26.0, 5.6631924088561428e-296),
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
