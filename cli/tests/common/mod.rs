//! Runs the `llava` command on the golden models of the library.

#![allow(dead_code, reason = "every test program uses its part")]

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file of the golden models.
pub fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "tests", "golden", "transformers", name].iter().collect()
}

/// [`golden`] as an argument.
pub fn arg(name: &str) -> String {
    golden(name).display().to_string()
}

/// The `llava` command with no model but the one that the test names.
pub fn llava() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llava"));
    command.env_remove("LLAVA_MODEL").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// How a command ended.
pub struct Ended {
    pub status: i32,
    pub out: String,
    pub err: String,
}

/// Runs `llava` to its end. A panic fails the test, whatever it expects.
pub fn run(args: &[&str]) -> Ended {
    finish(llava().args(args))
}

/// Runs `llava` with `input` on its standard input.
pub fn feed(args: &[&str], input: &[u8]) -> Ended {
    let mut child =
        llava().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    ended(child.wait_with_output().unwrap())
}

pub fn finish(command: &mut Command) -> Ended {
    ended(command.output().unwrap())
}

fn ended(output: std::process::Output) -> Ended {
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!err.contains("panicked"), "{err}");
    Ended {
        status: output.status.code().expect("ended by a signal"),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err,
    }
}

impl Ended {
    /// Standard output's lines as JSON.
    pub fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A folder that vanishes with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("llava-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn arg(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file, and returns it as an argument.
    pub fn file(&self, name: &str, contents: &[u8]) -> String {
        std::fs::write(self.path(name), contents).unwrap();
        self.arg(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A float32 array of a `.npy` file with its shape.
pub fn array(path: &Path) -> (Vec<f32>, Vec<usize>) {
    llava::npy::load(path).unwrap()
}

/// Norm of the difference over the norm of the expected values, as the golden files' manifest states tolerances.
pub fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)))
        / norm(&mut expected.iter().map(|x| f64::from(*x)))
}
