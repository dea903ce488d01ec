//! The Rust examples, run as their comments say.

use std::process::{Command, Output, Stdio};

fn golden(name: &str) -> String {
    format!("{}/tests/golden/transformers/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// An example, built as the rest of the workspace was.
fn example(name: &str) -> Command {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--workspace", "--profile", profile]);
    assert!(build.args(["--example", name]).status().unwrap().success());
    // Tests lie in target/<profile>/deps, examples beside that folder.
    let tests = std::env::current_exe().unwrap();
    Command::new(tests.ancestors().nth(2).unwrap().join("examples").join(name))
}

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn describe() {
    let output = example("describe").args([golden("llava"), golden("images/wide.png")]).output().unwrap();
    let model = llava::Model::open(golden("llava")).unwrap();
    let expected = model.describe(&llava::Image::open(golden("images/wide.png")).unwrap()).unwrap();
    assert!(lines(&output).join("\n").contains(expected.trim()));
    assert!(!example("describe").output().unwrap().status.success());
}

#[test]
fn chat() {
    use std::io::Write;
    let mut child = example("chat")
        .args([golden("llava"), golden("images/wide.png")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"What is this?\n\nAnd?\n").unwrap();
    let output = child.wait_with_output().unwrap();
    // A prompt for each line and for the end.
    let text = lines(&output).join("\n");
    assert_eq!(text.matches("> ").count(), 4, "{text}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Encode"));
}

#[test]
fn ask_many() {
    let (wide, tall) = (golden("images/wide.png"), golden("images/tall.png"));
    let output =
        example("ask_many").args([&golden("llava"), "What?", "How many?", "--", &wide, &tall]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (image, question) in [(&wide, "What?"), (&wide, "How many?"), (&tall, "What?"), (&tall, "How many?")] {
        assert!(text.contains(&format!("{image}\t{question}\t")), "{text}");
    }
}
