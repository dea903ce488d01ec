//! `llava pull` and `--model hf:…`, from a server of this test.

mod common;

use common::{finish, golden, llava};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

/// Serves a repository `a/b` with a pair.
fn serve(stream: &mut TcpStream, files: &[(&str, Vec<u8>)]) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok).take_while(|l| !l.is_empty());
    let first = lines.next().unwrap_or_default();
    lines.for_each(drop);
    let path = first.split(' ').nth(1).unwrap_or_default();
    let body = match files.iter().find(|(name, _)| path.ends_with(name)) {
        Some((_, bytes)) => bytes.clone(),
        None if path.starts_with("/api/models/a/b/") => {
            let siblings: Vec<_> = files
                .iter()
                .map(|(name, bytes)| {
                    let sum: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
                    serde_json::json!({"rfilename": name, "lfs": {"sha256": sum, "size": bytes.len()}})
                })
                .collect();
            serde_json::to_vec(&serde_json::json!({"sha": "abc123", "siblings": siblings})).unwrap()
        }
        None => return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
    };
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)
}

#[test]
fn a_model_of_the_hub_is_pulled_and_described_with() {
    let files = [("m-q4_0.gguf", "llava/lm.gguf"), ("mmproj.gguf", "llava/mmproj.gguf")];
    let files: Vec<_> = files.into_iter().map(|(name, path)| (name, std::fs::read(golden(path)).unwrap())).collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().flatten().for_each(|mut stream| drop(serve(&mut stream, &files))));
    let home: PathBuf = std::env::temp_dir().join(format!("llava-pull-{}", std::process::id()));
    let run = |args: &[&str], offline: &str| {
        let mut command = llava();
        for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"]
        {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &endpoint).env("HF_HOME", &home).env("HF_HUB_OFFLINE", offline);
        finish(command.args(args))
    };
    let list = run(&["pull", "--list", "a/b"], "");
    assert_eq!((list.status, list.err.as_str()), (0, ""));
    assert!(list.out.contains("Q4_0") && list.out.ends_with("m-q4_0.gguf  (mmproj: mmproj.gguf)\n"), "{}", list.out);
    let none = run(&["describe", "--model", "hf:a/b", "x.png"], "1");
    assert!(none.status == 1 && none.err.contains("HF_HUB_OFFLINE"), "{}", none.err);
    let pulled = run(&["pull", "a/b"], "");
    assert_eq!((pulled.status, pulled.err.as_str()), (0, ""));
    let snapshot = home.join("hub/models--a--b/snapshots/abc123");
    let paths = ["m-q4_0.gguf", "mmproj.gguf"].map(|name| format!("{}\n", snapshot.join(name).display()));
    assert_eq!(pulled.out, paths.concat());
    let image = golden("images/wide.png").display().to_string();
    for offline in ["", "1"] {
        let end = run(&["describe", "--model", "hf:a/b:Q4_0", "--max-tokens", "3", &image], offline);
        assert_eq!((end.status, end.err.as_str()), (0, ""));
        let end = run(&["inspect", "hf:a/b"], offline);
        assert!(end.status == 0 && end.out.contains("mlp2x_gelu"), "{}", end.err);
    }
    let missing = run(&["pull", "a/c"], "");
    assert!(missing.status == 1 && missing.err.contains("no such repository"), "{}", missing.err);
    let wrong = run(&["pull", "../b"], "");
    assert!(wrong.status == 2 && wrong.err.contains("OWNER/REPO"), "{}", wrong.err);
    std::fs::remove_dir_all(&home).unwrap();
}
