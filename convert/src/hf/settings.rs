//! What the JSON files of a checkpoint say.

use super::invalid;
use llava::Error;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// JSON files are small; a larger one is none of these.
const MAX_BYTES: u64 = 256 << 20;

/// Reads a JSON object; `None` if there is no such file.
///
/// # Errors
/// [`Error::Io`]; [`Error::InvalidModel`] if it is no JSON object.
pub fn read(path: &Path) -> Result<Option<Value>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(m) if m.len() > MAX_BYTES => return Err(invalid(path, "file", &format!("has {} bytes", m.len()))),
        other => other.map_err(io)?,
    };
    let bytes = fs::read(path).map_err(io)?;
    match serde_json::from_slice(&bytes) {
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(_) => Err(invalid(path, "file", "is no JSON object")),
        Err(e) => Err(invalid(path, "file", &format!("is no JSON: {e}"))),
    }
}

/// Settings of a model: of several objects the first that has a key counts.
#[derive(Clone, Default)]
pub struct Settings {
    /// The file of the first object, for messages.
    pub file: PathBuf,
    objects: Vec<Value>,
}

impl Settings {
    /// Of one object.
    pub fn new(file: impl Into<PathBuf>, object: Value) -> Self {
        Self { file: file.into(), objects: vec![object] }
    }

    /// The same, with those of `other` behind it.
    pub fn or(mut self, other: Self) -> Self {
        self.objects.extend(other.objects);
        self
    }

    /// The object under `key`, or nothing.
    pub fn sub(&self, key: &str) -> Option<Self> {
        let objects: Vec<_> =
            self.objects.iter().filter_map(|o| o.get(key)).filter(|v| v.is_object()).cloned().collect();
        (!objects.is_empty()).then(|| Self { file: self.file.clone(), objects })
    }

    /// The value of `key`, if there is one that is not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.objects.iter().filter_map(|o| o.get(key)).find(|v| !v.is_null())
    }

    /// A text.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// A flag.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }

    /// A size: 1 to 2³¹.
    ///
    /// # Errors
    /// [`Error::InvalidModel`] if it is something else.
    pub fn size(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(n) if (1..=1 << 31).contains(&n) => Ok(Some(n as usize)),
            _ => Err(self.wrong(key, &format!("is {value}, expected a number from 1 on"))),
        }
    }

    /// A positive number.
    ///
    /// # Errors
    /// [`Error::InvalidModel`] if it is something else.
    pub fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(x) if x.is_finite() && x > 0.0 => Ok(Some(x)),
            _ => Err(self.wrong(key, &format!("is {value}, expected a positive number"))),
        }
    }

    /// Numbers.
    ///
    /// # Errors
    /// [`Error::InvalidModel`] if it is something else.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f32>>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let all =
            value.as_array().map(|all| all.iter().map(|x| x.as_f64().map(|x| x as f32)).collect::<Option<Vec<_>>>());
        match all.flatten() {
            Some(all) if all.iter().all(|x| x.is_finite()) => Ok(Some(all)),
            _ => Err(self.wrong(key, "is no list of numbers")),
        }
    }

    /// An error about a key.
    pub fn wrong(&self, key: &str, reason: &str) -> Error {
        invalid(&self.file, key, reason)
    }

    /// An error about a key that the engine has no use for.
    pub fn unsupported(&self, key: &str, reason: &str) -> Error {
        Error::Unsupported { file: self.file.display().to_string(), field: key.to_owned(), reason: reason.to_owned() }
    }
}
