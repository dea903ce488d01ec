//! Attention with vectors of sixteen.

use super::super::super::OutTile;
use super::super::super::attention::vector::{self, Job, Lanes};
use super::super::super::attention::{Pages, Queries};
use half::f16;
use std::arch::x86_64::*;
use std::f32::consts::LOG2_E;

/// See [`Kernels::attend`](crate::kernels::Kernels::attend).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
pub(super) fn attend(q: &Queries<'_>, pages: &Pages<'_>, out: &mut OutTile<'_>, scratch: &mut Vec<f32>) {
    // SAFETY: the features of this function are those of the vectors.
    unsafe { vector::attend::<__m512>(q, pages, out, scratch) }
}

/// Functions of the trait, each of one expression.
macro_rules! lanes {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty = $body:expr;)+) => {$(
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        unsafe fn $name($($arg: $type),*) -> $result {
            // SAFETY: pointers are good for sixteen values, by the trait's contract.
            #[allow(unused_unsafe, reason = "most need no pointer")]
            unsafe { $body }
        }
    )+};
}

// SAFETY: pointers are read and written for sixteen values only.
unsafe impl Lanes for __m512 {
    const N: usize = 16;
    const SUMS: usize = 24;

    lanes! {
        splat(x: f32) -> Self = _mm512_set1_ps(x);
        splat_f16(x: f16) -> Self = _mm512_cvtph_ps(_mm256_set1_epi16(x.to_bits() as i16));
        load(from: *const f32) -> Self = _mm512_loadu_ps(from);
        load_f16(from: *const f16) -> Self = _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()));
        load_i8(from: *const i8) -> Self = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())));
        store(self: Self, to: *mut f32) -> () = _mm512_storeu_ps(to, self);
        add(self: Self, other: Self) -> Self = _mm512_add_ps(self, other);
        sub(self: Self, other: Self) -> Self = _mm512_sub_ps(self, other);
        mul(self: Self, other: Self) -> Self = _mm512_mul_ps(self, other);
        div(self: Self, other: Self) -> Self = _mm512_div_ps(self, other);
        mul_add(self: Self, factor: Self, term: Self) -> Self = _mm512_fmadd_ps(self, factor, term);
        max(self: Self, other: Self) -> Self = _mm512_max_ps(self, other);
        exp(self: Self) -> Self = exp(self);
        sum(self: Self) -> f32 = sum(self);
        largest(self: Self) -> f32 = largest(self);
        first(self: Self, n: usize, other: Self) -> Self = {
            let mask = if n < 16 { (1 << n) - 1 } else { 0xffff };
            _mm512_mask_blend_ps(mask, other, self)
        };
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    unsafe fn run<J: Job>(job: J) {
        // SAFETY: the contract of this function.
        unsafe { job.run() }
    }
}

/// The two halves, combined by `f` down to one lane: `((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7))` of the halves' sums.
macro_rules! across {
    ($v:expr, $f256:ident, $f128:ident, $f1:ident) => {{
        let v = $f256(_mm512_castps512_ps256($v), _mm512_extractf32x8_ps::<1>($v));
        let v = $f128(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = $f128(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32($f1(v, _mm_movehdup_ps(v)))
    }};
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2")]
fn sum(v: __m512) -> f32 {
    across!(v, _mm256_add_ps, _mm_add_ps, _mm_add_ss)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2")]
fn largest(v: __m512) -> f32 {
    across!(v, _mm256_max_ps, _mm_max_ps, _mm_max_ss)
}

/// `e^x`, within 1 unit in the last place: the AVX2 table's reduction and polynomial. NaN stays NaN.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exp(x: __m512) -> __m512 {
    let x = _mm512_max_ps(_mm512_set1_ps(-104.0), _mm512_min_ps(_mm512_set1_ps(89.0), x));
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm512_mul_ps(
        x,
        _mm512_set1_ps(LOG2_E),
    ));
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(355.0 / 512.0), x);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm512_set1_ps(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    _mm512_scalef_ps(p, n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[target_feature(enable = "avx512f")]
    fn worst_ulps() -> f64 {
        let grid: Vec<f32> = (0..=u32::MAX).step_by(997).map(f32::from_bits).filter(|x| !x.is_nan()).collect();
        let mut worst = 0.0f64;
        for x in grid.as_chunks::<16>().0 {
            let mut got = [0.0f32; 16];
            // SAFETY: sixteen values each.
            unsafe { _mm512_storeu_ps(got.as_mut_ptr(), exp(_mm512_loadu_ps(x.as_ptr()))) };
            for (&x, got) in x.iter().zip(got) {
                let want = f64::from(x).exp();
                let rounded = want as f32;
                if rounded.is_infinite() {
                    assert_eq!(got, rounded, "e^{x:e}");
                } else {
                    let ulp = f64::from(rounded.next_up()) - f64::from(rounded);
                    worst = worst.max((f64::from(got) - want).abs() / ulp);
                    assert!(!got.is_nan(), "e^{x:e}");
                }
            }
        }
        worst
    }

    #[test]
    fn exp_is_within_1_ulp_for_every_997th_f32() {
        if super::super::kernels().next().is_none() {
            return println!("skipped: no AVX-512");
        }
        // SAFETY: checked above.
        let ulps = unsafe { worst_ulps() };
        assert!(ulps <= 1.0, "{ulps} ulp");
    }
}
