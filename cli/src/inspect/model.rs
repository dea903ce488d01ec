//! What the engine makes of the files: tower, template, image tokens, memory.

use llava::gguf::File;
use llava::image::Fit;
use llava::prompt::{Message, Piece};
use llava::{Model, Vision, VisionConfig};
use serde::Serialize;

/// Sizes of pictures, width and height, to show the image tokens of: square, photos lying and standing, a wide screen,
/// a panorama.
const SIZES: [(u32, u32); 5] = [(336, 336), (640, 480), (480, 640), (1920, 1080), (1600, 400)];
const QUESTION: &str = "Describe the image.";

/// A model that runs, or a vision tower that would.
#[derive(Serialize)]
pub struct Runs {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision: Option<Tower>,
    /// Empty if the model takes no images.
    pub image_tokens: Vec<ImageTokens>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    pub memory: Memory,
}

/// The vision tower and the projector.
#[derive(Serialize)]
pub struct Tower {
    pub kind: &'static str,
    pub image_size: usize,
    pub patch_size: usize,
    pub patches: usize,
    pub width: usize,
    pub blocks: usize,
    pub heads: usize,
    pub feature_layers: Vec<usize>,
    pub feature_rule: &'static str,
    pub projector: &'static str,
    /// How images become squares.
    pub fit: String,
}

#[derive(Serialize)]
pub struct ImageTokens {
    pub width: u32,
    pub height: u32,
    pub tokens: usize,
}

#[derive(Serialize)]
pub struct Template {
    pub name: String,
    /// Why it was chosen.
    pub reason: String,
    /// A question about an image as the model sees it, or why that can't be written.
    pub sample: String,
}

/// Bytes.
#[derive(Serialize)]
pub struct Memory {
    /// Of the files' tensors: mapped, so the system may drop and read them again.
    pub weights: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_cache: Option<KvCache>,
}

/// Bytes of the KV cache in half precision.
#[derive(Serialize)]
pub struct KvCache {
    pub context: usize,
    pub bytes: u64,
    pub bytes_per_1024: u64,
}

impl Runs {
    /// A vision tower alone.
    pub fn vision(vision: &Vision, file: &File) -> Self {
        Self {
            vision: Some(Tower::new(&vision.config)),
            image_tokens: image_tokens(|size| Some(vision.tokens(size))),
            template: None,
            memory: Memory { weights: bytes(std::slice::from_ref(file)), kv_cache: None },
        }
    }

    /// A model, loaded from `files`.
    pub fn model(model: &Model, files: &[File]) -> Self {
        let context = model.context();
        let kv_cache = KvCache { context, bytes: model.kv_bytes(context), bytes_per_1024: model.kv_bytes(1024) };
        Self {
            vision: model.vision_config().map(Tower::new),
            image_tokens: image_tokens(|(w, h)| model.image_tokens(w, h).ok()),
            template: Some(Template::new(model)),
            memory: Memory { weights: bytes(files), kv_cache: Some(kv_cache) },
        }
    }
}

impl Tower {
    fn new(config: &VisionConfig) -> Self {
        Self {
            kind: if config.class_token { "CLIP" } else { "SigLIP" },
            image_size: config.image_size,
            patch_size: config.patch_size,
            patches: config.patches(),
            width: config.width,
            blocks: config.n_blocks,
            heads: config.n_head,
            feature_layers: config.feature_layers.clone(),
            feature_rule: config.feature_rule,
            projector: config.projector.name(),
            fit: match &config.fit {
                Fit::Pad => "padded to a square".to_owned(),
                Fit::Crop => "cropped to a square".to_owned(),
                Fit::Squash => "squeezed into a square".to_owned(),
                Fit::AnyRes { pinpoints } => {
                    let sizes: Vec<_> = pinpoints.iter().map(|(w, h)| format!("{w}×{h}")).collect();
                    format!("tiles, up to {}", sizes.join(", "))
                }
            },
        }
    }
}

impl Template {
    fn new(model: &Model) -> Self {
        let (template, reason) = model.template();
        let images = usize::from(model.vision_config().is_some());
        let sample = match template.render(&[Message::user(images, QUESTION)], true) {
            Ok(pieces) => pieces.iter().map(text_of).collect(),
            Err(e) => e.to_string(),
        };
        Self { name: template.name().to_owned(), reason: reason.to_owned(), sample }
    }
}

fn text_of(piece: &Piece) -> &str {
    match piece {
        Piece::Text(text) => text,
        Piece::Image => "<image>",
    }
}

fn image_tokens(of: impl Fn((u32, u32)) -> Option<usize>) -> Vec<ImageTokens> {
    SIZES
        .iter()
        .filter_map(|&(width, height)| Some(ImageTokens { width, height, tokens: of((width, height))? }))
        .collect()
}

fn bytes(files: &[File]) -> u64 {
    files.iter().flat_map(File::tensors).map(|t| t.bytes() as u64).sum()
}
