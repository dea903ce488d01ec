//! The KV cache: pages of positions that forks share until one of them writes.

use crate::error::{Error, Result};
use half::f16;
use std::sync::Arc;

/// Positions in a page.
pub const PAGE: usize = 64;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KvType {
    /// Half precision, as llama.cpp's default.
    #[default]
    F16,
    /// Single precision: twice the memory.
    F32,
}

impl KvType {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

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
    /// Values in a page: for every layer keys, then values, each `[heads, PAGE, dim]`.
    fn page_len(&self) -> usize {
        self.layers * 2 * self.heads * PAGE * self.dim
    }

    /// Bytes of the pages that hold `positions` positions.
    pub fn bytes(&self, positions: usize) -> u64 {
        let page = (self.page_len() as u64).saturating_mul(self.kind.bytes() as u64);
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

#[derive(Clone)]
enum Page {
    F16(Vec<f16>),
    F32(Vec<f32>),
}

/// Keys or values of consecutive positions of one head, `[positions, dim]`.
#[derive(Clone, Copy)]
pub enum KvSlice<'a> {
    /// Half precision.
    F16(&'a [f16]),
    /// Single precision.
    F32(&'a [f32]),
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
    /// [stored](KvCache::store); they count from [`KvCache::advance`] on.
    pub fn reserve(&mut self, n: usize) -> Result<()> {
        let (first, last) = (self.len / PAGE, (self.len + n).div_ceil(PAGE));
        for page in self.pages.iter_mut().skip(first) {
            Arc::make_mut(page);
        }
        while self.pages.len() < last {
            self.pages.push(Arc::new(self.new_page()?));
        }
        Ok(())
    }

    fn new_page(&self) -> Result<Page> {
        let refused = |_| Error::OutOfMemory {
            what: "the KV cache",
            bytes: self.shape.bytes(PAGE),
            reason: "the system has no more; use a shorter context".into(),
        };
        let n = self.shape.page_len();
        Ok(match self.shape.kind {
            KvType::F16 => Page::F16(bytemuck::allocation::try_zeroed_vec(n).map_err(refused)?),
            KvType::F32 => Page::F32(bytemuck::allocation::try_zeroed_vec(n).map_err(refused)?),
        })
    }

    /// Stores the keys and values, `[heads, dim]` each, of the position `offset` after the last.
    pub fn store(&mut self, layer: usize, offset: usize, k: &[f32], v: &[f32], to_f16: fn(&[f32], &mut [f16])) {
        let KvShape { heads, dim, .. } = self.shape;
        let at = self.len + offset;
        let Some(page) = self.pages.get_mut(at / PAGE).and_then(Arc::get_mut) else {
            unreachable!("`reserve` made the page, and made it this cache's own")
        };
        for (part, x) in [k, v].into_iter().enumerate() {
            for (head, x) in x.chunks_exact(dim).enumerate() {
                let to = (((layer * 2 + part) * heads + head) * PAGE + at % PAGE) * dim;
                match page {
                    Page::F16(data) => to_f16(x, &mut data[to..to + dim]),
                    Page::F32(data) => data[to..to + dim].copy_from_slice(x),
                }
            }
        }
    }

    /// Counts `n` stored positions in.
    pub fn advance(&mut self, n: usize) {
        self.len += n;
    }

    /// Keys and values of the first `visible` positions of one head, page by page.
    pub fn pages(
        &self,
        layer: usize,
        head: usize,
        visible: usize,
    ) -> impl Iterator<Item = (KvSlice<'_>, KvSlice<'_>)> + Clone {
        let KvShape { heads, dim, .. } = self.shape;
        let at = move |part: usize| ((layer * 2 + part) * heads + head) * PAGE * dim;
        self.pages.iter().enumerate().take(visible.div_ceil(PAGE)).map(move |(i, page)| {
            let n = PAGE.min(visible - i * PAGE) * dim;
            match &**page {
                Page::F16(d) => (KvSlice::F16(&d[at(0)..at(0) + n]), KvSlice::F16(&d[at(1)..at(1) + n])),
                Page::F32(d) => (KvSlice::F32(&d[at(0)..at(0) + n]), KvSlice::F32(&d[at(1)..at(1) + n])),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: KvShape = KvShape { layers: 2, heads: 3, dim: 4, kind: KvType::F32 };

    fn push(cache: &mut KvCache, value: f32) {
        cache.reserve(1).unwrap();
        for layer in 0..SHAPE.layers {
            let k: Vec<f32> = (0..12).map(|i| value + (layer * 100 + i) as f32).collect();
            let v: Vec<f32> = k.iter().map(|x| -x).collect();
            cache.store(layer, 0, &k, &v, |_, _| unreachable!());
        }
        cache.advance(1);
    }

    fn read(cache: &KvCache, layer: usize, head: usize) -> Vec<f32> {
        let mut out = Vec::new();
        for (k, v) in cache.pages(layer, head, cache.len()) {
            let (KvSlice::F32(k), KvSlice::F32(v)) = (k, v) else { panic!() };
            assert!(k.iter().zip(v).all(|(k, v)| *k == -v));
            out.extend(k.iter().step_by(4));
        }
        out
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
}
