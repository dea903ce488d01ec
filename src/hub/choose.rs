//! Which of a repository's files make a pair.
//!
//! The type that people use most comes first: Q4_K_M, then its neighbours, then larger ones, smaller ones, and half
//! precision. Of several mmprojs the one in F16.

use super::Spec;
use crate::error::{Error, Result};

/// Types in the order of preference, as file names have them.
const TYPES: [&str; 21] = [
    "Q4_K_M", "Q4_K", "Q4_K_S", "IQ4_NL", "Q4_0", "Q4_1", "Q5_K_M", "Q5_K", "Q5_K_S", "Q5_0", "Q5_1", "Q6_K", "Q8_0",
    "Q3_K_L", "Q3_K_M", "Q3_K", "Q3_K_S", "Q2_K", "F16", "BF16", "F32",
];
const MMPROJ_TYPES: [&str; 4] = ["F16", "BF16", "Q8_0", "F32"];

/// A file of a repository.
#[derive(Clone, Debug)]
pub(super) struct RemoteFile {
    /// Its path there.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal, or where git keeps the file itself, its object's name.
    pub hash: String,
}

/// A language model that a repository offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its file; of a split model all parts.
    pub parts: Vec<String>,
    /// Its type, if the name says it.
    pub kind: Option<&'static str>,
    /// Its bytes.
    pub bytes: u64,
    /// The mmproj that would be taken with it.
    pub mmproj: Option<String>,
}

/// The offers of a repository, the preferred one first.
///
/// # Errors
/// [`Error::Download`] if there is no language model in GGUF.
pub(super) fn offers(files: &[RemoteFile]) -> Result<Vec<Offer>> {
    let ggufs = files.iter().filter(|f| base(&f.name).to_lowercase().ends_with(".gguf"));
    let (mmprojs, models): (Vec<_>, Vec<_>) = ggufs
        .filter(|f| !base(&f.name).to_lowercase().contains("imatrix"))
        .partition(|f| base(&f.name).to_lowercase().contains("mmproj"));
    let mut offers: Vec<Offer> = Vec::new();
    let mut incomplete = None;
    for file in &models {
        let parts = match part_of(&file.name) {
            None => vec![*file],
            Some((_, 1, _)) => {
                let parts: Vec<_> = models.iter().filter(|f| same_model(&f.name, &file.name)).copied().collect();
                if Some(parts.len()) != part_of(&file.name).map(|(.., n)| n) {
                    incomplete = Some(&file.name);
                    continue;
                }
                parts
            }
            Some(_) => continue,
        };
        let mut parts: Vec<_> = parts;
        parts.sort_by(|a, b| a.name.cmp(&b.name));
        offers.push(Offer {
            kind: kind(&file.name, &TYPES),
            bytes: parts.iter().map(|f| f.size).fold(0, u64::saturating_add),
            mmproj: mmproj_for(&file.name, &mmprojs),
            parts: parts.into_iter().map(|f| f.name.clone()).collect(),
        });
    }
    let rank = |o: &Offer| TYPES.iter().position(|t| Some(*t) == o.kind).unwrap_or(TYPES.len());
    offers.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.parts.cmp(&b.parts)));
    match (offers.is_empty(), incomplete) {
        (false, _) => Ok(offers),
        (true, Some(name)) => Err(Error::download("model", format!("{name} lacks some of its parts"))),
        (true, None) => Err(Error::download(
            "model",
            "the repository has no language model in GGUF: download it whole, and `llava convert` makes one of safetensors",
        )),
    }
}

/// The offer that `spec` names, or the preferred one.
///
/// # Errors
/// [`Error::Download`] if there is none, or more than one.
pub(super) fn choose(files: &[RemoteFile], spec: &Spec) -> Result<Offer> {
    let mut all = offers(files)?;
    let list = |offers: &[Offer]| offers.iter().map(|o| o.parts[0].clone()).collect::<Vec<_>>().join(", ");
    let Some(wanted) = &spec.model else {
        let best = all.iter().take_while(|o| o.kind == all[0].kind).count();
        if best > 1 {
            let reason = format!(
                "{} has more than one model: add one of them as :FILE: {}",
                spec.repository,
                list(&all[..best])
            );
            return Err(Error::download("model", reason));
        }
        return Ok(all.swap_remove(0));
    };
    let named = |o: &&Offer| o.parts.iter().any(|p| p == wanted || base(p) == wanted);
    let typed = |o: &&Offer| o.kind.is_some_and(|k| k.eq_ignore_ascii_case(wanted));
    let mut found: Vec<Offer> = all.iter().filter(named).cloned().collect();
    if found.is_empty() {
        found = all.iter().filter(typed).cloned().collect();
    }
    match found.len() {
        1 => Ok(found.swap_remove(0)),
        0 => Err(Error::download("model", format!("{} has no {wanted}; there are {}", spec.repository, list(&all)))),
        _ => Err(Error::download("model", format!("{wanted} may be any of {}", list(&found)))),
    }
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The type in a file's name, and the rest of the name.
fn kind(name: &str, types: &[&'static str]) -> Option<&'static str> {
    let name = base(name).to_uppercase();
    let word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    // The longest, lest Q4_K be found in Q4_K_M.
    let found = types.iter().filter(|t| {
        name.match_indices(**t)
            .any(|(at, t)| !word(name[..at].chars().next_back()) && !word(name[at + t.len()..].chars().next()))
    });
    found.max_by_key(|t| t.len()).copied()
}

/// Of a part of a split model its name without the number, its number, and how many there are.
fn part_of(name: &str) -> Option<(&str, usize, usize)> {
    let stem = name.get(..name.len().checked_sub(5)?)?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (rest, number) = rest.rsplit_once('-')?;
    let digits = |s: &str| (s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok()).flatten();
    Some((rest, digits(number)?, digits(count)?))
}

fn same_model(a: &str, b: &str) -> bool {
    match (part_of(a), part_of(b)) {
        (Some((a, _, n)), Some((b, _, m))) => a == b && n == m,
        _ => false,
    }
}

/// The mmproj for a model: in its folder if there is one, of the preferred type, with the name that is most like the model's.
fn mmproj_for(model: &str, all: &[&RemoteFile]) -> Option<String> {
    let folder = |name: &str| name.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let beside: Vec<_> = all.iter().filter(|f| folder(&f.name) == folder(model)).collect();
    let candidates = if beside.is_empty() { all.iter().collect() } else { beside };
    let words = |name: &str| {
        let name = base(name).to_lowercase();
        name.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_owned).collect::<Vec<_>>()
    };
    let wanted = words(model);
    let alike = |f: &RemoteFile| words(&f.name).iter().filter(|w| wanted.contains(w)).count();
    let rank = |f: &RemoteFile| {
        let kind = kind(&f.name, &MMPROJ_TYPES);
        MMPROJ_TYPES.iter().position(|t| Some(*t) == kind).unwrap_or(MMPROJ_TYPES.len())
    };
    let best = candidates.into_iter().min_by_key(|f| (usize::MAX - alike(f), rank(f), f.name.clone()));
    best.map(|f| f.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<RemoteFile> {
        names.iter().map(|name| RemoteFile { name: (*name).to_owned(), size: 1, hash: "0".into() }).collect()
    }

    fn chosen(names: &[&str], spec: &str) -> Result<(String, Option<String>)> {
        choose(&files(names), &spec.parse().unwrap()).map(|o| (o.parts[0].clone(), o.mmproj))
    }

    #[test]
    fn published_repositories_give_the_pair_that_people_want() {
        let mys = [
            "ggml-model-f16.gguf",
            "ggml-model-q4_k.gguf",
            "ggml-model-q5_k.gguf",
            "mmproj-model-f16.gguf",
            "README.md",
        ];
        let mmproj = Some("mmproj-model-f16.gguf".to_owned());
        assert_eq!(chosen(&mys, "a/b").unwrap(), ("ggml-model-q4_k.gguf".into(), mmproj.clone()));
        assert_eq!(chosen(&mys, "a/b:F16").unwrap(), ("ggml-model-f16.gguf".into(), mmproj.clone()));
        assert_eq!(chosen(&mys, "a/b:ggml-model-q5_k.gguf").unwrap(), ("ggml-model-q5_k.gguf".into(), mmproj));
        let several = [
            "m-Q8_0.gguf",
            "m-Q4_K_M.gguf",
            "m-Q4_K_S.gguf",
            "mmproj-m-Q8_0.gguf",
            "mmproj-m-f16.gguf",
            "m.imatrix.gguf",
        ];
        assert_eq!(chosen(&several, "a/b").unwrap(), ("m-Q4_K_M.gguf".into(), Some("mmproj-m-f16.gguf".into())));
        assert!(chosen(&several, "a/b:Q2_K").unwrap_err().to_string().contains("m-Q4_K_M.gguf"));
        assert_eq!(chosen(&["x.gguf"], "a/b").unwrap(), ("x.gguf".into(), None));
        assert!(chosen(&["x.safetensors"], "a/b").unwrap_err().to_string().contains("llava convert"));
    }

    #[test]
    fn several_models_are_told_apart() {
        let two = ["7b-q4_0.gguf", "13b-q4_0.gguf", "mmproj-7b-f16.gguf", "mmproj-13b-f16.gguf"];
        assert!(chosen(&two, "a/b").unwrap_err().to_string().contains("13b-q4_0.gguf, 7b-q4_0.gguf"));
        assert_eq!(chosen(&two, "a/b:13b-q4_0.gguf").unwrap().1.unwrap(), "mmproj-13b-f16.gguf");
        assert_eq!(chosen(&two, "a/b:7b-q4_0.gguf").unwrap().1.unwrap(), "mmproj-7b-f16.gguf");
        let folders = ["x/m-q4_0.gguf", "x/mmproj.gguf", "y/n-q8_0.gguf", "y/mmproj.gguf"];
        assert_eq!(chosen(&folders, "a/b:n-q8_0.gguf").unwrap().1.unwrap(), "y/mmproj.gguf");
    }

    #[test]
    fn split_models_are_whole_or_not_offered() {
        let split = ["m-00002-of-00002.gguf", "m-00001-of-00002.gguf", "n-00001-of-00002.gguf"];
        let all = offers(&files(&split)).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].parts, ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]);
        assert!(offers(&files(&split[2..])).unwrap_err().to_string().contains("parts"));
    }
}
