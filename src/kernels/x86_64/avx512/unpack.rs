//! Every block format, sixteen rows at a time.

use super::rows::{
    Quads, Rows, add_where, byte, each, high_nibbles, low_halves, low_nibbles, signed_byte, sum_quads, transpose,
    transpose_lanes,
};
use crate::quant::Block;
use crate::quant::iq4::{IQ4_NL, VALUES};
use crate::quant::k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use crate::quant::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use std::arch::x86_64::*;

/// Scales or minima of a block's groups, a lane for each row; a small block uses the front.
pub(super) type Groups = [__m512; 16];

/// Integers for a block's groups, likewise.
pub(super) type Dots = [__m512i; 16];

/// A quantised block type, taken apart as `x[i] = scales[g] · (q[i] − OFFSET) − mins[g]` with unsigned `q`, the same
/// values as [`Block::unpack`] gives.
pub(super) trait Unpack: Block {
    /// What is to be subtracted from the values.
    const OFFSET: i32;
    /// Whether there are minima.
    const MINS: bool;

    /// Scales and minima.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW; `rows` stands at the beginning of a block of each of 16 rows.
    unsafe fn scales(rows: Rows, scales: &mut Groups, mins: &mut Groups);

    /// Calls `f(j, halves)` for each group `j` of 32 values, in any order: values 0..16 and 16..32 of the group.
    ///
    /// # Safety
    /// As for `scales`.
    unsafe fn values(rows: Rows, f: impl FnMut(usize, [Quads; 2]));

    /// The dot products of each group with those of `C` columns, unsigned values as they are. A part at a time, asks for
    /// as many bytes from `ahead` on as 16 blocks have: all at once would hold up the reads that are waited for.
    ///
    /// # Safety
    /// As for `scales`, and the CPU has VNNI; each of `x` has a block's values.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn dots<const C: usize>(rows: Rows, x: [*const i8; C], ahead: *const u8) -> [Dots; C] {
        let mut dots = [[_mm512_setzero_si512(); 16]; C];
        let part = 16 * size_of::<Self>() / (Self::LEN / 32);
        let mut ahead = ahead;
        // SAFETY: the contract of this function.
        unsafe {
            Self::values(rows, |j, [first, second]| {
                Rows::prefetch(ahead, part);
                ahead = ahead.wrapping_add(part);
                for c in 0..C {
                    let x16 = |i: usize| _mm512_broadcast_i32x4(_mm_loadu_si128(x[c].add(32 * j + i).cast()));
                    let (low, high) = (x16(0), x16(16));
                    let zero = _mm512_setzero_si512();
                    let dot = each!(first => _mm512_dpbusd_epi32(zero, first, low));
                    if Self::GROUP == 32 {
                        dots[c][j] = sum_quads(each!(dot, second => _mm512_dpbusd_epi32(dot, second, high)));
                    } else {
                        dots[c][2 * j] = sum_quads(dot);
                        dots[c][2 * j + 1] = sum_quads(each!(second => _mm512_dpbusd_epi32(zero, second, high)));
                    }
                }
            });
        }
        dots
    }
}

impl Unpack for Q4_0 {
    const OFFSET: i32 = 8;
    const MINS: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(rows: Rows, scales: &mut Groups, _mins: &mut Groups) {
        // SAFETY: the contract of this function.
        scales[0] = unsafe { rows.halves(0) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn values(rows: Rows, mut f: impl FnMut(usize, [Quads; 2])) {
        // SAFETY: the contract of this function.
        let q = unsafe { rows.quads(2) };
        f(0, [low_nibbles(q), high_nibbles(q)]);
    }
}

impl Unpack for Q4_1 {
    const OFFSET: i32 = 0;
    const MINS: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(rows: Rows, scales: &mut Groups, mins: &mut Groups) {
        // SAFETY: the contract of this function.
        unsafe {
            scales[0] = rows.halves(0);
            mins[0] = negative(rows.halves(2));
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn values(rows: Rows, mut f: impl FnMut(usize, [Quads; 2])) {
        // SAFETY: the contract of this function.
        let q = unsafe { rows.quads(4) };
        f(0, [low_nibbles(q), high_nibbles(q)]);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn negative(x: __m512) -> __m512 {
    _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(x), _mm512_set1_epi32(i32::MIN)))
}

/// The nibbles at `qs` with the fifth bits, a little-endian word at `qh`.
///
/// # Safety
/// The CPU has AVX-512 F and BW; the rows have 16 bytes from `qh` and from `qs` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn five_bits(rows: Rows, qh: usize, qs: usize) -> [Quads; 2] {
    // SAFETY: the contract of this function.
    let (word, q) = unsafe { (rows.quads(qh), rows.quads(qs)) };
    // Byte i of a half gets the byte of the word that holds its bit, and is compared with that bit alone.
    let bit = _mm512_set1_epi64(0x8040_2010_0804_0201_u64 as i64);
    let add = |q: Quads, high: i64| -> Quads {
        let spread = 0x0101_0101_0101_0101;
        let spread = _mm512_broadcast_i32x4(_mm_set_epi64x((high + 1) * spread, high * spread));
        each!(q, word => {
            let set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(word, spread), bit);
            _mm512_mask_add_epi8(q, set, q, _mm512_set1_epi8(16))
        })
    };
    [add(low_nibbles(q), 0), add(high_nibbles(q), 2)]
}

impl Unpack for Q5_0 {
    const OFFSET: i32 = 16;
    const MINS: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(rows: Rows, scales: &mut Groups, _mins: &mut Groups) {
        // SAFETY: the contract of this function.
        scales[0] = unsafe { rows.halves(0) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn values(rows: Rows, mut f: impl FnMut(usize, [Quads; 2])) {
        // SAFETY: the contract of this function.
        f(0, unsafe { five_bits(rows, 2, 6) });
    }
}

impl Unpack for Q5_1 {
    const OFFSET: i32 = 0;
    const MINS: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(rows: Rows, scales: &mut Groups, mins: &mut Groups) {
        // SAFETY: the contract of this function.
        unsafe {
            scales[0] = rows.halves(0);
            mins[0] = negative(rows.halves(2));
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn values(rows: Rows, mut f: impl FnMut(usize, [Quads; 2])) {
        // SAFETY: the contract of this function.
        f(0, unsafe { five_bits(rows, 4, 8) });
    }
}

/// Signed bytes as unsigned ones that are 128 larger.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn biased(q: Quads) -> Quads {
    each!(q => _mm512_xor_si512(q, _mm512_set1_epi8(-128)))
}

impl Unpack for Q8_0 {
    const OFFSET: i32 = 128;
    const MINS: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(rows: Rows, scales: &mut Groups, _mins: &mut Groups) {
        // SAFETY: the contract of this function.
        scales[0] = unsafe { rows.halves(0) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn values(rows: Rows, mut f: impl FnMut(usize, [Quads; 2])) {
        // SAFETY: the contract of this function.
        f(0, unsafe { [biased(rows.quads(2)), biased(rows.quads(18))] });
    }
}

impl Unpack for IQ4_NL {
    const OFFSET: i32 = 128;
    const MINS: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(rows: Rows, scales: &mut Groups, _mins: &mut Groups) {
        // SAFETY: the contract of this function.
        scales[0] = unsafe { rows.halves(0) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn values(rows: Rows, mut f: impl FnMut(usize, [Quads; 2])) {
        const TABLE: u128 = {
            let mut bytes = [0; 16];
            let mut i = 0;
            while i < 16 {
                bytes[i] = (VALUES[i] as u8) ^ 0x80;
                i += 1;
            }
            u128::from_le_bytes(bytes)
        };
        let table = _mm512_broadcast_i32x4(_mm_set_epi64x((TABLE >> 64) as i64, TABLE as i64));
        // SAFETY: the contract of this function.
        let q = unsafe { rows.quads(2) };
        let (low, high) = (low_nibbles(q), high_nibbles(q));
        f(0, [each!(low => _mm512_shuffle_epi8(table, low)), each!(high => _mm512_shuffle_epi8(table, high))]);
    }
}

/// The low two bits of every byte, after `shift`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn two_bits(q: Quads, shift: i32) -> Quads {
    let shift = _mm_cvtsi32_si128(shift);
    each!(q => _mm512_and_si512(_mm512_srl_epi16(q, shift), _mm512_set1_epi8(3)))
}

impl Unpack for Q2_K {
    const OFFSET: i32 = 0;
    const MINS: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(rows: Rows, scales: &mut Groups, mins: &mut Groups) {
        // SAFETY: the contract of this function.
        let (bytes, d, dmin) = unsafe { (rows.quads(0), rows.halves(80), rows.halves(82)) };
        let (low, high) = (transpose(low_nibbles(bytes)), transpose(high_nibbles(bytes)));
        for g in 0..16 {
            scales[g] = _mm512_mul_ps(d, byte(low[g / 4], g % 4));
            mins[g] = _mm512_mul_ps(dmin, byte(high[g / 4], g % 4));
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn values(rows: Rows, mut f: impl FnMut(usize, [Quads; 2])) {
        for half in 0..2 {
            // SAFETY: the contract of this function.
            let q = unsafe { [rows.quads(16 + 32 * half), rows.quads(32 + 32 * half)] };
            for j in 0..4 {
                let shift = 2 * j as i32;
                f(4 * half + j, [two_bits(q[0], shift), two_bits(q[1], shift)]);
            }
        }
    }
}

impl Unpack for Q3_K {
    const OFFSET: i32 = 4;
    const MINS: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(rows: Rows, scales: &mut Groups, _mins: &mut Groups) {
        // Scales are at 96; a row may end at 110, after d.
        // SAFETY: the contract of this function.
        let bytes = unsafe { rows.quads(94) };
        let order = _mm512_broadcast_i32x4(_mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, -1, -1));
        let [a, b, high, d] = transpose(each!(bytes => _mm512_shuffle_epi8(bytes, order)));
        let d = low_halves(d);
        let nibble = _mm512_set1_epi32(0x0f0f_0f0f);
        for q in 0..4 {
            let low = _mm512_srl_epi32(if q % 2 == 0 { a } else { b }, _mm_cvtsi32_si128(4 * (q as i32 / 2)));
            let high = _mm512_srl_epi32(high, _mm_cvtsi32_si128(2 * q as i32));
            let high = _mm512_slli_epi32::<4>(_mm512_and_si512(high, _mm512_set1_epi32(0x0303_0303)));
            let six = _mm512_or_si512(_mm512_and_si512(low, nibble), high);
            for i in 0..4 {
                let scale = _mm512_sub_ps(byte(six, i), _mm512_set1_ps(32.0));
                scales[4 * q + i] = _mm512_mul_ps(d, scale);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn values(rows: Rows, mut f: impl FnMut(usize, [Quads; 2])) {
        // SAFETY: the contract of this function.
        let third = unsafe { [rows.quads(0), rows.quads(16)] };
        for half in 0..2 {
            // SAFETY: the contract of this function.
            let q = unsafe { [rows.quads(32 + 32 * half), rows.quads(48 + 32 * half)] };
            for i in 0..4 {
                let j = 4 * half + i;
                let bit = (1u8 << j) as i8;
                let value = |e: usize| add_where(two_bits(q[e], 2 * i as i32), third[e], bit, 4);
                f(j, [value(0), value(1)]);
            }
        }
    }
}

/// d, dmin and the 6-bit scales and minima of Q4_K and Q5_K; see [`crate::quant::k::q4_k_scales_mins`].
///
/// # Safety
/// The CPU has AVX-512 F and BW; `rows` stands at the beginning of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn scales_mins(rows: Rows, scales: &mut Groups, mins: &mut Groups) {
    // SAFETY: the contract of this function.
    let [d, a, b, c] = transpose(unsafe { rows.quads(0) });
    let (d, dmin) = (low_halves(d), low_halves(_mm512_srli_epi32::<16>(d)));
    let first = |v| _mm512_and_si512(v, _mm512_set1_epi32(0x3f3f_3f3f));
    let others = |low, v| {
        let low = _mm512_and_si512(low, _mm512_set1_epi32(0x0f0f_0f0f));
        let high = _mm512_and_si512(_mm512_srli_epi32::<6>(v), _mm512_set1_epi32(0x0303_0303));
        _mm512_or_si512(low, _mm512_slli_epi32::<4>(high))
    };
    let s = [first(a), others(c, a)];
    let m = [first(b), others(_mm512_srli_epi32::<4>(c), b)];
    for g in 0..8 {
        scales[g] = _mm512_mul_ps(d, byte(s[g / 4], g % 4));
        mins[g] = _mm512_mul_ps(dmin, byte(m[g / 4], g % 4));
    }
}

impl Unpack for Q4_K {
    const OFFSET: i32 = 0;
    const MINS: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(rows: Rows, scales: &mut Groups, mins: &mut Groups) {
        // SAFETY: the contract of this function.
        unsafe { scales_mins(rows, scales, mins) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn values(rows: Rows, mut f: impl FnMut(usize, [Quads; 2])) {
        for i in 0..4 {
            // SAFETY: the contract of this function.
            let q = unsafe { [rows.quads(16 + 32 * i), rows.quads(32 + 32 * i)] };
            f(2 * i, [low_nibbles(q[0]), low_nibbles(q[1])]);
            f(2 * i + 1, [high_nibbles(q[0]), high_nibbles(q[1])]);
        }
    }
}

impl Unpack for Q5_K {
    const OFFSET: i32 = 0;
    const MINS: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(rows: Rows, scales: &mut Groups, mins: &mut Groups) {
        // SAFETY: the contract of this function.
        unsafe { scales_mins(rows, scales, mins) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn values(rows: Rows, mut f: impl FnMut(usize, [Quads; 2])) {
        // SAFETY: the contract of this function.
        let fifth = unsafe { [rows.quads(16), rows.quads(32)] };
        for i in 0..4 {
            // SAFETY: the contract of this function.
            let q = unsafe { [rows.quads(48 + 32 * i), rows.quads(64 + 32 * i)] };
            let bit = 1u8 << (2 * i);
            let low = |e: usize| add_where(low_nibbles(q[e]), fifth[e], bit as i8, 16);
            let high = |e: usize| add_where(high_nibbles(q[e]), fifth[e], (2 * bit) as i8, 16);
            f(2 * i, [low(0), low(1)]);
            f(2 * i + 1, [high(0), high(1)]);
        }
    }
}

impl Unpack for Q6_K {
    const OFFSET: i32 = 32;
    const MINS: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales(rows: Rows, scales: &mut Groups, _mins: &mut Groups) {
        // SAFETY: the contract of this function.
        let (bytes, d) = unsafe { (rows.quads(192), rows.halves(208)) };
        let words = transpose(bytes);
        for g in 0..16 {
            scales[g] = _mm512_mul_ps(d, signed_byte(words[g / 4], g % 4));
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn values(rows: Rows, mut f: impl FnMut(usize, [Quads; 2])) {
        /// The nibbles with two more bits above: those of `high` at `shift`.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        fn join(low: Quads, high: Quads, shift: i32) -> Quads {
            let high = two_bits(high, shift);
            each!(low, high => _mm512_or_si512(low, _mm512_slli_epi16::<4>(high)))
        }
        for half in 0..2 {
            // SAFETY: the contract of this function.
            let high = unsafe { [rows.quads(128 + 32 * half), rows.quads(144 + 32 * half)] };
            for i in 0..2 {
                let at = 64 * half + 32 * i;
                // SAFETY: the contract of this function.
                let low = unsafe { [rows.quads(at), rows.quads(at + 16)] };
                let (j, shift) = (4 * half + i, 2 * i as i32);
                let first = |e: usize| join(low_nibbles(low[e]), high[e], shift);
                let third = |e: usize| join(high_nibbles(low[e]), high[e], shift + 4);
                f(j, [first(0), first(1)]);
                f(j + 2, [third(0), third(1)]);
            }
        }
    }

    /// A row at a time, 64 bytes of it: with groups of 16, rows side by side take half as many instructions again.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn dots<const C: usize>(rows: Rows, x: [*const i8; C], ahead: *const u8) -> [Dots; C] {
        let mut dots = [[_mm512_setzero_si512(); 16]; C];
        let part = 16 * size_of::<Self>() / 8;
        // The high bits of the second 32 of 64 values are two further up.
        let up = _mm512_inserti64x4::<1>(_mm512_set1_epi16(4), _mm256_set1_epi16(2));
        let down = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(2));
        let nibble = _mm512_set1_epi8(15);
        // `low | high & 0x30`
        let join = |low, high| _mm512_ternarylogic_epi32::<0xf8>(low, high, _mm512_set1_epi8(0x30));
        for half in 0..2 {
            let mut sums = [[[_mm512_setzero_si512(); 4]; 2]; C];
            for q in 0..4 {
                Rows::prefetch(ahead.wrapping_add((4 * half + q) * part), part);
                let mut dot = [[[_mm512_setzero_si512(); 4]; 2]; C];
                for i in 0..4 {
                    // SAFETY: the contract of this function: the fields of a block, and its values.
                    unsafe {
                        let row = rows.row(4 * q + i);
                        let low = _mm512_loadu_si512(row.add(64 * half).cast());
                        let high = _mm512_broadcast_i64x4(_mm256_loadu_si256(row.add(128 + 32 * half).cast()));
                        let first = join(_mm512_and_si512(low, nibble), _mm512_sllv_epi16(high, up));
                        let low = _mm512_and_si512(_mm512_srli_epi16::<4>(low), nibble);
                        let second = join(low, _mm512_srlv_epi16(high, down));
                        for c in 0..C {
                            let x = x[c].add(128 * half);
                            let zero = _mm512_setzero_si512();
                            dot[c][0][i] = _mm512_dpbusd_epi32(zero, first, _mm512_loadu_si512(x.cast()));
                            dot[c][1][i] = _mm512_dpbusd_epi32(zero, second, _mm512_loadu_si512(x.add(64).cast()));
                        }
                    }
                }
                for c in 0..C {
                    sums[c][0][q] = sum_quads(dot[c][0]);
                    sums[c][1][q] = sum_quads(dot[c][1]);
                }
            }
            for c in 0..C {
                for e in 0..2 {
                    dots[c][8 * half + 4 * e..][..4].copy_from_slice(&transpose_lanes(sums[c][e]));
                }
            }
        }
        dots
    }
}
