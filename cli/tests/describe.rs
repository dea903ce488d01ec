//! `llava describe` on a small random model.

mod common;

use common::*;
use serde_json::Value;

#[test]
fn json_has_every_field_with_its_type() {
    let (model, image) = (arg("llava"), arg("images/wide.png"));
    let end = run(&["describe", "--json", "--max-tokens", "4", "-m", &model, &image, &image]);
    assert_eq!(end.status, 0, "{}", end.err);
    let lines = end.json();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        let mut keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            ["finish_reason", "image", "image_tokens", "prompt_tokens", "template", "text", "timing_ms", "token_ids"]
        );
        assert_eq!(line["image"], image.as_str());
        assert_eq!(line["finish_reason"], "length");
        assert_eq!(line["template"], "vicuna_v1");
        assert_eq!(line["image_tokens"], 16);
        assert!(line["prompt_tokens"].as_u64().unwrap() > 16);
        assert!(line["text"].is_string());
        assert_eq!(line["token_ids"].as_array().unwrap().len(), 4);
        assert!(line["token_ids"].as_array().unwrap().iter().all(|id| id.as_u64().unwrap() < 280));
        let times = line["timing_ms"].as_object().unwrap();
        assert_eq!(times.len(), 7);
        let time = |name: &str| times[name].as_f64().unwrap();
        let parts: f64 = ["decode_image", "preprocess", "encode", "prefill"].iter().map(|name| time(name)).sum();
        assert!(parts <= time("first_token") && time("first_token") <= time("total"), "{times:?}");
        let micros = time("total") * 1000.0;
        assert!((micros - micros.round()).abs() < 1e-6, "{micros}");
    }
    assert_eq!(lines[0]["timing_ms"]["load"], lines[1]["timing_ms"]["load"]);
    assert_eq!(lines[0]["token_ids"], lines[1]["token_ids"]);
}

#[test]
fn plain_output_is_the_text_and_with_several_images_their_names() {
    let (model, a, b) = (arg("llava"), arg("images/wide.png"), arg("images/tall.png"));
    let text = |args: &[&str]| {
        let end = run(&[&["describe", "--max-tokens", "4", "-m", &model], args].concat());
        assert_eq!((end.status, end.err.as_str()), (0, ""));
        end.out
    };
    let json: Value = serde_json::from_str(&text(&["--json", &a])).unwrap();
    let (alone, other) = (text(&[&a]), text(&[&b]));
    assert_eq!(alone, format!("{}\n", json["text"].as_str().unwrap().trim_start()));
    assert_eq!(text(&[&a, &b]), format!("{a}: {alone}{b}: {other}"));
}

#[test]
fn a_bad_image_among_many_is_reported_and_the_rest_go_on() {
    let folder = Folder::new("bad");
    let (model, good) = (arg("llava"), arg("images/wide.png"));
    let png = std::fs::read(golden("images/wide.png")).unwrap();
    let bad = [
        folder.file("text.jpg", b"This is not a picture.\n"),
        folder.file("empty.png", b""),
        folder.file("cut.png", &png[..png.len() / 2]),
        folder.arg("missing.png"),
        folder.arg(""),
    ];
    let mut args = vec!["describe", "--json", "--max-tokens", "2", "-m", &model, &good];
    args.extend(bad.iter().map(String::as_str));
    args.push(&good);
    let end = run(&args);
    assert_eq!(end.status, 1);
    let lines = end.json();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line["image"] == good.as_str()));
    let errors: Vec<_> = end.err.lines().collect();
    assert_eq!(errors.len(), bad.len(), "{}", end.err);
    for (error, name) in errors.iter().zip(&bad) {
        assert!(error.starts_with(&format!("error: {name}: ")), "{error}");
    }
}

#[test]
fn answers_are_the_same_for_the_same_seed_only() {
    let (model, image) = (arg("llava"), arg("images/wide.png"));
    let ids = |seed: &str| {
        let end = run(&["describe", "--json", "--temp", "2", "--seed", seed, "-m", &model, &image]);
        end.json()[0]["token_ids"].clone()
    };
    assert_eq!(ids("1"), ids("1"));
    assert_ne!(ids("1"), ids("2"));
}

#[test]
fn a_template_by_name_is_used() {
    let (model, image) = (arg("llava"), arg("images/wide.png"));
    let end = run(&["describe", "--json", "--template", "chatml", "--max-tokens", "1", "-m", &model, &image]);
    assert_eq!(end.json()[0]["template"], "chatml", "{}", end.err);
}

#[test]
fn without_a_model_the_error_says_how_to_name_one() {
    let image = arg("images/wide.png");
    let end = run(&["describe", &image]);
    assert_eq!((end.status, end.out.as_str()), (1, ""));
    assert!(end.err.contains("LLAVA_MODEL") && end.err.starts_with("error: "), "{}", end.err);
    let end = finish(llava().env("LLAVA_MODEL", golden("llava")).args(["describe", "--max-tokens", "1", &image]));
    assert_eq!(end.status, 0, "{}", end.err);
}

#[test]
fn models_that_cannot_be_read_are_errors() {
    let folder = Folder::new("models");
    let image = arg("images/wide.png");
    let whole = std::fs::read(golden("llava/lm.gguf")).unwrap();
    let cut = folder.file("cut.gguf", &whole[..whole.len() / 2]);
    let text = folder.file("text.gguf", b"hello");
    let missing = folder.arg("missing.gguf");
    for model in [&cut, &text, &missing] {
        let end = run(&["describe", "-m", model, &image]);
        assert_eq!((end.status, end.out.as_str()), (1, ""), "{model}");
        assert!(end.err.contains(model.as_str()), "{}", end.err);
    }
}

#[test]
fn a_context_too_small_for_the_image_is_an_error_of_that_image() {
    let (model, image) = (arg("llava"), arg("images/wide.png"));
    let end = run(&["describe", "--ctx", "20", "-m", &model, &image]);
    assert_eq!(end.status, 1);
    assert!(end.err.starts_with(&format!("error: {image}: the prompt takes ")), "{}", end.err);
}

#[test]
fn wrong_command_lines_end_with_2() {
    let (model, image) = (arg("llava"), arg("images/wide.png"));
    let cases: [&[&str]; 14] = [
        &[],
        &["describe"],
        &["describe", &image, "--frobnicate"],
        &["describe", &image, "-m", &model, "--temp", "-1"],
        &["describe", &image, "-m", &model, "--temp", "NaN"],
        &["describe", &image, "-m", &model, "--top-p", "0"],
        &["describe", &image, "-m", &model, "--min-p", "1"],
        &["describe", &image, "-m", &model, "--repeat-penalty", "0"],
        &["describe", &image, "-m", &model, "--max-tokens", "0"],
        &["describe", &image, "-m", &model, "--prompt", " "],
        &["describe", &image, "-m", &model, "--template", "vicuna"],
        &["describe", &image, "-m", &model, "--threads", "0"],
        &["describe", &image, "-m", &model, "--ctx", "99999999"],
        &["describe", &image, "-m", &model, "--kernels", "abacus"],
    ];
    for args in cases {
        let end = run(args);
        assert_eq!((end.status, end.out.as_str()), (2, ""), "{args:?}: {}", end.err);
        assert!(end.err.contains("Usage: llava") || end.err.contains("try '--help'"), "{args:?}: {}", end.err);
    }
}

#[test]
fn help_goes_to_standard_output_with_an_example() {
    for command in ["describe", "chat", "inspect", "tokenize", "encode", "logits"] {
        let end = run(&[command, "--help"]);
        assert_eq!((end.status, end.err.as_str()), (0, ""));
        assert!(end.out.contains(&format!("Examples:\n  llava {command} ")), "{}", end.out);
    }
}

#[cfg(unix)]
#[test]
fn arguments_that_are_not_utf8_are_usage_errors_as_text_and_names_as_files() {
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"a\xffb");
    let (model, image) = (arg("llava"), arg("images/wide.png"));
    let end = finish(llava().args(["describe", "-m", &model, &image, "--prompt"]).arg(odd));
    assert_eq!(end.status, 2);
    assert!(end.err.contains("invalid UTF-8"), "{}", end.err);
    let end = finish(llava().args(["describe", "-m", &model]).arg(odd));
    assert_eq!(end.status, 1);
    assert!(end.err.contains("No such file"), "{}", end.err);
}

#[cfg(target_os = "linux")]
#[test]
fn a_reader_that_leaves_is_no_error_and_a_full_disk_is() {
    let (model, image) = (arg("llava"), arg("images/wide.png"));
    let args = ["describe", "-m", &model, &image, &image];
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let end = finish_with_output(&args, writer.into());
    assert_eq!((end.status, end.err.as_str()), (0, ""));
    let full = std::fs::File::create("/dev/full").unwrap();
    let end = finish_with_output(&args, full.into());
    assert_eq!(end.status, 1);
    assert!(end.err.starts_with("error: standard output: "), "{}", end.err);
}

#[cfg(target_os = "linux")]
fn finish_with_output(args: &[&str], out: std::process::Stdio) -> Ended {
    let child = llava().args(args).stdout(out).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    Ended { status: output.status.code().expect("ended by a signal"), out: String::new(), err }
}
