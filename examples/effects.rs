//! What each fast path does to answers: greedy text and logits of real models, computed in several ways, beside f32
//! throughout. The tables in `docs/accuracy.md` are its output.
//!
//! `cargo run --release --example effects` takes ten minutes on two cores. Needs SmolLM2 in `LLAVA_TEST_ASSETS` and the
//! photo pair in `LLAVA_TEST_PHOTO`, as the tests do.

use llava::kernels::Kernels;
use llava::prompt::{self, Message, Slot};
use llava::{Generation, Image, Input, KvType, Model};
use std::path::{Path, PathBuf};

const TOKENS: usize = 32;

const QUESTIONS: [&str; 20] = [
    "Why is the sky blue?",
    "Name three fruits that grow on trees.",
    "What is the capital of Norway?",
    "Write a sentence about a lighthouse.",
    "How do bees make honey?",
    "Explain what a loan is to a child.",
    "What should I pack for a day at the beach?",
    "Translate 'good morning' into French.",
    "Who wrote Hamlet?",
    "Give me a name for a grey cat.",
    "What is seven times eight?",
    "Describe the taste of a lemon.",
    "How long does it take to boil an egg?",
    "Tell me a short story about a snail.",
    "What does a carpenter do?",
    "Why do leaves fall in autumn?",
    "List the days of the weekend.",
    "What is the opposite of loud?",
    "Write one line of Python that adds two numbers.",
    "How can I sleep better?",
];

/// Each about two photos.
const ABOUT_PHOTOS: [&str; 10] = [
    "Describe the image.",
    "What is in this picture?",
    "Write a short caption for this photo.",
    "What does the image show?",
    "Give a brief description of the photo.",
    "Say in one sentence what you see.",
    "What is happening here?",
    "Describe the scene to somebody who cannot see it.",
    "What stands out in this photo?",
    "Tell me about the picture.",
];

const PHOTOS: [&str; 2] = ["000000538113.png", "2095444126_201ff9f222.png"];

/// How a model computes.
#[derive(Clone, Copy)]
struct Way {
    kernels: &'static str,
    exact: bool,
    kv: KvType,
}

/// For each prompt the greedy tokens, and the logits of the first.
type Run = Vec<(Vec<u32>, Vec<f32>)>;

fn folder(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or(Path::new(env!("CARGO_MANIFEST_DIR")).join(default), PathBuf::from)
}

/// The names of this machine's tables, slowest first.
fn tables() -> Vec<&'static str> {
    Kernels::available().iter().map(|k| k.name).collect()
}

/// On the best kernels: f32 throughout, then with what is rounded.
fn roundings() -> Vec<Way> {
    let kernels = *tables().last().unwrap();
    let way = |exact, kv| Way { kernels, exact, kv };
    let rounded = [(true, KvType::F16), (true, KvType::Q8_0), (false, KvType::F32), (false, KvType::F16)];
    let all = [(true, KvType::F32)].into_iter().chain(rounded).chain([(false, KvType::Q8_0)]);
    all.map(|(exact, kv)| way(exact, kv)).collect()
}

/// f32 throughout on the best kernels, then every table: in f32, where that does not take for ever, and as it computes by
/// default.
fn instruction_sets() -> Vec<Way> {
    let tables = tables();
    let mut ways = vec![Way { kernels: tables.last().unwrap(), exact: true, kv: KvType::F32 }];
    for (i, &kernels) in tables.iter().enumerate() {
        if i > 0 && i + 1 < tables.len() {
            ways.push(Way { kernels, exact: true, kv: KvType::F32 });
        }
        ways.push(Way { kernels, exact: false, kv: KvType::F16 });
    }
    ways
}

fn run(way: Way, lm: &Path, mmproj: Option<&Path>, photos: &[PathBuf], questions: &[&str]) -> Run {
    let mut builder = Model::builder(lm).kernels(way.kernels).exact(way.exact).kv_type(way.kv).context(1024);
    if let Some(path) = mmproj {
        builder = builder.mmproj(path);
    }
    let model = builder.load().unwrap();
    // Without a photo, one round of the questions.
    let mut images: Vec<_> =
        photos.iter().map(|path| Some(model.encode(&Image::open(path).unwrap()).unwrap())).collect();
    if images.is_empty() {
        images.push(None);
    }
    let mut all = Vec::new();
    for image in &images {
        for question in questions {
            let message = Message::user(usize::from(image.is_some()), *question);
            let pieces = model.template().0.render(&[message], true).unwrap();
            let input: Vec<_> = prompt::splice(&pieces, model.tokenizer())
                .into_iter()
                .map(|slot| match slot {
                    Slot::Token(id) => Input::Token(id),
                    Slot::Image(_) => Input::Image(image.clone().unwrap()),
                })
                .collect();
            let greedy = Generation { max_tokens: TOKENS, ..Generation::default() };
            let answer = model.generate(&input, &greedy).unwrap();
            all.push((answer.token_ids, model.logits(&input, 1).unwrap()));
        }
    }
    all
}

/// The part of the longer text that both begin with.
fn agreement(a: &[u32], b: &[u32]) -> f64 {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    same as f64 / a.len().max(b.len()).max(1) as f64
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn table(what: &str, ways: &[Way], run: impl Fn(Way) -> Run) {
    let reference = run(ways[0]);
    println!("\n{what}, {} prompts, beside {}, f32, KV cache f32\n", reference.len(), ways[0].kernels);
    println!("| kernels | computed in | KV cache | same texts | same until the first difference, mean (least) |");
    println!("|---|---|---|--:|--:|");
    let mut rows = Vec::new();
    for &way in &ways[1..] {
        let got = run(way);
        let pairs = || reference.iter().zip(&got);
        let shares: Vec<_> = pairs().map(|(a, b)| agreement(&a.0, &b.0)).collect();
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        let least = shares.iter().copied().fold(1.0, f64::min);
        let same = pairs().filter(|(a, b)| a.0 == b.0).count();
        let cosines: Vec<_> = pairs().map(|(a, b)| cosine(&a.1, &b.1)).collect();
        let errors = pairs().flat_map(|(a, b)| a.1.iter().zip(&b.1)).map(|(a, b)| f64::from((a - b).abs()));
        let arithmetic = if way.exact { "f32" } else { "default" };
        let name = format!("| {} | {arithmetic} | {} |", way.kernels, way.kv);
        println!("{name} {same} | {mean:.2} ({least:.2}) |");
        rows.push(format!(
            "{name} {:.2e} ({:.2e}) | {:.2e} |",
            1.0 - cosines.iter().sum::<f64>() / cosines.len() as f64,
            1.0 - cosines.iter().copied().fold(1.0, f64::min),
            errors.fold(0.0, f64::max)
        ));
    }
    println!("\n| kernels | computed in | KV cache | first logits: 1 − cosine, mean (largest) | largest error |");
    println!("|---|---|---|--:|--:|\n{}", rows.join("\n"));
}

fn texts(ways: &[Way]) {
    let lm = folder("LLAVA_TEST_ASSETS", "target/test-assets").join("smollm2.gguf");
    if !lm.exists() {
        return eprintln!("skipped: {} is absent", lm.display());
    }
    table("SmolLM2-135M, Q4_1", ways, |way| run(way, &lm, None, &[], &QUESTIONS));
}

fn photos(ways: &[Way]) {
    let photo = folder("LLAVA_TEST_PHOTO", "../shared/models/photo");
    let (lm, mmproj) = (photo.join("lm-q4_0.gguf"), photo.join("mmproj-q8_0.gguf"));
    if !lm.exists() || !mmproj.exists() {
        return eprintln!("skipped: {} is absent", photo.display());
    }
    let photos = PHOTOS.map(|name| photo.join(name));
    table("The photo pair", ways, |way| run(way, &lm, Some(&mmproj), &photos, &ABOUT_PHOTOS));
}

fn main() {
    texts(&roundings());
    photos(&roundings());
    let mut ways = instruction_sets();
    texts(&ways);
    // Without what takes longest.
    let best = ways[0].kernels;
    ways.retain(|way| way.kernels != "scalar" && (!way.exact || way.kernels == best));
    photos(&ways);
}
