//! Tensors that are missing, of other shapes, or stored in every type there is.

use super::support::{Edit, Folder, check_error, golden, run, survives};
use half::f16;
use llava::gguf::{File, Writer};
use llava::quant::{BlockType, dequantize};
use llava::{Input, Model};
use std::path::Path;

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

/// Tensors that a model can do without, as their absence means something else.
fn is_optional(name: &str) -> bool {
    // The embedding serves as output; biases are optional; without mm.2 the projector is linear, without the class
    // token the tower is SigLIP's, without pre_ln.weight there is no such norm, and without fused layers single ones.
    let norm = [".ln1.", ".ln2.", "v.pre_ln.bias"].iter().any(|part| name.contains(part));
    name == "output.weight" || name.ends_with(".bias") && !norm || name == "v.pre_ln.weight"
}

#[test]
fn a_missing_tensor_is_named() {
    let (lm, mmproj) = (Edit::lm(), Edit::mmproj());
    for (name, ..) in lm.tensors().iter().filter(|t| !is_optional(&t.0)) {
        refused(&lm.clone().without(name), &mmproj, &[name, "missing"]);
    }
    for (name, ..) in mmproj.tensors().iter().filter(|t| !is_optional(&t.0)) {
        match name.as_str() {
            "v.class_embd" => refused(&lm, &mmproj.clone().without(name), &["v.position_embd.weight", "16 rows"]),
            // A linear projector, whose one layer fits here.
            "mm.2.weight" => {
                run(lm.bytes(), Some(mmproj.clone().without(name).bytes())).unwrap();
            }
            _ => refused(&lm, &mmproj.clone().without(name), &[name, "missing"]),
        }
    }
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    for (i, edit) in [Edit::lm(), Edit::mmproj()].iter().enumerate() {
        for (name, dims, ..) in edit.tensors() {
            for change in [|d: usize| d + 1, |d: usize| 2 * d, |d: usize| d.div_ceil(2), |_| 1] {
                for at in 0..dims.len() {
                    let mut other = dims.clone();
                    other[at] = change(other[at]);
                    if other == *dims {
                        continue;
                    }
                    let case = format!("{name} {other:?}");
                    let changed = edit.clone().zeros(name, &other);
                    let (lm, mmproj) = if i == 0 { (changed, Edit::mmproj()) } else { (Edit::lm(), changed) };
                    match survives(&case, || run(lm.bytes(), Some(mmproj.bytes()))) {
                        Err(error) => check_error(&case, &error),
                        // More rows than tokens in the vocabulary are padding.
                        Ok(_) => panic!("{case}: gave an answer"),
                    }
                }
            }
        }
    }
}

#[test]
fn more_blocks_than_are_stored_are_missed_and_fewer_are_fewer() {
    refused(&Edit::lm().u32("llama.block_count", 4), &Edit::mmproj(), &["blk.3.", "missing"]);
    refused(&Edit::lm(), &Edit::mmproj().u32("clip.vision.block_count", 4), &["v.blk.3.", "missing"]);
    let (lm, mmproj) = (Edit::lm().u32("llama.block_count", 1), Edit::mmproj().u32("clip.vision.block_count", 1));
    run(lm.bytes(), Some(mmproj.bytes())).unwrap();
}

#[test]
fn positions_that_do_not_fit_the_patches_are_refused() {
    for rows in [1, 15, 16, 18, 257] {
        let mmproj = Edit::mmproj().zeros("v.position_embd.weight", &[32, rows]);
        refused(&Edit::lm(), &mmproj, &["v.position_embd.weight", "17 rows (16 patches)"]);
    }
    // 56 pixels in patches of 13: the 4 pixels that remain are not seen, as by the convolution.
    let mmproj = Edit::mmproj().u32("clip.vision.patch_size", 13).zeros("v.patch_embd.weight", &[13, 13, 3, 32]);
    assert_eq!(run(Edit::lm().bytes(), Some(mmproj.bytes())).unwrap().image_tokens, 16);
}

#[test]
fn a_pair_of_different_widths_is_told_apart_from_a_damaged_file() {
    let mmproj = Edit::mmproj().zeros("mm.2.weight", &[64, 48]).zeros("mm.2.bias", &[48]);
    let error = run(Edit::lm().bytes(), Some(mmproj.bytes())).unwrap_err();
    assert!(matches!(error, llava::Error::PairMismatch { .. }), "{error}");
    assert!(error.to_string().contains("48") && error.to_string().contains("64"), "{error}");
}

#[test]
fn weights_that_are_not_numbers_are_an_error() {
    for nan in [f16::NAN, f16::INFINITY] {
        let all = |edit: Edit, name: &str| {
            let (_, dims, block_type, data) = edit.tensors().iter().find(|t| t.0 == name).unwrap().clone();
            assert_eq!(block_type, BlockType::F16);
            edit.tensor(name, &dims, BlockType::F16, nan.to_le_bytes().repeat(data.len() / 2))
        };
        for name in ["token_embd.weight", "blk.1.attn_k.weight", "blk.2.ffn_up.weight", "output.weight"] {
            refused(&all(Edit::lm(), name), &Edit::mmproj(), &["logits", "not a number"]);
        }
        refused(&Edit::lm(), &all(Edit::mmproj(), "v.blk.0.attn_v.weight"), &["logits", "not a number"]);
    }
}

/// Blocks of arbitrary bits whose scales make values of about 0.05.
fn blocks(t: BlockType, values: usize, seed: usize) -> Vec<u8> {
    let mut state = seed as u32 + 1;
    let mut byte = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 24) as u8
    };
    // (place of an f16 in the block, its value); the rest may be anything.
    let scales: &[(usize, f32)] = match t {
        BlockType::F32 | BlockType::F16 | BlockType::BF16 => &[],
        BlockType::Q4_0 | BlockType::Q5_0 => &[(0, 0.006)],
        BlockType::Q4_1 | BlockType::Q5_1 => &[(0, 0.006), (2, -0.05)],
        BlockType::Q8_0 | BlockType::IQ4_NL => &[(0, 0.0006)],
        BlockType::Q2_K => &[(80, 0.003), (82, 0.004)],
        BlockType::Q3_K => &[(108, 0.0008)],
        BlockType::Q4_K | BlockType::Q5_K => &[(0, 0.0001), (2, 0.0008)],
        BlockType::Q6_K => &[(208, 0.00003)],
    };
    let mut out = Vec::new();
    for _ in 0..values / t.block_len() {
        let mut block: Vec<u8> = (0..t.block_bytes()).map(|_| byte()).collect();
        let value = f32::from(byte()) / 2550.0 - 0.05;
        match t {
            BlockType::F32 => block.copy_from_slice(&value.to_le_bytes()),
            BlockType::F16 => block.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
            BlockType::BF16 => block.copy_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
            _ => {}
        }
        for &(at, scale) in scales {
            block[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        }
        out.extend(block);
    }
    out
}

/// A file of `shapes` in which `pick` chooses each tensor's type. Norms are ones, biases are left out.
fn build(
    metadata: Edit,
    shapes: &[(String, Vec<usize>)],
    pick: impl Fn(usize, &str) -> BlockType,
    as_f32: bool,
) -> Vec<u8> {
    let mut w = Writer::new();
    metadata.metadata().iter().for_each(|(key, value)| {
        w.set(key.as_str(), value.clone());
    });
    for (i, (name, dims)) in shapes.iter().enumerate() {
        let n: usize = dims.iter().product();
        let t = pick(i, name);
        let (t, data) = match name.contains("norm") || name.contains(".ln") {
            true => (BlockType::F32, 1f32.to_le_bytes().repeat(n)),
            false => (t, blocks(t, n, i)),
        };
        if as_f32 {
            let mut values = vec![0.0; n];
            dequantize(t, &data, &mut values);
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            w.tensor(name.as_str(), dims, BlockType::F32, bytes).unwrap();
        } else {
            w.tensor(name.as_str(), dims, t, data).unwrap();
        }
    }
    w.to_bytes()
}

fn lm_shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes =
        vec![("token_embd.weight".to_owned(), vec![256, 280]), ("output_norm.weight".to_owned(), vec![256])];
    for i in 0..2 {
        for (name, dims) in [
            ("attn_norm", vec![256]),
            ("attn_q", vec![256, 256]),
            ("attn_k", vec![256, 128]),
            ("attn_v", vec![256, 128]),
            ("attn_output", vec![256, 256]),
            ("ffn_norm", vec![256]),
            ("ffn_gate", vec![256, 512]),
            ("ffn_up", vec![256, 512]),
            ("ffn_down", vec![512, 256]),
        ] {
            shapes.push((format!("blk.{i}.{name}.weight"), dims));
        }
    }
    shapes
}

fn lm_metadata() -> Edit {
    let sizes =
        [("embedding_length", 256), ("block_count", 2), ("feed_forward_length", 512), ("rope.dimension_count", 64)];
    sizes.iter().fold(Edit::lm(), |edit, (key, n)| edit.u32(&format!("llama.{key}"), *n))
}

fn tower_shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes: Vec<_> = [
        ("mm.0.weight", vec![256, 256]),
        ("mm.2.weight", vec![256, 256]),
        ("v.class_embd", vec![256]),
        ("v.patch_embd.weight", vec![14, 14, 3, 256]),
        ("v.position_embd.weight", vec![256, 17]),
    ]
    .map(|(name, dims)| (name.to_owned(), dims))
    .into();
    for (name, dims) in [
        ("attn_q", vec![256, 256]),
        ("attn_k", vec![256, 256]),
        ("attn_v", vec![256, 256]),
        ("attn_out", vec![256, 256]),
        ("ffn_up", vec![256, 512]),
        ("ffn_down", vec![512, 256]),
    ] {
        shapes.push((format!("v.blk.0.{name}.weight"), dims));
    }
    for part in ["ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias"] {
        shapes.push((format!("v.blk.0.{part}"), vec![256]));
    }
    shapes
}

fn tower_metadata() -> Edit {
    let sizes = [("embedding_length", 256), ("block_count", 1), ("feed_forward_length", 512)];
    sizes.iter().fold(Edit::mmproj(), |edit, (key, n)| edit.u32(&format!("clip.vision.{key}"), *n))
}

/// Logits after an image and some tokens.
fn logits(folder: &Path, exact: bool) -> Vec<f32> {
    let builder = Model::builder(folder.join("lm.gguf")).mmproj(folder.join("mmproj.gguf"));
    let model = builder.exact(exact).load().unwrap();
    let image = llava::Image::open(golden("images/wide.png")).unwrap();
    let image = Input::Image(model.encode(&image).unwrap());
    model.logits(&[Input::Token(1), image, Input::Token(70), Input::Token(104)], 1).unwrap()
}

fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)))
        / norm(&mut expected.iter().map(|x| f64::from(*x)))
}

/// A pair whose matrices are stored as `pick` says computes what the pair of its dequantised values computes.
fn check_types(name: &str, pick: impl Fn(usize) -> BlockType) {
    let float = |t: BlockType| if t.is_float() { t } else { BlockType::F16 };
    // Convolutions are never quantised.
    let tower = |i: usize, name: &str| if name == "v.patch_embd.weight" { float(pick(i)) } else { pick(i) };
    let save = |as_f32: bool| {
        let folder = Folder::new(&format!("types-{name}-{as_f32}"));
        folder.file("lm.gguf", &build(lm_metadata(), &lm_shapes(), |i, _| pick(i), as_f32));
        folder.file("mmproj.gguf", &build(tower_metadata(), &tower_shapes(), tower, as_f32));
        folder
    };
    let (stored, plain) = (save(false), save(true));
    assert!(File::open(stored.0.join("lm.gguf")).unwrap().tensors().len() == lm_shapes().len());
    let expected = survives(name, || logits(&plain.0, true));
    assert!(expected.iter().all(|x| x.is_finite()), "{name}");
    // Only the order of f32 sums differs.
    let error = relative_error(&survives(name, || logits(&stored.0, true)), &expected);
    assert!(error < 1e-5, "{name}: {error:e}");
    // Activations in 8 bits (relative step 1/127) through two layers of random weights.
    let error = relative_error(&survives(name, || logits(&stored.0, false)), &expected);
    assert!(error < 0.05, "{name}: {error:e} with quantised activations");
}

#[test]
fn every_type_is_read_in_every_matrix_of_both_files() {
    for t in BlockType::ALL {
        check_types(t.name(), |_| t);
    }
}

#[test]
fn types_may_be_mixed_in_any_way() {
    for shift in 0..3 {
        check_types(&format!("mixed-{shift}"), |i| BlockType::ALL[(i * 5 + shift) % BlockType::ALL.len()]);
    }
}
