//! `llava quantize` and `llava imatrix`.

mod common;

use common::{arg, run};
use std::path::PathBuf;

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("llava-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn arg(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text() -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "tests", "golden", "quantize", "text.txt"].iter().collect();
    path.display().to_string()
}

#[test]
fn a_pair_is_made_smaller_by_what_its_weights_meet() {
    let folder = Folder::new("smaller");
    let (lm, mmproj, image) = (arg("llava/lm.gguf"), arg("llava/mmproj.gguf"), arg("images/wide.png"));
    let (imatrix, small, small_mmproj) = (folder.arg("i.gguf"), folder.arg("lm.gguf"), folder.arg("mmproj.gguf"));
    let model = ["--model", &lm, "--mmproj", &mmproj, "--max-tokens", "4", "--chunk", "32", "--text", &text()];
    let collected = run(&[&["imatrix", &image, "-o", &imatrix], &model[..]].concat());
    assert_eq!((collected.status, collected.err.as_str()), (0, ""));
    assert!(collected.out.ends_with("i.gguf: 42 tensors\n"), "{}", collected.out);

    let quantised = run(&["quantize", "--imatrix", &imatrix, "--check", &text(), &lm, &small, "q4_0"]);
    assert_eq!((quantised.status, quantised.err.as_str()), (0, ""));
    assert!(quantised.out.contains("blk.0.attn_q.weight"), "{}", quantised.out);
    assert!(quantised.out.contains("perplexity "), "{}", quantised.out);
    assert_eq!(run(&["quantize", "--imatrix", &imatrix, &mmproj, &small_mmproj, "q8_0"]).status, 0);
    let described = run(&["describe", "--model", &folder.0.display().to_string(), "--max-tokens", "3", &image]);
    assert_eq!(described.status, 0, "{}", described.err);
}

#[test]
fn wrong_command_lines_say_what_to_do() {
    let folder = Folder::new("wrong");
    let (lm, out) = (arg("llava/lm.gguf"), folder.arg("out.gguf"));
    let cases: [(&[&str], i32, &str); 8] = [
        (&["quantize", &lm, &lm, "q4_0"], 2, "name another"),
        (&["quantize", &lm, &out, "q9"], 2, "Q4_K_M"),
        (&["quantize", "--tensor", "x=q9", &lm, &out, "q4_0"], 2, "there is no type"),
        (&["quantize", "--imatrix", &lm, &lm, &out, "q4_0"], 1, "no importance matrix"),
        (&["quantize", "--check", "/nowhere", &lm, &out, "q4_0"], 1, "/nowhere"),
        (&["quantize", "/nowhere", &out, "q4_0"], 1, "/nowhere"),
        (&["imatrix", "--model", &lm, "-o", &out], 2, "IMAGE"),
        (&["imatrix", "--model", &lm, "-o", &out, "--text", "/nowhere"], 1, "/nowhere"),
    ];
    for (args, status, what) in cases {
        let ended = run(args);
        assert_eq!(ended.status, status, "{args:?}: {}", ended.err);
        assert!(ended.err.contains(what), "{args:?}: {}", ended.err);
        assert!(std::fs::read_dir(&folder.0).unwrap().next().is_none(), "{args:?}");
    }
}
