//! bf16 matmul with `vdpbf16ps`: weights of any type rounded to bf16, a lane of every vector is a weight row.
//!
//! As in [`super::panel`], weights are unpacked a chunk at a time into the L1 cache and all columns go by; the running
//! sums lie side by side meanwhile. An output is one chain over `k` of pairs, each of which adds
//! two products without rounding them and rounds the sum: within `k · 2⁻²⁴ · Σ |w x|` of the exact sum of the rounded
//! values. Values below 2⁻¹²⁶ count as zero, as the instruction has it.

use super::matmul_q8::mask;
use super::rows::{Rows, transpose};
use super::sums::{self, R, Sums, aligned};
use crate::kernels::{Bf16Columns, Dequantize, OutTile};
use crate::quant::BlockType;
use half::bf16;
use std::arch::x86_64::*;

/// Values of a row in a chunk: with 32 rows, 16 KiB.
const CHUNK: usize = Bf16Columns::CHUNK;
/// Columns in a pass over the weights: their chunks stay in the L2 cache.
const COLUMNS: usize = 640;

/// A chunk of 32 rows.
#[repr(C, align(64))]
struct Chunk {
    /// Two values of each row, the rows side by side: `[R, CHUNK / 2, 16 rows, 2]`.
    panels: [[[bf16; 32]; CHUNK / 2]; R],
    /// Sixteen rows as they come.
    rows: [[bf16; CHUNK]; 16],
    /// One row.
    row: [f32; CHUNK],
}

/// A chunk of a column.
type Column = [bf16; Bf16Columns::STRIDE];

/// Rounds to bf16, nearest even.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn round(x: &[f32], out: &mut [bf16]) {
    assert_eq!(x.len(), out.len(), "row length");
    for (x, out) in x.chunks(16).zip(out.chunks_mut(16)) {
        let lanes = mask(x.len());
        // SAFETY: lanes outside the mask are neither read nor written; the others lie in the slices.
        unsafe {
            let rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, x.as_ptr()));
            let bits = std::mem::transmute::<__m256bh, __m256i>(rounded);
            _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), lanes, bits);
        }
    }
}

/// `out[c, r] = Σ_k bf16(w[r, k]) · x[c, k]`; `dequantize` is that of the weights' type `t`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn matmul(
    t: BlockType,
    dequantize: Dequantize,
    w: &[u8],
    x: Bf16Columns<'_>,
    out: &mut OutTile<'_>,
    scratch: &mut Vec<f32>,
) {
    let k = x.k;
    let row_bytes = t.row_bytes(k).expect("whole blocks in a row");
    assert_eq!(Some(w.len()), out.rows().checked_mul(row_bytes), "weights for the tile");
    assert_eq!(x.cols, out.cols(), "activations for the tile");
    let width = out.cols().min(COLUMNS);
    let (chunk, sum) = (size_of::<Chunk>() / 4, 16 * R);
    let scratch = aligned(scratch, chunk + out.rows().div_ceil(16 * R) * width * sum);
    // SAFETY: aligned and one after the other inside `scratch`, by the lines above; any bits are a `Chunk` and a
    // column's sums.
    let (chunk, sums) = unsafe {
        let at = scratch.as_mut_ptr();
        (&mut *at.cast::<Chunk>(), at.add(chunk).cast::<sums::Column>())
    };

    for c in (0..out.cols()).step_by(COLUMNS) {
        let width = COLUMNS.min(out.cols() - c);
        for at in (0..k).step_by(CHUNK) {
            let len = CHUNK.min(k - at);
            let columns = x.chunk(at, c, width).as_chunks().0;
            for first in (0..out.rows()).step_by(16 * R) {
                let rows = (16 * R).min(out.rows() - first);
                let bytes = |r: usize| {
                    let start = r * row_bytes + at / t.block_len() * t.block_bytes();
                    &w[start..start + len / t.block_len() * t.block_bytes()]
                };
                for p in 0..rows.div_ceil(16) {
                    chunk.fill(p, t, len, dequantize, |r| (16 * p + r < rows).then(|| bytes(first + 16 * p + r)));
                }
                // The next rows come while the columns go by.
                for r in first + rows..out.rows().min(first + 2 * rows) {
                    let bytes = bytes(r);
                    Rows::prefetch(bytes.as_ptr(), bytes.len());
                }
                // SAFETY: sums for as many columns are there for each 32 rows; rows and columns are those of the tile.
                unsafe {
                    let pass = Pass {
                        panels: &chunk.panels,
                        columns,
                        len,
                        sums: Sums {
                            waiting: sums.add(first / (16 * R) * width),
                            first: at == 0,
                            out: (at + len == k).then(|| (out.at(c, first), out.stride())),
                            lanes: [rows.min(16), rows.saturating_sub(16)],
                        },
                    };
                    pass.run();
                }
            }
        }
    }
}

impl Chunk {
    /// Panel `p` from `len` values of 16 rows of type `t`; rows that are not there become zeros.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn fill<'w>(
        &mut self,
        p: usize,
        t: BlockType,
        len: usize,
        dequantize: Dequantize,
        bytes: impl Fn(usize) -> Option<&'w [u8]>,
    ) {
        let padded = len.next_multiple_of(8);
        let halves = matches!(t, BlockType::F16 | BlockType::BF16);
        for r in 0..16 {
            let row = &mut self.rows[r][..padded];
            row[len..].fill(bf16::ZERO);
            match bytes(r) {
                None => row.fill(bf16::ZERO),
                // SAFETY: `row` is longer than the `len` values of two bytes, which any bits are.
                Some(bytes) if halves => unsafe {
                    bytes.as_ptr().copy_to_nonoverlapping(row.as_mut_ptr().cast(), bytes.len());
                },
                Some(bytes) => {
                    dequantize(bytes, &mut self.row[..len]);
                    round(&self.row[..len], &mut row[..len]);
                }
            }
        }
        // SAFETY: `rows` holds 16 rows of CHUNK values, a multiple of 8 and no less than `padded`.
        unsafe {
            let rows = Rows::new(self.rows.as_ptr().cast(), 2 * CHUNK);
            for i in 0..padded / 8 {
                for (j, v) in transpose(rows.quads(16 * i)).into_iter().enumerate() {
                    let v = if t == BlockType::F16 { from_f16(v) } else { v };
                    _mm512_store_si512(self.panels[p][4 * i + j].as_mut_ptr().cast(), v);
                }
            }
        }
    }
}

/// f16 to bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn from_f16(v: __m512i) -> __m512i {
    let low = _mm512_cvtph_ps(_mm512_castsi512_si256(v));
    let high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(v));
    // SAFETY: the same bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Both panels by all columns, a chunk of each.
struct Pass<'a> {
    panels: &'a [[[bf16; 32]; CHUNK / 2]; R],
    columns: &'a [Column],
    /// Values in the chunk.
    len: usize,
    sums: Sums,
}

impl Pass<'_> {
    /// In tiles as large as the registers allow.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW, VL and BF16; panels and columns hold `len` values and a zero; the sums are
    /// good for all of them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn run(&self) {
        let mut c = 0;
        // SAFETY: the contract of this function; columns stay below their number.
        unsafe {
            while c + 12 <= self.columns.len() {
                self.tile::<12>(c);
                c += 12;
            }
            while c + 4 <= self.columns.len() {
                self.tile::<4>(c);
                c += 4;
            }
            while c < self.columns.len() {
                self.tile::<1>(c);
                c += 1;
            }
        }
    }

    /// Columns `c..c + C`.
    ///
    /// # Safety
    /// As for [`Pass::run`]; there are that many columns.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn tile<const C: usize>(&self, c: usize) {
        // SAFETY: the contract of this function.
        unsafe {
            let x: &[Column; C] = &*self.columns.as_ptr().add(c).cast();
            let mut acc = self.sums.load::<C>(c);
            for p in 0..self.len.div_ceil(2) {
                let w: [__m512bh; R] = std::array::from_fn(|r| load(&self.panels[r], p));
                for i in 0..C {
                    let pair = _mm512_set1_epi32(x[i].as_ptr().add(2 * p).cast::<i32>().read_unaligned());
                    let pair = std::mem::transmute::<__m512i, __m512bh>(pair);
                    for r in 0..R {
                        acc[r][i] = _mm512_dpbf16_ps(acc[r][i], w[r], pair);
                    }
                }
            }
            self.sums.store(c, acc);
        }
    }
}

/// Pair `p` of sixteen rows.
///
/// # Safety
/// The CPU has AVX-512 F; `p` is below `CHUNK / 2`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(panel: &[[bf16; 32]; CHUNK / 2], p: usize) -> __m512bh {
    // SAFETY: inside the panel, by the contract of this function, and aligned like it.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_load_si512(panel.as_ptr().add(p).cast())) }
}
