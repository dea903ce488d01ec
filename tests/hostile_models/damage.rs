//! Files cut short and files with flipped bits.

use super::support::{Edit, check_error, golden_bytes, run, survives};
use llava::gguf::File;

/// Where the data section begins: at the first byte whose absence no longer breaks the tensor table.
fn header_len(bytes: &[u8]) -> usize {
    let data: usize =
        File::from_bytes(bytes.to_vec()).unwrap().tensors().iter().map(|t| t.bytes().next_multiple_of(32)).sum();
    bytes.len() - data
}

/// A file cut anywhere is refused, and so is a file with a whole tensor table and too little data.
fn cut(name: &str) {
    let whole = golden_bytes(name);
    let header = header_len(&whole);
    // The last tensor's padding may be missing: nothing reads it.
    let needed = whole.len() - 31;
    let lengths = (0..header).chain((header..needed).step_by(61)).chain(needed - 100..needed - 96);
    for len in lengths {
        let case = format!("{name} cut to {len} bytes");
        let error = survives(&case, || File::from_bytes(whole[..len].to_vec())).expect_err(&case);
        check_error(&case, &error);
    }
}

#[test]
fn a_language_model_cut_short_is_refused_at_every_byte() {
    cut("llava/lm.gguf");
}

#[test]
fn an_mmproj_cut_short_is_refused_at_every_byte() {
    cut("llava-next/mmproj.gguf");
}

/// Parses `bytes`; if that succeeds, loads and runs them as one half of a pair. Returns whether there was an answer.
fn parse_and_run(case: &str, bytes: Vec<u8>, other: &[u8], is_lm: bool) -> bool {
    let result = survives(case, || {
        File::from_bytes(bytes.clone())?;
        match is_lm {
            true => run(bytes, None),
            false => run(other.to_vec(), Some(bytes)),
        }
    });
    match &result {
        Ok(_) => {}
        Err(error) => check_error(case, error),
    }
    result.is_ok()
}

/// Flips bits in every `step`-th byte of the header.
fn flip_header(name: &str, is_lm: bool, first: usize, step: usize) {
    let whole = golden_bytes(name);
    let other = golden_bytes("llava/lm.gguf");
    let (mut ran, mut cases) = (0, 0);
    for at in (first..header_len(&whole)).step_by(step) {
        // The lowest bit, the highest, all, and the bit between upper and lower case.
        for mask in [0x01, 0x80, 0xff, 0x20] {
            let mut bytes = whole.clone();
            bytes[at] ^= mask;
            cases += 1;
            ran += usize::from(parse_and_run(&format!("{name}, byte {at} ^ {mask:#x}"), bytes, &other, is_lm));
        }
    }
    eprintln!("{name}: {ran} of {cases} damaged headers gave an answer");
    // Many bytes are free: names that nobody reads, texts and scores of tokens.
    assert!(ran > 0 && ran < cases, "{ran} of {cases} ran");
}

#[test]
fn any_byte_of_a_language_models_header_may_be_flipped_even() {
    flip_header("llava/lm.gguf", true, 0, 2);
}

#[test]
fn any_byte_of_a_language_models_header_may_be_flipped_odd() {
    flip_header("llava/lm.gguf", true, 1, 2);
}

#[test]
fn any_byte_of_an_mmprojs_header_may_be_flipped() {
    flip_header("llava-next/mmproj.gguf", false, 0, 1);
}

#[test]
fn bytes_of_every_other_familys_header_may_be_flipped() {
    for name in ["phi3/lm.gguf", "qwen2/lm.gguf", "yarn-rope/lm.gguf", "llama3-rope/lm.gguf"] {
        flip_header(name, true, 3, 23);
    }
    for name in
        ["siglip/mmproj.gguf", "clip-legacy/mmproj.gguf", "clip-feature-layers/mmproj.gguf", "yi-vl/mmproj.gguf"]
    {
        flip_header(name, false, 3, 23);
    }
}

#[test]
fn random_damage_to_header_and_weights_gives_an_answer_or_an_error() {
    let mut state = 1u64;
    let mut random = |below: usize| {
        // Knuth's MMIX generator; the upper half has the better bits.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let (lm, mmproj) = (golden_bytes("llava/lm.gguf"), golden_bytes("llava-next/mmproj.gguf"));
    let mut ran = 0;
    for round in 0..400 {
        let is_lm = round % 2 == 0;
        let mut bytes = if is_lm { lm.clone() } else { mmproj.clone() };
        // The weights only, in half of the rounds: they are what most of a file is.
        let first = if round % 4 < 2 { header_len(&bytes) } else { 24 };
        for _ in 0..1 + random(40) {
            let at = first + random(bytes.len() - first);
            bytes[at] = random(256) as u8;
        }
        ran += usize::from(parse_and_run(&format!("round {round}"), bytes, &lm, is_lm));
    }
    assert!(ran >= 150, "{ran} of 400 ran");
}

#[test]
fn the_files_unharmed_give_an_answer() {
    let answer = survives("whole", || run(Edit::lm().bytes(), Some(Edit::mmproj().bytes()))).unwrap();
    assert_eq!(answer.token_ids.len(), 2);
    assert_eq!(answer.image_tokens, 16);
}
