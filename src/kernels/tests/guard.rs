//! No kernel reads or writes beyond its slices: each slice ends where a page begins that cannot be touched.
//!
//! A kernel that strays ends the whole test run with a segmentation fault; what was printed last says which.

use super::matmul::bf16_columns;
use super::{Activations, Random, each_table};
use crate::kernels::{Bf16Columns, OutTile, Q8Rows};
use crate::quant::BlockType;
use half::{bf16, f16};
use memmap2::MmapMut;
use std::ffi::{c_int, c_void};
use std::ops::{Deref, DerefMut};

unsafe extern "C" {
    fn mprotect(addr: *mut c_void, len: usize, prot: c_int) -> c_int;
}

/// Memory is mapped and protected in multiples of this, on every system that there is a table for.
const PAGE: usize = 1 << 16;

/// A slice that ends at a page without any rights.
struct Guarded<T> {
    map: MmapMut,
    len: usize,
    kind: std::marker::PhantomData<T>,
}

impl<T: bytemuck::Pod> Guarded<T> {
    fn new(values: &[T]) -> Self {
        let inside = size_of_val(values).next_multiple_of(PAGE);
        let mut map = MmapMut::map_anon(inside + PAGE).unwrap();
        // SAFETY: the last page of a mapping of our own, which nothing refers to.
        let result = unsafe { mprotect(map.as_mut_ptr().add(inside).cast(), PAGE, 0) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        let mut guarded = Self { map, len: values.len(), kind: std::marker::PhantomData };
        guarded.copy_from_slice(values);
        guarded
    }

    fn start(&self) -> usize {
        self.map.len() - PAGE - self.len * size_of::<T>()
    }
}

impl<T: bytemuck::Pod> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` values in front of the guard; any bytes are values, and their size is a multiple of their alignment.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.start()).cast(), self.len) }
    }
}

impl<T: bytemuck::Pod> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(self.start()).cast(), self.len) }
    }
}

fn f32s(n: usize, random: &mut Random) -> Guarded<f32> {
    Guarded::new(&random.f32s(n))
}

#[test]
fn matmuls_stay_inside() {
    each_table(|kernels| {
        let mut random = Random(1);
        for t in BlockType::ALL {
            println!("{t}");
            // Whole blocks of int8 activations too.
            let odd = if t.is_float() { vec![1, 7, 15, 17, 31, 33, 100] } else { vec![] };
            let whole = [1, 2, 3, 5].map(|n| n * t.block_len().max(32));
            for k in odd.into_iter().chain(whole) {
                for (rows, cols) in [(1, 1), (3, 2), (16, 1), (17, 3), (31, 4), (32, 5), (33, 9), (70, 17)] {
                    let w = Guarded::new(&random.bytes(rows * t.row_bytes(k).unwrap()));
                    let x = f32s(cols * k, &mut random);
                    let mut out = f32s(cols * rows, &mut random);
                    let mut tile = OutTile::new(&mut out, cols, rows);
                    (kernels.matmul_f32[t as usize])(&w, &x, k, &mut tile, &mut Vec::new());
                    if let Some(bf16) = &kernels.bf16 {
                        let mut halves = Guarded::new(&vec![bf16::ZERO; cols * k]);
                        (bf16.round)(&x, &mut halves);
                        let columns = Guarded::new(&bf16_columns(&halves, cols, k));
                        (bf16.matmul)(t, &w, Bf16Columns::new(&columns, cols, k), &mut tile, &mut Vec::new());
                    }
                    if let Some(run) = kernels.matmul_q8[t as usize] {
                        let a = Activations::quantize(&x, cols, kernels);
                        let (qs, scales, sums) = (Guarded::new(&a.qs), Guarded::new(&a.scales), Guarded::new(&a.sums));
                        run(&w, Q8Rows { qs: &qs, scales: &scales, sums: &sums, k }, &mut tile, &mut Vec::new());
                    }
                }
                let w = Guarded::new(&random.bytes(t.row_bytes(k).unwrap()));
                (kernels.dequantize[t as usize])(&w, &mut f32s(k, &mut random));
            }
        }
    });
}

#[test]
fn row_operations_stay_inside() {
    each_table(|kernels| {
        let mut random = Random(2);
        for n in (1..=70).chain([127, 129, 1000]) {
            let (x, w, b) = (f32s(n, &mut random), f32s(n, &mut random), f32s(n, &mut random));
            let mut y = f32s(n, &mut random);
            (kernels.rms_norm)(&x, &w, 1e-5, &mut y);
            (kernels.layer_norm)(&x, &w, &b, 1e-5, &mut y);
            (kernels.silu_mul)(&mut y, &x);
            (kernels.gelu_quick)(&mut y);
            (kernels.gelu_erf)(&mut y);
            (kernels.gelu_tanh)(&mut y);
            (kernels.add)(&mut y, &x);
            (kernels.to_f16)(&x, &mut Guarded::new(&vec![f16::ZERO; n]));
            let x = f32s(32 * n, &mut random);
            let (mut qs, mut scales) = (Guarded::new(&vec![0i8; 32 * n]), Guarded::new(&vec![0f32; n]));
            (kernels.quantize_q8)(&x, &mut qs, &mut scales, &mut Guarded::new(&vec![0i16; 2 * n]));
        }
    });
}
