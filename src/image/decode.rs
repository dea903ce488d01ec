//! Encoded bytes to pixels, trusting nothing: limits before allocation, damage and truncation as errors.
#![warn(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Pixel, guess_format};

use super::{Image, Limits, check_sides, with_capacity};
use crate::error::{Error, Result};

const FORMATS: &str = "JPEG, PNG, WebP, BMP or GIF";

/// Memory a decoder may take for each pixel of the limit (16-bit RGBA), and apart from that.
const DECODER_BYTES_PER_PIXEL: u64 = 8;
const DECODER_BYTES: u64 = 64 << 20;

pub(super) fn decode(bytes: &[u8], name: String, limits: &Limits) -> Result<Image> {
    if bytes.is_empty() {
        return Err(Error::image(name, "the file is empty"));
    }
    if bytes.len() as u64 > limits.max_bytes {
        let reason = format!("the file is larger than {} bytes, the most that is read", limits.max_bytes);
        return Err(Error::image(name, reason));
    }
    let format = recognise(bytes, &name)?;
    if format == ImageFormat::Jpeg && !jpeg_has_end(bytes) {
        return Err(Error::image(name, "the JPEG has no end marker: the file is cut short; copy or download it again"));
    }
    // The decoders are other people's code: a panic in one of them means a broken file here, not a broken process.
    match catch_unwind(AssertUnwindSafe(|| pixels(bytes, format, &name, limits))) {
        Ok(decoded) => into_image(decoded?, name),
        Err(_) => Err(Error::image(name, "the file is damaged: its decoder failed")),
    }
}

/// The format that the content announces.
fn recognise(bytes: &[u8], name: &str) -> Result<ImageFormat> {
    let format = match guess_format(bytes) {
        Ok(format) if format.reading_enabled() => return Ok(format),
        Ok(format) => Some(format),
        Err(_) => None,
    };
    let reason = match format {
        Some(format) => format!("it is a {format:?} file: convert it to {FORMATS}"),
        None if looks_like_text(bytes) => format!("it contains text, not a picture: {FORMATS} is needed"),
        None => format!("it is not a picture in a known format: {FORMATS} is needed"),
    };
    Err(Error::image(name, reason))
}

fn looks_like_text(bytes: &[u8]) -> bool {
    let head = bytes.get(..256).unwrap_or(bytes);
    head.iter().all(|&b| b >= 0x80 || b == b'\t' || b == b'\n' || b == b'\r' || (0x20..0x7f).contains(&b))
}

/// Whether the segments and scans of a JPEG run up to an end-of-image marker (ITU-T T.81, B.1.1). The decoder fills what
/// is missing with gray instead of failing; Pillow, like this, refuses the file.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        // Markers stand alone (RSTn, SOI, TEM, and 0 for a stuffed data byte) or begin a segment with its length.
        let Some(at) = rest.iter().position(|&b| b == 0xff) else { return false };
        let tail = rest.get(at..).unwrap_or_default();
        let skip = match *tail {
            [_, 0xd9, ..] => return true,
            [_, 0xff, ..] => 1,
            [_, 0x00 | 0x01 | 0xd0..=0xd8, ..] => 2,
            [_, _, high, low, ..] => usize::from(u16::from_be_bytes([high, low])).saturating_add(2),
            _ => return false,
        };
        let Some(next) = tail.get(skip..) else { return false };
        rest = next;
    }
}

/// Decodes and turns upright.
fn pixels(bytes: &[u8], format: ImageFormat, name: &str, limits: &Limits) -> Result<DynamicImage> {
    let broken = |e: ImageError| Error::image(name, explain(e, format));
    let mut memory = ::image::Limits::no_limits();
    memory.max_alloc = Some(limits.max_pixels.saturating_mul(DECODER_BYTES_PER_PIXEL).saturating_add(DECODER_BYTES));
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(memory);
    let mut decoder = reader.into_decoder().map_err(broken)?;

    let (width, height) = decoder.dimensions();
    check_sides(name, width, height)?;
    if u64::from(width).saturating_mul(u64::from(height)) > limits.max_pixels {
        let most = limits.max_pixels;
        let reason = format!("it is {width} by {height} pixels and at most {most} are accepted: scale it down first");
        return Err(Error::image(name, reason));
    }
    // An unreadable EXIF block says nothing about the picture.
    let orientation = decoder.exif_metadata().ok().flatten().and_then(|exif| orientation(&exif));
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(broken)?;
    decoded.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    Ok(decoded)
}

fn orientation(exif: &[u8]) -> Option<Orientation> {
    // WebP writers disagree on whether JPEG's prefix belongs in the chunk.
    Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
}

fn explain(error: ImageError, format: ImageFormat) -> String {
    let kind = format!("{format:?}").to_uppercase();
    match error {
        ImageError::Limits(_) => format!("decoding this {kind} would take more memory than is allowed"),
        ImageError::Unsupported(e) => format!("this kind of {kind} is not supported ({e}): convert it to PNG"),
        e => format!("the {kind} is damaged or cut short ({e}): copy or download it again"),
    }
}

/// 16-bit channels keep their high byte, as Pillow does for RGB. (Of 16-bit gray Pillow's `convert("RGB")` clips instead
/// of scaling, which leaves white paper; here it is treated like RGB.)
fn into_image(decoded: DynamicImage, name: String) -> Result<Image> {
    let (width, height) = (decoded.width(), decoded.height());
    let has_alpha = decoded.color().has_alpha();
    let decoded = match decoded {
        DynamicImage::ImageLuma16(i) => high_bytes(i, DynamicImage::ImageLuma8),
        DynamicImage::ImageLumaA16(i) => high_bytes(i, DynamicImage::ImageLumaA8),
        DynamicImage::ImageRgb16(i) => high_bytes(i, DynamicImage::ImageRgb8),
        DynamicImage::ImageRgba16(i) => high_bytes(i, DynamicImage::ImageRgba8),
        other => Some(other),
    };
    let Some(decoded) = decoded else { return Err(Error::image(name, "the decoder returned too few pixels")) };
    if !has_alpha {
        return Ok(Image { name, width, height, rgb: decoded.into_rgb8().into_raw(), alpha: None });
    }
    let rgba = decoded.into_rgba8().into_raw();
    let pixels = rgba.as_chunks::<4>().0;
    let mut rgb = with_capacity("an image", pixels.len().saturating_mul(3))?;
    let mut alpha = with_capacity("an image", pixels.len())?;
    for &[r, g, b, a] in pixels {
        rgb.extend_from_slice(&[r, g, b]);
        alpha.push(a);
    }
    Ok(Image::from_parts(name, width, height, rgb, alpha))
}

fn high_bytes<P, Q>(
    wide: ImageBuffer<P, Vec<u16>>,
    wrap: fn(ImageBuffer<Q, Vec<u8>>) -> DynamicImage,
) -> Option<DynamicImage>
where
    P: Pixel<Subpixel = u16>,
    Q: Pixel<Subpixel = u8>,
{
    let (width, height) = wide.dimensions();
    let bytes = wide.into_raw().into_iter().map(|v| (v >> 8) as u8).collect();
    ImageBuffer::from_raw(width, height, bytes).map(wrap)
}
