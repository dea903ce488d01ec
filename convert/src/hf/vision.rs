//! The vision tower and the projector: their keys and names in an mmproj.

use super::invalid;
use super::plan::{Inventory, Part, Planned};
use super::settings::Settings;
use crate::quantize::Model;
use llava::Error;
use llava::gguf::{Array, Value, Writer};
use serde_json::Value as Json;

/// What CLIP's and SigLIP's processors take off and divide by.
const CLIP: ([f32; 3], [f32; 3]) = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.2613026, 0.2757771]);
const SIGLIP: ([f32; 3], [f32; 3]) = ([0.5; 3], [0.5; 3]);

/// Names within a block, and llama.cpp's.
const BLOCK: [(&str, &str); 8] = [
    ("layer_norm1", "ln1"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.out_proj", "attn_out"),
    ("layer_norm2", "ln2"),
    ("mlp.fc1", "ffn_up"),
    ("mlp.fc2", "ffn_down"),
];

/// Where settings of the tower come from.
pub struct Sources<'a> {
    /// LLaVA's configuration.
    pub llava: &'a Settings,
    /// The tower's, if there is one.
    pub tower: Option<Settings>,
    /// The image processor's; may be empty.
    pub processor: Settings,
}

/// A tower's geometry, and how images come to it.
pub struct Vision {
    clip: bool,
    image_size: usize,
    patch_size: usize,
    width: usize,
    d_ff: usize,
    heads: usize,
    eps: f64,
    tanh: bool,
    mean: Vec<f32>,
    std: Vec<f32>,
    /// Hidden states that make the features: 0 before the first block, k after k blocks.
    layers: Vec<usize>,
    /// (width, height) pairs, flat.
    pinpoints: Vec<i32>,
    aspect_ratio: Option<String>,
    /// Blocks of the checkpoint.
    all_blocks: usize,
}

impl Vision {
    /// Reads the geometry: what shapes tell, from them, and the rest from the settings.
    ///
    /// # Errors
    /// [`Error::InvalidModel`] for what is missing or makes no sense; [`Error::Unsupported`] for what the engine does not run.
    pub fn new(from: &Inventory, sources: &Sources<'_>) -> Result<Self, Error> {
        let Sources { llava, tower, processor } = sources;
        let shape = |name: &str| {
            let found = from.get(Part::Tower, name).map(|t| t.shape.clone());
            found.ok_or_else(|| invalid(&from.folder, name, "is missing in the vision tower"))
        };
        let patches = "embeddings.patch_embedding.weight";
        let &[width, 3, patch_size, high] = &shape(patches)?[..] else {
            return Err(invalid(&from.folder, patches, "has no shape of [width, 3, patch, patch]"));
        };
        let clip = from.get(Part::Tower, "embeddings.class_embedding").is_some();
        let positions = "embeddings.position_embedding.weight";
        let places = shape(positions)?.first().copied().unwrap_or(0);
        let side = places.saturating_sub(usize::from(clip)).isqrt();
        if high != patch_size || side == 0 || side * side + usize::from(clip) != places || side > 1 << 12 {
            return Err(invalid(
                &from.folder,
                positions,
                &format!("has {places} rows, which no square of patches has"),
            ));
        }
        // The shape of the first block tells; a tower has at most as many blocks as a decoder.
        let d_ff = shape("encoder.layers.0.mlp.fc1.weight")?.first().copied().unwrap_or(0);
        let block = |i: usize| from.get(Part::Tower, &format!("encoder.layers.{i}.mlp.fc1.weight")).is_some();
        let all_blocks = (0..1 << 12).take_while(|&i| block(i)).count();
        let of = tower.clone().unwrap_or_default();
        let heads = match (of.size("num_attention_heads")?, tower) {
            (Some(n), _) => n,
            (None, Some(_)) => 12,
            // A tower without a configuration of its own: CLIP's heads are 64 wide, those of SigLIP so400m 72.
            (None, None) if width == 1152 => 16,
            (None, None) => width / 64,
        };
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(of.wrong("num_attention_heads", &format!("is {heads}, which does not divide {width}")));
        }
        let stated = [
            ("hidden_size", width),
            ("patch_size", patch_size),
            ("intermediate_size", d_ff),
            ("num_hidden_layers", all_blocks),
        ];
        for (key, found) in stated {
            if let Some(n) = of.size(key)?.filter(|&n| n != found) {
                return Err(of.wrong(key, &format!("is {n}, and by the tensors {found}")));
            }
        }
        let tanh = match of.str("hidden_act").unwrap_or(if clip { "quick_gelu" } else { "gelu_pytorch_tanh" }) {
            "quick_gelu" => false,
            "gelu_pytorch_tanh" | "gelu_new" => true,
            other => {
                let reason = format!(
                    "is {other:?}, which a GGUF file can't say; quick_gelu and gelu_pytorch_tanh are converted"
                );
                return Err(of.unsupported("hidden_act", &reason));
            }
        };
        check_selection(llava, clip)?;
        let default = if clip { CLIP } else { SIGLIP };
        let triple = |key: &str, default: [f32; 3]| match processor.numbers(key)? {
            None => Ok(default.to_vec()),
            Some(all) if all.len() == 3 => Ok(all),
            Some(all) => Err(processor.wrong(key, &format!("has {} numbers, expected 3", all.len()))),
        };
        Ok(Self {
            clip,
            image_size: of.size("image_size")?.unwrap_or(side * patch_size),
            patch_size,
            width,
            d_ff,
            heads,
            eps: of.number("layer_norm_eps")?.unwrap_or(if clip { 1e-5 } else { 1e-6 }),
            tanh,
            mean: triple("image_mean", default.0)?,
            std: triple("image_std", default.1)?,
            layers: feature_layers(llava, all_blocks)?,
            pinpoints: pinpoints(llava)?,
            aspect_ratio: llava.str("image_aspect_ratio").map(str::to_owned),
            all_blocks,
        })
    }

    /// What mixtures go by.
    pub fn model(&self) -> Model {
        Model::new("clip", self.blocks(), self.heads, self.heads, false, false)
    }

    /// Blocks that are needed.
    fn blocks(&self) -> usize {
        self.layers.iter().copied().max().unwrap_or(0).max(1)
    }

    /// Writes the keys; `width` is the language model's.
    pub fn keys(&self, writer: &mut Writer<'_>, width: usize) {
        let number = |n: usize| Value::U32(u32::try_from(n).unwrap_or(u32::MAX));
        writer.set("clip.has_vision_encoder", Value::Bool(true));
        writer.set("clip.projector_type", Value::String("mlp".into()));
        writer.set("clip.use_gelu", Value::Bool(self.tanh));
        let mut set = |key: &str, value: Value| {
            writer.set(format!("clip.vision.{key}"), value);
        };
        set("image_size", number(self.image_size));
        set("patch_size", number(self.patch_size));
        set("embedding_length", number(self.width));
        set("feed_forward_length", number(self.d_ff));
        set("block_count", number(self.blocks()));
        set("attention.head_count", number(self.heads));
        set("attention.layer_norm_epsilon", Value::F32(self.eps as f32));
        set("projection_dim", number(width));
        set("image_mean", Value::Array(Array::F32(self.mean.clone())));
        set("image_std", Value::Array(Array::F32(self.std.clone())));
        let layers = self.layers.iter().map(|&l| l as i32).collect();
        set("feature_layer", Value::Array(Array::I32(layers)));
        if let Some(ratio) = &self.aspect_ratio {
            set("image_aspect_ratio", Value::String(ratio.clone()));
        }
        if !self.pinpoints.is_empty() {
            set("image_grid_pinpoints", Value::Array(Array::I32(self.pinpoints.clone())));
            set("mm_patch_merge_type", Value::String("spatial_unpad".into()));
        }
    }

    /// Takes the tensors of the tower and the projector, for a language model `width` wide.
    ///
    /// # Errors
    /// [`Error::InvalidModel`] for one that is missing or has another shape.
    pub fn tensors(&self, from: &mut Inventory, width: usize) -> Result<Vec<Planned>, Error> {
        let mut out = self.projector(from, width)?;
        if !self.pinpoints.is_empty() {
            let newline = from.take(Part::Newline, "image_newline", &[width])?;
            out.push(Planned::new("v.image_newline", newline));
        }
        from.ignore(Part::Newline, |_| true, "is used with image_aspect_ratio anyres alone");
        let (d, p) = (self.width, self.patch_size);
        let places = (self.image_size / p).pow(2) + usize::from(self.clip);
        let mut take = |name: &str, to: &str, shape: &[usize]| -> Result<(), Error> {
            out.push(Planned::new(to, from.take(Part::Tower, name, shape)?));
            Ok(())
        };
        take("embeddings.patch_embedding.weight", "v.patch_embd.weight", &[d, 3, p, p])?;
        take("embeddings.position_embedding.weight", "v.position_embd.weight", &[places, d])?;
        if self.clip {
            take("embeddings.class_embedding", "v.class_embd", &[d])?;
            take("pre_layrnorm.weight", "v.pre_ln.weight", &[d])?;
            take("pre_layrnorm.bias", "v.pre_ln.bias", &[d])?;
        } else {
            take("embeddings.patch_embedding.bias", "v.patch_embd.bias", &[d])?;
        }
        for i in 0..self.blocks() {
            for (name, to) in BLOCK {
                let (rows, columns) = match name {
                    "mlp.fc1" => (self.d_ff, Some(d)),
                    "mlp.fc2" => (d, Some(self.d_ff)),
                    _ if name.starts_with("self_attn") => (d, Some(d)),
                    _ => (d, None),
                };
                let shape: Vec<usize> = [Some(rows), columns].into_iter().flatten().collect();
                take(&format!("encoder.layers.{i}.{name}.weight"), &format!("v.blk.{i}.{to}.weight"), &shape)?;
                take(&format!("encoder.layers.{i}.{name}.bias"), &format!("v.blk.{i}.{to}.bias"), &[rows])?;
            }
        }
        let later = |name: &str| {
            let number = name.strip_prefix("encoder.layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
            number.is_some_and(|n: usize| n >= self.blocks() && n < self.all_blocks)
        };
        from.ignore(Part::Tower, later, "comes after the layer that the features are taken from");
        from.ignore(Part::Tower, |name| name.starts_with("post_layernorm."), "comes after the features are taken");
        from.ignore(Part::Tower, |name| name.starts_with("head."), "pools SigLIP's features, and LLaVA takes them all");
        Ok(out)
    }

    fn projector(&self, from: &mut Inventory, width: usize) -> Result<Vec<Planned>, Error> {
        let features = self.width * self.layers.len();
        // transformers' names; the original's are their places in a sequence, or none for a single matrix.
        let names = match () {
            () if from.get(Part::Projector, "linear_1.weight").is_some() => &["linear_1.", "linear_2."][..],
            () if from.get(Part::Projector, "weight").is_some() => &[""],
            () => &["0.", "2."],
        };
        let mut out = Vec::new();
        for ((name, to), columns) in names.iter().zip(["mm.0", "mm.2"]).zip([features, width]) {
            let weight = from.take(Part::Projector, &format!("{name}weight"), &[width, columns])?;
            out.push(Planned::new(format!("{to}.weight"), weight));
            if let Some(bias) = from.take_if(Part::Projector, &format!("{name}bias"), &[width])? {
                out.push(Planned::new(format!("{to}.bias"), bias));
            }
        }
        Ok(out)
    }
}

/// An error for features that the engine does not take.
fn check_selection(llava: &Settings, clip: bool) -> Result<(), Error> {
    for (key, patches) in [("vision_feature_select_strategy", "default"), ("mm_vision_select_feature", "patch")] {
        let Some(stated) = llava.str(key) else { continue };
        // Without a class token all rows are patches.
        if clip && stated != patches {
            return Err(llava.unsupported(key, &format!("is {stated:?}: the class token's features are not used")));
        }
        if !clip && key.starts_with("vision") && stated == patches {
            return Err(llava.unsupported(key, &format!("is {stated:?}, which leaves out the first patch of a SigLIP")));
        }
    }
    if let Some(act) = llava.str("projector_hidden_act").filter(|&act| act != "gelu") {
        return Err(llava.unsupported("projector_hidden_act", &format!("is {act:?}; gelu is supported")));
    }
    let kind = llava.str("mm_projector_type").unwrap_or("linear");
    if !["linear", "mlp2x_gelu"].contains(&kind) {
        return Err(
            llava.unsupported("mm_projector_type", &format!("is {kind:?}; linear and mlp2x_gelu are converted"))
        );
    }
    Ok(())
}

/// Which hidden states make the features: `-2` is the last but one.
fn feature_layers(llava: &Settings, blocks: usize) -> Result<Vec<usize>, Error> {
    let (key, stated) = match (llava.get("vision_feature_layer"), llava.get("mm_vision_select_layer")) {
        (Some(stated), _) => ("vision_feature_layer", stated.clone()),
        (None, Some(stated)) => ("mm_vision_select_layer", stated.clone()),
        (None, None) => ("vision_feature_layer", Json::from(-2)),
    };
    let all = stated.as_array().cloned().unwrap_or_else(|| vec![stated.clone()]);
    let states = blocks as i64 + 1;
    let index = |layer: &Json| {
        let layer = layer.as_i64()?;
        let index = if layer < 0 { layer.checked_add(states)? } else { layer };
        usize::try_from(index).ok().filter(|&i| i <= blocks)
    };
    let layers: Option<Vec<usize>> = all.iter().map(index).collect();
    // Hidden states are joined in the file's order, and a reader takes them as they come.
    match layers.filter(|l| !l.is_empty() && l.is_sorted_by(|a, b| a < b)) {
        Some(layers) => Ok(layers),
        None => Err(llava.wrong(key, &format!("is {stated}, expected rising layers of a tower of {blocks} blocks"))),
    }
}

/// LLaVA-1.6's resolutions as (width, height), flat. transformers lists (height, width), and the original (width, height).
fn pinpoints(llava: &Settings) -> Result<Vec<i32>, Error> {
    let of_transformers = llava.str("model_type") == Some("llava_next");
    let ratio = llava.str("image_aspect_ratio").unwrap_or_default();
    if !of_transformers && ratio != "anyres" {
        return match ratio.starts_with("anyres") {
            true => {
                Err(llava
                    .unsupported("image_aspect_ratio", &format!("is {ratio:?}; pad, square and anyres are supported")))
            }
            false => Ok(Vec::new()),
        };
    }
    if let Some(merge) = llava.str("mm_patch_merge_type").filter(|&m| m != "spatial_unpad") {
        return Err(
            llava.unsupported("mm_patch_merge_type", &format!("is {merge:?}; spatial_unpad is supported with anyres"))
        );
    }
    let key = "image_grid_pinpoints";
    let wrong = || llava.wrong(key, "is no list of pairs of sizes");
    let all = match llava.get(key) {
        Some(all) => all.as_array().ok_or_else(wrong)?.clone(),
        // transformers' own default.
        None => serde_json::from_str("[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]")
            .map_err(|_| wrong())?,
    };
    let mut out = Vec::new();
    for pair in &all {
        let side = |i: usize| pair.get(i).and_then(Json::as_u64).and_then(|n| i32::try_from(n).ok()).filter(|&n| n > 0);
        let (Some(a), Some(b)) = (side(0), side(1)) else { return Err(wrong()) };
        out.extend(if of_transformers { [b, a] } else { [a, b] });
    }
    if out.is_empty() { Err(wrong()) } else { Ok(out) }
}
