//! A conversation as LLaVA's training data has it (`docs/Finetune_Custom_Data.md` of the original).

use crate::failure::Failure;
use llava::prompt::{Message, Part, Role};
use serde::Serialize;
use std::path::Path;

/// One record of a data set.
#[derive(Serialize)]
pub struct Transcript<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Images<'a>>,
    conversations: Vec<Turn>,
}

/// A path, or several as in LLaVA-NeXT's data.
#[derive(Serialize)]
#[serde(untagged)]
enum Images<'a> {
    One(&'a str),
    Several(&'a [String]),
}

#[derive(Serialize)]
struct Turn {
    from: &'static str,
    value: String,
}

impl<'a> Transcript<'a> {
    /// The conversation called `id`; `images` are the paths of its images in order.
    pub fn new(id: String, images: &'a [String], messages: &[Message]) -> Self {
        let image = match images {
            [] => None,
            [one] => Some(Images::One(one)),
            several => Some(Images::Several(several)),
        };
        Self { id, image, conversations: messages.iter().map(Turn::new).collect() }
    }

    /// Writes it to `path`: into a temporary file beside it, renamed when complete.
    ///
    /// # Errors
    /// [`Failure::Run`]; `path` is then as it was.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        llava::replace(path, |out| {
            serde_json::to_writer_pretty(&mut *out, self)?;
            out.write_all(b"\n")
        })
        .map_err(|e| Failure::file(path, e))
    }
}

impl Turn {
    fn new(message: &Message) -> Self {
        let from = match message.role {
            Role::System => "system",
            Role::User => "human",
            Role::Assistant => "gpt",
        };
        let parts = message.content.iter().map(|part| match part {
            Part::Text(text) => text.trim(),
            Part::Image => "<image>\n",
        });
        Self { from, value: parts.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(images: &[&str]) -> serde_json::Value {
        let images: Vec<_> = images.iter().map(ToString::to_string).collect();
        let messages = [Message::user(images.len(), "What?"), Message::text(Role::Assistant, " A cat. ")];
        serde_json::to_value(Transcript::new("x".into(), &images, &messages)).unwrap()
    }

    #[test]
    fn one_image_is_a_path_several_are_a_list_and_none_is_left_out() {
        assert_eq!(
            json(&["a.png"]),
            serde_json::json!({"id": "x", "image": "a.png", "conversations": [
                {"from": "human", "value": "<image>\nWhat?"},
                {"from": "gpt", "value": "A cat."},
            ]})
        );
        assert_eq!(json(&["a.png", "b.png"])["image"], serde_json::json!(["a.png", "b.png"]));
        assert_eq!(json(&["a.png", "b.png"])["conversations"][0]["value"], "<image>\n<image>\nWhat?");
        assert!(json(&[]).get("image").is_none());
    }
}
