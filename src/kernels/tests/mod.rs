//! One battery, run on every table that this machine supports.

use super::{Kernels, Q8Rows};

mod activation;
mod attention;
#[cfg(unix)]
mod guard;
mod matmul;
mod norm;
mod row_scaled;
mod vector;

/// Runs `f` on each table; failures name it.
fn each_table(f: impl Fn(&Kernels)) {
    for kernels in Kernels::available() {
        println!("table {}", kernels.name);
        f(kernels);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(twin) = super::x86_64::avx2::evex_twin() {
        println!("not offered: {}", twin.name);
        f(twin);
    }
}

/// Numbers that look random: a 64-bit linear congruential generator (Knuth's MMIX).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }

    fn below(&mut self, n: u32) -> u32 {
        self.next() % n
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }

    /// In −1..1.
    fn f32(&mut self) -> f32 {
        self.next() as i32 as f32 / 2f32.powi(31)
    }

    fn f32s(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.f32()).collect()
    }
}

/// Quantised activations and their memory.
struct Activations {
    qs: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i16>,
    k: usize,
}

impl Activations {
    fn quantize(x: &[f32], cols: usize, kernels: &Kernels) -> Self {
        let k = x.len() / cols;
        let mut a = Self { qs: vec![99; cols * k], scales: vec![9.0; cols * k / 32], sums: vec![99; cols * k / 16], k };
        for (c, x) in x.chunks_exact(k).enumerate() {
            (kernels.quantize_q8)(
                x,
                &mut a.qs[c * k..][..k],
                &mut a.scales[c * (k / 32)..][..k / 32],
                &mut a.sums[c * (k / 16)..][..k / 16],
            );
        }
        a
    }

    fn rows(&self) -> Q8Rows<'_> {
        Q8Rows { qs: &self.qs, scales: &self.scales, sums: &self.sums, k: self.k }
    }
}

/// The distance between two f32 that are next to each other at `x`.
fn ulp(x: f64) -> f64 {
    let x = (x.abs() as f32).min(f32::MAX.next_down());
    f64::from(x.next_up()) - f64::from(x)
}

fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.to_bits(), want.to_bits(), "{what}: value {i} is {got:e}, not {want:e}");
    }
}
