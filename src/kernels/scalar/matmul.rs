//! Matrix products of quantised weights.

use super::super::{OutTile, Q8_BLOCK, Q8Rows};
use super::vector::dot_f32;
use crate::quant::{Block, BlockType, Unpacked, dequantize};

/// `out[c, r] = Σ_g s_x · (s_w · Σ q_w q_x − m_w · Σ q_x)`: an integer dot product for each group of weights with one
/// scale `s_w` and minimum `m_w`; a group never crosses an activation block, whose scale is `s_x`.
pub(super) fn q8<B: Block>(w: &[u8], x: Q8Rows<'_>, out: &mut OutTile<'_>, _scratch: &mut Vec<f32>) {
    x.check(out.cols());
    let w: &[B] = bytemuck::cast_slice(w);
    assert_eq!(w.len() * B::LEN, out.rows() * x.k, "weights for the tile");
    let row_blocks = x.k / B::LEN;
    assert_eq!(row_blocks * B::LEN, x.k, "whole blocks in a row");

    let mut u = Unpacked::new();
    for c in 0..out.cols() {
        let x = x.row(c);
        for r in 0..out.rows() {
            let mut acc = 0.0;
            for (b, block) in w[r * row_blocks..][..row_blocks].iter().enumerate() {
                block.unpack(&mut u);
                for g in 0..B::LEN / B::GROUP {
                    let at = b * B::LEN + g * B::GROUP;
                    let weights = &u.q[g * B::GROUP..][..B::GROUP];
                    let dot: i32 = weights.iter().zip(&x.qs[at..]).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
                    let sum: i32 = x.sums[at / 16..][..B::GROUP / 16].iter().map(|&s| i32::from(s)).sum();
                    acc += x.scales[at / Q8_BLOCK] * (u.scales[g] * dot as f32 - u.mins[g] * sum as f32);
                }
            }
            out.set(c, r, acc);
        }
    }
}

/// `out[c, r] = Σ_k w[r, k] · x[c, k]`; each weight row is dequantised to scratch once, for all columns.
pub(super) fn f32(t: BlockType, w: &[u8], x: &[f32], k: usize, out: &mut OutTile<'_>, scratch: &mut Vec<f32>) {
    let row_bytes = t.row_bytes(k).expect("whole blocks in a row");
    assert_eq!(Some(w.len()), out.rows().checked_mul(row_bytes), "weights for the tile");
    assert_eq!(Some(x.len()), out.cols().checked_mul(k), "activations for the tile");
    if scratch.len() < k {
        scratch.resize(k, 0.0);
    }
    let row = &mut scratch[..k];
    for r in 0..out.rows() {
        dequantize(t, &w[r * row_bytes..][..row_bytes], row);
        for c in 0..out.cols() {
            out.set(c, r, dot_f32(row, &x[c * k..][..k]));
        }
    }
}
