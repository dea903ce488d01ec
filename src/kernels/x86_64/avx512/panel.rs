//! Many columns: weights are unpacked a chunk at a time into the L1 cache, and all columns go by.
//!
//! A chunk is [`CHUNK`] values of a row. Those of the columns are copied side by side first, and running sums wait beside
//! them between chunks: in the matrices themselves a column lies a power of two from the next, and so in the same few
//! sets of every cache. Nothing of a weight matrix is ever held unpacked but 32 rows of a chunk.

use super::rows::{Rows, transpose};
use super::sums::{self, R, Sums, aligned};
use super::unpack::{Groups, Unpack};
use crate::kernels::{OutTile, Q8Rows};
use std::arch::x86_64::*;

/// Values of a row in a chunk: with 32 rows, 16 KiB.
const CHUNK: usize = 512;
/// Groups of 16 values in a chunk.
const GROUPS: usize = CHUNK / 16;
/// Columns in a pass over the weights: their chunks stay in the L2 cache.
const COLUMNS: usize = 640;
/// So many bytes of fewer columns stay there, in which case weights come in longer runs.
const COPIED: usize = 256 << 10;

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

/// A chunk of a column.
#[repr(C, align(64))]
struct Column {
    qs: [i8; CHUNK],
    scales: [f32; CHUNK / 32],
    /// For each group of the weights, what the column adds besides its quants: what the dots start from, which makes up
    /// for the offset of unsigned weights, or if the type has minima, the bits of the f32 sum of the quants.
    sums: [i32; GROUPS],
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
    let width = out.cols().min(COLUMNS);
    let (panel, column, sum) = (size_of::<Panel>() / 4, size_of::<Column>() / 4, 16 * R);
    // Chunks that are copied at a time.
    let span = (COPIED / (width * size_of::<Column>())).clamp(1, x.k.div_ceil(CHUNK));
    let needed = R * panel + span * width * column + count.div_ceil(16 * R) * width * sum;
    let scratch = aligned(scratch, needed);
    // SAFETY: aligned and one after the other inside `scratch`, by the lines above; any bits are a `Panel`, a `Column`
    // and a column's sums.
    let (panels, columns, sums) = unsafe {
        let at = scratch.as_mut_ptr();
        (
            &mut *at.cast::<[Panel; R]>(),
            at.add(R * panel).cast::<Column>(),
            at.add(R * panel + span * width * column).cast::<sums::Column>(),
        )
    };
    for c in (0..out.cols()).step_by(COLUMNS) {
        let width = COLUMNS.min(out.cols() - c);
        for from in (0..x.k).step_by(span * CHUNK) {
            let chunks = (from..x.k.min(from + span * CHUNK)).step_by(CHUNK);
            for (j, at) in chunks.clone().enumerate() {
                for i in 0..width {
                    // SAFETY: one of the columns that `scratch` has room for.
                    let column = unsafe { &mut *columns.add(j * width + i) };
                    let offset = if B::MINS { None } else { Some(B::OFFSET) };
                    column.fill(x, c + i, at, CHUNK.min(x.k - at), B::GROUP, offset);
                }
            }
            for r in (0..count).step_by(16 * R) {
                for (j, at) in chunks.clone().enumerate() {
                    let len = CHUNK.min(x.k - at);
                    let (start, bytes) = (at / B::LEN * size_of::<B>(), len / B::LEN * size_of::<B>());
                    let lanes = [(count - r).min(16), count.saturating_sub(r + 16).min(16)];
                    // SAFETY: 16 or 32 rows from `r` on, by the contract of this function; `len` is a multiple of the
                    // block; `width` columns are filled, and sums for as many are there for each 32 rows.
                    unsafe {
                        // Without a second sixteen, its panel holds something old, and no lane of it is stored.
                        for (i, panel) in panels.iter_mut().enumerate().filter(|(i, _)| lanes[*i] > 0) {
                            let r = r + 16 * i;
                            panel.unpack::<B>(Rows::new(w.add(r * row_bytes), row_bytes).skip(start), len);
                            // The next rows come while the columns go by.
                            for next in r + 16 * R..count.min(r + 16 * R + 16) {
                                Rows::prefetch(w.add(next * row_bytes + start), bytes);
                            }
                        }
                        let pass = Pass {
                            panels,
                            columns: columns.add(j * width),
                            width,
                            len,
                            sums: Sums {
                                waiting: sums.add(r / (16 * R) * width),
                                first: at == 0,
                                out: (at + len == x.k).then(|| (out.at(c, first + r), out.stride())),
                                lanes,
                            },
                        };
                        // Few kinds of block, many types: tiles are compiled once for each kind.
                        match (B::GROUP, B::MINS) {
                            (32, false) => pass.run::<32, false>(),
                            (32, true) => pass.run::<32, true>(),
                            (_, false) => pass.run::<16, false>(),
                            (_, true) => pass.run::<16, true>(),
                        }
                    }
                }
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

impl Column {
    /// Values `at..at + len` of column `c`, for weights in groups of `group` with an offset or, without one, minima.
    #[inline]
    fn fill(&mut self, x: Q8Rows<'_>, c: usize, at: usize, len: usize, group: usize, offset: Option<i32>) {
        let from = c * x.k + at;
        self.qs[..len].copy_from_slice(&x.qs[from..][..len]);
        self.scales[..len / 32].copy_from_slice(&x.scales[from / 32..][..len / 32]);
        let halves = &x.sums[from / 16..][..len / 16];
        let kept = |sum: i32| offset.map_or((sum as f32).to_bits() as i32, |offset| -offset * sum);
        if group == 16 {
            self.sums.iter_mut().zip(halves).for_each(|(out, &sum)| *out = kept(sum.into()));
        } else {
            let pairs = halves.chunks_exact(2).map(|pair| i32::from(pair[0]) + i32::from(pair[1]));
            self.sums.iter_mut().zip(pairs).for_each(|(out, sum)| *out = kept(sum));
        }
    }
}

/// Both panels by all columns, a chunk of each.
struct Pass<'a> {
    panels: &'a [Panel; R],
    columns: *const Column,
    width: usize,
    /// Values in the chunk.
    len: usize,
    sums: Sums,
}

impl Pass<'_> {
    /// In tiles as large as the registers allow.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW, VL and VNNI; the panels and `width` columns hold `len` values, in groups of `GROUP`;
    /// the sums are good for all of them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn run<const GROUP: usize, const MINS: bool>(&self) {
        let mut c = 0;
        // SAFETY: the contract of this function; columns stay below `width`.
        unsafe {
            // Groups of 16 need registers for two dots.
            while GROUP == 32 && c + 6 <= self.width {
                self.tile::<GROUP, MINS, 6>(c);
                c += 6;
            }
            while c + 4 <= self.width {
                self.tile::<GROUP, MINS, 4>(c);
                c += 4;
            }
            if c + 2 <= self.width {
                self.tile::<GROUP, MINS, 2>(c);
                c += 2;
            }
            if c < self.width {
                self.tile::<GROUP, MINS, 1>(c);
            }
        }
    }

    /// Columns `c..c + C`.
    ///
    /// # Safety
    /// As for [`Pass::run`]; there are that many columns.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn tile<const GROUP: usize, const MINS: bool, const C: usize>(&self, c: usize) {
        let panels = self.panels;
        // SAFETY: the contract of this function.
        unsafe {
            let x: &[Column; C] = &*self.columns.add(c).cast();
            let mut acc = self.sums.load::<C>(c);
            let per_block = 32 / GROUP;
            for b in 0..self.len / 32 {
                let mut t = [[_mm512_setzero_ps(); C]; R];
                for h in 0..per_block {
                    let g = b * per_block + h;
                    let mut dots = [[_mm512_setzero_si512(); C]; R];
                    if !MINS {
                        for i in 0..C {
                            let start = _mm512_set1_epi32(*x[i].sums.as_ptr().add(g));
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
                            let x = _mm512_set1_epi32(x[i].qs.as_ptr().add(4 * k).cast::<i32>().read());
                            for r in 0..R {
                                dots[r][i] = _mm512_dpbusd_epi32(dots[r][i], w[r], x);
                            }
                        }
                    }
                    for r in 0..R {
                        let scale = _mm512_load_ps(panels[r].scales.as_ptr().add(g).cast());
                        for i in 0..C {
                            let dot = _mm512_cvtepi32_ps(dots[r][i]);
                            t[r][i] =
                                if h == 0 { _mm512_mul_ps(dot, scale) } else { _mm512_fmadd_ps(dot, scale, t[r][i]) };
                        }
                    }
                }
                for r in 0..R {
                    if MINS {
                        for h in 0..per_block {
                            let g = b * per_block + h;
                            let min = _mm512_load_ps(panels[r].mins.as_ptr().add(g).cast());
                            for i in 0..C {
                                let sum = f32::from_bits(*x[i].sums.as_ptr().add(g) as u32);
                                t[r][i] = _mm512_fnmadd_ps(min, _mm512_set1_ps(sum), t[r][i]);
                            }
                        }
                    }
                    for i in 0..C {
                        let scale = _mm512_set1_ps(*x[i].scales.as_ptr().add(b));
                        acc[r][i] = _mm512_fmadd_ps(t[r][i], scale, acc[r][i]);
                    }
                }
            }
            self.sums.store(c, acc);
        }
    }
}
