//! Weights as the model files hold them: matrices stay in their blocks, vectors become f32.

use crate::error::{Error, Result};
use crate::gguf::{File, Span, TensorInfo};
use crate::quant::{self, BlockType};
use std::sync::Arc;

/// A matrix `[rows, cols]` in its blocks; a linear layer's rows are its outputs, its columns its inputs.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The tensor that it is, or is a part of.
    name: Arc<str>,
    data: Span,
    block_type: BlockType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    /// First row within `data`.
    first: usize,
}

impl Matrix {
    /// The name of the tensor that it is, or is a part of.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How the values are stored.
    pub fn block_type(&self) -> BlockType {
        self.block_type
    }

    /// The bytes of rows `start..start + n`.
    pub fn row_data(&self, start: usize, n: usize) -> &[u8] {
        assert!(start <= self.rows && n <= self.rows - start);
        let at = (self.first + start) * self.row_bytes;
        &self.data.as_slice()[at..at + n * self.row_bytes]
    }

    /// Rows `start..start + n` as a matrix of its own, without a copy: the parts of a fused projection.
    pub fn slice(&self, start: usize, n: usize) -> Self {
        assert!(start <= self.rows && n <= self.rows - start);
        Self { rows: n, first: self.first + start, ..self.clone() }
    }

    /// The product's value type when activations are quantised: `true` if the blocks have an integer kernel.
    pub fn is_quantised(&self) -> bool {
        !self.block_type.is_float()
    }
}

/// `y = x Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Matrix,
    /// `[out]`.
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// Rows `start..start + n` as a layer of their own.
    pub fn slice(&self, start: usize, n: usize) -> Self {
        let bias = self.bias.as_ref().map(|b| b[start..start + n].to_vec());
        Self { weight: self.weight.slice(start, n), bias }
    }
}

/// Scale and shift of a LayerNorm.
#[derive(Clone, Debug)]
pub struct Norm {
    /// `[n]`.
    pub weight: Vec<f32>,
    /// `[n]`.
    pub bias: Vec<f32>,
}

/// Takes weights out of a file, checking every shape.
pub struct Loader<'f> {
    /// The file.
    pub file: &'f File,
}

impl<'f> Loader<'f> {
    /// Whether the file has the tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_some()
    }

    fn find(&self, name: &str) -> Result<(&'f TensorInfo, BlockType, &'f Span)> {
        let t = self.file.tensor(name);
        let t = t.ok_or_else(|| Error::invalid(self.file.name(), name, "this tensor is missing"))?;
        match (t.block_type(), t.data()) {
            (Some(block_type), Some(data)) => Ok((t, block_type, data)),
            _ => {
                let known: Vec<_> = BlockType::ALL.iter().map(|t| t.name()).collect();
                let reason = format!("is stored as {}; the engine reads {}", t.type_name(), known.join(" "));
                Err(Error::unsupported(self.file.name(), name, reason))
            }
        }
    }

    fn shape_error(&self, t: &TensorInfo, expected: &str) -> Error {
        Error::invalid(self.file.name(), t.name(), format!("has dimensions {:?}, expected {expected}", t.dims()))
    }

    /// The first two dimensions of `name`, `[cols, rows]`.
    pub fn dims(&self, name: &str) -> Result<(usize, usize)> {
        let (t, ..) = self.find(name)?;
        Ok((t.dims()[0], t.dims()[1..].iter().product()))
    }

    /// The matrix `name`, `[rows, cols]`.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let (t, block_type, data) = self.find(name)?;
        if self.dims(name)? != (cols, rows) {
            return Err(self.shape_error(t, &format!("[{cols}, {rows}]")));
        }
        let row_bytes = block_type.row_bytes(cols).ok_or_else(|| self.shape_error(t, "whole blocks"))?;
        Ok(Matrix { name: name.into(), data: data.clone(), block_type, rows, cols, row_bytes, first: 0 })
    }

    /// The tensor `name` as a matrix of `rows` rows whatever its dimensions: a convolution's kernels, row-major.
    pub fn flat_matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let (t, block_type, data) = self.find(name)?;
        let total: usize = t.dims().iter().product();
        if Some(total) != rows.checked_mul(cols) || !block_type.is_float() {
            let expected = format!("{rows} × {cols} values as F32, F16 or BF16 (found {block_type})");
            return Err(self.shape_error(t, &expected));
        }
        let row_bytes = block_type.row_bytes(cols).ok_or_else(|| self.shape_error(t, "whole blocks"))?;
        Ok(Matrix { name: name.into(), data: data.clone(), block_type, rows, cols, row_bytes, first: 0 })
    }

    /// The tensor `name` as f32 values, `len` in all.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let (t, block_type, data) = self.find(name)?;
        if t.dims().iter().product::<usize>() != len {
            return Err(self.shape_error(t, &format!("{len} values")));
        }
        let mut out = vec![0.0; len];
        quant::dequantize(block_type, data.as_slice(), &mut out);
        Ok(out)
    }

    /// `NAME.weight` and, if the file has it, `NAME.bias`.
    pub fn linear(&self, name: &str, out: usize, input: usize) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), out, input)?;
        let bias = format!("{name}.bias");
        let bias = self.has(&bias).then(|| self.vector(&bias, out)).transpose()?;
        Ok(Linear { weight, bias })
    }

    /// `NAME.weight` and `NAME.bias` of a LayerNorm.
    pub fn norm(&self, name: &str, len: usize) -> Result<Norm> {
        let vector = |part: &str| self.vector(&format!("{name}.{part}"), len);
        Ok(Norm { weight: vector("weight")?, bias: vector("bias")? })
    }
}
