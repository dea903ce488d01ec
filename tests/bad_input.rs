//! Pictures, prompts, embeddings and settings that can't be right: each is an error that says why, or is harmless.

use llava::image::Limits;
use llava::{Batch, Embedding, Error, FinishReason, Generation, Image, Input, Model, Session};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden/transformers", name].iter().collect()
}

fn model() -> Model {
    Model::builder(golden("llava/lm.gguf")).mmproj(golden("llava/mmproj.gguf")).threads(1).load().unwrap()
}

fn session(model: &Model) -> Session {
    let mut session = model.session();
    session.set_generation(Generation { max_tokens: 2, ..Generation::default() }).unwrap();
    session
}

fn image() -> Image {
    Image::open(golden("images/wide.png")).unwrap()
}

/// The start of a PNG of `width` by `height` pixels, 8-bit RGB, with a valid checksum and no pixels.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    // CRC-32 as PNG's specification has it, bit by bit.
    let crc = !chunk.iter().fold(u32::MAX, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
    });
    let mut png = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d".to_vec();
    png.extend(chunk);
    png.extend(crc.to_be_bytes());
    // An image data chunk that never ends, for decoders that look for one before they answer.
    png.extend(b"\x00\x01\x00\x00IDAT\x78\x9c");
    png
}

#[test]
fn pictures_that_are_none_say_what_they_are() {
    let refused = |bytes: &[u8], parts: &[&str]| {
        let Err(Error::InvalidImage { name, reason }) = Image::decode(bytes, "cat.jpg", &Limits::default()) else {
            panic!("{parts:?}")
        };
        assert!(name == "cat.jpg" && parts.iter().all(|p| reason.contains(p)), "{reason}");
    };
    refused(b"", &["empty"]);
    refused(b"Dear reader, here is the cat you asked for.", &["text", "JPEG, PNG, WebP"]);
    refused(&png_header(10_000, 10_000), &["10000 by 10000", "64000000"]);
    refused(&png_header(65_535, 65_535), &["65535 by 65535"]);
    refused(&png_header(u32::MAX >> 1, 1), &["more memory than is allowed"]);
    refused(&png_header(0, 7), &[]);
    refused(&png_header(40, 40), &["cut short"]);

    let folder = std::env::temp_dir().join(format!("llava-bad-input-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in [("text.jpg", &b"Dear reader"[..]), ("empty.png", b"")] {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        assert!(Image::open(&path).unwrap_err().to_string().contains(name));
    }
    assert!(matches!(Image::open(&folder), Err(Error::Io { .. })), "a folder");
    assert!(matches!(Image::open(folder.join("absent.jpg")), Err(Error::Io { .. })));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_prompt_that_does_not_fit_is_refused_with_its_numbers() {
    let model = Model::builder(golden("llava/lm.gguf")).mmproj(golden("llava/mmproj.gguf")).context(20).load().unwrap();
    let mut s = session(&model);
    let error = s.ask("What is on the mat?", &[&image()]).unwrap_err();
    let Error::ContextFull { needed, image_tokens, context, trained } = error else { panic!("{error}") };
    assert_eq!((image_tokens, context, trained), (16, 20, 1024));
    assert!(needed > 20);
    for n in [needed, image_tokens, context, trained] {
        assert!(error.to_string().contains(&n.to_string()), "{error}");
    }
    assert!(s.messages().is_empty() && s.position() == 0, "the conversation is as it was");
    assert!(matches!(model.logits(&[const { Input::Token(1) }; 20], 1), Err(Error::ContextFull { needed: 20, .. })));
    assert!(model.logits(&[const { Input::Token(1) }; 19], 1).is_ok());
}

#[test]
fn a_very_long_prompt_is_refused_soon() {
    let model = model();
    let start = Instant::now();
    for text in
        ["word ".repeat(200_000), "x".repeat(1_000_000), "<s>".repeat(300_000), format!("x{}x", " ".repeat(999_999))]
    {
        let error = session(&model).ask(&text, &[]).unwrap_err();
        assert!(matches!(error, Error::ContextFull { .. }), "{error}");
    }
    // A second or so; quadratic time would be hours.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn a_prompt_without_text_is_refused() {
    let model = model();
    for text in ["", " ", "\n\t \r\n", "\u{2003}"] {
        let error = session(&model).ask(text, &[&image()]).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { name: "prompt", .. }), "{text:?}: {error}");
    }
}

#[test]
fn prompts_of_odd_characters_are_answered() {
    let model = model();
    let all: String = (1..32u8).map(char::from).collect();
    for text in
        ["a\0b", "\0", &all, "\u{fdd0}", "\u{feff}\u{202e}x", "<image>", "<image><image>", "</s>", "é\u{301}\u{10ffff}"]
    {
        let answer = session(&model).ask(text, &[&image()]).unwrap();
        assert_eq!(answer.image_tokens, 16, "{text:?} neither adds an image nor takes one away");
    }
}

#[test]
fn embeddings_of_another_width_are_refused() {
    let model = model();
    let wide = Embedding::new(vec![0.0; 4 * 65], 65).unwrap();
    let error = model.session().attach(wide.clone()).unwrap_err().to_string();
    assert!(error.contains("65") && error.contains("64"), "{error}");
    let error = model.logits(&[Input::Token(1), Input::Image(wide)], 1).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    for (values, width) in [(vec![], 64), (vec![0.0; 63], 64), (vec![0.0; 64], 0)] {
        assert!(Embedding::new(values, width).is_err());
    }
}

#[test]
fn an_embedding_that_is_not_a_number_is_an_error_and_leaves_the_session_usable() {
    let model = model();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut s = session(&model);
        s.attach(Embedding::new(vec![bad; 64], 64).unwrap()).unwrap();
        let error = s.ask("What is it?", &[]).unwrap_err().to_string();
        assert!(error.contains("not a number"), "{error}");
        s.reset();
        assert_eq!(s.ask("And this?", &[&image()]).unwrap().token_ids.len(), 2);
    }
}

#[test]
fn tokens_outside_the_vocabulary_are_refused() {
    let model = model();
    for id in [280, 281, u32::MAX] {
        let error = model.logits(&[Input::Token(1), Input::Token(id)], 1).unwrap_err().to_string();
        assert!(error.contains(&id.to_string()) && error.contains("280"), "{error}");
    }
    assert!(matches!(model.logits(&[], 1), Err(Error::InvalidArgument { .. })));
    assert_eq!(model.tokenizer().decode(&[280, u32::MAX]), "");
}

#[test]
fn settings_out_of_range_are_named_and_odd_ones_are_harmless() {
    let model = model();
    let d = Generation::default;
    for (name, bad) in [
        ("temperature", Generation { temperature: -0.1, ..d() }),
        ("temperature", Generation { temperature: f32::INFINITY, ..d() }),
        ("top_p", Generation { top_p: f32::NAN, ..d() }),
        ("top_p", Generation { top_p: 1.1, ..d() }),
        ("min_p", Generation { min_p: -1.0, ..d() }),
        ("repeat_penalty", Generation { repeat_penalty: f32::NAN, ..d() }),
        ("logit_bias", Generation { logit_bias: vec![(0, f32::INFINITY)], ..d() }),
    ] {
        let error = model.session().set_generation(bad).unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    }
    for odd in [
        Generation { temperature: f32::MIN_POSITIVE, ..d() },
        Generation { temperature: f32::MAX, top_k: usize::MAX, ..d() },
        Generation { temperature: 1.0, top_p: f32::MIN_POSITIVE, min_p: 0.999, top_k: 1, ..d() },
        Generation { repeat_penalty: f32::MIN_POSITIVE, ..d() },
        Generation { repeat_penalty: f32::MAX, temperature: 1.0, ..d() },
        Generation { logit_bias: vec![(u32::MAX, 1.0), (5, f32::MAX), (6, f32::MIN)], ..d() },
        Generation { stop: vec![String::new(), "\0".into(), "x".repeat(100_000)], ..d() },
        Generation { stop_tokens: vec![u32::MAX], logprobs: Some(usize::MAX), ..d() },
    ] {
        let mut s = model.session();
        s.set_generation(Generation { max_tokens: 3, seed: Some(1), ..odd.clone() }).unwrap();
        s.ask("Hi", &[]).unwrap_or_else(|e| panic!("{odd:?}: {e}"));
    }
    let mut s = model.session();
    s.set_generation(Generation { max_tokens: 0, ..d() }).unwrap();
    let answer = s.ask("Hi", &[]).unwrap();
    assert_eq!((answer.text.as_str(), answer.finish_reason), ("", FinishReason::Length));

    // Every token forbidden: nothing is left to draw.
    let bias = (0..280).map(|id| (id, f32::NEG_INFINITY)).collect();
    s.set_generation(Generation { logit_bias: bias, ..d() }).unwrap();
    assert!(s.ask("Hi", &[]).is_err());
}

#[test]
fn an_answer_ends_where_the_context_does() {
    let model = Model::builder(golden("llava/lm.gguf")).context(300).load().unwrap();
    let mut s = model.session();
    s.set_generation(Generation { max_tokens: usize::MAX, ..Generation::default() }).unwrap();
    let answer = s.ask("Hi", &[]).unwrap();
    assert!(matches!(answer.finish_reason, FinishReason::Context | FinishReason::Stop));
    assert!(s.position() <= 300);
}

#[test]
fn a_model_without_an_mmproj_says_so() {
    let bytes = std::fs::read(golden("llava/lm.gguf")).unwrap();
    let model = Model::from_bytes(bytes, None).unwrap();
    let image = image();
    let said = |error: Error| assert!(matches!(&error, Error::ModelNotFound(m) if m.contains("mmproj")), "{error}");
    said(model.encode(&image).unwrap_err());
    said(model.features(&image).unwrap_err());
    said(model.image_tokens(3, 3).unwrap_err());
    said(model.describe(&image).unwrap_err());
    said(session(&model).ask("What is it?", &[&image]).unwrap_err());
    assert_eq!(session(&model).ask("No image.", &[]).unwrap().token_ids.len(), 2);
}

#[test]
fn one_bad_question_of_a_batch_spoils_no_other() {
    let model = model();
    let image = image();
    let mut batch = Batch::new(&model);
    batch.push(session(&model), "What is it?", &[&image]).unwrap();
    batch.push(session(&model), "", &[&image]).unwrap();
    batch.push(session(&model), &"word ".repeat(5000), &[]).unwrap();
    let results: Vec<_> = batch.run().into_iter().map(|(_, result)| result).collect();
    assert_eq!(results[0].as_ref().unwrap().token_ids.len(), 2);
    assert!(matches!(results[1], Err(Error::InvalidArgument { .. })));
    assert!(matches!(results[2], Err(Error::ContextFull { .. })));
}

#[test]
fn settings_of_a_model_out_of_range_are_named() {
    let said = |builder: llava::ModelBuilder, parts: &[&str]| {
        let Err(error) = builder.load() else { panic!("{parts:?}") };
        let text = error.to_string();
        assert!(parts.iter().all(|p| text.contains(p)), "{text}");
    };
    let builder = || Model::builder(golden("llava/lm.gguf"));
    said(builder().context(0), &["context", "1 to 1024"]);
    said(builder().context(usize::MAX), &["context", "1 to 1024"]);
    said(builder().threads(0), &["threads"]);
    said(builder().kernels("mmx"), &["kernels", "mmx", "scalar"]);
    said(builder().template("none such"), &["none such", "vicuna_v1"]);
    assert!(builder().threads(usize::MAX).load().is_ok(), "no more than there are processors");
}
