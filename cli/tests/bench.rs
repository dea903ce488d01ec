//! `llava bench` on the golden models: that it measures everything, and says so in full. Nothing here asks for speed.

mod common;

use common::*;
use serde_json::{Value, json};

/// Sizes that the golden models' contexts hold.
const SMALL: [&str; 8] = ["--prefill", "8,20", "--decode", "4", "--batch", "1,3", "--after", "5"];

fn bench(args: &[&str]) -> (Value, String) {
    // One thread, so that tests can run side by side.
    let end = run(&[&["bench", "--json", "--threads", "1", "--reps", "2"], args].concat());
    assert_eq!(end.status, 0, "{}", end.err);
    (end.json()[0].clone(), end.err)
}

/// Every number is finite (or JSON would not have it) and above zero.
fn positive(value: &Value, path: &str) {
    match value {
        Value::Number(n) => assert!(n.as_f64().unwrap() > 0.0, "{path} is {n}"),
        Value::Array(all) => all.iter().enumerate().for_each(|(i, v)| positive(v, &format!("{path}[{i}]"))),
        Value::Object(all) => all.iter().for_each(|(key, v)| positive(v, &format!("{path}.{key}"))),
        _ => {}
    }
}

/// Asserts that `value` has a figure with its spread around it.
fn spread(value: &Value, name: &str) {
    let get = |suffix: &str| value[format!("{name}{suffix}")].as_f64().unwrap_or_else(|| panic!("{name} in {value}"));
    assert!(get("_min") <= get("") && get("") <= get("_max"), "{value}");
}

#[test]
fn a_pair_is_measured_in_full() {
    let (report, err) = bench(&[&["--model", &arg("llava")], &SMALL[..]].concat());
    assert_eq!(err, "");
    positive(&report, "");
    assert!(report["model"].as_str().unwrap().ends_with("lm.gguf"));
    assert!(report["mmproj"].as_str().unwrap().ends_with("mmproj.gguf"));
    assert_eq!(report["threads"], 1);
    spread(&report, "load_ms");
    spread(&report["encode"], "ms");
    assert_eq!(report["encode"]["tiles"], 1);
    let column = |list: &str, key: &str| -> Vec<Value> {
        let list = report[list].as_array().unwrap();
        list.iter().for_each(|entry| spread(entry, "tokens_per_s"));
        list.iter().map(|entry| entry[key].clone()).collect()
    };
    assert_eq!(column("prefill", "tokens"), [8, 20]);
    assert_eq!(column("decode", "tokens"), [4]);
    assert_eq!(column("decode", "after"), [5]);
    assert_eq!(column("batch", "n"), [1, 3]);
    for key in ["read_gb_s", "int8_gop_s", "f32_gf_s"] {
        assert!(report["machine"][key].is_number(), "{report}");
    }
    assert!(report["machine"].get("bf16_gf_s").is_some());
    assert_eq!(report["peak_rss_bytes"].is_number(), cfg!(target_os = "linux"));
    assert!(report.get("encode_tiles").is_none());
    // The golden pair is F16.
    let kernels = report["kernels"].as_array().unwrap();
    assert!(kernels.iter().any(|k| k.as_str().unwrap().ends_with(" F16 f32")), "{report}");
}

#[test]
fn a_tower_with_grids_is_measured_on_all_its_tiles_too() {
    let (report, _) =
        bench(&["--model", &arg("llava/lm.gguf"), "--mmproj", &arg("llava-next/mmproj.gguf"), "--only", "encode"]);
    assert_eq!(report["encode_tiles"]["tiles"], 5);
    spread(&report["encode_tiles"], "ms");
    assert_eq!([&report["prefill"], &report["decode"], &report["batch"]], [&json!([]), &json!([]), &json!([])]);
}

#[test]
fn without_an_mmproj_there_is_nothing_to_encode() {
    let folder = Folder::new("bench-text");
    std::fs::copy(golden("llava/lm.gguf"), folder.path("lm.gguf")).unwrap();
    let (report, _) = bench(&["--model", &folder.arg("lm.gguf"), "--only", "encode,prefill", "--prefill", "8"]);
    assert_eq!([&report["encode"], &report["mmproj"]], [&Value::Null, &Value::Null]);
    assert_eq!(report["prefill"].as_array().unwrap().len(), 1);
}

#[test]
fn with_several_mmprojs_and_none_named_text_is_measured() {
    let folder = Folder::new("bench-several");
    std::fs::copy(golden("llava/lm.gguf"), folder.path("lm.gguf")).unwrap();
    for name in ["a-mmproj.gguf", "b-mmproj.gguf"] {
        std::fs::copy(golden("llava/mmproj.gguf"), folder.path(name)).unwrap();
    }
    let (dir, lm) = (folder.path("").display().to_string(), folder.arg("lm.gguf"));
    for model in [&dir, &lm] {
        let (report, err) = bench(&[&["--model", model], &SMALL[..]].concat());
        assert_eq!(err.lines().count(), 1, "{err}");
        for part in ["more than one mmproj", "a-mmproj.gguf", "b-mmproj.gguf", "text alone is measured"] {
            assert!(err.contains(part), "{part} is missing in {err}");
        }
        assert_eq!([&report["encode"], &report["mmproj"]], [&Value::Null, &Value::Null]);
        assert_eq!(report["prefill"].as_array().unwrap().len(), 2);
        // What was asked for by name is not left out.
        let end = run(&["bench", "--model", model, "--only", "encode,decode"]);
        assert_eq!((end.status, end.out.as_str()), (1, ""));
        assert!(end.err.contains("name the one to use"), "{}", end.err);
    }
    let (report, err) = bench(&["--model", &lm, "--mmproj", &folder.arg("b-mmproj.gguf"), "--only", "encode"]);
    assert_eq!((err.as_str(), report["encode"].is_object()), ("", true));
}

#[test]
fn what_does_not_fit_into_the_context_is_skipped_with_a_note() {
    let args = ["--model", &arg("llava"), "--ctx", "24", "--prefill", "8,24", "--decode", "12,13", "--batch", "2"];
    let (report, err) = bench(&args);
    assert_eq!(
        err,
        "24 tokens skipped: the context has 24 positions\n13 tokens after 12 skipped: the context has 24 positions\n"
    );
    assert_eq!([report["prefill"].as_array().unwrap().len(), report["decode"].as_array().unwrap().len()], [1, 1]);
    // Half of a short context is for the prompt.
    assert_eq!([&report["decode"][0]["after"], &report["batch"][0]["tokens"]], [12, 12]);
}

#[test]
fn the_table_shows_each_figure_beside_its_limit() {
    let args = ["bench", "--model", &arg("llava"), "--threads", "1", "--reps", "1"];
    let end = run(&[&args, &SMALL[..]].concat());
    assert_eq!((end.status, end.err.as_str()), (0, ""));
    for part in ["kernels ", "machine   reads ", "encode an image ", "prefill 20 ", "decode 4 after 5 ", "batch of 3 "]
    {
        assert!(end.out.contains(part), "{part} is missing in {}", end.out);
    }
    assert!(end.out.contains(" % of reading") && end.out.contains("Gop/s"), "{}", end.out);
    // Not a terminal, so no colours.
    assert!(!end.out.contains('\x1b'));
}

#[test]
fn wrong_options_are_usage_errors() {
    let model = arg("llava");
    let cases: [(&[&str], &str); 6] = [
        (&["--reps", "0"], "--reps"),
        (&["--prefill", "8,x"], "invalid value 'x'"),
        (&["--only", "speed"], "possible values: encode, prefill, decode, batch"),
        (&["--batch", "100000"], "expected 1 to"),
        (&["--only", "decode", "--after", "1000000"], "context has"),
        (&["--kernels", "abacus"], "abacus"),
    ];
    for (args, reason) in cases {
        let end = run(&[&["bench", "--model", &model, "--threads", "1"], args].concat());
        assert_eq!((end.status, end.out.as_str()), (2, ""), "{args:?}: {}", end.err);
        assert!(end.err.contains(reason), "{args:?}: {}", end.err);
    }
    assert_eq!(run(&["bench", "--model", "missing.gguf"]).status, 1);
}
