//! Whole models from picture to logits against transformers, through the public API.

use llava::{Image, Input, Model};
use serde_json::Value;
use std::path::PathBuf;

fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden/transformers", name].iter().collect()
}

fn relative_error(got: &[f32], expected: &str) -> f64 {
    let (expected, _) = llava::npy::load(&golden(expected)).unwrap();
    assert_eq!(got.len(), expected.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(&expected).map(|(a, b)| f64::from(*a) - f64::from(*b)))
        / norm(&mut expected.iter().map(|x| f64::from(*x)))
}

#[test]
fn image_tokens_and_logits_match_transformers() {
    let manifest: Value = serde_json::from_slice(&std::fs::read(golden("manifest.json")).unwrap()).unwrap();
    let cases = manifest["cases"].as_array().unwrap().iter().filter(|c| c["kind"] == "llava");
    let mut samples = 0;
    for case in cases {
        let file = |key: &str| golden(case[key].as_str().unwrap());
        for kernels in llava::kernels::Kernels::available() {
            let builder = Model::builder(file("lm")).mmproj(file("mmproj")).kernels(kernels.name);
            let model = builder.exact(true).load().unwrap();
            for sample in case["samples"].as_array().unwrap() {
                let what = format!("{} {} {}", case["name"], sample["image"], kernels.name);
                let image = Image::open(golden(sample["image"].as_str().unwrap())).unwrap();
                let embedding = model.encode(&image).unwrap();
                assert_eq!(embedding.tokens(), model.image_tokens(image.width(), image.height()).unwrap(), "{what}");
                let error = relative_error(embedding.values(), sample["tokens"].as_str().unwrap());
                println!("{what}: image tokens {error:.1e}");
                assert!(error < 1e-5, "{what}: image tokens differ by {error:e}");
                let ids = sample["ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap());
                let input: Vec<_> = ids
                    .map(|id| match id {
                        -200 => Input::Image(embedding.clone()),
                        id => Input::Token(id as u32),
                    })
                    .collect();
                let error = relative_error(&model.logits(&input, 1).unwrap(), sample["logits"].as_str().unwrap());
                println!("{what}: logits {error:.1e}");
                assert!(error < 1e-4, "{what}: logits differ by {error:e}");
                samples += 1;
            }
        }
    }
    assert!(samples >= 7);
}
