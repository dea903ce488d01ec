//! What this machine can do at best: the limits that measured speeds are held against.
//!
//! Each figure is of all threads at once, and the best of several short rounds: a limit is what the machine reaches
//! when nothing disturbs it. Arithmetic runs in registers alone, reading in memory alone.

use std::hint::black_box;
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a round of arithmetic takes, and how many there are.
const ROUND: Duration = Duration::from_millis(30);
const ROUNDS: usize = 6;
/// Iterations between two looks at the clock: some 100 microseconds.
const BURST: u64 = 20_000;
/// Bytes that all threads read in a pass: more than a last-level cache holds.
const READ_BYTES: usize = 256 << 20;
const READ_PASSES: usize = 12;

/// A machine's limits, in 10⁹ a second. An operation is a multiplication or an addition.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Bytes read from memory.
    pub read_gb_s: f64,
    /// Operations of int8 dot products.
    pub int8_gop_s: f64,
    /// Operations of bf16 dot products; none if the processor has no instruction for them.
    pub bf16_gf_s: Option<f64>,
    /// Operations of f32 multiply-and-add.
    pub f32_gf_s: f64,
}

impl Machine {
    /// Measures with `threads` threads, for about a second. Takes 256 MB of memory meanwhile.
    pub fn measure(threads: usize) -> Self {
        let threads = threads.max(1);
        Self {
            f32_gf_s: arithmetic(threads, f32_loop()),
            bf16_gf_s: bf16_loop().map(|work| arithmetic(threads, work)),
            int8_gop_s: arithmetic(threads, int8_loop()),
            read_gb_s: reading(threads),
        }
    }
}

/// A loop of independent operations.
#[derive(Clone, Copy)]
pub(super) struct Loop {
    /// Operations of an iteration.
    pub ops: f64,
    /// Runs so many iterations.
    pub run: fn(u64),
}

#[cfg(target_arch = "x86_64")]
use super::x86_64::probe as native;

/// Architectures whose instructions have no loops here.
#[cfg(not(target_arch = "x86_64"))]
mod native {
    use super::Loop;

    pub fn f32_loop() -> Option<Loop> {
        None
    }

    pub fn bf16_loop() -> Option<Loop> {
        None
    }

    pub fn int8_loop() -> Option<Loop> {
        None
    }
}

fn f32_loop() -> Loop {
    native::f32_loop().unwrap_or(Loop { ops: 2.0 * LANES as f64, run: scalar_f32 })
}

fn bf16_loop() -> Option<Loop> {
    native::bf16_loop()
}

fn int8_loop() -> Loop {
    native::int8_loop().unwrap_or(Loop { ops: 2.0 * LANES as f64, run: scalar_int8 })
}

/// Sums that the portable loops keep, for the compiler to spread over vector registers.
const LANES: usize = 64;

fn scalar_f32(iterations: u64) {
    // Where it is no instruction, `mul_add` is a function call.
    const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
    let (a, b) = (black_box(0.5f32), black_box(1.0f32));
    let mut sums = [0f32; LANES];
    for _ in 0..iterations {
        for s in &mut sums {
            *s = if FUSED { s.mul_add(a, b) } else { *s * a + b };
        }
    }
    black_box(sums);
}

fn scalar_int8(iterations: u64) {
    let (mut a, b) = ([1i8; LANES], black_box([1i8; LANES]));
    let mut sums = [0i32; LANES];
    for _ in 0..iterations {
        // Unknown each time, or the loop would be one multiplication.
        a = black_box(a);
        for i in 0..LANES {
            sums[i] = sums[i].wrapping_add(i32::from(a[i]) * i32::from(b[i]));
        }
    }
    black_box(sums);
}

/// 10⁹ operations a second.
fn arithmetic(threads: usize, work: Loop) -> f64 {
    best_round(threads, ROUNDS, || {
        move || {
            let start = Instant::now();
            let mut iterations = 0;
            while start.elapsed() < ROUND {
                (work.run)(BURST);
                iterations += BURST;
            }
            iterations as f64 * work.ops
        }
    })
}

/// A cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u64; 8]);

/// 10⁹ bytes a second.
fn reading(threads: usize) -> f64 {
    best_round(threads, READ_PASSES, || {
        // Written here, so that the memory is real and near the thread that reads it.
        let lines = vec![Line([1; 8]); READ_BYTES / threads / size_of::<Line>()];
        move || {
            let mut sums = [0u64; 8];
            for line in black_box(&lines) {
                for (s, v) in sums.iter_mut().zip(line.0) {
                    *s = s.wrapping_add(v);
                }
            }
            black_box(sums);
            (lines.len() * size_of::<Line>()) as f64
        }
    })
}

/// Runs what `prepare` makes on every thread at once, `rounds` times. Of each round the sum of what the threads return
/// over the time of the slowest; of these the best, in 10⁹ a second.
fn best_round<F: FnMut() -> f64>(threads: usize, rounds: usize, prepare: impl Fn() -> F + Sync) -> f64 {
    let (barrier, results) = (Barrier::new(threads), Mutex::new(vec![(0.0, 0f64); rounds]));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut round = prepare();
                for i in 0..rounds {
                    barrier.wait();
                    let start = Instant::now();
                    let amount = round();
                    let seconds = start.elapsed().as_secs_f64();
                    let (sum, slowest) = &mut results.lock().unwrap_or_else(PoisonError::into_inner)[i];
                    (*sum, *slowest) = (*sum + amount, slowest.max(seconds));
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().map(|(sum, slowest)| sum / slowest).fold(0.0, f64::max) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_finite_and_positive() {
        let m = Machine::measure(2);
        println!("{m:?}");
        for figure in [Some(m.read_gb_s), Some(m.int8_gop_s), m.bf16_gf_s, Some(m.f32_gf_s)].into_iter().flatten() {
            assert!(figure.is_finite() && figure > 0.0, "{m:?}");
        }
    }

    #[test]
    fn portable_loops_take_time() {
        for run in [scalar_f32, scalar_int8] {
            let start = Instant::now();
            run(1_000_000);
            // Less is over a thousand operations a nanosecond: the compiler has seen through the loop.
            assert!(start.elapsed() > Duration::from_micros(128));
        }
    }
}
