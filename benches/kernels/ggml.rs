//! The dot product of a ggml of spring 2023, for comparison.

use ggml_sys::{ggml_free, ggml_init, ggml_init_params, ggml_internal_get_quantize_fn, quantize_fns_t};
use llava::quant::BlockType;

/// `rows` rows of weights and one of activations, in ggml's layout of 2023: blocks of 32 with an f32 scale.
pub struct Dot {
    functions: quantize_fns_t,
    weights: Vec<u8>,
    row_bytes: usize,
    activations: Vec<u8>,
    k: usize,
}

impl Dot {
    /// None for types that it does not share with GGUF.
    pub fn new(t: BlockType, rows: usize, k: usize) -> Option<Self> {
        let block_bytes = match t {
            BlockType::Q4_0 => 4 + 16,
            BlockType::Q8_0 => 4 + 32,
            _ => return None,
        };
        // SAFETY: a context of its own memory, freed at once; it fills ggml's tables. The types have kept their numbers.
        let functions = unsafe {
            ggml_free(ggml_init(ggml_init_params {
                mem_size: 1 << 16,
                mem_buffer: std::ptr::null_mut(),
                no_alloc: false,
            }));
            ggml_internal_get_quantize_fn(t.ggml_id() as usize)
        };
        let row_bytes = k / 32 * block_bytes;
        // Every scale is 0x30303030, a small number.
        Some(Self {
            functions,
            weights: vec![0x30; rows * row_bytes],
            row_bytes,
            activations: vec![0x30; k / 32 * 36],
            k,
        })
    }

    /// Every row's product.
    pub fn run(&self, out: &mut [f32]) {
        let Some(dot) = self.functions.vec_dot_q else { return };
        for (out, row) in out.iter_mut().zip(self.weights.chunks_exact(self.row_bytes)) {
            // SAFETY: `k` weights and `k` activations in ggml's layout, room for one value.
            unsafe { dot(self.k as i32, out, row.as_ptr().cast(), self.activations.as_ptr().cast()) };
        }
    }
}
