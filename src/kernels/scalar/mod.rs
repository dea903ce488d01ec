//! The specification: every kernel as plainly as it can be written.
//!
//! Norms and activation functions compute in f64 and round once, so each value is within half a unit in the last
//! place of the formula (softmax: within two units). Matmuls and attention
//! accumulate in f32, in the order of what they sum over.

use super::Kernels;
use super::row_scaled::RowScaled;
use crate::quant::float::{dequantize_bf16, dequantize_f16, dequantize_f32};
use crate::quant::iq4::IQ4_NL;
use crate::quant::k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use crate::quant::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use crate::quant::{BlockType, dequantize_blocks};

mod activation;
mod attention;
pub(super) mod erf;
mod matmul;
mod norm;
mod quantize;
mod row_scaled;
mod vector;

/// The scalar table, available everywhere.
pub static KERNELS: Kernels = Kernels {
    name: "scalar",
    dequantize: [
        dequantize_f32,
        dequantize_f16,
        dequantize_bf16,
        dequantize_blocks::<Q4_0>,
        dequantize_blocks::<Q4_1>,
        dequantize_blocks::<Q5_0>,
        dequantize_blocks::<Q5_1>,
        dequantize_blocks::<Q8_0>,
        dequantize_blocks::<Q2_K>,
        dequantize_blocks::<Q3_K>,
        dequantize_blocks::<Q4_K>,
        dequantize_blocks::<Q5_K>,
        dequantize_blocks::<Q6_K>,
        dequantize_blocks::<IQ4_NL>,
    ],
    matmul_q8: [
        None,
        None,
        None,
        Some(matmul::q8::<Q4_0>),
        Some(matmul::q8::<Q4_1>),
        Some(matmul::q8::<Q5_0>),
        Some(matmul::q8::<Q5_1>),
        Some(matmul::q8::<Q8_0>),
        Some(matmul::q8::<Q2_K>),
        Some(matmul::q8::<Q3_K>),
        Some(matmul::q8::<Q4_K>),
        Some(matmul::q8::<Q5_K>),
        Some(matmul::q8::<Q6_K>),
        Some(matmul::q8::<IQ4_NL>),
    ],
    matmul_f32: [
        |w, x, k, out, scratch| matmul::f32(BlockType::F32, w, x, k, out, scratch),
        |w, x, k, out, scratch| matmul::f32(BlockType::F16, w, x, k, out, scratch),
        |w, x, k, out, scratch| matmul::f32(BlockType::BF16, w, x, k, out, scratch),
        |w, x, k, out, scratch| matmul::f32(BlockType::Q4_0, w, x, k, out, scratch),
        |w, x, k, out, scratch| matmul::f32(BlockType::Q4_1, w, x, k, out, scratch),
        |w, x, k, out, scratch| matmul::f32(BlockType::Q5_0, w, x, k, out, scratch),
        |w, x, k, out, scratch| matmul::f32(BlockType::Q5_1, w, x, k, out, scratch),
        |w, x, k, out, scratch| matmul::f32(BlockType::Q8_0, w, x, k, out, scratch),
        |w, x, k, out, scratch| matmul::f32(BlockType::Q2_K, w, x, k, out, scratch),
        |w, x, k, out, scratch| matmul::f32(BlockType::Q3_K, w, x, k, out, scratch),
        |w, x, k, out, scratch| matmul::f32(BlockType::Q4_K, w, x, k, out, scratch),
        |w, x, k, out, scratch| matmul::f32(BlockType::Q5_K, w, x, k, out, scratch),
        |w, x, k, out, scratch| matmul::f32(BlockType::Q6_K, w, x, k, out, scratch),
        |w, x, k, out, scratch| matmul::f32(BlockType::IQ4_NL, w, x, k, out, scratch),
    ],
    bf16: None,
    row_scaled: Some(RowScaled {
        quantize: row_scaled::quantize,
        matmul: [
            None,
            None,
            None,
            Some(row_scaled::matmul::<Q4_0>),
            Some(row_scaled::matmul::<Q4_1>),
            Some(row_scaled::matmul::<Q5_0>),
            Some(row_scaled::matmul::<Q5_1>),
            Some(row_scaled::matmul::<Q8_0>),
            Some(row_scaled::matmul::<Q2_K>),
            Some(row_scaled::matmul::<Q3_K>),
            Some(row_scaled::matmul::<Q4_K>),
            Some(row_scaled::matmul::<Q5_K>),
            Some(row_scaled::matmul::<Q6_K>),
            Some(row_scaled::matmul::<IQ4_NL>),
        ],
    }),
    quantize_q8: quantize::quantize_q8,
    rms_norm: norm::rms_norm,
    layer_norm: norm::layer_norm,
    silu_mul: activation::silu_mul,
    gelu_quick: activation::gelu_quick,
    gelu_erf: activation::gelu_erf,
    gelu_tanh: activation::gelu_tanh,
    add: vector::add,
    to_f16: vector::to_f16,
    attend: attention::attend,
};
