"""Image geometry of the original LLaVA (llava/mm_utils.py, llava/model/llava_arch.py), for RGB pictures of Pillow.

Resolutions are (width, height) here, as in the original and in GGUF files; transformers has them the other way round.
"""

import math

import numpy as np
from PIL import Image

from mmproj import CLIP_MEAN, CLIP_STD


def normalize(picture):
    """[3, height, width]"""
    scaled = np.asarray(picture, dtype=np.float64).transpose(2, 0, 1) / 255
    column = (3, 1, 1)
    return (scaled - np.reshape(CLIP_MEAN, column)) / np.reshape(CLIP_STD, column)


def expand_to_square(picture):
    """LLaVA-1.5's `pad`: centred on a square of CLIP's mean colour."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side), tuple(int(255 * mean) for mean in CLIP_MEAN))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def padded(picture, tile):
    """The pixel values of LLaVA-1.5, [1, 3, tile, tile]."""
    return normalize(expand_to_square(picture).resize((tile, tile), Image.BICUBIC))[None]


def best_resolution(size, candidates):
    """The candidate that keeps most of the picture, then wastes least; the first of equals."""
    width, height = size

    def merit(candidate):
        scale = min(candidate[0] / width, candidate[1] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - candidate[0] * candidate[1]

    return max(candidates, key=merit)


def tiles(picture, candidates, tile):
    """The pixel values of LLaVA-1.6, [1 + tiles, 3, tile, tile]: the squashed picture, then its tiles by rows."""
    width, height = best_resolution(picture.size, candidates)
    across, down = width / picture.width, height / picture.height
    if across < down:
        inner = (width, min(math.ceil(picture.height * across), height))
    else:
        inner = (min(math.ceil(picture.width * down), width), height)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(picture.resize(inner, Image.BICUBIC), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    views = [picture.resize((tile, tile), Image.BICUBIC)]
    views += [canvas.crop((x, y, x + tile, y + tile)) for y in range(0, height, tile) for x in range(0, width, tile)]
    return np.stack([normalize(view) for view in views])


def pack(tokens, size, candidates, tile, newline):
    """Image tokens in the language model's order: [1 + tiles, side * side, width] to [n, width]."""
    columns, rows = (extent // tile for extent in best_resolution(size, candidates))
    side = math.isqrt(tokens.shape[1])
    grid = tokens[1:].reshape(rows, columns, side, side, -1).transpose(0, 2, 1, 3, 4)
    grid = grid.reshape(rows * side, columns * side, -1)
    width, height = size
    if width / height > columns / rows:
        margin = (rows * side - int(height * (columns * side / width))) // 2
        grid = grid[margin : rows * side - margin]
    else:
        margin = (columns * side - int(width * (rows * side / height))) // 2
        grid = grid[:, margin : columns * side - margin]
    ends = np.broadcast_to(newline, (grid.shape[0], 1, len(newline)))
    grid = np.concatenate([grid, ends], axis=1).reshape(-1, len(newline))
    return np.concatenate([tokens[0], grid])
