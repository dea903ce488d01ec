"""A llama text model in float64, and how far llama.cpp is from it: the ground for every tolerance.

  reference.py F.gguf...    a line of README.md's table for each model

Two references for the same dequantised weights. "exact" multiplies exact activations. "ggml" first rounds the
input of every matrix product to what ggml multiplies weights of that type with: f16 and bf16 as such, the others as
int8 blocks. llama.cpp is near the second and away from the first by the rounding of activations.
"""

import argparse
import os

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

import libllama
from compare import difference, relative
from llama_cpp import parse_ids

Q8_0 = {Type.Q4_0, Type.Q5_0, Type.Q8_0, Type.IQ4_NL}
Q8_1 = {Type.Q4_1, Type.Q5_1}
Q8_K = {Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K}


def int8_blocks(x, size):
    """x [n, columns] as int8 blocks of `size` values: whole numbers [n, columns / size, size] and float32 scales
    [n, columns / size, 1]. Blocks of 32 are Q8_0 and Q8_1 (quantize_row_q8_0 in ggml-cpu's x86 code): scale
    amax / 127. Blocks of 256 are Q8_K (quantize_row_q8_K_ref): minus the value of largest magnitude / 127."""
    blocks = x.astype(np.float32).reshape(len(x), -1, size)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    extreme = -extreme if size == 256 else np.abs(extreme)
    top = np.float32(127)
    inverse = np.divide(top, extreme, out=np.zeros_like(extreme), where=extreme != 0)
    scale = np.divide(1, inverse, out=np.zeros_like(extreme), where=extreme != 0) if size == 256 else extreme / top
    return np.minimum(np.rint(blocks * inverse), top), scale


def ggml_product(x, tensor, weights):
    """x [n, columns] times a matrix [rows, columns], with x rounded as ggml does for this type of weights
    (vec_dot_type in ggml-cpu.c)"""
    kind = tensor.tensor_type
    if kind == Type.F32:
        return x @ weights.T
    if kind == Type.F16:
        return x.astype(np.float16).astype(np.float64) @ weights.T
    if kind == Type.BF16:
        rounded = gguf.quants.quantize(x.astype(np.float32), kind)
        return gguf.quants.dequantize(rounded, kind).astype(np.float64) @ weights.T
    if kind not in Q8_0 | Q8_1 | Q8_K:
        raise SystemExit(f"no rule for weights of type {kind.name}")
    whole, scale = int8_blocks(x, 256 if kind in Q8_K else 32)
    stored = scale if kind in Q8_K else scale.astype(np.float16)
    out = (whole.astype(np.float64) * stored).reshape(x.shape) @ weights.T
    if kind in Q8_1:
        # The minimum of a block of weights meets the sum of a block of x, which Q8_1 stores as f16 of its own.
        size = gguf.GGML_QUANT_SIZES[kind][1]
        minimum = tensor.data.reshape(len(weights), -1, size)[..., 2:4].copy().view(np.float16)[..., 0]
        total = whole.sum(-1, dtype=np.float32)
        lost = (total * scale[..., 0]).astype(np.float16).astype(np.float64) - total * stored[..., 0].astype(np.float64)
        out += lost @ minimum.astype(np.float64).T
    return out


class Llama:
    """A llama-architecture GGUF with every weight as float64"""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        key = lambda name, default=None: (
            reader.fields["llama." + name].contents() if "llama." + name in reader.fields else default
        )
        self.layers, self.heads = key("block_count"), key("attention.head_count")
        self.kv_heads = key("attention.head_count_kv", self.heads)
        self.head = key("embedding_length") // self.heads
        self.eps, self.base = key("attention.layer_norm_rms_epsilon"), key("rope.freq_base", 10000.0)
        self.tensors = {t.name: t for t in reader.tensors}
        self.weights = {
            t.name: gguf.quants.dequantize(t.data, t.tensor_type).reshape(t.shape[::-1]).astype(np.float64)
            for t in reader.tensors
        }

    def norm(self, x, name):
        """Root mean square norm of x [n, hidden]"""
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.weights[name + ".weight"]

    def product(self, x, name, ggml):
        """x [n, columns] times a matrix [rows, columns] -> [n, rows]"""
        tensor, weights = self.tensors[name + ".weight"], self.weights[name + ".weight"]
        return ggml_product(x, tensor, weights) if ggml else x @ weights.T

    def rope(self, x):
        """Rotates adjacent pairs of x [n, heads, head] by position * base^(-2i / head), i the pair"""
        angle = np.arange(len(x))[:, None] * self.base ** (-np.arange(0, self.head, 2) / self.head)  # [n, head / 2]
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)

    def attention(self, q, k, v):
        """Causal attention of q [n, heads, head] over k, v [n, kv_heads, head] -> [n, heads * head]"""
        group = self.heads // self.kv_heads
        k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
        score = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(self.head)
        score = np.where(np.tri(len(q), dtype=bool), score, -np.inf)
        score = np.exp(score - score.max(-1, keepdims=True))
        score /= score.sum(-1, keepdims=True)
        return np.einsum("hij,jhd->ihd", score, v).reshape(len(q), -1)

    def logits(self, ids, ggml=False):
        """float64 logits [n, vocabulary] after each of n token ids"""
        x = self.weights["token_embd.weight"][ids]  # [n, hidden]
        split = lambda y, heads: y.reshape(len(ids), heads, self.head)
        for i in range(self.layers):
            block = f"blk.{i}."
            h = self.norm(x, block + "attn_norm")
            q = self.rope(split(self.product(h, block + "attn_q", ggml), self.heads))
            k = self.rope(split(self.product(h, block + "attn_k", ggml), self.kv_heads))
            v = split(self.product(h, block + "attn_v", ggml), self.kv_heads)
            x = x + self.product(self.attention(q, k, v), block + "attn_output", ggml)
            h = self.norm(x, block + "ffn_norm")
            gate, up = self.product(h, block + "ffn_gate", ggml), self.product(h, block + "ffn_up", ggml)
            x = x + self.product(gate / (1 + np.exp(-gate)) * up, block + "ffn_down", ggml)
        head = "output" if "output.weight" in self.weights else "token_embd"
        return self.product(self.norm(x, "output_norm"), head, ggml)


def row(path, ids):
    """One line of the table: relative errors of llama.cpp on a model"""
    reference, model, plain_model = Llama(path), libllama.Model(path), libllama.Model(path, repack=False)
    exact, rounded = reference.logits(ids), reference.logits(ids, ggml=True)

    def run(model, kv, chunks):
        context = libllama.Context(model, len(ids), kv)
        out = np.concatenate([context.decode(chunk, every=True) for chunk in chunks])
        context.close()
        return out

    default, f32_cache = run(model, "f16", [ids]), run(model, "f32", [ids])
    one_by_one, unpacked = run(model, "f16", [[i] for i in ids]), run(plain_model, "f16", [ids])
    model.close()
    plain_model.close()
    a, b, c = difference(default, exact), difference(f32_cache, exact), difference(f32_cache, rounded)
    cells = [a["relative"], a["worst"], b["relative"], c["best"], c["median"], c["worst"]]
    cells += [relative(one_by_one, default), relative(unpacked, default)]
    name = os.path.basename(path).removesuffix(".gguf")
    print(f"| {name} |", " | ".join(f"{cell:.1e}" for cell in cells), f"| {a['top1']:.3f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="GGUF text models of the llama architecture")
    parser.add_argument("--ids", default=os.path.join(os.path.dirname(__file__), "ids.txt"), help="as llama_cpp.py's")
    args = parser.parse_args()
    print("| model | A | A, worst | B | C, best | C, median | C, worst | D | E | top-1 in A |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for path in args.models:
        row(path, parse_ids(args.ids))


if __name__ == "__main__":
    main()
