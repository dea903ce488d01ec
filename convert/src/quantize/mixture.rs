//! Which tensor gets which type: llama.cpp's mixtures (`llama-quant.cpp`).

use llava::Error;
use llava::gguf::File;
use llava::quant::BlockType;
use std::str::FromStr;

/// A named mixture of types, as llama.cpp's `llama-quantize` makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mixture(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)]
enum Kind {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q2_K_S,
    Q3_K_S,
    Q3_K_M,
    Q3_K_L,
    Q4_K_S,
    Q4_K_M,
    Q5_K_S,
    Q5_K_M,
    Q6_K,
    IQ4_NL,
}

/// (name, mixture, `general.file_type`, the type of most tensors).
const ALL: [(&str, Kind, u32, BlockType); 19] = [
    ("F32", Kind::F32, 0, BlockType::F32),
    ("F16", Kind::F16, 1, BlockType::F16),
    ("BF16", Kind::BF16, 32, BlockType::BF16),
    ("Q8_0", Kind::Q8_0, 7, BlockType::Q8_0),
    ("Q6_K", Kind::Q6_K, 18, BlockType::Q6_K),
    ("Q5_K_M", Kind::Q5_K_M, 17, BlockType::Q5_K),
    ("Q5_K_S", Kind::Q5_K_S, 16, BlockType::Q5_K),
    ("Q5_1", Kind::Q5_1, 9, BlockType::Q5_1),
    ("Q5_0", Kind::Q5_0, 8, BlockType::Q5_0),
    ("Q4_K_M", Kind::Q4_K_M, 15, BlockType::Q4_K),
    ("Q4_K_S", Kind::Q4_K_S, 14, BlockType::Q4_K),
    ("IQ4_NL", Kind::IQ4_NL, 25, BlockType::IQ4_NL),
    ("Q4_1", Kind::Q4_1, 3, BlockType::Q4_1),
    ("Q4_0", Kind::Q4_0, 2, BlockType::Q4_0),
    ("Q3_K_L", Kind::Q3_K_L, 13, BlockType::Q3_K),
    ("Q3_K_M", Kind::Q3_K_M, 12, BlockType::Q3_K),
    ("Q3_K_S", Kind::Q3_K_S, 11, BlockType::Q3_K),
    ("Q2_K", Kind::Q2_K, 10, BlockType::Q2_K),
    ("Q2_K_S", Kind::Q2_K_S, 21, BlockType::Q2_K),
];

/// Other names of mixtures, which llama.cpp has too.
const ALIASES: [(&str, &str); 3] = [("Q3_K", "Q3_K_M"), ("Q4_K", "Q4_K_M"), ("Q5_K", "Q5_K_M")];

impl Mixture {
    /// All in half precision.
    pub const F16: Self = Self(Kind::F16);

    /// The names, from the largest to the smallest file.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ALL.iter().map(|row| row.0)
    }

    /// The name.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// llama.cpp's number of it, `general.file_type`.
    pub fn file_type(self) -> u32 {
        self.row().2
    }

    /// The type of most tensors.
    pub fn block_type(self) -> BlockType {
        self.row().3
    }

    fn row(self) -> (&'static str, Kind, u32, BlockType) {
        ALL.into_iter().find(|row| row.1 == self.0).unwrap_or(ALL[0])
    }
}

impl FromStr for Mixture {
    type Err = Error;

    /// The mixture of that name, in any case.
    fn from_str(s: &str) -> Result<Self, Error> {
        let upper = s.to_uppercase();
        let name = ALIASES.iter().find(|(alias, _)| *alias == upper).map_or(&*upper, |(_, name)| name);
        let found = ALL.iter().find(|row| row.0 == name).map(|row| Self(row.1));
        found.ok_or_else(|| Error::InvalidArgument {
            name: "type",
            reason: format!("{s:?}; there are {}", Self::names().collect::<Vec<_>>().join(", ")),
        })
    }
}

/// What the choice of types depends on, of a whole file.
#[derive(Clone, Debug)]
pub struct Model {
    layers: usize,
    /// Attention heads that share a key and a value.
    heads_per_kv: usize,
    /// LLaMA-2-70B and its like.
    is_70b: bool,
    tied: bool,
    importance: bool,
}

impl Model {
    /// Of `file`, which has an importance matrix or not.
    ///
    /// # Errors
    /// [`Error::InvalidModel`] for keys of a wrong type.
    pub fn of(file: &File, importance: bool) -> Result<Self, Error> {
        let arch = file.str("general.architecture")?.unwrap_or_default();
        let key = |name: &str| match arch {
            "clip" => format!("clip.vision.{name}"),
            _ => format!("{arch}.{name}"),
        };
        let number = |name: &str| Ok::<_, Error>(file.u32(&key(name))?.unwrap_or(0) as usize);
        let (layers, heads) = (number("block_count")?, number("attention.head_count")?);
        let kv_heads = number("attention.head_count_kv")?;
        Ok(Self::new(arch, layers, heads, kv_heads, file.tensor("output.weight").is_none(), importance))
    }

    /// Of the architecture `arch`; `tied` says that the embedding serves as output.
    pub(crate) fn new(arch: &str, layers: usize, heads: usize, kv_heads: usize, tied: bool, importance: bool) -> Self {
        let is_70b = arch == "llama" && layers == 80 && kv_heads != heads && kv_heads != 0;
        Self { layers, heads_per_kv: heads.checked_div(kv_heads).unwrap_or(1), is_70b, tied, importance }
    }
}

/// Whether a tensor is ever quantised: matrices that are multiplied with, except those that are small and matter.
pub fn is_quantisable(name: &str, dims: &[usize]) -> bool {
    // A dimension of 1 is none, as ggml counts them.
    let matrix = dims.iter().skip(1).any(|&d| d > 1);
    let kept = ["_norm.weight", ".position_embd", ".patch_embd"];
    matrix && name.ends_with("weight") && !kept.iter().any(|part| name.contains(part))
}

/// The type that `mixture` gives to a tensor that [`is_quantisable`].
pub fn type_of(mixture: Mixture, model: &Model, name: &str, columns: usize) -> BlockType {
    let plain = mixture.block_type();
    if plain.is_float() {
        return plain;
    }
    fallback(chosen(mixture, model, name, columns), columns)
}

fn chosen(mixture: Mixture, model: &Model, name: &str, columns: usize) -> BlockType {
    use BlockType as T;
    let (plain, kind, n) = (mixture.block_type(), mixture.0, model.layers);
    if name == "output.weight" || (model.tied && name == "token_embd.weight") {
        return match plain {
            T::Q8_0 => T::Q8_0,
            _ if !columns.is_multiple_of(plain.block_len()) => T::Q8_0,
            _ => T::Q6_K,
        };
    }
    let layer = layer_of(name);
    let more_bits = layer < n / 8 || layer >= 7 * n / 8 || (layer.wrapping_sub(n / 8)) % 3 == 2;
    if ["attn_v.weight", "attn_qkv.weight"].iter().any(|part| name.contains(part)) {
        let shared = model.heads_per_kv >= 4;
        let t = match kind {
            Kind::Q2_K => {
                if shared {
                    T::Q4_K
                } else {
                    T::Q3_K
                }
            }
            Kind::Q2_K_S if shared => T::Q4_K,
            Kind::Q3_K_M => {
                if layer < 2 {
                    T::Q5_K
                } else {
                    T::Q4_K
                }
            }
            Kind::Q3_K_L => T::Q5_K,
            Kind::IQ4_NL if shared => T::Q5_K,
            Kind::Q4_K_M | Kind::Q5_K_M if more_bits => T::Q6_K,
            Kind::Q4_K_S if layer < 4 => T::Q5_K,
            _ => plain,
        };
        // Few values, and a large model: there they cost nearly nothing.
        return if model.is_70b && matches!(t, T::Q3_K | T::Q4_K) { T::Q5_K } else { t };
    }
    if name.contains("ffn_down") {
        let first = layer < n / 8;
        return match kind {
            Kind::Q2_K => T::Q3_K,
            Kind::Q2_K_S if first => T::Q4_K,
            Kind::Q3_K_M => {
                if layer < n / 16 {
                    T::Q5_K
                } else {
                    T::Q4_K
                }
            }
            Kind::Q3_K_L => T::Q5_K,
            Kind::Q4_K_M | Kind::Q5_K_M if more_bits => T::Q6_K,
            Kind::Q4_K_S if first => T::Q5_K,
            Kind::IQ4_NL if first && !model.importance => T::Q5_K,
            Kind::Q4_0 if first && model.importance => T::Q4_1,
            Kind::Q5_0 if first && model.importance => T::Q5_1,
            _ => plain,
        };
    }
    if name.contains("attn_output.weight") {
        return match kind {
            Kind::Q2_K => T::Q3_K,
            Kind::Q3_K_M => T::Q4_K,
            Kind::Q3_K_L => T::Q5_K,
            _ => plain,
        };
    }
    plain
}

/// The type for rows of `columns` values, where they are no whole blocks of `kind`.
pub fn fallback(kind: BlockType, columns: usize) -> BlockType {
    let fits = |t: BlockType| columns.is_multiple_of(t.block_len());
    if fits(kind) {
        return kind;
    }
    let smaller = match kind {
        BlockType::Q2_K | BlockType::Q3_K => BlockType::Q4_0,
        BlockType::Q4_K => BlockType::Q5_0,
        BlockType::Q5_K => BlockType::Q5_1,
        BlockType::Q6_K => BlockType::Q8_0,
        other => other,
    };
    if fits(smaller) { smaller } else { BlockType::F16 }
}

/// The layer in a name like `blk.3.ffn_down.weight` or `v.blk.3.…`.
fn layer_of(name: &str) -> usize {
    let after = name.split_once("blk.").map_or("", |(_, rest)| rest);
    after.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seven_b() -> Model {
        Model { layers: 32, heads_per_kv: 1, is_70b: false, tied: false, importance: false }
    }

    fn of(mixture: &str, name: &str) -> BlockType {
        type_of(mixture.parse().unwrap(), &seven_b(), name, 4096)
    }

    #[test]
    fn q4_k_m_of_a_7b_is_what_published_files_hold() {
        let v = |i: usize| of("q4_k_m", &format!("blk.{i}.attn_v.weight"));
        let more: Vec<usize> = (0..32).filter(|&i| v(i) == BlockType::Q6_K).collect();
        assert_eq!(more, [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
        assert_eq!(of("q4_k_m", "blk.4.ffn_down.weight"), BlockType::Q4_K);
        assert_eq!(of("q4_k_m", "output.weight"), BlockType::Q6_K);
        assert_eq!(of("q4_k_m", "token_embd.weight"), BlockType::Q4_K);
        assert_eq!(of("q4_0", "output.weight"), BlockType::Q6_K);
        assert_eq!(of("q8_0", "output.weight"), BlockType::Q8_0);
        let tied = Model { tied: true, ..seven_b() };
        assert_eq!(type_of("q4_k_m".parse().unwrap(), &tied, "token_embd.weight", 576), BlockType::Q8_0);
    }

    #[test]
    fn rows_that_do_not_fit_fall_back() {
        let t = |kind, columns| fallback(kind, columns);
        assert_eq!(t(BlockType::Q4_K, 576), BlockType::Q5_0);
        assert_eq!(t(BlockType::Q6_K, 32), BlockType::Q8_0);
        assert_eq!(t(BlockType::Q2_K, 96), BlockType::Q4_0);
        assert_eq!(t(BlockType::Q4_K, 588), BlockType::F16);
        assert_eq!(t(BlockType::Q4_0, 20), BlockType::F16);
        assert_eq!(t(BlockType::Q4_K, 512), BlockType::Q4_K);
    }

    #[test]
    fn small_and_delicate_tensors_are_kept() {
        for (name, dims) in [
            ("blk.0.attn_norm.weight", &[64, 1][..]),
            ("v.patch_embd.weight", &[14, 14, 3, 64]),
            ("v.position_embd.weight", &[64, 577]),
            ("mm.0.bias", &[64]),
            ("v.class_embd", &[64]),
        ] {
            assert!(!is_quantisable(name, dims), "{name}");
        }
        assert!(is_quantisable("mm.0.weight", &[64, 64]));
        assert!("q9".parse::<Mixture>().is_err() && "Q4_K".parse::<Mixture>().unwrap().name() == "Q4_K_M");
    }
}
