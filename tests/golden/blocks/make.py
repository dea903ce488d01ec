"""Writes blocks of every type and what they hold, by gguf-py.

    pip install gguf==0.19.0 numpy
    python tests/golden/blocks/make.py

<type>.blocks: 16 blocks (64 values of a float type); <type>.f32: the same, dequantised.
<type>.quantize.f32, <type>.quantize.blocks: values, and the blocks that quantize() makes of them.
"""

import pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize, quantize

HERE = pathlib.Path(__file__).parent
BLOCKS = 16
# Offset of each f16 field.
HALVES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.IQ4_NL: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
}
# Zero, minus zero, the smallest and largest subnormals, the largest numbers, one and its negative.
EDGES = np.array([0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x7BFF, 0xFBFF, 0x3C00, 0xBC00], np.uint16)


def blocks(t, rng):
    size = GGML_QUANT_SIZES[t][1]
    b = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for i, at in enumerate(HALVES[t]):
        d = (rng.standard_normal(BLOCKS) * 0.02).astype(np.float16).view(np.uint16)
        d[: len(EDGES)] = np.roll(EDGES, i)
        b[:, at : at + 2] = d.view(np.uint8).reshape(BLOCKS, 2)
    # Everything but the scales all ones, all zeros, and 0x80 (−128 for int8).
    fields = np.ones(size, bool)
    for at in HALVES[t]:
        fields[at : at + 2] = False
    for row, byte in [(-1, 0xFF), (-2, 0x00), (-3, 0x80)]:
        b[row, fields] = byte
    return b


def floats(t, rng):
    x = (rng.standard_normal(64) * 3).astype(np.float32)
    x[:8] = [0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-40, 6e-8, 65504.0]
    return quantize(x, t)


def main():
    for i, t in enumerate([T.F32, T.F16, T.BF16, *HALVES]):
        rng = np.random.default_rng(i)
        b = blocks(t, rng) if t in HALVES else floats(t, rng)
        (HERE / f"{t.name}.blocks").write_bytes(b.tobytes())
        x = dequantize(b, t)
        assert np.isfinite(x).all() or t not in HALVES
        (HERE / f"{t.name}.f32").write_bytes(x.astype(np.float32).tobytes())
    for t in [T.Q4_0, T.Q8_0]:
        rng = np.random.default_rng(100)
        x = (rng.standard_normal((BLOCKS, 32)) * 10.0 ** rng.integers(-3, 3, (BLOCKS, 1))).astype(np.float32)
        x[0] = 0
        x[1] = np.arange(-16, 16)  # ties, and two values of the largest magnitude with Q4_0
        x[2] = np.where(np.arange(32) % 2, 7.0, -7.0)
        x[3] = np.arange(-127, 129, 8) / 2  # halves with Q8_0
        x[3, 0] = 127
        x[4] *= 1e-6  # a scale that is subnormal in half precision
        (HERE / f"{t.name}.quantize.f32").write_bytes(x.tobytes())
        (HERE / f"{t.name}.quantize.blocks").write_bytes(quantize(x, t).tobytes())


main()
