"""Recomputes every expectation in float64 from the GGUF files alone, without torch or transformers.

What it proves is that the files say what the reference computed: names, shapes, row orders, keys. Exits with an
error if any case misses its tolerance.
"""

import math
import sys

import gguf
import numpy as np
from PIL import Image

import anyres
from manifest import ROOT, TOLERANCE, read_manifest

PLACEHOLDER = -200
erf = np.vectorize(math.erf)


class Model:
    """A GGUF file: `keys` by name, tensors as float64 by name, first dimension the slowest."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.keys = {name: field.contents() for name, field in reader.fields.items()}
        self.tensors = {
            tensor.name: np.asarray(tensor.data, dtype=np.float64).reshape(tensor.shape.tolist()[::-1])
            for tensor in reader.tensors
        }

    def linear(self, name, x):
        y = x @ self.tensors[f"{name}.weight"].T
        return y + self.tensors[f"{name}.bias"] if f"{name}.bias" in self.tensors else y

    def layer_norm(self, name, x, eps):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def rms_norm(self, name, x, eps):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * self.tensors[f"{name}.weight"]


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def quick_gelu(x):
    return x / (1 + np.exp(-1.702 * x))


def attend(q, k, v, mask=0.0):
    """[n, heads, dim] each; key and value heads are shared by consecutive query heads."""
    groups = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, groups, axis=1), np.repeat(v, groups, axis=1)
    scores = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.shape[-1]) + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", weights, v).reshape(len(q), -1)


def tower(model, pixels):
    """[3, side, side] to [patches, features]"""
    keys, tensors = model.keys, model.tensors

    def vision(name):
        return keys[f"clip.vision.{name}"]

    patch, heads, eps = vision("patch_size"), vision("attention.head_count"), vision("attention.layer_norm_epsilon")
    side = vision("image_size") // patch
    patches = pixels.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
    kernel = tensors["v.patch_embd.weight"]
    x = patches @ kernel.reshape(len(kernel), -1).T + tensors.get("v.patch_embd.bias", 0.0)
    skip = int("v.class_embd" in tensors)
    if skip:
        x = np.concatenate([tensors["v.class_embd"][None], x])
    x = x + tensors["v.position_embd.weight"]
    if "v.pre_ln.weight" in tensors:
        x = model.layer_norm("v.pre_ln", x, eps)

    activation = tanh_gelu if keys["clip.use_gelu"] else quick_gelu
    states = [x]
    for index in range(vision("block_count")):
        name = f"v.blk.{index}"
        y = model.layer_norm(f"{name}.ln1", x, eps)
        q, k, v = (model.linear(f"{name}.attn_{part}", y).reshape(len(y), heads, -1) for part in "qkv")
        x = x + model.linear(f"{name}.attn_out", attend(q, k, v))
        y = model.layer_norm(f"{name}.ln2", x, eps)
        # Legacy files call the first layer `down`; it is the one that takes the tower's width.
        first, second = f"{name}.ffn_up", f"{name}.ffn_down"
        if tensors[f"{second}.weight"].shape[1] == y.shape[1]:
            first, second = second, first
        x = x + model.linear(second, activation(model.linear(first, y)))
        states.append(x)
    layers = keys.get("clip.vision.feature_layer", [len(states) - 1])
    layers = [layers] if isinstance(layers, int) else layers
    return np.concatenate([states[layer][skip:] for layer in layers], axis=-1)


def depthwise(grid, kernel, stride):
    """3x3 with one row of zeros around: [height, width, channels] and [channels, 3, 3]."""
    height, width, _ = grid.shape
    padded = np.pad(grid, ((1, 1), (1, 1), (0, 0)))
    return sum(
        padded[y : y + height : stride, x : x + width : stride] * kernel[:, y, x] for y in range(3) for x in range(3)
    )


def inverted_residual(model, name, grid, stride, eps):
    y = depthwise(grid, model.tensors[f"{name}.0.0.weight"], stride)
    y = model.layer_norm(f"{name}.0.1", y, eps)
    y = y * np.clip(y + 3, 0, 6) / 6
    gate = np.maximum(model.linear(f"{name}.1.fc1", y.mean((0, 1))), 0)
    y = y * np.clip(model.linear(f"{name}.1.fc2", gate) + 3, 0, 6) / 6
    y = model.layer_norm(f"{name}.2.1", model.linear(f"{name}.2.0", y), eps)
    return y + grid if stride == 1 else y


def projector(model, x):
    """[patches, features] to [tokens, width]"""
    eps = model.keys["clip.vision.attention.layer_norm_epsilon"]
    kind = model.keys.get("clip.projector_type", "mlp")
    if kind == "ldp":
        x = model.linear("mm.model.mlp.3", gelu(model.linear("mm.model.mlp.1", x))).reshape(24, 24, -1)
        x = inverted_residual(model, "mm.model.mb_block.1.block", x, 1, eps)
        x = inverted_residual(model, "mm.model.mb_block.2.block", x, 2, eps)
        return x.reshape(144, -1)
    if kind == "ldpv2":
        x = model.linear("mm.model.mlp.2", gelu(model.linear("mm.model.mlp.0", x)))
        x = x.reshape(12, 2, 12, 2, -1).mean((1, 3))
        x = x + depthwise(x, model.tensors["mm.model.peg.0.weight"], 1) + model.tensors["mm.model.peg.0.bias"]
        return x.reshape(144, -1)
    x = model.linear("mm.0", x)
    if "mm.3.weight" in model.tensors:
        x = model.linear("mm.3", gelu(model.layer_norm("mm.1", x, eps)))
        return model.layer_norm("mm.4", x, eps)
    return model.linear("mm.2", gelu(x)) if "mm.2.weight" in model.tensors else x


def rope_frequencies(model, arch, dimensions, factors):
    """Radians per position, [dimensions / 2], and what cosine and sine are multiplied by."""

    def get(name, default=None):
        return model.keys.get(f"{arch}.rope.{name}", default)

    pairs = np.arange(dimensions // 2)
    base = get("freq_base")
    frequencies = base ** (-2.0 * pairs / dimensions)
    if "rope_freqs.weight" in model.tensors:
        return frequencies / model.tensors["rope_freqs.weight"], 1.0
    if factors is not None:
        return frequencies / model.tensors[f"rope_factors_{factors}.weight"], get("scaling.attn_factor", 1.0)
    scaling, factor = get("scaling.type"), get("scaling.factor", 1.0)
    if scaling == "linear":
        return frequencies / factor, 1.0
    if scaling == "yarn":
        original = get("scaling.original_context_length")
        # The pairs that turn 32 times and once over the original context bound the blend.
        low, high = (
            dimensions * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (32, 1)
        )
        low, high = max(math.floor(low), 0), min(math.ceil(high), dimensions - 1)
        ramp = np.clip((pairs - low) / max(high - low, 0.001), 0, 1)
        return frequencies * (1 - ramp) + frequencies / factor * ramp, 0.1 * math.log(factor) + 1
    return frequencies, 1.0


def rotate(x, angles, scale, interleaved):
    """[n, heads, dim] by [n, dim / 2]"""
    cos, sin = scale * np.cos(angles)[:, None], scale * np.sin(angles)[:, None]
    half = x.shape[-1] // 2
    first, second = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(0, half), slice(half, None))
    out = np.empty_like(x)
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., first] * sin + x[..., second] * cos
    return out


def decoder(model, x, factors=None):
    """Logits at every position, [n, vocabulary], of embeddings [n, width]."""
    arch = model.keys["general.architecture"]

    def key(name, default=None):
        return model.keys.get(f"{arch}.{name}", default)

    heads, kv_heads = key("attention.head_count"), key("attention.head_count_kv")
    eps = key("attention.layer_norm_rms_epsilon")
    dim = key("attention.key_length", key("embedding_length") // heads)
    frequencies, scale = rope_frequencies(model, arch, key("rope.dimension_count"), factors)
    angles = np.arange(len(x))[:, None] * frequencies
    mask = np.triu(np.full((len(x), len(x)), -np.inf), 1)
    for index in range(key("block_count")):
        name = f"blk.{index}"
        y = model.rms_norm(f"{name}.attn_norm", x, eps)
        if f"{name}.attn_qkv.weight" in model.tensors:
            q, k, v = np.split(model.linear(f"{name}.attn_qkv", y), [heads * dim, (heads + kv_heads) * dim], axis=-1)
        else:
            q, k, v = (model.linear(f"{name}.attn_{part}", y) for part in "qkv")
        q, k, v = q.reshape(-1, heads, dim), k.reshape(-1, kv_heads, dim), v.reshape(-1, kv_heads, dim)
        q, k = (rotate(part, angles, scale, arch == "llama") for part in (q, k))
        x = x + model.linear(f"{name}.attn_output", attend(q, k, v, mask))
        y = model.rms_norm(f"{name}.ffn_norm", x, eps)
        if f"{name}.ffn_gate.weight" in model.tensors:
            gate, up = model.linear(f"{name}.ffn_gate", y), model.linear(f"{name}.ffn_up", y)
        else:
            gate, up = np.split(model.linear(f"{name}.ffn_up", y), 2, axis=-1)
        x = x + model.linear(f"{name}.ffn_down", gate / (1 + np.exp(-gate)) * up)
    output = "output" if "output.weight" in model.tensors else "token_embd"
    return model.linear(output, model.rms_norm("output_norm", x, eps))


def image_tokens(model, picture):
    tile = model.keys["clip.vision.image_size"]

    def encode(pixels):
        return projector(model, tower(model, pixels))

    pinpoints = model.keys.get("clip.vision.image_grid_pinpoints")
    if pinpoints is None:
        return encode(anyres.padded(picture, tile)[0])
    candidates = list(zip(pinpoints[::2], pinpoints[1::2], strict=True))
    tokens = np.stack([encode(pixels) for pixels in anyres.tiles(picture, candidates, tile)])
    return anyres.pack(tokens, picture.size, candidates, tile, model.tensors["model.image_newline"])


def results(case):
    """Yields (what, kind of tolerance, computed, path of the expectation)."""
    lm = Model(ROOT / case["lm"]) if "lm" in case else None
    mmproj = Model(ROOT / case["mmproj"]) if "mmproj" in case else None
    if case["kind"] == "vision":
        tiled = case["pixels_tiled"]
        pixels = np.tile(np.load(ROOT / case["pixels"])[0].astype(np.float64), (1, tiled, tiled))
        features = tower(mmproj, pixels)
        yield "features", "features", features, case["features"]
        yield "tokens", "tokens", projector(mmproj, features), case["tokens"]
    if case["kind"] == "text":
        for run in case["runs"]:
            embedded = lm.tensors["token_embd.weight"][run["ids"]]
            logits = decoder(lm, embedded, run.get("rope_factors"))
            yield f"logits of {len(run['ids'])}", "logits", logits, run["logits"]
    if case["kind"] == "llava":
        for sample in case["samples"]:
            tokens = image_tokens(mmproj, Image.open(ROOT / sample["image"]).convert("RGB"))
            ids = np.array(sample["ids"])
            place = int(np.flatnonzero(ids == PLACEHOLDER)[0])
            embedding = lm.tensors["token_embd.weight"]
            x = np.concatenate([embedding[ids[:place]], tokens, embedding[ids[place + 1 :]]])
            yield f"tokens of {sample['image']}", "tokens", tokens, sample["tokens"]
            yield f"logits of {sample['image']}", "logits", decoder(lm, x)[-1], sample["logits"]


def main():
    failed = False
    for case in read_manifest()["cases"]:
        for what, kind, found, path in results(case):
            expected = np.load(ROOT / path)
            assert found.shape == expected.shape, f"{case['name']}: {what}: {found.shape} is not {expected.shape}"
            error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
            print(f"{error:.1e}  {case['name']}: {what} {list(expected.shape)}")
            failed |= not error < TOLERANCE[kind]
    sys.exit(failed)


if __name__ == "__main__":
    main()
