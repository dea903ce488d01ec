//! Attention with vectors of any width: a running softmax (FlashAttention, arXiv:2205.14135), page by page.
//!
//! For each page, and for all queries that see it: scores, softmax, values. Keys and values of a page are turned into
//! f32 once if many queries meet them, and read where they are if few do; the numbers are the same.
//!
//! Every element of scores and output is one chain of multiply-adds in ascending order of what is summed over, and every
//! row's pages come in order. So a row's bits depend on what it sees alone, not on the rows beside it.

mod softmax;
mod source;
mod tile;

use super::{KvPage, PAGE, Pages, Queries};
use crate::kernels::OutTile;
use half::f16;
use softmax::Softmax;
use source::{Keys8, Matrix, Source, Values8, unpack};
use tile::{Operand, product};

/// Vectors of f32.
///
/// # Safety
/// For implementations: loads and stores touch `N` consecutive values, nothing else.
///
/// For callers of every function: the processor has the instruction set, and pointers are good for `N` values.
pub unsafe trait Lanes: Copy {
    /// Values in a vector: 8 or 16.
    const N: usize;
    /// Running sums that fit into registers, beside two vectors of what is summed.
    const SUMS: usize;
    /// `x` in every lane.
    unsafe fn splat(x: f32) -> Self;
    /// `x` in every lane.
    unsafe fn splat_f16(x: f16) -> Self;
    /// From memory.
    unsafe fn load(from: *const f32) -> Self;
    /// From memory.
    unsafe fn load_f16(from: *const f16) -> Self;
    /// From memory.
    unsafe fn load_i8(from: *const i8) -> Self;
    /// To memory.
    unsafe fn store(self, to: *mut f32);
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self − other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// `self · other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// `self / other`.
    unsafe fn div(self, other: Self) -> Self;
    /// `self · factor + term`, rounded once.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The larger one.
    unsafe fn max(self, other: Self) -> Self;
    /// `e^self`, within 1 unit in the last place.
    unsafe fn exp(self) -> Self;
    /// The sum of the lanes, in a fixed order.
    unsafe fn sum(self) -> f32;
    /// The largest lane.
    unsafe fn largest(self) -> f32;
    /// The first `n` lanes, and `other`'s from there on.
    unsafe fn first(self, n: usize, other: Self) -> Self;
    /// Runs `job` as a function of its own, compiled for the instruction set.
    unsafe fn run<J: Job>(job: J);
}

/// A piece of code that is compiled once for every instruction set.
pub trait Job {
    /// # Safety
    /// The processor has the instruction set, and the pointers inside are good.
    unsafe fn run(self);
}

/// See [`Kernels::attend`](crate::kernels::Kernels::attend).
///
/// # Safety
/// The processor has the instruction set of `V`.
#[inline(always)]
pub unsafe fn attend<V: Lanes>(q: &Queries<'_>, pages: &Pages<'_>, out: &mut OutTile<'_>, scratch: &mut Vec<f32>) {
    q.check(out);
    // SAFETY: the contract of this function; `check`ed queries and pages have the lengths that their fields say.
    unsafe {
        let mut block = Block::<V>::new(q, scratch);
        for i in 0..q.pages() {
            let page = pages(i);
            page.check(q.dim);
            let base = i * PAGE;
            match page {
                KvPage::F32 { keys, values } => {
                    block.page(base, Matrix::new(keys.as_ptr(), PAGE), Matrix::new(values.as_ptr(), q.dim));
                }
                KvPage::F16 { keys, values } => {
                    block.page(base, Matrix::new(keys.as_ptr(), PAGE), Matrix::new(values.as_ptr(), q.dim));
                }
                KvPage::Q8 { keys, key_scales, values, value_scales } => {
                    let keys = Keys8 { qs: keys.as_ptr(), scales: key_scales.as_ptr() };
                    let values = Values8 { qs: values.as_ptr(), scales: value_scales.as_ptr(), dim: q.dim, column: 0 };
                    block.page(base, keys, values);
                }
            }
        }
        block.write(out);
    }
}

/// The queries of one call and what is known of their results. A row here is one query; those of a position's heads
/// follow each other.
struct Block<'q, V> {
    q: &'q Queries<'q>,
    rows: usize,
    /// Width of a head, in whole vectors.
    width: usize,
    queries: *mut f32, // [width / PAGE up, rows, PAGE]
    scores: *mut f32,  // [rows, PAGE], then probabilities
    sums: *mut f32,    // [rows, width], Σ e^(score − largest) V
    largest: *mut f32, // [rows], of the scores so far
    totals: *mut f32,  // [rows], Σ e^(score − largest)
    keys: *mut f32,    // a page's, unpacked
    values: *mut f32,
    lanes: std::marker::PhantomData<V>,
}

impl<'q, V: Lanes> Block<'q, V> {
    /// Lays the block out in `scratch` and copies the queries.
    ///
    /// # Safety
    /// As for [`attend`]; `scratch` is not touched while the block lives.
    #[inline(always)]
    unsafe fn new(q: &'q Queries<'q>, scratch: &mut Vec<f32>) -> Self {
        let rows = q.rows * q.heads;
        let width = q.dim.next_multiple_of(V::N);
        let line = 16; // values in a cache line
        let lengths = [
            q.dim.div_ceil(PAGE) * rows * PAGE,
            rows * PAGE,
            rows * width,
            rows.next_multiple_of(line),
            rows.next_multiple_of(line),
            q.dim * PAGE,
            PAGE * width,
        ];
        let total = lengths.iter().sum::<usize>() + line;
        if scratch.len() < total {
            scratch.resize(total, 0.0);
        }
        let mut at = scratch.as_mut_ptr();
        // SAFETY: `scratch` has the values of all parts, and a line to spare.
        let [queries, scores, sums, largest, totals, keys, values] = unsafe {
            at = at.add(at.align_offset(64).min(line));
            lengths.map(|n| {
                let part = at;
                at = at.add(n);
                part
            })
        };
        for row in 0..rows {
            let x = q.query(row / q.heads, row % q.heads);
            for (i, x) in x.chunks(PAGE).enumerate() {
                // SAFETY: chunk `i` of the row, inside the part.
                unsafe { queries.add((i * rows + row) * PAGE).copy_from_nonoverlapping(x.as_ptr(), x.len()) };
            }
        }
        Self { q, rows, width, queries, scores, sums, largest, totals, keys, values, lanes: std::marker::PhantomData }
    }

    /// How many positions of the page at `base` the row sees.
    #[inline(always)]
    fn seen(&self, row: usize, base: usize) -> usize {
        self.q.visible(row / self.q.heads).saturating_sub(base).min(PAGE)
    }

    /// The first row that sees position `position`; there may be none.
    #[inline(always)]
    fn first(&self, position: usize) -> usize {
        match (position + 1).saturating_sub(self.q.visible) {
            0 => 0,
            n if self.q.causal => (n * self.q.heads).min(self.rows),
            _ => self.rows,
        }
    }

    /// Takes a page in, whose first position is `base`.
    ///
    /// # Safety
    /// As for [`attend`]; `keys` are `[dim, PAGE]`, `values` `[PAGE, dim]`.
    #[inline(always)]
    unsafe fn page<K: Source<V>, S: Source<V>>(&mut self, base: usize, keys: K, values: S) {
        let first = self.first(base);
        let (seen, dim) = (self.seen(self.rows - 1, base), self.q.dim);
        // SAFETY: the contract of this function; unpacked parts have the sizes that `new` gave them.
        unsafe {
            if self.rows - first <= V::SUMS / 2 && dim == self.width {
                self.scores(base, keys);
                self.softmax(base);
                self.values(base, values);
            } else {
                let keys = unpack::<V, K>(keys, dim, PAGE, self.keys);
                let values = unpack::<V, S>(values, seen, dim, self.values);
                self.scores(base, keys);
                self.softmax(base);
                self.values(base, values);
            }
        }
    }

    /// Scores of the rows that see the page; keys that a row does not see may get one too.
    ///
    /// # Safety
    /// As for [`Block::page`].
    #[inline(always)]
    unsafe fn scores<K: Operand<V>>(&self, base: usize, keys: K) {
        let seen = self.seen(self.rows - 1, base);
        let mut column = 0;
        while column < seen {
            let mut row = self.first(base + column);
            let n = K::columns(self.rows - row, PAGE - column);
            // SAFETY: columns up to `column + n` and rows up to `rows` are inside.
            unsafe {
                let panel = keys.panel(column);
                while row < self.rows {
                    let a = self.queries.add(row * PAGE);
                    let c = self.scores.add(row * PAGE + column);
                    let (k, chunk) = (0..self.q.dim, self.rows * PAGE);
                    row += product::<V, K::Panel>(self.rows - row, n, a, chunk, k, panel, c, PAGE, false);
                }
            }
            column += n;
        }
    }

    /// # Safety
    /// As for [`attend`].
    #[inline(always)]
    unsafe fn softmax(&self, base: usize) {
        let scale = self.q.scale();
        for row in self.first(base)..self.rows {
            let seen = self.seen(row, base);
            // SAFETY: the row's own parts.
            unsafe {
                V::run(Softmax::<V> {
                    scores: self.scores.add(row * PAGE),
                    seen,
                    scale,
                    largest: self.largest.add(row),
                    total: self.totals.add(row),
                    sums: self.sums.add(row * self.width),
                    width: self.width,
                    first: base == 0,
                    lanes: std::marker::PhantomData,
                });
            }
        }
    }

    /// Adds the values, weighed. Values that a row does not see are not touched for it: zero times them need not be
    /// zero.
    ///
    /// # Safety
    /// As for [`Block::page`].
    #[inline(always)]
    unsafe fn values<S: Operand<V>>(&self, base: usize, values: S) {
        let first = self.first(base);
        let mut column = 0;
        while column < self.width {
            let n = S::columns(self.rows - first, self.width - column);
            let mut row = first;
            // SAFETY: columns up to `column + n` and rows up to `rows` are inside.
            unsafe {
                let panel = values.panel(column);
                while row < self.rows {
                    let part = |left: usize, row: usize, k| {
                        let (a, c) = (self.scores.add(row * PAGE), self.sums.add(row * self.width + column));
                        product::<V, S::Panel>(left, n, a, 0, k, panel, c, self.width, true)
                    };
                    let common = self.seen(row, base);
                    let done = part(self.rows - row, row, 0..common);
                    for row in row + 1..row + done {
                        let seen = self.seen(row, base);
                        if seen > common {
                            part(1, row, common..seen);
                        }
                    }
                    row += done;
                }
            }
            column += n;
        }
    }

    /// # Safety
    /// As for [`attend`].
    #[inline(always)]
    unsafe fn write(&self, out: &mut OutTile<'_>) {
        let (heads, dim) = (self.q.heads, self.q.dim);
        for row in 0..self.rows {
            let out = &mut out.row_mut(row / heads)[row % heads * dim..][..dim];
            // SAFETY: the row's own parts, whole vectors of them.
            let sums = unsafe {
                let sums = self.sums.add(row * self.width);
                let total = V::splat(*self.totals.add(row));
                for i in (0..self.width).step_by(V::N) {
                    V::load(sums.add(i)).div(total).store(sums.add(i));
                }
                std::slice::from_raw_parts(sums, dim)
            };
            out.copy_from_slice(sums);
        }
    }
}
