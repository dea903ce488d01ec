//! The tokenizer on made-up vocabularies: llama.cpp's ids, and vocabularies that are broken.

use llava::Error;
use llava::gguf::{Array, File, Value, Writer};
use llava::tokenizer::{Special, TextStream, TokenType, Tokenizer, Vocabulary};

/// What tests/golden/tokenizer/make.py writes.
#[derive(serde::Deserialize)]
struct Golden {
    model: String,
    tokens: Vec<String>,
    types: Vec<i32>,
    merges: Option<Vec<String>>,
    scores: Option<Vec<f32>>,
    strings: Vec<String>,
    answers: Vec<Answer>,
}

#[derive(serde::Deserialize)]
struct Answer {
    name: String,
    pre: Option<String>,
    bos: u32,
    eos: u32,
    add_bos: bool,
    stop: Vec<u32>,
    plain: Vec<Vec<u32>>,
    parse: Vec<Vec<u32>>,
}

impl Golden {
    fn read(json: &str) -> Self {
        serde_json::from_str(json).unwrap()
    }

    /// The vocabulary as the GGUF file that llama.cpp read.
    fn tokenizer(&self, answer: &Answer) -> Tokenizer {
        let mut w = Writer::new();
        w.set("general.name", Value::String(answer.name.clone()));
        w.set("tokenizer.ggml.model", Value::String(self.model.clone()));
        w.set("tokenizer.ggml.tokens", Value::Array(Array::String(self.tokens.clone())));
        w.set("tokenizer.ggml.token_type", Value::Array(Array::I32(self.types.clone())));
        if let Some(pre) = &answer.pre {
            w.set("tokenizer.ggml.pre", Value::String(pre.clone()));
        }
        if let Some(merges) = &self.merges {
            w.set("tokenizer.ggml.merges", Value::Array(Array::String(merges.clone())));
        }
        if let Some(scores) = &self.scores {
            w.set("tokenizer.ggml.scores", Value::Array(Array::F32(scores.clone())));
        }
        w.set("tokenizer.ggml.bos_token_id", Value::U32(answer.bos));
        w.set("tokenizer.ggml.eos_token_id", Value::U32(answer.eos));
        Tokenizer::from_gguf(&File::from_bytes(w.to_bytes()).unwrap()).unwrap()
    }

    fn check(&self) {
        for answer in &self.answers {
            let t = self.tokenizer(answer);
            let label = format!("{} {:?}", answer.name, answer.pre);
            assert_eq!(
                (t.bos(), t.eos(), t.adds_bos()),
                (Some(answer.bos), Some(answer.eos), answer.add_bos),
                "{label}"
            );
            assert_eq!(t.stop_tokens(), answer.stop, "{label}");
            for (special, expected) in [(Special::Plain, &answer.plain), (Special::Parse, &answer.parse)] {
                for (text, ids) in self.strings.iter().zip(expected) {
                    assert_eq!(t.encode(text, special, false), *ids, "{label} {special:?} {text:?}");
                }
            }
        }
    }
}

const BYTE_LEVEL: &str = include_str!("golden/tokenizer/byte_level.json");
const SENTENCEPIECE: &str = include_str!("golden/tokenizer/sentencepiece.json");
const EQUAL_SCORES: &str = include_str!("golden/tokenizer/equal_scores.json");

#[test]
fn byte_level_ids_equal_llama_cpp_for_every_pre_tokenizer() {
    let golden = Golden::read(BYTE_LEVEL);
    // The pre-tokenizers must differ on these strings, or this would prove less than it says.
    for (i, a) in golden.answers.iter().enumerate() {
        assert!(golden.answers[..i].iter().all(|b| a.plain != b.plain), "{:?}", a.pre);
    }
    golden.check();
}

#[test]
fn sentencepiece_ids_equal_llama_cpp_also_where_special_tokens_strip() {
    let golden = Golden::read(SENTENCEPIECE);
    assert_ne!(golden.answers[0].parse, golden.answers[1].parse);
    golden.check();
}

#[test]
fn tokens_of_equal_score_are_joined_from_the_left() {
    Golden::read(EQUAL_SCORES).check();
}

/// A SentencePiece vocabulary of bytes and a few words.
fn vocabulary() -> Vocabulary {
    let mut v = Vocabulary::new("<test>", "llama");
    v.tokens = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    v.tokens.extend((0..=255u8).map(|b| format!("<0x{b:02X}>")));
    v.tokens.extend(["▁", "▁cat", "s", "é", "🙂"].map(str::to_owned));
    v.types = vec![TokenType::Unknown, TokenType::Control, TokenType::Control];
    v.types.extend([TokenType::Byte; 256]);
    v.types.extend([TokenType::Normal; 5]);
    v.scores = vec![0.0; v.tokens.len()];
    v
}

#[test]
fn bos_comes_only_when_asked_for() {
    let t = Tokenizer::new(vocabulary()).unwrap();
    assert_eq!(t.encode("", Special::Parse, true), [1]);
    assert_eq!(t.encode("s", Special::Parse, false), [259, 261]);
    assert_eq!(t.encode("<s>s", Special::Parse, true), [1, 1, 259, 261]);
}

#[test]
fn a_stream_never_shows_half_a_character() {
    let t = Tokenizer::new(vocabulary()).unwrap();
    let bytes = |bytes: &[u8]| bytes.iter().map(|&b| u32::from(b) + 3).collect::<Vec<u32>>();
    let shown = |tokens: &[u32]| {
        let mut stream = TextStream::new(&t);
        let mut parts: Vec<String> = tokens.iter().map(|&id| stream.push(&t, id)).collect();
        parts.push(stream.finish());
        parts
    };
    assert_eq!(shown(&bytes("a🙂".as_bytes())), ["a", "", "", "", "🙂", ""]);
    assert_eq!(shown(&bytes(b"\xf0\x9f\x99")), ["", "", "", "\u{fffd}"]);
    assert_eq!(shown(&bytes(b"\xe2\x82x")), ["", "", "\u{fffd}x", ""]);
    assert_eq!(shown(&bytes(b"\xff\x80")), ["\u{fffd}", "\u{fffd}", ""]);
    // The space in front of the first word goes, later ones stay; control tokens and foreign ids give nothing.
    assert_eq!(shown(&[1, 260, 2, 260, 999_999]), ["", "cat", "", " cat", "", ""]);
    assert_eq!(shown(&[259, 260]), ["", " cat", ""]);
    assert_eq!(t.decode(&[1, 260, 262, 2]), "caté");
}

#[test]
fn plain_text_never_becomes_a_control_token() {
    let mut v = vocabulary();
    // Every prefix is a token, so that merging would reach the control token.
    for text in ["<", "/", ">", "</", "</s"] {
        v.tokens.push(text.to_owned());
        v.types.push(TokenType::Normal);
        v.scores.push(0.0);
    }
    let t = Tokenizer::new(v).unwrap();
    let ids = t.encode("</s>", Special::Plain, false);
    assert!(!ids.contains(&2), "{ids:?}");
    assert_eq!(t.decode(&ids), "</s>");
    assert_eq!(t.encode("</s>", Special::Parse, false), [2]);
}

#[test]
fn broken_vocabularies_are_errors_that_say_what_is_wrong() {
    type Break = fn(&mut Vocabulary);
    let cases: [(Break, &str); 8] = [
        (|v| v.tokens[5] = "<s>".into(), "twice"),
        (|v| v.scores[3] = f32::NAN, "NaN"),
        (|v| v.scores.truncate(7), "7 scores"),
        (|v| v.types.clear(), "0 types"),
        (|v| *v = Vocabulary::new("<test>", "llama"), "empty"),
        (|v| v.model = "bert".into(), "bert"),
        (|v| v.model = "gpt2".into(), "merges"),
        (
            |v| {
                v.model = "gpt2".into();
                v.pre = Some("viking".into());
            },
            "llama-bpe",
        ),
    ];
    for (break_it, word) in cases {
        let mut v = vocabulary();
        break_it(&mut v);
        let error = Tokenizer::new(v).unwrap_err();
        assert!(matches!(error, Error::InvalidModel { .. } | Error::Unsupported { .. }));
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn what_llama_cpp_tolerates_is_tolerated() {
    let mut v = vocabulary();
    v.bos = Some(1_000_000);
    v.eot = Some(u32::MAX);
    v.tokens[10] = String::new();
    let t = Tokenizer::new(v).unwrap();
    assert_eq!((t.bos(), t.adds_bos(), t.stop_tokens()), (None, false, &[2][..]));
    assert_eq!(t.token_text(10), Some("[EMPTY_10]"));

    let mut v = Vocabulary::new("<test>", "gpt2");
    v.tokens = ["a", "b", "ab", "abab"].map(str::to_owned).to_vec();
    v.types = vec![TokenType::Normal; 4];
    v.scores = vec![0.0; 4];
    v.merges = ["", " ", "a", "a ", "a b", "a b", "x y", "ab ab", "abab abab", "é é"].map(str::to_owned).to_vec();
    let t = Tokenizer::new(v).unwrap();
    assert_eq!(t.encode("ababxab", Special::Plain, false), [3, 2]);
}

#[test]
fn metadata_of_the_wrong_shape_is_an_error_with_the_key() {
    let tokens = Value::Array(Array::String(vec!["a".into(), "b".into()]));
    for (key, value) in [
        ("tokenizer.ggml.scores", Value::Array(Array::F32(vec![1.0]))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1]))),
        ("tokenizer.ggml.token_type", Value::Array(Array::String(vec!["x".into()]))),
        ("tokenizer.ggml.add_bos_token", Value::U32(1)),
        ("tokenizer.ggml.tokens", Value::U32(1)),
        ("tokenizer.ggml.model", Value::Bool(true)),
    ] {
        let mut w = Writer::new();
        w.set("tokenizer.ggml.model", Value::String("llama".into()));
        w.set("tokenizer.ggml.tokens", tokens.clone());
        w.set(key, value);
        let error = Tokenizer::from_gguf(&File::from_bytes(w.to_bytes()).unwrap()).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn a_million_equal_characters_are_tokenised_in_seconds() {
    for json in [BYTE_LEVEL, SENTENCEPIECE, EQUAL_SCORES] {
        let golden = Golden::read(json);
        for answer in &golden.answers {
            let t = golden.tokenizer(answer);
            for c in ["a", " ", "=", "\n", "é", "1", "<"] {
                let start = std::time::Instant::now();
                t.encode(&c.repeat(1_000_000 / c.len()), Special::Parse, false);
                assert!(start.elapsed().as_secs() < 60, "{:?} {c:?}", answer.pre);
            }
        }
    }
}
