//! AVX-512 F, BW, VL, DQ and VNNI: Intel servers since Cascade Lake (2019) and Ice Lake, AMD since Zen 4 (2022).
//!
//! What is not faster with vectors of 16 lanes is taken from the AVX2 table.

use super::super::row_scaled::{Matmul, Requantise, RowScaled};
use super::super::{Bf16Kernels, Kernels, MatmulQ8};
use super::avx2;
use crate::quant::iq4::IQ4_NL;
use crate::quant::k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use crate::quant::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use unpack::Unpack;

mod activation;
mod attention;
mod attention_bf16;
mod matmul_bf16;
mod matmul_q8;
mod panel;
mod row_scaled;
mod rows;
mod sums;
mod unpack;

/// The tables that this CPU can run: without bf16, and with it (Intel since Cooper Lake and Sapphire Rapids, AMD Zen 4).
pub fn kernels() -> impl Iterator<Item = &'static Kernels> {
    static PLAIN: Kernels = KERNELS;
    static WITH_BF16: Kernels = Kernels { name: "avx512-bf16", bf16: Some(BF16), ..KERNELS };
    let available = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni");
    let available = available && avx2::kernels().next().is_some();
    let bf16 = available && is_x86_feature_detected!("avx512bf16");
    available.then_some(&PLAIN).into_iter().chain(bf16.then_some(&WITH_BF16))
}

const BF16: Bf16Kernels = Bf16Kernels {
    // SAFETY: the table is given out only where the CPU has the kernels' instruction sets.
    round: |x, out| unsafe { matmul_bf16::round(x, out) },
    matmul: |t, w, x, out, scratch| {
        // SAFETY: as above.
        unsafe { matmul_bf16::matmul(t, avx2::DEQUANTIZE[t as usize], w, x, out, scratch) }
    },
    // SAFETY: as above.
    pack: |k, v, stride, dim, to| unsafe { attention_bf16::pack(k, v, stride, dim, to) },
    // SAFETY: as above.
    attend: |q, kv, out, scratch| unsafe { attention_bf16::attend(q, kv, out, scratch) },
};

const KERNELS: Kernels = Kernels {
    name: "avx512",
    matmul_q8: [
        None,
        None,
        None,
        Some(q8::<Q4_0>()),
        Some(q8::<Q4_1>()),
        Some(q8::<Q5_0>()),
        Some(q8::<Q5_1>()),
        Some(q8::<Q8_0>()),
        Some(q8::<Q2_K>()),
        Some(q8::<Q3_K>()),
        Some(q8::<Q4_K>()),
        Some(q8::<Q5_K>()),
        Some(q8::<Q6_K>()),
        Some(q8::<IQ4_NL>()),
    ],
    row_scaled: Some(RowScaled {
        // SAFETY: the table is given out only where the CPU has the kernels' instruction sets.
        quantize: |x, low, at, outliers| unsafe { row_scaled::quantize(x, low, at, outliers) },
        matmul: [
            None,
            None,
            None,
            Some(row_scaled_of::<Q4_0>()),
            Some(row_scaled_of::<Q4_1>()),
            Some(row_scaled_of::<Q5_0>()),
            Some(row_scaled_of::<Q5_1>()),
            Some(row_scaled_of::<Q8_0>()),
            Some(row_scaled_of::<Q2_K>()),
            Some(row_scaled_of::<Q3_K>()),
            Some(row_scaled_of::<Q4_K>()),
            Some(row_scaled_of::<Q5_K>()),
            Some(row_scaled_of::<Q6_K>()),
            Some(row_scaled_of::<IQ4_NL>()),
        ],
    }),
    // SAFETY: as above.
    gelu_quick: |x| unsafe { activation::gelu_quick(x) },
    // SAFETY: as above.
    attend: |q, pages, out, scratch| unsafe { attention::attend(q, pages, out, scratch) },
    ..avx2::KERNELS
};

const fn q8<B: Unpack>() -> MatmulQ8 {
    // SAFETY: the table is given out only where the CPU has the kernel's instruction sets.
    |w, x, out, scratch| unsafe { matmul_q8::q8::<B>(w, x, out, scratch) }
}

const fn row_scaled_of<B: Unpack + Requantise>() -> Matmul {
    // SAFETY: the table is given out only where the CPU has the kernel's instruction sets.
    |w, k, x, bias, out, scratch| unsafe { row_scaled::matmul::<B>(w, k, x, bias, out, scratch) }
}
