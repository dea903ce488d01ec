//! Activations to int8.

use super::super::Q8_BLOCK;

/// One row: x `[k]`, qs `[k]`, scales `[k / 32]`, sums `[k / 16]`.
///
/// A block with an infinity or a NaN gets scale NaN, so that whatever it is multiplied with becomes NaN. A block
/// whose largest magnitude is so small (below about 4e-37) that the inverse of its scale overflows becomes zero.
pub(super) fn quantize_q8(x: &[f32], qs: &mut [i8], scales: &mut [f32], sums: &mut [i16]) {
    let blocks = x.len() / Q8_BLOCK;
    assert_eq!(x.len(), blocks * Q8_BLOCK, "whole blocks in a row");
    assert_eq!((qs.len(), scales.len(), sums.len()), (x.len(), blocks, 2 * blocks), "outputs for the row");

    for (b, (x, qs)) in x.chunks_exact(Q8_BLOCK).zip(qs.chunks_exact_mut(Q8_BLOCK)).enumerate() {
        let scale = x.iter().fold(0f32, |max, v| max.max(v.abs())) / 127.0;
        let inverse = 1.0 / scale;
        if x.iter().any(|v| !v.is_finite()) {
            scales[b] = f32::NAN;
            qs.fill(0);
        } else if inverse.is_infinite() {
            scales[b] = 0.0;
            qs.fill(0);
        } else {
            scales[b] = scale;
            for (q, v) in qs.iter_mut().zip(x) {
                *q = (v * inverse).round_ties_even() as i8;
            }
        }
        for (sum, half) in sums[2 * b..].iter_mut().zip(qs.chunks_exact(16)) {
            *sum = half.iter().map(|&q| i16::from(q)).sum();
        }
    }
}
