//! The real pair of `photo/` (CLIP ViT-B/16 and SmolLM2-135M) against a plain f32 forward of the same weights.
//!
//! Needs the folder with the pair, its `reference.json` and the photos: `LLAVA_TEST_PHOTO` and `LLAVA_TEST_DATA` name
//! them, by default where a developer's checkout has them. Skipped with a message where they are absent.

use llava::prompt::{self, Message, Slot};
use llava::{Generation, Image, Input, Model};
use serde_json::Value;
use std::path::PathBuf;

struct Assets {
    folder: PathBuf,
    data: PathBuf,
    reference: Value,
}

fn assets() -> Option<Assets> {
    let named = |variable: &str, default: &str| {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        std::env::var_os(variable).map_or(root.join(default), PathBuf::from)
    };
    let folder = named("LLAVA_TEST_PHOTO", "../shared/models/photo");
    let data = named("LLAVA_TEST_DATA", "../shared/data");
    match std::fs::read(folder.join("reference.json")) {
        Ok(bytes) => Some(Assets { folder, data, reference: serde_json::from_slice(&bytes).unwrap() }),
        Err(e) => {
            eprintln!("skipped: {}: {e}", folder.display());
            None
        }
    }
}

impl Assets {
    /// With one thread, since the tests themselves run side by side.
    fn model(&self, exact: bool) -> Model {
        Model::builder(self.folder.join("lm-q4_0.gguf"))
            .mmproj(self.folder.join("mmproj-q8_0.gguf"))
            .threads(1)
            .exact(exact)
            .load()
            .unwrap()
    }

    /// (photo, its entry) of the set `sure`, `close`, or both.
    fn captions(&self, set: Option<&str>) -> Vec<(PathBuf, &Value)> {
        let all = self.reference["captions"].as_array().unwrap().iter();
        let wanted = all.filter(|c| set.is_none_or(|s| c["set"] == s));
        wanted.map(|c| (self.data.join(c["image"].as_str().unwrap()), c)).collect()
    }
}

fn ids(v: &Value) -> Vec<u32> {
    v.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Photos of the set whose greedy caption has exactly the reference's tokens.
fn equal_captions(assets: &Assets, exact: bool, set: &str) -> (usize, usize) {
    let model = assets.model(exact);
    let mut equal = 0;
    let captions = assets.captions(Some(set));
    for (path, expected) in &captions {
        let image = Image::open(path).unwrap();
        let mut session = model.session();
        session.set_generation(Generation { max_tokens: 64, ..Generation::default() }).unwrap();
        let answer = session.ask(assets.reference["prompt"].as_str().unwrap(), &[&image]).unwrap();
        let same = answer.token_ids == ids(&expected["token_ids"]);
        if same {
            assert_eq!(answer.text, expected["text"].as_str().unwrap());
            equal += 1;
        } else {
            eprintln!("{}: {:?}, expected {}", path.display(), answer.text, expected["text"]);
        }
    }
    (equal, captions.len())
}

#[test]
fn sure_captions_are_the_references_token_for_token_in_f32() {
    let Some(assets) = assets() else { return };
    assert_eq!(equal_captions(&assets, true, "sure"), (24, 24));
}

#[test]
fn at_least_22_of_24_sure_captions_are_the_references_with_int8_activations() {
    let Some(assets) = assets() else { return };
    let (equal, all) = equal_captions(&assets, false, "sure");
    eprintln!("{equal} of {all} equal");
    assert!(all == 24 && equal >= 22, "{equal} of {all}");
}

#[test]
fn the_prompt_is_spliced_as_the_reference_splices_it() {
    let Some(assets) = assets() else { return };
    let model = assets.model(false);
    let message = Message::user(1, assets.reference["prompt"].as_str().unwrap());
    let pieces = model.template().0.render(&[message], true).unwrap();
    let got: Vec<i64> = prompt::splice(&pieces, model.tokenizer())
        .into_iter()
        .map(|slot| match slot {
            Slot::Token(id) => i64::from(id),
            Slot::Image(_) => -200,
        })
        .collect();
    let expected: Vec<i64> = assets.reference["ids"].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect();
    assert_eq!(got, expected);
}

#[test]
fn embeddings_match_the_reference() {
    let Some(assets) = assets() else { return };
    for (exact, bound) in [(true, 1e-4), (false, 3e-2)] {
        let model = assets.model(exact);
        for name in ["000000538113", "2095444126_201ff9f222"] {
            let image = Image::open(assets.folder.join(format!("{name}.png"))).unwrap();
            let got = model.encode(&image).unwrap();
            let (expected, shape) = llava::npy::load(&assets.folder.join(format!("embedding-{name}.npy"))).unwrap();
            assert_eq!(shape, [got.tokens(), got.width()]);
            let error = relative_error(got.values(), &expected);
            eprintln!("{name}, exact {exact}: {error:.2e}");
            assert!(error < bound, "{name}, exact {exact}: {error:e}");
        }
    }
}

/// Fed the reference's own tokens, the five best logits of every step: for each step the norm of the difference over
/// the norm, ascending.
fn errors_along_the_reference(assets: &Assets, model: &Model, photos: &[(PathBuf, &Value)]) -> Vec<f64> {
    let mut errors = Vec::new();
    for (path, expected) in photos {
        let embedding = model.encode(&Image::open(path).unwrap()).unwrap();
        let prompt = assets.reference["ids"].as_array().unwrap().iter().map(|id| match id.as_i64().unwrap() {
            -200 => Input::Image(embedding.clone()),
            id => Input::Token(id as u32),
        });
        let tokens = ids(&expected["token_ids"]).into_iter().map(Input::Token);
        let input: Vec<Input> = prompt.chain(tokens).collect();
        let steps = expected["top5_per_step"].as_array().unwrap();
        let logits = model.logits(&input, steps.len()).unwrap();
        for (step, logits) in steps.iter().zip(logits.chunks_exact(logits.len() / steps.len())) {
            let pairs = step.as_array().unwrap().iter();
            let (got, expected): (Vec<f32>, Vec<f32>) =
                pairs.map(|p| (logits[p[0].as_u64().unwrap() as usize], p[1].as_f64().unwrap() as f32)).unzip();
            errors.push(relative_error(&got, &expected));
        }
    }
    errors.sort_by(f64::total_cmp);
    let (median, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
    println!("{} steps, median {median:.1e}, worst {worst:.1e}", errors.len());
    errors
}

/// On the two photos that are there without JPEG's losses. The reference gives logits to four decimals.
#[test]
fn f32_logits_along_the_references_tokens_are_the_references() {
    let Some(assets) = assets() else { return };
    let mut photos = assets.captions(None);
    for (path, _) in &mut photos {
        *path = assets.folder.join(path.file_stem().unwrap()).with_extension("png");
    }
    photos.retain(|(path, _)| path.exists());
    assert_eq!(photos.len(), 2);
    let errors = errors_along_the_reference(&assets, &assets.model(true), &photos);
    assert!(errors.iter().all(|e| *e < 1e-5), "{errors:?}");
}

/// On all 48 photos as JPEG. Two things add up here: activations rounded to int8 (llama.cpp's own worst position on a
/// decoder of this shape is 6.9e-2 from float64, `tests/oracle/README.md`, smollm2), and JPEG decoders that differ by a
/// level or two (worst 1.4e-2 with f32 activations).
#[test]
fn int8_logits_along_the_references_tokens_stay_within_the_arithmetics_error() {
    let Some(assets) = assets() else { return };
    let errors = errors_along_the_reference(&assets, &assets.model(false), &assets.captions(None));
    assert!(errors[errors.len() / 2] < 1.4e-2 && errors[errors.len() - 1] < 8.3e-2);
}

fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)))
        / norm(&mut expected.iter().map(|x| f64::from(*x)))
}
