"""Whole models: a picture and a prompt in, the logits of the next token out."""

import numpy as np
import torch
import transformers
from PIL import Image

import anyres
from lm import VOCAB, write_lm
from manifest import ROOT, save
from mmproj import write_mmproj
from weights import matrices, randomize

TILE = 56
PLACEHOLDER = -200  # where the picture goes; the original's IMAGE_TOKEN_INDEX
IMAGE_TOKEN = VOCAB - 1  # what transformers wants in that place
IDS = [1, 70, 104, 266, 37, PLACEHOLDER, 259, 13, 200, 91, 18, 263, 150]
# (width, height), the shape of LLaVA-1.6's list
PINPOINTS = [(56, 112), (112, 56), (112, 112), (168, 56), (56, 168)]
# "small" fits one tile, so that all of PINPOINTS keep the whole of it and the first two waste equally.
SIZES = {"wide": (100, 37), "tall": (60, 200), "large": (130, 90), "small": (40, 40)}


def picture(name):
    """Ramps with a few hard edges; written to images/NAME.png."""
    width, height = SIZES[name]
    y, x = np.mgrid[0:height, 0:width]
    ramps = [x * 255 // width, y * 255 // height, 255 - (x + y) * 255 // (width + height)]
    pixels = np.stack(ramps, axis=-1).astype(np.uint8)
    pixels[height // 4 : height // 2, width // 3 : width // 2] = (250, 20, 60)
    pixels[height // 2 :: 9, ::4] = (10, 240, 130)
    image = Image.fromarray(pixels)
    path = f"images/{name}.png"
    (ROOT / path).parent.mkdir(exist_ok=True)
    image.save(ROOT / path, optimize=True)
    return path, image


def configuration(kind, tied, layers, **options):
    vision = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=TILE,
        patch_size=14,
        projection_dim=32,
    )
    text = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
        pad_token_id=0,
    )
    return kind(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_TOKEN,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=tied,
        **options,
    )


def projector(model):
    part = model.model.multi_modal_projector
    return {
        "mm.0.weight": part.linear_1.weight,
        "mm.0.bias": part.linear_1.bias,
        "mm.2.weight": part.linear_2.weight,
        "mm.2.bias": part.linear_2.bias,
    }


def sample(model, name, folder, pixel_values, **sizes):
    """Runs the model on one picture; `pixel_values` are those of transformers' own image processor."""
    path, _ = picture(name)
    with torch.no_grad():
        tokens = model.get_image_features(pixel_values=pixel_values, **sizes)[0]
        place = IDS.index(PLACEHOLDER)
        ids = IDS[:place] + [IMAGE_TOKEN] * len(tokens) + IDS[place + 1 :]
        logits = model(input_ids=torch.tensor([ids]), pixel_values=pixel_values, **sizes).logits[0, -1]
    return tokens.numpy(), {
        "image": path,
        "ids": IDS,
        "tokens": save(f"{folder}/{name}-tokens.npy", tokens),
        "logits": save(f"{folder}/{name}-logits.npy", logits),
    }


def assert_same(found, expected, what):
    """transformers prepares pixels in float32; anything coarser would be a difference of geometry."""
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 1e-6, f"{what}: transformers and the original differ by {error:.1e}"


def padded(model, name, folder):
    """LLaVA-1.5: the original's padding, then CLIP's processor."""
    _, image = picture(name)
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE})
    values = processor(anyres.expand_to_square(image), return_tensors="pt").pixel_values.double()
    assert_same(values.numpy(), anyres.padded(image, TILE), f"{folder} {name}: pixels")
    return sample(model, name, folder, values)[1]


def tiled(model, name, folder):
    """LLaVA-1.6: transformers' processor, with its (height, width) list holding the original's pairs transposed."""
    _, image = picture(name)
    processor = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": TILE},
        crop_size={"height": TILE, "width": TILE},
        image_grid_pinpoints=model.config.image_grid_pinpoints,
    )
    inputs = processor(image, return_tensors="pt")
    values = inputs.pixel_values.double()
    assert_same(values[0].numpy(), anyres.tiles(image, PINPOINTS, TILE), f"{folder} {name}: pixels")
    tokens, entry = sample(model, name, folder, values, image_sizes=inputs.image_sizes)

    with torch.no_grad():
        states = model.model.vision_tower(values[0], output_hidden_states=True).hidden_states[-2][:, 1:]
        flat = model.model.multi_modal_projector(states).numpy()
    newline = model.model.image_newline.detach().numpy()
    assert_same(tokens, anyres.pack(flat, image.size, PINPOINTS, TILE, newline), f"{folder} {name}: tokens")
    return entry


def next_keys(writer):
    writer.add_array("clip.vision.image_grid_pinpoints", [side for pair in PINPOINTS for side in pair])
    writer.add_string("clip.vision.image_aspect_ratio", "anyres")
    writer.add_string("clip.vision.mm_patch_merge_type", "spatial_unpad")


def cases():
    """All share their tower and projector weights, and the two untied models their decoder's file."""
    model = transformers.LlavaForConditionalGeneration(configuration(transformers.LlavaConfig, tied=False, layers=3))
    randomize(model, matrices)
    write_lm(ROOT / "llava" / "lm.gguf", "llama", model.model.language_model, model.lm_head)
    tower = model.model.vision_tower
    write_mmproj(ROOT / "llava" / "mmproj.gguf", tower, projector(model), legacy=True)
    yield {
        "name": "llava",
        "kind": "llava",
        "proves": "LLaVA-1.5 from picture to logits, with an output matrix of its own",
        "lm": "llava/lm.gguf",
        "mmproj": "llava/mmproj.gguf",
        "samples": [padded(model, name, "llava") for name in ("wide", "tall")],
    }

    model = transformers.LlavaForConditionalGeneration(configuration(transformers.LlavaConfig, tied=True, layers=2))
    randomize(model, matrices)
    write_lm(ROOT / "llava-tied" / "lm.gguf", "llama", model.model.language_model, None)
    yield {
        "name": "llava-tied",
        "kind": "llava",
        "proves": "the same, the embedding serving as output matrix",
        "lm": "llava-tied/lm.gguf",
        "mmproj": "llava/mmproj.gguf",
        "samples": [padded(model, "wide", "llava-tied")],
    }

    transposed = [[height, width] for width, height in PINPOINTS]
    options = configuration(transformers.LlavaNextConfig, tied=False, layers=3, image_grid_pinpoints=transposed)
    model = transformers.LlavaNextForConditionalGeneration(options)
    randomize(model, matrices)
    tower = model.model.vision_tower
    tensors = {**projector(model), "model.image_newline": model.model.image_newline}
    write_mmproj(ROOT / "llava-next" / "mmproj.gguf", tower, tensors, legacy=True, keys=next_keys)
    yield {
        "name": "llava-next",
        "kind": "llava",
        "proves": "LLaVA-1.6: choice of resolution (a tie for `small`), tiles, unpadding, newlines",
        "lm": "llava/lm.gguf",
        "mmproj": "llava-next/mmproj.gguf",
        "samples": [tiled(model, name, "llava-next") for name in SIZES],
    }
