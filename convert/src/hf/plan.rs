//! Which tensors of a checkpoint become which tensors of a file, so that none is forgotten.

use super::checkpoint::{Tensor, Tensors};
use super::invalid;
use llava::Error;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A part of a LLaVA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The language model.
    Text,
    /// The vision tower.
    Tower,
    /// The projector.
    Projector,
    /// The embedding at the end of a row of patches.
    Newline,
}

/// What names begin with, in the layouts of transformers, old and new, and of the original; the longest first.
const PREFIXES: [(&str, Part); 14] = [
    ("model.vision_tower.vision_tower.vision_model.", Part::Tower),
    ("model.vision_tower.vision_tower.", Part::Tower),
    ("model.vision_tower.vision_model.", Part::Tower),
    ("model.vision_tower.", Part::Tower),
    ("vision_tower.vision_model.", Part::Tower),
    ("vision_tower.", Part::Tower),
    ("vision_model.", Part::Tower),
    ("model.multi_modal_projector.", Part::Projector),
    ("multi_modal_projector.", Part::Projector),
    ("model.mm_projector.", Part::Projector),
    ("mm_projector.", Part::Projector),
    ("model.language_model.", Part::Text),
    ("language_model.model.", Part::Text),
    ("model.", Part::Text),
];

/// What is of no use to anyone who runs the model: how its name begins or ends, and why.
const IGNORED: [(&str, &str); 7] = [
    ("rotary_emb.inv_freq", "is computed from the configuration"),
    ("embeddings.position_ids", "counts from 0"),
    ("text_model.", "is CLIP's text tower, and LLaVA has a language model"),
    ("text_projection.", "is CLIP's, and LLaVA has a projector of its own"),
    ("visual_projection.", "is CLIP's, and LLaVA has a projector of its own"),
    ("logit_scale", "is used to train CLIP"),
    ("logit_bias", "is used to train SigLIP"),
];

/// A tensor that is not converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Its name in the checkpoint.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// The tensors of one or more folders, by part and by the name that transformers gives them within it.
pub struct Inventory {
    tensors: BTreeMap<(Part, String), Tensor>,
    /// What was left out.
    pub ignored: Vec<Ignored>,
    /// The folder, for messages.
    pub folder: PathBuf,
}

impl Inventory {
    /// An empty one, for the checkpoint in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { tensors: BTreeMap::new(), ignored: Vec::new(), folder: folder.to_owned() }
    }

    /// Adds a folder's tensors; of what is there already the earlier stays. With `only`, other parts are left out.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a name that no layout has; [`Error::InvalidModel`] for one part under two names.
    pub fn add(&mut self, tensors: Tensors, only: Option<&[Part]>) -> Result<(), Error> {
        let mut names: BTreeMap<(Part, String), String> = BTreeMap::new();
        for (full, tensor) in tensors {
            if let Some((_, reason)) = IGNORED.iter().find(|(s, _)| full.starts_with(s) || full.ends_with(s)) {
                self.ignored.push(Ignored { name: full, reason: (*reason).to_owned() });
                continue;
            }
            let Some((part, name)) = place(&full) else {
                let reason = "is of no layout that is known: LLaVA's, or transformers' for LLaVA, CLIP, SigLIP, LLaMA, Mistral, \
                              Qwen2 and Phi-3";
                let file = tensor.file().display().to_string();
                return Err(Error::Unsupported { file, field: full, reason: reason.to_owned() });
            };
            if only.is_some_and(|parts| !parts.contains(&part)) {
                let reason = "the folder was named for another part".to_owned();
                self.ignored.push(Ignored { name: full, reason });
                continue;
            }
            let key = (part, name.to_owned());
            if let Some(other) = names.insert(key.clone(), full.clone()) {
                return Err(invalid(&tensor.file(), &full, &format!("is the same tensor as {other}")));
            }
            if self.tensors.contains_key(&key) {
                let reason = "the checkpoint has its own in place of its base's".to_owned();
                self.ignored.push(Ignored { name: full, reason });
                continue;
            }
            self.tensors.insert(key, tensor);
        }
        Ok(())
    }

    /// Whether a part has any tensor.
    pub fn has(&self, part: Part) -> bool {
        self.tensors.keys().any(|(p, _)| *p == part)
    }

    /// A tensor that stays in the inventory.
    pub fn get(&self, part: Part, name: &str) -> Option<&Tensor> {
        self.tensors.get(&(part, name.to_owned()))
    }

    /// The tensor that a checkpoint calls `full`, to change it.
    pub fn find_mut(&mut self, full: &str) -> Option<&mut Tensor> {
        let (part, name) = place(full)?;
        self.tensors.get_mut(&(part, name.to_owned()))
    }

    /// Takes a tensor of that shape out, if it is there.
    ///
    /// # Errors
    /// [`Error::InvalidModel`] if it has another shape.
    pub fn take_if(&mut self, part: Part, name: &str, shape: &[usize]) -> Result<Option<Tensor>, Error> {
        let Some(tensor) = self.tensors.remove(&(part, name.to_owned())) else { return Ok(None) };
        if tensor.shape != shape {
            let reason = format!("has the shape {:?}, and the configuration asks for {shape:?}", tensor.shape);
            return Err(invalid(&tensor.file(), &tensor.name, &reason));
        }
        Ok(Some(tensor))
    }

    /// Takes a tensor of that shape out.
    ///
    /// # Errors
    /// [`Error::InvalidModel`] if it is missing or has another shape.
    pub fn take(&mut self, part: Part, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        let found = self.take_if(part, name, shape)?;
        found.ok_or_else(|| invalid(&self.folder, name, "is missing in the checkpoint"))
    }

    /// Leaves out what is left of a part and satisfies `what`.
    pub fn ignore(&mut self, part: Part, what: impl Fn(&str) -> bool, reason: &str) {
        let left: Vec<_> = self.tensors.keys().filter(|(p, name)| *p == part && what(name)).cloned().collect();
        for key in left {
            if let Some(tensor) = self.tensors.remove(&key) {
                self.ignored.push(Ignored { name: tensor.name, reason: reason.to_owned() });
            }
        }
    }

    /// An error if anything is left: a tensor that nobody knows may matter.
    pub fn check_empty(&self) -> Result<(), Error> {
        match self.tensors.values().next() {
            Some(t) => Err(Error::Unsupported {
                file: t.file().display().to_string(),
                field: t.name.clone(),
                reason: format!("is not known (and {} more): a model of another kind?", self.tensors.len() - 1),
            }),
            None => Ok(()),
        }
    }
}

/// The part that a name belongs to, and its name there.
fn place(full: &str) -> Option<(Part, &str)> {
    match full {
        "model.image_newline" | "image_newline" => return Some((Part::Newline, "image_newline")),
        "lm_head.weight" | "language_model.lm_head.weight" | "model.lm_head.weight" => {
            return Some((Part::Text, "lm_head.weight"));
        }
        _ => {}
    }
    PREFIXES.iter().find_map(|(prefix, part)| Some((*part, full.strip_prefix(prefix)?)))
}

/// A tensor of a file to be written.
pub struct Planned {
    /// Its name there.
    pub name: String,
    /// What it is made of, and its shape.
    pub source: Tensor,
    /// Heads whose rows are interleaved, half by half; 0 if rows stay where they are.
    pub interleaved_heads: usize,
}

impl Planned {
    /// A tensor that stays as it is.
    pub fn new(name: impl Into<String>, source: Tensor) -> Self {
        Self { name: name.into(), source, interleaved_heads: 0 }
    }

    /// A projection whose rows go in RoPE's order of neighbours: within each of `heads` heads, row `i` and row `i + half` of
    /// transformers' become rows `2i` and `2i + 1`.
    pub fn interleaved(name: impl Into<String>, source: Tensor, heads: usize) -> Self {
        Self { name: name.into(), source, interleaved_heads: heads }
    }

    /// Dimensions, fastest first.
    pub fn dims(&self) -> Vec<usize> {
        self.source.shape.iter().rev().copied().collect()
    }

    /// The row of the source that becomes `row`, of `rows`.
    pub fn source_row(&self, row: usize, rows: usize) -> usize {
        match rows.checked_div(self.interleaved_heads) {
            Some(dim) if dim > 1 => row / dim * dim + row % dim / 2 + row % 2 * (dim / 2),
            _ => row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_layout_are_placed() {
        for (full, part, name) in [
            ("model.language_model.layers.0.mlp.up_proj.weight", Part::Text, "layers.0.mlp.up_proj.weight"),
            ("language_model.model.norm.weight", Part::Text, "norm.weight"),
            ("model.embed_tokens.weight", Part::Text, "embed_tokens.weight"),
            ("language_model.lm_head.weight", Part::Text, "lm_head.weight"),
            ("model.vision_tower.vision_tower.vision_model.pre_layrnorm.bias", Part::Tower, "pre_layrnorm.bias"),
            ("vision_tower.vision_model.pre_layrnorm.bias", Part::Tower, "pre_layrnorm.bias"),
            ("model.vision_tower.pre_layrnorm.bias", Part::Tower, "pre_layrnorm.bias"),
            ("model.mm_projector.0.weight", Part::Projector, "0.weight"),
            ("model.multi_modal_projector.linear_1.bias", Part::Projector, "linear_1.bias"),
            ("model.image_newline", Part::Newline, "image_newline"),
        ] {
            assert_eq!(place(full), Some((part, name)), "{full}");
        }
        assert_eq!(place("audio_tower.x"), None);
    }

    #[test]
    fn halves_of_heads_are_interleaved() {
        let tensor = Tensor::from_values("q", vec![8, 1], vec![0.0; 8]);
        let q = Planned::interleaved("q", tensor, 2);
        let order: Vec<_> = (0..8).map(|row| q.source_row(row, 8)).collect();
        assert_eq!(order, [0, 2, 1, 3, 4, 6, 5, 7]);
    }
}
