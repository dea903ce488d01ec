//! A chat template: compiled, and rendered for a conversation with an image.
#![no_main]

use llava::prompt::{Jinja, Message, Role, Template};
use llava::tokenizer::{Tokenizer, Vocabulary};
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let mut v = Vocabulary::new("fuzz", "llama");
    v.tokens = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    v.scores = vec![0.0; 3];
    v.types = vec![llava::tokenizer::TokenType::Control; 3];
    Tokenizer::new(v).expect("three different tokens are a vocabulary")
});

libfuzzer_sys::fuzz_target!(|source: &str| {
    let Ok(template) = Jinja::new(source, &TOKENIZER) else { return };
    let messages = [Message::text(Role::System, "Be brief."), Message::user(1, "What is it?")];
    let _ = Template::Jinja(Box::new(template)).render(&messages, true);
});
