//! `llava tokenize`, `encode` and `logits` against what transformers computes (`tests/golden/transformers`).

mod common;

use common::*;
use serde_json::Value;

/// A case of the manifest.
fn case(name: &str) -> Value {
    let manifest: Value = serde_json::from_str(&std::fs::read_to_string(golden("manifest.json")).unwrap()).unwrap();
    manifest["cases"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap().clone()
}

fn ids_of(sample: &Value) -> String {
    let ids: Vec<_> = sample["ids"].as_array().unwrap().iter().map(ToString::to_string).collect();
    ids.join(",")
}

#[test]
fn encode_writes_what_transformers_gives_the_decoder() {
    let folder = Folder::new("encode");
    for name in ["llava", "llava-next"] {
        let case = case(name);
        for sample in case["samples"].as_array().unwrap() {
            let (lm, mmproj) = (arg(case["lm"].as_str().unwrap()), arg(case["mmproj"].as_str().unwrap()));
            let (image, out) = (arg(sample["image"].as_str().unwrap()), folder.arg("out.npy"));
            let end = run(&["encode", "--exact", "--model", &lm, "--mmproj", &mmproj, &image, "-o", &out]);
            assert_eq!((end.status, end.out.as_str()), (0, ""), "{}", end.err);
            let (got, shape) = array(&folder.path("out.npy"));
            let (expected, expected_shape) = array(&golden(sample["tokens"].as_str().unwrap()));
            assert_eq!(shape, expected_shape);
            // The manifest's tolerance for image tokens.
            let error = relative_error(&got, &expected);
            assert!(error < 1e-5, "{name} {image}: {error}");
        }
    }
}

#[test]
fn encode_features_are_one_row_a_patch() {
    let folder = Folder::new("features");
    let (model, image, out) = (arg("llava"), arg("images/wide.png"), folder.arg("out.npy"));
    let end = run(&["encode", "--features", "--model", &model, &image, "-o", &out]);
    assert_eq!(end.status, 0, "{}", end.err);
    // 56 pixels in patches of 14, 32 wide.
    assert_eq!(array(&folder.path("out.npy")).1, [16, 32]);
}

#[test]
fn logits_of_ids_are_those_of_transformers() {
    let folder = Folder::new("ids");
    let case = case("llava");
    for sample in case["samples"].as_array().unwrap() {
        let (model, image, out) = (arg("llava"), arg(sample["image"].as_str().unwrap()), folder.arg("out.npy"));
        let ids = ids_of(sample);
        let end = run(&["logits", "--exact", "--model", &model, "--ids", &ids, "--image", &image, "-o", &out]);
        assert_eq!(end.status, 0, "{}", end.err);
        let (got, shape) = array(&folder.path("out.npy"));
        let (expected, expected_shape) = array(&golden(sample["logits"].as_str().unwrap()));
        assert_eq!(shape, expected_shape);
        // The manifest's tolerance for logits.
        let error = relative_error(&got, &expected);
        assert!(error < 1e-4, "{image}: {error}");
    }
}

#[test]
fn a_prompt_is_its_pieces_tokenised_each_on_its_own() {
    let folder = Folder::new("prompt");
    let (model, lm, image) = (arg("llava"), arg("llava/lm.gguf"), arg("images/wide.png"));
    let ids = |text: &str, special: bool| {
        let mut args = vec!["tokenize", "--model", &lm, text];
        args.extend(special.then_some("--special"));
        let end = run(&args);
        assert_eq!(end.status, 0, "{}", end.err);
        serde_json::from_str::<Vec<i64>>(&end.out).unwrap()
    };
    let mut spliced = ids("USER: ", true);
    spliced.push(-200);
    spliced.extend(ids("\nWhat? ASSISTANT:", false));
    let text: Vec<_> = spliced.iter().map(ToString::to_string).collect();
    let prompt = "USER: <image>\nWhat? ASSISTANT:";
    for (flag, value, out) in [("--ids", text.join(",").as_str(), "ids.npy"), ("--prompt", prompt, "prompt.npy")] {
        let end = run(&["logits", "-m", &model, flag, value, "--image", &image, "-o", &folder.arg(out)]);
        assert_eq!(end.status, 0, "{}", end.err);
    }
    let by_ids = array(&folder.path("ids.npy"));
    assert_eq!(by_ids.0.len(), 280);
    assert_eq!(by_ids, array(&folder.path("prompt.npy")));
}

#[test]
fn tokenize_adds_and_parses_only_on_request() {
    let lm = arg("llava/lm.gguf");
    let ids = |args: &[&str]| run(&[&["tokenize", "--model", &lm], args].concat()).json()[0].clone();
    let plain = ids(&["</s>"]);
    let special = ids(&["--special", "</s>"]);
    // <s> in front, as the file asks for.
    assert_eq!(special, serde_json::json!([1, 2]));
    assert!(plain.as_array().unwrap().iter().all(|id| id.as_u64().unwrap() > 2), "{plain}");
    assert_eq!(ids(&[""]), serde_json::json!([]));
    assert_ne!(ids(&["-x"]), serde_json::json!([]));
}

#[test]
fn without_an_image_no_mmproj_is_needed() {
    let folder = Folder::new("text");
    // Alone in its folder: beside the golden file lies an mmproj.
    std::fs::copy(golden("llava/lm.gguf"), folder.path("lm.gguf")).unwrap();
    let (lm, out) = (folder.arg("lm.gguf"), folder.arg("out.npy"));
    assert_eq!(run(&["logits", "-m", &lm, "--ids", "1,70", "-o", &out]).status, 0);
    let end = run(&["encode", "-m", &lm, &arg("images/wide.png"), "-o", &out]);
    assert_eq!(end.status, 1);
    assert!(end.err.contains("mmproj"), "{}", end.err);
}

#[test]
fn prompts_that_make_no_sense_are_usage_errors() {
    let folder = Folder::new("usage");
    let (model, image, out) = (arg("llava"), arg("images/wide.png"), folder.arg("out.npy"));
    let cases: [(&[&str], &str); 8] = [
        (&["--prompt", "What is <image>?"], "1 place for an image (<image>) in the prompt, and 0 --images"),
        (&["--prompt", "What?", "--image", &image], "0 places for an image (<image>) in the prompt, and 1 --image"),
        (&["--ids", "1,-200,-200", "--image", &image], "2 places for an image (-200)"),
        (&["--ids", "1,-7"], "-7 is no token id"),
        (&["--ids", "1,x"], "invalid value 'x'"),
        (&["--ids", "1,280"], "280"),
        (&["--ids", "1", "--prompt", "What?"], "cannot be used with"),
        (&[], "required"),
    ];
    for (args, reason) in cases {
        let end = run(&[&["logits", "-m", &model, "-o", &out], args].concat());
        assert_eq!(end.status, 2, "{args:?}: {}", end.err);
        assert!(end.err.contains(reason), "{args:?}: {}", end.err);
        assert!(!folder.path("out.npy").exists());
    }
}
