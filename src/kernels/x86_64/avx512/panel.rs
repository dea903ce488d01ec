//! Many columns: weights are unpacked a chunk at a time into the L1 cache, and all columns go by.
//!
//! A chunk is up to 32 rows by [`CHUNK`] values. Its running sums wait in the output between chunks, so nothing of a
//! matrix is ever held unpacked but the chunk.

use super::matmul_q8::mask;
use super::rows::{Rows, transpose};
use super::unpack::{Groups, Unpack};
use crate::kernels::{OutTile, Q8Rows};
use std::arch::x86_64::*;

/// Values of a row in a chunk: with 32 rows, 16 KiB.
const CHUNK: usize = 512;
/// Panels that share a pass over the columns.
const R: usize = 2;
/// Groups of 16 values in a chunk.
const GROUPS: usize = CHUNK / 16;

/// Sixteen rows of a chunk.
#[repr(C, align(64))]
struct Panel {
    /// Four values of each row, the rows side by side: `[CHUNK / 4, 16 rows, 4]`.
    values: [[u8; 64]; CHUNK / 4],
    /// `[groups, 16 rows]`.
    scales: [[f32; 16]; GROUPS],
    /// `[groups, 16 rows]`.
    mins: [[f32; 16]; GROUPS],
}

/// What a column adds to a chunk besides its quants, for each of its groups.
#[derive(Clone, Copy)]
struct Column {
    /// What the dots start from, which makes up for the offset of unsigned values; types with minima have none.
    start: [i32; GROUPS],
    /// Sums of the quantised values.
    sums: [f32; GROUPS],
}

/// Rows `first..first + count` of the tile, in panels of 16; two panels share a pass over the columns.
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL and VNNI; at `w` there are `count` rows of `x.k` values, rounded up to a multiple of 16;
/// `x` has `out.cols()` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn multiply<B: Unpack>(
    w: *const u8,
    row_bytes: usize,
    first: usize,
    count: usize,
    x: Q8Rows<'_>,
    out: &mut OutTile<'_>,
    scratch: &mut Vec<f32>,
) {
    let needed = 2 * size_of::<Panel>() / 4 + 16;
    if scratch.len() < needed {
        scratch.resize(needed, 0.0);
    }
    let skip = scratch.as_ptr().align_offset(64);
    assert!(skip < 16, "an aligned start");
    // SAFETY: aligned, and inside `scratch`, by the lines above; any bits are a `Panel`.
    let panels: &mut [Panel; 2] = unsafe { &mut *scratch.as_mut_ptr().add(skip).cast() };
    for r in (0..count).step_by(32) {
        let lanes = [(count - r).min(16), count.saturating_sub(r + 16).min(16)];
        for at in (0..x.k).step_by(CHUNK) {
            let len = CHUNK.min(x.k - at);
            let bytes = at / B::LEN * size_of::<B>();
            // SAFETY: 16 or 32 rows from `r` on, by the contract of this function; `len` is a multiple of the block.
            unsafe {
                // Without a second sixteen, its panel holds something old, and no lane of it is stored.
                for (i, panel) in panels.iter_mut().enumerate().filter(|(i, _)| lanes[*i] > 0) {
                    panel.unpack::<B>(Rows::new(w.add((r + 16 * i) * row_bytes), row_bytes).skip(bytes), len);
                }
                // Few kinds of block, many types: the tiles are compiled once for each kind.
                let columns = match (B::GROUP, B::MINS) {
                    (32, false) => columns::<32, false>,
                    (32, true) => columns::<32, true>,
                    (_, false) => columns::<16, false>,
                    (_, true) => columns::<16, true>,
                };
                columns(panels, B::OFFSET, x, at, len, first + r, lanes, out);
            }
        }
    }
}

impl Panel {
    /// `len` values from each of 16 rows.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW; the rows have that many, and it is a multiple of the block.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack<B: Unpack>(&mut self, mut rows: Rows, len: usize) {
        let (mut scales, mut mins): (Groups, Groups) = ([_mm512_setzero_ps(); 16], [_mm512_setzero_ps(); 16]);
        let groups = B::LEN / B::GROUP;
        for b in 0..len / B::LEN {
            // SAFETY: the contract of this function; places are inside the panel, whose length `len` does not exceed.
            unsafe {
                B::scales(rows, &mut scales, &mut mins);
                for g in 0..groups {
                    _mm512_store_ps(self.scales[b * groups + g].as_mut_ptr(), scales[g]);
                    if B::MINS {
                        _mm512_store_ps(self.mins[b * groups + g].as_mut_ptr(), mins[g]);
                    }
                }
                let values = &mut self.values[b * B::LEN / 4..][..B::LEN / 4];
                B::values(rows, |j, halves| {
                    for (h, quads) in halves.into_iter().enumerate() {
                        for (i, v) in transpose(quads).into_iter().enumerate() {
                            _mm512_store_si512(values[8 * j + 4 * h + i].as_mut_ptr().cast(), v);
                        }
                    }
                });
            }
            rows = rows.skip(size_of::<B>());
        }
    }
}

/// All columns by a chunk of both panels, in tiles as large as the registers allow.
///
/// # Safety
/// As for [`multiply`]; `len` values from `at` on are in the panels, in groups of `GROUP`, and rows `row..row + lanes` of
/// the tile are theirs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn columns<const GROUP: usize, const MINS: bool>(
    panels: &[Panel; 2],
    offset: i32,
    x: Q8Rows<'_>,
    at: usize,
    len: usize,
    row: usize,
    lanes: [usize; 2],
    out: &mut OutTile<'_>,
) {
    let mut c = 0;
    // SAFETY: the contract of this function; columns stay below `out.cols()`.
    unsafe {
        // Groups of 16 need registers for two dots.
        while GROUP == 32 && c + 6 <= out.cols() {
            tile::<GROUP, MINS, 6>(panels, offset, x, c, at, len, row, lanes, out);
            c += 6;
        }
        while c + 4 <= out.cols() {
            tile::<GROUP, MINS, 4>(panels, offset, x, c, at, len, row, lanes, out);
            c += 4;
        }
        if c + 2 <= out.cols() {
            tile::<GROUP, MINS, 2>(panels, offset, x, c, at, len, row, lanes, out);
            c += 2;
        }
        if c < out.cols() {
            tile::<GROUP, MINS, 1>(panels, offset, x, c, at, len, row, lanes, out);
        }
    }
}

/// Both panels by columns `c..c + C`.
///
/// # Safety
/// As for [`columns`]; there are that many columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const GROUP: usize, const MINS: bool, const C: usize>(
    panels: &[Panel; 2],
    offset: i32,
    x: Q8Rows<'_>,
    c: usize,
    at: usize,
    len: usize,
    row: usize,
    lanes: [usize; 2],
    out: &mut OutTile<'_>,
) {
    // SAFETY: the contract of this function.
    unsafe {
        let mut side = [Column { start: [0; GROUPS], sums: [0.0; GROUPS] }; C];
        for (i, side) in side.iter_mut().enumerate() {
            side.fill::<GROUP>(offset, x.sums.as_ptr().add(((c + i) * x.k + at) / 16), len / 16);
        }
        let qs: [*const i8; C] = std::array::from_fn(|i| x.qs.as_ptr().add((c + i) * x.k + at));
        let sx: [*const f32; C] = std::array::from_fn(|i| x.scales.as_ptr().add(((c + i) * x.k + at) / 32));
        let mut acc = [[_mm512_setzero_ps(); C]; R];
        if at > 0 {
            for r in (0..R).filter(|r| lanes[*r] > 0) {
                for i in 0..C {
                    acc[r][i] = _mm512_maskz_loadu_ps(mask(lanes[r]), out.at(c + i, row + 16 * r));
                }
            }
        }
        let per_block = 32 / GROUP;
        for b in 0..len / 32 {
            let mut t = [[_mm512_setzero_ps(); C]; R];
            for h in 0..per_block {
                let g = b * per_block + h;
                let mut dots = [[_mm512_setzero_si512(); C]; R];
                if !MINS {
                    for i in 0..C {
                        let start = _mm512_set1_epi32(side[i].start[g]);
                        for r in 0..R {
                            dots[r][i] = start;
                        }
                    }
                }
                for k in 0..GROUP / 4 {
                    let k = g * (GROUP / 4) + k;
                    let w: [__m512i; R] =
                        std::array::from_fn(|r| _mm512_load_si512(panels[r].values.as_ptr().add(k).cast()));
                    for i in 0..C {
                        let x = _mm512_set1_epi32(qs[i].add(4 * k).cast::<i32>().read_unaligned());
                        for r in 0..R {
                            dots[r][i] = _mm512_dpbusd_epi32(dots[r][i], w[r], x);
                        }
                    }
                }
                for r in 0..R {
                    let scale = _mm512_load_ps(panels[r].scales.as_ptr().add(g).cast());
                    for i in 0..C {
                        let dot = _mm512_cvtepi32_ps(dots[r][i]);
                        t[r][i] = if h == 0 { _mm512_mul_ps(dot, scale) } else { _mm512_fmadd_ps(dot, scale, t[r][i]) };
                    }
                }
            }
            for r in 0..R {
                if MINS {
                    for h in 0..per_block {
                        let g = b * per_block + h;
                        let min = _mm512_load_ps(panels[r].mins.as_ptr().add(g).cast());
                        for i in 0..C {
                            t[r][i] = _mm512_fnmadd_ps(min, _mm512_set1_ps(side[i].sums[g]), t[r][i]);
                        }
                    }
                }
                for i in 0..C {
                    acc[r][i] = _mm512_fmadd_ps(t[r][i], _mm512_set1_ps(*sx[i].add(b)), acc[r][i]);
                }
            }
        }
        for r in (0..R).filter(|r| lanes[*r] > 0) {
            for i in 0..C {
                _mm512_mask_storeu_ps(out.at(c + i, row + 16 * r), mask(lanes[r]), acc[r][i]);
            }
        }
    }
}

impl Column {
    /// From `halves` sums of 16 values.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW; they are there to read, at most [`GROUPS`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn fill<const GROUP: usize>(&mut self, offset: i32, sums: *const i16, halves: usize) {
        for g in 0..halves / (GROUP / 16) {
            // SAFETY: the contract of this function.
            let sum = unsafe {
                match GROUP {
                    16 => i32::from(*sums.add(g)),
                    _ => i32::from(*sums.add(2 * g)) + i32::from(*sums.add(2 * g + 1)),
                }
            };
            self.start[g] = -offset * sum;
            self.sums[g] = sum as f32;
        }
    }
}
