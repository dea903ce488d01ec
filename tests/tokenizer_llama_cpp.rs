//! The tokenizer against llama.cpp, on the vocabularies of real models.
//!
//! `tests/oracle/tokenizer.py` writes what llama.cpp says into `$LLAVA_TEST_ASSETS/tokenizer` (by default
//! `target/test-assets/tokenizer`). Without that folder these tests say so and pass.

use llava::gguf::File;
use llava::tokenizer::{Special, Tokenizer};
use std::path::PathBuf;

#[derive(serde::Deserialize)]
struct Answer {
    bos: i64,
    eos: i64,
    add_bos: bool,
    stop: Vec<u32>,
    plain: Vec<Vec<u32>>,
    parse: Vec<Vec<u32>>,
    pieces: Vec<String>,
}

fn folder() -> Option<PathBuf> {
    let root = std::env::var_os("LLAVA_TEST_ASSETS").map_or_else(|| PathBuf::from("target/test-assets"), PathBuf::from);
    let folder = root.join("tokenizer");
    if folder.join("strings.json").is_file() {
        return Some(folder);
    }
    eprintln!("skipped: no {}; tests/oracle/tokenizer.py writes it", folder.display());
    None
}

fn json<T: serde::de::DeserializeOwned>(path: PathBuf) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Every vocabulary in the folder, with llama.cpp's answers.
fn each(check: impl Fn(&str, &Tokenizer, &Answer, &[String])) {
    let Some(folder) = folder() else { return };
    let strings: Vec<String> = json(folder.join("strings.json"));
    let mut names: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|e| e == "gguf"));
    names.sort();
    assert!(!names.is_empty());
    for path in names {
        let tokenizer = Tokenizer::from_gguf(&File::open(&path).unwrap()).unwrap();
        let answer: Answer = json(path.with_extension("json"));
        check(&path.file_stem().unwrap().to_string_lossy(), &tokenizer, &answer, &strings);
    }
}

#[test]
fn ids_equal_llama_cpp_with_and_without_special_tokens() {
    each(|name, tokenizer, answer, strings| {
        for (special, expected) in [(Special::Plain, &answer.plain), (Special::Parse, &answer.parse)] {
            assert_eq!(expected.len(), strings.len());
            let wrong: Vec<_> = (strings.iter().zip(expected))
                .map(|(text, ids)| (text, ids, tokenizer.encode(text, special, false)))
                .filter(|(_, ids, got)| *ids != got)
                .collect();
            assert!(wrong.is_empty(), "{name} {special:?}: {} differ, such as {:?}", wrong.len(), &wrong[..1]);
            println!("{name} {special:?}: {} strings, none differs", strings.len());
        }
    });
}

#[test]
fn special_ids_stop_tokens_and_pieces_equal_llama_cpp() {
    each(|name, tokenizer, answer, _| {
        assert_eq!(tokenizer.bos(), u32::try_from(answer.bos).ok(), "{name}");
        assert_eq!(tokenizer.eos(), u32::try_from(answer.eos).ok(), "{name}");
        assert_eq!(tokenizer.adds_bos(), answer.add_bos, "{name}");
        assert_eq!(tokenizer.stop_tokens(), answer.stop, "{name}");
        assert_eq!(tokenizer.vocab_size(), answer.pieces.len(), "{name}");
        for (id, piece) in (0..).zip(&answer.pieces) {
            let bytes = tokenizer.token_bytes(id).unwrap();
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, *piece, "{name} {id} {:?}", tokenizer.token_text(id));
        }
    });
}

#[test]
fn decoding_gives_the_text_back() {
    each(|name, tokenizer, _, strings| {
        // Byte-level vocabularies that lack a byte cannot; a literal U+2581 is a space to SentencePiece.
        let mut bytes: Vec<u8> =
            (0..).map_while(|id| tokenizer.token_bytes(id)).filter(|b| b.len() == 1).flatten().collect();
        bytes.sort_unstable();
        bytes.dedup();
        if bytes.len() < 256 {
            return println!("{name}: has {} of 256 bytes", bytes.len());
        }
        for text in strings.iter().filter(|text| !text.contains('\u{2581}')) {
            let ids = tokenizer.encode(text, Special::Plain, false);
            if ids.iter().all(|&id| !tokenizer.token_bytes(id).unwrap().is_empty()) {
                assert_eq!(tokenizer.decode(&ids), *text, "{name}");
            }
        }
    });
}

#[test]
fn the_text_after_an_image_starts_as_the_reference_has_it() {
    let Some(folder) = folder() else { return };
    let tokenizer = Tokenizer::from_gguf(&File::open(folder.join("llama-spm.gguf")).unwrap()).unwrap();
    assert_eq!(tokenizer.encode("\nWhat", Special::Parse, false), [29871, 13, 5618]);
}

#[test]
fn a_million_equal_characters_do_not_take_quadratic_time() {
    each(|name, tokenizer, _, _| {
        for c in ["a", " ", "=", "\n", "é", "0"] {
            let text = c.repeat(1_000_000 / c.len());
            let start = std::time::Instant::now();
            let ids = tokenizer.encode(&text, Special::Parse, false);
            let seconds = start.elapsed().as_secs_f64();
            println!("{name} {c:?}: {} tokens in {seconds:.2} s", ids.len());
            // Quadratic work on a million characters would take hours.
            assert!(seconds < 60.0, "{name} {c:?}: {seconds} s");
        }
    });
}
