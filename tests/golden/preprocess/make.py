#!/usr/bin/env python3
"""Writes reference.txt, reference_full.txt and unpad.txt: what Hugging Face's image processors (the numpy ones) make of
the test pictures.

    pip install transformers==4.57.6 pillow==13.0.0 numpy && python tests/golden/preprocess/make.py

Not an older Pillow: ../resize/make.py says why.

The anyres pinpoints are given to Hugging Face transposed, (height, width), so that ties fall as in the original LLaVA.
"""

import random
import sys
from pathlib import Path

import numpy as np
import PIL
import transformers
from PIL import Image
from transformers.models.clip.image_processing_clip import CLIPImageProcessor
from transformers.models.llava.image_processing_llava import LlavaImageProcessor
from transformers.models.llava_next.image_processing_llava_next import LlavaNextImageProcessor
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from pattern import fnv1a, pattern

assert int(PIL.__version__.split(".")[0]) >= 13

VERSIONS = f"transformers {transformers.__version__}, Pillow {PIL.__version__}"


def pixels(fit, side, picture):
    """[tiles, 3, side, side] of f32."""
    edge = dict(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    if fit == "pad":
        processor = LlavaImageProcessor(do_pad=True, **edge)
    elif fit == "crop":
        processor = CLIPImageProcessor(**edge)
    elif fit == "squash":
        processor = SiglipImageProcessor(size={"height": side, "width": side}, resample=Image.BICUBIC)
    else:
        # LLaVA-1.6's list, scaled to the side; (width, height), so (height, width) for Hugging Face means swapping.
        pins = [(side, 2 * side), (2 * side, side), (2 * side, 2 * side), (3 * side, side), (side, 3 * side)]
        processor = LlavaNextImageProcessor(image_grid_pinpoints=[[h, w] for w, h in pins], **edge)
    # Said, not guessed: a side of 1 or 3 pixels would be taken for the channels.
    out = np.asarray(processor(picture, return_tensors="np", input_data_format="channels_last")["pixel_values"])
    assert out.dtype == np.float32
    return out[0] if fit == "anyres" else out


def cases():
    sizes = [(28, 28), (56, 56), (64, 48), (48, 64), (65, 48), (48, 65), (29, 28), (100, 31), (31, 100), (10, 10),
             (200, 20), (20, 200), (7, 3), (57, 113), (113, 57), (84, 28), (1, 1), (1, 50), (50, 1)]
    for fit in ["pad", "crop", "squash", "anyres"]:
        for i, size in enumerate(sizes):
            for side in (28, 15):
                if fit == "anyres" and size == (50, 1):
                    continue  # LlavaNextImageProcessor takes the row for three channels
                yield fit, side, ["noise", "blocks", "ramp"][i % 3], *size


def row(case):
    fit, side, kind, w, h = case
    out = pixels(fit, side, Image.fromarray(pattern(kind, w, h)))
    return out, " ".join(map(str, case))


with open(HERE / "reference.txt", "w") as f:
    print(f"# {VERSIONS}: fit, side, pattern, width, height, tiles, FNV-1a of the f32", file=f)
    for case in cases():
        out, line = row(case)
        print(line, out.shape[0], f"{fnv1a(out.astype('<f4').tobytes()):016x}", file=f)

with open(HERE / "reference_full.txt", "w") as f:
    print(f"# {VERSIONS}: fit, side, pattern, width, height, the f32 in hex", file=f)
    for case in [("pad", 4, "noise", 9, 6), ("crop", 4, "noise", 9, 6), ("squash", 4, "noise", 9, 6),
                 ("anyres", 4, "noise", 13, 7)]:
        out, line = row(case)
        print(line, out.astype(">f4").tobytes().hex(), file=f)

count = LlavaNextProcessor._get_unpadded_features
with open(HERE / "unpad.txt", "w") as f:
    print("# width, height, grid width, grid height, patches per side, rows * cols and rows: of the original's formula, "
          f"then of transformers {transformers.__version__}", file=f)
    rng = random.Random(7)
    grids = [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3), (4, 3), (5, 6)]
    some = [(rng.randint(1, 4000), rng.randint(1, 4000), *rng.choice(grids), rng.choice([24, 27, 16])) for _ in range(300)]
    # Quotients a hair under a whole number: the port rounds these up, the original cuts them.
    hairs = [(704, 396, 2, 2, 24), (198, 352, 2, 2, 24), (440, 1408, 2, 2, 24), (752, 235, 2, 1, 24), (704, 440, 1, 2, 24),
             (176, 462, 1, 3, 24), (1407, 536, 3, 1, 24), (1176, 637, 1, 3, 24), (49, 1176, 3, 1, 24)]
    for w, h, gw, gh, p in some + hairs:
        cw, ch = gw * p, gh * p
        if w / h > cw / ch:
            pad = (ch - int(h * (cw / w))) // 2
            rows, cols = len(range(ch)[pad:ch - pad]), cw
        else:
            pad = (cw - int(w * (ch / h))) // 2
            rows, cols = ch, len(range(cw)[pad:cw - pad])
        print(w, h, gw, gh, p, rows * cols, rows, *count(None, h, w, p, p, gh, gw), file=f)
