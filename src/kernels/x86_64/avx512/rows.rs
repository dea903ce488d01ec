//! Sixteen weight rows at once: a lane of a result is a row.
//!
//! Rows are read 16 bytes at a time. A *quad* holds 16 bytes of four rows; of four quads, quad `j` has rows `j`, `4 + j`,
//! `8 + j` and `12 + j` in its 128-bit lanes, so that a transpose within the lanes puts row `r` into lane `r`.

use std::arch::x86_64::*;

/// Four quads: 16 bytes of 16 rows.
pub(super) type Quads = [__m512i; 4];

/// An expression of each quad. `array::map` would keep its closure out of line: it lacks the instruction sets that the
/// closure needs.
macro_rules! each {
    ($($q:ident),+ => $f:expr) => {
        [each!(@ 0, $($q),+ => $f), each!(@ 1, $($q),+ => $f), each!(@ 2, $($q),+ => $f), each!(@ 3, $($q),+ => $f)]
    };
    (@ $i:literal, $($q:ident),+ => $f:expr) => {{
        $(let $q = $q[$i];)+
        $f
    }};
}
pub(super) use each;

/// The same place of 16 rows that lie `stride` bytes apart.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    base: *const u8,
    stride: usize,
}

impl Rows {
    /// # Safety
    /// Whatever is read through the result lies in the 16 rows.
    pub(super) unsafe fn new(base: *const u8, stride: usize) -> Self {
        Self { base, stride }
    }

    /// `bytes` further on in every row.
    #[inline(always)]
    pub(super) fn skip(self, bytes: usize) -> Self {
        Self { base: self.base.wrapping_add(bytes), stride: self.stride }
    }

    /// Row `r`.
    #[inline(always)]
    pub(super) fn row(self, r: usize) -> *const u8 {
        self.base.wrapping_add(r * self.stride)
    }

    /// Bytes `offset..offset + 16` of every row.
    ///
    /// # Safety
    /// They are there to read.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn quads(self, offset: usize) -> Quads {
        // SAFETY: the contract of this function.
        let load = |r: usize| unsafe { _mm_loadu_si128(self.base.add(r * self.stride + offset).cast()) };
        let j = [0, 1, 2, 3];
        each!(j => {
            let q = _mm512_castsi128_si512(load(j));
            let q = _mm512_inserti32x4::<1>(q, load(4 + j));
            let q = _mm512_inserti32x4::<2>(q, load(8 + j));
            _mm512_inserti32x4::<3>(q, load(12 + j))
        })
    }

    /// The f16 at `offset` of every row.
    ///
    /// # Safety
    /// They are there to read.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn halves(self, offset: usize) -> __m512 {
        // SAFETY: the contract of this function.
        let load = |r: usize| unsafe { self.base.add(r * self.stride + offset).cast::<i16>().read_unaligned() };
        let l = load;
        #[rustfmt::skip]
        let h = _mm256_setr_epi16(
            l(0), l(1), l(2), l(3), l(4), l(5), l(6), l(7), l(8), l(9), l(10), l(11), l(12), l(13), l(14), l(15),
        );
        _mm512_cvtph_ps(h)
    }

    /// Asks for `bytes` bytes from `from` on.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn prefetch(from: *const u8, bytes: usize) {
        for line in (0..bytes).step_by(64) {
            // A prefetch reads nothing, so any address will do.
            _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(line).cast());
        }
    }
}

/// Double word `i` of every row in result `i`, row `r` in lane `r`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose([a, b, c, d]: Quads) -> [__m512i; 4] {
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// The sum of the four double words of every row, row `r` in lane `r`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn sum_quads([a, b, c, d]: Quads) -> __m512i {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}

/// The 128-bit lanes `i` of all four side by side in result `i`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose_lanes([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab, cd) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(c, d));
    let (ab_high, cd_high) = (_mm512_shuffle_i32x4::<0xee>(a, b), _mm512_shuffle_i32x4::<0xee>(c, d));
    [
        _mm512_shuffle_i32x4::<0x88>(ab, cd),
        _mm512_shuffle_i32x4::<0xdd>(ab, cd),
        _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
        _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high),
    ]
}

/// The low halves of double words as f16.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn low_halves(v: __m512i) -> __m512 {
    _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v))
}

/// Byte `i` of every double word, unsigned.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn byte(v: __m512i, i: usize) -> __m512 {
    let shifted = _mm512_srl_epi32(v, _mm_cvtsi32_si128(8 * i as i32));
    _mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(0xff)))
}

/// Byte `i` of every double word, signed.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn signed_byte(v: __m512i, i: usize) -> __m512 {
    let shifted = _mm512_sll_epi32(v, _mm_cvtsi32_si128(24 - 8 * i as i32));
    _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(shifted))
}

/// The low nibble of every byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn low_nibbles(q: Quads) -> Quads {
    each!(q => _mm512_and_si512(q, _mm512_set1_epi8(15)))
}

/// The high nibble of every byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn high_nibbles(q: Quads) -> Quads {
    each!(q => _mm512_and_si512(_mm512_srli_epi16::<4>(q), _mm512_set1_epi8(15)))
}

/// `q + value` where `bits` has the bit `bit` set.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn add_where(q: Quads, bits: Quads, bit: i8, value: i8) -> Quads {
    each!(q, bits => {
        let set = _mm512_test_epi8_mask(bits, _mm512_set1_epi8(bit));
        _mm512_mask_add_epi8(q, set, q, _mm512_set1_epi8(value))
    })
}
