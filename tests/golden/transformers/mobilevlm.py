"""The two projectors of MobileVLM, which transformers lacks.

Written after mobilevlm/model/vision_projector.py (github.com/Meituan-AutoML/MobileVLM) and the blocks it takes from
torchvision (InvertedResidual, SqueezeExcitation) and timm (LayerNormAct2d); module names are chosen so that the
parameter names are those of the checkpoint.
"""

import math

from torch import nn


def to_grid(tokens):
    """[n, side * side, channels] to [n, channels, side, side]."""
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], side, side)


def to_tokens(grid):
    """[n, channels, height, width] to [n, height * width, channels]."""
    return grid.flatten(2).transpose(1, 2)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a grid."""

    def forward(self, grid):
        return super().forward(grid.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from the mean of all channels."""

    def __init__(self, channels, squeezed):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, grid):
        gate = self.fc2(self.fc1(grid.mean((2, 3), keepdim=True)).relu())
        return nn.functional.hardsigmoid(gate) * grid


class InvertedResidual(nn.Module):
    """MobileNetV3's block without expansion: depthwise 3x3, gate, pointwise; a residual where the size is kept."""

    def __init__(self, channels, stride):
        super().__init__()
        self.stride = stride
        # torchvision: a quarter of the channels, rounded to a multiple of 8.
        squeezed = max(8, (channels // 4 + 4) // 8 * 8)
        depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.block = nn.Sequential(
            nn.Sequential(depthwise, ChannelNorm(channels), nn.Hardswish()),
            SqueezeExcitation(channels, squeezed),
            nn.Sequential(pointwise, ChannelNorm(channels)),
        )

    def forward(self, grid):
        out = self.block(grid)
        return out + grid if self.stride == 1 else out


class Ldp(nn.Module):
    """MobileVLM: an MLP, then two inverted residual blocks, the second of which halves the grid."""

    def __init__(self, features, width):
        super().__init__()
        self.mlp = nn.Sequential(nn.Identity(), nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))
        self.mb_block = nn.Sequential(nn.Identity(), InvertedResidual(width, 1), InvertedResidual(width, 2))

    def forward(self, tokens):
        return to_tokens(self.mb_block(to_grid(self.mlp(tokens))))


class LdpV2(nn.Module):
    """MobileVLM V2: an MLP, average pooling to 12 x 12, then a depthwise 3x3 added to its input."""

    def __init__(self, features, width):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))
        self.pool = nn.AdaptiveAvgPool2d((12, 12))
        self.peg = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, groups=width))

    def forward(self, tokens):
        grid = self.pool(to_grid(self.mlp(tokens)))
        return to_tokens(self.peg(grid) + grid)


def tensors(projector):
    """GGUF names and tensors; convolutions lose their dimensions of size one, as in published files."""
    return {f"mm.model.{name}": parameter.squeeze() for name, parameter in projector.named_parameters()}
