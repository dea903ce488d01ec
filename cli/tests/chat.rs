//! `llava chat` through a pipe.

mod common;

use common::*;
use serde_json::Value;

fn saved(path: &std::path::Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_conversation_is_answered_and_saved_as_llava_has_it() {
    let folder = Folder::new("chat");
    let (model, wide, tall) = (arg("llava"), arg("images/wide.png"), arg("images/tall.png"));
    let lines = format!("What is this?\n\n/image {tall}\nAnd this?\n/save {}\n", folder.arg("a.json"));
    let end = feed(&["chat", "--max-tokens", "3", "-m", &model, &wide], lines.as_bytes());
    assert_eq!((end.status, end.err.as_str()), (0, ""));
    let saved = saved(&folder.path("a.json"));
    assert_eq!(saved["id"], "a");
    assert_eq!(saved["image"], serde_json::json!([wide, tall]));
    let turns = saved["conversations"].as_array().unwrap();
    let froms: Vec<_> = turns.iter().map(|t| t["from"].as_str().unwrap()).collect();
    assert_eq!(froms, ["human", "gpt", "human", "gpt"]);
    assert_eq!(turns[0]["value"], "<image>\nWhat is this?");
    assert_eq!(turns[2]["value"], "<image>\nAnd this?");
    // Nothing but the answers was written.
    let answers: Vec<_> = [1, 3].map(|i| turns[i]["value"].as_str().unwrap()).to_vec();
    assert_eq!(end.out.trim(), answers.join("\n"), "{}", end.out);
    assert!(!folder.path("a.json.partial").exists());
}

#[test]
fn the_first_answer_is_that_of_describe() {
    let (model, image) = (arg("llava"), arg("images/wide.png"));
    let chat = feed(&["chat", "--max-tokens", "5", "-m", &model, &image], b"Describe the image.\n");
    let describe = run(&["describe", "--max-tokens", "5", "-m", &model, &image]);
    assert_eq!((chat.status, chat.out), (0, describe.out));
}

#[test]
fn reset_forgets_the_conversation_and_the_images() {
    let folder = Folder::new("reset");
    let (model, wide) = (arg("llava"), arg("images/wide.png"));
    let ask = |lines: String, name: &str| {
        let lines = format!("{lines}What?\n/save {}\n", folder.arg(name));
        let end = feed(&["chat", "--max-tokens", "3", "-m", &model], lines.as_bytes());
        assert_eq!((end.status, end.err.as_str()), (0, ""));
        saved(&folder.path(name))
    };
    let mut fresh = ask(String::new(), "fresh.json");
    let reset = ask(format!("/image {wide}\nWho?\n/image {wide}\n/reset\n"), "reset.json");
    fresh["id"] = "reset".into();
    assert_eq!(reset, fresh);
}

#[test]
fn mistakes_are_explained_and_the_conversation_goes_on() {
    let folder = Folder::new("mistakes");
    let model = arg("llava");
    let (missing, nowhere) = (folder.arg("missing.png"), folder.arg("no/such/folder.json"));
    let lines = [
        b"/frobnicate\n/image\n/image ".as_slice(),
        missing.as_bytes(),
        b"\n/save ",
        nowhere.as_bytes(),
        b"\na\xffb\nWhat?\n/quit\nNever asked\n",
    ];
    let end = feed(&["chat", "--max-tokens", "1", "-m", &model], &lines.concat());
    assert_eq!(end.status, 1);
    let reasons = ["no command /frobnicate; /help", "/image needs", "missing.png: ", "folder.json: ", "not UTF-8"];
    assert_eq!(end.err.lines().count(), reasons.len(), "{}", end.err);
    for (line, reason) in end.err.lines().zip(reasons) {
        assert!(line.starts_with("error: ") && line.contains(reason), "{line}");
    }
    // One answer, to the question before /quit.
    assert_eq!(end.out, feed(&["chat", "--max-tokens", "1", "-m", &model], b"What?").out);
}

#[test]
fn an_image_of_the_command_line_that_cannot_be_read_ends_it() {
    let end = run(&["chat", "-m", &arg("llava"), "missing.png"]);
    assert_eq!((end.status, end.out.as_str()), (1, ""));
    assert!(end.err.contains("missing.png"), "{}", end.err);
}
