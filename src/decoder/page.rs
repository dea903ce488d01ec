//! A page of the KV cache: the keys and values of 64 positions, for all layers and heads.

use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::kernels::attention::{KV_BLOCK, KvPage, PAGE};
use bytemuck::{Pod, Zeroable, cast_slice, cast_slice_mut};
use half::f16;
use std::fmt;
use std::str::FromStr;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(non_camel_case_types)]
#[non_exhaustive]
pub enum KvType {
    /// Half precision, as llama.cpp's default.
    #[default]
    F16,
    /// Single precision: twice the memory.
    F32,
    /// 8 bits, with an f16 scale for each 32 values of a head's vector: half the memory. Needs heads whose width is a
    /// multiple of 32.
    Q8_0,
}

impl KvType {
    /// All types.
    pub const ALL: [Self; 3] = [Self::F16, Self::F32, Self::Q8_0];

    /// `f16`, `f32` or `q8_0`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Q8_0 => "q8_0",
        }
    }

    /// Bytes of a page's keys and values of one head, a multiple of [`Line`].
    fn head_bytes(self, dim: usize) -> usize {
        let values = 2 * dim * PAGE;
        match self {
            Self::F16 => 2 * values,
            Self::F32 => 4 * values,
            Self::Q8_0 => values + values / KV_BLOCK * 2,
        }
    }

    /// Bytes of a page of `heads` heads, counted over all layers.
    pub(super) fn page_bytes(self, heads: usize, dim: usize) -> usize {
        heads * self.head_bytes(dim)
    }

    /// An error if heads `dim` wide can't be stored so.
    pub(crate) fn check(self, dim: usize) -> Result<()> {
        if self != Self::Q8_0 || dim.is_multiple_of(KV_BLOCK) {
            return Ok(());
        }
        let reason = format!("q8_0 needs heads whose width is a multiple of 32; this model's are {dim} wide: use f16");
        Err(Error::argument("kv_type", reason))
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KvType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let unknown =
            || Error::argument("kv_type", format!("{name:?}; there are {}", Self::ALL.map(Self::name).join(", ")));
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name)).ok_or_else(unknown)
    }
}

/// A cache line, so that vectors are aligned.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Every head's keys and values, head after head.
#[derive(Clone)]
pub struct Page {
    lines: Vec<Line>,
    kind: KvType,
    dim: usize,
}

/// One head's part of a page, to write to. Keys are `[dim, PAGE]`, values `[PAGE, dim]`, see [`KvPage`].
pub enum Head<'a> {
    /// Half precision.
    F16(&'a mut [f16], &'a mut [f16]),
    /// Single precision.
    F32(&'a mut [f32], &'a mut [f32]),
    /// 8-bit keys and their scales, values and theirs.
    Q8([&'a mut [i8]; 2], [&'a mut [f16]; 2]),
}

impl Page {
    /// Zeros for `heads` heads, counted over all layers.
    pub fn new(kind: KvType, heads: usize, dim: usize) -> Result<Self> {
        kind.check(dim)?;
        let bytes = kind.page_bytes(heads, dim);
        let lines =
            bytemuck::allocation::try_zeroed_vec(bytes / size_of::<Line>()).map_err(|_| Error::OutOfMemory {
                what: "the KV cache",
                bytes: bytes as u64,
                reason: "the system has no more; use a shorter context".into(),
            })?;
        Ok(Self { lines, kind, dim })
    }

    /// Lines of a head.
    fn head_lines(&self) -> usize {
        self.kind.head_bytes(self.dim) / size_of::<Line>()
    }

    /// The keys and values of `head`, counted over all layers.
    pub fn head(&self, head: usize) -> KvPage<'_> {
        let (n, lines) = (self.dim * PAGE, self.head_lines());
        let lines = &self.lines[head * lines..][..lines];
        match self.kind {
            KvType::F16 => {
                let (keys, values) = cast_slice(lines).split_at(n);
                KvPage::F16 { keys, values }
            }
            KvType::F32 => {
                let (keys, values) = cast_slice(lines).split_at(n);
                KvPage::F32 { keys, values }
            }
            KvType::Q8_0 => {
                let (qs, scales) = cast_slice::<_, i8>(lines).split_at(2 * n);
                let ((keys, values), scales) = (qs.split_at(n), cast_slice(scales));
                let (key_scales, value_scales) = scales.split_at(n / KV_BLOCK);
                KvPage::Q8 { keys, key_scales, values, value_scales }
            }
        }
    }

    /// `n` heads from `first` on, to write to.
    pub fn heads_mut(&mut self, first: usize, n: usize) -> impl Iterator<Item = Head<'_>> {
        let (len, lines, kind) = (self.dim * PAGE, self.head_lines(), self.kind);
        self.lines[first * lines..][..n * lines].chunks_exact_mut(lines).map(move |lines| match kind {
            KvType::F16 => {
                let (keys, values) = cast_slice_mut(lines).split_at_mut(len);
                Head::F16(keys, values)
            }
            KvType::F32 => {
                let (keys, values) = cast_slice_mut(lines).split_at_mut(len);
                Head::F32(keys, values)
            }
            KvType::Q8_0 => {
                let (qs, scales) = cast_slice_mut::<_, i8>(lines).split_at_mut(2 * len);
                let ((keys, values), scales) = (qs.split_at_mut(len), cast_slice_mut(scales));
                Head::Q8([keys, values], scales.split_at_mut(len / KV_BLOCK).into())
            }
        })
    }
}

impl Head<'_> {
    /// Stores the key and value, `[dim]` each, at position `t` of the page.
    pub fn store(&mut self, kernels: &Kernels, t: usize, k: &[f32], v: &[f32]) {
        let dim = k.len();
        match self {
            Self::F16(keys, values) => {
                let mut some = [f16::ZERO; KV_BLOCK];
                for (k, keys) in k.chunks(KV_BLOCK).zip(keys.chunks_mut(KV_BLOCK * PAGE)) {
                    (kernels.to_f16)(k, &mut some[..k.len()]);
                    scatter(&some[..k.len()], &mut keys[t..]);
                }
                (kernels.to_f16)(v, &mut values[t * dim..][..dim]);
            }
            Self::F32(keys, values) => {
                scatter(k, &mut keys[t..]);
                values[t * dim..][..dim].copy_from_slice(v);
            }
            Self::Q8([keys, values], [key_scales, value_scales]) => {
                let (mut scale, mut sums) = ([0.0], [0; 2]);
                let mut some = [0; KV_BLOCK];
                for (i, (k, keys)) in k.chunks_exact(KV_BLOCK).zip(keys.chunks_mut(KV_BLOCK * PAGE)).enumerate() {
                    (kernels.quantize_q8)(k, &mut some, &mut scale, &mut sums);
                    scatter(&some, &mut keys[t..]);
                    key_scales[i * PAGE + t] = f16::from_f32(scale[0]);
                }
                let at = t * dim;
                for (i, v) in v.chunks_exact(KV_BLOCK).enumerate() {
                    (kernels.quantize_q8)(v, &mut values[at + i * KV_BLOCK..][..KV_BLOCK], &mut scale, &mut sums);
                    value_scales[at / KV_BLOCK + i] = f16::from_f32(scale[0]);
                }
            }
        }
    }
}

/// A column of a `[.., PAGE]` matrix.
fn scatter<T: Copy>(x: &[T], to: &mut [T]) {
    to.iter_mut().step_by(PAGE).zip(x).for_each(|(to, x)| *to = *x);
}
