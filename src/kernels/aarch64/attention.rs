//! Attention with vectors of eight, each in two registers: of the 32 there are, sums take 24.

use super::super::OutTile;
use super::super::attention::vector::{self, Job, Lanes};
use super::super::attention::{Pages, Queries};
use super::lanes::{sum, widen_f16};
use super::math::exp;
use half::f16;
use std::arch::aarch64::*;

/// See [`Kernels::attend`](crate::kernels::Kernels::attend).
#[target_feature(enable = "neon")]
pub(super) fn attend(q: &Queries<'_>, pages: &Pages<'_>, out: &mut OutTile<'_>, scratch: &mut Vec<f32>) {
    // SAFETY: the features of this function are those of the vectors.
    unsafe { vector::attend::<Eight>(q, pages, out, scratch) }
}

/// Lanes 0..4 and 4..8.
#[derive(Clone, Copy)]
struct Eight([float32x4_t; 2]);

impl Eight {
    /// `f` of the halves of both.
    #[inline]
    #[target_feature(enable = "neon")]
    fn zip(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Self([f(self.0[0], other.0[0]), f(self.0[1], other.0[1])])
    }
}

/// Functions of the trait, each of one expression.
macro_rules! lanes {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty = $body:expr;)+) => {$(
        #[inline]
        #[target_feature(enable = "neon")]
        unsafe fn $name($($arg: $type),*) -> $result {
            // SAFETY: pointers are good for eight values, by the trait's contract.
            #[allow(unused_unsafe, reason = "most need no pointer")]
            unsafe { $body }
        }
    )+};
}

// SAFETY: pointers are read and written for eight values only.
unsafe impl Lanes for Eight {
    const N: usize = 8;
    const SUMS: usize = 12;

    lanes! {
        splat(x: f32) -> Self = Self([vdupq_n_f32(x); 2]);
        splat_f16(x: f16) -> Self = Self([widen_f16(vdup_n_u16(x.to_bits())); 2]);
        load(from: *const f32) -> Self = Self([vld1q_f32(from), vld1q_f32(from.add(4))]);
        load_f16(from: *const f16) -> Self = {
            let halves = vld1q_u16(from.cast());
            Self([widen_f16(vget_low_u16(halves)), widen_f16(vget_high_u16(halves))])
        };
        load_i8(from: *const i8) -> Self = {
            let x = vmovl_s8(vld1_s8(from));
            Self([vmovl_s16(vget_low_s16(x)), vmovl_high_s16(x)].map(|x| vcvtq_f32_s32(x)))
        };
        store(self: Self, to: *mut f32) -> () = {
            vst1q_f32(to, self.0[0]);
            vst1q_f32(to.add(4), self.0[1]);
        };
        add(self: Self, other: Self) -> Self = self.zip(other, |a, b| vaddq_f32(a, b));
        sub(self: Self, other: Self) -> Self = self.zip(other, |a, b| vsubq_f32(a, b));
        mul(self: Self, other: Self) -> Self = self.zip(other, |a, b| vmulq_f32(a, b));
        div(self: Self, other: Self) -> Self = self.zip(other, |a, b| vdivq_f32(a, b));
        mul_add(self: Self, factor: Self, term: Self) -> Self =
            Self([vfmaq_f32(term.0[0], self.0[0], factor.0[0]), vfmaq_f32(term.0[1], self.0[1], factor.0[1])]);
        max(self: Self, other: Self) -> Self = self.zip(other, |a, b| vmaxnmq_f32(a, b));
        exp(self: Self) -> Self = Self([exp(self.0[0]), exp(self.0[1])]);
        sum(self: Self) -> f32 = sum(vaddq_f32(self.0[0], self.0[1]));
        largest(self: Self) -> f32 = vmaxnmvq_f32(vmaxnmq_f32(self.0[0], self.0[1]));
        first(self: Self, n: usize, other: Self) -> Self = {
            const LANES: [i32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
            let select = |half: usize| {
                let inside = vcltq_s32(vld1q_s32(LANES.as_ptr().add(4 * half)), vdupq_n_s32(n as i32));
                vbslq_f32(inside, self.0[half], other.0[half])
            };
            Self([select(0), select(1)])
        };
    }

    #[target_feature(enable = "neon")]
    unsafe fn run<J: Job>(job: J) {
        // SAFETY: the contract of this function.
        unsafe { job.run() }
    }
}
