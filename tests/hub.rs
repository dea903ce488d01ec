//! The Hugging Face Hub, played by a server of this test that also breaks off, lies and refuses.
#![cfg(feature = "hub")]

use llava::hub::{Hub, Pair};
use llava::{Control, Error, Model};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request as the server got it.
#[derive(Clone, Debug)]
struct Request {
    path: String,
    headers: HashMap<String, String>,
}

/// What the server answers: status, headers, body, and after how many bytes of that it hangs up.
struct Answer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    stop: Option<usize>,
}

impl Answer {
    fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: "200 OK", headers: Vec::new(), body: body.into(), stop: None }
    }

    fn status(status: &'static str) -> Self {
        Self { status, headers: Vec::new(), body: b"no".to_vec(), stop: None }
    }

    fn redirect(to: String) -> Self {
        Self { headers: vec![("location", to)], ..Self::status("302 Found") }
    }

    /// As much of a file as was asked for.
    fn file(request: &Request, body: &[u8]) -> Self {
        let range = request
            .headers
            .get("range")
            .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match range {
            Some(from) => Self { status: "206 Partial Content", ..Self::ok(&body[from..]) },
            None => Self::ok(body),
        }
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// A server that answers until the test ends.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn new(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let (handler, log) = (Arc::new(handler), seen.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, log) = (handler.clone(), log.clone());
                thread::spawn(move || serve(stream, &*handler, &log));
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<Request> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers = lines.take_while(|l| !l.is_empty()).filter_map(|l| {
        let (name, value) = l.split_once(": ")?;
        Some((name.to_lowercase(), value.to_owned()))
    });
    let request = Request { path, headers: headers.collect() };
    log.lock().unwrap().push(request.clone());
    let answer = handler(&request);
    let mut head =
        format!("HTTP/1.1 {}\r\ncontent-length: {}\r\nconnection: close\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let body = &answer.body[..answer.stop.unwrap_or(usize::MAX).min(answer.body.len())];
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(b"\r\n"))
        .and_then(|()| stream.write_all(body));
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The API's answer about a repository with these files.
fn listing(files: &[(&str, &[u8])]) -> String {
    let siblings: Vec<_> = files
        .iter()
        .map(|(name, bytes)| {
            serde_json::json!({"rfilename": name, "size": bytes.len(), "blobId": "0".repeat(40),
                               "lfs": {"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 130}})
        })
        .collect();
    serde_json::json!({"id": "a/b", "sha": COMMIT, "siblings": siblings}).to_string()
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/transformers").join(name)).unwrap()
}

/// A repository with a pair; `tamper` answers instead where it wants to.
fn repository(tamper: impl Fn(&Request, &[u8]) -> Option<Answer> + Send + Sync + 'static) -> Server {
    let (lm, mmproj) = (golden("llava/lm.gguf"), golden("llava/mmproj.gguf"));
    let list = listing(&[("m-Q4_0.gguf", &lm), ("mmproj-m-f16.gguf", &mmproj), ("README.md", b"x")]);
    Server::new(move |request| {
        let file = match request.path.as_str() {
            path if path.contains("m-Q4_0.gguf") => &lm[..],
            path if path.contains("mmproj-m-f16.gguf") => &mmproj,
            _ => list.as_bytes(),
        };
        tamper(request, file).unwrap_or_else(|| match request.path.as_str() {
            "/api/models/a/b/revision/main?blobs=true" => Answer::ok(list.clone()),
            path if path.starts_with(&format!("/a/b/resolve/{COMMIT}/")) => Answer::file(request, file),
            _ => Answer::status("404 Not Found"),
        })
    })
}

/// A cache that is removed at the end.
struct Cache(PathBuf);

impl Cache {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("llava-hub-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn hub(&self, server: &Server) -> Hub {
        let pause = Duration::from_millis(1);
        Hub { endpoint: server.url.clone(), cache: self.0.clone(), token: None, offline: false, pause }
    }

    /// Names in `blobs`.
    fn blobs(&self) -> Vec<String> {
        let folder = fs::read_dir(self.0.join("models--a--b/blobs")).into_iter().flatten().flatten();
        folder.map(|e| e.file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn pull(hub: &Hub) -> Result<Pair, Error> {
    hub.pull("a/b", &Control::default())
}

fn refused(result: Result<Pair, Error>, parts: &[&str]) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Download { .. }), "{error:?}");
    for part in parts {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_pair_is_downloaded_once_and_runs() {
    let (cache, server) = (Cache::new("once"), repository(|_, _| None));
    let hub = cache.hub(&server);
    let offers = hub.list("a/b").unwrap();
    assert_eq!((offers.len(), offers[0].kind), (1, Some("Q4_0")));
    let control = Control::default();
    let (heard, total) =
        (Arc::new(Mutex::new(Vec::new())), golden("llava/lm.gguf").len() + golden("llava/mmproj.gguf").len());
    let hears = heard.clone();
    control.on_progress(move |p| {
        hears.lock().unwrap().push((p.done, p.total));
        ControlFlow::Continue(())
    });
    let pair = hub.pull("a/b", &control).unwrap();
    assert!(pair.model.ends_with(format!("models--a--b/snapshots/{COMMIT}/m-Q4_0.gguf")));
    let heard = heard.lock().unwrap();
    assert_eq!((heard[0], heard[heard.len() - 1]), ((0, total), (total, total)));
    Model::builder(&pair.model).mmproj(pair.mmproj.as_ref().unwrap()).load().unwrap();
    assert_eq!(fs::read_to_string(cache.0.join("models--a--b/refs/main")).unwrap(), COMMIT);
    assert_eq!(fs::read(&pair.model).unwrap(), golden("llava/lm.gguf"));
    #[cfg(unix)]
    assert!(fs::read_link(&pair.model).unwrap().starts_with("../../blobs"));

    server.seen();
    assert_eq!(pull(&hub).unwrap(), pair);
    assert_eq!(server.seen().len(), 1, "the listing alone");
    assert_eq!(hub.pull("a/b:q4_0", &Control::default()).unwrap(), pair);
    assert!(hub.pull(&format!("a/b@{COMMIT}"), &Control::default()).unwrap_err().to_string().contains("404"));
    // Without a network: by branch and by commit.
    let offline = Hub { endpoint: "http://127.0.0.1:9".into(), offline: true, ..hub.clone() };
    assert_eq!(pull(&offline).unwrap(), pair);
    assert_eq!(offline.pull(&format!("a/b@{COMMIT}:m-Q4_0.gguf"), &Control::default()).unwrap(), pair);
    refused(offline.pull("a/c", &Control::default()), &["a/c", "HF_HUB_OFFLINE"]);
    // A hub that cannot be reached does not keep anybody from what is there.
    let unreachable = Hub { offline: false, ..offline };
    assert_eq!(pull(&unreachable).unwrap(), pair);
    refused(unreachable.pull("a/c", &Control::default()), &["127.0.0.1:9"]);
}

#[test]
fn broken_connections_are_resumed() {
    let cache = Cache::new("resumed");
    // Each connection brings 10,000 bytes.
    let server = repository(|request, file| {
        request.path.contains("resolve").then(|| Answer { stop: Some(10_000), ..Answer::file(request, file) })
    });
    let pair = pull(&cache.hub(&server)).unwrap();
    assert_eq!(fs::read(pair.model).unwrap(), golden("llava/lm.gguf"));
    let ranges: Vec<_> = server.seen().into_iter().filter_map(|r| r.headers.get("range").cloned()).collect();
    assert!(ranges.len() > 4 && ranges.contains(&"bytes=10000-".to_owned()), "{ranges:?}");
}

#[test]
fn what_was_broken_off_goes_on_another_day() {
    let cache = Cache::new("another-day");
    let dead = repository(|request, file| {
        let first = request.path.contains("resolve") && !request.headers.contains_key("range");
        let rest = request.path.contains("resolve") && !first;
        match (first, rest) {
            (true, _) => Some(Answer { stop: Some(20_000), ..Answer::file(request, file) }),
            (_, true) => Some(Answer::status("503 Service Unavailable")),
            _ => None,
        }
    });
    refused(pull(&cache.hub(&dead)), &["503"]);
    assert!(cache.blobs().iter().any(|name| name.ends_with(".incomplete")), "{:?}", cache.blobs());
    let server = repository(|_, _| None);
    let pair = pull(&cache.hub(&server)).unwrap();
    assert_eq!(fs::read(pair.model).unwrap(), golden("llava/lm.gguf"));
    assert!(server.seen().iter().any(|r| r.headers.get("range").is_some_and(|r| r == "bytes=20000-")));
    assert!(cache.blobs().iter().all(|name| !name.ends_with(".incomplete")), "{:?}", cache.blobs());

    // A server that knows no ranges begins anew.
    let cache = Cache::new("no-ranges");
    refused(pull(&cache.hub(&dead)), &["503"]);
    let server = repository(|request, file| request.path.contains("resolve").then(|| Answer::ok(file)));
    assert_eq!(fs::read(pull(&cache.hub(&server)).unwrap().model).unwrap(), golden("llava/lm.gguf"));
}

#[test]
fn a_cancelled_download_is_kept_and_goes_on() {
    let (cache, server) = (Cache::new("cancelled"), repository(|_, _| None));
    let control = Control::default();
    control.on_progress(|p| if p.done > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
    let result = cache.hub(&server).pull("a/b", &control);
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    assert!(cache.blobs()[0].ends_with(".incomplete"));
    pull(&cache.hub(&server)).unwrap();
}

#[test]
fn wrong_contents_never_get_into_the_cache() {
    let wrong = |name: &str, answer: fn(&Request, &[u8]) -> Answer, parts: &[&str]| {
        let cache = Cache::new(name);
        let server = repository(move |request, file| request.path.contains("resolve").then(|| answer(request, file)));
        refused(pull(&cache.hub(&server)), parts);
        assert!(cache.blobs().iter().all(|blob| blob.ends_with(".incomplete")), "{name}: {:?}", cache.blobs());
        assert!(!cache.0.join("models--a--b/snapshots").exists(), "{name}");
    };
    let flipped = |_: &Request, file: &[u8]| {
        let mut file = file.to_vec();
        file[5000] ^= 1;
        Answer::ok(file)
    };
    wrong("flipped", flipped, &["sum", "try again"]);
    wrong("longer", |_, file| Answer::ok([file, b"more"].concat()), &["more than the"]);
    wrong("shorter", |_, file| Answer::ok(&file[..1000]), &["ended after"]);
    wrong("page", |_, _| Answer::ok("<html>please log in"), &["ended after"]);
    // What an earlier attempt left may be wrong too.
    let (cache, server) = (Cache::new("left"), repository(|_, _| None));
    let blobs = cache.0.join("models--a--b/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let lm = golden("llava/lm.gguf");
    fs::write(blobs.join(format!("{}.incomplete", sha256(&lm))), vec![7; 5000]).unwrap();
    refused(pull(&cache.hub(&server)), &["sum"]);
    fs::write(blobs.join(format!("{}.incomplete", sha256(&lm))), vec![7; lm.len() + 1]).unwrap();
    assert_eq!(fs::read(pull(&cache.hub(&server)).unwrap().model).unwrap(), lm);
}

#[test]
fn refusals_say_what_to_do() {
    let refuse = |status: &'static str, parts: &[&str]| {
        let (cache, server) = (Cache::new(&status[..3]), Server::new(move |_| Answer::status(status)));
        refused(pull(&cache.hub(&server)), parts);
        server.seen().len()
    };
    assert_eq!(refuse("401 Unauthorized", &["401", "HF_TOKEN"]), 1);
    assert_eq!(refuse("403 Forbidden", &["403", "accept its terms"]), 1);
    assert_eq!(refuse("404 Not Found", &["404", "no such repository"]), 1);
    assert_eq!(refuse("500 Internal Server Error", &["500"]), 5);
    assert_eq!(refuse("429 Too Many Requests", &["429"]), 5);

    let (cache, server) = (Cache::new("token"), Server::new(|_| Answer::status("401 Unauthorized")));
    let hub = Hub { token: Some("secret".into()), ..cache.hub(&server) };
    refused(pull(&hub), &["still valid"]);

    let bad = |name: &str, body: Vec<u8>, parts: &[&str]| {
        let (cache, server) = (Cache::new(name), Server::new(move |_| Answer::ok(body.clone())));
        refused(pull(&cache.hub(&server)), parts);
    };
    bad("garbage", b"<html>".to_vec(), &["no listing"]);
    bad("empty", Vec::new(), &["no listing"]);
    bad("binary", vec![255; 100], &["no text"]);
    bad("endless", vec![b' '; 70 << 20], &["longer than"]);
    bad("commit", br#"{"sha": "../../x", "siblings": []}"#.to_vec(), &["no commit"]);
    bad("nothing", listing(&[]).into_bytes(), &["llava convert"]);
    let out = listing(&[
        ("../x.gguf", b"a"),
        ("/x.gguf", b"a"),
        ("a/../../x.gguf", b"a"),
        ("a\\x.gguf", b"a"),
        ("C:x.gguf", b"a"),
    ]);
    bad("outside", out.into_bytes(), &["no language model"]);
    let hash = r#"{"sha": "0", "siblings": [{"rfilename": "x.gguf", "size": 1, "blobId": "../../x"}]}"#;
    bad("hash", hash.as_bytes().to_vec(), &["no language model"]);
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let elsewhere = repository(|request, file| request.path.contains("gguf").then(|| Answer::file(request, file)));
    let to = elsewhere.url.clone();
    let server = repository(move |request, _| {
        request.path.contains("resolve").then(|| Answer::redirect(format!("{to}/cdn{}", request.path)))
    });
    let cache = Cache::new("redirect");
    let hub = Hub { token: Some("secret".into()), ..cache.hub(&server) };
    assert_eq!(fs::read(pull(&hub).unwrap().model).unwrap(), golden("llava/lm.gguf"));
    let token = |r: &Request| r.headers.get("authorization").cloned();
    assert!(server.seen().iter().all(|r| token(r).as_deref() == Some("Bearer secret")));
    let there = elsewhere.seen();
    assert!(there.len() == 2 && there.iter().all(|r| token(r).is_none()), "{there:?}");

    let around =
        repository(|request, _| request.path.contains("resolve").then(|| Answer::redirect(request.path.clone())));
    refused(pull(&Cache::new("around").hub(&around)), &["redirects more than"]);
    let nowhere = repository(|request, _| {
        request.path.contains("resolve").then(|| Answer::redirect("file:///etc/passwd".into()))
    });
    refused(pull(&Cache::new("nowhere").hub(&nowhere)), &["redirects to nowhere"]);
}

#[test]
fn several_may_pull_at_once() {
    let (cache, server) = (Cache::new("several"), repository(|_, _| None));
    let hub = cache.hub(&server);
    let pairs: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| pull(&hub).unwrap())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(pairs.iter().all(|p| *p == pairs[0]));
    assert_eq!(fs::read(&pairs[0].model).unwrap(), golden("llava/lm.gguf"));
    let downloads = server.seen().iter().filter(|r| r.path.contains("resolve")).count();
    assert_eq!(downloads, 2, "each file once");
}

/// A disk that is full: the file that the contents go to leads to one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let (cache, server) = (Cache::new("full"), repository(|_, _| None));
    let blobs = cache.0.join("models--a--b/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let partial = blobs.join(format!("{}.incomplete", sha256(&golden("llava/lm.gguf"))));
    std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
    let error = pull(&cache.hub(&server)).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("No space left"), "{error}");
    fs::remove_file(&partial).unwrap();
    pull(&cache.hub(&server)).unwrap();
}
