//! Images: decoding, resizing as Pillow does, and LLaVA's preprocessing.
//!
//! [`Image`] is a decoded picture, [`Preprocessor`] turns it into the vision tower's input ([`Tiles`]), and [`anyres`]
//! says which image tokens a LLaVA-1.6 picture keeps.
//!
//! Two things differ from the reference on purpose. EXIF orientation is applied, so a photo is seen the way its owner
//! sees it. Transparent pixels are composited onto the preprocessing's pad colour; the reference drops the alpha channel
//! and so shows whatever colour lies hidden beneath. Upright, opaque images are not affected by either.

pub mod anyres;
mod decode;
mod preprocess;
mod resize;

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use preprocess::{Fit, Preprocessor, Tiles};
pub use resize::resize;

use crate::error::{Error, Result};

/// The name of an image that did not come from a file.
const IN_MEMORY: &str = "<memory>";

/// The longest side accepted, in pixels: JPEG's own maximum.
const MAX_SIDE: u32 = 65_535;

/// A decoded picture, upright, 8 bits a channel.
#[derive(Clone)]
pub struct Image {
    name: String,
    width: u32,
    height: u32,
    rgb: Vec<u8>,           // [height, width, 3]
    alpha: Option<Vec<u8>>, // [height, width]; none if every pixel is opaque
}

/// The order of the bytes of one pixel given to [`Image::from_pixels`]. Alpha is straight, not premultiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red, as OpenCV stores it.
    Bgr,
    /// Red, green, blue, alpha.
    Rgba,
    /// Blue, green, red, alpha.
    Bgra,
    /// Luminance alone.
    Gray,
}

impl PixelFormat {
    /// Bytes a pixel takes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::Rgb | Self::Bgr => 3,
            Self::Rgba | Self::Bgra => 4,
        }
    }

    /// Red, green, blue and alpha of the pixel in `p`, which holds [`PixelFormat::bytes`] bytes.
    fn split(self, p: &[u8]) -> ([u8; 3], u8) {
        match (self, p) {
            (Self::Rgb, &[r, g, b]) | (Self::Bgr, &[b, g, r]) => ([r, g, b], 255),
            (Self::Rgba, &[r, g, b, a]) | (Self::Bgra, &[b, g, r, a]) => ([r, g, b], a),
            (_, &[v, ..]) => ([v; 3], 255),
            (_, &[]) => ([0; 3], 255),
        }
    }
}

/// What an encoded image may cost. An image over a limit is refused from its header, before its pixels are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels, width times height. Decoding takes up to 16 bytes of memory for each.
    pub max_pixels: u64,
    /// Most bytes of the encoded file.
    pub max_bytes: u64,
}

impl Default for Limits {
    /// 64 million pixels and 256 MiB of file.
    fn default() -> Self {
        Self { max_pixels: 64_000_000, max_bytes: 256 << 20 }
    }
}

impl Image {
    /// Reads and decodes a JPEG, PNG, WebP, BMP or GIF, told apart by content and not by the file's name. Of an
    /// animation, the first frame. EXIF orientation is applied; colour profiles are ignored, as the reference does.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::InvalidImage`] if it is none of these formats, is damaged or
    /// cut short, or is over the default [`Limits`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let limits = Limits::default();
        let mut bytes = Vec::new();
        // One byte more than is allowed, so that an endless device is refused too, not read to its end.
        let read = File::open(path).and_then(|f| f.take(limits.max_bytes.saturating_add(1)).read_to_end(&mut bytes));
        read.map_err(|e| Error::io(path, e))?;
        Self::decode(&bytes, path.display().to_string(), &limits)
    }

    /// Decodes an encoded image in memory, as [`Image::open`] does a file's content.
    ///
    /// # Errors
    /// [`Error::InvalidImage`] as for [`Image::open`]; the image is called `<memory>` in it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::decode(bytes, IN_MEMORY, &Limits::default())
    }

    /// Decodes an encoded image in memory under limits of your own. `name` is what errors call the image.
    ///
    /// # Errors
    /// [`Error::InvalidImage`] as for [`Image::open`].
    pub fn decode(bytes: &[u8], name: impl Into<String>, limits: &Limits) -> Result<Self> {
        decode::decode(bytes, name.into(), limits)
    }

    /// Copies raw pixels: `height` rows of `width` pixels, each row starting `stride_bytes` after the one before. The
    /// last row may end at its last pixel.
    ///
    /// # Errors
    /// [`Error::InvalidImage`] if a side is 0 or above 65535, a row does not fit its stride, or `pixels` is too short.
    pub fn from_pixels(
        pixels: &[u8],
        width: u32,
        height: u32,
        stride_bytes: usize,
        format: PixelFormat,
    ) -> Result<Self> {
        check_sides(IN_MEMORY, width, height)?;
        let (row, rows) = (width as usize * format.bytes(), height as usize);
        if stride_bytes < row {
            let reason = format!("a row of {width} {format:?} pixels takes {row} bytes, its stride is {stride_bytes}");
            return Err(Error::image(IN_MEMORY, reason));
        }
        let needed = stride_bytes.checked_mul(rows - 1).and_then(|n| n.checked_add(row));
        if needed.is_none_or(|n| n > pixels.len()) {
            let found = pixels.len();
            let reason = format!(
                "{rows} rows of {width} {format:?} pixels at a stride of {stride_bytes} bytes do not fit the {found} given"
            );
            return Err(Error::image(IN_MEMORY, reason));
        }
        let mut rgb = with_capacity("an image", width as usize * rows * 3)?;
        let mut alpha = with_capacity("an image", width as usize * rows)?;
        for line in pixels.chunks(stride_bytes).take(rows) {
            for p in line[..row].chunks_exact(format.bytes()) {
                let (colour, a) = format.split(p);
                rgb.extend_from_slice(&colour);
                alpha.push(a);
            }
        }
        Ok(Self::from_parts(IN_MEMORY.to_owned(), width, height, rgb, alpha))
    }

    /// `rgb` is `[height, width, 3]`, `alpha` `[height, width]`; an alpha that hides nothing is dropped.
    fn from_parts(name: String, width: u32, height: u32, rgb: Vec<u8>, alpha: Vec<u8>) -> Self {
        let alpha = alpha.iter().any(|&a| a < 255).then_some(alpha);
        Self { name, width, height, rgb, alpha }
    }

    /// Pixels in a row, after EXIF orientation.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows, after EXIF orientation.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// What errors call the image: its path, or `<memory>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Red, green, blue, `[height, width, 3]`, as if every pixel were opaque.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The opacity of each pixel, `[height, width]`, or none if all are opaque.
    pub fn alpha(&self) -> Option<&[u8]> {
        self.alpha.as_deref()
    }

    /// The image as it looks in front of `background`, `[height, width, 3]`, each value rounded to the nearest.
    pub fn over(&self, background: [u8; 3]) -> Cow<'_, [u8]> {
        let Some(alpha) = &self.alpha else { return Cow::Borrowed(&self.rgb) };
        let mut out = self.rgb.clone();
        for (p, &a) in out.chunks_exact_mut(3).zip(alpha) {
            let a = u32::from(a);
            for (v, b) in p.iter_mut().zip(background) {
                *v = ((u32::from(*v) * a + u32::from(b) * (255 - a) + 127) / 255) as u8;
            }
        }
        Cow::Owned(out)
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let alpha = if self.alpha.is_some() { " with alpha" } else { "" };
        write!(f, "Image({}, {}x{}{alpha})", self.name, self.width, self.height)
    }
}

fn check_sides(name: &str, width: u32, height: u32) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::image(name, format!("it is {width} by {height} pixels: there is nothing to look at")));
    }
    if width.max(height) > MAX_SIDE {
        let reason = format!("it is {width} by {height} pixels and a side may have at most {MAX_SIDE}: scale it down");
        return Err(Error::image(name, reason));
    }
    Ok(())
}

/// An empty vector with room for `len` elements, or the allocator's refusal as an error.
fn with_capacity<T>(what: &'static str, len: usize) -> Result<Vec<T>> {
    let mut v = Vec::new();
    v.try_reserve_exact(len).map_err(|e| {
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        Error::OutOfMemory { what, bytes, reason: e.to_string() }
    })?;
    Ok(v)
}
