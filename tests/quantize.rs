//! Rounding to blocks against llama.cpp's quantizer; `tests/golden/quantize/make.py` wrote the files.

use llava::quant::{self, BlockType};
use std::path::Path;

const COLUMNS: usize = 512;

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/quantize").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn golden_f32(name: &str) -> Vec<f32> {
    golden(name).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn blocks_have_the_bits_of_llama_cpps() {
    let (values, importance) = (golden_f32("values.f32"), golden_f32("importance.f32"));
    let mut wrong = Vec::new();
    for kind in BlockType::ALL.into_iter().filter(|&kind| kind != BlockType::F32) {
        for (suffix, importance) in [("", None), (".importance", Some(&importance[..]))] {
            if importance.is_some() && (kind.is_float() || kind == BlockType::Q8_0) {
                continue;
            }
            let want = golden(&format!("{kind}{suffix}.blocks"));
            let row_bytes = kind.row_bytes(COLUMNS).unwrap();
            for (i, (x, want)) in values.chunks_exact(COLUMNS).zip(want.chunks_exact(row_bytes)).enumerate() {
                let mut got = vec![0; row_bytes];
                quant::quantize(kind, x, importance, &mut got);
                if let Some(at) = (0..row_bytes).find(|&at| got[at] != want[at]) {
                    wrong.push(format!("{kind}{suffix}: row {i} from byte {at}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
