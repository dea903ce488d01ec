//! `llava convert`.

mod common;

use common::{golden, run};
use std::path::PathBuf;

fn checkpoint(name: &str) -> String {
    golden("..").join("checkpoints").join(name).display().to_string()
}

#[test]
fn a_checkpoint_becomes_a_pair_that_describes() {
    let out = std::env::temp_dir().join(format!("llava-convert-{}", std::process::id()));
    let to = out.display().to_string();
    let end = run(&["convert", &checkpoint("llava"), "-o", &to, "--type", "q8_0", "--mmproj-type", "f32"]);
    assert_eq!((end.status, end.err.as_str()), (0, ""));
    assert!(end.out.contains("llava-Q8_0.gguf") && end.out.contains("mmproj-llava-F32.gguf"), "{}", end.out);
    assert!(end.out.contains("left out: vision_tower.vision_model.encoder.layers.3"), "{}", end.out);
    let image = golden("images/wide.png").display().to_string();
    let described = run(&["describe", "--model", &to, "--template", "vicuna_v1", "--max-tokens", "3", &image]);
    std::fs::remove_dir_all(&out).unwrap();
    assert_eq!((described.status, described.err.as_str()), (0, ""));
}

#[test]
fn wrong_command_lines_say_what_to_do() {
    let out = std::env::temp_dir().join(format!("llava-convert-wrong-{}", std::process::id()));
    let to = out.display().to_string();
    let empty: PathBuf = golden("images");
    let cases: [(&[&str], i32, &str); 4] = [
        (&["convert", "/nowhere", "-o", &to], 1, "/nowhere"),
        (&["convert", &empty.display().to_string(), "-o", &to], 1, "config.json"),
        (&["convert", &checkpoint("llava")], 2, "--output"),
        (&["convert", &checkpoint("llava"), "-o", &to, "--type", "q9"], 2, "Q4_K_M"),
    ];
    for (args, status, what) in cases {
        let end = run(args);
        assert_eq!(end.status, status, "{args:?}: {}", end.err);
        assert!(end.err.contains(what), "{args:?}: {}", end.err);
        assert!(!out.exists(), "{args:?}");
    }
}
