//! The types that store values one by one: F32, F16, BF16.

use super::half_to_f32;

/// Little-endian f32 to f32.
pub(crate) fn dequantize_f32(bytes: &[u8], out: &mut [f32]) {
    convert(bytes, out, f32::from_le_bytes);
}

/// Little-endian f16 to f32.
pub(crate) fn dequantize_f16(bytes: &[u8], out: &mut [f32]) {
    convert(bytes, out, half_to_f32);
}

/// Little-endian bfloat16, the upper half of an f32, to f32.
#[inline(always)]
pub(crate) fn dequantize_bf16(bytes: &[u8], out: &mut [f32]) {
    convert(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16));
}

#[inline(always)]
fn convert<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
    assert_eq!(bytes.len(), out.len() * N, "bytes for the values");
    for (value, out) in bytes.as_chunks::<N>().0.iter().zip(out) {
        *out = f(*value);
    }
}

/// f32 to bytes, by `f` one by one.
pub(crate) fn store<const N: usize>(x: &[f32], out: &mut [u8], f: impl Fn(f32) -> [u8; N]) {
    for (value, out) in x.iter().zip(out.as_chunks_mut::<N>().0) {
        *out = f(*value);
    }
}
