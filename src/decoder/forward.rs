//! The forward pass of a LLaMA-family decoder.

use super::config::{Arch, Config};
use super::kv::{KvShape, KvType};
use super::rope::Rope;
use crate::cpu::{Heads, Pass, Segment};
use crate::error::{Error, Result};
use crate::gguf::File;
use crate::kernels::matmul::Product;
use crate::weights::{Linear, Loader, Matrix};
use std::sync::{Mutex, PoisonError};

/// Rows that one pass takes at most, unless a row is so wide that its buffers would take more than [`MAX_BUFFER`].
const MAX_ROWS: usize = 512;
/// Bytes that the widest buffer of a pass may take.
const MAX_BUFFER: usize = 64 << 20;

/// A decoder's weights.
pub struct Decoder {
    /// Geometry.
    pub config: Config,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    rope: Rope,
    token_embd: Matrix, // [n_vocab, d_model]
    layers: Vec<Layer>,
    output_norm: Vec<f32>, // [d_model]
    output: Linear,        // [n_vocab, d_model]
    buffers: Mutex<Buffers>,
}

struct Layer {
    attn_norm: Vec<f32>, // [d_model]
    q: Linear,           // [n_head · head_dim, d_model]
    k: Linear,           // [n_kv_head · head_dim, d_model]
    v: Linear,           // [n_kv_head · head_dim, d_model]
    o: Linear,           // [d_model, n_head · head_dim]
    ffn_norm: Vec<f32>,  // [d_model]
    gate: Linear,        // [d_ff, d_model]
    up: Linear,          // [d_ff, d_model]
    down: Linear,        // [d_model, d_ff]
}

/// Activations of a pass, kept between passes.
#[derive(Default)]
struct Buffers {
    x: Vec<f32>,      // [rows, d_model], the residual stream
    h: Vec<f32>,      // [rows, d_model], normed
    q: Vec<f32>,      // [rows, n_head · head_dim]
    k: Vec<f32>,      // [rows, n_kv_head · head_dim]
    v: Vec<f32>,      // [rows, n_kv_head · head_dim]
    attn: Vec<f32>,   // [rows, n_head · head_dim]
    gate: Vec<f32>,   // [rows, d_ff]
    up: Vec<f32>,     // [rows, d_ff]
    angles: Vec<f32>, // [rows, rope_dim]
}

/// What stands at one position.
#[derive(Clone, Copy)]
pub enum Row<'a> {
    /// A token.
    Token(u32),
    /// A row of an image's embedding, `[d_model]`.
    Embedding(&'a [f32]),
}

impl Decoder {
    /// Reads a decoder for sequences of up to `context` positions.
    pub fn from_gguf(file: &File, context: impl FnOnce(&Config) -> usize) -> Result<Self> {
        let config = Config::from_gguf(file)?;
        let w = Loader { file };
        let d = config.d_model;
        let (_, n_vocab) = w.dims("token_embd.weight")?;
        let token_embd = w.matrix("token_embd.weight", n_vocab, d)?;
        let output = match w.has("output.weight") {
            true => w.linear("output", n_vocab, d)?,
            false => Linear { weight: token_embd.clone(), bias: None },
        };
        let layers = (0..config.n_layer).map(|i| Layer::load(&w, &config, i)).collect::<Result<_>>()?;
        let rope = Rope::new(&config, &w, context(&config))?;
        let output_norm = w.vector("output_norm.weight", d)?;
        Ok(Self { n_vocab, rope, token_embd, layers, output_norm, output, buffers: Mutex::default(), config })
    }

    /// Geometry of a cache for this decoder.
    pub fn kv_shape(&self, kind: KvType) -> KvShape {
        let c = &self.config;
        KvShape { layers: c.n_layer, heads: c.n_kv_head, dim: c.head_dim, kind }
    }

    /// The matrices that every row meets.
    pub fn layer_matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.layers.iter().flat_map(|l| [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down]).map(|l| &l.weight)
    }

    /// The matrix that rows meet whose logits are wanted.
    pub fn output_matrix(&self) -> &Matrix {
        &self.output.weight
    }

    /// Rows that one pass takes at most.
    pub fn max_rows(&self) -> usize {
        let c = &self.config;
        (MAX_BUFFER / 4 / c.d_ff.max(c.q_width()).max(c.d_model)).clamp(1, MAX_ROWS)
    }

    /// Runs `rows` at the next positions of their sequences. `rows` are all rows of the first segment, then of the
    /// second, and so on; at most [`Decoder::max_rows`] in all. The caches hold the rows' keys and values after.
    ///
    /// `logits` receives `[wanted.len(), n_vocab]`: the next-token logits after each of the rows in `wanted`.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; the caches are then as before. [`Error::OutOfMemory`] if the caches can't grow.
    pub fn forward(
        &self,
        pass: &mut Pass<'_>,
        segments: &mut [Segment<'_>],
        rows: &[Row<'_>],
        wanted: &[usize],
        logits: &mut Vec<f32>,
    ) -> Result<()> {
        let c = &self.config;
        let n = rows.len();
        assert_eq!(n, segments.iter().map(|s| s.rows).sum::<usize>(), "rows");
        for s in segments.iter_mut() {
            s.cache.reserve(s.rows)?;
        }
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let b = &mut *buffers;
        b.resize(n, c);
        self.embed(pass, rows, &mut b.x)?;
        b.angles.clear();
        for s in segments.iter() {
            (0..s.rows).for_each(|i| self.rope.angles(s.cache.len() + i, &mut b.angles));
        }
        for (i, layer) in self.layers.iter().enumerate() {
            self.attention(pass, i, layer, segments, b);
            feed_forward(pass, layer, c.eps, n, b);
            pass.step()?;
        }
        for s in segments.iter_mut() {
            s.cache.advance(s.rows);
        }

        let d = c.d_model;
        let m = wanted.len();
        if m == 0 {
            logits.clear();
            return Ok(());
        }
        for (to, &from) in wanted.iter().enumerate() {
            // Rows move only forward: `wanted` is ascending, so nothing is overwritten before it is read.
            b.x.copy_within(from * d..(from + 1) * d, to * d);
        }
        pass.rms_norm(&b.x[..m * d], &self.output_norm, c.eps, &mut b.h[..m * d]);
        logits.resize(m * self.n_vocab, 0.0);
        pass.linear(&b.h[..m * d], m, &mut [Product { layer: &self.output, out: logits }]);
        Ok(())
    }

    fn embed(&self, pass: &mut Pass<'_>, rows: &[Row<'_>], x: &mut [f32]) -> Result<()> {
        let d = self.config.d_model;
        for (row, x) in rows.iter().zip(x.chunks_exact_mut(d)) {
            match row {
                Row::Token(id) if (*id as usize) < self.n_vocab => pass.embed(&self.token_embd, *id as usize, x),
                Row::Token(id) => {
                    let reason = format!("token {id} is outside the vocabulary of {} tokens", self.n_vocab);
                    return Err(Error::argument("ids", reason));
                }
                Row::Embedding(e) if e.len() == d => x.copy_from_slice(e),
                Row::Embedding(e) => {
                    let reason = format!("rows of {} values, and the language model is {d} wide", e.len());
                    return Err(Error::argument("embedding", reason));
                }
            }
        }
        Ok(())
    }

    /// `x += O · attention(rope(Q h), rope(K h), V h)` with `h = norm(x)`.
    fn attention(&self, pass: &mut Pass<'_>, i: usize, layer: &Layer, segments: &mut [Segment<'_>], b: &mut Buffers) {
        let c = &self.config;
        let n = b.x.len() / c.d_model;
        pass.rms_norm(&b.x, &layer.attn_norm, c.eps, &mut b.h);
        pass.linear(
            &b.h,
            n,
            &mut [
                Product { layer: &layer.q, out: &mut b.q },
                Product { layer: &layer.k, out: &mut b.k },
                Product { layer: &layer.v, out: &mut b.v },
            ],
        );
        let (rope, angles, aw) = (&self.rope, &b.angles, self.rope.table_len());
        pass.for_rows(&mut b.q, c.q_width(), |row, q| rope.rotate(q, c.head_dim, &angles[row * aw..][..aw]));
        pass.for_rows(&mut b.k, c.kv_width(), |row, k| rope.rotate(k, c.head_dim, &angles[row * aw..][..aw]));
        let heads = Heads { n: c.n_head, n_kv: c.n_kv_head, dim: c.head_dim };
        pass.store_kv(heads, i, segments, &b.k, &b.v);
        pass.attend_causal(heads, i, segments, &b.q, &mut b.attn);
        pass.linear(&b.attn, n, &mut [Product { layer: &layer.o, out: &mut b.h }]);
        pass.add(&mut b.x, &b.h);
    }
}

/// `x += down · (silu(gate · h) ⊙ up · h)` with `h = norm(x)`.
fn feed_forward(pass: &mut Pass<'_>, layer: &Layer, eps: f32, n: usize, b: &mut Buffers) {
    pass.rms_norm(&b.x, &layer.ffn_norm, eps, &mut b.h);
    pass.linear(
        &b.h,
        n,
        &mut [Product { layer: &layer.gate, out: &mut b.gate }, Product { layer: &layer.up, out: &mut b.up }],
    );
    pass.silu_mul(&mut b.gate, &b.up);
    pass.linear(&b.gate, n, &mut [Product { layer: &layer.down, out: &mut b.h }]);
    pass.add(&mut b.x, &b.h);
}

impl Buffers {
    fn resize(&mut self, n: usize, c: &Config) {
        let widths = [
            (&mut self.x, c.d_model),
            (&mut self.h, c.d_model),
            (&mut self.q, c.q_width()),
            (&mut self.k, c.kv_width()),
            (&mut self.v, c.kv_width()),
            (&mut self.attn, c.q_width()),
            (&mut self.gate, c.d_ff),
            (&mut self.up, c.d_ff),
        ];
        for (buffer, width) in widths {
            buffer.resize(n * width, 0.0);
        }
    }
}

impl Layer {
    fn load(w: &Loader<'_>, c: &Config, i: usize) -> Result<Self> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let (d, qw, kw, ff) = (c.d_model, c.q_width(), c.kv_width(), c.d_ff);
        let (q, k, v) = match w.has(&name("attn_qkv.weight")) {
            true => {
                let all = w.linear(&name("attn_qkv"), qw + 2 * kw, d)?;
                (all.slice(0, qw), all.slice(qw, kw), all.slice(qw + kw, kw))
            }
            false => (
                w.linear(&name("attn_q"), qw, d)?,
                w.linear(&name("attn_k"), kw, d)?,
                w.linear(&name("attn_v"), kw, d)?,
            ),
        };
        // Phi-3 stores gate and up as one matrix, in this order, under the name of the second.
        let (gate, up) = match c.arch == Arch::Phi3 && !w.has(&name("ffn_gate.weight")) {
            true => {
                let all = w.linear(&name("ffn_up"), 2 * ff, d)?;
                (all.slice(0, ff), all.slice(ff, ff))
            }
            false => (w.linear(&name("ffn_gate"), ff, d)?, w.linear(&name("ffn_up"), ff, d)?),
        };
        Ok(Self {
            attn_norm: w.vector(&name("attn_norm.weight"), d)?,
            q,
            k,
            v,
            o: w.linear(&name("attn_output"), d, qw)?,
            ffn_norm: w.vector(&name("ffn_norm.weight"), d)?,
            gate,
            up,
            down: w.linear(&name("ffn_down"), d, ff)?,
        })
    }
}
