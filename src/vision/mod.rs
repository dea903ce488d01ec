//! From pixels to image tokens: the vision tower, the projector, and the order of the tiles' features.
//!
//! Quantised weights are computed with in int8, activations in two digits with a scale for a whole row
//! ([`crate::kernels::row_scaled`]), where the kernels have it; others in bf16 where the CPU has instructions for it,
//! unless they are F32; the rest in f32. The decoder's int8 will not do here: CLIP towers have patches of very large norm,
//! and tokens with a few very large values.

mod config;
mod embedding;
mod ldp;
mod projector;
mod tower;

pub use config::{Config, ProjectorKind};
pub use embedding::Embedding;

use crate::cpu::{Control, Cpu, Stage};
use crate::error::{Error, Result};
use crate::gguf::File;
use crate::image::anyres::unpad;
use crate::image::{Image, Preprocessor, Tiles};
use crate::weights::{Loader, Matrix};
use projector::Projector;
use tower::Tower;

/// The contents of an mmproj: a vision tower and a projector.
pub struct Vision {
    /// Geometry.
    pub config: Config,
    preprocessor: Preprocessor,
    tower: Tower,
    projector: Projector,
    /// The embedding after each row of an unpadded feature map, `[d_model]`.
    newline: Option<Vec<f32>>,
}

impl Vision {
    /// Reads an mmproj.
    pub fn from_gguf(file: &File) -> Result<Self> {
        let w = Loader { file };
        let config = Config::from_gguf(&w)?;
        let preprocessor = config.preprocessor(file)?;
        let tower = Tower::load(&w, &config)?;
        let projector = Projector::load(&w, &config)?;
        let newline = match config.newline {
            Some(name) => Some(w.vector(name, projector.width())?),
            None => None,
        };
        Ok(Self { config, preprocessor, tower, projector, newline })
    }

    /// Width of an image token: the language model's `d_model`.
    pub fn width(&self) -> usize {
        self.projector.width()
    }

    /// Image tokens of a picture of `size` (width, height) pixels.
    pub fn tokens(&self, size: (u32, u32)) -> usize {
        let (n, grid) = (self.projector.tokens(self.config.patches()), self.preprocessor.grid(size));
        match grid {
            None => n,
            Some(grid) if self.newline.is_some() => n + unpad(size, grid, n.isqrt()).tokens(),
            Some((w, h)) => n * (1 + w * h),
        }
    }

    /// The tower's input for `image`.
    pub fn preprocess(&self, image: &Image) -> Result<Tiles> {
        self.preprocessor.apply(image)
    }

    /// The tower's output, `[tiles · patches, width]`: the chosen hidden state without CLS.
    pub fn features(&self, cpu: &Cpu, control: &Control, tiles: &Tiles) -> Result<Vec<f32>> {
        self.tower.forward(&mut cpu.enter(control).vision(), tiles)
    }

    /// The projector on features of `tiles` tiles, and their order in the prompt.
    pub fn project(&self, cpu: &Cpu, control: &Control, features: Vec<f32>, tiles: &Tiles) -> Result<Embedding> {
        let projected = self.projector.forward(&mut cpu.enter(control).vision(), features, tiles.tiles)?;
        Embedding::new(self.arrange(projected, tiles), self.width())
    }

    /// The matrices of the tower and the projector, each with the rows of a tile that meet it.
    pub fn products(&self) -> impl Iterator<Item = (&Matrix, usize)> {
        let patches = self.config.patches();
        self.tower.products().chain(self.projector.matrices().into_iter().map(move |m| (m, patches)))
    }

    /// Multiplications and additions of a tile's attention.
    pub fn attention_ops(&self) -> f64 {
        self.tower.attention_ops()
    }

    /// Steps of encoding an image, for [`Control::begin`].
    pub fn steps(&self) -> usize {
        self.tower.steps()
    }

    /// Image → image tokens.
    pub fn encode(&self, cpu: &Cpu, control: &Control, image: &Image) -> Result<Embedding> {
        let tiles = self.preprocess(image)?;
        let _stage = control.begin(Stage::Encode, self.steps())?;
        let features = self.features(cpu, control, &tiles)?;
        self.project(cpu, control, features, &tiles)
    }

    /// LLaVA-1.6's order (`llava_arch.py`, `spatial_unpad`): the base view, then the tiles' map row by row without
    /// its padding, each row closed by the newline. Without a newline (`flat`), tile after tile as they are.
    fn arrange(&self, projected: Vec<f32>, tiles: &Tiles) -> Vec<f32> {
        let (Some(grid), Some(newline)) = (tiles.grid, &self.newline) else { return projected };
        let d = self.width();
        let n = projected.len() / d / tiles.tiles; // tokens of a tile
        let side = n.isqrt();
        let kept = unpad(tiles.original, grid, side);
        let mut out = Vec::with_capacity((n + kept.tokens()) * d);
        out.extend_from_slice(&projected[..n * d]);
        for y in kept.rows.clone() {
            for x in kept.cols.clone() {
                let tile = 1 + y / side * grid.0 + x / side;
                let token = tile * n + y % side * side + x % side;
                out.extend_from_slice(&projected[token * d..][..d]);
            }
            out.extend_from_slice(newline);
        }
        out
    }
}

/// Rows, about, that go through a layer together: enough to pay for unpacking its weights, few enough that what one
/// operation writes is still in a cache when the next one reads it.
const ROWS: usize = 1024;

/// An error if `rows · width` values are more than an image may take at one time.
fn check_size(what: &'static str, rows: usize, width: usize) -> Result<usize> {
    const MAX: u64 = 4 << 30;
    let bytes = (rows as u64).saturating_mul(width as u64).saturating_mul(4);
    match bytes <= MAX {
        true => Ok(rows * width),
        false => Err(Error::OutOfMemory { what, bytes, reason: format!("more than the limit of {MAX}") }),
    }
}

/// Zeros, `[rows, width]`, within the limit of [`check_size`].
fn buffer(what: &'static str, rows: usize, width: usize) -> Result<Vec<f32>> {
    let len = check_size(what, rows, width)?;
    bytemuck::allocation::try_zeroed_vec(len).map_err(|_| Error::OutOfMemory {
        what,
        bytes: 4 * len as u64,
        reason: "the system has no more".to_owned(),
    })
}

#[cfg(test)]
mod tests;
