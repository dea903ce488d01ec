//! The tower of a CLIP that was exported as ONNX: vectors under transformers' names, matrices under the names of the nodes that
//! multiply with them, in single precision or rounded to bytes by onnxruntime (`MatMulInteger`).

use super::checkpoint::{Tensor, Tensors};
use super::invalid;
use super::protobuf::{Field, fields, varint};
use llava::Error;
use std::collections::HashMap;
use std::path::Path;

/// `TensorProto.DataType`.
const FLOAT: u64 = 1;
const UINT8: u64 = 2;
const INT8: u64 = 3;

/// A graph's constant.
#[derive(Default)]
struct Constant<'a> {
    shape: Vec<usize>,
    kind: u64,
    raw: &'a [u8],
    /// Where the values are not raw: packed floats, or bytes as packed numbers.
    floats: &'a [u8],
    numbers: Vec<i32>,
}

/// A node: what it computes, of what, and its name.
#[derive(Default)]
struct Node {
    op: String,
    name: String,
    inputs: Vec<String>,
}

/// Reads the tensors of a file.
///
/// # Errors
/// [`Error::Io`]; [`Error::InvalidModel`] if it is damaged or its shapes contradict each other.
pub fn open(path: &Path) -> Result<Tensors, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let damaged = || invalid(path, "file", "is no ONNX model, or is damaged");
    let (constants, nodes) = graph(&bytes).ok_or_else(damaged)?;
    if nodes.is_empty() {
        return Err(damaged());
    }
    let mut found = Tensors::new();
    for (name, constant) in &constants {
        // The rest are scales, zero points, and what the export computed.
        if (name.ends_with(".weight") || name.ends_with(".bias") || name.ends_with("_embedding"))
            && constant.kind == FLOAT
        {
            let values =
                constant.floats().ok_or_else(|| invalid(path, name, "has another number of values than its shape"))?;
            found.insert(name.clone(), Tensor::from_values(name, constant.shape.clone(), values));
        }
    }
    for node in nodes.iter().filter(|n| matches!(n.op.as_str(), "MatMul" | "MatMulInteger")) {
        let Some(constant) = node.inputs.get(1).and_then(|name| constants.get(name)) else { continue };
        // `/vision_model/encoder/layers.0/mlp/fc1/MatMul_quant`
        let Some((place, _)) = node.name.trim_start_matches('/').rsplit_once('/') else { continue };
        let name = format!("{}.weight", place.replace('/', "."));
        let matrix = matrix(node, constant, &constants);
        let (shape, values) =
            matrix.ok_or_else(|| invalid(path, &name, "is no matrix, or lacks scales for its columns"))?;
        found.insert(name.clone(), Tensor::from_values(name, shape, values));
    }
    Ok(found)
}

/// The matrix `[out, in]` that a node multiplies with, whose constant is `[in, out]`.
fn matrix(node: &Node, constant: &Constant<'_>, all: &HashMap<String, Constant<'_>>) -> Option<(Vec<usize>, Vec<f32>)> {
    let &[rows, columns] = &constant.shape[..] else { return None };
    let flat = match constant.kind {
        FLOAT => constant.floats()?,
        _ => {
            let levels = constant.levels()?;
            // onnxruntime's names: X_quantized, X_scale, X_zero_point.
            let scale = all.get(&format!("{}_scale", node.inputs.get(1)?.strip_suffix("_quantized")?))?.floats()?;
            let zero = match node.inputs.get(3) {
                Some(name) => all.get(name)?.levels()?,
                None => vec![0],
            };
            // One for all columns, or one for each.
            let fits = |len: usize| len == 1 || len == columns;
            if columns == 0 || !fits(scale.len()) || !fits(zero.len()) {
                return None;
            }
            let of = |row: &[i32]| {
                row.iter()
                    .enumerate()
                    .map(|(i, &q)| (q - zero[i % zero.len()]) as f32 * scale[i % scale.len()])
                    .collect::<Vec<_>>()
            };
            levels.chunks_exact(columns).flat_map(of).collect()
        }
    };
    let mut out = vec![0.0; flat.len()];
    for (i, row) in flat.chunks_exact(columns.max(1)).enumerate() {
        row.iter().enumerate().for_each(|(o, x)| out[o * rows + i] = *x);
    }
    Some((vec![columns, rows], out))
}

impl Constant<'_> {
    fn len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }

    fn floats(&self) -> Option<Vec<f32>> {
        let bytes = if self.raw.is_empty() { self.floats } else { self.raw };
        (self.kind == FLOAT && Some(bytes.len()) == self.len()?.checked_mul(4))
            .then(|| bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// Bytes as numbers.
    fn levels(&self) -> Option<Vec<i32>> {
        let levels: Vec<i32> = match self.kind {
            UINT8 | INT8 if self.raw.is_empty() => self.numbers.clone(),
            UINT8 => self.raw.iter().map(|&b| b.into()).collect(),
            INT8 => self.raw.iter().map(|&b| i32::from(b as i8)).collect(),
            _ => return None,
        };
        (Some(levels.len()) == self.len() && levels.iter().all(|q| (-128..256).contains(q))).then_some(levels)
    }
}

/// Constants by name, and nodes.
fn graph(model: &[u8]) -> Option<(HashMap<String, Constant<'_>>, Vec<Node>)> {
    let (mut constants, mut nodes) = (HashMap::new(), Vec::new());
    for field in fields(model) {
        let (7, Field::Bytes(graph)) = field? else { continue };
        for field in fields(graph) {
            match field? {
                (1, Field::Bytes(bytes)) => nodes.push(node(bytes)?),
                (5, Field::Bytes(bytes)) => {
                    let (name, constant) = constant(bytes)?;
                    constants.insert(name, constant);
                }
                _ => {}
            }
        }
    }
    Some((constants, nodes))
}

fn node(bytes: &[u8]) -> Option<Node> {
    let mut node = Node::default();
    for field in fields(bytes) {
        let (number, Field::Bytes(text)) = field? else { continue };
        let text = || String::from_utf8(text.to_vec()).ok();
        match number {
            1 => node.inputs.push(text()?),
            3 => node.name = text()?,
            4 => node.op = text()?,
            _ => {}
        }
    }
    Some(node)
}

fn constant(bytes: &[u8]) -> Option<(String, Constant<'_>)> {
    let (mut name, mut constant) = (String::new(), Constant::default());
    for field in fields(bytes) {
        match field? {
            (1, Field::Varint(n)) => constant.shape.push(usize::try_from(n).ok()?),
            (1, Field::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    constant.shape.push(usize::try_from(varint(&mut packed)?).ok()?);
                }
            }
            (2, Field::Varint(n)) => constant.kind = n,
            (4, Field::Bytes(packed)) => constant.floats = packed,
            (5, Field::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    // Negative numbers are written in 64 bits.
                    constant.numbers.push(i32::try_from(varint(&mut packed)? as i64).ok()?);
                }
            }
            (8, Field::Bytes(text)) => name = String::from_utf8(text.to_vec()).ok()?,
            (9, Field::Bytes(raw)) => constant.raw = raw,
            _ => {}
        }
    }
    Some((name, constant))
}
