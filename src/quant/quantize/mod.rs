//! Rounding to blocks, as llama.cpp's quantizer does: with the same bits as `ggml_quantize_chunk` (`tests/quantize.rs`).

mod fit;
mod k;

use super::BlockType;
use super::float;
use super::iq4::{IQ4_NL, VALUES};
use super::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use bytemuck::Pod;
use fit::Search;
use half::{bf16, f16};

/// Rounds a row to blocks of type `kind`. `importance`, as long as the row, says how much the error of each value counts
/// (llama.cpp's importance matrix); Q8_0 and the float types do without. `out` has the row's
/// [`row_bytes`](BlockType::row_bytes).
///
/// Panics if the lengths do not fit. Values that are no numbers make blocks that are none: check before.
pub fn quantize(kind: BlockType, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    assert_eq!(Some(out.len()), kind.row_bytes(x.len()), "bytes of a row of {} {kind}", x.len());
    assert!(importance.is_none_or(|i| i.len() == x.len()), "importance of every value");
    match kind {
        BlockType::F32 => float::store(x, out, f32::to_le_bytes),
        BlockType::F16 => float::store(x, out, |v| f16::from_f32(v).to_le_bytes()),
        BlockType::BF16 => float::store(x, out, |v| bf16::from_f32(v).to_le_bytes()),
        BlockType::Q4_0 => blocks(x, importance, out, q4_0),
        BlockType::Q4_1 => blocks(x, importance, out, q4_1),
        BlockType::Q5_0 => blocks(x, importance, out, q5_0),
        BlockType::Q5_1 => blocks(x, importance, out, q5_1),
        BlockType::Q8_0 => blocks(x, importance, out, |x, _| q8_0(x)),
        BlockType::IQ4_NL => blocks(x, importance, out, iq4_nl),
        BlockType::Q2_K => blocks(x, importance, out, |x, i| k::q2_k(x, i.map(|i| i.values))),
        BlockType::Q3_K => blocks(x, importance, out, |x, i| k::q3_k(x, i.map(|i| i.values))),
        BlockType::Q4_K => blocks(x, importance, out, |x, i| k::q4_k(x, i.map(|i| i.values))),
        BlockType::Q5_K => blocks(x, importance, out, |x, i| k::q5_k(x, i.map(|i| i.values))),
        BlockType::Q6_K => blocks(x, importance, out, |x, i| k::q6_k(x, i.map(|i| i.values))),
    }
}

/// The importance of a block's values.
struct Importance<'a, const N: usize> {
    values: &'a [f32; N],
    /// The mean square of the row.
    variance: f32,
}

impl<const N: usize> Importance<'_, N> {
    /// What an error of each value counts: more for large ones.
    fn weights(&self, x: &[f32; N], variance: f32) -> [f32; N] {
        std::array::from_fn(|i| self.values[i] * (variance + x[i] * x[i]).sqrt())
    }
}

fn blocks<B: Pod, const N: usize>(
    x: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
    f: impl Fn(&[f32; N], Option<Importance<'_, N>>) -> B,
) {
    let variance = importance.map_or(0.0, |_| x.iter().fold(0f32, |sum, v| sum + v * v) / x.len() as f32);
    let out: &mut [B] = bytemuck::cast_slice_mut(out);
    for (i, (x, out)) in x.as_chunks().0.iter().zip(out).enumerate() {
        let importance = importance.map(|all| Importance { values: &all.as_chunks().0[i], variance });
        *out = f(x, importance);
    }
}

/// The search of types with a minimum, where somebody has measured the importance.
const WITH_IMPORTANCE: Search = Search { first: -0.9, step: 0.05, steps: 36, absolute: false };

fn half(x: f32) -> [u8; 2] {
    f16::from_f32(x).to_le_bytes()
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn nibbles(codes: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| codes[i] & 15 | codes[i + 16] << 4)
}

fn fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    codes.iter().enumerate().fold(0u32, |bits, (i, &c)| bits | u32::from(c >> 4 & 1) << i).to_le_bytes()
}

/// `n` is half the number of codes: the value of largest magnitude becomes `−n`.
fn symmetric(n: u8, x: &[f32; 32], importance: Option<Importance<'_, 32>>) -> (f32, [u8; 32]) {
    let Some(importance) = importance else {
        let d = fit::largest(x) / -f32::from(n);
        let inverse = inverse(d);
        return (d, x.map(|v| ((v * inverse + f32::from(n) + 0.5) as i8).min(2 * n as i8 - 1) as u8));
    };
    let mut codes = [0; 32];
    let weights = importance.weights(x, importance.variance);
    (fit::scale(n.into(), x, &weights, &mut codes), codes)
}

/// Codes `0..=n` from a minimum on, which is returned after the scale.
fn from_minimum(n: u8, x: &[f32; 32], importance: Option<Importance<'_, 32>>) -> (f32, f32, [u8; 32]) {
    let mut codes = [0; 32];
    let Some(importance) = importance else {
        let min = x.iter().fold(f32::MAX, |min, &v| if v < min { v } else { min });
        let max = x.iter().fold(f32::MIN, |max, &v| if v > max { v } else { max });
        let d = (max - min) / f32::from(n);
        let inverse = inverse(d);
        return (d, min, x.map(|v| (((v - min) * inverse + 0.5) as u8).min(n)));
    };
    let weights = importance.weights(x, importance.variance);
    let (d, min) = fit::scale_and_minimum(n.into(), x, &weights, WITH_IMPORTANCE, &mut codes);
    (d, -min, codes)
}

fn q4_0(x: &[f32; 32], importance: Option<Importance<'_, 32>>) -> Q4_0 {
    let (d, codes) = symmetric(8, x, importance);
    Q4_0 { d: half(d), qs: nibbles(&codes) }
}

fn q5_0(x: &[f32; 32], importance: Option<Importance<'_, 32>>) -> Q5_0 {
    let (d, codes) = symmetric(16, x, importance);
    Q5_0 { d: half(d), qh: fifth_bits(&codes), qs: nibbles(&codes) }
}

fn q4_1(x: &[f32; 32], importance: Option<Importance<'_, 32>>) -> Q4_1 {
    let (d, m, codes) = from_minimum(15, x, importance);
    Q4_1 { d: half(d), m: half(m), qs: nibbles(&codes) }
}

fn q5_1(x: &[f32; 32], importance: Option<Importance<'_, 32>>) -> Q5_1 {
    let (d, m, codes) = from_minimum(31, x, importance);
    Q5_1 { d: half(d), m: half(m), qh: fifth_bits(&codes), qs: nibbles(&codes) }
}

/// Halves away from zero.
fn q8_0(x: &[f32; 32]) -> Q8_0 {
    let d = x.iter().fold(0f32, |max, v| max.max(v.abs())) / 127.0;
    let inverse = inverse(d);
    Q8_0 { d: half(d), qs: x.map(|v| (v * inverse).round() as i8) }
}

fn iq4_nl(x: &[f32; 32], importance: Option<Importance<'_, 32>>) -> IQ4_NL {
    /// Scales are tried around the one that puts the largest value at the end of the table.
    const TRIES: i32 = 7;
    let variance = x.iter().fold(0f32, |sum, v| sum + v * v) * (2.0 / 32.0);
    let weights = importance.map_or_else(|| x.map(|v| v * v), |i| i.weights(x, variance));
    let sums = |inverse: f32| {
        x.iter().zip(&weights).fold((0f32, 0f32), |(qx, q2), (&v, &w)| {
            let q = f32::from(VALUES[usize::from(fit::nearest_of(&VALUES, inverse * v))]);
            (qx + w * q * v, q2 + w * q * q)
        })
    };
    let (largest, end) = (fit::largest(x), f32::from(VALUES[0]));
    let mut d = 0.0;
    if largest.abs() >= fit::TINY {
        let (qx, q2) = sums(1.0 / (-largest / end));
        d = if q2 > 0.0 { qx / q2 } else { 0.0 };
        let mut best = d * qx;
        for step in -TRIES..=TRIES {
            let (qx, q2) = sums((step as f32 + end) / largest);
            if q2 > 0.0 && qx * qx > best * q2 {
                d = qx / q2;
                best = d * qx;
            }
        }
    }
    let inverse = inverse(d);
    IQ4_NL { d: half(d), qs: nibbles(&x.map(|v| fit::nearest_of(&VALUES, inverse * v))) }
}
