//! The projectors that map vision features to the language model's width.

use super::config::{Config, ProjectorKind};
use super::{ROWS, buffer, ldp};
use crate::cpu::{Activation, Pass};
use crate::error::{Error, Result};
use crate::kernels::matmul::Product;
use crate::weights::{Linear, Loader, Matrix, Norm};

/// A projector's weights.
pub(super) enum Projector {
    Linear(Linear),
    Mlp(Mlp),
    MlpNorm { first: Linear, norm1: Norm, second: Linear, norm2: Norm, eps: f32 },
    Ldp { mlp: Mlp, blocks: Box<[ldp::InvertedResidual; 2]> },
    LdpV2 { mlp: Mlp, peg: ldp::Depthwise },
}

/// Linear, GELU, linear.
pub(super) struct Mlp {
    first: Linear,
    second: Linear,
}

impl Projector {
    pub(super) fn load(w: &Loader<'_>, config: &Config) -> Result<Self> {
        let input = config.feature_width();
        // The rows of a matrix say how wide its output is.
        let layer = |name: &str, input: usize| {
            let (_, rows) = w.dims(&format!("{name}.weight"))?;
            w.linear(name, rows, input)
        };
        let mlp = |first: &str, second: &str| -> Result<Mlp> {
            let first = layer(first, input)?;
            let second = layer(second, first.weight.rows())?;
            Ok(Mlp { first, second })
        };
        let grid = |needs: &str| match config.patches() {
            ldp::PATCHES => Ok(()),
            n => {
                let reason = format!("{needs} works on {} patches, and the tower makes {n}", ldp::PATCHES);
                Err(Error::unsupported(w.file.name(), "clip.projector_type", reason))
            }
        };
        Ok(match config.projector {
            ProjectorKind::Linear => Self::Linear(layer("mm.0", input)?),
            ProjectorKind::Mlp => Self::Mlp(mlp("mm.0", "mm.2")?),
            ProjectorKind::MlpNorm => {
                let Mlp { first, second } = mlp("mm.0", "mm.3")?;
                let norm1 = w.norm("mm.1", first.weight.rows())?;
                let norm2 = w.norm("mm.4", second.weight.rows())?;
                Self::MlpNorm { first, norm1, second, norm2, eps: config.eps }
            }
            ProjectorKind::Ldp => {
                grid("ldp")?;
                let mlp = mlp("mm.model.mlp.1", "mm.model.mlp.3")?;
                let block = |i, stride| ldp::InvertedResidual::load(w, i, mlp.second.weight.rows(), stride, config.eps);
                Self::Ldp { blocks: Box::new([block(1, 1)?, block(2, 2)?]), mlp }
            }
            ProjectorKind::LdpV2 => {
                grid("ldpv2")?;
                let mlp = mlp("mm.model.mlp.0", "mm.model.mlp.2")?;
                let peg = ldp::Depthwise::load(w, "mm.model.peg.0", mlp.second.weight.rows())?;
                Self::LdpV2 { mlp, peg }
            }
        })
    }

    /// The matrices that every patch meets; those of ldp's convolutions come after pooling and are small.
    pub(super) fn matrices(&self) -> Vec<&Matrix> {
        match self {
            Self::Linear(layer) => vec![&layer.weight],
            Self::Mlp(mlp) | Self::Ldp { mlp, .. } | Self::LdpV2 { mlp, .. } => {
                vec![&mlp.first.weight, &mlp.second.weight]
            }
            Self::MlpNorm { first, second, .. } => vec![&first.weight, &second.weight],
        }
    }

    /// Width of a projected token.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Linear(layer) => layer.weight.rows(),
            Self::Mlp(mlp) | Self::Ldp { mlp, .. } | Self::LdpV2 { mlp, .. } => mlp.second.weight.rows(),
            Self::MlpNorm { second, .. } => second.weight.rows(),
        }
    }

    /// Tokens that a tile of `patches` patches becomes.
    pub(super) fn tokens(&self, patches: usize) -> usize {
        match self {
            Self::Ldp { .. } | Self::LdpV2 { .. } => patches / 4,
            _ => patches,
        }
    }

    /// `[tiles · patches, feature_width]` → `[tiles · tokens, width]`.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, features: Vec<f32>, tiles: usize) -> Result<Vec<f32>> {
        match self {
            Self::Linear(layer) => apply(pass, layer, &features),
            Self::Mlp(mlp) => mlp.forward(pass, &features),
            Self::MlpNorm { first, norm1, second, norm2, eps } => {
                let x = apply(pass, first, &features)?;
                let mut h = vec![0.0; x.len()];
                pass.layer_norm(&x, norm1, *eps, &mut h);
                pass.activation(Activation::GeluErf, &mut h);
                let x = apply(pass, second, &h)?;
                let mut out = vec![0.0; x.len()];
                pass.layer_norm(&x, norm2, *eps, &mut out);
                Ok(out)
            }
            Self::Ldp { mlp, blocks } => {
                let mut x = mlp.forward(pass, &features)?;
                for block in blocks.iter() {
                    pass.checkpoint()?;
                    x = block.forward(pass, &x, tiles);
                }
                Ok(x)
            }
            Self::LdpV2 { mlp, peg } => {
                let x = mlp.forward(pass, &features)?;
                let pooled = ldp::pool(&x, self.width());
                let mut out = peg.forward(pass, &pooled, ldp::SIDE / 2, 1);
                pass.add(&mut out, &pooled);
                Ok(out)
            }
        }
    }
}

impl Mlp {
    fn forward(&self, pass: &mut Pass<'_>, x: &[f32]) -> Result<Vec<f32>> {
        let (cols, width) = (self.first.weight.cols(), self.second.weight.rows());
        let mut out = buffer("the projector", x.len() / cols, width)?;
        for (x, out) in x.chunks(ROWS * cols).zip(out.chunks_mut(ROWS * width)) {
            let mut h = apply(pass, &self.first, x)?;
            pass.activation(Activation::GeluErf, &mut h);
            pass.checkpoint()?;
            pass.linear(&h, x.len() / cols, &mut [Product { layer: &self.second, out }]);
        }
        Ok(out)
    }
}

fn apply(pass: &mut Pass<'_>, layer: &Linear, x: &[f32]) -> Result<Vec<f32>> {
    pass.checkpoint()?;
    let n = x.len() / layer.weight.cols();
    let mut out = buffer("the projector", n, layer.weight.rows())?;
    pass.linear(x, n, &mut [Product { layer, out: &mut out }]);
    Ok(out)
}
