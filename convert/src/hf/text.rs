//! The language model: its geometry under llama.cpp's keys, its tensors under llama.cpp's names.

use super::checkpoint::Tensor;
use super::plan::{Inventory, Part, Planned};
use super::settings::Settings;
use crate::quantize::Model;
use llava::Error;
use llava::gguf::{Value, Writer};
use std::f64::consts::PI;

/// What transformers takes where a configuration does not say: of each family its name, the architecture in GGUF, the width,
/// the feed-forward width, layers, heads, key and value heads (0 for as many), epsilon, and the context.
const FAMILIES: [(&str, &str, [usize; 5], f64, usize); 4] = [
    ("llama", "llama", [4096, 11008, 32, 32, 0], 1e-6, 2048),
    ("mistral", "llama", [4096, 14336, 32, 32, 8], 1e-6, 131_072),
    ("qwen2", "qwen2", [4096, 22016, 32, 32, 32], 1e-6, 32768),
    ("phi3", "phi3", [3072, 8192, 32, 32, 0], 1e-5, 4096),
];

/// A decoder's geometry.
pub struct Text {
    /// `general.architecture`.
    pub arch: &'static str,
    settings: Settings,
    width: usize,
    d_ff: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    context: usize,
    eps: f64,
    tied: bool,
}

/// The family's name in transformers, of a language model's own configuration or an original LLaVA's.
fn family(settings: &Settings) -> Option<&'static str> {
    let stated = settings.str("model_type").unwrap_or_default();
    // `llava_llama`, `llava_mistral`, `llava_qwen`, `llava_phi`; LLaVA-1.5's own says `llava`.
    let stated = stated.strip_prefix("llava_").or(stated.strip_prefix("llava-")).unwrap_or(stated);
    match stated {
        "llama" | "llava" | "vicuna" => Some("llama"),
        "mistral" => Some("mistral"),
        "qwen" | "qwen2" => Some("qwen2"),
        "phi3" | "phi-3" | "phi" => Some("phi3"),
        _ => None,
    }
}

impl Text {
    /// Reads the geometry.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for families that the engine does not run; [`Error::InvalidModel`] for values that make no sense.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let stated = settings.str("model_type").unwrap_or("missing").to_owned();
        let known = family(&settings).and_then(|name| FAMILIES.into_iter().find(|f| f.0 == name));
        let Some((_, arch, [width, d_ff, layers, heads, kv_heads], eps, context)) = known else {
            let reason = format!("is {stated:?}; language models of LLaMA, Mistral, Qwen2 and Phi-3 are converted");
            return Err(settings.unsupported("model_type", &reason));
        };
        if let Some(act) = settings.str("hidden_act").filter(|&act| act != "silu" && act != "swish") {
            return Err(settings.unsupported("hidden_act", &format!("is {act:?}; silu is supported")));
        }
        if settings.get("num_local_experts").or(settings.get("quantization_config")).is_some() {
            let reason =
                "is a mixture of experts, or quantised already; plain F16, BF16 and F32 checkpoints are converted";
            return Err(settings.unsupported("model_type", reason));
        }
        let size = |key: &str, default: usize| Ok::<_, Error>(settings.size(key)?.unwrap_or(default));
        let width = size("hidden_size", width)?;
        let heads = size("num_attention_heads", heads)?;
        let kv_heads = size("num_key_value_heads", if kv_heads == 0 { heads } else { kv_heads })?;
        let head_dim = match settings.size("head_dim")? {
            Some(n) => n,
            None if width.is_multiple_of(heads) => width / heads,
            None => {
                return Err(
                    settings.wrong("num_attention_heads", &format!("is {heads}, which does not divide {width}"))
                );
            }
        };
        if !heads.is_multiple_of(kv_heads) || !head_dim.is_multiple_of(2) {
            let reason = format!("is {kv_heads}, for {heads} heads of {head_dim}");
            return Err(settings.wrong("num_key_value_heads", &reason));
        }
        Ok(Self {
            arch,
            width,
            d_ff: size("intermediate_size", d_ff)?,
            layers: size("num_hidden_layers", layers)?,
            heads,
            kv_heads,
            head_dim,
            context: size("max_position_embeddings", context)?,
            eps: settings.number("rms_norm_eps")?.unwrap_or(eps),
            tied: settings.bool("tie_word_embeddings").unwrap_or(false),
            settings,
        })
    }

    /// Width of its embeddings.
    pub fn width(&self) -> usize {
        self.width
    }

    /// What mixtures go by.
    pub fn model(&self) -> Model {
        Model::new(self.arch, self.layers, self.heads, self.kv_heads, self.tied, false)
    }

    /// Writes the keys.
    ///
    /// # Errors
    /// [`Error::InvalidModel`], [`Error::Unsupported`] for RoPE scaling that is damaged or not supported.
    pub fn keys(&self, writer: &mut Writer<'_>, n_vocab: usize) -> Result<(), Error> {
        let mut set = |key: &str, value: Value| {
            writer.set(format!("{}.{key}", self.arch), value);
        };
        let number = |n: usize| Value::U32(u32::try_from(n).unwrap_or(u32::MAX));
        set("vocab_size", number(n_vocab));
        set("context_length", number(self.context));
        set("embedding_length", number(self.width));
        set("block_count", number(self.layers));
        set("feed_forward_length", number(self.d_ff));
        set("attention.head_count", number(self.heads));
        set("attention.head_count_kv", number(self.kv_heads));
        set("attention.layer_norm_rms_epsilon", Value::F32(self.eps as f32));
        if self.head_dim * self.heads != self.width {
            set("attention.key_length", number(self.head_dim));
            set("attention.value_length", number(self.head_dim));
        }
        let (base, rope) = (self.rope_base()?, self.rope()?);
        set("rope.freq_base", Value::F32(base as f32));
        set("rope.dimension_count", number(self.rope_dim()?));
        if self.arch == "phi3" {
            // Without the key llama.cpp takes a window of its own for Phi-3; 0 is none.
            set("attention.sliding_window", number(self.settings.size("sliding_window")?.unwrap_or(0)));
        }
        match rope {
            Rope::Plain | Rope::Llama3 { .. } => {}
            Rope::Linear { factor } => {
                set("rope.scaling.type", Value::String("linear".into()));
                set("rope.scaling.factor", Value::F32(factor as f32));
            }
            Rope::Yarn { factor, original, attention, fast, slow } => {
                set("rope.scaling.type", Value::String("yarn".into()));
                set("rope.scaling.factor", Value::F32(factor as f32));
                set("rope.scaling.original_context_length", number(original));
                for (key, value) in [("attn_factor", attention), ("yarn_beta_fast", fast), ("yarn_beta_slow", slow)] {
                    if let Some(value) = value {
                        set(&format!("rope.scaling.{key}"), Value::F32(value as f32));
                    }
                }
            }
            Rope::Long { original, attention, .. } => {
                set("rope.scaling.original_context_length", number(original));
                set("rope.scaling.attn_factor", Value::F32(attention as f32));
            }
        }
        Ok(())
    }

    /// Takes the tensors, and says under which names they go; the first is the embedding.
    ///
    /// # Errors
    /// [`Error::InvalidModel`] for one that is missing or has another shape.
    pub fn tensors(&self, from: &mut Inventory) -> Result<Vec<Planned>, Error> {
        let (d, q, kv) = (self.width, self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let n_vocab = match from.get(Part::Text, "embed_tokens.weight").map(|t| &t.shape[..]) {
            Some(&[n, width]) if width == d && n > 0 => n,
            Some(shape) => {
                let reason = format!("has the shape {shape:?}, and the configuration asks for {d} columns");
                return Err(super::invalid(&from.folder, "embed_tokens.weight", &reason));
            }
            None => 1,
        };
        let mut out = Vec::new();
        let mut take = |name: String, to: &str, shape: &[usize], heads: usize| -> Result<(), Error> {
            let tensor = from.take(Part::Text, &format!("{name}.weight"), shape)?;
            out.push(Planned::interleaved(format!("{to}.weight"), tensor, heads));
            if let Some(bias) = from.take_if(Part::Text, &format!("{name}.bias"), &shape[..1])? {
                out.push(Planned::interleaved(format!("{to}.bias"), bias, heads));
            }
            Ok(())
        };
        take("embed_tokens".into(), "token_embd", &[n_vocab, d], 0)?;
        let (q_heads, kv_heads) = if self.arch == "llama" { (self.heads, self.kv_heads) } else { (0, 0) };
        for i in 0..self.layers {
            let (name, to) = (|part: &str| format!("layers.{i}.{part}"), |part: &str| format!("blk.{i}.{part}"));
            take(name("input_layernorm"), &to("attn_norm"), &[d], 0)?;
            if self.arch == "phi3" {
                take(name("self_attn.qkv_proj"), &to("attn_qkv"), &[q + 2 * kv, d], 0)?;
            } else {
                take(name("self_attn.q_proj"), &to("attn_q"), &[q, d], q_heads)?;
                take(name("self_attn.k_proj"), &to("attn_k"), &[kv, d], kv_heads)?;
                take(name("self_attn.v_proj"), &to("attn_v"), &[kv, d], 0)?;
            }
            take(name("self_attn.o_proj"), &to("attn_output"), &[d, q], 0)?;
            take(name("post_attention_layernorm"), &to("ffn_norm"), &[d], 0)?;
            if self.arch == "phi3" {
                take(name("mlp.gate_up_proj"), &to("ffn_up"), &[2 * self.d_ff, d], 0)?;
            } else {
                take(name("mlp.gate_proj"), &to("ffn_gate"), &[self.d_ff, d], 0)?;
                take(name("mlp.up_proj"), &to("ffn_up"), &[self.d_ff, d], 0)?;
            }
            take(name("mlp.down_proj"), &to("ffn_down"), &[d, self.d_ff], 0)?;
        }
        take("norm".into(), "output_norm", &[d], 0)?;
        if self.tied {
            from.ignore(Part::Text, |name| name == "lm_head.weight", "is the embedding, by tie_word_embeddings");
        } else {
            take("lm_head".into(), "output", &[n_vocab, d], 0)?;
        }
        out.extend(self.rope_tensors()?);
        Ok(out)
    }

    fn rope_dim(&self) -> Result<usize, Error> {
        let part = self.settings.number("partial_rotary_factor")?.unwrap_or(1.0);
        let dim = (self.head_dim as f64 * part) as usize;
        match dim.is_multiple_of(2) && (1..=self.head_dim).contains(&dim) {
            true => Ok(dim),
            false => Err(self.settings.wrong("partial_rotary_factor", &format!("makes {dim} of {}", self.head_dim))),
        }
    }

    fn rope_base(&self) -> Result<f64, Error> {
        // Newer configurations have it within `rope_parameters`.
        let inner = self.settings.sub("rope_parameters").unwrap_or_default().number("rope_theta")?;
        Ok(self.settings.number("rope_theta")?.or(inner).unwrap_or(10000.0))
    }

    fn rope(&self) -> Result<Rope, Error> {
        let Some(scaling) = self.settings.sub("rope_scaling").or(self.settings.sub("rope_parameters")) else {
            return Ok(Rope::Plain);
        };
        let original = match scaling.size("original_max_position_embeddings")? {
            Some(n) => n,
            None => self.settings.size("original_max_position_embeddings")?.unwrap_or(self.context),
        };
        let required = |key: &str| scaling.number(key)?.ok_or_else(|| scaling.wrong(key, "is missing in rope_scaling"));
        Ok(match scaling.str("rope_type").or(scaling.str("type")).unwrap_or("default") {
            "default" | "none" => Rope::Plain,
            "linear" => Rope::Linear { factor: required("factor")? },
            "yarn" => {
                let factor = required("factor")?;
                // The file's is a factor besides YaRN's own.
                let own = 0.1 * factor.ln() + 1.0;
                let attention = scaling.number("attention_factor")?.map(|stated| stated / own);
                let (fast, slow) = (scaling.number("beta_fast")?, scaling.number("beta_slow")?);
                Rope::Yarn { factor, original, attention, fast, slow }
            }
            "llama3" => Rope::Llama3 {
                factor: required("factor")?,
                low: required("low_freq_factor")?,
                high: required("high_freq_factor")?,
                original,
            },
            "longrope" | "su" => {
                let divisors = |key: &str| {
                    let all = scaling.numbers(key)?.ok_or_else(|| scaling.wrong(key, "is missing in rope_scaling"))?;
                    match all.len() == self.rope_dim()? / 2 && all.iter().all(|x| *x > 0.0) {
                        true => Ok(all),
                        false => {
                            Err(scaling.wrong(key, &format!("has {} numbers, or one that is not positive", all.len())))
                        }
                    }
                };
                let factor = self.context as f64 / original as f64;
                let own = if factor > 1.0 { (1.0 + factor.ln() / (original as f64).ln()).sqrt() } else { 1.0 };
                Rope::Long {
                    original,
                    attention: scaling.number("attention_factor")?.unwrap_or(own),
                    short: divisors("short_factor")?,
                    long: divisors("long_factor")?,
                }
            }
            other => {
                let reason = format!("is {other:?}; none, linear, yarn, llama3 and longrope are supported");
                return Err(scaling.unsupported("rope_scaling", &reason));
            }
        })
    }

    fn rope_tensors(&self) -> Result<Vec<Planned>, Error> {
        let tensor =
            |name: &str, values: Vec<f32>| Planned::new(name, Tensor::from_values(name, vec![values.len()], values));
        Ok(match self.rope()? {
            Rope::Llama3 { factor, low, high, original } => {
                let (dim, base) = (self.rope_dim()?, self.rope_base()?);
                let divisor = |pair: usize| {
                    let wavelength = 2.0 * PI * base.powf((2 * pair) as f64 / dim as f64);
                    let original = original as f64;
                    if wavelength < original / high {
                        1.0
                    } else if wavelength > original / low {
                        factor
                    } else {
                        let smooth = (original / wavelength - low) / (high - low);
                        1.0 / ((1.0 - smooth) / factor + smooth)
                    }
                };
                vec![tensor("rope_freqs.weight", (0..dim / 2).map(|pair| divisor(pair) as f32).collect())]
            }
            Rope::Long { short, long, .. } => {
                vec![tensor("rope_factors_long.weight", long), tensor("rope_factors_short.weight", short)]
            }
            _ => Vec::new(),
        })
    }
}

/// RoPE scaling, by transformers' names (`modeling_rope_utils.py`).
enum Rope {
    Plain,
    Linear { factor: f64 },
    Yarn { factor: f64, original: usize, attention: Option<f64>, fast: Option<f64>, slow: Option<f64> },
    Llama3 { factor: f64, low: f64, high: f64, original: usize },
    Long { original: usize, attention: f64, short: Vec<f32>, long: Vec<f32> },
}
