//! Geometry of a vision tower and its projector, from an mmproj's metadata and tensors.

use crate::cpu::Activation;
use crate::error::{Error, Result};
use crate::gguf::File;
use crate::image::{Fit, Preprocessor};
use crate::weights::Loader;

const ARCH: &str = "general.architecture";
const PROJECTOR: &str = "clip.projector_type";
const FEATURE_LAYER: &str = "clip.vision.feature_layer";
const PINPOINTS: &str = "clip.vision.image_grid_pinpoints";
const MAX_WIDTH: u32 = 1 << 16;
/// Attention takes time quadratic in the patches. The largest towers of the family have 729.
const MAX_PATCHES: usize = 1 << 14;

/// What the mmproj says about its tower and projector.
#[derive(Clone, Debug)]
pub struct Config {
    /// Side of the square the tower sees, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the feed-forward layers.
    pub d_ff: usize,
    /// Attention heads.
    pub n_head: usize,
    /// LayerNorm's epsilon.
    pub eps: f32,
    /// The feed-forward layers' activation function.
    pub activation: Activation,
    /// Blocks that the file stores.
    pub n_blocks: usize,
    /// Hidden states that make the features, ascending (0 is the tower's input); several are concatenated. The
    /// last one says how many blocks run.
    pub feature_layers: Vec<usize>,
    /// Why these feature layers were chosen, for people.
    pub feature_rule: &'static str,
    /// Whether the tower has a class token (CLIP has, SigLIP has not).
    pub class_token: bool,
    /// Whether fc1 is stored as `ffn_down` and fc2 as `ffn_up`, as the legacy converter does.
    pub swapped_ffn: bool,
    /// The projector.
    pub projector: ProjectorKind,
    /// How images become squares.
    pub fit: Fit,
    /// The name of the newline tensor if feature maps are unpadded and closed row by row.
    pub newline: Option<&'static str>,
    /// Mean of each channel, RGB.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, RGB.
    pub std: [f32; 3],
}

/// The projectors of the LLaVA family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectorKind {
    /// One linear layer: LLaVA-1.
    Linear,
    /// Linear, GELU, linear: LLaVA-1.5 and later.
    Mlp,
    /// Linear, LayerNorm, GELU, linear, LayerNorm: Yi-VL.
    MlpNorm,
    /// MobileVLM's lightweight downsample projector.
    Ldp,
    /// MobileVLM V2's.
    LdpV2,
}

impl ProjectorKind {
    /// The name people know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Mlp => "mlp2x_gelu",
            Self::MlpNorm => "mlp with norms (Yi-VL)",
            Self::Ldp => "ldp",
            Self::LdpV2 => "ldpv2",
        }
    }

    fn from_gguf(w: &Loader<'_>) -> Result<Self> {
        let file = w.file;
        let stated = match file.str(PROJECTOR)? {
            Some(s) => Some(s),
            None => file.str("clip.vision.projector_type")?,
        };
        // The first published LLaVA-1.5 files state no type.
        match stated.unwrap_or("mlp") {
            "mlp" if w.has("mm.3.weight") => Ok(Self::MlpNorm),
            "mlp" if w.has("mm.2.weight") => Ok(Self::Mlp),
            "mlp" | "linear" => Ok(Self::Linear),
            "ldp" => Ok(Self::Ldp),
            "ldpv2" => Ok(Self::LdpV2),
            other => Err(Error::unsupported(
                file.name(),
                PROJECTOR,
                format!("is {other:?}; supported are mlp, linear, ldp and ldpv2"),
            )),
        }
    }
}

impl Config {
    /// Reads and checks the metadata; the tensors' names settle what it leaves open.
    pub fn from_gguf(w: &Loader<'_>) -> Result<Self> {
        let file = w.file;
        match file.str(ARCH)? {
            Some("clip") => {}
            other => {
                let found = other.map_or("missing".to_owned(), |a| format!("{a:?}"));
                let reason = format!("is {found}, expected \"clip\": this is not an mmproj");
                return Err(Error::invalid(file.name(), ARCH, reason));
            }
        }
        if file.bool("clip.has_vision_encoder")? == Some(false) {
            return Err(Error::unsupported(file.name(), "clip.has_vision_encoder", "is false: no vision tower"));
        }
        let size = |name: &str, max: u32| -> Result<usize> {
            let key = format!("clip.vision.{name}");
            match file.required(&key, file.u32(&key)?)? {
                n if n == 0 || n > max => Err(Error::invalid(file.name(), key, format!("is {n}, expected 1 to {max}"))),
                n => Ok(n as usize),
            }
        };
        let image_size = size("image_size", 4096)?;
        let patch_size = size("patch_size", 4096)?;
        if patch_size > image_size {
            let reason = format!("is {patch_size}, more than the image's {image_size}");
            return Err(Error::invalid(file.name(), "clip.vision.patch_size", reason));
        }
        let patches = (image_size / patch_size).pow(2);
        if patches > MAX_PATCHES {
            let reason = format!("is {patch_size}, which makes {patches} patches; at most {MAX_PATCHES} are supported");
            return Err(Error::unsupported(file.name(), "clip.vision.patch_size", reason));
        }
        let width = size("embedding_length", MAX_WIDTH)?;
        let n_head = size("attention.head_count", MAX_WIDTH)?;
        if width % n_head != 0 {
            let reason = format!("is {n_head}, which does not divide the width {width}");
            return Err(Error::invalid(file.name(), "clip.vision.attention.head_count", reason));
        }
        let eps_key = "clip.vision.attention.layer_norm_epsilon";
        let eps = file.required(eps_key, file.f32(eps_key)?)?;
        if eps < 0.0 {
            return Err(Error::invalid(file.name(), eps_key, format!("is {eps}")));
        }
        let class_token = w.has("v.class_embd");
        let n_blocks = size("block_count", 1 << 10)?;
        let (feature_layers, feature_rule) = feature_layers(file, n_blocks, class_token)?;
        let d_ff = size("feed_forward_length", 1 << 20)?;
        let projector = ProjectorKind::from_gguf(w)?;
        let newline = newline(w)?;
        Ok(Self {
            image_size,
            patch_size,
            width,
            d_ff,
            n_head,
            eps,
            activation: activation(file)?,
            n_blocks,
            feature_layers,
            feature_rule,
            class_token,
            swapped_ffn: swapped_ffn(w, width, d_ff)?,
            projector,
            fit: fit(file, class_token, projector)?,
            newline,
            mean: triple(file, "clip.vision.image_mean")?,
            std: triple(file, "clip.vision.image_std")?,
        })
    }

    /// Patches along a side of the square. Pixels beyond the last whole patch are not seen, as in the convolution.
    pub fn side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patches of a tile.
    pub fn patches(&self) -> usize {
        self.side() * self.side()
    }

    /// Width of the features: that of the tower, times the number of hidden states taken.
    pub fn feature_width(&self) -> usize {
        self.width * self.feature_layers.len()
    }

    /// What turns images into the tower's input.
    pub(super) fn preprocessor(&self, file: &File) -> Result<Preprocessor> {
        Preprocessor::new(self.image_size as u32, self.mean, self.std, self.fit.clone())
            .map_err(|e| Error::invalid(file.name(), "clip.vision", e.to_string()))
    }
}

/// Which hidden states make the features. LLaVA takes the last but one of the tower it was trained with, and the
/// converter leaves the unused last block out.
fn feature_layers(file: &File, n_blocks: usize, class_token: bool) -> Result<(Vec<usize>, &'static str)> {
    if let Some(stated) = file.i64s(FEATURE_LAYER)? {
        let mut layers: Vec<usize> = stated.iter().filter_map(|&l| usize::try_from(l).ok()).collect();
        layers.sort_unstable();
        layers.dedup();
        return match layers.last() {
            Some(&last) if layers.len() == stated.len() && last <= n_blocks => Ok((layers, "stated by the file")),
            _ => Err(Error::invalid(
                file.name(),
                FEATURE_LAYER,
                format!("is {stated:?}, expected distinct indices from 0 to the {n_blocks} stored blocks"),
            )),
        };
    }
    // SigLIP so400m has 27 blocks; conversions with 28 carry a filler to suit a reader that stops one early.
    if !class_token && n_blocks == 28 {
        return Ok((vec![27], "27 of 28 stored blocks: the last is a filler"));
    }
    Ok((vec![n_blocks], "all stored blocks: the converter left the unused last one out"))
}

fn activation(file: &File) -> Result<Activation> {
    let flag = |key| Ok::<_, Error>(file.bool(key)?.unwrap_or(false));
    match (flag("clip.use_gelu")?, flag("clip.use_silu")?) {
        (false, false) => Ok(Activation::GeluQuick),
        (true, false) => Ok(Activation::GeluTanh),
        (false, true) => Ok(Activation::Silu),
        (true, true) => Err(Error::invalid(file.name(), "clip.use_gelu", "and clip.use_silu are both true")),
    }
}

/// The legacy converter's names are told by shape: fc1 takes the tower's width. With equal widths nothing tells,
/// and the names are taken at their word.
fn swapped_ffn(w: &Loader<'_>, width: usize, d_ff: usize) -> Result<bool> {
    Ok(width != d_ff && w.dims("v.blk.0.ffn_down.weight")?.0 == width)
}

fn triple(file: &File, key: &str) -> Result<[f32; 3]> {
    let values = file.required(key, file.f32s(key)?)?;
    match values {
        [a, b, c, ..] if [a, b, c].iter().all(|v| v.is_finite()) => Ok([*a, *b, *c]),
        _ => Err(Error::invalid(file.name(), key, format!("has {} values, expected 3 finite ones", values.len()))),
    }
}

fn fit(file: &File, class_token: bool, projector: ProjectorKind) -> Result<Fit> {
    if let Some(flat) = file.i64s(PINPOINTS)?.filter(|p| !p.is_empty()) {
        let sizes: Option<Vec<u32>> = flat.iter().map(|&v| u32::try_from(v).ok()).collect();
        let pairs = sizes.as_deref().map(<[u32]>::as_chunks::<2>);
        return match pairs {
            Some((pairs, [])) => Ok(Fit::AnyRes { pinpoints: pairs.iter().map(|&[w, h]| (w, h)).collect() }),
            _ => {
                let shown = &flat[..flat.len().min(10)];
                let reason = format!("has {} values, expected pairs of sizes: {shown:?}…", flat.len());
                Err(Error::invalid(file.name(), PINPOINTS, reason))
            }
        };
    }
    Ok(match file.str("clip.vision.image_aspect_ratio")? {
        Some("pad") => Fit::Pad,
        // What LLaVA-1 was trained with; later CLIP models pad.
        Some("square") if class_token => Fit::Crop,
        _ if !class_token => Fit::Squash,
        _ if projector == ProjectorKind::Linear => Fit::Crop,
        _ => Fit::Pad,
    })
}

fn newline(w: &Loader<'_>) -> Result<Option<&'static str>> {
    let name = ["v.image_newline", "model.image_newline"].into_iter().find(|n| w.has(n));
    const MERGE: &str = "clip.vision.mm_patch_merge_type";
    match (w.file.str(MERGE)?, name) {
        (Some("spatial_unpad"), None) => {
            Err(Error::invalid(w.file.name(), "model.image_newline", "missing, and the merge type is spatial_unpad"))
        }
        (Some("flat"), _) => Ok(None),
        (Some("spatial_unpad") | None, name) => Ok(name),
        (Some(other), _) => {
            Err(Error::unsupported(w.file.name(), MERGE, format!("is {other:?}; supported are flat, spatial_unpad")))
        }
    }
}
