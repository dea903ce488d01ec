//! The first formats of ggml: 32 values with an f16 scale, in some types an f16 minimum.
//!
//! Values `i` and `i + 16` share a byte: the low and the high nibble. Q5 types keep the fifth bits of all 32 values
//! in one little-endian word.

#![allow(non_camel_case_types)]

use super::{Block, Unpacked, half_to_f32};
use bytemuck::{Pod, Zeroable};

/// 4 bits, `x = d · (q − 8)`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Q4_0 {
    pub(crate) d: [u8; 2],
    pub(crate) qs: [u8; 16],
}

/// 4 bits, `x = d · q + m`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Q4_1 {
    pub(crate) d: [u8; 2],
    pub(crate) m: [u8; 2],
    pub(crate) qs: [u8; 16],
}

/// 5 bits, `x = d · (q − 16)`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Q5_0 {
    pub(crate) d: [u8; 2],
    pub(crate) qh: [u8; 4],
    pub(crate) qs: [u8; 16],
}

/// 5 bits, `x = d · q + m`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Q5_1 {
    pub(crate) d: [u8; 2],
    pub(crate) m: [u8; 2],
    pub(crate) qh: [u8; 4],
    pub(crate) qs: [u8; 16],
}

/// 8 bits, `x = d · q`. Files may hold −128, though no quantizer writes it.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Q8_0 {
    pub(crate) d: [u8; 2],
    pub(crate) qs: [i8; 32],
}

const _: () = assert!(size_of::<Q4_0>() == 18 && align_of::<Q4_0>() == 1);
const _: () = assert!(size_of::<Q4_1>() == 20 && align_of::<Q4_1>() == 1);
const _: () = assert!(size_of::<Q5_0>() == 22 && align_of::<Q5_0>() == 1);
const _: () = assert!(size_of::<Q5_1>() == 24 && align_of::<Q5_1>() == 1);
const _: () = assert!(size_of::<Q8_0>() == 34 && align_of::<Q8_0>() == 1);

impl Block for Q4_0 {
    const LEN: usize = 32;
    const GROUP: usize = 32;

    #[inline(always)]
    fn unpack(&self, out: &mut Unpacked) {
        out.scales[0] = half_to_f32(self.d);
        for (i, &byte) in self.qs.iter().enumerate() {
            out.q[i] = (byte & 15) as i8 - 8;
            out.q[i + 16] = (byte >> 4) as i8 - 8;
        }
    }
}

impl Block for Q4_1 {
    const LEN: usize = 32;
    const GROUP: usize = 32;

    #[inline(always)]
    fn unpack(&self, out: &mut Unpacked) {
        out.scales[0] = half_to_f32(self.d);
        out.mins[0] = -half_to_f32(self.m);
        for (i, &byte) in self.qs.iter().enumerate() {
            out.q[i] = (byte & 15) as i8;
            out.q[i + 16] = (byte >> 4) as i8;
        }
    }
}

impl Block for Q5_0 {
    const LEN: usize = 32;
    const GROUP: usize = 32;

    #[inline(always)]
    fn unpack(&self, out: &mut Unpacked) {
        out.scales[0] = half_to_f32(self.d);
        unpack_5bit(self.qh, &self.qs, -16, out);
    }
}

impl Block for Q5_1 {
    const LEN: usize = 32;
    const GROUP: usize = 32;

    #[inline(always)]
    fn unpack(&self, out: &mut Unpacked) {
        out.scales[0] = half_to_f32(self.d);
        out.mins[0] = -half_to_f32(self.m);
        unpack_5bit(self.qh, &self.qs, 0, out);
    }
}

#[inline(always)]
fn unpack_5bit(qh: [u8; 4], qs: &[u8; 16], offset: i8, out: &mut Unpacked) {
    let qh = u32::from_le_bytes(qh);
    let fifth = |i: usize| ((qh >> i & 1) << 4) as i8;
    for (i, &byte) in qs.iter().enumerate() {
        out.q[i] = ((byte & 15) as i8 | fifth(i)) + offset;
        out.q[i + 16] = ((byte >> 4) as i8 | fifth(i + 16)) + offset;
    }
}

impl Block for Q8_0 {
    const LEN: usize = 32;
    const GROUP: usize = 32;

    #[inline(always)]
    fn unpack(&self, out: &mut Unpacked) {
        out.scales[0] = half_to_f32(self.d);
        out.q[..32].copy_from_slice(&self.qs);
    }
}
