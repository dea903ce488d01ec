//! Measuring a model: the work behind `llava bench`, timed on the code that answers run on.
//!
//! No part of the interface: it may change with any version.

use crate::cpu::{Control, Segment};
use crate::decoder::Row;
use crate::decoder::kv::KvCache;
use crate::error::{Error, Result};
use crate::image::{Fit, Image, PixelFormat, Tiles};
use crate::kernels::matmul;
use crate::model::{Input, Model};
use crate::vision::Vision;
use crate::weights::Matrix;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub use crate::kernels::probe::Machine;

/// What a piece of work asks of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Bytes of weights read.
    pub bytes: f64,
    /// Multiplications and additions of matrix products and attention.
    pub ops: f64,
    /// The arithmetic of most operations.
    pub arithmetic: Arithmetic,
}

/// The arithmetic whose limit bounds a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Weights and activations are int8.
    Int8,
    /// Weights and activations are bf16.
    Bf16,
    /// Weights and activations are f32.
    F32,
}

/// A picture to encode, as the tower takes it.
pub struct Picture<'m> {
    model: &'m Model,
    vision: &'m Vision,
    tiles: Tiles,
}

impl<'m> Picture<'m> {
    /// A synthetic picture of `width` by `height` pixels.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] if the model has no mmproj.
    pub fn new(model: &'m Model, (width, height): (u32, u32)) -> Result<Self> {
        let vision = model.vision()?;
        // Neither flat nor regular: a hash of the position (Knuth's multiplicative one).
        let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let image = Image::from_pixels(&pixels, width, height, 3 * width as usize, PixelFormat::Rgb)?;
        Ok(Self { model, vision, tiles: vision.preprocess(&image)? })
    }

    /// Views that the tower encodes.
    pub fn tiles(&self) -> usize {
        self.tiles.tiles
    }

    /// Runs the tower and the projector.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn encode(&self) -> Result<Duration> {
        let (cpu, control, start) = (self.model.cpu(), Control::default(), Instant::now());
        let features = self.vision.features(cpu, &control, &self.tiles)?;
        self.vision.project(cpu, &control, features, &self.tiles)?;
        Ok(start.elapsed())
    }

    /// What that asks of the machine.
    pub fn work(&self) -> Work {
        let products: Vec<_> = self.vision.products().collect();
        let n = self.tiles.tiles as f64;
        let ops = products.iter().map(|(m, rows)| ops(m) * *rows as f64).sum::<f64>() + self.vision.attention_ops();
        let matrices = || products.iter().map(|(m, _)| *m);
        let cpu = self.model.cpu();
        Work {
            bytes: bytes(matrices()),
            ops: n * ops,
            arithmetic: arithmetic(matrices(), |m| cpu.vision_arithmetic(m)),
        }
    }
}

/// The size of the picture that makes the most tiles of a grid, if the tower has grids (LLaVA-1.6).
pub fn largest_picture(model: &Model) -> Option<(u32, u32)> {
    match &model.vision_config()?.fit {
        Fit::AnyRes { pinpoints } => pinpoints.iter().copied().max_by_key(|&(w, h)| u64::from(w) * u64::from(h)),
        _ => None,
    }
}

/// Runs a prompt of `tokens` tokens in an empty cache, up to the first token's logits.
///
/// # Errors
/// [`Error::ContextFull`] if there is no room for it; [`Error::OutOfMemory`].
pub fn prefill(model: &Model, tokens: usize) -> Result<Duration> {
    model.check_context(tokens, 0)?;
    let input: Vec<_> = (0..tokens).map(|i| Input::Token(token(model, i))).collect();
    let mut cache = KvCache::new(model.kv_shape());
    let start = Instant::now();
    model.prefill(&mut cache, &input, 1, &Control::default(), &mut Vec::new())?;
    Ok(start.elapsed())
}

/// What [`prefill`] asks of the machine.
pub fn prefill_work(model: &Model, tokens: usize) -> Work {
    let (decoder, n) = (model.decoder(), tokens as f64);
    let layers: f64 = decoder.layer_matrices().map(ops).sum();
    // Two products of a row with all rows up to its own.
    let attention = 2.0 * (decoder.config.q_width() * decoder.config.n_layer) as f64 * n * (n + 1.0);
    let arithmetic = arithmetic(decoder.layer_matrices(), |m| model.cpu().decoder_arithmetic(m));
    let passes = tokens.div_ceil(decoder.max_rows()) as f64;
    Work {
        bytes: bytes(decoder.layer_matrices()) * passes + bytes([decoder.output_matrix()]),
        ops: n * layers + ops(decoder.output_matrix()) + attention,
        arithmetic,
    }
}

/// Sequences that are continued together, a token each at a time.
pub struct Sequences<'m> {
    model: &'m Model,
    caches: Vec<KvCache>,
    after: usize,
}

impl<'m> Sequences<'m> {
    /// `n` sequences of `after` tokens.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are more than one pass takes; [`Error::ContextFull`];
    /// [`Error::OutOfMemory`].
    pub fn new(model: &'m Model, n: usize, after: usize) -> Result<Self> {
        model.check_context(after, 0)?;
        let most = model.decoder().max_rows();
        if n == 0 || n > most {
            return Err(Error::argument("batch", format!("is {n}, expected 1 to {most} sequences for this model")));
        }
        let mut caches = Vec::with_capacity(n);
        for i in 0..n {
            // Each with tokens and memory of its own, as strangers' questions have.
            let input: Vec<_> = (0..after).map(|j| Input::Token(token(model, i + j))).collect();
            let mut cache = KvCache::new(model.kv_shape());
            model.prefill(&mut cache, &input, 1, &Control::default(), &mut Vec::new())?;
            caches.push(cache);
        }
        Ok(Self { model, caches, after })
    }

    /// Continues the first `n` sequences by `tokens` tokens each, with the logits of every one; then forgets these.
    ///
    /// # Errors
    /// [`Error::ContextFull`] if there is no room; [`Error::OutOfMemory`].
    pub fn decode(&mut self, n: usize, tokens: usize) -> Result<Duration> {
        self.model.check_context(self.after + tokens.saturating_sub(1), 0)?;
        let decoder = self.model.decoder();
        let wanted: Vec<_> = (0..n).collect();
        let (control, mut logits) = (Control::default(), Vec::new());
        let start = Instant::now();
        for t in 0..tokens {
            let rows: Vec<_> = (0..n).map(|i| Row::Token(token(self.model, i + t))).collect();
            let caches = self.caches.iter_mut().take(n);
            let mut segments: Vec<_> = caches.map(|cache| Segment { cache, rows: 1 }).collect();
            decoder.forward(&mut self.model.cpu().enter(&control), &mut segments, &rows, &wanted, &mut logits)?;
        }
        let elapsed = start.elapsed();
        self.caches.iter_mut().for_each(|cache| cache.truncate(self.after));
        Ok(elapsed)
    }
}

/// What a token of each of `n` sequences asks of the machine, attention aside.
pub fn decode_work(model: &Model, n: usize) -> Work {
    let decoder = model.decoder();
    let matrices = || decoder.layer_matrices().chain([decoder.output_matrix()]);
    let ops = n as f64 * matrices().map(ops).sum::<f64>();
    Work { bytes: bytes(matrices()), ops, arithmetic: arithmetic(matrices(), |m| model.cpu().decoder_arithmetic(m)) }
}

/// The matrix kernels that the model's weights meet: the table, the weights' type, the activations'.
pub fn kernels(model: &Model) -> Vec<String> {
    let (table, _) = model.device();
    let decoder = model.decoder();
    let lm = decoder.layer_matrices().chain([decoder.output_matrix()]);
    let name = |m: &Matrix, arithmetic| format!("{table} {} {}", m.block_type(), Arithmetic::of(arithmetic).name());
    let mut all: BTreeSet<_> = lm.map(|m| name(m, model.cpu().decoder_arithmetic(m))).collect();
    if let Ok(vision) = model.vision() {
        all.extend(vision.products().map(|(m, _)| name(m, model.cpu().vision_arithmetic(m))));
    }
    all.into_iter().collect()
}

/// The most memory that this process has held at one time, mapped files included; none where the system does not say.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Some token of the vocabulary; neighbours differ.
fn token(model: &Model, i: usize) -> u32 {
    (i * 7919 % model.tokenizer().vocab_size().max(1)) as u32
}

fn bytes<'a>(matrices: impl IntoIterator<Item = &'a Matrix>) -> f64 {
    matrices.into_iter().map(|m| m.row_data(0, m.rows()).len() as f64).sum()
}

/// Operations that one row of activations takes.
fn ops(m: &Matrix) -> f64 {
    2.0 * m.rows() as f64 * m.cols() as f64
}

/// That of most operations, by what each matrix is computed in.
fn arithmetic<'a>(
    matrices: impl IntoIterator<Item = &'a Matrix>,
    of: impl Fn(&Matrix) -> matmul::Arithmetic,
) -> Arithmetic {
    let all = [Arithmetic::Int8, Arithmetic::Bf16, Arithmetic::F32];
    let mut totals = [0.0; 3];
    for m in matrices {
        totals[Arithmetic::of(of(m)) as usize] += ops(m);
    }
    let most = totals.iter().copied().fold(0.0, f64::max);
    all.into_iter().find(|a| totals[*a as usize] == most).unwrap_or(Arithmetic::F32)
}

impl Arithmetic {
    fn of(computed: matmul::Arithmetic) -> Self {
        match computed {
            matmul::Arithmetic::Rows | matmul::Arithmetic::Blocks => Self::Int8,
            matmul::Arithmetic::Bf16 => Self::Bf16,
            matmul::Arithmetic::F32 => Self::F32,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }
}
