//! Keys that are missing, of another type, or out of range.

use super::support::{Edit, check_error, run, survives};
use llava::gguf::{Array, Value};
use llava::{Error, Model};

/// The pair is refused in words that have all of `parts` in them.
#[track_caller]
fn refused(lm: &Edit, mmproj: &Edit, parts: &[&str]) {
    let case = format!("{parts:?}");
    let error = match survives(&case, || run(lm.bytes(), Some(mmproj.bytes()))) {
        Ok(_) => panic!("{case}: gave an answer"),
        Err(error) => error,
    };
    check_error(&case, &error);
    let text = error.to_string();
    assert!(parts.iter().all(|p| text.contains(p)), "{case}: {text}");
}

#[track_caller]
fn bad_mmproj(mmproj: Edit, parts: &[&str]) {
    refused(&Edit::lm(), &mmproj, parts);
}

#[track_caller]
fn bad_lm(lm: Edit, parts: &[&str]) {
    refused(&lm, &Edit::mmproj(), parts);
}

fn ints(v: &[i32]) -> Value {
    Value::Array(Array::I32(v.to_vec()))
}

fn floats(v: &[f32]) -> Value {
    Value::Array(Array::F32(v.to_vec()))
}

fn text(s: &str) -> Value {
    Value::String(s.to_owned())
}

#[test]
fn every_size_of_a_tower_is_checked() {
    for name in
        ["image_size", "patch_size", "embedding_length", "feed_forward_length", "block_count", "attention.head_count"]
    {
        let key = format!("clip.vision.{name}");
        bad_mmproj(Edit::mmproj().without(&key), &[&key, "missing"]);
        bad_mmproj(Edit::mmproj().u32(&key, 0), &[&key, "is 0"]);
        bad_mmproj(Edit::mmproj().u32(&key, u32::MAX), &[&key, "4294967295"]);
        bad_mmproj(Edit::mmproj().set(&key, Value::I32(-1)), &[&key, "-1"]);
        bad_mmproj(Edit::mmproj().set(&key, text("14")), &[&key, "string"]);
        bad_mmproj(Edit::mmproj().set(&key, Value::F32(14.0)), &[&key, "f32"]);
        // Sizes that the tensors do not have.
        for n in [1, 7, 1000] {
            let result = survives(&key, || run(Edit::lm().bytes(), Some(Edit::mmproj().u32(&key, n).bytes())));
            assert!(result.is_err() || name == "block_count" || name == "attention.head_count", "{key} = {n}");
        }
    }
    bad_mmproj(Edit::mmproj().u32("clip.vision.patch_size", 57), &["clip.vision.patch_size", "57"]);
    bad_mmproj(Edit::mmproj().u32("clip.vision.attention.head_count", 5), &["head_count", "does not divide"]);
    let many = Edit::mmproj().u32("clip.vision.image_size", 4096).u32("clip.vision.patch_size", 1);
    bad_mmproj(many, &["clip.vision.patch_size", "16777216 patches"]);
    let eps = "clip.vision.attention.layer_norm_epsilon";
    for value in [Value::F32(f32::NAN), Value::F32(f32::INFINITY), Value::F32(-1.0), Value::U32(1)] {
        bad_mmproj(Edit::mmproj().set(eps, value), &[eps]);
    }
}

#[test]
fn means_and_deviations_are_three_sound_numbers() {
    for key in ["clip.vision.image_mean", "clip.vision.image_std"] {
        bad_mmproj(Edit::mmproj().without(key), &[key, "missing"]);
        bad_mmproj(Edit::mmproj().set(key, floats(&[])), &[key, "0 values"]);
        bad_mmproj(Edit::mmproj().set(key, floats(&[0.5, 0.5])), &[key, "2 values"]);
        bad_mmproj(Edit::mmproj().set(key, floats(&[0.5, f32::NAN, 0.5])), &[key]);
        bad_mmproj(Edit::mmproj().set(key, Value::F32(0.5)), &[key, "array"]);
        bad_mmproj(Edit::mmproj().set(key, Value::Array(Array::F64(vec![0.5; 3]))), &[key, "f64"]);
        bad_mmproj(Edit::mmproj().set(key, ints(&[1, 1, 1])), &[key, "i32"]);
        // More than three are the padding of some converters.
        run(Edit::lm().bytes(), Some(Edit::mmproj().set(key, floats(&[0.5; 4])).bytes())).unwrap();
    }
    bad_mmproj(Edit::mmproj().set("clip.vision.image_std", floats(&[0.5, 0.0, 0.5])), &["clip.vision", "std"]);
    bad_mmproj(Edit::mmproj().set("clip.vision.image_std", floats(&[0.5, -1.0, 0.5])), &["clip.vision", "std"]);
    bad_mmproj(Edit::mmproj().set("clip.vision.image_mean", floats(&[0.5, 1e30, 0.5])), &["clip.vision", "mean"]);
}

#[test]
fn pinpoints_are_pairs_of_whole_tiles() {
    const KEY: &str = "clip.vision.image_grid_pinpoints";
    let with = |v: Value| Edit::golden("llava-next/mmproj.gguf").set(KEY, v);
    bad_mmproj(with(ints(&[56, 112, 112])), &[KEY, "3 values"]);
    bad_mmproj(with(ints(&[56])), &[KEY, "1 values"]);
    bad_mmproj(with(ints(&[56, -112])), &[KEY, "-112"]);
    bad_mmproj(with(ints(&[0, 0])), &["clip.vision", "0 by 0"]);
    bad_mmproj(with(ints(&[56, 0])), &["clip.vision", "56 by 0"]);
    bad_mmproj(with(ints(&[57, 56])), &["clip.vision", "whole tiles"]);
    bad_mmproj(with(ints(&[i32::MAX - 7, 56])), &["clip.vision"]);
    bad_mmproj(with(ints(&[56 * 1000, 56 * 1000])), &["clip.vision", "at most 64"]);
    bad_mmproj(with(Value::Array(Array::U64(vec![u64::MAX, 56]))), &[KEY]);
    bad_mmproj(with(floats(&[56.0, 112.0])), &[KEY, "integers"]);
    bad_mmproj(with(Value::Array(Array::I64(vec![1; 100_001]))), &[KEY, "100001 values"]);
    for same in [
        Value::Array(Array::U16(vec![56, 112, 112, 56])),
        Value::Array(Array::I64(vec![56, 112, 112, 56])),
        Value::Array(Array::U64(vec![56, 112, 112, 56])),
    ] {
        run(Edit::lm().bytes(), Some(with(same).bytes())).unwrap();
    }
}

#[test]
fn feature_layers_are_stored_blocks() {
    const KEY: &str = "clip.vision.feature_layer";
    for bad in [&[][..], &[4], &[-1], &[-2], &[0, 4], &[1, 1], &[i32::MAX], &[i32::MIN, 1]] {
        bad_mmproj(Edit::mmproj().set(KEY, ints(bad)), &[KEY, "0 to the 3 stored blocks"]);
    }
    bad_mmproj(Edit::mmproj().set(KEY, Value::I32(2)), &[KEY, "array"]);
    for good in 0..=3 {
        run(Edit::lm().bytes(), Some(Edit::mmproj().set(KEY, ints(&[good])).bytes())).unwrap();
    }
}

#[test]
fn projectors_and_flags_that_are_not_known_are_named() {
    let projector = "clip.projector_type";
    for other in ["", "resampler", "mlp_norm", "qwen2vl_merger"] {
        bad_mmproj(Edit::mmproj().set(projector, text(other)), &[projector, other, "ldpv2"]);
    }
    bad_mmproj(Edit::mmproj().set(projector, Value::U32(1)), &[projector, "u32"]);
    bad_mmproj(Edit::mmproj().set(projector, text("ldp")), &["16"]);
    let both = Edit::mmproj().set("clip.use_gelu", Value::Bool(true)).set("clip.use_silu", Value::Bool(true));
    bad_mmproj(both, &["clip.use_gelu", "clip.use_silu"]);
    bad_mmproj(Edit::mmproj().set("clip.has_vision_encoder", Value::Bool(false)), &["clip.has_vision_encoder"]);
    bad_mmproj(Edit::mmproj().set("clip.has_vision_encoder", Value::U8(1)), &["clip.has_vision_encoder", "bool"]);
    let merge = "clip.vision.mm_patch_merge_type";
    bad_mmproj(Edit::mmproj().set(merge, text("spatial_unpad")), &["model.image_newline", "missing"]);
    bad_mmproj(Edit::mmproj().set(merge, text("maxpool")), &[merge, "maxpool"]);
}

#[test]
fn every_size_of_a_decoder_is_checked() {
    for name in [
        "context_length",
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "rope.dimension_count",
    ] {
        let key = format!("llama.{name}");
        bad_lm(Edit::lm().u32(&key, 0), &[&key, "is 0"]);
        bad_lm(Edit::lm().set(&key, Value::I64(-1)), &[&key, "-1"]);
        bad_lm(Edit::lm().set(&key, text("4")), &[&key, "string"]);
        bad_lm(Edit::lm().set(&key, Value::F64(4.0)), &[&key, "f64"]);
        bad_lm(Edit::lm().set(&key, ints(&[1, 2, 3])), &[&key, "differs between layers"]);
        bad_lm(Edit::lm().set(&key, ints(&[])), &[&key]);
        if name != "context_length" {
            bad_lm(Edit::lm().u32(&key, u32::MAX), &["llama.", "4294967295"]);
        }
        if !["attention.head_count_kv", "rope.dimension_count"].contains(&name) {
            bad_lm(Edit::lm().without(&key), &[&key, "missing"]);
        }
    }
    bad_lm(Edit::lm().u32("llama.attention.head_count", 5), &["llama.attention.head_count"]);
    bad_lm(Edit::lm().u32("llama.attention.head_count_kv", 3), &["head_count_kv", "does not divide"]);
    bad_lm(Edit::lm().u32("llama.attention.head_count_kv", 8), &["head_count_kv", "does not divide"]);
    bad_lm(Edit::lm().u32("llama.rope.dimension_count", 18), &["rope.dimension_count", "16"]);
    bad_lm(Edit::lm().u32("llama.rope.dimension_count", 3), &["rope.dimension_count", "even"]);
    bad_lm(Edit::lm().u32("llama.attention.value_length", 8), &["value_length", "not supported"]);
    bad_lm(Edit::lm().u32("llama.attention.key_length", 1 << 18), &["blk.0.attn_q.weight"]);
    bad_lm(Edit::lm().u32("llama.expert_count", 8), &["llama.expert_count", "mixture of experts"]);
    for (key, value) in [
        ("llama.attention.layer_norm_rms_epsilon", -1.0),
        ("llama.attention.layer_norm_rms_epsilon", f32::NAN),
        ("llama.rope.freq_base", 0.0),
        ("llama.rope.freq_base", f32::INFINITY),
        ("llama.rope.scaling.factor", 0.0),
        ("llama.rope.scaling.factor", f32::NAN),
    ] {
        bad_lm(Edit::lm().set(key, Value::F32(value)), &[key]);
    }
    bad_lm(Edit::lm().set("llama.rope.scaling.type", text("dynamic")), &["llama.rope.scaling.type", "dynamic"]);
    bad_lm(Edit::lm().set("llama.rope.scaling.type", text("longrope")), &["rope_factors_", "missing"]);
}

#[test]
fn the_longest_context_costs_nothing_until_it_is_used() {
    let lm = Edit::lm().u32("llama.context_length", u32::MAX).bytes();
    let model = survives("context", || Model::from_bytes(lm, None)).unwrap();
    assert_eq!(model.context(), u32::MAX as usize);
    assert_eq!(model.kv_bytes(usize::MAX), u64::MAX, "a size that does not fit is the largest");
    super::support::ask(&model, false).unwrap();
}

#[test]
fn architectures_that_are_not_known_are_named() {
    const KEY: &str = "general.architecture";
    bad_lm(Edit::lm().without(KEY), &[KEY, "missing"]);
    bad_lm(Edit::lm().set(KEY, text("mamba")), &[KEY, "mamba", "llama, qwen2, phi3"]);
    bad_lm(Edit::lm().set(KEY, text("")), &[KEY]);
    bad_lm(Edit::lm().set(KEY, Value::U8(1)), &[KEY, "u8"]);
    bad_lm(Edit::lm().set(KEY, text(&"x".repeat(100_000))), &[KEY]);
    refused(&Edit::mmproj(), &Edit::mmproj(), &[KEY, "this is an mmproj"]);
    refused(&Edit::lm(), &Edit::lm(), &[KEY, "this is not an mmproj"]);
}

#[test]
fn a_vocabulary_is_whole_and_fits_the_matrix() {
    let strings = |v: Vec<String>| Value::Array(Array::String(v));
    let tokens = "tokenizer.ggml.tokens";
    let n = |n: usize| strings((0..n).map(|i| format!("t{i}")).collect());
    bad_lm(Edit::lm().without(tokens), &[tokens, "missing"]);
    bad_lm(Edit::lm().set(tokens, n(0)), &[tokens, "empty"]);
    bad_lm(Edit::lm().set(tokens, n(281)), &["tokenizer.ggml.scores", "280 entries for 281 tokens"]);
    let scores = floats(&vec![0.0; 300]);
    let types = ints(&vec![1; 300]);
    let larger = Edit::lm().set("tokenizer.ggml.scores", scores).set("tokenizer.ggml.token_type", types);
    bad_lm(larger.set(tokens, n(281)), &[tokens, "281 tokens", "280 rows"]);
    bad_lm(Edit::lm().set(tokens, strings(vec!["a".into(); 280])), &[tokens, "twice"]);
    let mut long: Vec<String> = (0..280).map(|i| format!("t{i}")).collect();
    long[7] = "x".repeat(1 << 20);
    bad_lm(Edit::lm().set(tokens, strings(long)), &[tokens, "token 7", "1048576 bytes"]);
    bad_lm(Edit::lm().set(tokens, ints(&[1])), &[tokens, "strings"]);
    bad_lm(Edit::lm().set("tokenizer.ggml.scores", floats(&vec![f32::NAN; 280])), &["tokenizer.ggml.scores", "NaN"]);
    bad_lm(Edit::lm().set("tokenizer.ggml.token_type", floats(&[1.0])), &["tokenizer.ggml.token_type"]);
    bad_lm(Edit::lm().set("tokenizer.ggml.model", text("bert")), &["tokenizer.ggml.model", "bert"]);
    bad_lm(Edit::lm().set("tokenizer.ggml.model", text("gpt2")), &["tokenizer.ggml.merges"]);
    let bpe = Edit::lm().set("tokenizer.ggml.model", text("gpt2"));
    let bpe = bpe.set("tokenizer.ggml.merges", strings(vec!["a b".into(), "".into(), " ".into(), "é".into()]));
    bad_lm(bpe.clone().set("tokenizer.ggml.pre", text("gpt-99")), &["tokenizer.ggml.pre", "gpt-99"]);
    survives("odd merges", || run(bpe.bytes(), None)).unwrap();
    // As in llama.cpp, an id outside the vocabulary is as good as none.
    let outside = Edit::lm().u32("tokenizer.ggml.bos_token_id", u32::MAX).u32("tokenizer.ggml.eos_token_id", 280);
    survives("ids", || run(outside.bytes(), None)).unwrap();
    // A vocabulary without letters: text becomes unknown tokens, and an answer is still made.
    survives("no letters", || run(Edit::lm().set(tokens, n(280)).bytes(), None)).unwrap();
}

#[test]
fn a_hostile_chat_template_is_an_error_and_not_a_hang() {
    const KEY: &str = "tokenizer.chat_template";
    for source in [
        "{% for i in range(100000000) %}x{% endfor %}".to_owned(),
        "{% for i in range(9999) %}{% for j in range(9999) %}{{ 'x' ~ i }}{% endfor %}{% endfor %}".to_owned(),
        "{{ raise_exception('no') }}".to_owned(),
        "{{ messages[99].content.x.y }}".to_owned(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "no image is shown".to_owned(),
    ] {
        let lm = Edit::lm().set(KEY, text(&source)).bytes();
        let result = survives(&source, || {
            let model = Model::from_bytes(lm, Some(Edit::mmproj().bytes()))?;
            model.session().ask("Hi", &[&super::support::picture()])
        });
        assert!(matches!(result, Err(Error::Template { .. })), "{source}: {result:?}");
    }
    for source in [
        "{{",
        "{{ 'x' * 999999999 }}",
        &"(".repeat(40_000),
        &format!("{{{{ {}1 }}}}", "-".repeat(30_000)),
        "{% include '/etc/passwd' %}",
    ] {
        // What does not compile is replaced by one of the family's own styles.
        let lm = Edit::lm().set(KEY, text(source)).bytes();
        survives("template", || run(lm, None)).unwrap();
    }
}
