//! int8 matmul with one scale for a whole row, of weights and of activations: sums stay integers from end to end.
//!
//! Weights are quantised again: a row's values become int8 with the scale that its largest possible value asks for. That
//! is no worse than bf16 on a trained tower. Activations cannot be treated so, for a few values of a token are far larger
//! than the rest. Their scale follows from the mean magnitude, `x ≈ scale · (low + 128 · high)`, and the second digit is
//! zero but for those few ([`Outlier`]).

use super::OutTile;
use crate::quant::iq4::IQ4_NL;
use crate::quant::k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use crate::quant::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use crate::quant::{Block, BlockType};

/// Columns that the kernels take at once, at most.
pub const COLS: usize = 14;

/// The longest row, up to which sums fit into 32 bits: magnitudes of quantised activations are at most 127 on average
/// (128.5 with rounding), those of weights 128.
pub const MAX_K: usize = 1 << 16;

/// One digit holds magnitudes up to so many times the mean.
pub const MEANS: f32 = 4.0;

/// The largest digit.
pub const DIGIT: f32 = 127.0;

/// 64 low digits of one column.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct Line(pub [i8; 64]);

/// High digits of values `4 · at..4 · at + 4`, not all zero.
#[derive(Clone, Copy)]
pub struct Outlier {
    /// Which four.
    pub at: u32,
    /// Little-endian bytes.
    pub digits: i32,
}

/// One column's scale and sums.
#[derive(Clone, Copy, Default)]
pub struct Column {
    /// NaN if a value of the column is infinite or NaN.
    pub scale: f32,
    /// Σ (low + 128 · high).
    pub sum: i32,
    /// How many outliers of the tile are this column's.
    pub outliers: usize,
}

/// A few columns of activations, quantised.
#[derive(Default)]
pub struct Columns {
    k: usize,
    low: Vec<Line>,
    columns: Vec<Column>,
    outliers: Vec<Outlier>,
}

impl Columns {
    /// Quantises `x`, `[cols, k]`, with a table's `quantize`.
    pub fn pack(&mut self, quantize: Quantize, x: &[f32], k: usize) {
        let cols = x.len() / k;
        assert!(k <= MAX_K && cols <= COLS, "columns of a tile");
        self.k = k;
        self.low.clear();
        self.low.resize(cols * k.div_ceil(64), bytemuck::Zeroable::zeroed());
        self.columns.clear();
        self.outliers.clear();
        for (c, x) in x.chunks_exact(k).enumerate() {
            let column = quantize(x, &mut self.low, (c, cols), &mut self.outliers);
            self.columns.push(column);
        }
        // What kernels rely on when they read without looking.
        assert_eq!(self.outliers.len(), self.columns.iter().map(|c| c.outliers).sum::<usize>(), "outliers");
        assert!(self.outliers.iter().all(|o| (o.at as usize) < k / 4), "outliers");
    }

    /// Length of the columns.
    pub fn k(&self) -> usize {
        self.k
    }

    /// `[k / 64 up, cols]`, zeros after the last value.
    pub fn low(&self) -> &[Line] {
        &self.low
    }

    /// `[cols]`
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Those of the first column, then those of the second, each ascending; inside the columns.
    pub fn outliers(&self) -> &[Outlier] {
        &self.outliers
    }
}

/// Columns of tile `i` of the `n`: as many tiles as must be, of sizes as even as can be.
pub fn tile(n: usize, i: usize) -> std::ops::Range<usize> {
    let tiles = n.div_ceil(COLS);
    i * n / tiles..(i + 1) * n / tiles
}

/// A block type whose rows can be quantised again.
pub(crate) trait Requantise: Block {
    /// The largest magnitude of `q` in `scale · q − min`.
    const LARGEST: i32;
    /// Whether there are minima.
    const MINIMA: bool;

    /// The largest magnitude that a group can have; NaN if one of the two is.
    fn bound(scale: f32, min: f32) -> f32 {
        let top = (scale * Self::LARGEST as f32 - min).abs();
        if Self::MINIMA && top < min.abs() { min.abs() } else { top }
    }
}

/// Bits after the point of a value before its minimum is taken off.
pub const FRACTION: u32 = 6;

/// How far `q` is moved up, so that its factor has 15 bits and a sign at most: by the quotient of the largest result and
/// the largest `q`, rounded up.
pub(crate) const fn shift<B: Requantise>() -> u32 {
    let (largest, more) = if B::MINIMA { (2 * 127, FRACTION) } else { (127, 0) };
    more + (largest as u32).div_ceil(B::LARGEST as u32).next_power_of_two().ilog2()
}

macro_rules! requantise {
    ($($block:ty: $largest:literal, $mins:literal;)+) => {$(
        impl Requantise for $block {
            const LARGEST: i32 = $largest;
            const MINIMA: bool = $mins;
        }
    )+};
}

requantise! {
    Q4_0: 8, false;
    Q4_1: 15, true;
    Q5_0: 16, false;
    Q5_1: 31, true;
    Q8_0: 127, false;
    Q2_K: 3, true;
    Q3_K: 4, false;
    Q4_K: 15, true;
    Q5_K: 31, true;
    Q6_K: 32, false;
    IQ4_NL: 127, false;
}

/// int8 matmul with scales of whole rows.
pub struct RowScaled {
    /// See [`Quantize`].
    pub quantize: Quantize,
    /// By [`BlockType`]; `None` for float types.
    pub matmul: [Option<Matmul>; BlockType::ALL.len()],
}

/// Quantises one column, `[k]`; the same bits in every table. Arguments: the values; the lines of all columns of its tile,
/// zeros; which column it is and of how many; where its outliers are added.
///
/// `scale = max(min(largest, 4 · mean) / 127, largest / 127 / 128)` of the magnitudes. Their sum is that of 16 sums of
/// every sixteenth value, then of halves. `q = x / scale` to nearest even; `low = q` where it fits into −127..=127, else
/// `high = (q + 64) >> 7`. What has an infinity or a NaN gets scale NaN; what is so small that the inverse of the scale
/// overflows becomes zero.
pub type Quantize = fn(&[f32], &mut [Line], (usize, usize), &mut Vec<Outlier>) -> Column;

/// `out[c, r] = Σ_k w[r, k] · x[c, k] + bias[r]`: the weight rows' bytes, `k`, activations in the tiles that [`tile`]
/// says, bias, where to write, scratch. The same bits in every table.
///
/// The scale of a weight row is the largest `Requantise::bound` of its groups over 127, NaN if that is not finite. A
/// value is `(q · 2^shift · factor + 2¹⁴) >> 15` with `factor = scale_of_group / scale · 2^(15 − shift)` to nearest, at
/// most 32767; with minima the factor is 2⁶ times that, and the value `(… − min / scale · 2⁶ + 2⁵) >> 6`. It is at
/// most 127: a negative scale of Q8_0 can make 128. An output is the
/// exact sum of products, rounded, times the row's scale, times the column's, plus the bias.
pub type Matmul = fn(&[u8], usize, &[Columns], Option<&[f32]>, &mut OutTile<'_>, &mut Vec<f32>);

/// What to multiply values of a weight row with, from its `Requantise::bound`: its scale and the inverse.
pub fn row_scale(bound: f32) -> (f32, f32) {
    let scale = bound / DIGIT;
    let inverse = 1.0 / scale;
    match () {
        () if !scale.is_finite() => (f32::NAN, 0.0),
        () if inverse.is_infinite() => (0.0, 0.0),
        () => (scale, inverse),
    }
}
