//! Attention over the pool: blocks of query rows times heads, each computed by one thread.

use super::{KvPage, PAGE, Queries};
use crate::kernels::matmul::Scratch;
use crate::kernels::row_scaled::{COLS, tile};
use crate::kernels::{Bf16Kernels, Kernels, OutTile};
use crate::threads::Team;
use half::bf16;
use std::ops::Range;

/// Queries that a block has about: enough to pay for unpacking a page, few enough to stay in L2 with it.
const QUERIES: usize = 96;
/// Rows of a register tile, which whole blocks are a multiple of.
const TILE: usize = 12;

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

/// Consecutive rows of one sequence.
#[derive(Clone)]
pub struct Block<'a> {
    /// Which rows of the queries.
    pub rows: Range<usize>,
    /// Positions that the first of them sees.
    pub visible: usize,
    /// Whether each row sees one position more than the row before; if not, all see the same.
    pub causal: bool,
    /// Keys and values by head and number of the page.
    pub pages: &'a (dyn Fn(usize, usize) -> KvPage<'a> + Sync),
}

impl Block<'_> {
    /// Cuts the rows into blocks of a size that is worth a thread's while.
    pub fn split(self, heads: Heads) -> impl Iterator<Item = Self> {
        let n = self.rows.len();
        let most = (QUERIES * heads.n_kv / heads.n).max(1);
        let even = n.div_ceil(n.div_ceil(most).max(1)).next_multiple_of(TILE).clamp(1, most);
        (0..n).step_by(even).map(move |first| Self {
            rows: self.rows.start + first..self.rows.start + n.min(first + even),
            visible: if self.causal { self.visible + first } else { self.visible },
            ..self.clone()
        })
    }
}

/// `q` and `out` are `[rows, n · dim]`; `blocks` are in ascending order.
pub fn attend(
    kernels: &Kernels,
    team: &mut Team<'_>,
    scratch: &Scratch,
    heads: Heads,
    blocks: &[Block<'_>],
    q: &[f32],
    out: &mut [f32],
) {
    let Heads { n, n_kv, dim } = heads;
    let (width, group) = (n * dim, n / n_kv);
    assert_eq!((q.len(), n % n_kv), (out.len(), 0), "queries and results");
    let rows = out.len() / width;
    let ascending = blocks.windows(2).all(|pair| pair[0].rows.end <= pair[1].rows.start);
    assert!(ascending && blocks.iter().all(|b| b.rows.start < b.rows.end && b.rows.end <= rows), "blocks");
    let out = crate::threads::Disjoint::new(out);
    team.run(blocks.len() * n_kv, |worker, i| {
        let (block, head) = (&blocks[i % blocks.len()], i / blocks.len());
        let at = block.rows.start * width + head * group * dim;
        let queries = Queries {
            x: &q[at..],
            stride: width,
            rows: block.rows.len(),
            heads: group,
            dim,
            visible: block.visible,
            causal: block.causal,
        };
        // SAFETY: rows of the block, columns of the head's group; neither overlap, and each pair runs once.
        let mut tile = unsafe { OutTile::from_raw(out.at(at), queries.rows, group * dim, width) };
        (kernels.attend)(&queries, &|page| (block.pages)(head, page), &mut tile, &mut scratch.worker(worker));
    });
}

/// Packs keys and values, `[rows, heads · dim]`, into pages: `[heads, pages, 2, dim · PAGE]`, keys first. What is left of
/// the last page keeps its contents.
pub fn pack_pages(team: &mut Team<'_>, heads: usize, dim: usize, k: &[f32], v: &[f32], pages: &mut [f32]) {
    let width = heads * dim;
    let rows = k.len() / width;
    let n = rows.div_ceil(PAGE);
    assert_eq!((k.len(), v.len()), (rows * width, rows * width), "keys and values");
    assert_eq!(pages.len(), heads * n * 2 * dim * PAGE, "pages");
    team.for_rows(pages, 2 * dim * PAGE, |_, i, page| {
        let (head, first) = (i / n, i % n * PAGE);
        let (keys, values) = page.split_at_mut(dim * PAGE);
        for t in 0..PAGE.min(rows - first) {
            let at = (first + t) * width + head * dim;
            values[t * dim..][..dim].copy_from_slice(&v[at..at + dim]);
            keys[t..].iter_mut().step_by(PAGE).zip(&k[at..at + dim]).for_each(|(to, x)| *to = *x);
        }
    });
}

/// Every row attends to every row, in bf16: `q`, `k`, `v` and `out` are `[rows, n · dim]`; `kv` has room for the keys and
/// values of all heads.
pub fn attend_bf16(
    kernels: &Bf16Kernels,
    team: &mut Team<'_>,
    scratch: &Scratch,
    heads: Heads,
    [q, k, v]: [&[f32]; 3],
    kv: &mut [bf16],
    out: &mut [f32],
) {
    let Heads { n, dim, .. } = heads;
    let width = n * dim;
    let rows = q.len() / width;
    let len = Bf16Kernels::kv_len(rows, dim);
    assert_eq!(
        (q.len(), k.len(), v.len(), out.len()),
        (rows * width, rows * width, rows * width, rows * width),
        "rows"
    );
    assert!(kv.len() == n * len && heads.n_kv == n && rows > 0, "keys and values");
    team.for_rows(kv, len, |_, head, kv| (kernels.pack)(&k[head * dim..], &v[head * dim..], width, dim, kv));
    let (kv, out) = (&*kv, crate::threads::Disjoint::new(out));
    let tiles = rows.div_ceil(COLS);
    team.run(n * tiles, |worker, i| {
        let (head, part) = (i / tiles, tile(rows, i % tiles));
        let at = part.start * width + head * dim;
        let (x, rows) = (&q[at..], part.len());
        let queries = Queries { x, stride: width, rows, heads: 1, dim, visible: q.len() / width, causal: false };
        // SAFETY: rows of the part, columns of the head; neither overlap, and each pair runs once.
        let mut tile = unsafe { OutTile::from_raw(out.at(at), rows, dim, width) };
        (kernels.attend)(&queries, &kv[head * len..][..len], &mut tile, &mut scratch.worker(worker));
    });
}
