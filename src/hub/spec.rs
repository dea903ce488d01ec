//! `OWNER/REPO[@REVISION][:FILE or TYPE]`.

use crate::error::{Error, Result};
use std::str::FromStr;

/// Which model of which repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// `OWNER/REPO`.
    pub repository: String,
    /// A branch, a tag or a commit; `main` by default.
    pub revision: String,
    /// A file of the repository, or a type like `Q4_K_M`.
    pub model: Option<String>,
}

impl FromStr for Spec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::argument(
                "model",
                format!("{text:?}, expected OWNER/REPO, OWNER/REPO@REVISION, OWNER/REPO:FILE or OWNER/REPO:TYPE"),
            )
        };
        let (rest, model) = match text.split_once(':') {
            Some((rest, model)) => (rest, Some(model.to_owned())),
            None => (text, None),
        };
        let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        // Hugging Face's own rule for names.
        let name = |part: &str| {
            !part.is_empty()
                && part.len() <= 96
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                && !part.starts_with(['-', '.'])
                && !part.contains("..")
                && !part.contains("--")
        };
        let owner_and_name = repository.split_once('/').is_some_and(|(owner, repo)| name(owner) && name(repo));
        let revision_is_fine = !revision.is_empty()
            && revision.len() <= 255
            && super::cache::is_inside(revision)
            && !revision.chars().any(char::is_control);
        if !owner_and_name || !revision_is_fine || model.as_ref().is_some_and(|m| m.is_empty()) {
            return Err(wrong());
        }
        Ok(Self { repository: repository.to_owned(), revision: revision.to_owned(), model })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_read_and_others_refused() {
        let spec = |text: &str| text.parse::<Spec>().unwrap();
        let plain = spec("mys/ggml_llava-v1.5-7b");
        assert_eq!(
            (plain.repository.as_str(), plain.revision.as_str(), plain.model),
            ("mys/ggml_llava-v1.5-7b", "main", None)
        );
        let whole = spec("a/b@v1/x:sub/c-Q4_K_M.gguf");
        assert_eq!((whole.revision.as_str(), whole.model.as_deref()), ("v1/x", Some("sub/c-Q4_K_M.gguf")));
        for wrong in [
            "", "a", "a/b/c", "/b", "a/", "../b", "a/..", "a/b:", "a/b@", "a/b@../x", "a b/c", "a/b\n", "a--b/c",
            "a/b@/x",
        ] {
            assert!(wrong.parse::<Spec>().is_err(), "{wrong:?}");
        }
    }
}
