"""Seeded random weights with enough spread that every term of a forward pass shows in its output.

The initialisation of the libraries (std 0.02) leaves attention uniform and activations linear: a wrong
permutation or activation function would hide below the tolerance.
"""

import zlib

import numpy as np
import torch


def _draw(name, shape):
    # Seeded by the parameter's name: the same part has the same weights in every model that contains it.
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if "position_embedding" in name:
        return 0.5 * noise
    if len(shape) > 1:
        gain = 1.5 if any(part in name for part in ("q_proj", "k_proj", "qkv_proj")) else 1.0
        return gain * noise / np.sqrt(np.prod(shape[1:]))
    if name.endswith("bias"):
        return 0.2 * noise
    if name.endswith(("class_embedding", "image_newline")):
        return 0.5 * noise
    return 1.0 + 0.2 * noise  # the scale of a normalisation


def randomize(module, half=lambda name, shape: False):
    """Fills `module` in place and returns it in float64, in evaluation mode.

    Values are those of float32; where `half(name, shape)` holds, those of float16, so that what is stored
    is exactly what the reference runs with.
    """
    module.double().eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            shape = tuple(parameter.shape)
            value = _draw(name, shape).astype(np.float16 if half(name, shape) else np.float32)
            parameter.copy_(torch.from_numpy(value.astype(np.float64)))
    return module


def matrices(name, shape):
    """The float16 choice of every published file: all weights but vectors."""
    return len(shape) > 1


def convolution(name, shape):
    """Only the patch embedding, which converters keep in float16 even in a float32 file."""
    return len(shape) == 4
