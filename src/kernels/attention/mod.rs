//! Attention over pages of keys and values, spread over the pool in blocks of query rows.

mod blocks;
pub mod vector;

pub use blocks::{Block, Heads, attend, attend_bf16, pack_pages};

use super::OutTile;
use half::f16;

/// Positions in a page.
pub const PAGE: usize = 64;

/// Values that share a scale in 8-bit pages.
pub const KV_BLOCK: usize = 32;

/// Keys and values of one head at [`PAGE`] consecutive positions.
///
/// Keys are transposed, so that a vector holds one coordinate of many keys and a score needs no sum across lanes.
#[derive(Clone, Copy)]
pub enum KvPage<'a> {
    /// Single precision.
    F32 {
        /// `[dim, PAGE]`
        keys: &'a [f32],
        /// `[PAGE, dim]`
        values: &'a [f32],
    },
    /// Half precision.
    F16 {
        /// `[dim, PAGE]`
        keys: &'a [f16],
        /// `[PAGE, dim]`
        values: &'a [f16],
    },
    /// `scale · q`, one scale for [`KV_BLOCK`] values of a head's vector.
    Q8 {
        /// `[dim, PAGE]`
        keys: &'a [i8],
        /// `[dim / 32, PAGE]`
        key_scales: &'a [f16],
        /// `[PAGE, dim]`
        values: &'a [i8],
        /// `[PAGE, dim / 32]`
        value_scales: &'a [f16],
    },
}

impl KvPage<'_> {
    /// Panics unless every slice has the length that heads of width `dim` need.
    pub(super) fn check(&self, dim: usize) {
        let n = dim * PAGE;
        let fits = match self {
            Self::F32 { keys, values } => keys.len() == n && values.len() == n,
            Self::F16 { keys, values } => keys.len() == n && values.len() == n,
            Self::Q8 { keys, key_scales, values, value_scales } => {
                let scales = n / KV_BLOCK;
                dim.is_multiple_of(KV_BLOCK)
                    && (keys.len(), key_scales.len()) == (n, scales)
                    && (values.len(), value_scales.len()) == (n, scales)
            }
        };
        assert!(fits, "a page of heads {dim} wide");
    }

    /// Coordinate `d` of the key at position `t` of the page.
    pub fn key(&self, d: usize, t: usize) -> f32 {
        let at = d * PAGE + t;
        match self {
            Self::F32 { keys, .. } => keys[at],
            Self::F16 { keys, .. } => keys[at].to_f32(),
            Self::Q8 { keys, key_scales, .. } => key_scales[d / KV_BLOCK * PAGE + t].to_f32() * f32::from(keys[at]),
        }
    }

    /// Coordinate `d` of the value at position `t` of the page; heads are `dim` wide.
    pub fn value(&self, dim: usize, t: usize, d: usize) -> f32 {
        let at = t * dim + d;
        match self {
            Self::F32 { values, .. } => values[at],
            Self::F16 { values, .. } => values[at].to_f32(),
            Self::Q8 { values, value_scales, .. } => value_scales[at / KV_BLOCK].to_f32() * f32::from(values[at]),
        }
    }
}

/// A key and value head's pages by number.
pub type Pages<'a> = dyn Fn(usize) -> KvPage<'a> + 'a;

/// Query rows that attend to one key and value head: at each of `rows` positions, `heads` queries.
#[derive(Clone, Copy)]
pub struct Queries<'a> {
    /// `[rows, stride]`, in whose rows the queries `[heads, dim]` stand first.
    pub x: &'a [f32],
    /// From one row of `x` to the next.
    pub stride: usize,
    /// Positions.
    pub rows: usize,
    /// Query heads.
    pub heads: usize,
    /// Width of a head.
    pub dim: usize,
    /// Positions that the first row sees.
    pub visible: usize,
    /// Whether each row sees one position more than the row before; if not, all see the same.
    pub causal: bool,
}

impl Queries<'_> {
    /// Panics unless the slices are long enough and every row sees something.
    pub(super) fn check(&self, out: &OutTile<'_>) {
        let width = self.heads.checked_mul(self.dim).expect("heads fit into memory");
        assert!(self.rows > 0 && width > 0 && self.visible > 0, "queries");
        let last = (self.rows - 1).checked_mul(self.stride).expect("queries fit into memory");
        assert!(width <= self.stride && self.x.len() >= last && self.x.len() - last >= width, "queries");
        assert_eq!((out.cols(), out.rows()), (self.rows, width), "a result for each query");
    }

    /// The query of `head` at `row`, `[dim]`.
    pub fn query(&self, row: usize, head: usize) -> &[f32] {
        &self.x[row * self.stride + head * self.dim..][..self.dim]
    }

    /// Positions that `row` sees.
    pub fn visible(&self, row: usize) -> usize {
        if self.causal { self.visible + row } else { self.visible }
    }

    /// Pages that hold all that is seen.
    pub(super) fn pages(&self) -> usize {
        self.visible(self.rows - 1).div_ceil(PAGE)
    }

    /// `1 / √dim`: what scores are multiplied by.
    pub fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// See [`Kernels::attend`](super::Kernels::attend).
pub type Attend = fn(&Queries<'_>, &Pages<'_>, &mut OutTile<'_>, &mut Vec<f32>);
