//! The convolutions of MobileVLM's projectors (`mobilevlm/model/vision_projector.py`), on maps stored
//! `[y, x, channel]`.

use crate::cpu::Pass;
use crate::error::Result;
use crate::kernels::matmul::Product;
use crate::weights::{Linear, Loader, Norm};

/// The map's side is fixed: CLIP ViT-L/14 at 336 pixels.
pub(super) const SIDE: usize = 24;
pub(super) const PATCHES: usize = SIDE * SIDE;

/// A 3×3 convolution of each channel by itself, one row and column of zeros around the map.
pub(super) struct Depthwise {
    kernel: Vec<f32>, // [tap, channel]
    bias: Option<Vec<f32>>,
    channels: usize,
}

impl Depthwise {
    pub(super) fn load(w: &Loader<'_>, name: &str, channels: usize) -> Result<Self> {
        let stored = w.vector(&format!("{name}.weight"), channels * 9)?; // [channel, tap]
        let kernel = (0..9 * channels).map(|i| stored[i % channels * 9 + i / channels]).collect();
        let bias = format!("{name}.bias");
        let bias = w.has(&bias).then(|| w.vector(&bias, channels)).transpose()?;
        Ok(Self { kernel, bias, channels })
    }

    /// Every map of `x`, `[side, side, channels]` each, becomes one of `side / stride`.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, x: &[f32], side: usize, stride: usize) -> Vec<f32> {
        let c = self.channels;
        let out_side = side.div_ceil(stride);
        let mut out = vec![0.0; x.len() / (side * side) * out_side * out_side];
        pass.for_rows(&mut out, c, |i, out| {
            let (map, at) = (i / (out_side * out_side), i % (out_side * out_side));
            let (cy, cx) = (at / out_side * stride, at % out_side * stride);
            if let Some(bias) = &self.bias {
                out.copy_from_slice(bias);
            }
            for tap in 0..9 {
                let (y, x_at) = (cy + tap / 3, cx + tap % 3); // one more than the position
                if (1..=side).contains(&y) && (1..=side).contains(&x_at) {
                    let row = &x[((map * side + y - 1) * side + x_at - 1) * c..][..c];
                    let kernel = &self.kernel[tap * c..][..c];
                    out.iter_mut().zip(row).zip(kernel).for_each(|((o, x), k)| *o += x * k);
                }
            }
        });
        out
    }
}

/// Averages 2×2 positions: `[SIDE, SIDE, channels]` maps → `[SIDE/2, SIDE/2, channels]`.
pub(super) fn pool(x: &[f32], channels: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len() / 4);
    let at = |map: usize, y: usize, x_at: usize, c: usize| x[((map * SIDE + y) * SIDE + x_at) * channels + c];
    for map in 0..x.len() / (PATCHES * channels) {
        for (y, x_at) in (0..SIDE * SIDE / 4).map(|i| (i / (SIDE / 2) * 2, i % (SIDE / 2) * 2)) {
            out.extend((0..channels).map(|c| {
                0.25 * (at(map, y, x_at, c)
                    + at(map, y, x_at + 1, c)
                    + at(map, y + 1, x_at, c)
                    + at(map, y + 1, x_at + 1, c))
            }));
        }
    }
    out
}

/// MobileNetV3's inverted residual without expansion: depthwise convolution, squeeze and excitation, pointwise
/// convolution; with stride 1 the input is added.
pub(super) struct InvertedResidual {
    depthwise: Depthwise,
    norm1: Norm,
    squeeze: Linear, // [channels / 4, channels]
    excite: Linear,  // [channels, channels / 4]
    pointwise: Linear,
    norm2: Norm,
    stride: usize,
    eps: f32,
}

impl InvertedResidual {
    pub(super) fn load(w: &Loader<'_>, i: usize, channels: usize, stride: usize, eps: f32) -> Result<Self> {
        let name = |part: &str| format!("mm.model.mb_block.{i}.block.{part}");
        let (_, squeezed) = w.dims(&name("1.fc1.bias")).map(|(n, _)| ((), n))?;
        let conv1x1 = |part: &str, out: usize, input: usize| -> Result<Linear> {
            let weight = name(&format!("{part}.weight"));
            // A 1×1 convolution may be stored with its two trivial dimensions, [1, 1, in, out].
            let weight = match w.dims(&weight)? {
                (cols, _) if cols == input => w.matrix(&weight, out, input)?,
                _ => w.flat_matrix(&weight, out, input)?,
            };
            let bias = name(&format!("{part}.bias"));
            Ok(Linear { weight, bias: w.has(&bias).then(|| w.vector(&bias, out)).transpose()? })
        };
        Ok(Self {
            depthwise: Depthwise::load(w, &name("0.0"), channels)?,
            norm1: w.norm(&name("0.1"), channels)?,
            squeeze: conv1x1("1.fc1", squeezed, channels)?,
            excite: conv1x1("1.fc2", channels, squeezed)?,
            pointwise: conv1x1("2.0", channels, channels)?,
            norm2: w.norm(&name("2.1"), channels)?,
            stride,
            eps,
        })
    }

    /// `[tiles, SIDE, SIDE, channels]` → the same at `SIDE / stride`.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, x: &[f32], tiles: usize) -> Vec<f32> {
        let c = self.depthwise.channels;
        let y = self.depthwise.forward(pass, x, SIDE, self.stride);
        let mut h = vec![0.0; y.len()];
        pass.layer_norm(&y, &self.norm1, self.eps, &mut h);
        h.iter_mut().for_each(|v| *v *= hard_sigmoid(*v));

        let positions = h.len() / c / tiles;
        let mut mean = vec![0.0; tiles * c];
        for (mean, map) in mean.chunks_exact_mut(c).zip(h.chunks_exact(positions * c)) {
            for row in map.chunks_exact(c) {
                mean.iter_mut().zip(row).for_each(|(m, v)| *m += v);
            }
            mean.iter_mut().for_each(|m| *m /= positions as f32);
        }
        let mut squeezed = vec![0.0; tiles * self.squeeze.weight.rows()];
        pass.linear(&mean, tiles, &mut [Product { layer: &self.squeeze, out: &mut squeezed }]);
        squeezed.iter_mut().for_each(|v| *v = v.max(0.0));
        let mut gate = vec![0.0; tiles * c];
        pass.linear(&squeezed, tiles, &mut [Product { layer: &self.excite, out: &mut gate }]);
        for (map, gate) in h.chunks_exact_mut(positions * c).zip(gate.chunks_exact(c)) {
            for row in map.chunks_exact_mut(c) {
                row.iter_mut().zip(gate).for_each(|(v, g)| *v *= hard_sigmoid(*g));
            }
        }

        let mut y = vec![0.0; h.len()];
        pass.linear(&h, tiles * positions, &mut [Product { layer: &self.pointwise, out: &mut y }]);
        pass.layer_norm(&y, &self.norm2, self.eps, &mut h);
        if self.stride == 1 {
            pass.add(&mut h, x);
        }
        h
    }
}

/// PyTorch's `Hardsigmoid`; `x · hard_sigmoid(x)` is its `Hardswish`.
fn hard_sigmoid(x: f32) -> f32 {
    (x / 6.0 + 0.5).clamp(0.0, 1.0)
}
