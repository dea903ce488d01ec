//! Damaged files: whatever a decoder makes of them, it comes back with an image or an error.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use llava::Error;
use llava::image::{Image, Limits};

const ROUNDS: usize = 500;

/// Small enough that a damaged header cannot make the test slow.
const LIMITS: Limits = Limits { max_pixels: 1 << 16, max_bytes: 1 << 20 };

fn pictures() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/decode"));
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let pictures = files.filter(|f| f.extension().is_some_and(|e| e != "py" && e != "txt"));
    let mut pictures: Vec<_> =
        pictures.map(|f| (f.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&f).unwrap())).collect();
    pictures.sort();
    pictures
}

/// Decodes and checks that the answer is whole. Returns whether there was an image.
fn survives(bytes: &[u8], name: &str) -> bool {
    match Image::decode(bytes, name, &LIMITS) {
        Ok(image) => {
            let pixels = image.width() as usize * image.height() as usize;
            assert!(pixels > 0 && image.rgb().len() == 3 * pixels, "{name}");
            assert!(image.alpha().is_none_or(|a| a.len() == pixels), "{name}");
            true
        }
        Err(Error::InvalidImage { name: named, reason }) => {
            assert!(named == name && !reason.is_empty());
            false
        }
        Err(other) => panic!("{name}: {other}"),
    }
}

#[test]
fn no_damage_panics_or_gives_half_an_image() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    std::panic::set_hook(Box::new(|info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        eprintln!("{info}");
    }));
    let mut state = 7u32;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        ((u64::from(state) * below as u64) >> 32) as usize
    };
    let (mut images, mut runs) = (0, 0);
    for (name, whole) in pictures() {
        assert!(survives(&whole, &name));
        for _ in 0..ROUNDS {
            let mut bytes = whole.clone();
            for _ in 0..random(4) {
                let at = random(bytes.len());
                bytes[at] ^= 1 << random(8);
            }
            for _ in 0..random(3) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            if random(3) == 0 {
                bytes.truncate(random(bytes.len() + 1));
            }
            images += usize::from(survives(&bytes, &name));
            runs += 1;
        }
    }
    eprintln!("{images} of {runs} damaged files decoded");
    assert!(images > 0 && images < runs);
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "decoders panicked inside and were caught");
}

#[test]
fn every_shortened_file_ends_in_an_error_while_pixels_are_missing() {
    for (name, whole) in pictures() {
        // A JPEG must reach its end marker. Elsewhere the pixels end before the file does: trailers, second frames, EXIF.
        let needed = if name.ends_with(".jpg") { whole.len() } else { whole.len() / 2 };
        for length in 0..whole.len() {
            let decoded = survives(&whole[..length], &name);
            assert!(!(decoded && length < needed), "{name} decodes from {length} of {} bytes", whole.len());
        }
    }
}
