//! Ctrl-C in the middle of a long answer.

#![cfg(unix)]

mod common;

use common::*;
use llava::gguf::{File, Value, Writer};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

/// The golden model with answers that don't end: the logit of `</s>` is always 0, which is never the best, and the context
/// has a million positions.
fn endless(folder: &Folder) -> String {
    const EOS: usize = 2;
    let lm = File::open(golden("llava/lm.gguf")).unwrap();
    let mut w = Writer::new();
    for (key, value) in lm.metadata() {
        w.set(key.clone(), value.clone());
    }
    w.set("llama.context_length", Value::U32(1 << 20));
    for t in lm.tensors() {
        let mut data = t.data().unwrap().as_slice().to_vec();
        if t.name() == "output.weight" {
            let row = data.len() / t.dims()[1];
            data[EOS * row..(EOS + 1) * row].fill(0);
        }
        w.tensor(t.name(), t.dims(), t.block_type().unwrap(), data).unwrap();
    }
    w.save(folder.path("lm.gguf")).unwrap();
    std::fs::copy(golden("llava/mmproj.gguf"), folder.path("mmproj.gguf")).unwrap();
    folder.arg("lm.gguf")
}

fn start(args: &[&str]) -> Child {
    let mut command = llava();
    command.args(args).args(["--max-tokens", "1000000"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the first bytes of an answer, then presses Ctrl-C.
fn interrupt(child: &mut Child) -> Vec<u8> {
    let mut first = vec![0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    // An answer that ends by itself would have ended by now.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    first
}

#[test]
fn describe_prints_what_there_is_and_ends_with_130() {
    let folder = Folder::new("interrupt-describe");
    let (lm, image) = (endless(&folder), arg("images/wide.png"));
    // The second image is not begun.
    let mut child = start(&["describe", "-m", &lm, &image, &image]);
    let mut out = interrupt(&mut child);
    let rest = child.wait_with_output().unwrap();
    out.extend(rest.stdout);
    let out = String::from_utf8(out).unwrap();
    assert_eq!(rest.status.code(), Some(130), "{}", String::from_utf8_lossy(&rest.stderr));
    assert!(out.starts_with(&format!("{image}: ")) && out.ends_with('\n'), "{out}");
    assert_eq!(out.matches(&image).count(), 1);
}

#[test]
fn chat_stops_the_answer_and_goes_on() {
    let folder = Folder::new("interrupt-chat");
    let lm = endless(&folder);
    let mut child = start(&["chat", "-m", &lm]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"What?\n").unwrap();
    interrupt(&mut child);
    stdin.write_all(format!("/save {}\n", folder.arg("a.json")).as_bytes()).unwrap();
    drop(stdin);
    let rest = child.wait_with_output().unwrap();
    assert_eq!(rest.status.code(), Some(0), "{}", String::from_utf8_lossy(&rest.stderr));
    let saved: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path("a.json")).unwrap()).unwrap();
    let turns = saved["conversations"].as_array().unwrap();
    assert_eq!(turns.len(), 2);
    assert!(!turns[1]["value"].as_str().unwrap().is_empty());
}
