//! `llava inspect` on language models, mmprojs, folders, and files that can't be run.

mod common;

use common::*;
use llava::gguf::{File, Value, Writer};
use serde_json::{Value as Json, json};

fn inspect(args: &[&str]) -> Json {
    let end = run(&[&["inspect", "--json"], args].concat());
    assert_eq!((end.status, end.err.as_str()), (0, ""));
    end.json()[0].clone()
}

#[test]
fn a_folder_shows_the_pair_and_what_it_needs() {
    let report = inspect(&[&arg("llava"), "--ctx", "512"]);
    let files = report["files"].as_array().unwrap();
    assert_eq!(files.iter().map(|f| &f["architecture"]).collect::<Vec<_>>(), [&json!("llama"), &json!("clip")]);
    assert_eq!(files[0]["geometry"]["embedding_length"], 64);
    assert_eq!(files[0]["tokenizer"]["tokens"], 280);
    let model = &report["model"];
    assert_eq!(model["vision"]["projector"], "mlp2x_gelu");
    assert_eq!(model["vision"]["feature_layers"], json!([3]));
    assert_eq!(model["template"]["name"], "vicuna_v1");
    assert!(model["template"]["sample"].as_str().unwrap().contains("USER: <image>\nDescribe the image. ASSISTANT:"));
    assert!(model["image_tokens"].as_array().unwrap().iter().all(|i| i["tokens"] == 16));
    // 3 layers of keys and values, 2 heads of 16 in f16.
    let kv = 3 * 2 * 2 * 16 * 2;
    assert_eq!(model["memory"]["kv_cache"], json!({"context": 512, "bytes": 512 * kv, "bytes_per_1024": 1024 * kv}));
    let weights = files[0]["bytes"].as_u64().unwrap() + files[1]["bytes"].as_u64().unwrap();
    assert_eq!(model["memory"]["weights"], weights);
    assert!(report.get("problem").is_none());
}

#[test]
fn a_language_model_brings_the_mmproj_beside_it() {
    assert_eq!(inspect(&[&arg("llava/lm.gguf")])["files"], inspect(&[&arg("llava")])["files"]);
}

#[test]
fn an_mmproj_alone_shows_its_tokens() {
    let report = inspect(&[&arg("llava-next/mmproj.gguf")]);
    assert_eq!(report["files"].as_array().unwrap().len(), 1);
    let tokens = &report["model"]["image_tokens"];
    assert_eq!(tokens[0]["width"], 336);
    // The base view, and two tiles by two of 16 tokens with a newline after each of the 8 rows.
    assert_eq!(tokens[0]["tokens"], 16 + 8 * (8 + 1));
    assert!(report["model"].get("template").is_none());
    assert!(report["model"]["memory"].get("kv_cache").is_none());
}

#[test]
fn types_add_up_to_the_tensors() {
    let report = inspect(&[&arg("llava/lm.gguf"), "--tensors", "--keys"]);
    let file = &report["files"][0];
    let golden = File::open(golden("llava/lm.gguf")).unwrap();
    assert_eq!(file["tensors"].as_array().unwrap().len(), golden.tensors().len());
    assert_eq!(file["keys"].as_array().unwrap().len(), golden.metadata().len());
    let sum = |field: &str| file["types"].as_array().unwrap().iter().map(|t| t[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("tensors"), golden.tensors().len() as u64);
    assert_eq!(sum("bytes"), golden.tensors().iter().map(|t| t.bytes() as u64).sum::<u64>());
    assert_eq!(sum("values"), file["values"].as_u64().unwrap());
}

#[test]
fn a_model_that_cannot_be_run_is_shown_with_the_reason() {
    let folder = Folder::new("inspect");
    let mut w = Writer::new();
    w.set("general.architecture", Value::String("mamba".into()));
    w.set("mamba.block_count", Value::U32(7));
    let mut bytes = w.tensor("a.weight", &[32], llava::quant::BlockType::F32, vec![0; 128]).unwrap().to_bytes();
    // The tensor's type stands after its name, the number of dimensions and the dimension; 29 is IQ1_M.
    let at = bytes.windows(8).position(|w| w == b"a.weight").unwrap() + 8 + 4 + 8;
    bytes[at] = 29;
    let path = folder.file("mamba.gguf", &bytes);
    let report = inspect(&[&path]);
    assert!(report["problem"].as_str().unwrap().contains("mamba"), "{report}");
    assert!(report.get("model").is_none());
    assert_eq!(report["files"][0]["geometry"], json!({"block_count": 7}));
    let iq1_m = json!([{"name": "IQ1_M", "supported": false, "tensors": 1, "values": 32, "bytes": 0}]);
    assert_eq!(report["files"][0]["types"], iq1_m);
    let text = run(&["inspect", &path]);
    assert_eq!(text.status, 0);
    assert!(text.out.contains("Can't be run") && text.out.contains("not supported"), "{}", text.out);
    // As the only file of a folder, too.
    assert_eq!(inspect(&[&folder.arg("")])["files"][0]["architecture"], "mamba");
}

#[test]
fn the_text_says_what_people_look_for() {
    let end = run(&["inspect", &arg("llava")]);
    assert_eq!((end.status, end.err.as_str()), (0, ""));
    for part in ["architecture  llama", "embedding_length", "F16", "mlp2x_gelu", "vicuna_v1", "16 for an image", "KV"] {
        assert!(end.out.contains(part), "{part} is missing in {}", end.out);
    }
    // Not a terminal, so no colours.
    assert!(!end.out.contains('\x1b'));
}

#[test]
fn files_that_are_no_models_are_errors() {
    let folder = Folder::new("no-models");
    let text = folder.file("text.gguf", b"hello, world");
    for (path, status) in [(text.as_str(), 1), ("missing.gguf", 1), (&folder.arg(""), 1)] {
        let end = run(&["inspect", path]);
        assert_eq!((end.status, end.out.as_str()), (status, ""), "{path}");
        assert!(end.err.starts_with("error: "), "{}", end.err);
    }
    assert_eq!(run(&["inspect", &arg("llava"), "--ctx", "1000000"]).status, 2);
}

#[test]
fn two_files_are_compared() {
    let [lm, tied, mmproj] = ["llava/lm.gguf", "llava-tied/lm.gguf", "llava/mmproj.gguf"].map(arg);
    let same = run(&["inspect", "--diff", &lm, &lm]);
    assert!(same.out.ends_with("the same keys, and the same 30 tensors\n"), "{}", same.out);
    let diff = |a: &str, b: &str| {
        let end = run(&["inspect", "--json", "--diff", a, b]);
        assert_eq!((end.status, end.err.as_str()), (0, ""));
        end.json()[0].clone()
    };
    let found = diff(&lm, &tied);
    let output = found["tensors"].as_array().unwrap().iter().find(|t| t["name"] == "output.weight").unwrap();
    assert_eq!((&output["a"]["type"], &output["b"], &output["error"]), (&json!("F16"), &Json::Null, &Json::Null));
    assert_eq!(diff(&tied, &lm)["same_tensors"], found["same_tensors"]);
    assert_eq!(diff(&lm, &mmproj)["same_tensors"], 0);

    // A file that differs in one number of a tensor, one element of an array and one key.
    let file = File::open(&lm).unwrap();
    let mut writer = Writer::new();
    for (key, value) in file.metadata() {
        let value = match value {
            Value::Array(llava::gguf::Array::String(tokens)) if key.ends_with("tokens") => {
                let mut tokens = tokens.clone();
                tokens[7] = "seven".into();
                Value::Array(llava::gguf::Array::String(tokens))
            }
            _ => value.clone(),
        };
        writer.set(key.clone(), value);
    }
    writer.set("general.name", Value::String("another\x1b[31m".into()));
    for t in file.tensors() {
        let mut bytes = t.data().unwrap().as_slice().to_vec();
        if t.name() == "output_norm.weight" {
            bytes[..4].copy_from_slice(&2f32.to_le_bytes());
        }
        writer.tensor(t.name(), t.dims(), t.block_type().unwrap(), bytes).unwrap();
    }
    let path = std::env::temp_dir().join(format!("llava-diff-{}.gguf", std::process::id()));
    writer.save(&path).unwrap();
    let (text, found) =
        (run(&["inspect", "--diff", &lm, path.to_str().unwrap()]).out, diff(&lm, path.to_str().unwrap()));
    std::fs::remove_file(&path).unwrap();
    assert!(text.contains("+ general.name = \"another\\u{1b}[31m\" (string)"), "{text}");
    assert!(text.ends_with("2 keys and 1 tensors differ, 29 tensors are the same\n"), "{text}");
    let tokens = found["keys"].as_array().unwrap().iter().find(|k| k["key"] == "tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens["first_difference"], 7);
    let t = &found["tensors"][0];
    assert!(t["name"] == "output_norm.weight" && (0.01..0.5).contains(&t["error"].as_f64().unwrap()), "{t}");
}
