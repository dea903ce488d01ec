//! The running softmax of one row.

use super::{Job, Lanes};
use crate::kernels::attention::PAGE;
use std::marker::PhantomData;

/// Turns a page's scores into `e^(score − largest)`, with the largest score of this page and those before, and brings what
/// was summed with a smaller one down to it.
pub struct Softmax<V> {
    /// `[PAGE]`, of which the first `seen` are scores.
    pub scores: *mut f32,
    /// At least 1.
    pub seen: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// The largest score so far.
    pub largest: *mut f32,
    /// Σ e^(score − largest).
    pub total: *mut f32,
    /// Σ e^(score − largest) V, `[width]`, whole vectors.
    pub sums: *mut f32,
    /// Of a head.
    pub width: usize,
    /// Whether nothing came before.
    pub first: bool,
    /// Of what vectors.
    pub lanes: PhantomData<V>,
}

impl<V: Lanes> Job for Softmax<V> {
    #[inline(always)]
    unsafe fn run(self) {
        let Self { scores, seen, scale, largest, total, sums, width, first, .. } = self;
        // SAFETY: the fields' sizes; vectors of scores lie in the page's, as `V::N` divides `PAGE`.
        unsafe {
            let nothing = V::splat(f32::NEG_INFINITY);
            let scale = V::splat(scale);
            let mut x = [nothing; PAGE / 8];
            let mut max = nothing;
            for i in 0..PAGE / V::N {
                if i * V::N < seen {
                    x[i] = V::load(scores.add(i * V::N)).mul(scale).first(seen - i * V::N, nothing);
                    max = max.max(x[i]);
                }
            }
            let before = if first { f32::NEG_INFINITY } else { *largest };
            let max = max.largest();
            let max = if max > before { max } else { before };
            let mut page_total = V::splat(0.0);
            for i in 0..PAGE / V::N {
                if i * V::N < seen {
                    let e = x[i].sub(V::splat(max)).exp().first(seen - i * V::N, V::splat(0.0));
                    page_total = page_total.add(e);
                    e.store(scores.add(i * V::N));
                }
            }
            let page_total = page_total.sum();
            *largest = max;
            if first {
                *total = page_total;
                for i in (0..width).step_by(V::N) {
                    V::splat(0.0).store(sums.add(i));
                }
            } else if max == before {
                *total += page_total;
            } else {
                let factor = V::splat(before - max).exp();
                for i in (0..width).step_by(V::N) {
                    V::load(sums.add(i)).mul(factor).store(sums.add(i));
                }
                // A vector of equal lanes: any lane, such as the largest.
                *total = *total * factor.largest() + page_total;
            }
        }
    }
}
