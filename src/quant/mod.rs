//! The block formats of GGUF tensors: sizes, scalar dequantization, activation quantization.
//!
//! One file per block family. Layouts and formulas follow ggml's `ggml-common.h` and `ggml-quants.c`; every
//! type dequantises bit-equal to gguf-py (`tests/golden/blocks`), the payloads of NaN aside.
//!
//! A quantised block says only how to take it apart (`Block::unpack`); dequantization and the scalar matmul are
//! written once on top of that.

pub(crate) mod float;
pub(crate) mod iq4;
pub(crate) mod k;
pub(crate) mod legacy;
mod quantize;

use bytemuck::Pod;
use half::f16;

pub use quantize::quantize;

/// How a tensor's values are stored. Names are ggml's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum BlockType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// 32 values: f16 scale, 4-bit.
    Q4_0,
    /// 32 values: f16 scale and minimum, 4-bit.
    Q4_1,
    /// 32 values: f16 scale, 5-bit.
    Q5_0,
    /// 32 values: f16 scale and minimum, 5-bit.
    Q5_1,
    /// 32 values: f16 scale, 8-bit.
    Q8_0,
    /// 256 values: 16 sub-blocks of 16 with 4-bit scales and minima, 2-bit.
    Q2_K,
    /// 256 values: 16 sub-blocks of 16 with 6-bit scales, 3-bit.
    Q3_K,
    /// 256 values: 8 sub-blocks of 32 with 6-bit scales and minima, 4-bit.
    Q4_K,
    /// 256 values: 8 sub-blocks of 32 with 6-bit scales and minima, 5-bit.
    Q5_K,
    /// 256 values: 16 sub-blocks of 16 with 8-bit scales, 6-bit.
    Q6_K,
    /// 32 values: f16 scale, 4-bit index into a fixed table.
    IQ4_NL,
}

impl BlockType {
    /// All types, in the order of their declaration.
    pub const ALL: [Self; 14] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::IQ4_NL,
    ];

    /// (ggml's number, ggml's name, values per block, bytes per block); `enum ggml_type` in `ggml.h`.
    const fn row(self) -> (u32, &'static str, usize, usize) {
        match self {
            Self::F32 => (0, "F32", 1, 4),
            Self::F16 => (1, "F16", 1, 2),
            Self::BF16 => (30, "BF16", 1, 2),
            Self::Q4_0 => (2, "Q4_0", 32, 18),
            Self::Q4_1 => (3, "Q4_1", 32, 20),
            Self::Q5_0 => (6, "Q5_0", 32, 22),
            Self::Q5_1 => (7, "Q5_1", 32, 24),
            Self::Q8_0 => (8, "Q8_0", 32, 34),
            Self::Q2_K => (10, "Q2_K", 256, 84),
            Self::Q3_K => (11, "Q3_K", 256, 110),
            Self::Q4_K => (12, "Q4_K", 256, 144),
            Self::Q5_K => (13, "Q5_K", 256, 176),
            Self::Q6_K => (14, "Q6_K", 256, 210),
            Self::IQ4_NL => (20, "IQ4_NL", 32, 18),
        }
    }

    /// ggml's number of the type, as GGUF files store it.
    pub const fn ggml_id(self) -> u32 {
        self.row().0
    }

    /// ggml's name of the type.
    pub const fn name(self) -> &'static str {
        self.row().1
    }

    /// Values in a block.
    pub const fn block_len(self) -> usize {
        self.row().2
    }

    /// Bytes in a block.
    pub const fn block_bytes(self) -> usize {
        self.row().3
    }

    /// Whether values are stored one by one as floating point numbers.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// The type with ggml's number `id`, if the engine reads it.
    pub fn from_ggml_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.ggml_id() == id)
    }

    /// Bytes of a row of `len` values; `None` if `len` is not a multiple of the block or the size overflows.
    pub const fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl std::fmt::Display for BlockType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The values of one block, taken apart: `x[i] = scales[g] · q[i] − mins[g]` with `g = i / GROUP`.
///
/// Room for the largest block; a smaller one uses the front of each array.
pub(crate) struct Unpacked {
    pub(crate) q: [i8; 256],
    pub(crate) scales: [f32; 16],
    pub(crate) mins: [f32; 16],
}

impl Unpacked {
    pub(crate) const fn new() -> Self {
        Self { q: [0; 256], scales: [0.0; 16], mins: [0.0; 16] }
    }
}

/// A quantised block, as it lies in a file. Mapped tensors may start anywhere, so every block has alignment 1.
pub(crate) trait Block: Pod {
    /// Values in a block.
    const LEN: usize;

    /// Consecutive values with one scale and one minimum: 16 or 32.
    const GROUP: usize;

    /// Fills the first `LEN` values and the first `LEN / GROUP` scales and minima of `out`. Types without minima
    /// leave `mins` alone; they are zero from the start.
    fn unpack(&self, out: &mut Unpacked);
}

/// An f16 field of a block.
#[inline(always)]
pub(crate) fn half_to_f32(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// Whole blocks of one type to f32; `out` has `B::LEN` values for each block.
#[inline(always)]
pub(crate) fn dequantize_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let blocks: &[B] = bytemuck::cast_slice(bytes);
    assert_eq!(blocks.len() * B::LEN, out.len(), "values for the blocks");
    let mut u = Unpacked::new();
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(B::LEN)) {
        block.unpack(&mut u);
        for (g, out) in out.chunks_exact_mut(B::GROUP).enumerate() {
            let (scale, min) = (u.scales[g], u.mins[g]);
            for (out, &q) in out.iter_mut().zip(&u.q[g * B::GROUP..]) {
                // Two roundings, as the reference has. Subtracting a zero minimum changes nothing, not even −0.
                *out = scale * f32::from(q) - min;
            }
        }
    }
}

/// Bytes of whole blocks to f32. Panics if `out` has another length than the blocks have values.
pub fn dequantize(t: BlockType, bytes: &[u8], out: &mut [f32]) {
    let f = match t {
        BlockType::F32 => float::dequantize_f32,
        BlockType::F16 => float::dequantize_f16,
        BlockType::BF16 => float::dequantize_bf16,
        BlockType::Q4_0 => dequantize_blocks::<legacy::Q4_0>,
        BlockType::Q4_1 => dequantize_blocks::<legacy::Q4_1>,
        BlockType::Q5_0 => dequantize_blocks::<legacy::Q5_0>,
        BlockType::Q5_1 => dequantize_blocks::<legacy::Q5_1>,
        BlockType::Q8_0 => dequantize_blocks::<legacy::Q8_0>,
        BlockType::Q2_K => dequantize_blocks::<k::Q2_K>,
        BlockType::Q3_K => dequantize_blocks::<k::Q3_K>,
        BlockType::Q4_K => dequantize_blocks::<k::Q4_K>,
        BlockType::Q5_K => dequantize_blocks::<k::Q5_K>,
        BlockType::Q6_K => dequantize_blocks::<k::Q6_K>,
        BlockType::IQ4_NL => dequantize_blocks::<iq4::IQ4_NL>,
    };
    f(bytes, out);
}
