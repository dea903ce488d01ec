//! The k-quants: super-blocks of 256 values, whose sub-blocks have small integer scales of their own.
//!
//! Bit fields are split over bytes so that shifting 32 bytes yields 32 consecutive values. Of group `j` of 32, value
//! `l` has its 4-bit field in byte `j / 2 · 32 + l` at bit `j % 2 · 4`, a 2-bit field in byte `j / 4 · 32 + l` at bit
//! `j % 4 · 2`, a single bit in byte `l` at bit `j`. Q6_K alone pairs groups `j` and `j + 2` in its 4-bit fields.

#![allow(non_camel_case_types)]

use super::{Block, Unpacked, half_to_f32};
use bytemuck::{Pod, Zeroable};

/// 2 bits, `x = d · scale · q − dmin · min`; scale and min are the nibbles of `scales`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Q2_K {
    pub(crate) scales: [u8; 16],
    pub(crate) qs: [u8; 64],
    pub(crate) d: [u8; 2],
    pub(crate) dmin: [u8; 2],
}

/// 3 bits, `x = d · scale · q`, the third bit in `hmask`: a clear bit means −4.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Q3_K {
    pub(crate) hmask: [u8; 32],
    pub(crate) qs: [u8; 64],
    pub(crate) scales: [u8; 12],
    pub(crate) d: [u8; 2],
}

/// 4 bits, `x = d · scale · q − dmin · min`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Q4_K {
    pub(crate) d: [u8; 2],
    pub(crate) dmin: [u8; 2],
    pub(crate) scales: [u8; 12],
    pub(crate) qs: [u8; 128],
}

/// 5 bits, `x = d · scale · q − dmin · min`, the fifth bit in `qh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Q5_K {
    pub(crate) d: [u8; 2],
    pub(crate) dmin: [u8; 2],
    pub(crate) scales: [u8; 12],
    pub(crate) qh: [u8; 32],
    pub(crate) qs: [u8; 128],
}

/// 6 bits, `x = d · scale · (q − 32)`, the upper two bits in `qh`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Q6_K {
    pub(crate) ql: [u8; 128],
    pub(crate) qh: [u8; 64],
    pub(crate) scales: [i8; 16],
    pub(crate) d: [u8; 2],
}

const _: () = assert!(size_of::<Q2_K>() == 84 && align_of::<Q2_K>() == 1);
const _: () = assert!(size_of::<Q3_K>() == 110 && align_of::<Q3_K>() == 1);
const _: () = assert!(size_of::<Q4_K>() == 144 && align_of::<Q4_K>() == 1);
const _: () = assert!(size_of::<Q5_K>() == 176 && align_of::<Q5_K>() == 1);
const _: () = assert!(size_of::<Q6_K>() == 210 && align_of::<Q6_K>() == 1);

impl Block for Q2_K {
    const LEN: usize = 256;
    const GROUP: usize = 16;

    #[inline(always)]
    fn unpack(&self, out: &mut Unpacked) {
        let (d, dmin) = (half_to_f32(self.d), half_to_f32(self.dmin));
        for (g, &byte) in self.scales.iter().enumerate() {
            out.scales[g] = d * f32::from(byte & 15);
            out.mins[g] = dmin * f32::from(byte >> 4);
        }
        fill(out, |j, l| two_bits(&self.qs, j, l) as i8);
    }
}

impl Block for Q3_K {
    const LEN: usize = 256;
    const GROUP: usize = 16;

    #[inline(always)]
    fn unpack(&self, out: &mut Unpacked) {
        let d = half_to_f32(self.d);
        for (scale, s) in out.scales.iter_mut().zip(q3_k_scales(&self.scales)) {
            *scale = d * f32::from(s);
        }
        fill(out, |j, l| (two_bits(&self.qs, j, l) | one_bit(&self.hmask, j, l) << 2) as i8 - 4);
    }
}

impl Block for Q4_K {
    const LEN: usize = 256;
    const GROUP: usize = 32;

    #[inline(always)]
    fn unpack(&self, out: &mut Unpacked) {
        unpack_scales_mins(self.d, self.dmin, &self.scales, out);
        fill(out, |j, l| four_bits(&self.qs, j, l) as i8);
    }
}

impl Block for Q5_K {
    const LEN: usize = 256;
    const GROUP: usize = 32;

    #[inline(always)]
    fn unpack(&self, out: &mut Unpacked) {
        unpack_scales_mins(self.d, self.dmin, &self.scales, out);
        fill(out, |j, l| (four_bits(&self.qs, j, l) | one_bit(&self.qh, j, l) << 4) as i8);
    }
}

impl Block for Q6_K {
    const LEN: usize = 256;
    const GROUP: usize = 16;

    #[inline(always)]
    fn unpack(&self, out: &mut Unpacked) {
        let d = half_to_f32(self.d);
        for (scale, &s) in out.scales.iter_mut().zip(&self.scales) {
            *scale = d * f32::from(s);
        }
        fill(out, |j, l| {
            let low = self.ql[j / 4 * 64 + j % 2 * 32 + l] >> (j / 2 % 2 * 4) & 15;
            (low | two_bits(&self.qh, j, l) << 4) as i8 - 32
        });
    }
}

/// Computes value `l` of each group `j` of 32; the inner loop has fixed shifts, which lets it be vectorised.
#[inline(always)]
fn fill(out: &mut Unpacked, value: impl Fn(usize, usize) -> i8) {
    for (j, group) in out.q.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (l, q) in group.iter_mut().enumerate() {
            *q = value(j, l);
        }
    }
}

#[inline(always)]
fn four_bits(bytes: &[u8; 128], j: usize, l: usize) -> u8 {
    bytes[j / 2 * 32 + l] >> (j % 2 * 4) & 15
}

#[inline(always)]
fn two_bits(bytes: &[u8; 64], j: usize, l: usize) -> u8 {
    bytes[j / 4 * 32 + l] >> (j % 4 * 2) & 3
}

#[inline(always)]
fn one_bit(bytes: &[u8; 32], j: usize, l: usize) -> u8 {
    bytes[l] >> j & 1
}

/// The 16 scales of Q3_K, −32..=31: low nibbles in bytes 0..8, the upper two bits in bytes 8..12.
#[inline(always)]
pub(crate) fn q3_k_scales(bytes: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|g| {
        let low = bytes[g % 8] >> (g / 8 * 4) & 15;
        let high = bytes[8 + g % 4] >> (g / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    })
}

/// The 8 scales and 8 minima, 0..=63, of Q4_K and Q5_K; `get_scale_min_k4` in ggml.
#[inline(always)]
pub(crate) fn q4_k_scales_mins(bytes: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let word = |i| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    // Four values at a time: the first four in the low 6 bits of a byte, of the others the low 4 bits in `c` and the
    // upper 2 above the first four.
    let (a, b, c) = (word(0), word(4), word(8));
    let first = |a: u32| a & 0x3f3f_3f3f;
    let others = |low: u32, a: u32| low & 0x0f0f_0f0f | (a >> 6 & 0x0303_0303) << 4;
    let join = |low: u32, high: u32| (u64::from(low) | u64::from(high) << 32).to_le_bytes();
    (join(first(a), others(c, a)), join(first(b), others(c >> 4, b)))
}

#[inline(always)]
fn unpack_scales_mins(d: [u8; 2], dmin: [u8; 2], scales: &[u8; 12], out: &mut Unpacked) {
    let (d, dmin) = (half_to_f32(d), half_to_f32(dmin));
    let (scales, mins) = q4_k_scales_mins(scales);
    for g in 0..8 {
        out.scales[g] = d * f32::from(scales[g]);
        out.mins[g] = dmin * f32::from(mins[g]);
    }
}
