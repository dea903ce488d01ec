//! Attention: full for the tower, causal over the KV cache for the decoder.

use super::Pass;
use crate::decoder::kv::KvCache;
use crate::error::{Error, Result};
use crate::kernels::Bf16Kernels;
use crate::kernels::attention::{self, Block, KvPage, PAGE};
use crate::kernels::matmul::Activations;

pub use crate::kernels::attention::Heads;

/// Rows of a forward pass that belong to one sequence.
pub struct Segment<'c> {
    /// The sequence's cache; holds `cache.len()` positions before this pass and the rows' keys and values already.
    pub cache: &'c mut KvCache,
    /// How many rows.
    pub rows: usize,
}

impl Pass<'_> {
    /// Every row attends to every row of its own tile: `q`, `k`, `v`, `out` are `[tiles · rows, heads · dim]`.
    pub fn attend_full(&mut self, heads: Heads, rows: usize, qkv: [&[f32]; 3], out: &mut [f32]) -> Result<()> {
        let Heads { n, dim, .. } = heads;
        let [q, k, v] = qkv;
        if let (Activations::Vision, Some(bf16)) = (self.activations, &self.kernels.bf16) {
            let (tile, len) = (rows * n * dim, n * Bf16Kernels::kv_len(rows, dim));
            let mut kv = std::mem::take(&mut self.scratch.halves_kv);
            if kv.try_reserve(len.saturating_sub(kv.len())).is_err() {
                return Err(out_of_memory(2 * len));
            }
            kv.resize(len, half::bf16::ZERO);
            for at in (0..out.len()).step_by(tile) {
                self.checkpoint()?;
                let (qkv, out) = ([q, k, v].map(|x| &x[at..at + tile]), &mut out[at..at + tile]);
                attention::attend_bf16(bf16, &mut self.team, &self.scratch, heads, qkv, &mut kv, out);
            }
            self.scratch.halves_kv = kv;
            return self.checkpoint();
        }
        let (tile, page, pages) = (rows * n * dim, 2 * dim * PAGE, rows.div_ceil(PAGE));
        let mut packed = std::mem::take(&mut self.scratch.pages);
        let len = n * pages * page;
        if packed.try_reserve(len.saturating_sub(packed.len())).is_err() {
            return Err(out_of_memory(4 * len));
        }
        packed.resize(len, 0.0);
        for at in (0..out.len()).step_by(tile) {
            self.checkpoint()?;
            attention::pack_pages(&mut self.team, n, dim, &k[at..at + tile], &v[at..at + tile], &mut packed);
            let page_of = |head: usize, i: usize| {
                let (keys, values) = packed[(head * pages + i) * page..][..page].split_at(page / 2);
                KvPage::F32 { keys, values }
            };
            let all = Block { rows: 0..rows, visible: rows, causal: false, pages: &page_of };
            let blocks: Vec<_> = all.split(heads).collect();
            let (q, out) = (&q[at..at + tile], &mut out[at..at + tile]);
            attention::attend(self.kernels, &mut self.team, &self.scratch, heads, &blocks, q, out);
        }
        self.scratch.pages = packed;
        self.checkpoint()
    }

    /// Puts the keys and values of new rows, `[rows, n_kv · dim]`, where [`Pass::attend_causal`] looks for them.
    pub fn store_kv(&mut self, heads: Heads, layer: usize, segments: &mut [Segment<'_>], k: &[f32], v: &[f32]) {
        let Heads { n_kv, dim, .. } = heads;
        let (width, kernels) = (n_kv * dim, self.kernels);
        let mut first = 0;
        let mut slots = Vec::new();
        for Segment { cache, rows } in segments {
            slots.extend(cache.slots(layer, *rows).map(|slot| (first, slot)));
            first += *rows;
        }
        self.team.for_rows(&mut slots, 1, |_, _, slot| {
            let [(first, slot)] = slot else { return };
            for (t, row) in slot.rows.clone().enumerate() {
                let at = (*first + row) * width + slot.head * dim;
                slot.page.store(kernels, slot.at + t, &k[at..at + dim], &v[at..at + dim]);
            }
        });
    }

    /// Every row attends to the positions of its sequence up to its own. `q` and `out` are `[rows, n · dim]`,
    /// rows of one segment after the other; row `i` of a segment stands at position `cache.len() + i`.
    pub fn attend_causal(&mut self, heads: Heads, layer: usize, segments: &[Segment<'_>], q: &[f32], out: &mut [f32]) {
        let caches: Vec<_> =
            segments.iter().map(|s| move |head: usize, i: usize| s.cache.page(layer, head, i)).collect();
        let mut first = 0;
        let mut blocks = Vec::new();
        for (segment, pages) in segments.iter().zip(&caches) {
            let rows = first..first + segment.rows;
            first = rows.end;
            blocks.extend(Block { rows, visible: segment.cache.len() + 1, causal: true, pages }.split(heads));
        }
        attention::attend(self.kernels, &mut self.team, &self.scratch, heads, &blocks, q, out);
    }
}

fn out_of_memory(bytes: usize) -> Error {
    Error::OutOfMemory { what: "the vision tower", bytes: bytes as u64, reason: "the system has no more".to_owned() }
}
