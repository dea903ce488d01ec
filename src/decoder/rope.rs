//! Rotary position embedding (RoFormer, arXiv:2104.09864) and its extensions to longer contexts.

use super::Config;
use crate::error::{Error, Result};
use crate::gguf::File;
use crate::weights::Loader;
use std::f64::consts::PI;

/// Which values of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `(2i, 2i + 1)`.
    Adjacent,
    /// `(i, i + dim/2)`, "neox".
    Halves,
}

/// How rotation angles are scaled.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all, but for `rope_freqs.weight` if the file has it (Llama 3.1).
    None,
    /// Every angle divided by the factor.
    Linear {
        /// Divisor.
        factor: f32,
    },
    /// YaRN (arXiv:2309.00071).
    Yarn {
        /// Divisor of the slow angles.
        factor: f32,
        /// Context length before the extension.
        original: usize,
        /// Factor on the attention temperature besides YaRN's own.
        attn_factor: f32,
        /// Rotations in the original context beyond which a dimension is left alone.
        beta_fast: f32,
        /// Rotations below which a dimension is fully interpolated.
        beta_slow: f32,
    },
    /// Phi-3's long and short divisors, from tensors.
    LongRope {
        /// Context length up to which the short ones hold.
        original: usize,
        /// Factor on cos and sin.
        attn_factor: f32,
    },
}

impl Scaling {
    /// Reads `{prefix}.rope.scaling.*` as llama.cpp does.
    pub fn from_gguf(file: &File, prefix: &str, context_length: usize) -> Result<Self> {
        let key = |k: &str| format!("{prefix}.rope.scaling.{k}");
        let positive = |k: String| match file.f32(&k)? {
            Some(v) if v <= 0.0 => Err(Error::invalid(file.name(), k, format!("is {v}, expected more than 0"))),
            v => Ok(v),
        };
        let factor = match positive(key("factor"))? {
            Some(f) => Some(f),
            None => positive(format!("{prefix}.rope.scale_linear"))?,
        };
        let original = file.u32(&key("original_context_length"))?.map_or(context_length, |n| n as usize).max(1);
        let attn_factor = positive(key("attn_factor"))?.unwrap_or(1.0);
        let kind = file.str(&key("type"))?;
        let has_long = file.tensor("rope_factors_long.weight").is_some();
        match kind.unwrap_or(if has_long { "longrope" } else { "linear" }) {
            "none" => Ok(Self::None),
            "linear" => Ok(match factor {
                Some(factor) if factor != 1.0 => Self::Linear { factor },
                _ => Self::None,
            }),
            "yarn" => Ok(Self::Yarn {
                factor: factor.unwrap_or(1.0),
                original,
                attn_factor,
                beta_fast: positive(key("yarn_beta_fast"))?.unwrap_or(32.0),
                beta_slow: positive(key("yarn_beta_slow"))?.unwrap_or(1.0),
            }),
            "longrope" | "su" => Ok(Self::LongRope { original, attn_factor }),
            other => Err(Error::unsupported(
                file.name(),
                key("type"),
                format!("is {other:?}; supported are none, linear, yarn, longrope"),
            )),
        }
    }
}

/// Rotations of one model.
#[derive(Clone, Debug)]
pub struct Rope {
    pairing: Pairing,
    /// Angle per position of each pair, `[dim / 2]`.
    frequencies: Vec<f64>,
    /// Factor on cos and sin.
    magnitude: f64,
}

impl Rope {
    /// The rotations of `config`, for sequences of up to `context` positions.
    pub fn new(config: &Config, weights: &Loader<'_>, context: usize) -> Result<Self> {
        let dim = config.rope_dim;
        let pairs = dim / 2;
        let base = f64::from(config.rope_base);
        let mut frequencies: Vec<f64> = (0..pairs).map(|i| base.powf(-((2 * i) as f64) / dim as f64)).collect();
        let mut magnitude = 1.0;
        match config.rope_scaling {
            Scaling::None => {}
            Scaling::Linear { factor } => frequencies.iter_mut().for_each(|f| *f /= f64::from(factor)),
            Scaling::Yarn { factor, original, attn_factor, beta_fast, beta_slow } => {
                let factor = f64::from(factor);
                // The pair that turns `rotations` times within the original context (arXiv:2309.00071, section 3.2).
                let pair = |rotations: f32| {
                    dim as f64 * (original as f64 / (f64::from(rotations) * 2.0 * PI)).ln() / (2.0 * base.ln())
                };
                let low = pair(beta_fast).floor().max(0.0);
                let high = pair(beta_slow).ceil().min(dim as f64 - 1.0);
                for (i, f) in frequencies.iter_mut().enumerate() {
                    let ramp = 1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    *f = *f / factor * (1.0 - ramp) + *f * ramp;
                }
                magnitude = f64::from(attn_factor) * (1.0 + 0.1 * factor.ln());
            }
            Scaling::LongRope { original, attn_factor } => {
                let name = if context > original { "rope_factors_long.weight" } else { "rope_factors_short.weight" };
                divide(&mut frequencies, &weights.vector(name, pairs)?);
                magnitude = f64::from(attn_factor);
            }
        }
        // Very old llama files carry a tensor of this name without effect; those of Llama 3.1 are divisors.
        if weights.has("rope_freqs.weight") {
            divide(&mut frequencies, &weights.vector("rope_freqs.weight", pairs)?);
        }
        Ok(Self { pairing: config.arch.pairing(), frequencies, magnitude })
    }

    /// Appends the rotations at `position` to `table`: the cosines of all pairs, then the sines, `[2, pairs]`.
    pub fn angles(&self, position: usize, table: &mut Vec<f32>) {
        let pairs = self.frequencies.len();
        let at = table.len();
        table.resize(at + 2 * pairs, 0.0);
        let (cosines, sines) = table[at..].split_at_mut(pairs);
        for ((f, c), s) in self.frequencies.iter().zip(cosines).zip(sines) {
            let (sin, cos) = (position as f64 * f).sin_cos();
            (*c, *s) = ((cos * self.magnitude) as f32, (sin * self.magnitude) as f32);
        }
    }

    /// Length of what [`Rope::angles`] appends.
    pub fn table_len(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Rotates every head of `x`, `[heads, head_dim]`, by `angles`, `[2, pairs]`.
    pub fn rotate(&self, x: &mut [f32], head_dim: usize, angles: &[f32]) {
        let pairs = self.frequencies.len();
        let (cosines, sines) = angles.split_at(pairs);
        let turn = |x: &mut f32, y: &mut f32, c: f32, s: f32| (*x, *y) = (*x * c - *y * s, *x * s + *y * c);
        for head in x.chunks_exact_mut(head_dim) {
            match self.pairing {
                Pairing::Adjacent => {
                    let head = head[..2 * pairs].as_chunks_mut::<2>().0;
                    for (([x, y], c), s) in head.iter_mut().zip(cosines).zip(sines) {
                        turn(x, y, *c, *s);
                    }
                }
                Pairing::Halves => {
                    let (first, second) = head[..2 * pairs].split_at_mut(pairs);
                    for (((x, y), c), s) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                        turn(x, y, *c, *s);
                    }
                }
            }
        }
    }
}

fn divide(frequencies: &mut [f64], divisors: &[f32]) {
    frequencies.iter_mut().zip(divisors).for_each(|(f, &d)| *f /= f64::from(d));
}
