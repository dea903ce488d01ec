//! Block formats against gguf-py; `tests/golden/blocks/make.py` wrote the files.

use llava::kernels::Kernels;
use llava::quant::{self, BlockType};
use std::path::Path;

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/blocks").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn golden_f32(name: &str) -> Vec<f32> {
    golden(name).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.to_bits(), want.to_bits(), "{what}: value {i} is {got:e}, not {want:e}");
    }
}

#[test]
fn every_type_dequantises_bit_equal_to_gguf_py() {
    for t in BlockType::ALL {
        let blocks = golden(&format!("{t}.blocks"));
        let want = golden_f32(&format!("{t}.f32"));
        assert_eq!(want.len(), blocks.len() / t.block_bytes() * t.block_len(), "{t}: golden files");
        let mut got = vec![f32::NAN; want.len()];
        quant::dequantize(t, &blocks, &mut got);
        assert_same_bits(&got, &want, t.name());
    }
}

#[test]
fn every_table_dequantises_bit_equal_to_gguf_py_from_any_address() {
    for kernels in Kernels::available() {
        for t in BlockType::ALL {
            let mut bytes = golden(&format!("{t}.blocks"));
            let want = golden_f32(&format!("{t}.f32"));
            for offset in 0..4 {
                bytes.insert(0, 0);
                let mut got = vec![f32::NAN; want.len()];
                (kernels.dequantize[t as usize])(&bytes[offset + 1..], &mut got);
                assert_same_bits(&got, &want, &format!("{} {t}", kernels.name));
            }
        }
    }
}

#[test]
fn quantization_is_bit_equal_to_gguf_py() {
    for kind in [BlockType::Q4_0, BlockType::Q8_0] {
        let name = kind.name();
        let x = golden_f32(&format!("{name}.quantize.f32"));
        let want = golden(&format!("{name}.quantize.blocks"));
        let mut got = vec![0; want.len()];
        quant::quantize(kind, &x, None, &mut got);
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn types_index_tables_in_the_order_of_all() {
    for (i, t) in BlockType::ALL.into_iter().enumerate() {
        assert_eq!(t as usize, i, "{t}");
        assert_eq!(BlockType::from_ggml_id(t.ggml_id()), Some(t));
    }
}
