//! Four lanes of f32, and bytes: loads, stores, sums, half precision.

use half::f16;
use std::arch::aarch64::*;
use std::arch::asm;

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load(x: &[f32; 4]) -> float32x4_t {
    // SAFETY: the reference covers the 16 bytes read.
    unsafe { vld1q_f32(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store(x: &mut [f32; 4], v: float32x4_t) {
    // SAFETY: the reference covers the 16 bytes written.
    unsafe { vst1q_f32(x.as_mut_ptr(), v) }
}

/// At most 4 values, zeros in the other lanes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_partial(x: &[f32]) -> float32x4_t {
    let mut padded = [0.0; 4];
    padded[..x.len()].copy_from_slice(x);
    load(&padded)
}

/// As many lanes as `x` has values, at most 4.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_partial(x: &mut [f32], v: float32x4_t) {
    let mut lanes = [0.0; 4];
    store(&mut lanes, v);
    x.copy_from_slice(&lanes[..x.len()]);
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_u8x16(x: &[u8; 16]) -> uint8x16_t {
    // SAFETY: the reference covers the 16 bytes read.
    unsafe { vld1q_u8(x.as_ptr()) }
}

/// 16 of `x`, from `at` on. Panics if there are fewer.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_u8x16_at(x: &[u8], at: usize) -> uint8x16_t {
    let x = &x[at..at + 16];
    // SAFETY: the slice covers the 16 bytes read.
    unsafe { vld1q_u8(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_i8x16(x: &[i8; 16]) -> int8x16_t {
    // SAFETY: the reference covers the 16 bytes read.
    unsafe { vld1q_s8(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_i8x16(x: &mut [i8; 16], v: int8x16_t) {
    // SAFETY: the reference covers the 16 bytes written.
    unsafe { vst1q_s8(x.as_mut_ptr(), v) }
}

/// Four f16 as f32. The conversions are in every NEON, but their intrinsics are not in stable Rust.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn widen_f16(bits: uint16x4_t) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: the CPU has NEON; only registers are touched.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) out, in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// The reverse of [`widen_f16`], rounding to nearest even.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn narrow_f16(v: float32x4_t) -> uint16x4_t {
    let out: uint16x4_t;
    // SAFETY: the CPU has NEON; only registers are touched.
    unsafe {
        asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) out, in(vreg) v,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_f16(x: &[f16; 4]) -> float32x4_t {
    // SAFETY: the reference covers the 8 bytes read.
    widen_f16(unsafe { vld1_u16(x.as_ptr().cast()) })
}

/// At most 4 values, zeros in the other lanes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_f16_partial(x: &[f16]) -> float32x4_t {
    let mut padded = [f16::ZERO; 4];
    padded[..x.len()].copy_from_slice(x);
    load_f16(&padded)
}

/// An f16 field of four blocks.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn halves_to_f32(halves: [[u8; 2]; 4]) -> float32x4_t {
    let bits = halves.map(u16::from_le_bytes);
    // SAFETY: the array has the 8 bytes read.
    widen_f16(unsafe { vld1_u16(bits.as_ptr()) })
}

/// Lanes added as `(0 + 1) + (2 + 3)`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn sum(v: float32x4_t) -> f32 {
    vaddvq_f32(v)
}

/// Lane `i` is the sum of the lanes of `v[i]`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn sums(v: [int32x4_t; 4]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]))
}

/// Lanes 0..2 and 2..4 as f64.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn widen(v: float32x4_t) -> [float64x2_t; 2] {
    [vcvt_f64_f32(vget_low_f32(v)), vcvt_high_f64_f32(v)]
}

/// The reverse of [`widen`], rounding.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn narrow([low, high]: [float64x2_t; 2]) -> float32x4_t {
    vcombine_f32(vcvt_f32_f64(low), vcvt_f32_f64(high))
}
