//! AVX-512 F, BW, VL and VNNI: Intel servers since Cascade Lake (2019) and Ice Lake, AMD since Zen 4 (2022).
//!
//! What is not faster with vectors of 16 lanes is taken from the AVX2 table.

use super::super::{Kernels, MatmulQ8};
use super::avx2;
use crate::quant::iq4::IQ4_NL;
use crate::quant::k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use crate::quant::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use unpack::Unpack;

mod matmul_q8;
mod panel;
mod rows;
mod unpack;

/// The table, if this CPU can run it.
pub fn kernels() -> Option<&'static Kernels> {
    let available = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    (available && avx2::kernels().is_some()).then_some(&KERNELS)
}

static KERNELS: Kernels = Kernels {
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
    ..avx2::KERNELS
};

const fn q8<B: Unpack>() -> MatmulQ8 {
    // SAFETY: the table is given out only where the CPU has the kernel's instruction sets.
    |w, x, out, scratch| unsafe { matmul_q8::q8::<B>(w, x, out, scratch) }
}
