//! Keys and values as vectors of f32, from whatever they are stored as.

use super::tile::Operand;
use super::{Job, Lanes};
use crate::kernels::attention::{KV_BLOCK, PAGE};
use half::f16;
use std::marker::PhantomData;

/// A matrix in memory. Copies are pointers, good as long as the memory is.
pub trait Source<V>: Operand<V, Panel = Self> {
    /// The vector at row `k` that begins at `column`.
    ///
    /// # Safety
    /// The processor has the instruction set of `V`; the row has that many columns.
    unsafe fn load(self, k: usize, column: usize) -> V;

    /// One value.
    ///
    /// # Safety
    /// It is inside the matrix.
    unsafe fn value(self, k: usize, column: usize) -> f32;
}

/// Rows of values.
#[derive(Clone, Copy)]
pub struct Matrix<T> {
    at: *const T,
    stride: usize,
}

impl<T> Matrix<T> {
    /// Rows at `at`, `stride` apart.
    pub fn new(at: *const T, stride: usize) -> Self {
        Self { at, stride }
    }
}

/// 8-bit keys, `[dim, PAGE]`, with scales `[dim / 32, PAGE]`.
#[derive(Clone, Copy)]
pub struct Keys8 {
    /// Multiples of the scale.
    pub qs: *const i8,
    /// Scales.
    pub scales: *const f16,
}

/// 8-bit values, `[PAGE, dim]`, with scales `[PAGE, dim / 32]`.
#[derive(Clone, Copy)]
pub struct Values8 {
    /// Multiples of the scale.
    pub qs: *const i8,
    /// Scales.
    pub scales: *const f16,
    /// Width of a head.
    pub dim: usize,
    /// Where columns are counted from.
    pub column: usize,
}

impl<V: Lanes> Source<V> for Matrix<f32> {
    #[inline(always)]
    unsafe fn load(self, k: usize, column: usize) -> V {
        // SAFETY: the contract of this function.
        unsafe { V::load(self.at.add(k * self.stride + column)) }
    }

    unsafe fn value(self, k: usize, column: usize) -> f32 {
        // SAFETY: the contract of this function.
        unsafe { *self.at.add(k * self.stride + column) }
    }
}

impl<V: Lanes> Source<V> for Matrix<f16> {
    #[inline(always)]
    unsafe fn load(self, k: usize, column: usize) -> V {
        // SAFETY: the contract of this function.
        unsafe { V::load_f16(self.at.add(k * self.stride + column)) }
    }

    unsafe fn value(self, k: usize, column: usize) -> f32 {
        // SAFETY: the contract of this function.
        unsafe { (*self.at.add(k * self.stride + column)).to_f32() }
    }
}

// A product of 7 and 11 bits is exact in f32, so it does not matter who computes it and when.

impl<V: Lanes> Source<V> for Keys8 {
    #[inline(always)]
    unsafe fn load(self, k: usize, column: usize) -> V {
        // SAFETY: the contract of this function.
        unsafe {
            let scale = V::load_f16(self.scales.add(k / KV_BLOCK * PAGE + column));
            V::load_i8(self.qs.add(k * PAGE + column)).mul(scale)
        }
    }

    unsafe fn value(self, k: usize, column: usize) -> f32 {
        // SAFETY: the contract of this function.
        unsafe {
            let scale = (*self.scales.add(k / KV_BLOCK * PAGE + column)).to_f32();
            f32::from(*self.qs.add(k * PAGE + column)) * scale
        }
    }
}

impl<V: Lanes> Source<V> for Values8 {
    #[inline(always)]
    unsafe fn load(self, k: usize, column: usize) -> V {
        let at = k * self.dim + self.column + column;
        // SAFETY: the contract of this function; `KV_BLOCK` divides `dim`, and `V::N` divides `KV_BLOCK`.
        unsafe { V::load_i8(self.qs.add(at)).mul(V::splat_f16(*self.scales.add(at / KV_BLOCK))) }
    }

    unsafe fn value(self, k: usize, column: usize) -> f32 {
        let at = k * self.dim + self.column + column;
        // SAFETY: the contract of this function.
        unsafe { f32::from(*self.qs.add(at)) * (*self.scales.add(at / KV_BLOCK)).to_f32() }
    }
}

/// Where they are, the more columns at once the fewer rows there are.
macro_rules! in_place {
    ($($source:ty: |$s:ident, $column:ident| $panel:expr;)+) => {$(
        impl<V: Lanes> Operand<V> for $source {
            type Panel = Self;

            #[inline(always)]
            fn columns(rows: usize, left: usize) -> usize {
                let vectors = if 4 * rows <= V::SUMS { 4 } else { 2 };
                match left / V::N {
                    n if n >= vectors => vectors * V::N,
                    n if n >= 2 => 2 * V::N,
                    _ => V::N,
                }
            }

            #[inline(always)]
            fn panel(self, $column: usize) -> Self {
                let $s = self;
                $panel
            }
        }
    )+};
}

in_place! {
    Matrix<f32>: |s, column| Self { at: s.at.wrapping_add(column), ..s };
    Matrix<f16>: |s, column| Self { at: s.at.wrapping_add(column), ..s };
    Keys8: |s, column| Self { qs: s.qs.wrapping_add(column), scales: s.scales.wrapping_add(column) };
    Values8: |s, column| Self { column: s.column + column, ..s };
}

/// A matrix in panels of two vectors' width, each `[rows, width]`; the last may be one vector wide.
#[derive(Clone, Copy)]
pub struct Panels {
    at: *const f32,
    rows: usize,
    width: usize,
}

impl<V: Lanes> Operand<V> for Panels {
    type Panel = Matrix<f32>;

    #[inline(always)]
    fn columns(_rows: usize, left: usize) -> usize {
        left.min(2 * V::N)
    }

    #[inline(always)]
    fn panel(self, column: usize) -> Matrix<f32> {
        Matrix { at: self.at.wrapping_add(column * self.rows), stride: (self.width - column).min(2 * V::N) }
    }
}

/// Unpacks `rows` rows of `width` columns to `to`, which has room for whole vectors; zeros fill the last one.
///
/// # Safety
/// The processor has the instruction set of `V`; the matrix has that size, and so has the memory at `to`.
#[inline(always)]
pub unsafe fn unpack<V: Lanes, S: Source<V>>(from: S, rows: usize, width: usize, to: *mut f32) -> Panels {
    // SAFETY: the contract of this function.
    unsafe { V::run(Unpack::<V, S> { from, rows, width, to, lanes: PhantomData }) };
    Panels { at: to, rows, width: width.next_multiple_of(V::N) }
}

struct Unpack<V, S> {
    from: S,
    rows: usize,
    width: usize,
    to: *mut f32,
    lanes: PhantomData<V>,
}

impl<V: Lanes, S: Source<V>> Job for Unpack<V, S> {
    #[inline(always)]
    unsafe fn run(self) {
        let Self { from, rows, width, to, .. } = self;
        let padded = width.next_multiple_of(V::N);
        // SAFETY: the contract of `unpack`: panels lie one after the other.
        unsafe {
            for first in (0..padded).step_by(2 * V::N) {
                let panel = to.add(first * rows);
                let stride = (padded - first).min(2 * V::N);
                for k in 0..rows {
                    for column in (0..stride).step_by(V::N) {
                        let to = panel.add(k * stride + column);
                        let inside = width - (first + column);
                        if inside >= V::N {
                            from.load(k, first + column).store(to);
                        } else {
                            V::splat(0.0).store(to);
                            (0..inside).for_each(|i| *to.add(i) = from.value(k, first + column + i));
                        }
                    }
                }
            }
        }
    }
}
