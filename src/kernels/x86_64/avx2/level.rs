//! Multiplying bytes, with and without an instruction that adds four products to a lane. All give the same integers.

use std::arch::asm;
use std::arch::x86_64::*;

/// How the integer matmul multiplies bytes.
pub(super) trait Level {
    /// Lane `i`: the sum of `w · x` over bytes `4i..4i + 4`; `w` are unsigned and up to 128.
    ///
    /// # Safety
    /// The CPU has AVX2 and the level's instruction.
    unsafe fn dot(w: __m256i, x: __m256i) -> __m256i;

    /// The same times the lane's scale, which stands in both its halves; `w` are up to 63.
    ///
    /// # Safety
    /// As for `dot`.
    unsafe fn scaled_dot(w: __m256i, x: __m256i, scales: __m256i) -> __m256i;
}

/// With AVX2 alone. `maddubs` adds pairs of products in 16 bits: at most 2 · 128 · 127, so it does not saturate.
pub(super) struct Pairs;

impl Level for Pairs {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn dot(w: __m256i, x: __m256i) -> __m256i {
        _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn scaled_dot(w: __m256i, x: __m256i, scales: __m256i) -> __m256i {
        _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), scales)
    }
}

/// A level with `vpdpbusd`, in one of its encodings. In assembly, because the intrinsic could not be inlined into code
/// that is compiled for AVX2.
macro_rules! vnni {
    ($level:ident, $instruction:literal) => {
        impl Level for $level {
            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn dot(w: __m256i, x: __m256i) -> __m256i {
                let mut sums = _mm256_setzero_si256();
                // SAFETY: the CPU has the instruction, by the contract of this function; only registers are touched.
                unsafe {
                    asm!($instruction, inout(ymm_reg) sums, in(ymm_reg) w, in(ymm_reg) x,
                        options(pure, nomem, nostack, preserves_flags));
                }
                sums
            }

            /// A sum is at most 4 · 63 · 127, so it is its low half, which `madd` multiplies sooner than a multiplication
            /// of 32 bits would.
            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn scaled_dot(w: __m256i, x: __m256i, scales: __m256i) -> __m256i {
                // SAFETY: the contract of this function.
                let sums = unsafe { Self::dot(w, x) };
                _mm256_madd_epi16(sums, _mm256_and_si256(scales, _mm256_set1_epi32(0xffff)))
            }
        }
    };
}

/// With AVX-VNNI.
pub(super) struct Vnni;

vnni!(Vnni, "{{vex}} vpdpbusd {}, {}, {}");

/// The same in the encoding of AVX-512, for tests on CPUs that have no other.
#[cfg(test)]
pub(super) struct Evex;

#[cfg(test)]
vnni!(Evex, "{{evex}} vpdpbusd {}, {}, {}");
