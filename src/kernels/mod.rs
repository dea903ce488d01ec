//! The numeric kernels: one table of function pointers per instruction set, chosen once.
//!
//! `scalar` is the specification: written to be read, and every other table is tested against it. A table holds
//! everything that touches numbers in bulk; nothing outside this module knows which instruction set runs.
//!
//! Every kernel computes each output element in an order that depends on the row length alone, never on how
//! many rows or columns are computed together: a token gives the same bits alone, in a batch and in a prefill.

use crate::quant::BlockType;
use half::{bf16, f16};
use std::marker::PhantomData;
use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
pub mod aarch64;
pub mod attention;
mod coefficients;
pub mod matmul;
pub mod probe;
pub mod row_scaled;
pub mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;

/// Values that share one scale in quantised activations.
pub const Q8_BLOCK: usize = 32;

/// Activations `[cols, k]`, each row quantised to int8 in blocks of [`Q8_BLOCK`] values: `x ≈ scale · q`.
#[derive(Clone, Copy)]
pub struct Q8Rows<'a> {
    /// Quantised values in −127..=127, `[cols, k]`.
    pub qs: &'a [i8],
    /// Scale of each block, `[cols, k / 32]`.
    pub scales: &'a [f32],
    /// Sum of the quantised values of each half block, `[cols, k / 16]`: what the minima of Q4_K and its like multiply.
    pub sums: &'a [i16],
    /// Row length, a multiple of 32.
    pub k: usize,
}

impl<'a> Q8Rows<'a> {
    /// Panics unless every slice has the length that `cols` rows need.
    fn check(&self, cols: usize) {
        assert_eq!(self.k % Q8_BLOCK, 0, "whole blocks in a row");
        let values = cols.checked_mul(self.k).expect("activations fit into memory");
        let lengths = (self.qs.len(), self.scales.len(), self.sums.len());
        assert_eq!(lengths, (values, values / Q8_BLOCK, values / 16), "activations for the tile");
    }

    /// Row `c` alone.
    fn row(&self, c: usize) -> Self {
        let k = self.k;
        Self {
            qs: &self.qs[c * k..][..k],
            scales: &self.scales[c * (k / Q8_BLOCK)..][..k / Q8_BLOCK],
            sums: &self.sums[c * (k / 16)..][..k / 16],
            k,
        }
    }
}

/// Activations `[cols, k]` in bf16, ready for [`MatmulBf16`]: `[chunks of k, cols, Bf16Columns::STRIDE]`. A chunk of a
/// column and its neighbours' lie side by side, and not a power of two apart as columns often do, which would put them
/// into the same few sets of every cache.
#[derive(Clone, Copy)]
pub struct Bf16Columns<'a> {
    values: &'a [bf16],
    cols: usize,
    /// Row length.
    pub k: usize,
}

impl<'a> Bf16Columns<'a> {
    /// Values of a column in a chunk, whole blocks of any type.
    pub const CHUNK: usize = 256;
    /// Elements from a column of a chunk to the next. At least one zero follows the values of every chunk.
    pub const STRIDE: usize = Self::CHUNK + 32;

    /// Elements that `cols` columns of `k` values take.
    pub fn len(cols: usize, k: usize) -> usize {
        k.div_ceil(Self::CHUNK) * cols * Self::STRIDE
    }

    /// Of what was written by [`Bf16Columns::places`] of every column.
    pub fn new(values: &'a [bf16], cols: usize, k: usize) -> Self {
        assert_eq!(values.len(), Self::len(cols, k), "activations");
        Self { values, cols, k }
    }

    /// For each chunk of column `c`: where it begins, and which values it has.
    pub fn places(c: usize, cols: usize, k: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let starts = (0..k).step_by(Self::CHUNK).enumerate();
        starts.map(move |(i, at)| ((i * cols + c) * Self::STRIDE, at..k.min(at + Self::CHUNK)))
    }

    /// Columns `c..c + n` of the chunk that begins at value `at`.
    pub fn chunk(&self, at: usize, c: usize, n: usize) -> &'a [bf16] {
        &self.values[(at / Self::CHUNK * self.cols + c) * Self::STRIDE..][..n * Self::STRIDE]
    }
}

/// Where a matmul writes: `cols` rows of `rows` values, `stride` apart; element `(c, r)` is at `c · stride + r`.
///
/// A tile is a window of a `[cols, stride]` matrix, so several workers can fill disjoint windows of one matrix.
pub struct OutTile<'a> {
    ptr: *mut f32,
    cols: usize,
    rows: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut f32>,
}

impl<'a> OutTile<'a> {
    /// The whole of `out`, a `[cols, rows]` matrix.
    pub fn new(out: &'a mut [f32], cols: usize, rows: usize) -> Self {
        assert_eq!(Some(out.len()), cols.checked_mul(rows), "tile size");
        Self { ptr: out.as_mut_ptr(), cols, rows, stride: rows, lifetime: PhantomData }
    }

    /// A window of a matrix.
    ///
    /// # Safety
    /// `ptr + c · stride + r` is valid for writes for every `c < cols`, `r < rows` during `'a`, and nothing else
    /// reads or writes these elements meanwhile.
    pub unsafe fn from_raw(ptr: *mut f32, cols: usize, rows: usize, stride: usize) -> Self {
        Self { ptr, cols, rows, stride, lifetime: PhantomData }
    }

    /// Number of activation rows (tokens, patches).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of weight rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements from a column to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Adds `bias[r]` to every element `(c, r)`.
    pub fn add_bias(&mut self, bias: &[f32]) {
        assert_eq!(bias.len(), self.rows, "bias");
        for c in 0..self.cols {
            for (r, b) in bias.iter().enumerate() {
                // SAFETY: in range, by the loops and the constructors' contract.
                unsafe { *self.ptr.add(c * self.stride + r) += b }
            }
        }
    }

    /// The address of element `(c, r)`.
    #[inline(always)]
    fn at(&mut self, c: usize, r: usize) -> *mut f32 {
        debug_assert!(c < self.cols && r < self.rows);
        self.ptr.wrapping_add(c * self.stride + r)
    }

    /// The window's part of column `c`, `[rows]`.
    pub fn row_mut(&mut self, c: usize) -> &mut [f32] {
        assert!(c < self.cols);
        // SAFETY: in range, by the line above and the constructors' contract.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(c * self.stride), self.rows) }
    }

    /// Writes element `(c, r)`.
    #[inline(always)]
    pub fn set(&mut self, c: usize, r: usize, value: f32) {
        assert!(c < self.cols && r < self.rows);
        // SAFETY: in range, by the line above and the constructors' contract.
        unsafe { *self.at(c, r) = value }
    }
}

/// Bytes of whole blocks to f32, one value for each value in the blocks.
pub type Dequantize = fn(&[u8], &mut [f32]);

/// `out[c, r] = Σ_k w[r, k] · x[c, k]` with quantised activations.
///
/// Arguments: the weight rows' bytes (`out.rows()` rows, back to back), the activations, where to write, scratch
/// that the kernel may grow and whose contents mean nothing between calls.
pub type MatmulQ8 = fn(&[u8], Q8Rows<'_>, &mut OutTile<'_>, &mut Vec<f32>);

/// The same with f32 activations `[cols, k]`: weights are taken at their dequantised f32 value. The third argument
/// is `k`.
pub type MatmulF32 = fn(&[u8], &[f32], usize, &mut OutTile<'_>, &mut Vec<f32>);

/// Matmul in bf16: faster than f32 and rounded to 8 significant bits.
pub struct Bf16Kernels {
    /// Rounds to bf16, nearest even; values below 2⁻¹²⁶ may become zero: x, out.
    pub round: fn(&[f32], &mut [bf16]),
    /// See [`MatmulBf16`].
    pub matmul: MatmulBf16,
    /// Keys and values of one head to what `attend` takes: keys and values `[rows, stride]` in whose rows the head stands
    /// first, `stride`, width of the head, out, of [`Bf16Kernels::kv_len`] values.
    pub pack: fn(&[f32], &[f32], usize, usize, &mut [bf16]),
    /// [`Kernels::attend`] for one head whose queries all see the same keys, in bf16 but for the sums: queries, keys and
    /// values, where to write, scratch.
    pub attend: fn(&attention::Queries<'_>, &[bf16], &mut OutTile<'_>, &mut Vec<f32>),
}

impl Bf16Kernels {
    /// Room that keys and values of a head take.
    pub fn kv_len(rows: usize, dim: usize) -> usize {
        2 * rows.next_multiple_of(16) * dim.next_multiple_of(16)
    }
}

/// `out[c, r] = Σ_k bf16(w[r, k]) · x[c, k]`, accumulated in f32: the weights' type and their rows' bytes, the activations,
/// where to write, scratch.
pub type MatmulBf16 = fn(BlockType, &[u8], Bf16Columns<'_>, &mut OutTile<'_>, &mut Vec<f32>);

/// See [`Kernels::quantize_q8`].
pub type QuantizeQ8 = fn(&[f32], &mut [i8], &mut [f32], &mut [i16]);

/// See [`Kernels::layer_norm`].
pub type LayerNorm = fn(&[f32], &[f32], &[f32], f32, &mut [f32]);

/// One instruction set's kernels. Slices are checked for length (`assert!`), so calls are safe.
pub struct Kernels {
    /// `scalar`, `avx2`, `avx512`, ...
    pub name: &'static str,
    /// Dequantization by [`BlockType`] (`as usize`); bit-equal to gguf-py in every table.
    pub dequantize: [Dequantize; BlockType::ALL.len()],
    /// Integer matmul by [`BlockType`]; `None` for float types.
    pub matmul_q8: [Option<MatmulQ8>; BlockType::ALL.len()],
    /// f32 matmul by [`BlockType`].
    pub matmul_f32: [MatmulF32; BlockType::ALL.len()],
    /// bf16, where the CPU has instructions for it.
    pub bf16: Option<Bf16Kernels>,
    /// int8 with scales of whole rows, where it is faster than what towers compute in otherwise.
    pub row_scaled: Option<row_scaled::RowScaled>,
    /// One row of activations to int8: x, qs, scales, sums (see [`Q8Rows`]). scale = max|x| / 127, q = round to
    /// nearest, ties to even. Bit-equal in every table. A block with an infinity or a NaN gets scale NaN; one whose
    /// largest magnitude is below about 4e-37 becomes zero.
    pub quantize_q8: QuantizeQ8,
    /// `out = x / sqrt(mean(x²) + eps) · w`: x, w, eps, out.
    pub rms_norm: fn(&[f32], &[f32], f32, &mut [f32]),
    /// `out = (x − mean) / sqrt(var + eps) · w + b` (biased variance): x, w, b, eps, out.
    pub layer_norm: LayerNorm,
    /// `gate = gate · sigmoid(gate) · up`: gate, up.
    pub silu_mul: fn(&mut [f32], &[f32]),
    /// `x · sigmoid(1.702 x)`.
    pub gelu_quick: fn(&mut [f32]),
    /// `x · (1 + erf(x / √2)) / 2`.
    pub gelu_erf: fn(&mut [f32]),
    /// `x · (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`.
    pub gelu_tanh: fn(&mut [f32]),
    /// `y += x`: y, x.
    pub add: fn(&mut [f32], &[f32]),
    /// Rounds to half precision, nearest even: x, out.
    pub to_f16: fn(&[f32], &mut [f16]),
    /// `out = Σₜ softmax(q · Kₜ / √dim) Vₜ` for every query, over the positions that its row sees: queries, pages of keys
    /// and values, `[rows, heads · dim]`, scratch that the kernel may grow and whose contents mean nothing. A result is
    /// within `(dim + visible) 2⁻²² · (1 + Σ |q K| / √dim)` of the largest value's magnitude.
    pub attend: attention::Attend,
}

impl Kernels {
    /// The best table this machine supports; `LLAVA_KERNELS=scalar` (or another name) in the environment overrides.
    pub fn best() -> &'static Self {
        static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
        CHOSEN.get_or_init(|| {
            let available = Self::available();
            let wanted = std::env::var("LLAVA_KERNELS").ok();
            if let Some(name) = &wanted {
                if let Some(k) = available.iter().find(|k| k.name == name) {
                    return k;
                }
                let names: Vec<_> = available.iter().map(|k| k.name).collect();
                log::warn!("LLAVA_KERNELS={name}: not available here; this machine has {}", names.join(", "));
            }
            available[available.len() - 1]
        })
    }

    /// Every table this machine supports, slowest first.
    pub fn available() -> Vec<&'static Self> {
        let mut tables = vec![&scalar::KERNELS];
        #[cfg(target_arch = "x86_64")]
        tables.extend(x86_64::avx2::kernels());
        #[cfg(target_arch = "x86_64")]
        tables.extend(x86_64::avx512::kernels());
        #[cfg(target_arch = "aarch64")]
        tables.extend(aarch64::kernels());
        tables
    }
}
