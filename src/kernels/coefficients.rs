//! Polynomials of the vectorised functions, the coefficient of the highest power first.

/// `e^r`, its Taylor polynomial of degree 7: exact to 6e-9 for `|r| ≤ ln 2 / 2`.
pub(super) const EXP: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// ln 2 in two parts, the first with few enough bits that its product with an exponent is exact.
pub(super) const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];

/// Q, where the normal distribution function is `Φ(x) = 1/2 + x Q(x²)`: the Taylor polynomial of degree 7, exact to 3e-9
/// for |x| < 1. `(−1)ⁿ / (√(2π) n! 2ⁿ (2n + 1))` for n = 7, …, 0.
pub(super) const CDF_NEAR: [f32; 8] = [
    -4.122_667_4e-8,
    6.659_693_7e-7,
    -9.444_656e-6,
    0.000_115_434_69,
    -0.001_187_328_2,
    0.009_973_557,
    -0.066_490_38,
    0.398_942_3,
];

/// P, where `Φ(−u) = e^(−u²/2) t P(t)` with `t = 1 / (1 + u/4)`: the form of Abramowitz and Stegun 7.1.26 without its
/// loss of relative precision in the tail. The minimax polynomial of degree 9 of `Φ(−u) e^(u²/2) / t` on 0 ≤ u ≤ 14.5
/// (Remez), exact to 9e-9.
pub(super) const CDF_TAIL: [f32; 10] = [
    0.016_892_35,
    -0.064_536_89,
    0.055_878_89,
    0.022_611_58,
    0.017_734_235,
    0.083_851_435,
    0.073_012_75,
    0.095_287_87,
    0.099_521_46,
    0.099_746_33,
];
