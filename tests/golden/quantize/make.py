"""Writes values and the blocks that llama.cpp's quantizer makes of them, with and without an importance matrix.

    pip install xllamacpp==2026.10.11549 numpy
    python tests/golden/quantize/make.py

values.f32, importance.f32: ROWS rows of COLUMNS; one row of importance for all.
<type>.blocks: the rows quantised; <type>.importance.blocks: the same by importance.
"""

import ctypes as c
import importlib.metadata
import importlib.util
import os
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent
ROWS, COLUMNS = 24, 512
TYPES = {
    "F16": 1, "BF16": 30, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12,
    "Q5_K": 13, "Q6_K": 14, "IQ4_NL": 20,
}


def library():
    assert importlib.metadata.version("xllamacpp") == "2026.10.11549"
    folder = importlib.util.find_spec("xllamacpp").submodule_search_locations[0]
    lib = c.CDLL(os.path.join(folder, "xllamacpp.abi3.so"))
    floats = np.ctypeslib.ndpointer(np.float32, flags="C")
    lib.ggml_quantize_chunk.argtypes = [c.c_int, floats, c.c_void_p, c.c_int64, c.c_int64, c.c_int64, c.c_void_p]
    lib.ggml_quantize_chunk.restype = c.c_size_t
    lib.ggml_row_size.argtypes = [c.c_int, c.c_int64]
    lib.ggml_row_size.restype = c.c_size_t
    return lib


def values(rng):
    """Rows of every kind: normal, of heavy tails, of one sign, of few values, tiny, constant, zero."""
    x = rng.standard_normal((ROWS, COLUMNS)) * 10.0 ** rng.integers(-3, 2, (ROWS, 1))
    x[3] = rng.standard_t(2, COLUMNS)
    x[4] = np.abs(x[4])
    x[5] = -np.abs(x[5])
    x[6] = rng.integers(-3, 4, COLUMNS)
    x[7] = 0
    x[8] = 1.5
    x[9] = -2.0
    x[10] = x[10] * 1e-12
    x[11] = x[11] * 1e-30
    x[12, ::2] = 0
    x[13, 5] = 1000
    x[14] = np.linspace(-1, 1, COLUMNS)
    x[15, :256] = 0
    x[16] = rng.laplace(size=COLUMNS)
    x[17] = rng.uniform(0.5, 1.5, COLUMNS)
    x[18, 32:48] = 0
    return x.astype(np.float32)


def main():
    lib, rng = library(), np.random.default_rng(7)
    x = values(rng)
    importance = (rng.chisquare(1, COLUMNS) * 10.0 ** rng.integers(-2, 3, COLUMNS)).astype(np.float32)
    importance[100:110] = 0
    x.tofile(HERE / "values.f32")
    importance.tofile(HERE / "importance.f32")
    for name, number in TYPES.items():
        for suffix, weights in [("", None), (".importance", importance.ctypes.data)]:
            if weights and name in ("F16", "BF16", "Q8_0"):
                continue
            out = np.zeros(ROWS * lib.ggml_row_size(number, COLUMNS), np.uint8)
            assert lib.ggml_quantize_chunk(number, x, out.ctypes.data, 0, ROWS, COLUMNS, weights) == out.size
            out.tofile(HERE / f"{name}{suffix}.blocks")


if __name__ == "__main__":
    main()
