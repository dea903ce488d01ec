//! AVX-512 with VNNI: Intel's servers since 2019, AMD's processors since 2022.

use super::super::Kernels;
use super::avx2;

mod attention;

/// The table, if this CPU can run it.
pub fn kernels() -> Option<&'static Kernels> {
    let available = avx2::kernels().is_some()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni");
    available.then_some(&KERNELS)
}

static KERNELS: Kernels = Kernels {
    name: "avx512",
    // SAFETY: the table is given out only where the CPU has the kernel's instruction sets.
    attend: |q, pages, out, scratch| unsafe { attention::attend(q, pages, out, scratch) },
    ..avx2::KERNELS
};
