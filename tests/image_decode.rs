//! Decoding against Pillow (tests/golden/decode/make.py), and against files that lie, stop or are broken.

mod pattern;

use std::path::PathBuf;

use llava::Error;
use llava::image::{Image, Limits, PixelFormat};
use pattern::golden;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/decode"))
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// Greatest difference from Pillow: 0, but for JPEG in colour. Its standard leaves the rounding of the inverse transform,
/// of chroma interpolation and of the colour conversion to the decoder: a level of Cb alone moves blue by 1.8.
fn tolerance(file: &str) -> u8 {
    if file.ends_with(".jpg") && !["gray.jpg", "cmyk.jpg"].contains(&file) { 3 } else { 0 }
}

fn reason(bytes: &[u8]) -> String {
    match Image::from_bytes(bytes) {
        Err(Error::InvalidImage { name, reason }) => {
            assert_eq!(name, "<memory>");
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_format_and_kind_of_pixel_decodes_as_pillow_does_and_upright() {
    let cases = golden("decode/expected.txt");
    assert_eq!(cases.len(), 35);
    for case in cases {
        let image = Image::open(folder().join(&case[0])).unwrap();
        assert_eq!(
            (image.width().to_string(), image.height().to_string()),
            (case[1].clone(), case[2].clone()),
            "{case:?}"
        );
        let alpha = image.alpha().map(|a| a.to_vec());
        assert_eq!(alpha, (case[4] != "-").then(|| bytes_of(&case[4])), "{}", case[0]);
        let expected = bytes_of(&case[3]);
        assert_eq!(image.rgb().len(), expected.len());
        // What lies under fully transparent pixels is nobody's business.
        let seen = |i: &usize| alpha.as_ref().is_none_or(|a| a[i / 3] > 0);
        let most = (0..expected.len()).filter(seen).map(|i| image.rgb()[i].abs_diff(expected[i])).max().unwrap();
        assert!(most <= tolerance(&case[0]), "{}: {most} off", case[0]);
    }
}

#[test]
fn files_that_are_no_pictures_say_what_they_are() {
    assert_eq!(reason(b""), "the file is empty");
    assert!(reason(b"<!DOCTYPE html>\n<title>404</title>").contains("text"));
    assert!(reason(b"II*\0\x08\0\0\0\0\0").contains("Tiff"));
    assert!(reason(&[0, 1, 2, 3, 4, 5, 6, 7, 8]).contains("known format"));

    let missing = Image::open(folder().join("no such file.jpg")).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }) && missing.to_string().contains("no such file.jpg"), "{missing}");
    assert!(matches!(Image::open(folder()), Err(Error::Io { .. })));
    let text = Image::open(folder().join("expected.txt")).unwrap_err();
    assert!(text.to_string().contains("expected.txt: it contains text"), "{text}");
}

#[test]
fn the_content_decides_the_format_and_not_the_name() {
    let path = std::env::temp_dir().join(format!("llava-{}-png-inside.jpg", std::process::id()));
    std::fs::copy(folder().join("rgb.png"), &path).unwrap();
    let image = Image::open(&path);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(image.unwrap().rgb(), Image::open(folder().join("rgb.png")).unwrap().rgb());
}

/// `file` with its header claiming `width` by `height` pixels.
fn lying(file: &str, width: u32, height: u32) -> Vec<u8> {
    let mut bytes = std::fs::read(folder().join(file)).unwrap();
    let (w, h) = (width as u16, height as u16);
    match file {
        "rgb.png" => {
            bytes[16..20].copy_from_slice(&width.to_be_bytes());
            bytes[20..24].copy_from_slice(&height.to_be_bytes());
            // The chunk's checksum covers the sizes.
            let crc = !bytes[12..29].iter().fold(!0u32, |crc, &b| {
                (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb88320 } else { c >> 1 })
            });
            bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        }
        "rgb.bmp" => {
            bytes[18..22].copy_from_slice(&width.to_le_bytes());
            bytes[22..26].copy_from_slice(&height.to_le_bytes());
        }
        "palette.gif" => {
            bytes[6..8].copy_from_slice(&w.to_le_bytes());
            bytes[8..10].copy_from_slice(&h.to_le_bytes());
        }
        "lossless.webp" => {
            let sizes = (width - 1) | (height - 1) << 14;
            bytes[21..25].copy_from_slice(&sizes.to_le_bytes());
        }
        _ => {
            let frame = bytes.windows(2).position(|m| m == [0xff, 0xc0]).unwrap();
            bytes[frame + 5..frame + 7].copy_from_slice(&h.to_be_bytes());
            bytes[frame + 7..frame + 9].copy_from_slice(&w.to_be_bytes());
        }
    }
    bytes
}

#[test]
fn a_hundred_megapixels_are_refused_from_the_header() {
    for file in ["444.jpg", "rgb.png", "rgb.bmp", "palette.gif", "lossless.webp"] {
        let reason = reason(&lying(file, 12_500, 8_000));
        assert!(reason.contains("12500 by 8000 pixels and at most 64000000"), "{file}: {reason}");
    }
    for file in ["rgb.png", "rgb.bmp"] {
        let reason = reason(&lying(file, 100_000, 3));
        assert!(reason.contains("65535"), "{file}: {reason}");
    }
}

#[test]
fn limits_of_the_callers_own_are_kept_to_the_pixel_and_the_byte() {
    let bytes = std::fs::read(folder().join("rgb.png")).unwrap();
    let with = |max_pixels, max_bytes| Image::decode(&bytes, "rgb.png", &Limits { max_pixels, max_bytes });
    let size = bytes.len() as u64;
    assert!(with(96, size).is_ok());
    assert!(with(95, size).unwrap_err().to_string().starts_with("rgb.png: it is 12 by 8 pixels and at most 95"));
    assert!(with(96, size - 1).unwrap_err().to_string().contains("larger than"));
}

#[test]
fn pictures_without_pixels_are_refused() {
    for file in ["444.jpg", "rgb.png", "rgb.bmp", "palette.gif"] {
        reason(&lying(file, 0, 8));
        reason(&lying(file, 12, 0));
    }
}

#[test]
fn raw_pixels_of_every_format_and_any_stride_make_the_same_image() {
    let rgb: Vec<u8> = (0..2 * 3 * 3).map(|i| i * 13).collect(); // 3 wide, 2 high
    let padded = |pixel: &dyn Fn(&[u8]) -> Vec<u8>, gap: usize| -> Vec<u8> {
        rgb.chunks(9).flat_map(|row| row.chunks(3).flat_map(pixel).chain(vec![99; gap]).collect::<Vec<_>>()).collect()
    };
    let check = |bytes: Vec<u8>, stride, format| {
        let image = Image::from_pixels(&bytes, 3, 2, stride, format).unwrap();
        assert_eq!((image.rgb(), image.alpha()), (&rgb[..], None), "{format:?}");
        // The last row may end at its last pixel.
        let last = stride + 3 * format.bytes();
        assert!(Image::from_pixels(&bytes[..last], 3, 2, stride, format).is_ok(), "{format:?}");
        assert!(Image::from_pixels(&bytes[..last - 1], 3, 2, stride, format).is_err(), "{format:?}");
        assert!(Image::from_pixels(&bytes, 3, 2, 3 * format.bytes() - 1, format).is_err(), "{format:?}");
    };
    check(padded(&|p| p.to_vec(), 0), 9, PixelFormat::Rgb);
    check(padded(&|p| vec![p[2], p[1], p[0]], 7), 16, PixelFormat::Bgr);
    check(padded(&|p| vec![p[0], p[1], p[2], 255], 4), 16, PixelFormat::Rgba);
    check(padded(&|p| vec![p[2], p[1], p[0], 255], 1), 13, PixelFormat::Bgra);

    let gray = Image::from_pixels(&[7, 200], 2, 1, 2, PixelFormat::Gray).unwrap();
    assert_eq!(gray.rgb(), [7, 7, 7, 200, 200, 200]);
    let half = Image::from_pixels(&[10, 20, 30, 51], 1, 1, 4, PixelFormat::Bgra).unwrap();
    assert_eq!((half.rgb(), half.alpha()), (&[30, 20, 10][..], Some(&[51][..])));
    assert_eq!(half.over([0, 100, 200])[..], [6, 84, 162]);

    assert!(Image::from_pixels(&[], 0, 1, 0, PixelFormat::Rgb).is_err());
    assert!(Image::from_pixels(&[0; 9], 70_000, 1, 70_000, PixelFormat::Gray).is_err());
    assert!(Image::from_pixels(&[0; 9], 2, 2, usize::MAX, PixelFormat::Gray).is_err());
}
