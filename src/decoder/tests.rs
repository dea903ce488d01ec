use super::kv::{KvCache, KvType};
use super::*;
use crate::cpu::{Cpu, Segment};
use crate::golden;

fn logits(decoder: &Decoder, cpu: &Cpu, kv: KvType, ids: &[u32], chunk: usize) -> Vec<f32> {
    let mut cache = KvCache::new(decoder.kv_shape(kv));
    let mut all = Vec::new();
    for ids in ids.chunks(chunk) {
        let rows: Vec<_> = ids.iter().map(|&id| Row::Token(id)).collect();
        let wanted: Vec<_> = (0..rows.len()).collect();
        let mut logits = Vec::new();
        let mut segments = [Segment { cache: &mut cache, rows: rows.len() }];
        let cancel = golden::never();
        decoder.forward(&mut cpu.enter(&cancel), &mut segments, &rows, &wanted, &mut logits).unwrap();
        all.extend(logits);
    }
    all
}

fn ids(run: &serde_json::Value) -> Vec<u32> {
    run["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn logits_of_every_family_match_transformers() {
    for case in golden::cases("text") {
        let name = case["name"].as_str().unwrap();
        let file = golden::gguf(case["lm"].as_str().unwrap());
        for run in case["runs"].as_array().unwrap() {
            let ids = ids(run);
            let decoder = Decoder::from_gguf(&file, |_| ids.len()).unwrap();
            for cpu in golden::devices() {
                let got = logits(&decoder, &cpu, KvType::F32, &ids, ids.len());
                let error = golden::relative_error(&got, &golden::array(run["logits"].as_str().unwrap()));
                println!("{name}, {:?}: logits {error:.1e}", cpu.describe());
                assert!(error < 1e-4, "{name}: logits differ by {error:e} with {:?}", cpu.describe());
            }
        }
    }
}

#[test]
fn a_prompt_in_pieces_gives_the_bits_of_the_whole() {
    let file = golden::gguf("mistral/lm.gguf");
    let ids: Vec<u32> = (0..150).map(|i| i * 7 % 250).collect();
    let decoder = Decoder::from_gguf(&file, |_| ids.len()).unwrap();
    for cpu in golden::devices() {
        for kv in KvType::ALL.into_iter().filter(|kv| kv.check(decoder.config.head_dim).is_ok()) {
            let whole = logits(&decoder, &cpu, kv, &ids, ids.len());
            for chunk in [1, 7, 64, 65] {
                let pieces = logits(&decoder, &cpu, kv, &ids, chunk);
                assert!(whole.iter().zip(&pieces).all(|(a, b)| a.to_bits() == b.to_bits()), "chunks of {chunk}");
            }
        }
    }
}

#[test]
fn threads_do_not_change_the_bits() {
    let file = golden::gguf("mistral/lm.gguf");
    let ids: Vec<u32> = (0..150).map(|i| i * 7 % 250).collect();
    let decoder = Decoder::from_gguf(&file, |_| ids.len()).unwrap();
    for kernels in crate::kernels::Kernels::available() {
        let runs = [1, 2, 5].map(|threads| {
            let cpu = Cpu::new(kernels, threads, false).unwrap();
            logits(&decoder, &cpu, KvType::F16, &ids, 100).into_iter().map(f32::to_bits).collect::<Vec<_>>()
        });
        assert!(runs.iter().all(|run| *run == runs[0]), "{}", kernels.name);
    }
}

#[test]
fn sequences_in_a_batch_give_the_bits_of_each_alone() {
    let decoder = Decoder::from_gguf(&golden::gguf("qwen2/lm.gguf"), |_| 64).unwrap();
    let sequences: [Vec<u32>; 3] = [vec![5, 6, 7], vec![9; 20], vec![1]];
    for cpu in golden::devices() {
        let mut caches: Vec<_> = sequences.iter().map(|_| KvCache::new(decoder.kv_shape(KvType::F16))).collect();
        let mut segments: Vec<_> =
            caches.iter_mut().zip(&sequences).map(|(cache, s)| Segment { cache, rows: s.len() }).collect();
        let rows: Vec<_> = sequences.iter().flatten().map(|&id| Row::Token(id)).collect();
        let wanted: Vec<_> = (0..rows.len()).collect();
        let mut together = Vec::new();
        let cancel = golden::never();
        decoder.forward(&mut cpu.enter(&cancel), &mut segments, &rows, &wanted, &mut together).unwrap();
        let alone: Vec<f32> = sequences.iter().flat_map(|s| logits(&decoder, &cpu, KvType::F16, s, s.len())).collect();
        assert!(together.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits()), "{:?}", cpu.describe());
    }
}

#[test]
fn a_cancelled_pass_leaves_the_cache_as_it_was() {
    let decoder = Decoder::from_gguf(&golden::gguf("qwen2/lm.gguf"), |_| 64).unwrap();
    let mut cache = KvCache::new(decoder.kv_shape(KvType::F16));
    let cancel = golden::never();
    cancel.cancel();
    let cpu = &golden::devices()[0];
    let mut segments = [Segment { cache: &mut cache, rows: 2 }];
    let rows = [Row::Token(1), Row::Token(2)];
    let result = decoder.forward(&mut cpu.enter(&cancel), &mut segments, &rows, &[1], &mut Vec::new());
    assert!(matches!(result, Err(crate::Error::Cancelled)));
    assert_eq!(cache.len(), 0);
}
