//! 64-bit ARM: three tables, which differ in how the integer matmul multiplies bytes and in nothing else.
//!
//! The compiler takes NEON for granted on this architecture, so scalar functions are compiled for it too; they stand in
//! the tables where they are bit-equal by construction and vectorised well: dequantization and `add`.

use super::scalar;
use super::{Dequantize, Kernels, MatmulF32, MatmulQ8};
use crate::quant::BlockType;
use crate::quant::iq4::IQ4_NL;
use crate::quant::k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use crate::quant::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use matmul_q8::Level;
use std::arch::is_aarch64_feature_detected;
use weights::Weights;

mod activation;
mod attention;
mod column;
mod dotprod;
mod i8mm;
mod k;
mod lanes;
mod legacy;
mod math;
mod matmul_f32;
mod matmul_q8;
mod neon;
mod norm;
mod panel;
mod quantize;
mod rows_by_columns;
mod vector;
mod weights;

/// The tables that this CPU can run, slowest first.
pub fn kernels() -> Vec<&'static Kernels> {
    let mut tables = Vec::new();
    if is_aarch64_feature_detected!("neon") {
        tables.push(&neon::KERNELS);
        if is_aarch64_feature_detected!("dotprod") {
            tables.push(&dotprod::KERNELS);
            if is_aarch64_feature_detected!("i8mm") {
                tables.push(&i8mm::KERNELS);
            }
        }
    }
    tables
}

/// A kernel as a plain function pointer.
macro_rules! entry {
    ($kernel:path, $($arg:ident),+) => {
        // SAFETY: the table is given out only where the CPU has the kernel's instruction sets.
        |$($arg),+| unsafe { $kernel($($arg),+) }
    };
}

const fn table<L: Level>(name: &'static str) -> Kernels {
    Kernels {
        name,
        dequantize: DEQUANTIZE,
        matmul_q8: [
            None,
            None,
            None,
            Some(q8::<Q4_0, L>()),
            Some(q8::<Q4_1, L>()),
            Some(q8::<Q5_0, L>()),
            Some(q8::<Q5_1, L>()),
            Some(q8::<Q8_0, L>()),
            Some(q8::<Q2_K, L>()),
            Some(q8::<Q3_K, L>()),
            Some(q8::<Q4_K, L>()),
            Some(q8::<Q5_K, L>()),
            Some(q8::<Q6_K, L>()),
            Some(q8::<IQ4_NL, L>()),
        ],
        matmul_f32: [
            f32::<{ BlockType::F32 as usize }>(),
            f32::<{ BlockType::F16 as usize }>(),
            f32::<{ BlockType::BF16 as usize }>(),
            f32::<{ BlockType::Q4_0 as usize }>(),
            f32::<{ BlockType::Q4_1 as usize }>(),
            f32::<{ BlockType::Q5_0 as usize }>(),
            f32::<{ BlockType::Q5_1 as usize }>(),
            f32::<{ BlockType::Q8_0 as usize }>(),
            f32::<{ BlockType::Q2_K as usize }>(),
            f32::<{ BlockType::Q3_K as usize }>(),
            f32::<{ BlockType::Q4_K as usize }>(),
            f32::<{ BlockType::Q5_K as usize }>(),
            f32::<{ BlockType::Q6_K as usize }>(),
            f32::<{ BlockType::IQ4_NL as usize }>(),
        ],
        bf16: None,
        row_scaled: None,
        quantize_q8: entry!(quantize::quantize_q8, x, qs, scales, sums),
        rms_norm: entry!(norm::rms_norm, x, w, eps, out),
        layer_norm: entry!(norm::layer_norm, x, w, b, eps, out),
        silu_mul: entry!(activation::silu_mul, gate, up),
        gelu_quick: entry!(activation::gelu_quick, x),
        gelu_erf: entry!(activation::gelu_erf, x),
        gelu_tanh: entry!(activation::gelu_tanh, x),
        add: scalar::KERNELS.add,
        to_f16: entry!(vector::to_f16, x, out),
        attend: entry!(attention::attend, q, pages, out, scratch),
    }
}

/// Scalar's, but for F16.
const DEQUANTIZE: [Dequantize; BlockType::ALL.len()] = {
    let mut table = scalar::KERNELS.dequantize;
    table[BlockType::F16 as usize] = entry!(quantize::dequantize_f16, bytes, out);
    table
};

const fn q8<B: Weights, L: Level>() -> MatmulQ8 {
    // SAFETY: as for `entry!`.
    |w, x, out, scratch| unsafe { L::run::<B>(w, x, out, scratch) }
}

const fn f32<const T: usize>() -> MatmulF32 {
    // SAFETY: as for `entry!`.
    |w, x, k, out, scratch| unsafe { matmul_f32::f32(BlockType::ALL[T], DEQUANTIZE[T], w, x, k, out, scratch) }
}
