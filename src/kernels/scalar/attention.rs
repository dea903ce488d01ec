//! Attention, as its formula stands.

use super::super::OutTile;
use super::super::attention::{PAGE, Pages, Queries};
use super::activation::softmax;

/// `out = Σₜ softmax(q · Kₜ / √dim) Vₜ` for every query, over the positions that its row sees.
pub(super) fn attend(q: &Queries<'_>, pages: &Pages<'_>, out: &mut OutTile<'_>, scores: &mut Vec<f32>) {
    q.check(out);
    let (dim, scale) = (q.dim, q.scale());
    (0..q.pages()).for_each(|i| pages(i).check(dim));
    for row in 0..q.rows {
        for head in 0..q.heads {
            let query = q.query(row, head);
            scores.clear();
            for t in 0..q.visible(row) {
                let page = pages(t / PAGE);
                let dot = (0..dim).fold(0.0, |sum, d| sum + query[d] * page.key(d, t % PAGE));
                scores.push(scale * dot);
            }
            softmax(scores);
            let out = &mut out.row_mut(row)[head * dim..][..dim];
            out.fill(0.0);
            for (t, p) in scores.iter().enumerate() {
                let page = pages(t / PAGE);
                for d in 0..dim {
                    out[d] += p * page.value(dim, t % PAGE, d);
                }
            }
        }
    }
}
