//! LoRA checkpoints (arXiv:2106.09685), as PEFT writes them: `W + scale · B · A`.

use super::checkpoint::{Lora, Tensor, Tensors};
use super::invalid;
use super::plan::Inventory;
use super::settings::Settings;
use llava::Error;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A and B, by the name of the matrix that they change.
pub type Matrices = BTreeMap<String, (Option<Tensor>, Option<Tensor>)>;

/// Takes a LoRA's matrices out of a folder's tensors, and what PEFT puts in front of names off.
///
/// # Errors
/// [`Error::InvalidModel`] if two names become one.
pub fn split(tensors: Tensors) -> Result<(Tensors, Matrices), Error> {
    let (mut others, mut lora) = (Tensors::new(), Matrices::new());
    for (full, tensor) in tensors {
        let name = full.strip_prefix("base_model.model.").unwrap_or(&full);
        let part = |half: &str| {
            name.strip_suffix(&format!(".lora_{half}.weight"))
                .or(name.strip_suffix(&format!(".lora_{half}.default.weight")))
        };
        if let Some(of) = part("A") {
            lora.entry(format!("{of}.weight")).or_default().0 = Some(tensor);
        } else if let Some(of) = part("B") {
            lora.entry(format!("{of}.weight")).or_default().1 = Some(tensor);
        } else if let Some(twice) = others.insert(name.to_owned(), tensor) {
            return Err(invalid(&twice.file(), &full, "stands twice"));
        }
    }
    Ok((others, lora))
}

/// Adds the matrices to those that they change.
///
/// # Errors
/// [`Error::InvalidModel`] if one is missing, is of another shape, or changes a tensor that is not there;
/// [`Error::Unsupported`] for variants of LoRA.
pub fn merge(lora: Matrices, settings: &Settings, inventory: &mut Inventory) -> Result<(), Error> {
    let rank = settings.size("r")?.ok_or_else(|| settings.wrong("r", "is missing"))?;
    let alpha = settings.number("lora_alpha")?.ok_or_else(|| settings.wrong("lora_alpha", "is missing"))?;
    for key in ["use_dora", "fan_in_fan_out"] {
        if settings.bool(key) == Some(true) {
            return Err(settings.unsupported(key, "is true; plain LoRA is merged"));
        }
    }
    for key in ["rank_pattern", "alpha_pattern"] {
        if settings.get(key).and_then(serde_json::Value::as_object).is_some_and(|map| !map.is_empty()) {
            return Err(settings.unsupported(key, "differs between matrices; one rank for all is merged"));
        }
    }
    let scale =
        if settings.bool("use_rslora") == Some(true) { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 };
    for (name, pair) in lora {
        let (Some(a), Some(b)) = pair else {
            return Err(settings.wrong(&name, "has one of lora_A and lora_B"));
        };
        let Some(matrix) = inventory.find_mut(&name) else {
            return Err(invalid(&a.file(), &a.name, &format!("changes {name}, which is not in the base")));
        };
        let shapes = (&a.shape[..], &b.shape[..], &matrix.shape[..]);
        let fits = matches!(shapes, (&[r, columns], &[rows, s], &[n, m]) if r == rank && s == rank && rows == n && columns == m);
        if !fits {
            let reason =
                format!("has the shape {:?}, and its B {:?}, for {:?} by rank {rank}", a.shape, b.shape, matrix.shape);
            return Err(invalid(&a.file(), &a.name, &reason));
        }
        matrix.lora = Some(Arc::new(Lora { a: a.values()?, b: b.values()?, rank, scale: scale as f32 }));
    }
    Ok(())
}
