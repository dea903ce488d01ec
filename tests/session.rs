//! Conversations on a small random pair: what they compute again and what not, and that every way of asking gives the
//! same answer.

use llava::prompt::Role;
use llava::{Batch, Control, Embedding, Error, FinishReason, Generation, Image, Model, PixelFormat, Session, Stage};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden/transformers", name].iter().collect()
}

fn model() -> Model {
    Model::builder(golden("llava/lm.gguf")).mmproj(golden("llava/mmproj.gguf")).threads(2).load().unwrap()
}

fn image(name: &str) -> Image {
    Image::open(golden("images").join(name)).unwrap()
}

fn short(session: &mut Session) {
    session.set_generation(Generation { max_tokens: 12, ..Generation::default() }).unwrap();
}

fn session(model: &Model) -> Session {
    let mut s = model.session();
    short(&mut s);
    s
}

#[test]
fn whole_streamed_and_batched_answers_are_the_same() {
    let model = model();
    let (wide, tall) = (image("wide.png"), image("tall.png"));
    let questions = [("What is this?", vec![&wide]), ("And these two?", vec![&tall, &wide]), ("No image.", vec![])];
    let mut batch = Batch::new(&model);
    for (question, images) in &questions {
        batch.push(session(&model), question, images).unwrap();
    }
    for ((question, images), (_, batched)) in questions.iter().zip(batch.run()) {
        let whole = session(&model).ask(question, images).unwrap();
        assert_eq!(whole.token_ids.len(), 12, "{question}");
        assert_eq!(whole.finish_reason, FinishReason::Length);

        let mut pieces = String::new();
        let answer = session(&model).ask_with(question, images, |piece| {
            pieces += piece;
            ControlFlow::Continue(())
        });
        assert_eq!((answer.unwrap().token_ids, &pieces), (whole.token_ids.clone(), &whole.text));

        let mut s = session(&model);
        let stream = s.stream(question, images).unwrap();
        assert_eq!(stream.map(|piece| piece.unwrap()).collect::<String>(), whole.text);

        let batched = batched.unwrap();
        assert_eq!((batched.token_ids, batched.text), (whole.token_ids, whole.text), "{question}");
    }
}

#[test]
fn a_second_question_computes_only_what_is_new() {
    let model = model();
    let mut s = session(&model);
    let first = s.ask("What is this?", &[&image("wide.png")]).unwrap();
    assert_eq!(first.image_tokens, 16);
    assert!(first.prompt_tokens > 16);
    let second = s.ask("And now?", &[]).unwrap();
    assert_eq!(second.image_tokens, 16, "the image is still part of the prompt");

    // The same conversation without a cache gives the same answer.
    let mut fresh = session(&model);
    fresh.ask("What is this?", &[&image("wide.png")]).unwrap();
    let fresh_answer = fresh.ask("And now?", &[]).unwrap();
    assert_eq!(second.token_ids, fresh_answer.token_ids);
    assert_eq!(s.messages().len(), 4);
    assert_eq!(s.messages()[3].role, Role::Assistant);

    s.reset();
    assert!(s.messages().is_empty() && s.position() == 0);
    let again = s.ask("What is this?", &[&image("wide.png")]).unwrap();
    assert_eq!(again.token_ids, first.token_ids, "nothing of the old conversation is left");
}

#[test]
fn forks_of_a_prefilled_image_answer_as_fresh_sessions_do() {
    let model = model();
    let wide = image("wide.png");
    let mut base = session(&model);
    base.prefill(&[&wide]).unwrap();
    let prefilled = base.position();
    assert!(prefilled >= 16);
    for question in ["What is this?", "Why?", "How many?"] {
        let mut fork = base.fork();
        let answer = fork.ask(question, &[]).unwrap();
        assert_eq!(answer.image_tokens, 16);
        assert_eq!(answer.token_ids, session(&model).ask(question, &[&wide]).unwrap().token_ids, "{question}");
    }
    assert_eq!(base.position(), prefilled, "forks leave their origin alone");
}

#[test]
fn embeddings_can_be_saved_loaded_and_reused() {
    let model = model();
    let wide = image("wide.png");
    let embedding = model.encode(&wide).unwrap();
    let path = std::env::temp_dir().join(format!("llava-embedding-{}.npy", std::process::id()));
    embedding.save(&path).unwrap();
    let loaded = Embedding::load(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(loaded.values(), embedding.values());
    let mut s = session(&model);
    s.attach(loaded).unwrap();
    let answer = s.ask("What is this?", &[]).unwrap();
    assert_eq!(answer.token_ids, session(&model).ask("What is this?", &[&wide]).unwrap().token_ids);
    let wrong = Embedding::new(vec![0.0; 10], 5).unwrap();
    assert!(matches!(s.attach(wrong), Err(Error::InvalidArgument { .. })));
}

#[test]
fn scores_are_log_probabilities_and_leave_the_conversation_alone() {
    let model = model();
    let wide = image("wide.png");
    let mut s = session(&model);
    let choices = ["yes", "no", "a rather long answer that goes on"];
    let scores = s.score("Is it?", &[&wide], &choices).unwrap();
    assert!(scores.iter().all(|s| s.logprob < 0.0 && s.tokens > 0));
    assert!(s.messages().is_empty());
    // In another order, and again: the same.
    let reversed: Vec<_> = choices.iter().rev().copied().collect();
    let mut again = s.score("Is it?", &[&wide], &reversed).unwrap();
    again.reverse();
    assert_eq!(scores, again);

    // The greedy answer's own log-probabilities add up to its score.
    s.set_generation(Generation { max_tokens: 5, logprobs: Some(3), ..Generation::default() }).unwrap();
    let answer = s.ask("Is it?", &[&wide]).unwrap();
    assert_eq!(answer.logprobs.len(), answer.token_ids.len());
    for (info, id) in answer.logprobs.iter().zip(&answer.token_ids) {
        assert_eq!((info.token.id, info.top[0].id, info.top.len()), (*id, *id, 3));
        assert_eq!(info.token.logprob, info.top[0].logprob);
        assert!(info.top.windows(2).all(|w| w[0].logprob >= w[1].logprob));
    }
    let mut t = session(&model);
    t.set_generation(Generation { max_tokens: 1, logprobs: Some(0), ..Generation::default() }).unwrap();
    let first = t.ask("Is it?", &[&wide]).unwrap();
    assert_eq!(first.logprobs[0].token, answer.logprobs[0].token);
    assert!(first.logprobs[0].top.is_empty());
}

#[test]
fn stop_texts_end_the_answer_and_are_cut_off() {
    let model = model();
    let full = session(&model).ask("What is this?", &[]).unwrap();
    let chars: Vec<(usize, char)> = full.text.char_indices().collect();
    // Every two neighbouring characters as a stop text, streamed.
    for pair in chars.windows(2) {
        let stop: String = pair.iter().map(|(_, c)| c).collect();
        let mut s = model.session();
        s.set_generation(Generation {
            max_tokens: 12,
            stop: vec![stop.clone(), String::new()],
            ..Generation::default()
        })
        .unwrap();
        let mut streamed = String::new();
        let answer = s
            .ask_with("What is this?", &[], |piece| {
                streamed += piece;
                ControlFlow::Continue(())
            })
            .unwrap();
        let expected = &full.text[..full.text.find(&stop).unwrap()];
        assert_eq!((answer.text.as_str(), answer.finish_reason), (expected, FinishReason::Stop), "{stop:?}");
        assert_eq!(streamed, answer.text, "{stop:?}");
    }
    let mut s = model.session();
    let token = full.token_ids[3];
    s.set_generation(Generation { max_tokens: 12, stop_tokens: vec![token], ..Generation::default() }).unwrap();
    let answer = s.ask("What is this?", &[]).unwrap();
    let first = full.token_ids.iter().position(|id| *id == token).unwrap();
    assert_eq!((&answer.token_ids[..], answer.finish_reason), (&full.token_ids[..first], FinishReason::Stop));
}

#[test]
fn a_full_context_is_an_error_before_and_a_finish_reason_after() {
    let pair = || Model::builder(golden("llava/lm.gguf")).mmproj(golden("llava/mmproj.gguf"));
    let tight = pair().context(10).load().unwrap();
    let mut s = tight.session();
    match s.ask("What?", &[&image("wide.png")]) {
        Err(Error::ContextFull { needed, image_tokens: 16, context: 10, trained }) => {
            assert!(needed > 16 && trained > 10);
        }
        other => panic!("{other:?}"),
    }
    assert!(s.messages().is_empty());
    assert!(matches!(pair().context(0).load(), Err(Error::InvalidArgument { .. })));
    assert!(matches!(pair().context(1 << 30).load(), Err(Error::InvalidArgument { .. })));

    let prompt = model().session().ask("What?", &[]).unwrap().prompt_tokens;
    let some = pair().context(prompt + 3).load().unwrap();
    let answer = some.session().ask("What?", &[]).unwrap();
    assert_eq!((answer.token_ids.len(), answer.finish_reason), (3, FinishReason::Context));
}

#[test]
fn breaking_off_keeps_the_answer_so_far_in_the_conversation() {
    let model = model();
    let mut s = session(&model);
    let mut pieces = 0;
    let answer = s
        .ask_with("What is this?", &[], |_| {
            pieces += 1;
            if pieces == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(answer.finish_reason, FinishReason::Cancelled);
    assert!(!answer.token_ids.is_empty() && answer.token_ids.len() < 12);
    assert_eq!(s.messages().len(), 2);
    // A stream that is dropped does the same.
    let mut stream = s.stream("And?", &[]).unwrap();
    stream.next().unwrap().unwrap();
    drop(stream);
    assert_eq!(s.messages().len(), 4);
}

#[test]
fn cancelling_from_another_thread_ends_the_answer() {
    let model = model();
    let mut s = model.session();
    s.set_generation(Generation { max_tokens: 100_000, temperature: 1.0, seed: Some(1), ..Generation::default() })
        .unwrap();
    let control = s.control();
    let mut started = false;
    let answer = s
        .ask_with("What is this?", &[&image("wide.png")], |_| {
            if !started {
                started = true;
                let control = control.clone();
                std::thread::spawn(move || control.cancel());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    // Without the cancellation the context would have been filled.
    assert_eq!(answer.finish_reason, FinishReason::Cancelled);
    // The next question is not affected.
    short(&mut s);
    assert_eq!(s.ask("And?", &[]).unwrap().finish_reason, FinishReason::Length);
}

#[test]
fn progress_counts_every_layer_and_can_cancel() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = |control: &Control| {
        let seen = seen.clone();
        control.on_progress(move |p| {
            seen.lock().unwrap().push((p.stage, p.done, p.total));
            ControlFlow::Continue(())
        });
    };
    let steps = |stage, total| (0..=total).map(move |done| (stage, done, total));
    let control = Control::default();
    record(&control);
    let builder = Model::builder(golden("llava/lm.gguf")).mmproj(golden("llava/mmproj.gguf"));
    let model = builder.load_with(&control).unwrap();
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), steps(Stage::Load, 4).collect::<Vec<_>>());

    let (wide, layers) = (image("wide.png"), model.decoder_config().n_layer);
    model.encode_with(&wide, &control).unwrap();
    let encode = std::mem::take(&mut *seen.lock().unwrap());
    assert!(encode.len() > 1);
    assert_eq!(encode, steps(Stage::Encode, encode.len() - 1).collect::<Vec<_>>());
    let mut s = session(&model);
    record(&s.control());
    let answer = s.ask("What is this?", &[&wide, &wide]).unwrap();
    // Two images; then the prompt, which fits one pass. Nothing is said of the answer itself.
    let expected = steps(Stage::Encode, 2 * (encode.len() - 1)).chain(steps(Stage::Prefill, layers));
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected.collect::<Vec<_>>());

    // Whatever step it is cancelled at, the session is as before.
    for at in 0..2 * encode.len() + layers {
        let mut s = session(&model);
        let mut n = 0;
        s.control().on_progress(move |_| {
            n += 1;
            if n == at + 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(s.ask("What is this?", &[&wide, &wide]), Err(Error::Cancelled)), "step {at}");
        assert!(s.messages().is_empty());
        assert_eq!(s.ask("What is this?", &[&wide, &wide]).unwrap().text, answer.text);
    }
}

#[test]
fn a_batch_reports_each_failure_in_its_place() {
    let model = model();
    let text_only = Model::open(golden("qwen2/lm.gguf")).unwrap();
    let mut batch = Batch::new(&model);
    batch.push(session(&model), "", &[]).unwrap();
    batch.push(session(&model), "What?", &[]).unwrap();
    assert!(matches!(batch.push(text_only.session(), "What?", &[]), Err(Error::InvalidArgument { .. })));
    let results = batch.run();
    assert!(matches!(results[0].1, Err(Error::InvalidArgument { .. })));
    assert_eq!(results[1].1.as_ref().unwrap().token_ids.len(), 12);
    assert!(matches!(text_only.encode(&image("wide.png")), Err(Error::ModelNotFound(_))));
    assert!(matches!(text_only.session().ask("?", &[&image("wide.png")]), Err(Error::ModelNotFound(_))));
}

#[test]
fn sessions_on_many_threads_share_a_model() {
    let model = model();
    let expected = session(&model).ask("What is this?", &[&image("wide.png")]).unwrap().token_ids;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let got = session(&model).ask("What is this?", &[&image("wide.png")]).unwrap();
                assert_eq!(got.token_ids, expected);
            });
        }
    });
}

#[test]
fn a_cache_type_that_the_model_has_no_blocks_for_is_refused() {
    let result = Model::builder(golden("llava/lm.gguf")).kv_type(llava::KvType::Q8_0).load();
    let message = result.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(message.starts_with("kv_type: q8_0 needs heads whose width is a multiple of 32"), "{message}");
}

#[test]
fn answers_do_not_depend_on_the_number_of_threads() {
    let tokens = |threads: usize| {
        let model = Model::builder(golden("llava/lm.gguf")).mmproj(golden("llava/mmproj.gguf")).threads(threads);
        let mut s = model.load().unwrap().session();
        s.set_generation(Generation { max_tokens: 40, logprobs: Some(1), ..Generation::default() }).unwrap();
        let answer = s.ask("What is this?", &[&image("wide.png")]).unwrap();
        answer.logprobs.iter().map(|l| (l.token.id, l.token.logprob.to_bits())).collect::<Vec<_>>()
    };
    assert_eq!(tokens(1), tokens(2));
}

#[test]
fn raw_pixels_and_files_give_the_same_embedding() {
    let model = model();
    let wide = image("wide.png");
    let (w, h) = (wide.width(), wide.height());
    let bgr: Vec<u8> = wide.rgb().chunks(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
    let raw = Image::from_pixels(&bgr, w, h, 3 * w as usize, PixelFormat::Bgr).unwrap();
    assert_eq!(model.encode(&raw).unwrap().values(), model.encode(&wide).unwrap().values());
}

#[test]
fn a_prompt_longer_than_one_pass_gives_the_same_logits_however_many_are_asked_for() {
    let model = model();
    let input: Vec<_> = (0..1000).map(|i| llava::Input::Token(i * 7 % 250)).collect();
    let last = model.logits(&input, 1).unwrap();
    for n in [2, 488, 489, 1000] {
        let several = model.logits(&input, n).unwrap();
        assert_eq!(several.len(), n * last.len());
        assert_eq!(several[several.len() - last.len()..], last[..], "{n} positions");
    }
}

#[test]
fn a_failed_answer_leaves_the_conversation_as_it_was() {
    let model = model();
    let mut s = session(&model);
    s.ask("What is this?", &[&image("wide.png")]).unwrap();
    s.attach(model.encode(&image("tall.png")).unwrap()).unwrap();
    let forbidden = (0..model.tokenizer().vocab_size() as u32).map(|id| (id, f32::NEG_INFINITY)).collect();
    s.set_generation(Generation { logit_bias: forbidden, ..Generation::default() }).unwrap();
    assert!(s.ask("And this?", &[]).is_err());
    assert_eq!(s.messages().len(), 2);

    short(&mut s);
    let answer = s.ask("And this?", &[]).unwrap();
    assert_eq!(answer.image_tokens, 32, "the attached image is still attached");
    let mut fresh = session(&model);
    fresh.ask("What is this?", &[&image("wide.png")]).unwrap();
    assert_eq!(fresh.ask("And this?", &[&image("tall.png")]).unwrap().token_ids, answer.token_ids);

    s.attach(model.encode(&image("tall.png")).unwrap()).unwrap();
    s.detach();
    assert_eq!(s.ask("Really?", &[]).unwrap().image_tokens, 32);
}

#[test]
fn a_batch_cancelled_while_questions_are_added_stays_cancelled() {
    let model = model();
    let mut batch = Batch::new(&model);
    batch.push(session(&model), "One?", &[]).unwrap();
    batch.control().cancel();
    batch.push(session(&model), "Two?", &[]).unwrap();
    let results = batch.run();
    assert_eq!(results[0].1.as_ref().unwrap().finish_reason, FinishReason::Cancelled);
    assert!(matches!(results[1].1, Err(Error::Cancelled)));
}

#[test]
fn a_named_mmproj_settles_which_of_a_folders_is_meant() {
    let folder = std::env::temp_dir().join(format!("llava-two-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(golden("llava/lm.gguf"), folder.join("lm.gguf")).unwrap();
    for name in ["mmproj-a.gguf", "mmproj-b.gguf"] {
        std::fs::copy(golden("llava/mmproj.gguf"), folder.join(name)).unwrap();
    }
    let unnamed = Model::open(&folder);
    let named = Model::builder(&folder).mmproj(folder.join("mmproj-b.gguf")).load();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(matches!(unnamed, Err(Error::ModelNotFound(reason)) if reason.contains("mmproj-a.gguf")));
    assert!(named.is_ok());
}
