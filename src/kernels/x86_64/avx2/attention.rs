//! Attention with vectors of eight.

use super::super::super::OutTile;
use super::super::super::attention::vector::{self, Job, Lanes};
use super::super::super::attention::{Pages, Queries};
use super::lanes::{mask, sum};
use super::math::exp;
use half::f16;
use std::arch::x86_64::*;

/// See [`Kernels::attend`](crate::kernels::Kernels::attend).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn attend(q: &Queries<'_>, pages: &Pages<'_>, out: &mut OutTile<'_>, scratch: &mut Vec<f32>) {
    // SAFETY: the features of this function are those of the vectors.
    unsafe { vector::attend::<__m256>(q, pages, out, scratch) }
}

/// Functions of the trait, each of one expression.
macro_rules! lanes {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty = $body:expr;)+) => {$(
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn $name($($arg: $type),*) -> $result {
            // SAFETY: pointers are good for eight values, by the trait's contract.
            #[allow(unused_unsafe, reason = "most need no pointer")]
            unsafe { $body }
        }
    )+};
}

// SAFETY: pointers are read and written for eight values only.
unsafe impl Lanes for __m256 {
    const N: usize = 8;
    const SUMS: usize = 12;

    lanes! {
        splat(x: f32) -> Self = _mm256_set1_ps(x);
        splat_f16(x: f16) -> Self = _mm256_cvtph_ps(_mm_set1_epi16(x.to_bits() as i16));
        load(from: *const f32) -> Self = _mm256_loadu_ps(from);
        load_f16(from: *const f16) -> Self = _mm256_cvtph_ps(_mm_loadu_si128(from.cast()));
        load_i8(from: *const i8) -> Self = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())));
        store(self: Self, to: *mut f32) -> () = _mm256_storeu_ps(to, self);
        add(self: Self, other: Self) -> Self = _mm256_add_ps(self, other);
        sub(self: Self, other: Self) -> Self = _mm256_sub_ps(self, other);
        mul(self: Self, other: Self) -> Self = _mm256_mul_ps(self, other);
        div(self: Self, other: Self) -> Self = _mm256_div_ps(self, other);
        mul_add(self: Self, factor: Self, term: Self) -> Self = _mm256_fmadd_ps(self, factor, term);
        max(self: Self, other: Self) -> Self = _mm256_max_ps(self, other);
        exp(self: Self) -> Self = exp(self);
        sum(self: Self) -> f32 = sum(self);
        largest(self: Self) -> f32 = largest(self);
        first(self: Self, n: usize, other: Self) -> Self =
            _mm256_blendv_ps(other, self, _mm256_castsi256_ps(mask(n)));
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn run<J: Job>(job: J) {
        // SAFETY: the contract of this function.
        unsafe { job.run() }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn largest(v: __m256) -> f32 {
    let m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)))
}
