//! A picture to the vision tower's input: fitted, resized, cut into tiles and normalised as the reference does.

use super::anyres::{best_resolution, place};
use super::resize::{Axis, Canvas, buffer, resize};
use super::{Image, with_capacity};
use crate::error::{Error, Result};

/// Longest side of a vision tower's input.
const MAX_SIDE: u32 = 4096;

/// Most views of one picture, the base view included.
const MAX_TILES: u64 = 64;

/// Most bytes of one picture's normalised pixels.
const MAX_BYTES: u64 = 1 << 30;

/// How a picture of any shape becomes the square that a vision tower takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Centred on a square of the mean colour, as LLaVA-1.5 does (`image_aspect_ratio = pad`).
    Pad,
    /// The shorter side is resized to fit and the middle is cut out, as CLIP and LLaVA-1 do.
    Crop,
    /// Resized without regard to its aspect, as SigLIP does.
    Squash,
    /// Shown once squashed and once in tiles of a canvas chosen by the picture's shape, as LLaVA-1.6 does.
    AnyRes {
        /// Canvas sizes to choose from, (width, height) as in the original configuration; multiples of the side. (Hugging
        /// Face reads the same list as (height, width), see [`anyres`](super::anyres).)
        pinpoints: Vec<(u32, u32)>,
    },
}

/// The input of the vision tower for one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Tiles {
    /// Normalised values, `[tiles, 3, side, side]`. With a grid, the base view comes first, then the tiles row by row.
    pub pixels: Vec<f32>,
    /// Number of views.
    pub tiles: usize,
    /// Width and height of a view in pixels.
    pub side: usize,
    /// Tiles across and down, (width, height), for [`Fit::AnyRes`].
    pub grid: Option<(usize, usize)>,
    /// The picture's own size, (width, height), after EXIF orientation.
    pub original: (u32, u32),
}

/// Turns pictures into a vision tower's input. Immutable; one serves any number of threads.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    side: u32,
    fit: Fit,
    pad: [u8; 3],
    levels: Box<[[f32; 256]; 3]>, // [channel, value] to its normalised value
}

impl Preprocessor {
    /// For a tower that takes `side` by `side` pixels normalised to `(v / 255 - mean) / std`, channels in RGB order.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the side is 0 or above 4096, a mean is not within 0 to 1, a deviation is not a
    /// positive number, there are no pinpoints, or one is not a multiple of the side or makes more than 63 tiles.
    pub fn new(side: u32, mean: [f32; 3], std: [f32; 3], fit: Fit) -> Result<Self> {
        if side == 0 || side > MAX_SIDE {
            return Err(Error::argument("side", format!("{side} pixels, and it must be 1 to {MAX_SIDE}")));
        }
        if !mean.iter().all(|m| (0.0..=1.0).contains(m)) {
            return Err(Error::argument("mean", format!("{mean:?}, and each must be within 0 to 1")));
        }
        if !std.iter().all(|s| s.is_normal() && *s > 0.0) {
            return Err(Error::argument("std", format!("{std:?}, and each must be a positive number")));
        }
        if let Fit::AnyRes { pinpoints } = &fit {
            check_pinpoints(pinpoints, side)?;
        }
        let mut levels = Box::new([[0.0; 256]; 3]);
        for c in 0..3 {
            for v in 0..256 {
                levels[c][v] = (v as f32 / 255.0 - mean[c]) / std[c];
            }
        }
        // int(255 * mean): the fraction is cut, not rounded.
        let pad = mean.map(|m| (f64::from(m) * 255.0) as u8);
        Ok(Self { side, fit, pad, levels })
    }

    /// The colour of padding and behind transparent pixels: `int(255 * mean)`.
    pub fn pad_colour(&self) -> [u8; 3] {
        self.pad
    }

    /// Tiles across and down that a picture of `original` size is cut into, for [`Fit::AnyRes`].
    pub fn grid(&self, original: (u32, u32)) -> Option<(usize, usize)> {
        let Fit::AnyRes { pinpoints } = &self.fit else { return None };
        let (width, height) = best_resolution(original, pinpoints)?;
        Some(((width / self.side) as usize, (height / self.side) as usize))
    }

    /// The tower's input for `image`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the input, or a picture on the way to it, would take more than 1 GiB.
    pub fn apply(&self, image: &Image) -> Result<Tiles> {
        let rgb = image.over(self.pad);
        let original = (image.width(), image.height());
        let (width, height) = (original.0 as usize, original.1 as usize);
        let side = self.side as usize;
        let views = match &self.fit {
            Fit::Pad => {
                let long = width.max(height);
                let (left, top) = ((long - width) / 2, (long - height) / 2);
                let canvas = Canvas { rgb: &rgb, width, height, left, top, fill: self.pad };
                canvas.resize(&Axis::whole(long, side), &Axis::whole(long, side))?
            }
            Fit::Crop => {
                let short = width.min(height);
                Canvas::whole(&rgb, width, height)
                    .resize(&cropped(width, short, side), &cropped(height, short, side))?
            }
            Fit::Squash => resize(&rgb, original, (self.side, self.side))?,
            Fit::AnyRes { pinpoints } => return self.any_resolution(&rgb, original, pinpoints),
        };
        self.normalised(&[View { rgb: &views, stride: side, x: 0, y: 0 }], None, original)
    }

    fn any_resolution(&self, rgb: &[u8], original: (u32, u32), pinpoints: &[(u32, u32)]) -> Result<Tiles> {
        let Some(canvas) = best_resolution(original, pinpoints) else {
            return Err(Error::argument("pinpoints", "there are none"));
        };
        let placement = place(original, canvas);
        let picture = resize(rgb, original, placement.size)?;
        // Black, whatever the pad colour is.
        let canvas_width = canvas.0 as usize;
        let mut padded = buffer("a padded image", 3 * u64::from(canvas.0) * u64::from(canvas.1))?;
        let row = 3 * placement.size.0 as usize;
        let (x, y) = (placement.offset.0 as usize, placement.offset.1 as usize);
        for (from, to) in picture.chunks_exact(row).zip(padded.chunks_exact_mut(3 * canvas_width).skip(y)) {
            to[3 * x..][..row].copy_from_slice(from);
        }
        let base = resize(rgb, original, (self.side, self.side))?;

        let side = self.side as usize;
        let grid = (canvas_width / side, canvas.1 as usize / side);
        let mut views = vec![View { rgb: &base, stride: side, x: 0, y: 0 }];
        for tile in 0..grid.0 * grid.1 {
            let (x, y) = (tile % grid.0 * side, tile / grid.0 * side);
            views.push(View { rgb: &padded, stride: canvas_width, x, y });
        }
        self.normalised(&views, Some(grid), original)
    }

    fn normalised(&self, views: &[View], grid: Option<(usize, usize)>, original: (u32, u32)) -> Result<Tiles> {
        let side = self.side as usize;
        let mut pixels = with_capacity("an image's tiles", views.len() * 3 * side * side)?;
        for view in views {
            for (c, levels) in self.levels.iter().enumerate() {
                for y in 0..side {
                    let row = &view.rgb[3 * ((view.y + y) * view.stride + view.x)..][..3 * side];
                    pixels.extend(row.as_chunks::<3>().0.iter().map(|p| levels[usize::from(p[c])]));
                }
            }
        }
        Ok(Tiles { pixels, tiles: views.len(), side, grid, original })
    }
}

/// The square of the tower's side at `(x, y)` in a picture whose rows have `stride` pixels.
struct View<'a> {
    rgb: &'a [u8],
    stride: usize,
    x: usize,
    y: usize,
}

/// One direction of resizing the shorter side to `side` and keeping the middle: the longer one becomes
/// `int(side * long / short)`, and an odd rest goes to the far end.
fn cropped(length: usize, short: usize, side: usize) -> Axis {
    let output = side * length / short;
    let start = (output - side) / 2;
    Axis { input: length, output, window: start..start + side }
}

fn check_pinpoints(pinpoints: &[(u32, u32)], side: u32) -> Result<()> {
    if pinpoints.is_empty() {
        return Err(Error::argument("pinpoints", "there are none, and a canvas must be chosen from them"));
    }
    for &(width, height) in pinpoints {
        if width == 0 || height == 0 || width % side != 0 || height % side != 0 {
            let reason = format!("{width} by {height} is not made of whole tiles of {side} pixels");
            return Err(Error::argument("pinpoints", reason));
        }
        let views = u64::from(width / side) * u64::from(height / side) + 1;
        let bytes = views.saturating_mul(12 * u64::from(side).pow(2));
        if views > MAX_TILES || bytes > MAX_BYTES {
            let reason = format!(
                "{width} by {height} makes {views} views of {side} pixels ({bytes} bytes), and at most {MAX_TILES} views \
                 and {MAX_BYTES} bytes are allowed"
            );
            return Err(Error::argument("pinpoints", reason));
        }
    }
    Ok(())
}
