//! Q4_0 and Q8_0 against ggml's own code: a ggml of spring 2023, before GGUF.
//!
//! Its blocks have f32 scales, and its Q4_0 keeps neighbouring values in one byte, so blocks are repacked first.

use ggml_sys::*;
use half::f16;
use llava::kernels::{Kernels, OutTile, Q8Rows};
use llava::quant::{self, BlockType};
use std::sync::Once;

const K: usize = 4096;

/// ggml fills its tables when its first context is made.
fn initialise() {
    static ONCE: Once = Once::new();
    // SAFETY: a context of its own memory, freed at once.
    ONCE.call_once(|| unsafe {
        let params = ggml_init_params { mem_size: 1 << 16, mem_buffer: std::ptr::null_mut(), no_alloc: false };
        ggml_free(ggml_init(params));
    });
}

fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 32) as i32 as f32 / 2f32.powi(31)
    };
    (0..n).map(|_| next()).collect()
}

/// Weights in GGUF's layout.
fn quantized(t: BlockType, x: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; t.row_bytes(x.len()).unwrap()];
    quant::quantize(t, x, None, &mut bytes);
    bytes
}

/// GGUF's layout to that of 2023.
fn repacked(t: BlockType, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for block in bytes.chunks_exact(t.block_bytes()) {
        let (d, qs) = block.split_at(2);
        out.extend(f16::from_le_bytes([d[0], d[1]]).to_f32().to_le_bytes());
        if t == BlockType::Q4_0 {
            let q = |i: usize| if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 };
            out.extend((0..16).map(|i| q(2 * i) | q(2 * i + 1) << 4));
        } else {
            out.extend(qs);
        }
    }
    out
}

fn functions(t: BlockType) -> quantize_fns_t {
    // SAFETY: the types have kept their numbers; ggml indexes a table of constants.
    unsafe { ggml_internal_get_quantize_fn(t.ggml_id() as usize) }
}

#[test]
fn dequantization_is_bit_equal_to_ggml() {
    initialise();
    for t in [BlockType::Q4_0, BlockType::Q8_0] {
        let bytes = quantized(t, &random(K, 1));
        let mut want = vec![0f32; K];
        // SAFETY: K values in ggml's layout, room for K.
        unsafe {
            functions(t).dequantize_row_q.unwrap()(repacked(t, &bytes).as_ptr().cast(), want.as_mut_ptr(), K as i32)
        };
        let mut got = vec![0f32; K];
        quant::dequantize(t, &bytes, &mut got);
        for i in 0..K {
            assert_eq!(got[i].to_bits(), want[i].to_bits(), "{t} value {i}: {:e}, not {:e}", got[i], want[i]);
        }
    }
}

#[test]
fn dot_products_match_ggml() {
    initialise();
    for t in [BlockType::Q4_0, BlockType::Q8_0] {
        // Both of one sign, so that the sum does not cancel and a relative error means something.
        let positive = |seed| random(K, seed).iter().map(|x| 0.1 + x.abs()).collect::<Vec<_>>();
        let bytes = quantized(t, &positive(2));
        let x = positive(3);
        for kernels in Kernels::available() {
            let (mut qs, mut scales, mut sums) = (vec![0; K], vec![0.0; K / 32], vec![0; K / 16]);
            (kernels.quantize_q8)(&x, &mut qs, &mut scales, &mut sums);
            let mut got = [0.0];
            kernels.matmul_q8[t as usize].unwrap()(
                &bytes,
                Q8Rows { qs: &qs, scales: &scales, sums: &sums, k: K },
                &mut OutTile::new(&mut got, 1, 1),
                &mut Vec::new(),
            );
            // The same quantised activations in ggml's layout.
            let mut activations = Vec::new();
            for b in 0..K / 32 {
                activations.extend(scales[b].to_le_bytes());
                activations.extend(qs[32 * b..][..32].iter().map(|&q| q as u8));
            }
            let mut want = 0f32;
            // SAFETY: K weights and K activations in ggml's layout.
            unsafe {
                functions(t).vec_dot_q.unwrap()(
                    K as i32,
                    &mut want,
                    repacked(t, &bytes).as_ptr().cast(),
                    activations.as_ptr().cast(),
                )
            };
            let error = ((got[0] - want) / want).abs();
            println!("{} {t}: {}, ggml {want}, relative difference {error:e}", kernels.name, got[0]);
            assert!(error <= 1e-5, "{} {t}: {}, not {want}", kernels.name, got[0]);
        }
    }
}
