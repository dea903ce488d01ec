//! Pillow's bicubic resize of RGB, to the last bit (`src/libImaging/Resample.c`).
//!
//! Two passes, rows and then columns, with 8 bits between them. Weights are computed in f64, normalised and rounded to
//! 22-bit fixed point; shrinking widens the kernel, which is what Pillow has over plain bicubic interpolation.
//!
//! The preprocessing resizes pictures that lie on a canvas of one colour, and often keeps only the middle of the result.
//! [`Canvas`] and [`Axis`] describe both, so that neither the canvas nor the discarded part is ever built: a picture of
//! 20000 by 100 would need a canvas of 400 million pixels.

use std::ops::Range;

use super::with_capacity;
use crate::error::{Error, Result};

/// Fraction bits of a weight: 8 for the value, 2 for the sign and overshoot.
const PRECISION: u32 = 32 - 8 - 2;

/// Half the width of the kernel, in pixels of the coarser side.
const SUPPORT: f64 = 2.0;

/// Most bytes that the picture between the passes may take.
const MAX_BETWEEN: u64 = 1 << 30;

/// Resizes `rgb`, `[height, width, 3]`, from `from` (width, height) to `to` (width, height) with Pillow's bicubic filter,
/// byte for byte what `Image.resize(to, BICUBIC)` returns: `[to.1, to.0, 3]`.
///
/// # Errors
/// [`Error::InvalidArgument`] if a side is 0 or `rgb` is not `from.0 * from.1 * 3` long; [`Error::OutOfMemory`] if the
/// result or the picture between the two passes would take more than 1 GiB.
pub fn resize(rgb: &[u8], from: (u32, u32), to: (u32, u32)) -> Result<Vec<u8>> {
    if from.0 == 0 || from.1 == 0 || to.0 == 0 || to.1 == 0 {
        return Err(Error::argument("size", format!("cannot resize {from:?} to {to:?}: a side is 0")));
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
    pub canvas_width: usize,
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
        Self { rgb, width, height, left: 0, top: 0, canvas_width: width, fill: [0; 3] }
    }

    /// The windows of `x` and `y` of the resized canvas, `[y.window, x.window, 3]`. `x.input` is the canvas's width,
    /// `y.input` its height.
    pub fn resize(&self, x: &Axis, y: &Axis) -> Result<Vec<u8>> {
        debug_assert_eq!(x.input, self.canvas_width);
        let (columns, rows) = (Taps::new(x)?, Taps::new(y)?);
        let row_bytes = 3 * x.window.len();

        // Only the picture's rows that some wanted row needs go through the first pass, and one row of bare canvas.
        let needed = rows.span();
        let real = needed.start.max(self.top)..needed.end.min(self.top + self.height);
        let real = real.start..real.end.max(real.start);
        let mut between = buffer("resizing an image", (real.len() + 1) as u64 * row_bytes as u64)?; // [real + 1, row]
        let mut line = self.fill.repeat(self.canvas_width);
        columns.across(&line, &mut between[..row_bytes]);
        for (row, out) in real.clone().zip(between[row_bytes..].chunks_exact_mut(row_bytes)) {
            let source = &self.rgb[3 * (row - self.top) * self.width..][..3 * self.width];
            if self.width == self.canvas_width {
                columns.across(source, out);
            } else {
                line[3 * self.left..][..3 * self.width].copy_from_slice(source);
                columns.across(&line, out);
            }
        }

        let mut resized = buffer("a resized image", y.window.len() as u64 * row_bytes as u64)?;
        let mut sums = vec![0; row_bytes];
        for (i, out) in resized.chunks_exact_mut(row_bytes).enumerate() {
            let (first, weights) = rows.of(i);
            sums.fill(HALF);
            for (row, &weight) in (first..).zip(weights) {
                let at = if real.contains(&row) { row - real.start + 1 } else { 0 };
                for (sum, &v) in sums.iter_mut().zip(&between[at * row_bytes..][..row_bytes]) {
                    *sum += i32::from(v) * weight;
                }
            }
            for (v, &sum) in out.iter_mut().zip(&sums) {
                *v = clip(sum);
            }
        }
        Ok(resized)
    }
}

/// One half in fixed point, for rounding. A sum cannot overflow: the absolute weights of a bicubic kernel add up to less
/// than 1.5, so it stays under 255 * 1.5 * 2^22 = 1.61e9.
const HALF: i32 = 1 << (PRECISION - 1);

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// For each wanted output position, the first input position and the weights from there on.
struct Taps {
    first: Vec<usize>,
    count: Vec<usize>,
    weights: Vec<i32>, // [window, most]
    most: usize,
}

impl Taps {
    fn new(axis: &Axis) -> Result<Self> {
        let scale = axis.input as f64 / axis.output as f64;
        let widened = scale.max(1.0);
        let support = SUPPORT * widened;
        let most = (support.ceil() as usize * 2 + 1).min(axis.input);
        let window = axis.window.len();
        let mut taps = Self {
            first: with_capacity("resizing an image", window)?,
            count: with_capacity("resizing an image", window)?,
            weights: with_capacity("resizing an image", most.saturating_mul(window))?,
            most,
        };
        let mut exact = Vec::with_capacity(most);
        for position in axis.window.clone() {
            let centre = (position as f64 + 0.5) * scale;
            // Casts saturate at 0 below and are cut at the far end.
            let first = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(axis.input);
            exact.clear();
            exact.extend((first..end).map(|i| cubic((i as f64 - centre + 0.5) * (1.0 / widened))));
            let sum: f64 = exact.iter().sum();
            taps.first.push(first);
            taps.count.push(exact.len());
            taps.weights.extend(exact.iter().map(|w| fixed(if sum == 0.0 { *w } else { w / sum })));
            taps.weights.resize(taps.first.len() * most, 0);
        }
        Ok(taps)
    }

    /// First input position and weights of the window's output `i`.
    fn of(&self, i: usize) -> (usize, &[i32]) {
        (self.first[i], &self.weights[i * self.most..][..self.count[i]])
    }

    /// All input positions that have a weight: they move with the output position.
    fn span(&self) -> Range<usize> {
        let start = self.first.first().copied().unwrap_or(0);
        let end = self.first.iter().zip(&self.count).next_back().map_or(start, |(first, count)| first + count);
        start..end
    }

    /// Resizes one row, `line` `[input, 3]` to `out` `[window, 3]`.
    fn across(&self, line: &[u8], out: &mut [u8]) {
        for (i, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (first, weights) = self.of(i);
            let mut sums = [HALF; 3];
            for (pixel, &weight) in line.as_chunks::<3>().0[first..].iter().zip(weights) {
                for (sum, &v) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(v) * weight;
                }
            }
            *out = sums.map(clip);
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
fn buffer(what: &'static str, bytes: u64) -> Result<Vec<u8>> {
    if bytes > MAX_BETWEEN {
        let reason = format!("at most {MAX_BETWEEN} are allowed: scale the image down first");
        return Err(Error::OutOfMemory { what, bytes, reason });
    }
    let mut v = with_capacity(what, bytes as usize)?;
    v.resize(bytes as usize, 0);
    Ok(v)
}
