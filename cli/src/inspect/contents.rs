//! What a file says, whether the engine can run it or not.

use llava::gguf::{File, TensorInfo, Value};
use serde::{Serialize, Serializer};

/// The contents of a GGUF file.
#[derive(Serialize)]
pub struct Contents {
    pub file: String,
    pub gguf_version: u32,
    pub architecture: Option<String>,
    pub name: Option<String>,
    /// The architecture's keys that hold one value.
    #[serde(serialize_with = "map")]
    pub geometry: Vec<(String, Value)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<Vocabulary>,
    /// Values in all tensors.
    pub values: u64,
    /// Bytes of all tensors of known types.
    pub bytes: u64,
    pub types: Vec<Type>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<Key>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensors: Option<Vec<Tensor>>,
}

/// What the keys say of the tokenizer.
#[derive(Serialize)]
pub struct Vocabulary {
    pub model: String,
    pub pre: Option<String>,
    pub tokens: usize,
    pub chat_template: bool,
}

/// All tensors of one type.
#[derive(Serialize)]
pub struct Type {
    pub name: String,
    /// Whether the engine reads it.
    pub supported: bool,
    pub tensors: usize,
    pub values: u64,
    /// 0 if the engine does not read it.
    pub bytes: u64,
}

#[derive(Serialize)]
pub struct Key {
    pub key: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Long texts and arrays are cut.
    pub value: String,
}

#[derive(Serialize)]
pub struct Tensor {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// Fastest first, as in ggml.
    pub dims: Vec<usize>,
    pub bytes: usize,
}

impl Contents {
    /// Reads the contents; with lists of all metadata and all tensors if asked for.
    pub fn new(file: &File, keys: bool, tensors: bool) -> Self {
        let string = |key: &str| file.str(key).ok().flatten().map(str::to_owned);
        let architecture = string("general.architecture");
        let prefix = architecture.as_ref().map(|a| format!("{a}."));
        let own = file.metadata().iter().filter_map(|(key, value)| {
            let key = key.strip_prefix(prefix.as_deref()?)?;
            (!matches!(value, Value::Array(_))).then(|| (key.to_owned(), value.clone()))
        });
        let vocabulary = string("tokenizer.ggml.model").map(|model| Vocabulary {
            model,
            pre: string("tokenizer.ggml.pre"),
            tokens: file.strings("tokenizer.ggml.tokens").ok().flatten().map_or(0, <[String]>::len),
            chat_template: file.get("tokenizer.chat_template").is_some(),
        });
        let types = types(file.tensors());
        Self {
            file: file.name().to_owned(),
            gguf_version: file.version(),
            name: string("general.name"),
            geometry: own.collect(),
            architecture,
            tokenizer: vocabulary,
            values: types.iter().fold(0, |n, t| n.saturating_add(t.values)),
            bytes: types.iter().map(|t| t.bytes).sum(),
            types,
            keys: keys.then(|| file.metadata().iter().map(Key::new).collect()),
            tensors: tensors.then(|| file.tensors().iter().map(Tensor::new).collect()),
        }
    }
}

impl Key {
    fn new((key, value): &(String, Value)) -> Self {
        Self { key: key.clone(), kind: value.type_name(), value: value.to_string() }
    }
}

impl Tensor {
    fn new(t: &TensorInfo) -> Self {
        Self { name: t.name().to_owned(), kind: t.type_name(), dims: t.dims().to_vec(), bytes: t.bytes() }
    }
}

/// The types of tensors, the one that takes most bytes first.
fn types(tensors: &[TensorInfo]) -> Vec<Type> {
    let mut types: Vec<Type> = Vec::new();
    for t in tensors {
        let name = t.type_name();
        let at = types.iter().position(|known| known.name == name).unwrap_or_else(|| {
            types.push(Type { name, supported: t.block_type().is_some(), tensors: 0, values: 0, bytes: 0 });
            types.len() - 1
        });
        let of = &mut types[at];
        of.tensors += 1;
        let values = t.dims().iter().fold(1u64, |n, &d| n.saturating_mul(d as u64));
        of.values = of.values.saturating_add(values);
        of.bytes += t.bytes() as u64;
    }
    types.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(b.values.cmp(&a.values)).then_with(|| a.name.cmp(&b.name)));
    types
}

/// Keys and values as an object, numbers as numbers.
fn map<S: Serializer>(entries: &[(String, Value)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(entries.iter().map(|(key, value)| (key, json(value))))
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(b) => (*b).into(),
        Value::String(s) => s.as_str().into(),
        // By its shortest text: as f64 it would show digits that it does not have.
        Value::F32(x) => x.to_string().parse::<f64>().map_or(serde_json::Value::Null, Into::into),
        Value::F64(x) => (*x).into(),
        Value::U64(n) => (*n).into(),
        other => other.as_int().and_then(|n| i64::try_from(n).ok()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_with_the_digits_they_have() {
        assert_eq!(json(&Value::F32(1e-5)), serde_json::json!(1e-5));
        assert_eq!(json(&Value::F32(f32::NAN)), serde_json::Value::Null);
        assert_eq!(json(&Value::U64(u64::MAX)), serde_json::json!(u64::MAX));
        assert_eq!(json(&Value::I8(-1)), serde_json::json!(-1));
    }
}
