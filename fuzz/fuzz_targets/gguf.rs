//! A file as a language model and as an mmproj: parsed, and loaded and run if it parses.
#![no_main]

use llava::{Input, Model};

const LM: &[u8] = include_bytes!("../../tests/golden/transformers/llava/lm.gguf");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = llava::gguf::File::from_bytes(bytes.to_vec()) else { return };
    let is_mmproj = matches!(file.str("general.architecture"), Ok(Some("clip")));
    let (lm, mmproj) = if is_mmproj { (LM, Some(bytes.to_vec())) } else { (bytes, None) };
    let Ok(model) = Model::from_bytes(lm.to_vec(), mmproj) else { return };
    let _ = model.logits(&[Input::Token(1), Input::Token(2)], 1);
    let Ok(image) = llava::Image::from_pixels(&[90; 48], 4, 4, 12, llava::PixelFormat::Rgb) else { return };
    let _ = model.encode(&image);
});
