//! Matrix products over the pool: activations packed once, weights taken in panels of rows.

use super::row_scaled::{self, Columns, RowScaled};
use super::{Bf16Columns, Bf16Kernels, Kernels, OutTile, Q8_BLOCK, Q8Rows};
use crate::quant::BlockType;
use crate::threads::{Disjoint, Team};
use crate::weights::{Linear, Matrix};
use half::bf16;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The fewest rows that a thread takes at a time: what the widest kernels work on at once.
const FEWEST_ROWS: usize = 32;
/// The most. More rows share the copy that a kernel makes of the activations, and memory is read in longer runs; fewer
/// are fairer to a thread that is held up.
const MOST_ROWS: usize = 256;

/// What activations may be rounded to before they meet weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// Nothing.
    F32,
    /// What towers and projectors bear: [`Arithmetic::Rows`] or [`Arithmetic::Bf16`].
    Vision,
    /// What decoders bear: [`Arithmetic::Blocks`].
    Decoder,
}

/// What a product is computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32; weights take their dequantised values.
    F32,
    /// bf16, weights and activations.
    Bf16,
    /// int8 with scales of whole rows, see [`row_scaled`].
    Rows,
    /// int8 in blocks, see [`Q8Rows`].
    Blocks,
}

impl Arithmetic {
    /// That of a product with `weight`: what activations may be rounded to, where the kernels have it and the weights are no
    /// better themselves.
    pub fn of(kernels: &Kernels, activations: Activations, weight: &Matrix) -> Self {
        let quantised = weight.is_quantised();
        let rows = quantised && kernels.row_scaled.is_some() && weight.cols() <= row_scaled::MAX_K;
        let bf16 = weight.block_type() != BlockType::F32 && kernels.bf16.is_some();
        match activations {
            Activations::Vision if rows => Self::Rows,
            Activations::Vision if bf16 => Self::Bf16,
            Activations::Decoder if quantised => Self::Blocks,
            _ => Self::F32,
        }
    }
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
    /// Activations with scales of whole rows, in tiles.
    tiles: Vec<Columns>,
    /// Keys and values of a tile, see [`pack_pages`](super::attention::pack_pages).
    pub pages: Vec<f32>,
    /// The same in bf16, see [`Bf16Kernels::pack`](super::Bf16Kernels::pack).
    pub halves_kv: Vec<bf16>,
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
    let arithmetic = |p: &Product<'_>| Arithmetic::of(kernels, activations, &p.layer.weight);
    let any = |wanted| products.iter().any(|p| arithmetic(p) == wanted);
    if any(Arithmetic::Blocks) {
        scratch.quantize(kernels, team, x, k);
    }
    if let Some(bf16) = kernels.bf16.as_ref().filter(|_| any(Arithmetic::Bf16)) {
        scratch.round(bf16, team, x, n, k);
    }
    if let Some(rows) = kernels.row_scaled.as_ref().filter(|_| any(Arithmetic::Rows)) {
        scratch.tiles.resize_with(n.div_ceil(row_scaled::COLS), Columns::default);
        team.for_rows(&mut scratch.tiles, 1, |_, i, tiles| {
            let columns = row_scaled::tile(n, i);
            tiles.iter_mut().for_each(|t| t.pack(rows.quantize, &x[columns.start * k..columns.end * k], k));
        });
    }
    let scratch = &*scratch;
    let packed = Q8Rows { qs: &scratch.qs, scales: &scratch.scales, sums: &scratch.sums, k };

    // Panels of all products in one run, so that a small product does not leave threads idle.
    struct Part<'a> {
        layer: &'a Linear,
        out: Disjoint<'a, f32>,
        arithmetic: Arithmetic,
        first_panel: usize,
    }
    let all: usize = products.iter().map(|p| p.layer.weight.rows()).sum();
    let panel = (all / (8 * team.threads())).next_multiple_of(FEWEST_ROWS).clamp(FEWEST_ROWS, MOST_ROWS);
    let mut panels = 0;
    let mut parts = Vec::with_capacity(products.len());
    for p in products.iter_mut() {
        assert_eq!(p.layer.weight.cols(), k, "shared activations");
        assert_eq!(p.out.len(), n * p.layer.weight.rows(), "output");
        let arithmetic = arithmetic(p);
        parts.push(Part { layer: p.layer, out: Disjoint::new(p.out), arithmetic, first_panel: panels });
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
        let bias = part.layer.bias.as_ref().map(|b| &b[start..start + rows]);
        match (part.arithmetic, kernels.matmul_q8[kind], &kernels.bf16, &kernels.row_scaled) {
            (Arithmetic::Rows, _, _, Some(RowScaled { matmul, .. })) => {
                let run = matmul[kind].expect("a kernel for every quantised type");
                return run(bytes, k, &scratch.tiles, bias, &mut tile, &mut own);
            }
            (Arithmetic::Bf16, _, Some(bf16), _) => {
                let x = Bf16Columns::new(&scratch.halves, n, k);
                (bf16.matmul)(weight.block_type(), bytes, x, &mut tile, &mut own);
            }
            (Arithmetic::Blocks, Some(run), ..) => run(bytes, packed, &mut tile, &mut own),
            _ => (kernels.matmul_f32[kind])(bytes, x, k, &mut tile, &mut own),
        }
        if let Some(bias) = bias {
            tile.add_bias(bias);
        }
    });
}
