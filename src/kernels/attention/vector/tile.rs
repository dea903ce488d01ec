//! Small matrix products that keep their sums in registers.

use super::source::Source;
use super::{Job, Lanes};
use crate::kernels::attention::PAGE;
use std::marker::PhantomData;
use std::ops::Range;

/// The right-hand side of a product: columns in panels.
pub trait Operand<V>: Copy {
    /// Columns side by side.
    type Panel: Source<V>;

    /// How many columns to take at once with `rows` rows, of `left`: one, two or four vectors.
    fn columns(rows: usize, left: usize) -> usize;

    /// The columns from `column` on, counted from there.
    fn panel(self, column: usize) -> Self::Panel;
}

/// `C = A B`, or `C += A B` with `add`, for as many rows as one tile takes, at most `left`; returns how many.
///
/// `a` is `[k / PAGE, rows, PAGE]`, whose first index is `chunk` values apart; `b` has `columns` columns; rows of `c` are
/// `stride` apart.
///
/// # Safety
/// The processor has the instruction set of `V`; matrices are as large as said.
#[inline(always)]
pub unsafe fn product<V: Lanes, B: Source<V>>(
    left: usize,
    columns: usize,
    a: *const f32,
    chunk: usize,
    k: Range<usize>,
    b: B,
    c: *mut f32,
    stride: usize,
    add: bool,
) -> usize {
    let p = Product { a, chunk, k, b, c, stride, add };
    // SAFETY: the contract of this function.
    unsafe {
        match columns / V::N {
            4 => rows::<V, B, 4>(left, p),
            2 => rows::<V, B, 2>(left, p),
            _ => rows::<V, B, 1>(left, p),
        }
    }
}

/// # Safety
/// As for [`product`].
#[inline(always)]
unsafe fn rows<V: Lanes, B: Source<V>, const C: usize>(left: usize, p: Product<B>) -> usize {
    macro_rules! tiles {
        ($($rows:literal)+) => {$(
            if left >= $rows && $rows * C <= V::SUMS {
                // SAFETY: the contract of this function.
                unsafe { V::run(Tile::<V, B, $rows, C>(p, PhantomData)) };
                return $rows;
            }
        )+};
    }
    tiles!(12 8 6 4 3 2 1);
    unreachable!("tiles are asked for rows")
}

/// The arguments of [`product`].
struct Product<B> {
    a: *const f32,
    chunk: usize,
    k: Range<usize>,
    b: B,
    c: *mut f32,
    stride: usize,
    add: bool,
}

/// `R` rows by `C` vectors.
struct Tile<V, B, const R: usize, const C: usize>(Product<B>, PhantomData<V>);

impl<V: Lanes, B: Source<V>, const R: usize, const C: usize> Job for Tile<V, B, R, C> {
    #[inline(always)]
    unsafe fn run(self) {
        let Product { a, chunk, k, b, c, stride, add } = self.0;
        // SAFETY: the contract of `product`.
        unsafe {
            let mut sums = [[V::splat(0.0); C]; R];
            if add {
                for r in 0..R {
                    for j in 0..C {
                        sums[r][j] = V::load(c.add(r * stride + j * V::N));
                    }
                }
            }
            let mut at = k.start;
            while at < k.end {
                let a = a.add(at / PAGE * chunk);
                let stop = k.end.min((at / PAGE + 1) * PAGE);
                while at < stop {
                    let mut row = [V::splat(0.0); C];
                    for j in 0..C {
                        row[j] = b.load(at, j * V::N);
                    }
                    for r in 0..R {
                        let x = V::splat(*a.add(r * PAGE + at % PAGE));
                        for j in 0..C {
                            sums[r][j] = x.mul_add(row[j], sums[r][j]);
                        }
                    }
                    at += 1;
                }
            }
            for r in 0..R {
                for j in 0..C {
                    sums[r][j].store(c.add(r * stride + j * V::N));
                }
            }
        }
    }
}
