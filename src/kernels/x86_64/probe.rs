//! Loops of independent operations at the processor's peak, for [`Machine`](super::super::probe::Machine).
//!
//! In assembly, because a compiler that sees through a loop does not run it. The operations use as many sums as there
//! are registers, so that none waits for the one before; all values are zero, which has no effect on the speed.

use super::super::probe::Loop;
use std::arch::asm;

/// A function that zeroes vector registers and then runs its operations `iterations` times.
///
/// `\r` stands for the number of a sum's register: 0 to 19 with 512 bits, 0 to 11 with 256.
macro_rules! peak {
    ($name:ident, 512, $($op:literal),+) => {
        peak!(@ $name, "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19", "vpxord zmm\\r, zmm\\r, zmm\\r",
            "16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31", $($op),+);
    };
    ($name:ident, 256, $($op:literal),+) => {
        peak!(@ $name, "0,1,2,3,4,5,6,7,8,9,10,11", "nop", "0", $($op),+);
    };
    (@ $name:ident, $sums:literal, $zero:literal, $high:literal, $($op:literal),+) => {
        fn $name(iterations: u64) {
            // SAFETY: works in registers alone, all of which are declared; the function is given out only where the
            // processor has the instructions.
            unsafe {
                asm!(
                    "vzeroall",
                    concat!(".irp r,", $high),
                    $zero,
                    ".endr",
                    "2:",
                    concat!(".irp r,", $sums),
                    $($op,)+
                    ".endr",
                    "dec rcx",
                    "jnz 2b",
                    "vzeroupper",
                    inout("rcx") iterations.max(1) => _,
                    clobber_abi("sysv64"),
                    options(nomem, nostack)
                )
            }
        }
    };
}

peak!(f32_512, 512, "vfmadd231ps zmm\\r, zmm30, zmm31");
peak!(bf16_512, 512, "vdpbf16ps zmm\\r, zmm30, zmm31");
peak!(int8_512, 512, "vpdpbusd zmm\\r, zmm30, zmm31");
peak!(f32_256, 256, "vfmadd231ps ymm\\r, ymm14, ymm15");
peak!(int8_256, 256, "{{vex}} vpdpbusd ymm\\r, ymm14, ymm15");
// What a processor without VNNI multiplies bytes with.
peak!(int8_avx2, 256, "vpmaddubsw ymm13, ymm14, ymm15", "vpmaddwd ymm13, ymm13, ymm12", "vpaddd ymm\\r, ymm\\r, ymm13");

/// Operations of an iteration: every sum's lanes, each a number of multiplications and as many additions.
const fn ops(sums: u32, lanes: u32, products: u32) -> f64 {
    (sums * lanes * products * 2) as f64
}

/// f32 multiply-and-add.
pub fn f32_loop() -> Option<Loop> {
    if is_x86_feature_detected!("avx512f") {
        return Some(Loop { ops: ops(20, 16, 1), run: f32_512 });
    }
    let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    fma.then_some(Loop { ops: ops(12, 8, 1), run: f32_256 })
}

/// bf16 dot products of two.
pub fn bf16_loop() -> Option<Loop> {
    let bf16 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
    bf16.then_some(Loop { ops: ops(20, 16, 2), run: bf16_512 })
}

/// int8 dot products of four.
pub fn int8_loop() -> Option<Loop> {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        return Some(Loop { ops: ops(20, 16, 4), run: int8_512 });
    }
    if is_x86_feature_detected!("avxvnni") {
        return Some(Loop { ops: ops(12, 8, 4), run: int8_256 });
    }
    is_x86_feature_detected!("avx2").then_some(Loop { ops: ops(12, 8, 4), run: int8_avx2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_processors_loops_run_too() {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            f32_256(1000);
            int8_avx2(1000);
        }
        if is_x86_feature_detected!("avxvnni") {
            int8_256(1000);
        }
    }
}
