//! IQ4_NL: 4-bit indices into a table of 16 unevenly spaced values.

#![allow(non_camel_case_types)]

use super::{Block, Unpacked, half_to_f32};
use bytemuck::{Pod, Zeroable};

/// `kvalues_iq4nl` of ggml.
pub(crate) const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// 4 bits, `x = d · VALUES[q]`; laid out like Q4_0.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct IQ4_NL {
    pub(crate) d: [u8; 2],
    pub(crate) qs: [u8; 16],
}

const _: () = assert!(size_of::<IQ4_NL>() == 18 && align_of::<IQ4_NL>() == 1);

impl Block for IQ4_NL {
    const LEN: usize = 32;
    const GROUP: usize = 32;

    #[inline(always)]
    fn unpack(&self, out: &mut Unpacked) {
        out.scales[0] = half_to_f32(self.d);
        for (i, &byte) in self.qs.iter().enumerate() {
            out.q[i] = VALUES[usize::from(byte & 15)];
            out.q[i + 16] = VALUES[usize::from(byte >> 4)];
        }
    }
}
