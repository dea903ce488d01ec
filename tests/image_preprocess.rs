//! Preprocessing against Hugging Face's image processors (tests/golden/preprocess/make.py).

mod pattern;

use llava::Error;
use llava::image::{Fit, Image, PixelFormat, Preprocessor, Tiles, anyres};
use pattern::{fnv1a, golden, pattern};

const CLIP_MEAN: [f32; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f32; 3] = [0.26862954, 0.2613026, 0.2757771];

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("{word} is not a number"))
}

fn picture(kind: &str, width: u32, height: u32) -> Image {
    let pixels = pattern(kind, width as usize, height as usize);
    Image::from_pixels(&pixels, width, height, width as usize * 3, PixelFormat::Rgb).unwrap()
}

fn preprocessor(fit: &str, side: u32) -> Preprocessor {
    let s = side;
    match fit {
        "pad" => Preprocessor::new(side, CLIP_MEAN, CLIP_STD, Fit::Pad),
        "crop" => Preprocessor::new(side, CLIP_MEAN, CLIP_STD, Fit::Crop),
        "squash" => Preprocessor::new(side, [0.5; 3], [0.5; 3], Fit::Squash),
        _ => {
            let pinpoints = vec![(s, 2 * s), (2 * s, s), (2 * s, 2 * s), (3 * s, s), (s, 3 * s)];
            Preprocessor::new(side, CLIP_MEAN, CLIP_STD, Fit::AnyRes { pinpoints })
        }
    }
    .unwrap()
}

/// The case's first words are fit, side, pattern, width and height.
fn run(case: &[String]) -> Tiles {
    let image = picture(&case[2], number(&case[3]), number(&case[4]));
    preprocessor(&case[0], number(&case[1])).apply(&image).unwrap()
}

#[test]
fn small_pictures_give_the_references_floats_bit_for_bit() {
    for case in golden("preprocess/reference_full.txt") {
        let hex: String = run(&case).pixels.iter().map(|v| format!("{:08x}", v.to_bits())).collect();
        assert_eq!(hex, case[5], "{:?}", &case[..5]);
    }
}

#[test]
fn all_fits_hash_like_the_reference() {
    let cases = golden("preprocess/reference.txt");
    let mut wrong = Vec::new();
    for case in &cases {
        let tiles = run(case);
        assert_eq!(tiles.tiles, number::<usize>(&case[5]), "{case:?}");
        assert_eq!(tiles.pixels.len(), tiles.tiles * 3 * tiles.side * tiles.side);
        assert_eq!(tiles.original, (number(&case[3]), number(&case[4])));
        assert_eq!(tiles.grid.map_or(1, |(w, h)| 1 + w * h), tiles.tiles);
        let hash = fnv1a(tiles.pixels.iter().flat_map(|v| v.to_le_bytes()));
        if format!("{hash:016x}") != case[6] {
            wrong.push(case);
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ: {wrong:?}", wrong.len(), cases.len());
}

#[test]
fn unpadding_follows_the_original_also_where_the_port_rounds_up() {
    let mut differ = 0;
    for case in golden("preprocess/unpad.txt") {
        let n: Vec<usize> = case.iter().map(|word| number(word)).collect();
        let kept = anyres::unpad((n[0] as u32, n[1] as u32), (n[2], n[3]), n[4]);
        assert_eq!((kept.rows.len() * kept.cols.len(), kept.rows.len()), (n[5], n[6]), "{case:?}");
        differ += usize::from((n[5], n[6]) != (n[7], n[8]));
    }
    assert_eq!(differ, 9, "the generator's list of such sizes has nine");
}

#[test]
fn padding_is_the_truncated_mean_colour() {
    assert_eq!(preprocessor("pad", 28).pad_colour(), [122, 116, 104]);
    assert_eq!(preprocessor("squash", 28).pad_colour(), [127; 3]);
}

#[test]
fn transparent_pixels_look_like_padding_and_opaque_ones_like_rgb() {
    for fit in ["pad", "crop", "squash", "anyres"] {
        let prep = preprocessor(fit, 8);
        let rgb = pattern("noise", 12, 8);
        let rgba = |alpha: u8| -> Vec<u8> { rgb.chunks(3).flat_map(|p| [p[0], p[1], p[2], alpha]).collect() };
        let image = |bytes: &[u8]| Image::from_pixels(bytes, 12, 8, 48, PixelFormat::Rgba).unwrap();
        let opaque = image(&rgba(255));
        assert_eq!(prep.apply(&opaque).unwrap(), prep.apply(&picture("noise", 12, 8)).unwrap());

        let bare = prep.pad_colour().repeat(12 * 8);
        let bare = Image::from_pixels(&bare, 12, 8, 36, PixelFormat::Rgb).unwrap();
        assert_eq!(prep.apply(&image(&rgba(0))).unwrap(), prep.apply(&bare).unwrap());
    }
}

#[test]
fn extreme_shapes_are_preprocessed_in_bounded_memory() {
    for (width, height) in [(65535, 1), (1, 65535), (65535, 2), (3, 40000)] {
        let image = picture("ramp", width, height);
        for fit in ["pad", "crop", "squash", "anyres"] {
            let tiles = preprocessor(fit, 28).apply(&image).unwrap();
            assert!(tiles.pixels.iter().all(|v| v.is_finite()), "{fit} {width}x{height}");
        }
    }
}

#[test]
fn absurd_settings_are_refused_with_the_reason() {
    let refused = |side, mean, std, fit| Preprocessor::new(side, mean, std, fit).unwrap_err();
    let anyres = |pinpoints: &[(u32, u32)]| Fit::AnyRes { pinpoints: pinpoints.to_vec() };
    let ok = (CLIP_MEAN, CLIP_STD);
    for error in [
        refused(0, ok.0, ok.1, Fit::Pad),
        refused(4097, ok.0, ok.1, Fit::Pad),
        refused(336, [f32::NAN, 0.5, 0.5], ok.1, Fit::Pad),
        refused(336, [0.5, 2.0, 0.5], ok.1, Fit::Pad),
        refused(336, ok.0, [0.0, 0.5, 0.5], Fit::Pad),
        refused(336, ok.0, [f32::INFINITY, 0.5, 0.5], Fit::Pad),
        refused(336, ok.0, ok.1, anyres(&[])),
        refused(336, ok.0, ok.1, anyres(&[(336, 0)])),
        refused(336, ok.0, ok.1, anyres(&[(336, 400)])),
        refused(336, ok.0, ok.1, anyres(&[(336 * 8, 336 * 8)])),
        refused(1, ok.0, ok.1, anyres(&[(u32::MAX, u32::MAX)])),
        refused(4096, ok.0, ok.1, anyres(&[(4096 * 7, 4096 * 7)])),
    ] {
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
        assert!(error.to_string().len() > 20, "{error}");
    }
    assert!(Preprocessor::new(336, ok.0, ok.1, anyres(&[(336 * 7, 336 * 9)])).is_ok());
}
