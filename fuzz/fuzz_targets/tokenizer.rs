//! A text in the golden vocabulary: tokenised, and streamed back piece by piece.
#![no_main]

use llava::tokenizer::{Special, TextStream, Tokenizer};
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let lm = include_bytes!("../../tests/golden/transformers/llava/lm.gguf");
    let file = llava::gguf::File::from_static(lm).expect("the golden file is sound");
    Tokenizer::from_gguf(&file).expect("the golden file has a vocabulary")
});

libfuzzer_sys::fuzz_target!(|text: &str| {
    for special in [Special::Parse, Special::Plain] {
        let ids = TOKENIZER.encode(text, special, true);
        let mut stream = TextStream::new(&TOKENIZER);
        let pieces: String = ids.iter().map(|&id| stream.push(&TOKENIZER, id)).collect();
        assert_eq!(pieces + &stream.finish(), TOKENIZER.decode(&ids));
    }
});
