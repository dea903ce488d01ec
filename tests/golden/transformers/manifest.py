"""The list of cases, and how their arrays are written."""

import json
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent
# Relative error, the norm of the difference over the norm of the reference, that a float32 engine has to keep below.
TOLERANCE = {"features": 1e-5, "tokens": 1e-5, "logits": 1e-4}


def save(path, array):
    """Writes float32 values to `path`, relative to this folder, and returns the path."""
    target = ROOT / path
    target.parent.mkdir(parents=True, exist_ok=True)
    np.save(target, np.ascontiguousarray(array, dtype=np.float32))
    return path


def write_manifest(versions, cases):
    text = json.dumps({"versions": versions, "tolerance": TOLERANCE, "cases": cases}, indent=1)
    (ROOT / "manifest.json").write_text(text + "\n")


def read_manifest():
    return json.loads((ROOT / "manifest.json").read_text())
