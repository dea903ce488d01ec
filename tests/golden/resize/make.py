#!/usr/bin/env python3
"""Writes pillow.txt and pillow_full.txt: what Pillow's bicubic resize makes of the test pictures.

    pip install pillow==13.0.0 numpy && python tests/golden/resize/make.py

Pillow 13 does the vertical pass first where the height loses more than twice as many pixels as the width (its pull
request 9549). Versions before it go horizontal first for all but extremely tall pictures.
"""

import random
import sys
from pathlib import Path

import PIL
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from pattern import fnv1a, pattern

assert int(PIL.__version__.split(".")[0]) >= 13

KINDS = ["noise", "ramp", "blocks"]


def resized(kind, w, h, tw, th):
    return Image.fromarray(pattern(kind, w, h)).resize((tw, th), Image.BICUBIC).tobytes()


def cases():
    edges = [
        (1, 1, 1, 1), (1, 1, 7, 5), (7, 5, 1, 1), (1, 9, 1, 4), (9, 1, 4, 1), (1, 40, 8, 8), (40, 1, 8, 8),
        (2, 2, 3, 3), (3, 3, 2, 2), (5, 5, 5, 5), (5, 7, 5, 3), (5, 7, 9, 7), (2, 3, 200, 1), (1, 2, 1, 300),
        (200, 20, 20, 200), (20, 200, 200, 20), (300, 30, 28, 28), (30, 300, 28, 28), (400, 4, 28, 28),
        (640, 480, 336, 336), (336, 336, 640, 480), (640, 480, 448, 336), (640, 480, 641, 479), (224, 224, 336, 336),
        (337, 335, 336, 336), (1000, 3, 3, 1000), (4096, 1, 1, 64), (1, 4096, 64, 1), (3000, 2, 5, 2),
        (20, 40, 10, 20), (20, 41, 10, 20),  # the height loses twice as many pixels as the width, and one more
    ]
    for size in edges:
        for kind in KINDS:
            yield (kind, *size)
    rng = random.Random(20240131)
    for i in range(150):
        yield (KINDS[i % 3], *(rng.randint(1, 160) for _ in range(4)))


with open(HERE / "pillow.txt", "w") as f:
    print(f"# Pillow {PIL.__version__}: pattern, width, height, new width, new height, FNV-1a of the result", file=f)
    for case in cases():
        print(*case, f"{fnv1a(resized(*case)):016x}", file=f)

with open(HERE / "pillow_full.txt", "w") as f:
    print(f"# Pillow {PIL.__version__}: pattern, width, height, new width, new height, the result in hex", file=f)
    for case in [("noise", 9, 7, 4, 3), ("noise", 4, 3, 9, 7), ("blocks", 12, 10, 7, 15), ("ramp", 3, 30, 5, 5)]:
        print(*case, resized(*case).hex(), file=f)
