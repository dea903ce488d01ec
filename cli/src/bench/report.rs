//! What was measured, as `--json` prints it.

use llava::Model;
use llava::bench::{self, Arithmetic, Machine};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// The whole of it. Rates are in 10⁹ a second, times in milliseconds.
#[derive(Serialize)]
pub struct Report {
    pub model: String,
    pub mmproj: Option<String>,
    pub threads: usize,
    pub kernels: Vec<String>,
    #[serde(flatten, serialize_with = "load_ms")]
    pub load: Spread,
    pub peak_rss_bytes: Option<u64>,
    pub encode: Option<Encode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encode_tiles: Option<Encode>,
    pub prefill: Vec<Prefill>,
    pub decode: Vec<Decode>,
    pub batch: Vec<Batch>,
    pub machine: Option<Limits>,
}

/// The tower and the projector.
#[derive(Serialize)]
pub struct Encode {
    pub tiles: usize,
    #[serde(flatten, serialize_with = "ms")]
    pub ms: Spread,
    pub gop_s: f64,
    pub limit: Limit,
}

/// A prompt up to the first token's logits.
#[derive(Serialize)]
pub struct Prefill {
    pub tokens: usize,
    #[serde(flatten, serialize_with = "tokens_per_s")]
    pub tokens_per_s: Spread,
    pub gop_s: f64,
    pub limit: Limit,
}

/// Tokens one by one, after a prompt of `after` tokens.
#[derive(Serialize)]
pub struct Decode {
    pub tokens: usize,
    pub after: usize,
    #[serde(flatten, serialize_with = "tokens_per_s")]
    pub tokens_per_s: Spread,
    /// Bytes of weights read.
    pub gb_s: f64,
}

/// The same for `n` sequences together; the rate is of all of them.
#[derive(Serialize)]
pub struct Batch {
    pub n: usize,
    pub tokens: usize,
    pub after: usize,
    #[serde(flatten, serialize_with = "tokens_per_s")]
    pub tokens_per_s: Spread,
    pub gb_s: f64,
    pub gop_s: f64,
    pub limit: Limit,
}

/// What the machine can do with the threads used.
#[derive(Serialize)]
pub struct Limits {
    pub read_gb_s: f64,
    pub int8_gop_s: f64,
    pub bf16_gf_s: Option<f64>,
    pub f32_gf_s: f64,
}

/// Which of the machine's limits bounds a rate of operations.
#[derive(Clone, Copy, Serialize)]
pub enum Limit {
    #[serde(rename = "int8_gop_s")]
    Int8,
    #[serde(rename = "bf16_gf_s")]
    Bf16,
    #[serde(rename = "f32_gf_s")]
    F32,
}

/// The middle of some measurements, and how far they lie apart.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Report {
    /// What is known once the model is loaded.
    pub fn new(model: &Model, load: Spread) -> Self {
        let (name, mmproj) = model.files();
        Self {
            model: name.to_owned(),
            mmproj: mmproj.map(ToOwned::to_owned),
            threads: model.device().1,
            kernels: bench::kernels(model),
            load,
            peak_rss_bytes: None,
            encode: None,
            encode_tiles: None,
            prefill: Vec::new(),
            decode: Vec::new(),
            batch: Vec::new(),
            machine: None,
        }
    }
}

impl From<Machine> for Limits {
    fn from(m: Machine) -> Self {
        Self { read_gb_s: m.read_gb_s, int8_gop_s: m.int8_gop_s, bf16_gf_s: m.bf16_gf_s, f32_gf_s: m.f32_gf_s }
    }
}

impl Limits {
    /// The limit and its name. Where bf16 has no instructions, f32 is all there is.
    pub fn of(&self, limit: Limit) -> (f64, &'static str) {
        match (limit, self.bf16_gf_s) {
            (Limit::Int8, _) => (self.int8_gop_s, "int8"),
            (Limit::Bf16, Some(limit)) => (limit, "bf16"),
            (Limit::Bf16, None) | (Limit::F32, _) => (self.f32_gf_s, "f32"),
        }
    }
}

impl From<Arithmetic> for Limit {
    fn from(arithmetic: Arithmetic) -> Self {
        match arithmetic {
            Arithmetic::Int8 => Self::Int8,
            Arithmetic::Bf16 => Self::Bf16,
            Arithmetic::F32 => Self::F32,
        }
    }
}

impl Spread {
    /// Of at least one value.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        Self { median: (values[(n - 1) / 2] + values[n / 2]) / 2.0, min: values[0], max: values[n - 1] }
    }

    /// As `name`, `name_min` and `name_max`, beside the other fields of what holds it.
    fn write<S: Serializer>(self, name: &str, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(3))?;
        map.serialize_entry(name, &self.median)?;
        map.serialize_entry(&format!("{name}_min"), &self.min)?;
        map.serialize_entry(&format!("{name}_max"), &self.max)?;
        map.end()
    }
}

fn load_ms<S: Serializer>(spread: &Spread, to: S) -> Result<S::Ok, S::Error> {
    spread.write("load_ms", to)
}

fn ms<S: Serializer>(spread: &Spread, to: S) -> Result<S::Ok, S::Error> {
    spread.write("ms", to)
}

fn tokens_per_s<S: Serializer>(spread: &Spread, to: S) -> Result<S::Ok, S::Error> {
    spread.write("tokens_per_s", to)
}

/// 10⁹ a second, where `amount` took `seconds`.
pub fn gigas(amount: f64, seconds: f64) -> f64 {
    amount / seconds / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_of_an_even_number_too() {
        let spread = |values: &[f64]| {
            let s = Spread::of(values.to_vec());
            (s.min, s.median, s.max)
        };
        assert_eq!(spread(&[3.0]), (3.0, 3.0, 3.0));
        assert_eq!(spread(&[9.0, 1.0, 2.0]), (1.0, 2.0, 9.0));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]), (1.0, 3.0, 9.0));
    }

    #[test]
    fn without_bf16_instructions_f32_is_the_limit() {
        let limits = Limits { read_gb_s: 1.0, int8_gop_s: 2.0, bf16_gf_s: None, f32_gf_s: 3.0 };
        assert_eq!(limits.of(Limit::Bf16), (3.0, "f32"));
    }
}
