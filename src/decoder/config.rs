//! Geometry of a decoder, from the file's metadata.

use super::rope::{Pairing, Scaling};
use crate::error::{Error, Result};
use crate::gguf::{File, Value};

/// Limits far above every real model, far below what would exhaust memory.
const MAX_WIDTH: u32 = 1 << 18;
const MAX_LAYERS: u32 = 1 << 12;

/// What the metadata says about a decoder.
#[derive(Clone, Debug)]
pub struct Config {
    /// `general.architecture`.
    pub arch: Arch,
    /// Positions the model was trained with.
    pub context_length: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Transformer blocks.
    pub n_layer: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads.
    pub n_kv_head: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// RMSNorm's epsilon.
    pub eps: f32,
    /// Dimensions of each head that are rotated.
    pub rope_dim: usize,
    /// RoPE's theta.
    pub rope_base: f32,
    /// How positions beyond the training length are squeezed.
    pub rope_scaling: Scaling,
}

/// The supported values of `general.architecture`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// LLaMA, Vicuna, Mistral, SmolLM, TinyLlama, Yi, …
    Llama,
    /// Qwen 1.5, 2 and 2.5: biases on q, k, v.
    Qwen2,
    /// Phi-3: fused qkv and gate/up.
    Phi3,
}

impl Arch {
    const ALL: [(&'static str, Self); 3] = [("llama", Self::Llama), ("qwen2", Self::Qwen2), ("phi3", Self::Phi3)];

    /// The name in `general.architecture`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, a)| *a == self).map_or("", |(n, _)| n)
    }

    /// Which values of a head RoPE turns together. llama's converter permutes rows so that pairs are neighbours.
    pub fn pairing(self) -> Pairing {
        match self {
            Self::Llama => Pairing::Adjacent,
            Self::Qwen2 | Self::Phi3 => Pairing::Halves,
        }
    }
}

impl Config {
    /// Reads and checks the metadata.
    pub fn from_gguf(file: &File) -> Result<Self> {
        const ARCH: &str = "general.architecture";
        let name = file.required(ARCH, file.str(ARCH)?)?;
        let Some(&(prefix, arch)) = Arch::ALL.iter().find(|(n, _)| *n == name) else {
            let known: Vec<_> = Arch::ALL.iter().map(|(n, _)| *n).collect();
            let hint = if name == "clip" { " (this is an mmproj: give it as --mmproj)" } else { "" };
            let reason = format!("is {name:?}{hint}; supported language models are {}", known.join(", "));
            return Err(Error::unsupported(file.name(), ARCH, reason));
        };
        let key = |k: &str| format!("{prefix}.{k}");
        let size = |k: &str, max: u32| -> Result<Option<usize>> {
            let key = key(k);
            match uniform(file, &key)? {
                Some(n) if n == 0 || n > max => {
                    Err(Error::invalid(file.name(), key, format!("is {n}, expected 1 to {max}")))
                }
                n => Ok(n.map(|n| n as usize)),
            }
        };
        let required = |k: &str, max| size(k, max).and_then(|v| file.required(&key(k), v));

        for (k, what) in [("expert_count", "a mixture of experts"), ("ssm.state_size", "a state-space model")] {
            if file.u32(&key(k))?.is_some_and(|n| n > 0) {
                return Err(Error::unsupported(file.name(), key(k), format!("{what}; dense models are supported")));
            }
        }
        let d_model = required("embedding_length", MAX_WIDTH)?;
        let n_head = required("attention.head_count", MAX_WIDTH)?;
        let n_kv_head = size("attention.head_count_kv", MAX_WIDTH)?.unwrap_or(n_head);
        if n_head % n_kv_head != 0 {
            let reason = format!("is {n_kv_head}, which does not divide the {n_head} query heads");
            return Err(Error::invalid(file.name(), key("attention.head_count_kv"), reason));
        }
        let head_dim = match size("attention.key_length", MAX_WIDTH)? {
            Some(n) => n,
            None if d_model % n_head == 0 => d_model / n_head,
            None => {
                let reason = format!("is {n_head}, which does not divide the width {d_model}");
                return Err(Error::invalid(file.name(), key("attention.head_count"), reason));
            }
        };
        if let Some(v) = size("attention.value_length", MAX_WIDTH)?.filter(|&v| v != head_dim) {
            let reason = format!("is {v}; heads whose values ({v}) and keys ({head_dim}) differ are not supported");
            return Err(Error::unsupported(file.name(), key("attention.value_length"), reason));
        }
        let rope_dim = size("rope.dimension_count", MAX_WIDTH)?.unwrap_or(head_dim);
        if rope_dim > head_dim || rope_dim % 2 != 0 {
            let reason = format!("is {rope_dim}, expected an even number up to the head's width, {head_dim}");
            return Err(Error::invalid(file.name(), key("rope.dimension_count"), reason));
        }
        let context_length = required("context_length", u32::MAX)?;
        let eps_key = key("attention.layer_norm_rms_epsilon");
        let eps = file.required(&eps_key, file.f32(&eps_key)?)?;
        let rope_base = file.f32(&key("rope.freq_base"))?.unwrap_or(10000.0);
        if eps < 0.0 || rope_base <= 0.0 {
            let (field, v) = if eps < 0.0 { (eps_key, eps) } else { (key("rope.freq_base"), rope_base) };
            return Err(Error::invalid(file.name(), field, format!("is {v}")));
        }
        Ok(Self {
            arch,
            context_length,
            d_model,
            n_layer: required("block_count", MAX_LAYERS)?,
            n_head,
            n_kv_head,
            head_dim,
            d_ff: required("feed_forward_length", 1 << 20)?,
            eps,
            rope_dim,
            rope_base,
            rope_scaling: Scaling::from_gguf(file, prefix, context_length)?,
        })
    }

    /// Positions of a conversation unless the caller says otherwise: what the model was trained with. LongRoPE's
    /// long divisors cost quality on short texts, so its models stay with the short ones.
    pub fn default_context(&self) -> usize {
        match self.rope_scaling {
            Scaling::LongRope { original, .. } => original.min(self.context_length),
            _ => self.context_length,
        }
    }

    /// Width of all query heads.
    pub fn q_width(&self) -> usize {
        self.n_head * self.head_dim
    }

    /// Width of all key heads.
    pub fn kv_width(&self) -> usize {
        self.n_kv_head * self.head_dim
    }
}

/// An integer, or an array of one value for every layer: newer files may have either.
fn uniform(file: &File, key: &str) -> Result<Option<u32>> {
    if !matches!(file.get(key), Some(Value::Array(_))) {
        return file.u32(key);
    }
    let all = file.i64s(key)?.unwrap_or_default();
    match all.first().and_then(|&n| u32::try_from(n).ok()) {
        Some(n) if all.iter().all(|&m| m == i64::from(n)) => Ok(Some(n)),
        _ => Err(Error::unsupported(file.name(), key, "differs between layers; uniform models are supported")),
    }
}
