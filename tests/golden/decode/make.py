#!/usr/bin/env python3
"""Writes one tiny picture for each format and kind of pixel, and expected.txt: what Pillow decodes from it.

    pip install pillow numpy && python tests/golden/decode/make.py
"""

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from pattern import pattern

W, H = 12, 8
FLAT = pattern("ramp", W, H)
RGB = Image.fromarray(FLAT)
y, x = np.mgrid[:H, :W]
SMOOTH = Image.fromarray(np.stack([40 + 15 * x, 30 + 20 * y, 200 - 8 * x - 6 * y], -1).astype(np.uint8))
ALPHA = Image.fromarray(((x * 23 + y * 31) % 256).astype(np.uint8))
RGBA = RGB.copy()
RGBA.putalpha(ALPHA)
PALETTE = RGB.quantize(16)
ORIENTATION = 0x0112


def png16(path, samples, colour_type):
    """Pillow writes no 16-bit colour. samples: [height, width, channels] of u16."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def exif(orientation):
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


for old in HERE.iterdir():
    if old.suffix != ".py":
        old.unlink()

RGB.save(HERE / "rgb.png")
RGBA.save(HERE / "rgba.png")
RGB.convert("L").save(HERE / "gray.png")
RGBA.convert("LA").save(HERE / "gray-alpha.png")
RGB.convert("1").save(HERE / "bilevel.png")
PALETTE.save(HERE / "palette.png")
PALETTE.save(HERE / "palette-transparent.png", transparency=3)
wide = np.arange(W * H * 4, dtype=np.uint32).reshape(H, W, 4) * 7919 % 65536
png16(HERE / "rgb16.png", wide[..., :3], 2)
png16(HERE / "rgba16.png", wide, 6)
png16(HERE / "gray16.png", wide[..., :1], 0)
RGB.save(HERE / "orientation6.png", exif=exif(6))
RGB.save(HERE / "rgb.bmp")
PALETTE.save(HERE / "palette.bmp")
RGB.convert("L").save(HERE / "gray.bmp")
PALETTE.save(HERE / "palette.gif")
PALETTE.save(HERE / "transparent.gif", transparency=3)
PALETTE.save(HERE / "animated.gif", save_all=True, append_images=[PALETTE.rotate(180)], duration=100)
RGB.save(HERE / "lossless.webp", lossless=True)
RGBA.save(HERE / "lossless-alpha.webp", lossless=True, exact=True)
RGB.save(HERE / "animated.webp", save_all=True, append_images=[RGB.rotate(180)], lossless=True)
RGB.save(HERE / "orientation8.webp", lossless=True, exif=exif(8))
SMOOTH.save(HERE / "lossy.webp", quality=90)
SMOOTH.save(HERE / "444.jpg", quality=95, subsampling=0)
SMOOTH.save(HERE / "420.jpg", quality=95, subsampling=2)
SMOOTH.save(HERE / "progressive.jpg", quality=95, subsampling=0, progressive=True)
SMOOTH.convert("L").save(HERE / "gray.jpg", quality=95)
SMOOTH.convert("CMYK").save(HERE / "cmyk.jpg", quality=95)
for i in range(1, 9):
    SMOOTH.save(HERE / f"orientation{i}.jpg", quality=95, subsampling=0, exif=exif(i))

with open(HERE / "expected.txt", "w") as f:
    print(f"# Pillow {PIL.__version__}: file, width, height, RGB in hex, alpha in hex or -", file=f)
    for path in sorted(HERE.iterdir()):
        if path.suffix in (".py", ".txt"):
            continue
        if path.name == "gray16.png":  # Pillow's convert("RGB") clips it at 255; the high byte is what it takes of RGB
            high = np.repeat(wide[..., :1] >> 8, 3, -1).astype(np.uint8)
            print(path.name, W, H, high.tobytes().hex(), "-", file=f)
            continue
        picture = ImageOps.exif_transpose(Image.open(path))
        alpha = picture.convert("RGBA").getchannel("A").tobytes()
        alpha = alpha.hex() if min(alpha) < 255 else "-"
        print(path.name, *picture.size, picture.convert("RGB").tobytes().hex(), alpha, file=f)
