//! The geometry of LLaVA-1.6's "any resolution" input: which canvas a picture goes on, where it lies there, and which
//! image tokens are left when the canvas's padding is taken out again.
//!
//! All of it follows the code that the weights were trained with (`llava/mm_utils.py` and `llava/model/llava_arch.py` of
//! haotian-liu/LLaVA). Hugging Face's port differs in two places:
//! - it reads the pinpoints as (height, width). With the published list, which is symmetric, that only shows when two
//!   canvases tie, as they do for every image that fits one tile: the original takes the first, 336 wide and 672 high;
//!   the port takes the one lying on its side.
//! - it rounds to 7 decimals before it truncates in [`unpad`], which now and then keeps a row or column fewer or more.
//!
//! Sizes are (width, height) everywhere, and quotients are f64 and truncated, as in Python.

use std::ops::Range;

/// The pinpoint that holds a picture of `original` size best: the one that leaves it the most pixels (never more than it
/// has), among those the one with the least waste, among those the first. None if there are no pinpoints.
pub fn best_resolution(original: (u32, u32), pinpoints: &[(u32, u32)]) -> Option<(u32, u32)> {
    let (w, h) = (f64::from(original.0), f64::from(original.1));
    let all = u64::from(original.0) * u64::from(original.1);
    let mut best: Option<((u32, u32), u64, u64)> = None;
    for &(width, height) in pinpoints {
        let scale = (f64::from(width) / w).min(f64::from(height) / h);
        let effective = ((w * scale) as u64).saturating_mul((h * scale) as u64).min(all);
        let wasted = (u64::from(width) * u64::from(height)).saturating_sub(effective);
        if best.is_none_or(|(_, e, waste)| effective > e || (effective == e && wasted < waste)) {
            best = Some(((width, height), effective, wasted));
        }
    }
    best.map(|(pinpoint, ..)| pinpoint)
}

/// Where a picture lies on its canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The picture's size on the canvas, (width, height): as large as fits with its aspect kept.
    pub size: (u32, u32),
    /// Its top left corner, (x, y): centred, with the odd pixel of padding on the right or at the bottom.
    pub offset: (u32, u32),
}

/// Fits a picture of `original` size into `canvas`. The side that does not touch is rounded up.
pub fn place(original: (u32, u32), canvas: (u32, u32)) -> Placement {
    let (w, h) = (f64::from(original.0), f64::from(original.1));
    let (scale_w, scale_h) = (f64::from(canvas.0) / w, f64::from(canvas.1) / h);
    let size = if scale_w < scale_h {
        (canvas.0, ((h * scale_w).ceil() as u32).min(canvas.1))
    } else {
        (((w * scale_h).ceil() as u32).min(canvas.0), canvas.1)
    };
    Placement { size, offset: ((canvas.0 - size.0) / 2, (canvas.1 - size.1) / 2) }
}

/// The part of the tiles' feature map that shows the picture and not its padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Rows of the feature map, counted over all tiles.
    pub rows: Range<usize>,
    /// Columns of the feature map, counted over all tiles.
    pub cols: Range<usize>,
}

impl Kept {
    /// Image tokens of the part: every row is followed by the newline embedding.
    pub fn tokens(&self) -> usize {
        self.rows.len() * (self.cols.len() + 1)
    }
}

/// Which features of a `grid` (width, height) of tiles, each of `patches` by `patches` features, belong to a picture of
/// `original` size.
///
/// Extremely long pictures can lose everything: at less than half a feature's height nothing is left of an even map. That
/// is what the original does, and the base view still shows them.
pub fn unpad(original: (u32, u32), grid: (usize, usize), patches: usize) -> Kept {
    let (w, h) = (f64::from(original.0), f64::from(original.1));
    let (map_w, map_h) = (grid.0 * patches, grid.1 * patches);
    if w / h > map_w as f64 / map_h as f64 {
        let height = (h * (map_w as f64 / w)) as usize;
        Kept { rows: middle(map_h, height), cols: 0..map_w }
    } else {
        let width = (w * (map_h as f64 / h)) as usize;
        Kept { rows: 0..map_h, cols: middle(map_w, width) }
    }
}

/// The same padding off both ends, so an odd one keeps one feature more than `kept`.
fn middle(length: usize, kept: usize) -> Range<usize> {
    let padding = length.saturating_sub(kept) / 2;
    padding..length - padding
}

/// Image tokens of a picture of `original` size: the base view's `patches * patches`, then those of [`unpad`].
pub fn image_tokens(original: (u32, u32), grid: (usize, usize), patches: usize) -> usize {
    patches * patches + unpad(original, grid, patches).tokens()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of the released LLaVA-1.6 checkpoints.
    const NEXT: [(u32, u32); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

    #[test]
    fn published_pinpoints_give_the_reference_canvas_placement_and_token_count() {
        // (original, canvas, placed size, offset, rows, cols, tokens), worked out with the original's formulas in Python.
        let cases = [
            ((1024, 899), (672, 672), (672, 590), (0, 41), 42, 48, 2634),
            ((640, 480), (672, 672), (672, 504), (0, 84), 36, 48, 2340),
            ((480, 640), (672, 672), (504, 672), (84, 0), 48, 36, 2352),
            ((336, 336), (336, 672), (336, 336), (0, 168), 24, 24, 1176),
            ((100, 100), (336, 672), (336, 336), (0, 168), 24, 24, 1176),
            ((1000, 300), (1008, 336), (1008, 303), (0, 16), 22, 72, 2182),
            ((300, 1000), (336, 1008), (303, 1008), (16, 0), 72, 22, 2232),
            ((1920, 1080), (672, 672), (672, 378), (0, 147), 28, 48, 1948),
            ((2000, 400), (1008, 336), (1008, 202), (0, 67), 14, 72, 1598),
            ((1344, 336), (1008, 336), (1008, 252), (0, 42), 18, 72, 1890),
        ];
        for (original, canvas, size, offset, rows, cols, tokens) in cases {
            assert_eq!(best_resolution(original, &NEXT), Some(canvas), "{original:?}");
            assert_eq!(place(original, canvas), Placement { size, offset }, "{original:?}");
            let grid = (canvas.0 as usize / 336, canvas.1 as usize / 336);
            let kept = unpad(original, grid, 24);
            assert_eq!((kept.rows.len(), kept.cols.len()), (rows, cols), "{original:?}");
            assert_eq!(image_tokens(original, grid, 24), tokens, "{original:?}");
        }
    }

    #[test]
    fn the_first_of_two_tied_canvases_wins() {
        for original in [(1, 1), (100, 100), (336, 336), (336, 200), (200, 336)] {
            assert_eq!(best_resolution(original, &[(336, 672), (672, 336)]), Some((336, 672)), "{original:?}");
            assert_eq!(best_resolution(original, &[(672, 336), (336, 672)]), Some((672, 336)), "{original:?}");
        }
    }

    #[test]
    fn of_equally_sharp_canvases_the_smaller_wins() {
        assert_eq!(best_resolution((300, 300), &[(672, 672), (672, 336)]), Some((672, 336)));
    }

    #[test]
    fn a_line_of_pixels_keeps_no_tile_features_and_does_not_underflow() {
        assert_eq!(unpad((2000, 1), (3, 1), 24), Kept { rows: 12..12, cols: 0..72 });
        assert_eq!(image_tokens((2000, 1), (3, 1), 24), 576);
        assert_eq!(unpad((1, 65535), (1, 3), 27).cols, 13..14);
    }
}
