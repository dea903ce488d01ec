//! Sums, dot products and conversions of rows.

use half::f16;

/// `y += x`.
pub(super) fn add(y: &mut [f32], x: &[f32]) {
    assert_eq!(y.len(), x.len(), "row length");
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// `Σ x · y`.
pub(super) fn dot_f32(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len(), "row length");
    x.iter().zip(y).fold(0.0, |acc, (x, y)| acc + x * y)
}

/// Rounds to half precision, nearest even.
pub(super) fn to_f16(x: &[f32], out: &mut [f16]) {
    assert_eq!(x.len(), out.len(), "row length");
    for (x, out) in x.iter().zip(out) {
        *out = f16::from_f32(*x);
    }
}
