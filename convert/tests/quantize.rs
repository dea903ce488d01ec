//! Whole files against llama.cpp's tools; `tests/golden/quantize/files.py` wrote what they make.

use llava::gguf::{File, TensorInfo, Value, Writer};
use llava::quant::{self, BlockType};
use llava::tokenizer::Special;
use llava::{Control, Error, Generation, Image, Input, Model};
use llava_convert::quantize::{Collector, ImportanceMatrix, Mixture, Options, Report, compare, quantize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// A model that `.ci/fetch-assets` made or fetched; `None`, with a message, if it is absent.
fn asset(name: &str) -> Option<File> {
    let root = std::env::var_os("LLAVA_TEST_ASSETS").map_or_else(|| "../target/test-assets".into(), PathBuf::from);
    let path = root.join(name);
    if !path.exists() {
        eprintln!("skipped: {} is absent; .ci/fetch-assets makes it", path.display());
        return None;
    }
    Some(File::open(path).unwrap())
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("llava-quantize-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        std::fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options(name: &str) -> Options {
    Options { requantize: true, ..Options::new(name.parse().unwrap()) }
}

fn run(file: &File, path: &Path, options: &Options) -> Result<Report, Error> {
    quantize(file, path, options, &mut |_| ControlFlow::Continue(()))
}

/// How many tensors have which type.
fn types(file: &File) -> Json {
    let mut counts = BTreeMap::new();
    for t in file.tensors() {
        *counts.entry(t.type_name().to_string()).or_insert(0) += 1;
    }
    serde_json::to_value(counts).unwrap()
}

/// The sum that files.py makes.
fn sum(file: &File) -> String {
    let mut tensors: Vec<_> = file.tensors().iter().collect();
    tensors.sort_by_key(|t| t.name().to_owned());
    let mut sums = Sha256::new();
    for t in tensors {
        sums.update(format!("{} {}\n", t.name(), t.type_name()));
        sums.update(t.data().unwrap().as_slice());
    }
    sums.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

fn values(t: &TensorInfo) -> Vec<f32> {
    let mut out = vec![0.0; t.dims().iter().product()];
    quant::dequantize(t.block_type().unwrap(), t.data().unwrap().as_slice(), &mut out);
    out
}

/// The norm of the difference over the norm of `want`.
fn off(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    norm(&mut want.iter().zip(got).map(|(a, b)| a - b)) / norm(&mut want.iter().copied())
}

/// Quantises the asset `name` to `mixtures` and compares with llama.cpp's files.
fn matches(name: &str, mixtures: &[&str]) {
    let Some(source) = asset(name) else { return };
    let folder = Folder::new(&name.replace('/', "-"));
    let path = folder.file("out.gguf");
    let want: Json = serde_json::from_slice(&std::fs::read(golden("quantize/files.json")).unwrap()).unwrap();
    for mixture in mixtures {
        run(&source, &path, &options(mixture)).unwrap();
        let (file, want) = (File::open(&path).unwrap(), &want[name][mixture]);
        assert_eq!(types(&file), want["types"], "{name} {mixture}");
        assert_eq!(Json::from(sum(&file)), want["sha256"], "{name} {mixture}");
        assert_eq!(file.u32("general.quantization_version").unwrap(), Some(2));
    }
}

#[test]
fn every_mixture_of_a_random_model_has_llama_cpps_bytes() {
    let all: Vec<_> = Mixture::names().filter(|&name| name != "Q2_K_S").collect();
    matches("llama_cpp/f32.gguf", &all);
}

#[test]
fn smollm2_has_llama_cpps_bytes() {
    matches("smollm2.gguf", &["Q4_K_M", "Q3_K_L"]);
}

#[test]
fn an_importance_matrix_is_that_of_llama_cpps_tool() {
    let text = std::fs::read_to_string(golden("quantize/text.txt")).unwrap();
    let want = golden("quantize/imatrix.gguf");
    let folder = Folder::new("imatrix");
    let path = folder.file("ours.gguf");
    let lm = golden("transformers/llava/lm.gguf");
    let mut collector =
        Collector::new(Model::builder(lm).text_only().exact(true), "text.txt", 32, &Control::default()).unwrap();
    let mut seen = Vec::new();
    collector.text(&text, 4, &Control::default(), |done, total| seen.push((done, total))).unwrap();
    assert_eq!(seen, [(0, 4), (1, 4), (2, 4), (3, 4)]);
    collector.finish().unwrap().save(&path).unwrap();
    let (theirs, ours) = (File::open(&want).unwrap(), File::open(&path).unwrap());
    let names = |file: &File| file.tensors().iter().map(|t| t.name().to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for t in theirs.tensors() {
        // llama.cpp keeps keys and values in f16.
        let off = off(&values(ours.tensor(t.name()).unwrap()), &values(t));
        assert!(off < 1e-3, "{}: {off}", t.name());
    }
    for key in ["imatrix.chunk_count", "imatrix.chunk_size"] {
        assert_eq!(ours.u32(key).unwrap(), theirs.u32(key).unwrap(), "{key}");
    }
    assert_eq!(ImportanceMatrix::open(&path).unwrap().len(), ImportanceMatrix::open(&want).unwrap().len());
}

#[test]
fn images_are_seen_by_every_matrix_of_the_pair() {
    let builder = Model::builder(golden("transformers/llava/lm.gguf")).context(256);
    let mut collector = Collector::new(builder, "wide.png", Collector::CHUNK, &Control::default()).unwrap();
    let image = Image::open(golden("transformers/images/wide.png")).unwrap();
    let generation = Generation { max_tokens: 4, ..Generation::default() };
    collector.ask("What is this?", &image, &generation, &Control::default()).unwrap();
    let cancelled = Control::default();
    cancelled.cancel();
    let result = collector.ask("What is this?", &image, &generation, &cancelled);
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    let matrix = collector.finish().unwrap();
    for name in ["blk.0.attn_q.weight", "blk.1.ffn_down.weight", "v.blk.0.attn_k.weight", "mm.0.weight", "mm.2.weight"]
    {
        assert!(matrix.of(name).is_some_and(|x| x.iter().any(|x| *x > 0.0)), "{name}");
    }
    assert!(matrix.of("output.weight").is_none());
    // It serves both files.
    let folder = Folder::new("pair");
    for name in ["lm.gguf", "mmproj.gguf"] {
        let file = File::open(golden("transformers/llava").join(name)).unwrap();
        let options = Options { importance: Some(matrix.clone()), ..options("Q4_0") };
        run(&file, &folder.file(name), &options).unwrap();
    }
    let pair = Model::builder(&folder.0).context(256).load().unwrap();
    pair.session().ask("What is this?", &[&image]).unwrap();
}

#[test]
fn a_quantised_tower_sees_nearly_the_same() {
    let (folder, lm) = (Folder::new("tower"), golden("transformers/llava/lm.gguf"));
    let source = golden("transformers/llava/mmproj.gguf");
    let (path, image) = (folder.file("mmproj.gguf"), Image::open(golden("transformers/images/wide.png")).unwrap());
    let report = run(&File::open(&source).unwrap(), &path, &options("Q8_0")).unwrap();
    assert!(report.tensors.iter().any(|t| t.to == BlockType::Q8_0));
    assert!(report.bytes_after() < report.bytes_before());
    let encode = |mmproj: &Path| Model::builder(&lm).mmproj(mmproj).exact(true).load().unwrap().encode(&image).unwrap();
    let off = off(encode(&path).values(), encode(&source).values());
    assert!((1e-6..2e-2).contains(&off), "{off}");
}

#[test]
fn the_report_says_what_each_tensor_lost() {
    let file = File::open(golden("transformers/llava/lm.gguf")).unwrap();
    let folder = Folder::new("report");
    let mut options = options("Q4_0");
    options.tensors = vec![(regex::Regex::new("attn_v").unwrap(), BlockType::Q8_0)];
    let report = run(&file, &folder.file("out.gguf"), &options).unwrap();
    let written = File::open(folder.file("out.gguf")).unwrap();
    assert_eq!(report.tensors.len(), file.tensors().len());
    for t in &report.tensors {
        let (before, after) = (file.tensor(&t.name).unwrap(), written.tensor(&t.name).unwrap());
        assert_eq!((Some(t.from), Some(t.to)), (before.block_type(), after.block_type()), "{}", t.name);
        assert!(t.to == BlockType::Q8_0 || !t.name.contains("attn_v"), "{}", t.name);
        let error = off(&values(after), &values(before));
        assert!((t.error - error).abs() < 1e-6, "{}: {} and {error}", t.name, t.error);
    }
    assert!(report.tensors.iter().any(|t| t.to == BlockType::Q4_0 && t.error > 0.01));
}

#[test]
fn the_comparison_is_that_of_the_logits() {
    let folder = Folder::new("compare");
    let source = golden("transformers/llava/lm.gguf");
    run(&File::open(&source).unwrap(), &folder.file("q4.gguf"), &options("Q4_0")).unwrap();
    let open = |path: &Path| Model::builder(path).text_only().context(33).load().unwrap();
    let (before, after) = (open(&source), open(&folder.file("q4.gguf")));
    let text = std::fs::read_to_string(golden("quantize/text.txt")).unwrap();
    let same = compare(&before, &before, &text, 3, &Control::default(), |_, _| ()).unwrap();
    assert_eq!((same.before, same.agreement), (same.after, 1.0));
    // Of 32 positions the last 16, and what comes after the last is not known.
    assert_eq!(same.positions, 3 * 15);
    let other = compare(&before, &after, &text, 3, &Control::default(), |_, _| ()).unwrap();
    assert_eq!(other.before, same.before);
    assert!(other.after != other.before && other.agreement < 1.0, "{other:?}");

    let tokenizer = before.tokenizer();
    let ids = tokenizer.encode(&text, Special::Plain, tokenizer.adds_bos());
    let mut losses = Vec::new();
    for chunk in ids.chunks_exact(32).take(3) {
        let mut chunk = chunk.to_vec();
        chunk[0] = tokenizer.bos().unwrap();
        for next in 17..32 {
            let input: Vec<_> = chunk[..next].iter().map(|&t| Input::Token(t)).collect();
            let logits = before.logits(&input, 1).unwrap();
            let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
            losses.push(sum.ln() - f64::from(logits[chunk[next] as usize]));
        }
    }
    let perplexity = (losses.iter().sum::<f64>() / losses.len() as f64).exp();
    assert!((perplexity / same.before - 1.0).abs() < 1e-3, "{perplexity} and {}", same.before);
    let short = compare(&before, &after, "", 3, &Control::default(), |_, _| ());
    assert!(matches!(short, Err(Error::InvalidArgument { name: "text", .. })), "{short:?}");
}

/// A language model's file with one matrix.
fn one_matrix(folder: &Folder, values: &[f32]) -> File {
    let path = folder.file("in.gguf");
    let mut writer = Writer::new();
    writer.set("general.architecture", Value::String("llama".into()));
    writer.set("llama.block_count", Value::U32(1));
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    writer.tensor("blk.0.attn_q.weight", &[32, values.len() / 32], BlockType::F32, bytes).unwrap();
    writer.save(&path).unwrap();
    File::open(path).unwrap()
}

#[test]
fn nothing_is_written_where_something_is_wrong() {
    let folder = Folder::new("wrong");
    let out = folder.file("out.gguf");
    let check = |result: Result<_, Error>, what: &str| {
        let error = result.expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
        assert_eq!(folder.names(), ["in.gguf"], "{what}");
    };
    for wrong in [f32::NAN, f32::INFINITY] {
        let mut values = vec![1.0; 128];
        values[77] = wrong;
        check(run(&one_matrix(&folder, &values), &out, &options("Q4_0")), "blk.0.attn_q.weight");
    }
    let file = one_matrix(&folder, &[1.0; 128]);
    let cancelled = quantize(&file, &out, &options("Q4_0"), &mut |_| ControlFlow::Break(()));
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    assert_eq!(folder.names(), ["in.gguf"]);
    for (tensor, width, what) in [("blk.0", 16, "16 columns, and 32"), ("blk.9", 32, "knows no tensor of")] {
        let mut importance = ImportanceMatrix::new("text", 1);
        importance.add(&format!("{tensor}.attn_q.weight"), &[1.0; 64], width);
        importance.end_chunk();
        check(run(&file, &out, &Options { importance: Some(importance), ..options("Q4_0") }), what);
    }

    run(&file, &out, &options("Q8_0")).unwrap();
    let (small, again) = (File::open(&out).unwrap(), folder.file("again.gguf"));
    let refused = run(&small, &again, &Options::new("Q4_0".parse().unwrap()));
    assert!(refused.is_err_and(|e| e.to_string().contains("allow requantizing")));
    assert!(!again.exists());
    // What has the wanted type already is only copied.
    run(&small, &again, &Options::new("Q8_0".parse().unwrap())).unwrap();
    assert_eq!(sum(&small), sum(&File::open(again).unwrap()));
}

#[test]
fn damaged_importance_matrices_are_refused() {
    let folder = Folder::new("damaged");
    let path = folder.file("x");
    let whole = std::fs::read(golden("quantize/imatrix.gguf")).unwrap();
    for len in (0..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(ImportanceMatrix::open(&path).is_err(), "{len} bytes");
    }
    // llama.cpp's older format: a count of entries; of each a name, a number of calls, and values.
    let dat = |count: u32, calls: u32, values: &[f32]| {
        let mut out = count.to_le_bytes().to_vec();
        out.extend(5u32.to_le_bytes());
        out.extend(b"blk.0");
        out.extend(calls.to_le_bytes());
        out.extend((values.len() as u32).to_le_bytes());
        values.iter().for_each(|v| out.extend(v.to_le_bytes()));
        out
    };
    std::fs::write(&path, dat(1, 2, &[2.0, 4.0])).unwrap();
    assert_eq!(ImportanceMatrix::open(&path).unwrap().of("blk.0"), Some(&[1.0, 2.0][..]));
    for bytes in [dat(2, 2, &[2.0]), dat(1, 2, &[-1.0]), dat(1, 2, &[f32::NAN]), dat(u32::MAX, 2, &[1.0]), vec![1, 0]] {
        std::fs::write(&path, bytes).unwrap();
        assert!(ImportanceMatrix::open(&path).is_err());
    }
    let model = ImportanceMatrix::open(golden("transformers/llava/lm.gguf"));
    assert!(model.is_err_and(|e| e.to_string().contains("no importance matrix")));
}
