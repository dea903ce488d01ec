//! The vision transformer: CLIP's and SigLIP's image towers.

use super::config::Config;
use super::{ROWS, buffer, check_size};
use crate::cpu::{Heads, Pass};
use crate::error::{Error, Result};
use crate::image::Tiles;
use crate::kernels::matmul::Product;
use crate::weights::{Linear, Loader, Matrix, Norm};

/// What runs out of memory, for messages.
const WHAT: &str = "the vision tower";

/// A tower's weights.
pub(super) struct Tower {
    config: Config,
    patch: Linear,                 // [width, 3 · patch_size²], a convolution whose stride is its size
    class_token: Option<Vec<f32>>, // [width]
    positions: Vec<f32>,           // [rows, width]; row 0 is the class token's
    pre_norm: Option<Norm>,        // CLIP only
    blocks: Vec<Block>,
}

struct Block {
    norm1: Norm,
    qkv: [Linear; 3], // [width, width]
    out: Linear,      // [width, width]
    norm2: Norm,
    fc1: Linear, // [d_ff, width]
    fc2: Linear, // [width, d_ff]
}

impl Tower {
    pub(super) fn load(w: &Loader<'_>, config: &Config) -> Result<Self> {
        let c = config;
        let d = c.width;
        let weight = w.flat_matrix("v.patch_embd.weight", d, 3 * c.patch_size * c.patch_size)?;
        let optional = |name: &str| w.has(name).then(|| w.vector(name, d)).transpose();
        let rows = c.patches() + usize::from(c.class_token);
        let run = c.feature_layers.last().copied().unwrap_or(0);
        Ok(Self {
            patch: Linear { weight, bias: optional("v.patch_embd.bias")? },
            class_token: optional("v.class_embd")?,
            positions: w.vector("v.position_embd.weight", rows * d).map_err(|e| match e {
                Error::InvalidModel { file, field, reason } => {
                    let reason = format!("{reason}: {rows} rows ({} patches) of {d}", c.patches());
                    Error::InvalidModel { file, field, reason }
                }
                e => e,
            })?,
            pre_norm: w.has("v.pre_ln.weight").then(|| w.norm("v.pre_ln", d)).transpose()?,
            blocks: (0..run).map(|i| Block::load(w, c, i)).collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    /// The matrices, each with the rows of a tile that meet it.
    pub(super) fn products(&self) -> impl Iterator<Item = (&Matrix, usize)> {
        let rows = self.rows();
        let layers = self.blocks.iter().flat_map(|b| b.qkv.iter().chain([&b.out, &b.fc1, &b.fc2]));
        [(&self.patch.weight, self.config.patches())].into_iter().chain(layers.map(move |l| (&l.weight, rows)))
    }

    /// Steps of a forward pass, for [`Control::begin`](crate::cpu::Control::begin).
    pub(super) fn steps(&self) -> usize {
        self.blocks.len()
    }

    /// Multiplications and additions of a tile's attention: two products of every row with every row.
    pub(super) fn attention_ops(&self) -> f64 {
        4.0 * (self.rows() * self.rows() * self.config.width) as f64 * self.blocks.len() as f64
    }

    /// Rows of a tile: its patches, and the class token.
    fn rows(&self) -> usize {
        self.config.patches() + usize::from(self.config.class_token)
    }

    /// `[tiles · patches, feature_width]`: the chosen hidden states (no norm after the last block), without the
    /// class token.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, tiles: &Tiles) -> Result<Vec<f32>> {
        let c = &self.config;
        let d = c.width;
        let class = usize::from(c.class_token);
        let rows = self.rows();
        let n = tiles.tiles * rows;
        let width = c.feature_width();
        // At most what is alive at one time: x, h, q, k, v, k and v of a tile again, ff and the features, or the
        // patches' pixels before.
        check_size(WHAT, n, (7 * d + c.d_ff + width).max(2 * d + 3 * c.patch_size * c.patch_size))?;

        let mut x = self.embed(pass, tiles)?; // [n, d]
        // Whole tiles that go through a block together.
        let most = n.min(rows * (ROWS / rows).max(1));
        let mut h = buffer(WHAT, most, d)?;
        if let Some(norm) = &self.pre_norm {
            for x in x.chunks_mut(most * d) {
                let h = &mut h[..x.len()];
                pass.layer_norm(x, norm, c.eps, h);
                x.copy_from_slice(h);
            }
        }
        let (mut q, mut k, mut v) = (buffer(WHAT, most, d)?, buffer(WHAT, most, d)?, buffer(WHAT, most, d)?);
        let mut ff = buffer(WHAT, most, c.d_ff)?;
        let mut features = buffer(WHAT, tiles.tiles * c.patches(), width)?;
        let mut taken = 0;
        for i in 0..=self.blocks.len() {
            if c.feature_layers.contains(&i) {
                let kept = x.chunks_exact(rows * d).flat_map(|tile| tile[class * d..].chunks_exact(d));
                for (row, to) in kept.zip(features.chunks_exact_mut(width)) {
                    to[taken * d..][..d].copy_from_slice(row);
                }
                taken += 1;
            }
            let Some(block) = self.blocks.get(i) else { break };
            for x in x.chunks_mut(most * d) {
                let n = x.len() / d;
                let [h, q, k, v] = [&mut h, &mut q, &mut k, &mut v].map(|b| &mut b[..n * d]);
                let ff = &mut ff[..n * c.d_ff];
                pass.layer_norm(x, &block.norm1, c.eps, h);
                let [bq, bk, bv] = &block.qkv;
                pass.linear(
                    h,
                    n,
                    &mut [Product { layer: bq, out: q }, Product { layer: bk, out: k }, Product { layer: bv, out: v }],
                );
                let heads = Heads { n: c.n_head, n_kv: c.n_head, dim: d / c.n_head };
                pass.attend_full(heads, rows, [q, k, v], h)?;
                pass.linear(h, n, &mut [Product { layer: &block.out, out: q }]);
                pass.add(x, q);

                pass.layer_norm(x, &block.norm2, c.eps, h);
                pass.linear(h, n, &mut [Product { layer: &block.fc1, out: ff }]);
                pass.activation(c.activation, ff);
                pass.linear(ff, n, &mut [Product { layer: &block.fc2, out: q }]);
                pass.add(x, q);
            }
            pass.step()?;
        }
        Ok(features)
    }

    /// Patches, class token and positions: `[tiles · rows, width]`.
    fn embed(&self, pass: &mut Pass<'_>, tiles: &Tiles) -> Result<Vec<f32>> {
        let c = &self.config;
        let (d, p, side, class) = (c.width, c.patch_size, c.side(), usize::from(c.class_token));
        let (patches, rows) = (c.patches(), c.patches() + class);
        let k = 3 * p * p;
        // Each patch's pixels in the kernels' order, (channel, y, x): the convolution becomes a product.
        let mut pixels = buffer(WHAT, tiles.tiles * patches, k)?;
        let mut lines = pixels.chunks_exact_mut(p);
        for tile in tiles.pixels.chunks_exact(3 * tiles.side * tiles.side) {
            for patch in 0..patches {
                let (py, px) = (patch / side * p, patch % side * p);
                let rows = (0..3).flat_map(|c| (0..p).map(move |y| c * tiles.side + py + y));
                for (row, line) in rows.zip(&mut lines) {
                    line.copy_from_slice(&tile[row * tiles.side + px..][..p]);
                }
            }
        }
        let n = tiles.tiles * patches;
        let mut projected = buffer(WHAT, n, d)?;
        pass.linear(&pixels, n, &mut [Product { layer: &self.patch, out: &mut projected }]);
        let mut x = buffer(WHAT, tiles.tiles * rows, d)?;
        for (x, patches) in x.chunks_exact_mut(rows * d).zip(projected.chunks_exact(patches * d)) {
            if let Some(token) = &self.class_token {
                x[..d].copy_from_slice(token);
            }
            x[class * d..].copy_from_slice(patches);
            x.iter_mut().zip(&self.positions).for_each(|(x, p)| *x += p);
        }
        Ok(x)
    }
}

impl Block {
    fn load(w: &Loader<'_>, c: &Config, i: usize) -> Result<Self> {
        let name = |part: &str| format!("v.blk.{i}.{part}");
        let d = c.width;
        let qkv = match w.has(&name("attn_qkv.weight")) {
            true => {
                let all = w.linear(&name("attn_qkv"), 3 * d, d)?;
                [0, 1, 2].map(|i| all.slice(i * d, d))
            }
            false => {
                [w.linear(&name("attn_q"), d, d)?, w.linear(&name("attn_k"), d, d)?, w.linear(&name("attn_v"), d, d)?]
            }
        };
        let (fc1, fc2) = if c.swapped_ffn { ("ffn_down", "ffn_up") } else { ("ffn_up", "ffn_down") };
        Ok(Self {
            norm1: w.norm(&name("ln1"), d)?,
            qkv,
            out: w.linear(&name("attn_out"), d, d)?,
            norm2: w.norm(&name("ln2"), d)?,
            fc1: w.linear(&name(fc1), c.d_ff, d)?,
            fc2: w.linear(&name(fc2), d, c.d_ff)?,
        })
    }
}
