//! From a conversation to the tokens of a prompt.
//!
//! A [`Template`] writes the conversation as the model saw it in training, [`splice()`] turns that into token ids with
//! gaps for the images. A wrong template does not fail, it makes answers worse: [`Template::choose`] says why it chose
//! what it chose, and [`Template::by_name`] overrides it.

mod guard;
mod jinja;
mod json;
mod splice;
mod styles;

pub use jinja::Jinja;
pub use splice::{Slot, splice};
pub use styles::{STYLES, Style};

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions that precede the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that chat templates use.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// An image; which one follows from the order of all images of the conversation.
    Image,
}

/// A message of a conversation.
///
/// However text and images are mixed, templates write a message's images first, as the models were trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said. Only a user's message may have images.
    pub content: Vec<Part>,
}

impl Message {
    /// A message without images.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![Part::Text(text.into())] }
    }

    /// A user's message about `images` images.
    pub fn user(images: usize, text: impl Into<String>) -> Self {
        let mut content = vec![Part::Image; images];
        content.push(Part::Text(text.into()));
        Self { role: Role::User, content }
    }

    /// The number of images.
    pub fn images(&self) -> usize {
        self.content.iter().filter(|part| **part == Part::Image).count()
    }

    /// The texts joined, without any `<image>`: in the reference that tag stands for an image, and here images are
    /// parts of their own.
    fn clean_text(&self) -> String {
        const TAG: &str = "<image>";
        let mut out = String::new();
        for part in &self.content {
            let Part::Text(text) = part else { continue };
            for c in text.chars() {
                out.push(c);
                // At every character, so that taking out one tag cannot leave another.
                if c == '>' && out.ends_with(TAG) {
                    out.truncate(out.len() - TAG.len());
                }
            }
        }
        out
    }
}

/// A part of a rendered prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text, in which the texts of control tokens stand for those tokens.
    Text(String),
    /// The next image.
    Image,
}

/// How a conversation is written for a model.
#[derive(Debug)]
pub enum Template {
    /// One of the conversation styles of the LLaVA family.
    Style(&'static Style),
    /// The chat template that came with the model.
    Jinja(Box<Jinja>),
}

impl Template {
    /// The style called `name`.
    ///
    /// # Errors
    /// [`Error::Template`] with all names if there is none.
    pub fn by_name(name: &str) -> Result<Self> {
        let found = STYLES.iter().find(|style| style.name == name || style.aliases.contains(&name));
        found.map(Self::Style).ok_or_else(|| {
            let known: Vec<&str> =
                STYLES.iter().flat_map(|s| std::iter::once(s.name).chain(s.aliases.iter().copied())).collect();
            Error::Template { name: name.to_owned(), reason: format!("no such style; there are {}", known.join(", ")) }
        })
    }

    /// The template for a model, and the reason for it: the file's own template, else what the original command line
    /// goes by, the model's name, else what the vocabulary gives away, else LLaVA-1.5's.
    ///
    /// `general_name` and `chat_template` are the GGUF keys `general.name` and `tokenizer.chat_template`.
    pub fn choose(general_name: Option<&str>, chat_template: Option<&str>, tokenizer: &Tokenizer) -> (Self, String) {
        let mut failed = String::new();
        if let Some(source) = chat_template.filter(|source| !source.trim().is_empty()) {
            match Jinja::new(source, tokenizer) {
                Ok(template) => return (Self::Jinja(Box::new(template)), "the file's own chat template".to_owned()),
                Err(error) => {
                    log::warn!("{error}; another template is used");
                    failed = format!(" (the file's own does not compile: {error})");
                }
            }
        }
        let (style, reason) = by_model_name(general_name.unwrap_or_default())
            .or_else(|| by_vocabulary(tokenizer))
            .unwrap_or((&styles::VICUNA_V1, "nothing in the file tells: LLaVA-1.5's style".to_owned()));
        (Self::Style(style), reason + &failed)
    }

    /// The name, as [`Template::by_name`] takes it; `tokenizer.chat_template` for the file's own.
    pub fn name(&self) -> &str {
        match self {
            Self::Style(style) => style.name,
            Self::Jinja(_) => jinja::NAME,
        }
    }

    /// Texts that end an answer, beside the vocabulary's own stop tokens.
    pub fn stop_strings(&self) -> &'static [&'static str] {
        match self {
            Self::Style(style) => style.stop,
            Self::Jinja(_) => &[],
        }
    }

    /// Writes a conversation; `add_generation_prompt` ends it with what precedes the model's next answer.
    ///
    /// No two texts are neighbours, and none is empty.
    ///
    /// # Errors
    /// [`Error::Template`] if a message other than a user's has images, if a system message is not the first, or if the
    /// file's own template fails, takes too long or loses an image.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Vec<Piece>> {
        let refuse = |reason: &str| Err(Error::Template { name: self.name().to_owned(), reason: reason.to_owned() });
        if messages.iter().any(|m| m.role != Role::User && m.images() > 0) {
            return refuse("only a user's message can have images");
        }
        if messages.iter().skip(1).any(|m| m.role == Role::System) {
            return refuse("a system message must be the first");
        }
        match self {
            Self::Style(style) => style.render(messages, add_generation_prompt),
            Self::Jinja(template) => template.render(messages, add_generation_prompt),
        }
    }
}

/// What `llava/serve/cli.py` of the original takes from a model's name.
fn by_model_name(name: &str) -> Option<(&'static Style, String)> {
    let lower = name.to_lowercase();
    let table: [(&str, &Style); 5] = [
        ("llama-2", &styles::LLAVA_LLAMA_2),
        ("mistral", &styles::MISTRAL_INSTRUCT),
        ("v1.6-34b", &styles::CHATML_DIRECT),
        ("v1", &styles::LLAVA_V1),
        ("mpt", &styles::MPT),
    ];
    let (part, style) = table.into_iter().find(|(part, _)| lower.contains(part))?;
    Some((style, format!("the model's name `{name}` has `{part}` in it")))
}

fn by_vocabulary(tokenizer: &Tokenizer) -> Option<(&'static Style, String)> {
    let table: [(&[&str], &Style); 3] = [
        (&["<|im_start|>"], &styles::CHATML),
        (&["<|start_header_id|>"], &styles::LLAVA_LLAMA_3),
        (&["<|user|>", "<|end|>"], &styles::PHI3),
    ];
    let (tokens, style) =
        table.into_iter().find(|(tokens, _)| tokens.iter().all(|token| tokenizer.id_of(token).is_some()))?;
    Some((style, format!("the vocabulary has {}", tokens.join(" and "))))
}

/// Collects pieces, joining neighbouring texts.
#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn text(&mut self, text: &str) -> &mut Self {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.0.push(Piece::Text(text.to_owned())),
        }
        self
    }

    fn image(&mut self) -> &mut Self {
        self.0.push(Piece::Image);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_tags_in_text_vanish_even_if_nested() {
        let m = Message::text(Role::User, "<image>\nWhat <im<image>age>is <imag");
        assert_eq!(m.clean_text(), "\nWhat is <imag");
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        let text = Template::by_name("vicuna").unwrap_err().to_string();
        assert!(text.contains("vicuna_v1") && text.contains("mistral_direct"), "{text}");
        assert_eq!(Template::by_name("mistral_direct").unwrap().name(), "chatml_direct");
    }

    #[test]
    fn names_are_read_as_the_original_command_line_does() {
        for (name, style) in [
            ("llava-llama-2-13b", "llava_llama_2"),
            ("LLaVA v1.6 Mistral 7B", "mistral_instruct"),
            ("llava-v1.6-34b", "chatml_direct"),
            ("llava-v1.5-7b", "llava_v1"),
            ("LLaVA-MPT-7B", "mpt"),
        ] {
            assert_eq!(by_model_name(name).unwrap().0.name, style);
        }
        assert!(by_model_name("photo").is_none());
    }
}
