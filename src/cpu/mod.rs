//! The CPU as a device: the operations that the tower, the projector and the decoder are written in.
//!
//! Every operation spreads over the pool in pieces that do not depend on the number of threads, so results don't
//! either.

mod attention;
mod control;

pub use attention::{Heads, Segment};
pub use control::{Control, Progress, Stage};

use crate::error::Result;
use crate::kernels::Kernels;
use crate::kernels::matmul::{Activations, Arithmetic, Product, Scratch, matmul};
use crate::quant;
use crate::threads::{Pool, Team};
use crate::weights::{Matrix, Norm};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Kernels, threads and scratch memory: what a model computes with.
pub struct Cpu {
    kernels: &'static Kernels,
    pool: Pool,
    exact: bool,
    scratch: Mutex<Scratch>,
    observer: Option<Mutex<Observer>>,
}

/// Called with a matrix's name, the rows that it is about to be multiplied with, and their width.
pub type Observer = Box<dyn FnMut(&str, &[f32], usize) + Send>;

/// What a neuron does with its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(1.702 x)`: OpenAI's CLIP.
    GeluQuick,
    /// `x · Φ(x)`: LLaVA's projector.
    GeluErf,
    /// GELU's tanh approximation: SigLIP.
    GeluTanh,
    /// `x · sigmoid(x)`.
    Silu,
}

impl Cpu {
    /// `threads` threads, the caller among them. With `exact`, activations are never quantised.
    pub fn new(kernels: &'static Kernels, threads: usize, exact: bool) -> std::io::Result<Self> {
        let scratch = Mutex::new(Scratch::new(threads));
        Ok(Self { kernels, pool: Pool::new(threads)?, exact, scratch, observer: None })
    }

    /// The same with an observer of the products.
    pub fn observed(self, observer: Option<Observer>) -> Self {
        Self { observer: observer.map(Mutex::new), ..self }
    }

    /// The kernels' name and the number of threads.
    pub fn describe(&self) -> (&'static str, usize) {
        (self.kernels.name, self.pool.threads())
    }

    /// Whether activations are never quantised.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// What a product with `weight` is computed in, by the decoder.
    pub fn decoder_arithmetic(&self, weight: &Matrix) -> Arithmetic {
        Arithmetic::of(self.kernels, self.activations(Activations::Decoder), weight)
    }

    /// What a product with `weight` is computed in, by a tower or a projector.
    pub fn vision_arithmetic(&self, weight: &Matrix) -> Arithmetic {
        Arithmetic::of(self.kernels, self.activations(Activations::Vision), weight)
    }

    fn activations(&self, rounded: Activations) -> Activations {
        if self.exact { Activations::F32 } else { rounded }
    }

    /// Waits for the threads and takes them for one forward pass.
    pub fn enter<'a>(&'a self, control: &'a Control) -> Pass<'a> {
        Pass {
            kernels: self.kernels,
            team: self.pool.enter(),
            scratch: self.scratch.lock().unwrap_or_else(PoisonError::into_inner),
            activations: self.activations(Activations::Decoder),
            observer: self.observer.as_ref(),
            control,
        }
    }
}

/// One forward pass: the operations.
pub struct Pass<'a> {
    kernels: &'static Kernels,
    team: Team<'a>,
    scratch: MutexGuard<'a, Scratch>,
    activations: Activations,
    observer: Option<&'a Mutex<Observer>>,
    control: &'a Control,
}

impl Pass<'_> {
    /// The same for a tower or a projector.
    pub fn vision(mut self) -> Self {
        if self.activations == Activations::Decoder {
            self.activations = Activations::Vision;
        }
        self
    }

    /// An error if the operation was cancelled.
    pub fn checkpoint(&self) -> Result<()> {
        self.control.check()
    }

    /// Called after each layer: one more [step](Control::step) is done.
    pub fn step(&self) -> Result<()> {
        self.control.step()
    }

    /// The kernels in use.
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// `out = x Wᵀ + b` for every product; `x` is `[n, k]`.
    pub fn linear(&mut self, x: &[f32], n: usize, products: &mut [Product<'_>]) {
        if let Some(observer) = self.observer {
            let mut observe = observer.lock().unwrap_or_else(PoisonError::into_inner);
            let mut last = "";
            for weight in products.iter().map(|p| &p.layer.weight) {
                // The parts of a fused projection are one tensor.
                if weight.name() != last {
                    observe(weight.name(), x, weight.cols());
                }
                last = weight.name();
            }
        }
        matmul(self.kernels, &mut self.team, &mut self.scratch, self.activations, x, n, products);
    }

    /// RMSNorm of every row of `x`, `[n, w.len()]`.
    pub fn rms_norm(&mut self, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
        let (d, norm) = (w.len(), self.kernels.rms_norm);
        self.team.for_rows(out, d, |_, i, out| norm(&x[i * d..][..d], w, eps, out));
    }

    /// LayerNorm of every row of `x`, `[n, d]`.
    pub fn layer_norm(&mut self, x: &[f32], norm: &Norm, eps: f32, out: &mut [f32]) {
        let (d, run) = (norm.weight.len(), self.kernels.layer_norm);
        self.team.for_rows(out, d, |_, i, out| run(&x[i * d..][..d], &norm.weight, &norm.bias, eps, out));
    }

    /// `y += x`.
    pub fn add(&mut self, y: &mut [f32], x: &[f32]) {
        let add = self.kernels.add;
        self.team.for_rows(y, CHUNK, |_, i, y| add(y, &x[i * CHUNK..][..y.len()]));
    }

    /// `gate = silu(gate) · up`.
    pub fn silu_mul(&mut self, gate: &mut [f32], up: &[f32]) {
        let run = self.kernels.silu_mul;
        self.team.for_rows(gate, CHUNK, |_, i, gate| run(gate, &up[i * CHUNK..][..gate.len()]));
    }

    /// The activation function on every value.
    pub fn activation(&mut self, kind: Activation, x: &mut [f32]) {
        let k = self.kernels;
        self.team.for_rows(x, CHUNK, |_, _, x| match kind {
            Activation::GeluQuick => (k.gelu_quick)(x),
            Activation::GeluErf => (k.gelu_erf)(x),
            Activation::GeluTanh => (k.gelu_tanh)(x),
            Activation::Silu => x.iter_mut().for_each(|x| *x /= 1.0 + (-*x).exp()),
        });
    }

    /// Calls `f(i, row)` for every row `i` of `rows`, `len` values each, spread over the threads.
    pub fn for_rows(&mut self, rows: &mut [f32], len: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        self.team.for_rows(rows, len, |_, i, row| f(i, row));
    }

    /// Row `id` of `table`, dequantised.
    pub fn embed(&mut self, table: &Matrix, id: usize, out: &mut [f32]) {
        quant::dequantize(table.block_type(), table.row_data(id, 1), out);
    }
}

/// Values that an elementwise operation gives to a thread at once.
const CHUNK: usize = 4096;
