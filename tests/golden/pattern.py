"""Test pictures that are cheap to make alike in Rust (tests/pattern/mod.rs) and in Python, and their hash."""

import numpy as np


def pattern(kind, width, height):
    """[height, width, 3] of u8."""
    if kind == "noise":
        state, out = 1, bytearray()
        for _ in range(width * height * 3):
            state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
            out.append(state >> 24)
        return np.frombuffer(bytes(out), np.uint8).reshape(height, width, 3)
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    if kind == "ramp":
        return ((x * 5 + y * 3 + c * 85) % 256).astype(np.uint8)
    if kind == "blocks":
        return (((x // 3 + y // 5 + c) % 2) * 255).astype(np.uint8)
    raise ValueError(kind)


def fnv1a(data):
    """64-bit FNV-1a."""
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h
