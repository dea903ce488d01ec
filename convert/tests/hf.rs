//! Checkpoints that transformers saved, converted, against what transformers computes; `tests/golden/checkpoints/make.py`
//! wrote them, and they have the weights of `tests/golden/transformers`.

use llava::gguf::File;
use llava::tokenizer::Special;
use llava::{Error, Image, Input, Model, npy};
use llava_convert::diff::diff;
use llava_convert::hf::{Options, Report, convert};
use llava_convert::quantize;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

fn checkpoint(name: &str) -> PathBuf {
    golden("checkpoints").join(name)
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("llava-hf-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A copy of a checkpoint in it.
    fn copy(&self, name: &str) -> PathBuf {
        let to = self.0.join(name);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(checkpoint(name)).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
        }
        to
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options(kind: &str) -> Options {
    Options { text: kind.parse().unwrap(), mmproj: kind.parse().unwrap(), ..Options::default() }
}

fn run(from: &Path, to: &Path, options: &Options) -> Result<Report, Error> {
    convert(from, to, options, &mut |_| ControlFlow::Continue(()))
}

fn manifest() -> Vec<Json> {
    let json: Json = serde_json::from_slice(&fs::read(golden("transformers/manifest.json")).unwrap()).unwrap();
    json["cases"].as_array().unwrap().clone()
}

fn case(name: &str) -> Json {
    manifest().into_iter().find(|c| c["name"] == name).unwrap()
}

fn ids(json: &Json) -> Vec<i64> {
    json.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
}

fn array(path: &Path) -> Vec<f32> {
    npy::load(path).unwrap().0
}

/// The norm of the difference over the norm of `want`.
fn off(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    norm(&mut want.iter().zip(got).map(|(a, b)| a - b)) / norm(&mut want.iter().copied())
}

/// How far image tokens and logits of a converted pair are from transformers'.
fn errors_of_pair(folder: &Path, sample: &Json, values: &Path, exact: bool) -> (f64, f64) {
    let model = Model::builder(folder).exact(exact).load().unwrap();
    let image = Image::open(golden("transformers").join(sample["image"].as_str().unwrap())).unwrap();
    let embedding = model.encode(&image).unwrap();
    let input: Vec<Input> = ids(&sample["ids"])
        .into_iter()
        .map(|id| u32::try_from(id).map_or(Input::Image(embedding.clone()), Input::Token))
        .collect();
    let tokens = off(embedding.values(), &array(&values.join(sample["tokens"].as_str().unwrap())));
    let logits = off(&model.logits(&input, 1).unwrap(), &array(&values.join(sample["logits"].as_str().unwrap())));
    (tokens, logits)
}

/// A LLaVA's files have the tensors of those that the generator of the golden models wrote, and give transformers' values.
#[test]
fn llavas_give_transformers_values() {
    let folder = Folder::new("llavas");
    for name in ["llava", "llava-next"] {
        let to = folder.0.join(name);
        let report = run(&checkpoint(name), &to, &options("f32")).unwrap();
        assert_eq!(report.files.len(), 2);
        for sample in case(name)["samples"].as_array().unwrap() {
            let (tokens, logits) = errors_of_pair(&to, sample, &golden("transformers"), true);
            assert!(tokens < 1e-5 && logits < 1e-4, "{name} {}: {tokens} {logits}", sample["image"]);
        }
        let (lm, mmproj) = (File::open(&report.files[0].path).unwrap(), File::open(&report.files[1].path).unwrap());
        same_values(&File::open(golden("transformers/llava/lm.gguf")).unwrap(), &lm);
        assert_eq!(mmproj.i64s("clip.vision.feature_layer").unwrap(), Some(vec![3]));
        let reasons: Vec<_> = report.ignored.iter().map(|i| (i.name.as_str(), i.reason.as_str())).collect();
        // The fourth block and the norm after it.
        assert_eq!(reasons.len(), 18, "{reasons:#?}");
        assert!(
            reasons.iter().all(|(name, reason)| name.contains("vision") && reason.contains("after")),
            "{reasons:#?}"
        );
    }
    let next = File::open(folder.0.join("llava-next/mmproj-llava-next-F32.gguf")).unwrap();
    let pinpoints = "clip.vision.image_grid_pinpoints";
    let want = File::open(golden("transformers/llava-next/mmproj.gguf")).unwrap();
    assert_eq!(next.i64s(pinpoints).unwrap(), want.i64s(pinpoints).unwrap());
}

/// All tensors of `want` are in `got` with the same values, and no others.
fn same_values(want: &File, got: &File) {
    let found = diff(want, got, &mut |_, _| ControlFlow::Continue(())).unwrap();
    for t in &found.tensors {
        assert_eq!(t.error, Some(0.0), "{t:?}");
    }
}

#[test]
fn a_siglip_and_a_qwen_are_a_pair() {
    let folder = Folder::new("siglip");
    let from = checkpoint("siglip-qwen2");
    let report = run(&from, &folder.0, &options("f32")).unwrap();
    let sample = &case("llava")["samples"][0];
    let sample = json!({"image": sample["image"], "ids": sample["ids"], "tokens": "wide-tokens.npy", "logits": "wide-logits.npy"});
    let (tokens, logits) = errors_of_pair(&folder.0, &sample, &from, true);
    assert!(tokens < 1e-5 && logits < 1e-4, "{tokens} {logits}");
    assert!(report.ignored.iter().all(|i| i.name.contains("vision_tower")), "{:?}", report.ignored);
}

#[test]
fn decoders_of_every_family_give_transformers_logits() {
    let folder = Folder::new("decoders");
    for name in ["mistral", "qwen2", "llama3-rope", "linear-rope", "yarn-rope", "phi3"] {
        let to = folder.0.join(name);
        let report = run(&checkpoint(name), &to, &options("f32")).unwrap();
        assert_eq!(report.files.len(), 1, "{name}");
        same_values(
            &File::open(golden("transformers").join(name).join("lm.gguf")).unwrap(),
            &File::open(&report.files[0].path).unwrap(),
        );
        for run in case(name)["runs"].as_array().unwrap() {
            let mut builder = Model::builder(&report.files[0].path).exact(true);
            if let Some(factors) = run["rope_factors"].as_str() {
                builder = builder.context(if factors == "long" { 128 } else { 24 });
            }
            let ids = ids(&run["ids"]);
            // One position more than the input is kept for an answer.
            let ids = &ids[..ids.len().min(if run["rope_factors"] == "short" { 23 } else { 36 })];
            let model = builder.load().unwrap();
            let input: Vec<_> = ids.iter().map(|&id| Input::Token(id as u32)).collect();
            let got = model.logits(&input, ids.len()).unwrap();
            let want = array(&golden("transformers").join(run["logits"].as_str().unwrap()));
            let error = off(&got, &want[..got.len()]);
            assert!(error < 1e-4, "{name}: {error}");
        }
    }
}

/// Quantised pairs are those that quantising the golden files gives, whose blocks are llama.cpp's; so far off is the type.
#[test]
fn quantised_pairs_are_as_far_off_as_their_types() {
    let folder = Folder::new("quantised");
    let sample = &case("llava")["samples"][0];
    for (kind, most) in [("f16", 2e-3), ("bf16", 2e-2), ("q8_0", 6e-2), ("q4_k_m", 0.5)] {
        let to = folder.0.join(kind);
        let report = run(&checkpoint("llava"), &to, &options(kind)).unwrap();
        let (tokens, logits) = errors_of_pair(&to, sample, &golden("transformers"), true);
        assert!(tokens < most && logits < most, "{kind}: {tokens} {logits}");
        let path = folder.0.join("quantised.gguf");
        let options = quantize::Options { requantize: true, ..quantize::Options::new(kind.parse().unwrap()) };
        let source = File::open(golden("transformers/llava/lm.gguf")).unwrap();
        quantize::quantize(&source, &path, &options, &mut |_| ControlFlow::Continue(())).unwrap();
        let (want, got) = (File::open(&path).unwrap(), File::open(&report.files[0].path).unwrap());
        let found = diff(&want, &got, &mut |_, _| ControlFlow::Continue(())).unwrap();
        assert_eq!(
            (found.tensors.len(), found.same_tensors),
            (0, source.tensors().len()),
            "{kind}: {:?}",
            found.tensors
        );
    }
}

/// Shapes and bytes, by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// Tensors as safetensors: all in F32.
fn write_safetensors(path: &Path, tensors: &Tensors) {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, (shape, bytes)) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
    out.extend(data);
    fs::write(path, out).unwrap();
}

fn read_safetensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Json = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    let entries = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    entries
        .map(|(name, entry)| {
            let shape: Vec<usize> =
                entry["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
            let at = ids(&entry["data_offsets"]);
            (name.clone(), (shape, bytes[8 + size..][at[0] as usize..at[1] as usize].to_vec()))
        })
        .collect()
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Json)) {
    let mut json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut json);
    fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
}

/// Rewrites the names of a checkpoint of transformers.
fn rename(folder: &Path, name: impl Fn(&str) -> String) {
    let path = folder.join("model.safetensors");
    let tensors = read_safetensors(&path).into_iter().map(|(n, t)| (name(&n), t)).collect();
    write_safetensors(&path, &tensors);
}

/// The layout of the original LLaVA: settings of both in one object, a tower that is only named.
fn to_original(folder: &Path) {
    rename(folder, |name| {
        name.replace("language_model.model.", "model.")
            .replace("language_model.lm_head", "lm_head")
            .replace("multi_modal_projector.linear_1", "model.mm_projector.0")
            .replace("multi_modal_projector.linear_2", "model.mm_projector.2")
            .replace("vision_tower.vision_model", "model.vision_tower.vision_tower.vision_model")
    });
    edit_json(&folder.join("config.json"), |config| {
        let mut original = config["text_config"].clone();
        original["model_type"] = json!("llava_llama");
        original["mm_projector_type"] = json!("mlp2x_gelu");
        original["mm_vision_tower"] = json!("openai/clip-vit-tiny");
        original["mm_vision_select_layer"] = json!(-2);
        original["mm_vision_select_feature"] = json!("patch");
        original["image_aspect_ratio"] = json!("pad");
        original["tie_word_embeddings"] = json!(false);
        *config = original;
    });
}

fn check_llava(folder: &Path, what: &str) {
    let (tokens, logits) = errors_of_pair(folder, &case("llava")["samples"][0], &golden("transformers"), true);
    assert!(tokens < 1e-5 && logits < 1e-4, "{what}: {tokens} {logits}");
}

/// Moves the tensors whose names satisfy `what` to a folder of their own.
fn move_out(folder: &Path, to: &Path, file: &str, what: impl Fn(&str) -> bool) {
    fs::create_dir_all(to).unwrap();
    let path = folder.join("model.safetensors");
    let (moved, kept) = read_safetensors(&path).into_iter().partition(|(name, _)| what(name));
    write_safetensors(&path, &kept);
    write_safetensors(&to.join(file), &moved);
}

#[test]
fn layouts_are_the_same_model() {
    let folder = Folder::new("layouts");
    let config: Json = serde_json::from_slice(&fs::read(checkpoint("llava").join("config.json")).unwrap()).unwrap();

    let from = folder.copy("llava");
    rename(&from, |name| match name.strip_prefix("language_model.lm_head") {
        Some(rest) => format!("lm_head{rest}"),
        None => format!("model.{}", name.replace("language_model.model.", "language_model.")),
    });
    run(&from, &folder.0.join("new"), &options("f32")).unwrap();
    check_llava(&folder.0.join("new"), "transformers' new prefixes");

    let from = folder.copy("llava");
    to_original(&from);
    // A tower without settings of its own has heads 64 wide, and this one has not.
    let tower = folder.0.join("clip");
    fs::create_dir_all(&tower).unwrap();
    fs::write(
        tower.join("config.json"),
        serde_json::to_vec(&json!({"vision_config": config["vision_config"]})).unwrap(),
    )
    .unwrap();
    let with_tower = Options { tower: Some(tower.clone()), ..options("f32") };
    run(&from, &folder.0.join("original"), &with_tower).unwrap();
    check_llava(&folder.0.join("original"), "the original, with its tower");

    move_out(&from, &tower, "model.safetensors", |name| name.contains("vision_tower"));
    let missing = run(&from, &folder.0.join("missing"), &options("f32")).unwrap_err().to_string();
    assert!(missing.contains("openai/clip-vit-tiny"), "{missing}");
    // A whole CLIP has a text tower besides.
    let whole = read_safetensors(&tower.join("model.safetensors")).into_iter();
    let mut whole: BTreeMap<_, _> =
        whole.map(|(n, t)| (n.replace("model.vision_tower.vision_tower.", ""), t)).collect();
    for name in ["text_model.final_layer_norm.weight", "visual_projection.weight", "logit_scale"] {
        whole.insert(name.to_owned(), (vec![1], vec![0; 4]));
    }
    write_safetensors(&tower.join("model.safetensors"), &whole);
    run(&from, &folder.0.join("named"), &with_tower).unwrap();
    check_llava(&folder.0.join("named"), "the original, its tower elsewhere");

    let base = folder.0.join("base");
    fs::rename(&from, &base).unwrap();
    move_out(&base, &from, "mm_projector.safetensors", |name| name.contains("mm_projector"));
    fs::rename(base.join("config.json"), from.join("config.json")).unwrap();
    let missing = run(&from, &folder.0.join("missing"), &with_tower).unwrap_err().to_string();
    assert!(missing.contains("its base"), "{missing}");
    let with_base = Options { base: Some(base.clone()), ..with_tower };
    run(&from, &folder.0.join("projector"), &with_base).unwrap();
    check_llava(&folder.0.join("projector"), "a projector and its base");
    assert!(!folder.0.join("missing").exists());
}

#[test]
fn a_lora_is_added_to_its_base() {
    let folder = Folder::new("lora");
    let base = folder.copy("llava");
    // W = base + 2/4 · B A: take that off the base, and the LoRA gives the model back.
    let name = "language_model.model.layers.1.self_attn.q_proj.weight";
    let (rank, scale) = (4, 0.5f32);
    let mut tensors = read_safetensors(&base.join("model.safetensors"));
    let (shape, bytes) = tensors[name].clone();
    let mut w: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let wave = |len: usize, step: f32| (0..len).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
    let (a, b) = (wave(rank * shape[1], 0.37), wave(shape[0] * rank, 0.11));
    for (row, w) in w.chunks_exact_mut(shape[1]).enumerate() {
        for (column, w) in w.iter_mut().enumerate() {
            *w -= scale * (0..rank).map(|k| b[row * rank + k] * a[k * shape[1] + column]).sum::<f32>();
        }
    }
    let bytes = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    tensors.insert(name.to_owned(), (shape.clone(), bytes(&w)));
    write_safetensors(&base.join("model.safetensors"), &tensors);
    let from = folder.0.join("lora");
    fs::create_dir_all(&from).unwrap();
    fs::copy(base.join("config.json"), from.join("config.json")).unwrap();
    let adapter = |n: &str| format!("base_model.model.{}", n.replace(".weight", ""));
    let adapters = BTreeMap::from([
        (format!("{}.lora_A.weight", adapter(name)), (vec![rank, shape[1]], bytes(&a))),
        (format!("{}.lora_B.weight", adapter(name)), (vec![shape[0], rank], bytes(&b))),
    ]);
    write_safetensors(&from.join("adapter_model.safetensors"), &adapters);
    let settings =
        |r: usize| fs::write(from.join("adapter_config.json"), json!({"r": r, "lora_alpha": 2}).to_string()).unwrap();
    settings(rank);
    let with_base = Options { base: Some(base.clone()), ..options("f32") };
    run(&from, &folder.0.join("out"), &with_base).unwrap();
    check_llava(&folder.0.join("out"), "LoRA");
    // Without it the model is another one.
    run(&base, &folder.0.join("plain"), &options("f32")).unwrap();
    assert!(
        errors_of_pair(&folder.0.join("plain"), &case("llava")["samples"][0], &golden("transformers"), true).1 > 1e-2
    );
    settings(rank + 1);
    let wrong = run(&from, &folder.0.join("wrong"), &with_base).unwrap_err().to_string();
    assert!(wrong.contains("lora_A") && wrong.contains("rank 5"), "{wrong}");
}

/// The tower of a real CLIP, out of an ONNX file with matrices in bytes, gives the features of that file's own graph.
#[test]
fn a_tower_of_onnx_gives_its_graphs_features() {
    let root = std::env::var_os("LLAVA_TEST_ASSETS").map_or_else(|| "../target/test-assets".into(), PathBuf::from);
    let (tower, features) = (root.join("clip/tower.onnx"), root.join("clip/features.npy"));
    if !tower.exists() || !features.exists() {
        eprintln!("skipped: {} and its features are absent; .ci/fetch-assets makes them", tower.display());
        return;
    }
    // A checkpoint that names its tower: the decoder of another, and a projector as wide as this tower.
    let folder = Folder::new("onnx");
    let from = folder.copy("llava");
    to_original(&from);
    let path = from.join("model.safetensors");
    let mut tensors = read_safetensors(&path);
    tensors.retain(|name, _| !name.contains("vision_tower"));
    tensors.insert("model.mm_projector.0.weight".into(), (vec![64, 768], vec![0; 4 * 64 * 768]));
    write_safetensors(&path, &tensors);
    edit_json(&from.join("config.json"), |c| c["mm_vision_select_layer"] = json!(-1));
    fs::remove_file(from.join("preprocessor_config.json")).unwrap();
    let options = Options { tower: Some(tower), ..options("f32") };
    let report = run(&from, &folder.0.join("out"), &options).unwrap();
    let mut names: Vec<_> = report.ignored.iter().map(|i| i.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["vision_model.post_layernorm.bias", "vision_model.post_layernorm.weight", "visual_projection.weight"]
    );
    let model = Model::builder(folder.0.join("out")).exact(true).load().unwrap();
    let (got, shape) = model.features(&Image::open(root.join("clip/image.png")).unwrap()).unwrap();
    assert_eq!(shape, [196, 768]);
    let error = off(&got, &array(&features));
    println!(
        "{error:.1e} from the graph; it and the file's own rounding {:.1e}",
        off(&array(&root.join("clip/rounded.npy")), &array(&features))
    );
    assert!(error < 1e-5, "{error}");
}

const TEXTS: [&str; 9] = [
    "",
    " ",
    "the",
    "at the heath",
    " that  the\n\n  tea",
    "12 345, in theatre: it's 9% the\u{301} naïve café",
    "日本語 🦀\t\r\n the",
    "<s> the </s>",
    "hehe\u{2581}the",
];

/// The tokens of converted files are those of Hugging Face's own library.
#[test]
fn texts_have_the_same_tokens() {
    let folder = Folder::new("tokens");
    for name in ["llava", "mistral", "qwen2", "llama3-rope", "siglip-qwen2"] {
        let report = run(&checkpoint(name), &folder.0.join(name), &options("f16")).unwrap();
        let model = Model::builder(&report.files[0].path).text_only().load().unwrap();
        let tokenizer = model.tokenizer();
        let theirs = tokenizers::Tokenizer::from_file(checkpoint(name).join("tokenizer.json")).unwrap();
        for text in TEXTS {
            let want = theirs.encode(text, true).unwrap();
            let got = tokenizer.encode(text, Special::Parse, tokenizer.adds_bos());
            // transformers' LLaMA puts no space in front of nothing, and none after a special token.
            if matches!(name, "llava" | "mistral") && (text.is_empty() || text.contains("</s>")) {
                continue;
            }
            assert_eq!(got, want.get_ids(), "{name} {text:?}");
        }
        let ending = ["</s>", "<|im_end|>", "<|eot_id|>"].into_iter().find_map(|t| tokenizer.id_of(t)).unwrap();
        assert!(tokenizer.eos() == Some(ending) && tokenizer.is_stop(ending), "{name}");
    }
    // SentencePiece's own file gives the same vocabulary, up to what was added to it.
    let file = |name: &str| {
        let report = run(&checkpoint(name), &folder.0.join(name), &options("f16")).unwrap();
        File::open(&report.files[0].path).unwrap()
    };
    let (json, model) = (file("llava"), file("llava-next"));
    let tokens = |f: &File| f.strings("tokenizer.ggml.tokens").unwrap().unwrap().to_vec();
    assert_eq!(tokens(&json)[..268], tokens(&model)[..268]);
    assert_eq!(tokens(&model)[268..270], ["<image>", "[PAD269]"]);
    let types = |f: &File| f.i64s("tokenizer.ggml.token_type").unwrap().unwrap();
    assert_eq!(types(&json)[..268], types(&model)[..268]);
    let want = File::open(golden("transformers/llava/lm.gguf")).unwrap();
    let scores = |f: &File| f.f32s("tokenizer.ggml.scores").unwrap().unwrap()[..268].to_vec();
    assert_eq!(scores(&model), scores(&want));
    assert_eq!(json.str("tokenizer.chat_template").unwrap(), Some("{{ messages[0]['content'] }}"));
}

/// What is wrong with a checkpoint is said with the file, the field and the reason, and nothing is written.
#[test]
fn damaged_checkpoints_are_refused() {
    let folder = Folder::new("damaged");
    let out = folder.0.join("out");
    let check = |what: &str, damage: &dyn Fn(&Path), expected: &[&str]| {
        for name in ["llava", "llava-next"] {
            let _ = fs::remove_dir_all(folder.0.join(name));
        }
        let from = folder.copy(if what.contains("shard") { "llava-next" } else { "llava" });
        damage(&from);
        let error = run(&from, &out, &options("f16")).expect_err(what).to_string();
        for part in expected {
            assert!(error.contains(part), "{what}: {error}");
        }
        assert!(!out.exists(), "{what}");
    };
    let weights = |from: &Path| from.join("model.safetensors");
    let edit_tensors = |from: &Path, edit: &dyn Fn(&mut Tensors)| {
        let mut tensors = read_safetensors(&weights(from));
        edit(&mut tensors);
        write_safetensors(&weights(from), &tensors);
    };
    let q = "language_model.model.layers.0.self_attn.q_proj.weight";
    check("cut short", &|f| cut(&weights(f), 0.7), &["model.safetensors", "cut short"]);
    check("cut in the header", &|f| cut(&weights(f), 0.001), &["model.safetensors", "header"]);
    check("empty", &|f| fs::write(weights(f), []).unwrap(), &["cut short"]);
    check("a long header", &|f| fs::write(weights(f), [255; 64]).unwrap(), &["header"]);
    check("missing", &|f| edit_tensors(f, &|t| drop(t.remove(q))), &["layers.0.self_attn.q_proj.weight", "missing"]);
    check(
        "another shape",
        &|f| edit_tensors(f, &|t| t.get_mut(q).unwrap().0 = vec![32, 128]),
        &[q, "[32, 128]", "[64, 64]"],
    );
    check(
        "unknown",
        &|f| edit_tensors(f, &|t| drop(t.insert("model.extra.weight".into(), (vec![1], vec![0; 4])))),
        &["model.extra.weight"],
    );
    check(
        "no layout",
        &|f| edit_tensors(f, &|t| drop(t.insert("audio.weight".into(), (vec![1], vec![0; 4])))),
        &["audio.weight"],
    );
    check("a huge shape", &|f| edit_tensors(f, &|t| t.get_mut(q).unwrap().0 = vec![usize::MAX, 64]), &[q]);
    for value in [f32::NAN, f32::INFINITY] {
        let damage = |t: &mut Tensors| {
            t.get_mut(q).unwrap().1[400..404].copy_from_slice(&value.to_le_bytes());
        };
        check("no number", &|f| edit_tensors(f, &damage), &[q, "finite"]);
    }
    let large = |t: &mut Tensors| t.get_mut(q).unwrap().1[..4].copy_from_slice(&1e6f32.to_le_bytes());
    check("too large for F16", &|f| edit_tensors(f, &large), &[q, "BF16"]);
    check("FP8", &|f| replace_text(&weights(f), r#""dtype":"F32""#, r#""dtype":"F8 ""#), &["F8"]);
    check("overlapping", &|f| overlap(&weights(f)), &["overlaps"]);
    check("pickles", &|f| fs::rename(weights(f), f.join("pytorch_model.bin")).unwrap(), &["pickle", "safetensors"]);
    let shard = |f: &Path| f.join("model-00002-of-00004.safetensors");
    let index = |f: &Path| f.join("model.safetensors.index.json");
    check("a shard cut short", &|f| cut(&shard(f), 0.5), &["model-00002-of-00004.safetensors", "cut short"]);
    check("a shard missing", &|f| fs::remove_file(shard(f)).unwrap(), &["model-00002-of-00004.safetensors"]);
    let norm = "language_model.model.norm.weight";
    check(
        "a shard's tensor not in the index",
        &|f| edit_json(&index(f), |j| drop(j["weight_map"].as_object_mut().unwrap().remove(norm))),
        &[norm, "index"],
    );
    check(
        "a shard's tensor only in the index",
        &|f| edit_json(&index(f), |j| j["weight_map"]["x"] = json!("model-00001-of-00004.safetensors")),
        &["x", "index"],
    );
    check(
        "a shard outside",
        &|f| edit_json(&index(f), |j| j["weight_map"]["x"] = json!("../x.safetensors")),
        &["../x.safetensors"],
    );
    check("a shard's index that is none", &|f| fs::write(index(f), "[]").unwrap(), &["index.json"]);

    let config = |f: &Path| f.join("config.json");
    let edit_text = |f: &Path, key: &str, value: Json| edit_json(&config(f), |c| c["text_config"][key] = value);
    check("no configuration", &|f| fs::remove_file(config(f)).unwrap(), &["config.json", "missing"]);
    check("a configuration that is none", &|f| fs::write(config(f), "{").unwrap(), &["config.json"]);
    check("another family", &|f| edit_text(f, "model_type", json!("mamba")), &["mamba"]);
    check("heads that don't divide", &|f| edit_text(f, "num_attention_heads", json!(7)), &["num_"]);
    check("negative layers", &|f| edit_text(f, "num_hidden_layers", json!(-3)), &["num_hidden_layers", "-3"]);
    check("more layers", &|f| edit_text(f, "num_hidden_layers", json!(2_000_000_000)), &["layers.3.input_layernorm"]);
    check("fewer layers", &|f| edit_text(f, "num_hidden_layers", json!(2)), &["layers.2."]);
    check(
        "RoPE by no known rule",
        &|f| edit_text(f, "rope_scaling", json!({"type": "dynamic", "factor": 2.0})),
        &["dynamic"],
    );
    let edit_llava = |f: &Path, key: &str, value: Json| edit_json(&config(f), |c| c[key] = value);
    check("no such layer", &|f| edit_llava(f, "vision_feature_layer", json!(9)), &["vision_feature_layer", "9"]);
    check("the class token", &|f| edit_llava(f, "vision_feature_select_strategy", json!("full")), &["class token"]);
    check(
        "another activation",
        &|f| edit_json(&config(f), |c| c["vision_config"]["hidden_act"] = json!("gelu")),
        &["gelu"],
    );
    check(
        "another patch",
        &|f| edit_json(&config(f), |c| c["vision_config"]["patch_size"] = json!(16)),
        &["patch_size", "16"],
    );

    let tokenizer = |f: &Path| f.join("tokenizer.json");
    check("no tokenizer", &|f| fs::remove_file(tokenizer(f)).unwrap(), &["tokenizer"]);
    check("a tokenizer that is none", &|f| fs::write(tokenizer(f), "null").unwrap(), &["tokenizer.json"]);
    check("another tokenizer", &|f| edit_json(&tokenizer(f), |t| t["model"]["type"] = json!("Unigram")), &["Unigram"]);
    check(
        "a token far away",
        &|f| edit_json(&tokenizer(f), |t| t["model"]["vocab"]["far"] = json!(1_000_000_000u64)),
        &["1000000000"],
    );
    check(
        "too many tokens",
        &|f| edit_json(&tokenizer(f), |t| t["model"]["vocab"]["far"] = json!(300)),
        &["301 tokens", "280"],
    );
    check("one number twice", &|f| edit_json(&tokenizer(f), |t| t["model"]["vocab"]["far"] = json!(3)), &["number 3"]);
    let sentencepiece = |f: &Path| fs::write(f.join("tokenizer.model"), [7, 1, 2]).unwrap();
    check("another SentencePiece", &|f| sentencepiece(f), &["tokenizer.model"]);
}

#[test]
fn nothing_is_left_of_a_cancelled_conversion() {
    let folder = Folder::new("cancelled");
    let out = folder.0.join("out");
    for stop in [0, 5, 40] {
        let mut n = 0;
        let result = convert(checkpoint("llava"), &out, &options("f16"), &mut |p| {
            assert!(p.done <= p.total);
            n += 1;
            if n > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(result, Err(Error::Cancelled)), "{stop}");
        assert!(!out.exists(), "{stop}");
    }
    // What was there stays.
    run(&checkpoint("llava"), &out, &options("f16")).unwrap();
    let result = convert(checkpoint("llava"), &out, &options("f16"), &mut |_| ControlFlow::Break(()));
    assert!(result.is_err());
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2);
    Model::open(&out).unwrap();
}

fn cut(path: &Path, share: f64) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..(bytes.len() as f64 * share) as usize]).unwrap();
}

/// Replaces one text in a file by another of its length.
fn replace_text(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(path, bytes).unwrap();
}

/// Makes a tensor begin where another of its size does.
fn overlap(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Json = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    let name = |i: usize| format!("language_model.model.layers.{i}.self_attn.q_proj.weight");
    header[name(1)]["data_offsets"] = header[name(0)]["data_offsets"].clone();
    let header = serde_json::to_vec(&header).unwrap();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
    out.extend(&bytes[8 + size..]);
    fs::write(path, out).unwrap();
}
