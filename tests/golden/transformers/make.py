"""Builds every case of this folder: small random models as GGUF files, and what transformers computes with them."""

from importlib.metadata import version

import torch

import llava
import text
import vision
from manifest import write_manifest


def main():
    torch.set_num_threads(1)
    versions = {package: version(package) for package in ("torch", "transformers", "gguf", "numpy", "pillow")}
    write_manifest(versions, [*vision.cases(), *text.cases(), *llava.cases()])


if __name__ == "__main__":
    main()
