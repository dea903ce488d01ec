"""Writes what llama.cpp's tools make of whole models: files.json, imatrix.gguf.

    pip install gguf==0.19.0 numpy
    git clone https://github.com/ggml-org/llama.cpp && cd llama.cpp && git checkout b10587
    cmake -B build -DBUILD_SHARED_LIBS=ON && cmake --build build --target llama llama-imatrix
    .ci/fetch-assets
    python tests/golden/quantize/files.py --bin llama.cpp/build/bin --assets target/test-assets

files.json: for a random F32 model and for SmolLM2 (Q4_1, requantised), of each file that llama_model_quantize writes: how
many tensors have which type, and the SHA-256 over name, type and blocks of its tensors in the order of their names.
imatrix.gguf: of the golden LLaVA's language model, for text.txt in chunks of 32.
"""

import argparse
import collections
import ctypes as c
import hashlib
import json
import pathlib
import subprocess
import tempfile

from gguf import GGUFReader

HERE = pathlib.Path(__file__).parent
# enum llama_ftype; Q2_K_S it refuses without an importance matrix.
MIXTURES = {
    "F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q6_K": 18, "Q5_K_M": 17, "Q5_K_S": 16, "Q5_1": 9, "Q5_0": 8, "Q4_K_M": 15,
    "Q4_K_S": 14, "IQ4_NL": 25, "Q4_1": 3, "Q4_0": 2, "Q3_K_L": 13, "Q3_K_M": 12, "Q3_K_S": 11, "Q2_K": 10,
}


class Params(c.Structure):
    """The beginning of llama_model_quantize_params."""

    _fields_ = [
        ("threads", c.c_int32), ("mixture", c.c_int32), ("output", c.c_int32), ("token_embd", c.c_int32),
        ("requantize", c.c_bool), ("rest", c.c_byte * 251),
    ]


def library(folder):
    for name in ["ggml-base", "ggml-cpu", "ggml", "llama"]:
        lib = c.CDLL(folder / f"lib{name}.so", mode=c.RTLD_GLOBAL)
    lib.llama_model_quantize_default_params.restype = Params
    lib.llama_model_quantize.argtypes = [c.c_char_p, c.c_char_p, c.POINTER(Params)]
    lib.llama_backend_init()
    return lib


def quantise(lib, source, mixture, out):
    params = lib.llama_model_quantize_default_params()
    params.mixture, params.requantize = mixture, True
    assert lib.llama_model_quantize(str(source).encode(), str(out).encode(), c.byref(params)) == 0


def summary(path):
    types, sums = collections.Counter(), hashlib.sha256()
    for t in sorted(GGUFReader(path).tensors, key=lambda t: t.name):
        types[t.tensor_type.name] += 1
        sums.update(f"{t.name} {t.tensor_type.name}\n".encode())
        sums.update(t.data.tobytes())
    return {"types": dict(sorted(types.items())), "sha256": sums.hexdigest()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path, help="folder with llama.cpp's libraries and tools")
    parser.add_argument("--assets", required=True, type=pathlib.Path, help="folder that .ci/fetch-assets filled")
    args = parser.parse_args()
    lib = library(args.bin)
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.gguf"
        for name in ["llama_cpp/f32.gguf", "smollm2.gguf"]:
            files[name] = {}
            for mixture, number in MIXTURES.items():
                quantise(lib, args.assets / name, number, out)
                files[name][mixture] = summary(out)
    (HERE / "files.json").write_text(json.dumps(files, indent=1) + "\n")
    model = HERE.parent / "transformers/llava/lm.gguf"
    command = [args.bin / "llama-imatrix", "-m", model, "-f", HERE / "text.txt", "-o", HERE / "imatrix.gguf"]
    subprocess.run([*command, "-c", "32", "-b", "32", "-t", "1", "--chunks", "4"], check=True)


main()
