//! Attention: full for the tower, causal over the KV cache for the decoder.

use super::Pass;
use crate::decoder::kv::{KvCache, KvSlice};
use crate::error::Result;
use crate::kernels::Kernels;

/// Rows of a forward pass that belong to one sequence.
pub struct Segment<'c> {
    /// The sequence's cache; holds `cache.len()` positions before this pass and the rows' keys and values already.
    pub cache: &'c mut KvCache,
    /// How many rows.
    pub rows: usize,
}

/// Geometry of one attention operation.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub n: usize,
    /// Key and value heads; query head `h` uses `h / (n / n_kv)`.
    pub n_kv: usize,
    /// Width of a head.
    pub dim: usize,
}

impl Pass<'_> {
    /// Every row attends to every row of its own tile: `q`, `k`, `v`, `out` are `[tiles · rows, heads · dim]`.
    pub fn attend_full(&mut self, heads: Heads, rows: usize, qkv: [&[f32]; 3], out: &mut [f32]) -> Result<()> {
        let Heads { n, dim, .. } = heads;
        let [q, k, v] = qkv;
        let (width, scale, kernels) = (n * dim, 1.0 / (dim as f32).sqrt(), self.kernels);
        let (scratch, cancel) = (&self.scratch, self.cancel);
        self.team.for_rows(out, dim, |worker, i, out| {
            // The tower's attention over many tiles is long enough to look at the flag within it.
            if cancel.is_cancelled() {
                return;
            }
            let (row, head) = (i / n, i % n);
            let first = row / rows * rows;
            let at = |t: usize| (first + t) * width + head * dim;
            let q = &q[i * dim..][..dim];
            let mut scores = scratch.worker(worker);
            scores.clear();
            scores.extend((0..rows).map(|t| scale * (kernels.dot_f32)(q, &k[at(t)..][..dim])));
            (kernels.softmax)(&mut scores);
            out.fill(0.0);
            for (t, &p) in scores.iter().enumerate() {
                (kernels.axpy_f32)(out, p, &v[at(t)..][..dim]);
            }
        });
        self.checkpoint()
    }

    /// Every row attends to the positions of its sequence up to its own. `q` and `out` are `[rows, heads · dim]`,
    /// rows of one segment after the other; row `i` of a segment stands at position `cache.len() + i`.
    pub fn attend_causal(&mut self, heads: Heads, layer: usize, segments: &[Segment<'_>], q: &[f32], out: &mut [f32]) {
        let Heads { n, n_kv, dim } = heads;
        let (scale, kernels) = (1.0 / (dim as f32).sqrt(), self.kernels);
        let scratch = &self.scratch;
        self.team.for_rows(out, dim, |worker, i, out| {
            let (mut row, head) = (i / n, i % n);
            let mut segments = segments.iter();
            let segment = loop {
                let s = segments.next().expect("segments cover all rows");
                if row < s.rows {
                    break s;
                }
                row -= s.rows;
            };
            let visible = segment.cache.len() + row + 1;
            let mut scores = scratch.worker(worker);
            attend_row(
                kernels,
                segment.cache.pages(layer, head / (n / n_kv), visible),
                &q[i * dim..][..dim],
                scale,
                &mut scores,
                out,
            );
        });
    }
}

/// `out = Σ softmax(scale · q·K) V` over the pages of one head.
fn attend_row<'c>(
    kernels: &Kernels,
    pages: impl Iterator<Item = (KvSlice<'c>, KvSlice<'c>)> + Clone,
    q: &[f32],
    scale: f32,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let dim = q.len();
    scores.clear();
    for (keys, _) in pages.clone() {
        match keys {
            KvSlice::F16(k) => scores.extend(k.chunks_exact(dim).map(|k| scale * (kernels.dot_f16)(q, k))),
            KvSlice::F32(k) => scores.extend(k.chunks_exact(dim).map(|k| scale * (kernels.dot_f32)(q, k))),
        }
    }
    (kernels.softmax)(scores);
    out.fill(0.0);
    let mut probabilities = scores.iter();
    for (_, values) in pages {
        match values {
            KvSlice::F16(v) => {
                v.chunks_exact(dim).zip(&mut probabilities).for_each(|(v, &p)| (kernels.axpy_f16)(out, p, v));
            }
            KvSlice::F32(v) => {
                v.chunks_exact(dim).zip(&mut probabilities).for_each(|(v, &p)| (kernels.axpy_f32)(out, p, v));
            }
        }
    }
}
