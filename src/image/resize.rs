//! Pillow's bicubic resize of RGB, to the last bit (`src/libImaging/Resample.c`).
//!
//! Two passes, one along each axis, with 8 bits between them. Weights are computed in f64, normalised and rounded to
//! 22-bit fixed point; shrinking widens the kernel, which is what Pillow has over plain bicubic interpolation.
//!
//! The order is that of Pillow 13 (its pull request 9549): vertical first where the height loses more than twice as
//! many pixels as the width, else horizontal first. Pillow before 13, which LLaVA was trained with, went horizontal
//! first but for pictures over a hundred times as tall as wide; 12.3 and 13.0 differ in nothing else. Padding to a
//! square never changes the order, and cutting out the middle only from about twice as tall as wide. Of 600 photographs
//! squashed to 336 by 336, 29 changed it: 7.1% of their bytes differ, by one but for 0.04%, by 9 at most. Overshoot is
//! clipped between the passes, so noise and hard edges differ by more: by up to 28 in 6000 synthetic pictures.
//!
//! The preprocessing resizes pictures that lie on a canvas of one colour, and often keeps only the middle of the result.
//! [`Canvas`] and [`Axis`] describe both, so that neither the canvas nor the discarded part is ever built: a picture of
//! 20000 by 100 would need a canvas of 400 million pixels.

use std::ops::Range;

use super::{MAX_SIDE, with_capacity};
use crate::error::{Error, Result};

/// Fraction bits of a weight: 8 for the value, 2 for the sign and overshoot.
const PRECISION: u32 = 32 - 8 - 2;

/// Half the width of the kernel, in pixels of the coarser side.
const SUPPORT: f64 = 2.0;

/// Most bytes that the picture between the passes may take.
const MAX_BETWEEN: u64 = 1 << 30;

/// Resizes `rgb`, `[height, width, 3]`, from `from` (width, height) to `to` (width, height) with Pillow's bicubic filter,
/// byte for byte what `Image.resize(to, BICUBIC)` of Pillow 13 returns: `[to.1, to.0, 3]`.
///
/// # Errors
/// [`Error::InvalidArgument`] if a side is 0 or above 65535 or `rgb` is not `from.0 * from.1 * 3` long; [`Error::OutOfMemory`] if the
/// result or the picture between the two passes would take more than 1 GiB.
pub fn resize(rgb: &[u8], from: (u32, u32), to: (u32, u32)) -> Result<Vec<u8>> {
    if [from.0, from.1, to.0, to.1].iter().any(|&side| side == 0 || side > MAX_SIDE) {
        let reason = format!("cannot resize {from:?} to {to:?}: a side must have 1 to {MAX_SIDE} pixels");
        return Err(Error::argument("size", reason));
    }
    let (width, height) = (from.0 as usize, from.1 as usize);
    let expected = u64::from(from.0) * u64::from(from.1);
    if expected.checked_mul(3) != Some(rgb.len() as u64) {
        let reason = format!("{width} by {height} pixels take 3 bytes each, {} bytes were given", rgb.len());
        return Err(Error::argument("rgb", reason));
    }
    let canvas = Canvas::whole(rgb, width, height);
    canvas.resize(&Axis::whole(width, to.0 as usize), &Axis::whole(height, to.1 as usize))
}

/// A picture lying at `(left, top)` on a canvas of one colour.
pub(super) struct Canvas<'a> {
    pub rgb: &'a [u8], // [height, width, 3]
    pub width: usize,
    pub height: usize,
    pub left: usize,
    pub top: usize,
    pub fill: [u8; 3],
}

/// One direction of a resize: from `input` pixels to `output`, of which `window` is wanted.
pub(super) struct Axis {
    pub input: usize,
    pub output: usize,
    pub window: Range<usize>,
}

impl Axis {
    pub fn whole(input: usize, output: usize) -> Self {
        Self { input, output, window: 0..output }
    }
}

impl<'a> Canvas<'a> {
    /// A picture that fills its canvas.
    pub fn whole(rgb: &'a [u8], width: usize, height: usize) -> Self {
        Self { rgb, width, height, left: 0, top: 0, fill: [0; 3] }
    }

    /// The windows of `x` and `y` of the resized canvas, `[y.window, x.window, 3]`. The canvas is `x.input` wide
    /// and `y.input` high.
    pub fn resize(&self, x: &Axis, y: &Axis) -> Result<Vec<u8>> {
        let columns = Taps::new(x, self.left..self.left + self.width)?;
        let rows = Taps::new(y, self.top..self.top + self.height)?;
        let resized = buffer("a resized image", y.window.len() as u64 * 3 * x.window.len() as u64)?;
        if vertical_first(x, y) {
            Ok(self.down_then_across(&columns, &rows, resized))
        } else {
            self.across_then_down(&columns, &rows, resized)
        }
    }

    /// Fills `resized`, `[rows, columns, 3]`, horizontally first.
    fn across_then_down(&self, columns: &Taps, rows: &Taps, mut resized: Vec<u8>) -> Result<Vec<u8>> {
        // A row of bare canvas and the picture's rows that some wanted row needs, after the first pass.
        let bare: Vec<u8> = (0..columns.len()).flat_map(|i| columns.bare(i, self.fill)).collect();
        let needed = rows.span();
        let mut between = buffer("resizing an image", needed.len() as u64 * bare.len() as u64)?; // [needed, columns, 3]
        for (row, out) in needed.clone().zip(between.chunks_exact_mut(bare.len())) {
            columns.across(&self.rgb[3 * row * self.width..][..3 * self.width], self.fill, out);
        }
        let mut sums = vec![0; bare.len()];
        for (i, out) in resized.chunks_exact_mut(bare.len()).enumerate() {
            rows.down(i, &between, needed.start, &bare, &mut sums, out);
        }
        Ok(resized)
    }

    /// Fills `resized`, `[rows, columns, 3]`, vertically first. One row between the passes is enough.
    fn down_then_across(&self, columns: &Taps, rows: &Taps, mut resized: Vec<u8>) -> Vec<u8> {
        let bare = self.fill.repeat(self.width);
        let mut between = vec![0; bare.len()]; // [width, 3]
        let mut sums = vec![0; bare.len()];
        for (i, out) in resized.chunks_exact_mut(3 * columns.len()).enumerate() {
            rows.down(i, self.rgb, 0, &bare, &mut sums, &mut between);
            columns.across(&between, rows.bare(i, self.fill), out);
        }
        resized
    }
}

/// Pillow 13's choice of order (`horizontal_first` in `ImagingResampleInner`), by the whole canvas and result.
fn vertical_first(x: &Axis, y: &Axis) -> bool {
    let lost = |axis: &Axis| axis.input as i64 - axis.output as i64;
    lost(y) > 0 && lost(y) > 2 * lost(x)
}

/// One half in fixed point, for rounding. A sum cannot overflow: the absolute weights of a bicubic kernel add up to less
/// than 1.5, so it stays under 255 * 1.5 * 2^22 = 1.61e9.
const HALF: i32 = 1 << (PRECISION - 1);

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// For each wanted output position, its first input position in the picture, the weights from there on, and the weight
/// of what it sees of the bare canvas.
struct Taps {
    first: Vec<usize>,  // [window], counted from the picture's edge
    starts: Vec<usize>, // [window + 1], into the weights
    weights: Vec<i32>,  // fixed point
    outsides: Vec<i32>, // [window], fixed point
}

impl Taps {
    fn new(axis: &Axis, picture: Range<usize>) -> Result<Self> {
        const WHAT: &str = "resizing an image";
        let scale = axis.input as f64 / axis.output as f64;
        let widened = scale.max(1.0);
        let support = SUPPORT * widened;
        let window = axis.window.len();
        let mut taps = Self {
            first: with_capacity(WHAT, window)?,
            starts: with_capacity(WHAT, window + 1)?,
            weights: Vec::new(),
            outsides: with_capacity(WHAT, window)?,
        };
        taps.starts.push(0);
        let mut exact = Vec::new();
        for position in axis.window.clone() {
            let centre = (position as f64 + 0.5) * scale;
            // Casts saturate at 0 below and are cut at the far end.
            let start = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(axis.input);
            exact.clear();
            exact.extend((start..end).map(|i| cubic((i as f64 - centre + 0.5) * (1.0 / widened))));
            let sum: f64 = exact.iter().sum();
            let mut outside = 0;
            for (i, weight) in (start..end).zip(&exact) {
                let weight = fixed(if sum == 0.0 { *weight } else { weight / sum });
                if picture.contains(&i) {
                    taps.weights.push(weight);
                } else {
                    outside += weight;
                }
            }
            taps.first.push(start.clamp(picture.start, picture.end) - picture.start);
            taps.starts.push(taps.weights.len());
            taps.outsides.push(outside);
        }
        Ok(taps)
    }

    /// Number of wanted output positions.
    fn len(&self) -> usize {
        self.first.len()
    }

    /// First position in the picture and weights of the window's output `i`.
    fn inside(&self, i: usize) -> (usize, &[i32]) {
        (self.first[i], &self.weights[self.starts[i]..self.starts[i + 1]])
    }

    /// What the canvas of value `v` adds to output `i`, and the half that rounds.
    fn outside(&self, i: usize, v: u8) -> i32 {
        HALF + i32::from(v) * self.outsides[i]
    }

    /// Output `i` of a canvas of colour `fill` with no picture on it.
    fn bare(&self, i: usize, fill: [u8; 3]) -> [u8; 3] {
        let (_, weights) = self.inside(i);
        fill.map(|v| clip(weights.iter().fold(self.outside(i, v), |sum, weight| sum + i32::from(v) * weight)))
    }

    /// All positions in the picture that have a weight: they move with the output position.
    fn span(&self) -> Range<usize> {
        let mut ends = self.first.iter().zip(self.starts.windows(2)).map(|(first, s)| first + s[1] - s[0]);
        let start = self.first.first().copied().unwrap_or(0);
        start..ends.next_back().unwrap_or(start)
    }

    /// Resizes one row of the picture, `[picture, 3]`, to `out` `[window, 3]`.
    fn across(&self, row: &[u8], fill: [u8; 3], out: &mut [u8]) {
        let row = row.as_chunks::<3>().0;
        for (i, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (first, weights) = self.inside(i);
            let mut sums = fill.map(|v| self.outside(i, v));
            for (pixel, &weight) in row[first..].iter().zip(weights) {
                for (sum, &v) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(v) * weight;
                }
            }
            *out = sums.map(clip);
        }
    }

    /// Output row `i`, `[width, 3]`, from `rows`, `[some, width, 3]`, which begin with the picture's row `start`; the
    /// canvas's other rows are all `bare`, `[width, 3]`. `sums` is scratch of the same length.
    fn down(&self, i: usize, rows: &[u8], start: usize, bare: &[u8], sums: &mut [i32], out: &mut [u8]) {
        for (sum, &v) in sums.iter_mut().zip(bare) {
            *sum = self.outside(i, v);
        }
        let (first, weights) = self.inside(i);
        for (row, &weight) in rows[(first - start) * bare.len()..].chunks_exact(bare.len()).zip(weights) {
            for (sum, &v) in sums.iter_mut().zip(row) {
                *sum += i32::from(v) * weight;
            }
        }
        for (v, &sum) in out.iter_mut().zip(&*sums) {
            *v = clip(sum);
        }
    }
}

/// The cubic convolution kernel with a = -0.5 (Keys 1981), in Pillow's order of operations.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Rounds half away from zero to fixed point.
fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

/// `bytes` zero bytes, or an error if that is more than is allowed or than there is.
pub(super) fn buffer(what: &'static str, bytes: u64) -> Result<Vec<u8>> {
    if bytes > MAX_BETWEEN {
        let reason = format!("at most {MAX_BETWEEN} are allowed: scale the image down first");
        return Err(Error::OutOfMemory { what, bytes, reason });
    }
    let mut v = with_capacity(what, bytes as usize)?;
    v.resize(bytes as usize, 0);
    Ok(v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> impl Iterator<Item = (usize, usize)> {
        let small = (1..90).flat_map(|input| (1..90).map(move |output| (input, output)));
        small.chain([(1, 4096), (4096, 1), (65535, 1), (65535, 336), (3, 65535), (4000, 3999), (65535, 65534)])
    }

    #[test]
    fn no_weights_can_overflow_the_sum() {
        for (input, output) in sizes() {
            let taps = Taps::new(&Axis::whole(input, output), 0..input).unwrap();
            for i in 0..output {
                let size: u64 = taps.inside(i).1.iter().map(|w| u64::from(w.unsigned_abs())).sum();
                assert!(size * 2 < 3 << PRECISION, "{input} to {output} at {i}: {size}");
            }
        }
    }

    #[test]
    fn a_picture_on_a_canvas_resizes_like_the_painted_canvas() {
        let picture: Vec<u8> = (0..7 * 5 * 3).map(|i| (i * 37 % 256) as u8).collect();
        let fill = [122, 116, 104];
        let mut painted = fill.repeat(13 * 12);
        for (y, row) in picture.chunks(7 * 3).enumerate() {
            painted[((y + 4) * 13 + 2) * 3..][..7 * 3].copy_from_slice(row);
        }
        let canvas = Canvas { rgb: &picture, width: 7, height: 5, left: 2, top: 4, fill };
        for (w, h) in [(4, 3), (30, 40), (13, 12), (1, 1), (100, 2)] {
            let (x, y) = (Axis::whole(13, w), Axis::whole(12, h));
            let expected = resize(&painted, (13, 12), (w as u32, h as u32)).unwrap();
            assert_eq!(canvas.resize(&x, &y).unwrap(), expected, "{w} by {h}");
            // And a window of it is that part of it.
            let window = |axis: Axis| Axis { window: axis.output / 3..axis.output / 3 + 1, ..axis };
            let at = 3 * (h / 3 * w + w / 3);
            assert_eq!(canvas.resize(&window(x), &window(y)).unwrap(), expected[at..at + 3], "{w} by {h}");
        }
    }
}
