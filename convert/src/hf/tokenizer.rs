//! The vocabulary under `tokenizer.ggml.*`, from `tokenizer.model` (SentencePiece) or `tokenizer.json`.

use super::invalid;
use super::sentencepiece;
use super::settings::{self, Settings};
use llava::Error;
use llava::gguf::{Array, Value, Writer};
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// llama.cpp's numbers of token types.
pub const NORMAL: i32 = 1;
pub const UNKNOWN: i32 = 2;
pub const CONTROL: i32 = 3;
pub const USER_DEFINED: i32 = 4;
pub const UNUSED: i32 = 5;
pub const BYTE: i32 = 6;

/// The regular expressions that cut text into words, as `tokenizer.json` has them, and llama.cpp's names of them.
const SPLITS: [(&str, &str); 3] = [
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "llama-bpe",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "tekken",
    ),
];

/// A vocabulary as it will be written.
#[derive(Default)]
pub struct Vocabulary {
    model: &'static str,
    pre: Option<&'static str>,
    /// Text, score and type, by id.
    pub tokens: Vec<(String, f32, i32)>,
    merges: Vec<String>,
    space_prefix: Option<bool>,
    add_bos: Option<bool>,
    add_eos: Option<bool>,
    special: Vec<(&'static str, u32)>,
    template: Option<String>,
}

/// Reads the vocabulary of the first of `folders` that has one. `config` is the language model's configuration, for ids that
/// nothing else names.
///
/// # Errors
/// [`Error::InvalidModel`] if there is none or it is damaged; [`Error::Unsupported`] for kinds that the engine does not run.
pub fn read(folders: &[&Path], config: &Settings) -> Result<Vocabulary, Error> {
    let has = |name: &str| folders.iter().copied().find(|f| f.join(name).exists());
    let Some(folder) = has("tokenizer.model").or(has("tokenizer.json")) else {
        let all: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
        return Err(invalid(
            folders[0],
            "tokenizer",
            &format!("there is no tokenizer.model or tokenizer.json in {}", all.join(", ")),
        ));
    };
    let path = folder.join("tokenizer.json");
    let json = settings::read(&path)?.map(|json| Settings::new(&path, json));
    let model = folder.join("tokenizer.model");
    let mut v = match (&json, model.exists()) {
        (_, true) => sentencepiece::read(&model)?.into_vocabulary(),
        (Some(json), false) => of_json(json)?,
        (None, false) => return Err(invalid(&path, "file", "is missing")),
    };
    let path = folder.join("tokenizer_config.json");
    let stated = settings::read(&path)?.map(|json| Settings::new(&path, json)).unwrap_or_default();
    v.add_tokens(folder, json.as_ref(), &stated)?;
    v.specials(json.as_ref(), &stated, config);
    v.template = template(folder, &stated)?;
    Ok(v)
}

/// What `tokenizer.json` says.
fn of_json(json: &Settings) -> Result<Vocabulary, Error> {
    let model = json.sub("model").ok_or_else(|| json.wrong("model", "is missing"))?;
    match model.str("type") {
        Some("BPE") | None => {}
        Some(other) => return Err(json.unsupported("model.type", &format!("is {other:?}; BPE is converted"))),
    }
    let vocab = model.get("vocab").and_then(Json::as_object).ok_or_else(|| json.wrong("model.vocab", "is missing"))?;
    let mut by_id = BTreeMap::new();
    for (text, id) in vocab {
        let id = token_id(json, id)?;
        if let Some(other) = by_id.insert(id, text.clone()) {
            return Err(json.wrong("model.vocab", &format!("{other:?} and {text:?} are both number {id}")));
        }
    }
    let merges = model.get("merges").and_then(Json::as_array).map_or(&[][..], |m| &m[..]);
    let merges = merges.iter().map(|merge| {
        // `"a b"`, or in newer files `["a", "b"]`.
        let pair = match merge {
            Json::String(pair) => pair.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
            Json::Array(pair) => match &pair[..] {
                [Json::String(a), Json::String(b)] => Some((a.clone(), b.clone())),
                _ => None,
            },
            _ => None,
        };
        pair.ok_or_else(|| json.wrong("model.merges", &format!("has {merge}, which is no pair")))
    });
    let merges = merges.collect::<Result<Vec<_>, _>>()?;
    let mut v = Vocabulary::default();
    if model.bool("byte_fallback") == Some(true) {
        v.model = "llama";
        // SentencePiece joins the pair whose piece scores best, BPE the pair that comes first in the list.
        let mut ranks = HashMap::new();
        for (rank, (a, b)) in merges.iter().enumerate() {
            ranks.entry(format!("{a}{b}")).or_insert(rank);
        }
        let score = |text: &str| ranks.get(text).map_or(-(merges.len() as f32), |rank| -(*rank as f32));
        v.space_prefix = Some(puts_space_in_front(json));
        let unknown = model.str("unk_token");
        v.fill(by_id, |text| {
            let byte = text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
            let kind = if byte {
                BYTE
            } else if Some(text) == unknown {
                UNKNOWN
            } else {
                NORMAL
            };
            (if kind == NORMAL { score(text) } else { 0.0 }, kind)
        });
    } else {
        (v.model, v.pre) = ("gpt2", Some(pre(json)?));
        v.merges = merges.into_iter().map(|(a, b)| format!("{a} {b}")).collect();
        v.fill(by_id, |_| (0.0, NORMAL));
    }
    Ok(v)
}

/// Whether a text gets a space in front.
fn puts_space_in_front(json: &Settings) -> bool {
    let parts = |key: &str, inner: &str| -> Vec<Settings> {
        let Some(whole) = json.sub(key) else { return Vec::new() };
        match whole.get(inner).and_then(Json::as_array) {
            Some(all) => all.iter().map(|part| Settings::new(&json.file, part.clone())).collect(),
            None => vec![whole],
        }
    };
    parts("normalizer", "normalizers").iter().any(|n| n.str("type") == Some("Prepend"))
        || parts("pre_tokenizer", "pretokenizers").iter().any(|p| {
            p.str("type") == Some("Metaspace")
                && p.str("prepend_scheme") != Some("never")
                && p.bool("add_prefix_space") != Some(false)
        })
}

/// llama.cpp's name of how a byte-level vocabulary cuts text into words.
fn pre(json: &Settings) -> Result<&'static str, Error> {
    let Some(whole) = json.sub("pre_tokenizer") else {
        return Err(
            json.unsupported("pre_tokenizer", "is missing; byte-level and SentencePiece vocabularies are converted")
        );
    };
    let parts: Vec<Settings> = match whole.get("pretokenizers").and_then(Json::as_array) {
        Some(all) => all.iter().map(|part| Settings::new(&json.file, part.clone())).collect(),
        None => vec![whole],
    };
    let mut found = None;
    for part in &parts {
        match part.str("type") {
            Some("ByteLevel") if part.bool("use_regex") != Some(false) => {
                found = Some(if found == Some("digits") { "smollm" } else { "gpt-2" });
            }
            Some("ByteLevel") => {}
            Some("Digits") if part.bool("individual_digits") == Some(true) => found = Some("digits"),
            Some("Split") => {
                let regex = part.sub("pattern").unwrap_or_default();
                let regex = regex.str("Regex").unwrap_or_default();
                let known = SPLITS.iter().find(|(known, _)| *known == regex);
                let Some((_, name)) = known else {
                    let reason =
                        format!("cuts words by {regex:?}, which no reader of GGUF has under a name that is known here");
                    return Err(json.unsupported("pre_tokenizer", &reason));
                };
                found = Some(name);
            }
            other => {
                let reason = format!("has {other:?}; byte-level and SentencePiece vocabularies are converted");
                return Err(json.unsupported("pre_tokenizer", &reason));
            }
        }
    }
    match found {
        Some("digits") | None => Err(json.unsupported("pre_tokenizer", "does not cut text into words")),
        Some(name) => Ok(name),
    }
}

fn token_id(json: &Settings, id: &Json) -> Result<u32, Error> {
    // More tokens than any vocabulary has.
    const MAX: u64 = 1 << 22;
    match id.as_u64() {
        Some(id) if id < MAX => Ok(id as u32),
        _ => Err(json.wrong("vocabulary", &format!("numbers a token {id}"))),
    }
}

/// The conversation template; the language model's own goes before the processor's.
fn template(folder: &Path, stated: &Settings) -> Result<Option<String>, Error> {
    let named = |all: &Vec<Json>| {
        let default = all.iter().find(|t| t.get("name").and_then(Json::as_str) == Some("default"));
        default.and_then(|t| t.get("template")).and_then(Json::as_str).map(str::to_owned)
    };
    match stated.get("chat_template") {
        Some(Json::String(text)) => return Ok(Some(text.clone())),
        Some(Json::Array(all)) => return Ok(named(all)),
        _ => {}
    }
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Io { path, source })?;
        return Ok(Some(text));
    }
    let path = folder.join("chat_template.json");
    let json = settings::read(&path)?.map(|json| Settings::new(path, json)).unwrap_or_default();
    Ok(json.str("chat_template").map(str::to_owned))
}

impl Vocabulary {
    /// A SentencePiece vocabulary.
    pub fn sentencepiece(tokens: Vec<(String, f32, i32)>, space_prefix: bool) -> Self {
        Self { model: "llama", tokens, space_prefix: Some(space_prefix), ..Self::default() }
    }

    fn fill(&mut self, by_id: BTreeMap<u32, String>, of: impl Fn(&str) -> (f32, i32)) {
        for (id, text) in by_id {
            self.grow(id as usize);
            let (score, kind) = of(&text);
            self.tokens.push((text, score, kind));
        }
    }

    /// Makes it at least `len` long; ids without a token get one that no text has.
    fn grow(&mut self, len: usize) {
        while self.tokens.len() < len {
            let text = format!("[PAD{}]", self.tokens.len());
            self.tokens.push((text, -1000.0, UNUSED));
        }
    }

    /// Tokens that were added to the vocabulary later.
    fn add_tokens(&mut self, folder: &Path, json: Option<&Settings>, stated: &Settings) -> Result<(), Error> {
        let mut added = BTreeMap::new();
        let path = folder.join("added_tokens.json");
        if let Some(Json::Object(all)) = settings::read(&path)? {
            let file = Settings::new(&path, Json::Null);
            for (text, id) in all {
                added.insert(token_id(&file, &id)?, (text, USER_DEFINED));
            }
        }
        let kind = |token: &Json| match token.get("special").and_then(Json::as_bool) {
            Some(true) => CONTROL,
            _ => USER_DEFINED,
        };
        for token in json.and_then(|j| j.get("added_tokens")).and_then(Json::as_array).into_iter().flatten() {
            if let (Some(id), Some(text)) = (token.get("id"), token.get("content").and_then(Json::as_str)) {
                added.insert(token_id(stated, id)?, (text.to_owned(), kind(token)));
            }
        }
        for (id, token) in stated.get("added_tokens_decoder").and_then(Json::as_object).into_iter().flatten() {
            let number = id.parse().map_or(Json::Null, |id: u32| id.into());
            if let Some(text) = token.get("content").and_then(Json::as_str) {
                added.insert(token_id(stated, &number)?, (text.to_owned(), kind(token)));
            }
        }
        for (id, (text, kind)) in added {
            let id = id as usize;
            self.grow(id + 1);
            let (_, score, old) = self.tokens[id];
            // What stands for unknown text or for a byte stays that.
            let kind = if matches!(old, UNKNOWN | BYTE) { old } else { kind };
            self.tokens[id] = (text, score, kind);
        }
        Ok(())
    }

    /// The special ids, and whether prompts begin and end with them.
    fn specials(&mut self, json: Option<&Settings>, stated: &Settings, config: &Settings) {
        let ids: HashMap<&str, u32> = self.tokens.iter().zip(0..).map(|((text, ..), id)| (text.as_str(), id)).collect();
        let of = |key: &str| {
            let token = stated.get(key)?;
            ids.get(token.as_str().or(token.get("content")?.as_str())?).copied()
        };
        let text_of = |key: &str| stated.get(key).and_then(Json::as_str).and_then(|text| ids.get(text).copied());
        let number = |key: &str| {
            let id = config.get(key)?;
            let id = id.as_u64().or(id.as_array()?.first()?.as_u64())?;
            u32::try_from(id).ok().filter(|&id| (id as usize) < self.tokens.len())
        };
        let find = |name: &str| {
            let (token, id) = (format!("{name}_token"), format!("{name}_token_id"));
            text_of(&token)
                .or(of(&token))
                .or_else(|| config.get(&id)?.as_u64().and_then(|id| u32::try_from(id).ok()))
                .or(number(&id))
        };
        let names = [
            ("bos", "bos_token_id"),
            ("eos", "eos_token_id"),
            ("unk", "unknown_token_id"),
            ("pad", "padding_token_id"),
        ];
        let found = names.into_iter().filter_map(|(name, key)| Some((key, find(name)?)));
        self.special = found.filter(|(_, id)| (*id as usize) < self.tokens.len()).collect();
        self.add_bos = stated.bool("add_bos_token").or_else(|| begins_with_token(json?));
        self.add_eos = stated.bool("add_eos_token");
    }

    /// Writes the keys, for an embedding of `rows` rows.
    ///
    /// # Errors
    /// [`Error::InvalidModel`] if that has fewer rows than there are tokens.
    pub fn write(mut self, writer: &mut Writer<'_>, rows: usize, folder: &Path) -> Result<(), Error> {
        if self.tokens.len() > rows {
            let reason = format!("has {} tokens, and the embedding {rows} rows", self.tokens.len());
            return Err(invalid(folder, "tokenizer", &reason));
        }
        self.grow(rows);
        let mut set = |key: &str, value: Value| {
            writer.set(format!("tokenizer.ggml.{key}"), value);
        };
        set("model", Value::String(self.model.to_owned()));
        // As llama.cpp's converter has it for SentencePiece.
        set("pre", Value::String(self.pre.unwrap_or("default").to_owned()));
        let mut texts = Vec::with_capacity(rows);
        let (mut scores, mut types) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        for (text, score, kind) in self.tokens {
            texts.push(text);
            scores.push(score);
            types.push(kind);
        }
        set("tokens", Value::Array(Array::String(texts)));
        if self.model == "llama" {
            set("scores", Value::Array(Array::F32(scores)));
        }
        set("token_type", Value::Array(Array::I32(types)));
        if !self.merges.is_empty() {
            set("merges", Value::Array(Array::String(self.merges)));
        }
        for (key, id) in self.special {
            set(key, Value::U32(id));
        }
        for (key, flag) in
            [("add_bos_token", self.add_bos), ("add_eos_token", self.add_eos), ("add_space_prefix", self.space_prefix)]
        {
            if let Some(flag) = flag {
                set(key, Value::Bool(flag));
            }
        }
        if let Some(template) = self.template {
            writer.set("tokenizer.chat_template", Value::String(template));
        }
        Ok(())
    }
}

/// Whether the post-processor puts a token in front of a text.
fn begins_with_token(json: &Settings) -> Option<bool> {
    let whole = json.get("post_processor")?;
    let parts = whole.get("processors").and_then(Json::as_array).cloned().unwrap_or_else(|| vec![whole.clone()]);
    let template = parts.iter().find(|p| p.get("type").and_then(Json::as_str) == Some("TemplateProcessing"))?;
    let first = template.get("single")?.as_array()?.first()?;
    Some(first.get("SpecialToken").is_some())
}
