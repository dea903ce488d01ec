//! The KV cache: pages of positions that forks share until one of them writes.

use super::page::{Head, Page};
use crate::error::Result;
use crate::kernels::attention::KvPage;
use std::sync::Arc;

pub use super::page::KvType;
pub use crate::kernels::attention::PAGE;

/// Geometry of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Transformer blocks.
    pub layers: usize,
    /// Key and value heads.
    pub heads: usize,
    /// Width of a head.
    pub dim: usize,
    /// Storage type.
    pub kind: KvType,
}

impl KvShape {
    /// Bytes of the pages that hold `positions` positions.
    pub fn bytes(&self, positions: usize) -> u64 {
        let page = self.kind.page_bytes(self.layers * self.heads, self.dim) as u64;
        (positions.div_ceil(PAGE) as u64).saturating_mul(page)
    }
}

/// Keys and values of one sequence. A clone shares all pages; writing copies the one page that is written.
#[derive(Clone)]
pub struct KvCache {
    shape: KvShape,
    pages: Vec<Arc<Page>>,
    len: usize,
}

/// Where the keys and values of consecutive new positions of one head go, in one page.
pub struct Slot<'a> {
    /// The head.
    pub head: usize,
    /// The first of the new positions, and how many follow it in this page.
    pub rows: std::ops::Range<usize>,
    /// Where the first one stands in the page.
    pub at: usize,
    /// The page.
    pub page: Head<'a>,
}

impl KvCache {
    /// An empty cache. Memory is taken page by page, as positions come.
    pub fn new(shape: KvShape) -> Self {
        Self { shape, pages: Vec::new(), len: 0 }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Forgets the positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.pages.truncate(self.len.div_ceil(PAGE));
    }

    /// Makes room for `n` more positions, in pages that no other cache shares. Their keys and values may then be
    /// [stored](KvCache::slots); they count from [`KvCache::advance`] on.
    pub fn reserve(&mut self, n: usize) -> Result<()> {
        let (first, last) = (self.len / PAGE, (self.len + n).div_ceil(PAGE));
        for page in self.pages.iter_mut().skip(first) {
            Arc::make_mut(page);
        }
        while self.pages.len() < last {
            let KvShape { layers, heads, dim, kind } = self.shape;
            self.pages.push(Arc::new(Page::new(kind, layers * heads, dim)?));
        }
        Ok(())
    }

    /// Where the keys and values of `n` positions after the last go, for one layer: every head of every page of them.
    /// [`KvCache::reserve`] has made the room.
    pub fn slots(&mut self, layer: usize, n: usize) -> impl Iterator<Item = Slot<'_>> {
        let (len, heads) = (self.len, self.shape.heads);
        self.pages.iter_mut().enumerate().skip(len / PAGE).flat_map(move |(i, page)| {
            let first = len.max(i * PAGE);
            let rows = first - len..n.min((i + 1) * PAGE - len);
            let page = Arc::get_mut(page).expect("`reserve` made the page this cache's own");
            let heads = page.heads_mut(layer * heads, heads).enumerate();
            heads.map(move |(head, page)| Slot { head, rows: rows.clone(), at: first % PAGE, page })
        })
    }

    /// Counts `n` stored positions in.
    pub fn advance(&mut self, n: usize) {
        self.len += n;
    }

    /// Page `i` of one head, [`PAGE`] positions of which some may not be filled yet.
    pub fn page(&self, layer: usize, head: usize, i: usize) -> KvPage<'_> {
        self.pages[i].head(layer * self.shape.heads + head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::scalar::KERNELS;

    const SHAPE: KvShape = KvShape { layers: 2, heads: 3, dim: 4, kind: KvType::F32 };

    fn push(cache: &mut KvCache, value: f32) {
        cache.reserve(1).unwrap();
        for layer in 0..SHAPE.layers {
            for mut slot in cache.slots(layer, 1) {
                let k: Vec<f32> = (0..4).map(|i| value + (layer * 100 + slot.head * 4 + i) as f32).collect();
                let v: Vec<f32> = k.iter().map(|x| -x).collect();
                assert_eq!(slot.rows, 0..1);
                slot.page.store(&KERNELS, slot.at, &k, &v);
            }
        }
        cache.advance(1);
    }

    fn read(cache: &KvCache, layer: usize, head: usize) -> Vec<f32> {
        (0..cache.len())
            .map(|t| {
                let page = cache.page(layer, head, t / PAGE);
                assert!((0..SHAPE.dim).all(|d| page.key(d, t % PAGE) == -page.value(SHAPE.dim, t % PAGE, d)));
                page.key(0, t % PAGE)
            })
            .collect()
    }

    #[test]
    fn a_fork_shares_its_past_and_not_its_future() {
        let mut a = KvCache::new(SHAPE);
        for i in 0..PAGE + 10 {
            push(&mut a, i as f32 * 1000.0);
        }
        let mut b = a.clone();
        assert!(Arc::ptr_eq(&a.pages[0], &b.pages[0]));
        push(&mut a, 1e6);
        push(&mut b, 2e6);
        assert!(Arc::ptr_eq(&a.pages[0], &b.pages[0]));
        let (mut x, mut y) = (read(&a, 1, 2), read(&b, 1, 2));
        assert_eq!((x.pop(), y.pop()), (Some(1e6 + 108.0), Some(2e6 + 108.0)));
        assert_eq!(x, y);
        assert_eq!(x.len(), PAGE + 10);
    }

    #[test]
    fn truncated_positions_are_overwritten() {
        let mut a = KvCache::new(SHAPE);
        (0..70).for_each(|i| push(&mut a, i as f32));
        a.truncate(3);
        push(&mut a, 500.0);
        assert_eq!(read(&a, 0, 0), [0.0, 1.0, 2.0, 500.0]);
    }

    #[test]
    fn positions_of_many_pages_are_each_stored_once() {
        for kind in KvType::ALL {
            let mut cache = KvCache::new(KvShape { layers: 2, heads: 3, dim: 32, kind });
            for n in [50, 200, 1, 5] {
                cache.reserve(n).unwrap();
                let len = cache.len();
                for slot in cache.slots(1, n) {
                    let mut slot = slot;
                    for row in slot.rows.clone() {
                        let x = [(len + row + slot.head * 1000) as f32; 32];
                        slot.page.store(&KERNELS, slot.at + row - slot.rows.start, &x, &x);
                    }
                }
                cache.advance(n);
            }
            for t in 0..256 {
                for head in 0..3 {
                    let (page, want) = (cache.page(1, head, t / PAGE), (t + head * 1000) as f32);
                    for got in [page.key(31, t % PAGE), page.value(32, t % PAGE, 31)] {
                        assert!((got - want).abs() <= want / 1000.0, "{kind} {head} {t}: {got}, not {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_type_is_known_by_its_name() {
        for kind in KvType::ALL {
            assert_eq!(kind.name().parse::<KvType>().unwrap(), kind);
        }
        let message = "q4".parse::<KvType>().unwrap_err().to_string();
        assert_eq!(message, "kv_type: \"q4\"; there are f16, f32, q8_0");
        assert!(KvType::Q8_0.check(80).unwrap_err().to_string().contains("use f16"));
    }
}
