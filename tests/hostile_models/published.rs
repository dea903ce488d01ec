//! Small files in the shapes of those that people have: what the loader takes them for.

use super::support::{Edit, ask, picture, survives};
use llava::gguf::{Array, Value};
use llava::image::Fit;
use llava::{Model, ProjectorKind, VisionConfig};

/// Loads the pair, asks it about a picture, and returns what the mmproj was taken for and the number of image tokens.
#[track_caller]
fn load(lm: &Edit, mmproj: &Edit) -> (VisionConfig, usize) {
    let model = survives("load", || Model::from_bytes(lm.bytes(), Some(mmproj.bytes()))).unwrap();
    let answer = survives("ask", || ask(&model, true)).unwrap();
    let picture = picture();
    assert_eq!(answer.image_tokens, model.image_tokens(picture.width(), picture.height()).unwrap());
    (model.vision_config().unwrap().clone(), answer.image_tokens)
}

fn text(s: &str) -> Value {
    Value::String(s.to_owned())
}

/// The mmproj with fc1 and fc2 under each other's names, or back.
fn swapped(mut edit: Edit, blocks: usize) -> Edit {
    for i in 0..blocks {
        for part in ["weight", "bias"] {
            let name = |ffn: &str| format!("v.blk.{i}.{ffn}.{part}");
            edit = edit.rename(&name("ffn_up"), "t").rename(&name("ffn_down"), &name("ffn_up"));
            edit = edit.rename("t", &name("ffn_down"));
        }
    }
    edit
}

#[test]
fn llava_1_5_of_2023_without_a_projector_type() {
    // mys/ggml_llava-v1.5-7b: no projector_type, no feature_layer, the legacy names, 23 of CLIP's 24 blocks.
    let mmproj = Edit::mmproj().without("clip.projector_type");
    let (c, tokens) = load(&Edit::lm(), &mmproj);
    assert_eq!((c.projector, c.fit, c.newline, tokens), (ProjectorKind::Mlp, Fit::Pad, None, 16));
    assert!(c.class_token && c.swapped_ffn);
    assert_eq!((c.n_blocks, c.feature_layers), (3, vec![3]));
    assert!(c.feature_rule.contains("all stored blocks"), "{}", c.feature_rule);
}

#[test]
fn both_ways_of_naming_the_feed_forward_layers_compute_the_same() {
    let embedding = |edit: &Edit| {
        let model = Model::from_bytes(Edit::lm().bytes(), Some(edit.bytes())).unwrap();
        model.encode(&picture()).unwrap().values().to_vec()
    };
    let new = swapped(Edit::mmproj(), 3);
    assert!(!load(&Edit::lm(), &new).0.swapped_ffn);
    assert_eq!(embedding(&new), embedding(&Edit::mmproj()));
}

#[test]
fn bakllava_has_grouped_heads_and_an_mmproj_of_the_same_age() {
    let lm = Edit::lm();
    let mmproj = Edit::golden("clip-legacy/mmproj.gguf");
    assert!(mmproj.metadata().iter().all(|(key, _)| key != "clip.projector_type"));
    let model = Model::from_bytes(lm.bytes(), None).unwrap();
    assert_eq!((model.decoder_config().n_head, model.decoder_config().n_kv_head), (4, 2));
    let width = mmproj.tensors().iter().find(|t| t.0 == "mm.2.weight").unwrap().1[1];
    // The golden projector is of another width: its last layer is made to fit.
    let rows = |n: usize| vec![64, n];
    let mmproj = if width == 64 { mmproj } else { mmproj.zeros("mm.2.weight", &rows(64)).zeros("mm.2.bias", &[64]) };
    let (c, _) = load(&lm, &mmproj);
    assert_eq!((c.projector, c.fit, c.swapped_ffn), (ProjectorKind::Mlp, Fit::Pad, true));
}

#[test]
fn llava_1_6_has_pinpoints_and_a_newline() {
    let mmproj = Edit::golden("llava-next/mmproj.gguf");
    let (c, tokens) = load(&Edit::lm(), &mmproj);
    let Fit::AnyRes { pinpoints } = &c.fit else { panic!("{:?}", c.fit) };
    assert_eq!(pinpoints.len(), 5);
    assert_eq!(c.newline, Some("model.image_newline"));
    // 40 by 24 pixels on two tiles, one above the other: of 8 rows of 4 patches, 2 are not padding.
    assert_eq!(tokens, 16 + 2 * (4 + 1));

    // Newer converters' name, and files without a merge type.
    let renamed = mmproj.clone().rename("model.image_newline", "v.image_newline");
    assert_eq!(load(&Edit::lm(), &renamed).0.newline, Some("v.image_newline"));
    let unstated = mmproj.clone().without("clip.vision.mm_patch_merge_type");
    let (c, same) = load(&Edit::lm(), &unstated);
    assert_eq!((c.newline, same), (Some("model.image_newline"), tokens));

    // Flat: tile after tile, the newline unused.
    let flat = mmproj.set("clip.vision.mm_patch_merge_type", text("flat"));
    let (c, tokens) = load(&Edit::lm(), &flat);
    assert_eq!((c.newline, tokens), (None, 3 * 16));
}

#[test]
fn a_stated_feature_layer_is_believed() {
    let stated = Value::Array(Array::I32(vec![2]));
    let (c, _) = load(&Edit::lm(), &Edit::mmproj().set("clip.vision.feature_layer", stated));
    assert_eq!((c.feature_layers, c.feature_rule), (vec![2], "stated by the file"));
}

#[test]
fn siglip_is_squashed_and_a_28th_block_is_a_filler() {
    let mut mmproj = Edit::golden("siglip/mmproj.gguf");
    let width = mmproj.tensors().iter().find(|t| t.0 == "mm.2.weight").unwrap().1.clone();
    mmproj = mmproj.zeros("mm.2.weight", &[width[0], 64]).zeros("mm.2.bias", &[64]);
    let (c, _) = load(&Edit::lm(), &mmproj);
    assert_eq!((c.class_token, &c.fit), (false, &Fit::Squash));
    assert_eq!(c.feature_layers, [c.n_blocks]);

    // nanoLLaVA: as many blocks as SigLIP so400m and one more.
    let block: Vec<_> = mmproj.tensors().iter().filter(|t| t.0.starts_with("v.blk.0.")).cloned().collect();
    for i in c.n_blocks..28 {
        for (name, dims, block_type, data) in &block {
            mmproj = mmproj.tensor(&name.replace(".0.", &format!(".{i}.")), dims, *block_type, data.clone());
        }
    }
    let (c, _) = load(&Edit::lm(), &mmproj.u32("clip.vision.block_count", 28));
    assert_eq!(c.feature_layers, [27]);
    assert!(c.feature_rule.contains("filler"), "{}", c.feature_rule);
}

#[test]
fn projectors_are_told_by_their_tensors() {
    let linear = Edit::mmproj().without("mm.2.weight").without("mm.2.bias").without("clip.projector_type");
    let (c, _) = load(&Edit::lm(), &linear);
    assert_eq!((c.projector, c.fit), (ProjectorKind::Linear, Fit::Crop), "LLaVA-1");

    // Yi-VL says mlp, and has norms.
    let yi = Edit::golden("yi-vl/mmproj.gguf");
    let input = yi.tensors().iter().find(|t| t.0 == "mm.3.weight").unwrap().1[0];
    let yi = yi.zeros("mm.3.weight", &[input, 64]).zeros("mm.3.bias", &[64]);
    let (c, _) = load(&Edit::lm(), &yi.zeros("mm.4.weight", &[64]).zeros("mm.4.bias", &[64]));
    assert_eq!(c.projector, ProjectorKind::MlpNorm);
}

#[test]
fn mobilevlm_makes_144_tokens_of_336_pixels() {
    for (name, kind, last) in [
        ("ldp/mmproj.gguf", ProjectorKind::Ldp, "mm.model.mlp.3.weight"),
        ("ldpv2/mmproj.gguf", ProjectorKind::LdpV2, "mm.model.mlp.2.weight"),
    ] {
        let mmproj = Edit::golden(name);
        let d = mmproj.tensors().iter().find(|t| t.0 == last).unwrap().1[1];
        // A language model as wide as the golden projector, of zeros: only its shape matters.
        let mut lm = Edit::lm().u32("llama.embedding_length", d as u32).u32("llama.block_count", 1);
        for (tensor, dims) in [
            ("token_embd.weight", vec![d, 280]),
            ("output.weight", vec![d, 280]),
            ("output_norm.weight", vec![d]),
            ("blk.0.attn_norm.weight", vec![d]),
            ("blk.0.ffn_norm.weight", vec![d]),
            ("blk.0.attn_q.weight", vec![d, 64]),
            ("blk.0.attn_k.weight", vec![d, 32]),
            ("blk.0.attn_v.weight", vec![d, 32]),
            ("blk.0.attn_output.weight", vec![64, d]),
            ("blk.0.ffn_gate.weight", vec![d, 96]),
            ("blk.0.ffn_up.weight", vec![d, 96]),
            ("blk.0.ffn_down.weight", vec![96, d]),
        ] {
            lm = lm.zeros(tensor, &dims);
        }
        let (c, tokens) = load(&lm.u32("llama.attention.key_length", 16), &mmproj);
        assert_eq!((c.projector, c.image_size / c.patch_size, tokens), (kind, 24, 144));
    }
}
