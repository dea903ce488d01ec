"""Vision towers and projectors, from pixel values to image tokens."""

import numpy as np
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

import mobilevlm
from manifest import ROOT, save
from mmproj import numbered, write_mmproj
from weights import convolution, matrices, randomize

IMAGE = 56
PATCH = 14
WIDTH = 64  # of the image tokens
PIXELS = "inputs/pixels-56.npy"


def pixels():
    """Normalised pixel values [1, 3, 56, 56] as float64; written to `PIXELS`."""
    values = np.random.default_rng(56).standard_normal((1, 3, IMAGE, IMAGE)).astype(np.float32)
    save(PIXELS, values)
    return torch.from_numpy(values).double()


def clip(half, hidden=32, layers=4, heads=4, image=IMAGE, eps=1e-5):
    config = CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=image,
        patch_size=PATCH,
        layer_norm_eps=eps,
        hidden_act="quick_gelu",
    )
    return randomize(CLIPVisionModel(config), half)


def siglip(half):
    config = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE,
        patch_size=PATCH,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-6,
        vision_use_head=False,
    )
    return randomize(SiglipVisionModel(config), half)


def features(tower, values, layers):
    """Hidden states of `layers`, concatenated, without the class token: [1, patches, hidden * len(layers)]."""
    with torch.no_grad():
        states = tower(values, output_hidden_states=True).hidden_states
    skip = 1 if tower.config.model_type == "clip_vision_model" else 0
    return torch.cat([states[layer][:, skip:] for layer in layers], dim=-1)


def mlp2x(inputs, half):
    return randomize(nn.Sequential(nn.Linear(inputs, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)), half)


def case(name, proves, tower, projector, tensors, values, layers=(-2,), tiled=1, shared=None, **options):
    """Writes one mmproj file with its expected features and tokens; returns its entry for the manifest.

    `shared` names the case whose features these are too.
    """
    write_mmproj(ROOT / name / "mmproj.gguf", tower, tensors, **options)
    found = features(tower, values.tile(1, 1, tiled, tiled), layers)
    with torch.no_grad():
        tokens = projector(found)
    return {
        "name": name,
        "kind": "vision",
        "proves": proves,
        "mmproj": f"{name}/mmproj.gguf",
        "pixels": PIXELS,
        "pixels_tiled": tiled,
        "features": save(f"{shared or name}/features.npy", found[0]),
        "tokens": save(f"{name}/tokens.npy", tokens[0]),
    }


def towers(values):
    mlp = mlp2x(32, matrices)
    yield case(
        "clip-legacy",
        "the first converter's file: no projector_type, ffn names swapped, the last block cut off, so all blocks run",
        clip(matrices),
        mlp,
        numbered(mlp),
        values,
        legacy=True,
        projector_type=None,
    )
    single = mlp2x(32, convolution)
    yield case(
        "clip-feature-layer",
        "feature_layer [3] of a whole tower: the fourth block and the post-layernorm are stored and must not run",
        clip(convolution),
        single,
        numbered(single),
        values,
        layers=(3,),
        blocks=4,
        post_norm=True,
        keys=lambda writer: writer.add_array("clip.vision.feature_layer", [3]),
    )
    double = mlp2x(64, matrices)
    yield case(
        "clip-feature-layers",
        "feature_layer [1, 3]: hidden states concatenated along the channels; epsilon 1e-3, which shows",
        clip(matrices, eps=1e-3),
        double,
        numbered(double),
        values,
        layers=(1, 3),
        keys=lambda writer: writer.add_array("clip.vision.feature_layer", [1, 3]),
    )
    yield case(
        "siglip",
        "no class token, a patch bias, tanh GELU, epsilon 1e-6",
        siglip(matrices),
        mlp,
        numbered(mlp),
        values,
    )


def projectors(values):
    small = clip(matrices, hidden=16, layers=2, heads=2)
    linear = randomize(nn.Sequential(nn.Linear(16, WIDTH)), matrices)
    yield case("linear", "a single linear projector", small, linear, numbered(linear), values, legacy=True)
    yi = randomize(
        nn.Sequential(
            nn.Linear(16, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        ),
        matrices,
    )
    yield case("yi-vl", "Linear, LayerNorm, GELU, Linear, LayerNorm", small, yi, numbered(yi), values, legacy=True)

    # These two are defined for the 24 x 24 grid of a 336-pixel tower: 6 x 6 copies of the small picture.
    large = clip(matrices, hidden=16, layers=2, heads=2, image=6 * IMAGE)
    for name, projector, proves in (
        ("ldp", mobilevlm.Ldp(16, 32), "MobileVLM's depthwise blocks with squeeze and excitation"),
        ("ldpv2", mobilevlm.LdpV2(16, 32), "MobileVLM V2's pooling and positional convolution"),
    ):
        # llama.cpp runs these only with float16 convolutions, as all published files have them.
        randomize(projector, matrices)
        tensors = mobilevlm.tensors(projector)
        options = dict(tiled=6, shared="ldp", legacy=True, projector_type=name)
        yield case(name, proves, large, projector, tensors, values, **options)


def cases():
    values = pixels()
    yield from towers(values)
    yield from projectors(values)
