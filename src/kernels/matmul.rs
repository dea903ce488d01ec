//! Matrix products over the pool: activations packed once, weights taken in panels of rows.

use super::{Bf16Columns, Bf16Kernels, Kernels, OutTile, Q8_BLOCK, Q8Rows};
use crate::quant::BlockType;
use crate::threads::{Disjoint, Team};
use crate::weights::Linear;
use half::bf16;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The fewest rows that a thread takes at a time: what the widest kernels work on at once.
const FEWEST_ROWS: usize = 32;
/// The most. More rows share the copy that a kernel makes of the activations, and memory is read in longer runs; fewer
/// are fairer to a thread that is held up.
const MOST_ROWS: usize = 256;

/// What activations are rounded to before they meet weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// Nothing; weights take their dequantised f32 values.
    F32,
    /// bf16, and so are the weights, where the kernels can and the weights are not F32; otherwise as `F32`.
    Bf16,
    /// int8 in blocks where weights are quantised; otherwise as `F32`.
    Int8,
}

/// One of several products that share their right-hand side.
pub struct Product<'a> {
    /// `[rows, k]`, and its bias.
    pub layer: &'a Linear,
    /// `[n, rows]`.
    pub out: &'a mut [f32],
}

/// Memory that matmuls keep between calls.
#[derive(Default)]
pub struct Scratch {
    /// Quantised activations, see [`Q8Rows`].
    qs: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i16>,
    /// Activations in bf16, see [`Bf16Columns`].
    halves: Vec<bf16>,
    /// Keys and values of a tile, see [`pack_pages`](super::attention::pack_pages).
    pub pages: Vec<f32>,
    /// Each worker's own, grown by the kernels.
    workers: Vec<Mutex<Vec<f32>>>,
}

impl Scratch {
    /// Scratch for `threads` threads.
    pub fn new(threads: usize) -> Self {
        Self { workers: (0..threads).map(|_| Mutex::default()).collect(), ..Self::default() }
    }

    /// The memory of `worker`, which alone uses it while an operation runs. Contents mean nothing.
    pub fn worker(&self, worker: usize) -> MutexGuard<'_, Vec<f32>> {
        self.workers[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Quantises `x`, `[n, k]`.
    fn quantize(&mut self, kernels: &Kernels, team: &mut Team<'_>, x: &[f32], k: usize) {
        let len = x.len();
        self.qs.resize(len, 0);
        self.scales.resize(len / Q8_BLOCK, 0.0);
        self.sums.resize(len / (Q8_BLOCK / 2), 0);
        let (qs, scales, sums) =
            (Disjoint::new(&mut self.qs), Disjoint::new(&mut self.scales), Disjoint::new(&mut self.sums));
        team.run(len / k, |_, i| {
            let (b, s) = (k / Q8_BLOCK, k / (Q8_BLOCK / 2));
            // SAFETY: every chunk runs once, and row `i` of each is only its own.
            let (qs, scales, sums) = unsafe { (qs.slice(i * k, k), scales.slice(i * b, b), sums.slice(i * s, s)) };
            (kernels.quantize_q8)(&x[i * k..(i + 1) * k], qs, scales, sums);
        });
    }

    /// Rounds `x`, `[n, k]`, to bf16.
    fn round(&mut self, kernels: &Bf16Kernels, team: &mut Team<'_>, x: &[f32], n: usize, k: usize) {
        self.halves.resize(Bf16Columns::len(n, k), bf16::ZERO);
        let halves = Disjoint::new(&mut self.halves);
        team.run(n, |_, c| {
            let x = &x[c * k..][..k];
            for (start, values) in Bf16Columns::places(c, n, k) {
                // SAFETY: every chunk runs once, and these places are only its own.
                let out = unsafe { halves.slice(start, values.len() + 1) };
                let (out, zero) = out.split_at_mut(values.len());
                (kernels.round)(&x[values], out);
                zero.fill(bf16::ZERO);
            }
        });
    }
}

/// `out = x Wᵀ + b` for every product; `x` is `[n, k]`.
pub fn matmul(
    kernels: &Kernels,
    team: &mut Team<'_>,
    scratch: &mut Scratch,
    activations: Activations,
    x: &[f32],
    n: usize,
    products: &mut [Product<'_>],
) {
    let Some(k) = products.first().map(|p| p.layer.weight.cols()) else { return };
    assert_eq!(x.len(), n * k, "activations");
    if n == 0 {
        return;
    }
    let integer = |p: &Product<'_>| activations == Activations::Int8 && p.layer.weight.is_quantised();
    let bf16 = kernels.bf16.as_ref().filter(|_| activations == Activations::Bf16);
    if products.iter().any(integer) {
        scratch.quantize(kernels, team, x, k);
    }
    if let Some(bf16) = bf16 {
        scratch.round(bf16, team, x, n, k);
    }
    let scratch = &*scratch;
    let packed = Q8Rows { qs: &scratch.qs, scales: &scratch.scales, sums: &scratch.sums, k };

    // Panels of all products in one run, so that a small product does not leave threads idle.
    struct Part<'a> {
        layer: &'a Linear,
        out: Disjoint<'a, f32>,
        integer: bool,
        first_panel: usize,
    }
    let all: usize = products.iter().map(|p| p.layer.weight.rows()).sum();
    let panel = (all / (8 * team.threads())).next_multiple_of(FEWEST_ROWS).clamp(FEWEST_ROWS, MOST_ROWS);
    let mut panels = 0;
    let mut parts = Vec::with_capacity(products.len());
    for p in products.iter_mut() {
        assert_eq!(p.layer.weight.cols(), k, "shared activations");
        assert_eq!(p.out.len(), n * p.layer.weight.rows(), "output");
        let integer = integer(p);
        parts.push(Part { layer: p.layer, out: Disjoint::new(p.out), integer, first_panel: panels });
        panels += p.layer.weight.rows().div_ceil(panel);
    }
    team.run(panels, |worker, i| {
        let part = parts.iter().rev().find(|p| p.first_panel <= i).expect("the first part starts at panel 0");
        let weight = &part.layer.weight;
        let start = (i - part.first_panel) * panel;
        let rows = panel.min(weight.rows() - start);
        // SAFETY: columns `start..start + rows` of every row of `out`; panels do not overlap, each runs once.
        let mut tile = unsafe { OutTile::from_raw(part.out.at(start), n, rows, weight.rows()) };
        let mut own = scratch.worker(worker);
        let (bytes, kind) = (weight.row_data(start, rows), weight.block_type() as usize);
        match (kernels.matmul_q8[kind], bf16) {
            (Some(run), _) if part.integer => run(bytes, packed, &mut tile, &mut own),
            (_, Some(bf16)) if weight.block_type() != BlockType::F32 => {
                let x = Bf16Columns::new(&scratch.halves, n, k);
                (bf16.matmul)(weight.block_type(), bytes, x, &mut tile, &mut own);
            }
            _ => (kernels.matmul_f32[kind])(bytes, x, k, &mut tile, &mut own),
        }
        if let Some(bias) = &part.layer.bias {
            tile.add_bias(&bias[start..start + rows]);
        }
    });
}
