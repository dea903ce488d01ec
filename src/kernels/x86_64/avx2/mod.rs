//! AVX2, with FMA and F16C: every x86-64 desktop and server CPU since 2013 (Intel) and 2015 (AMD). With AVX-VNNI as well,
//! which Intel's desktop CPUs have since 2021 (Alder Lake), the integer matmul has an instruction for dot products.

use super::super::{Dequantize, Kernels, MatmulF32, MatmulQ8};
use crate::quant::float::{dequantize_bf16, dequantize_f32};
use crate::quant::iq4::IQ4_NL;
use crate::quant::k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use crate::quant::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use crate::quant::{BlockType, dequantize_blocks};
use level::{Level, Pairs, Vnni};
use matmul_q8::DotQ8;

mod activation;
mod attention;
mod k;
mod lanes;
mod legacy;
mod level;
mod math;
mod matmul_f32;
mod matmul_q8;
mod norm;
mod quantize;
mod vector;

/// The tables that this CPU can run: without AVX-VNNI, and with it.
pub fn kernels() -> impl Iterator<Item = &'static Kernels> {
    static PLAIN: Kernels = KERNELS;
    static WITH_VNNI: Kernels = Kernels { name: "avx-vnni", matmul_q8: matmul_q8::<Vnni>(), ..KERNELS };
    let available =
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let vnni = available && is_x86_feature_detected!("avxvnni");
    available.then_some(&PLAIN).into_iter().chain(vnni.then_some(&WITH_VNNI))
}

/// `avx-vnni` in the encoding of AVX-512, which does the same: for tests on CPUs that have this encoding alone.
#[cfg(test)]
pub fn evex_twin() -> Option<&'static Kernels> {
    static TABLE: Kernels = Kernels { name: "avx-vnni by evex", matmul_q8: matmul_q8::<level::Evex>(), ..KERNELS };
    let vnni = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl");
    (vnni && kernels().next().is_some()).then_some(&TABLE)
}

/// A kernel as a plain function pointer.
macro_rules! entry {
    ($kernel:path, $($arg:ident),+) => {
        // SAFETY: the table is given out only where the CPU has the kernel's instruction sets.
        |$($arg),+| unsafe { $kernel($($arg),+) }
    };
}

pub(super) const KERNELS: Kernels = Kernels {
    name: "avx2",
    dequantize: DEQUANTIZE,
    matmul_q8: matmul_q8::<Pairs>(),
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
    add: entry!(vector::add, y, x),
    to_f16: entry!(vector::to_f16, x, out),
    attend: entry!(attention::attend, q, pages, out, scratch),
};

/// The scalar code, compiled for AVX2: the compiler vectorises it well, and it stays bit-equal by construction.
pub(super) const DEQUANTIZE: [Dequantize; BlockType::ALL.len()] = [
    dequantize_f32,
    entry!(quantize::dequantize_f16, bytes, out),
    entry!(bf16, bytes, out),
    entry!(blocks::<Q4_0>, bytes, out),
    entry!(blocks::<Q4_1>, bytes, out),
    entry!(blocks::<Q5_0>, bytes, out),
    entry!(blocks::<Q5_1>, bytes, out),
    entry!(blocks::<Q8_0>, bytes, out),
    entry!(blocks::<Q2_K>, bytes, out),
    entry!(blocks::<Q3_K>, bytes, out),
    entry!(blocks::<Q4_K>, bytes, out),
    entry!(blocks::<Q5_K>, bytes, out),
    entry!(blocks::<Q6_K>, bytes, out),
    entry!(blocks::<IQ4_NL>, bytes, out),
];

#[target_feature(enable = "avx2,fma,f16c")]
fn bf16(bytes: &[u8], out: &mut [f32]) {
    dequantize_bf16(bytes, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn blocks<B: crate::quant::Block>(bytes: &[u8], out: &mut [f32]) {
    dequantize_blocks::<B>(bytes, out);
}

const fn matmul_q8<L: Level>() -> [Option<MatmulQ8>; BlockType::ALL.len()] {
    [
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
    ]
}

const fn q8<B: DotQ8, L: Level>() -> MatmulQ8 {
    // SAFETY: as for `entry!`.
    |w, x, out, _scratch| unsafe { matmul_q8::q8::<B, L>(w, x, out) }
}

const fn f32<const T: usize>() -> MatmulF32 {
    // SAFETY: as for `entry!`.
    |w, x, k, out, scratch| unsafe { matmul_f32::f32(BlockType::ALL[T], DEQUANTIZE[T], w, x, k, out, scratch) }
}
