//! Single kernels on one thread, by every table that this machine supports.
//!
//! `matmul_q8` stands beside the dot product of a ggml of 2023 (`ggml-sys`, compiled with AVX2 where the machine has
//! it) on the types that it shares with GGUF. `cargo bench -- gemv/Q4_K` runs what matches.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use llava::kernels::{Kernels, OutTile, Q8Rows};
use llava::quant::BlockType;
use std::hint::black_box;
use std::time::Duration;

mod ggml;

/// Row length of everything: the width of a 7B model.
const K: usize = 4096;

/// Numbers in −1..1 that look random (Knuth's MMIX).
fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 32) as i32 as f32 / 2f32.powi(31)
    };
    (0..n).map(|_| next()).collect()
}

/// `rows` rows of weights. Any bytes will do for blocks, but these hold no infinities: every f16 is 0x3030.
fn weights(t: BlockType, rows: usize) -> Vec<u8> {
    vec![0x30; rows * t.row_bytes(K).expect("whole blocks")]
}

/// Activations `[cols, K]` in int8.
struct Activations {
    qs: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i16>,
}

impl Activations {
    fn new(kernels: &Kernels, cols: usize) -> Self {
        let mut a = Self { qs: vec![0; cols * K], scales: vec![0.0; cols * K / 32], sums: vec![0; cols * K / 16] };
        for (c, x) in random(cols * K, 1).chunks_exact(K).enumerate() {
            let (qs, scales, sums) = (&mut a.qs[c * K..], &mut a.scales[c * (K / 32)..], &mut a.sums[c * (K / 16)..]);
            (kernels.quantize_q8)(x, &mut qs[..K], &mut scales[..K / 32], &mut sums[..K / 16]);
        }
        a
    }

    fn rows(&self) -> Q8Rows<'_> {
        Q8Rows { qs: &self.qs, scales: &self.scales, sums: &self.sums, k: K }
    }
}

/// `matmul_q8` of `rows` rows of weights and `cols` of activations; the throughput is in operations.
fn matmul(c: &mut Criterion, group: &str, rows: usize, cols: usize) {
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements((2 * rows * cols * K) as u64));
    for t in BlockType::ALL {
        for kernels in Kernels::available() {
            // The specification is written to be read, and takes a second for many columns.
            let readable = kernels.name == "scalar" && cols > 1;
            let Some(run) = kernels.matmul_q8[t as usize].filter(|_| !readable) else { continue };
            let (weights, x) = (weights(t, rows), Activations::new(kernels, cols));
            let (mut out, mut scratch) = (vec![0.0; rows * cols], Vec::new());
            group.bench_function(BenchmarkId::new(t.name(), kernels.name), |b| {
                b.iter(|| run(black_box(&weights), x.rows(), &mut OutTile::new(&mut out, cols, rows), &mut scratch));
            });
        }
        if let (Some(dot), 1) = (ggml::Dot::new(t, rows, K), cols) {
            let mut out = vec![0.0; rows];
            group.bench_function(BenchmarkId::new(t.name(), "ggml-2023"), |b| b.iter(|| dot.run(&mut out)));
        }
    }
}

/// One column: a token alone. Weights of 8 to 18 MB, in the last-level cache of most machines.
fn gemv(c: &mut Criterion) {
    matmul(c, "gemv", 4096, 1);
}

/// Many columns: a prompt.
fn gemm(c: &mut Criterion) {
    matmul(c, "gemm", 512, 128);
}

/// What stands between the products; the throughput is in values.
fn rows(c: &mut Criterion) {
    let (x, w, b) = (random(K, 2), random(K, 3), random(K, 4));
    let mut group = c.benchmark_group("row");
    group.throughput(Throughput::Elements(K as u64));
    for kernels in Kernels::available() {
        let name = |what| BenchmarkId::new(what, kernels.name);
        let (mut qs, mut scales, mut sums) = (vec![0; K], vec![0.0; K / 32], vec![0; K / 16]);
        group.bench_function(name("quantize_q8"), |bench| {
            bench.iter(|| (kernels.quantize_q8)(black_box(&x), &mut qs, &mut scales, &mut sums));
        });
        let mut out = vec![0.0; K];
        group.bench_function(name("rms_norm"), |bench| {
            bench.iter(|| (kernels.rms_norm)(black_box(&x), &w, 1e-5, &mut out));
        });
        group.bench_function(name("layer_norm"), |bench| {
            bench.iter(|| (kernels.layer_norm)(black_box(&x), &w, &b, 1e-5, &mut out));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1)).sample_size(10);
    targets = gemv, gemm, rows
}
criterion_main!(benches);
