"""Finds the shared library."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

VARIABLE = "LLAVA_LIBRARY"
"""Environment variable with the path of the shared library to take instead of any other."""

# While the version is 0.x, every minor version has a binary interface of its own.
NAME = "libllava.so.0.1"


def open_library() -> tuple[ctypes.CDLL, str]:
    """The library and where it is: the one that the environment names, else the package's own, else the system's."""
    named = os.environ.get(VARIABLE)
    packaged = Path(__file__).with_name(NAME)
    path = named or (str(packaged) if packaged.exists() else NAME)
    try:
        return ctypes.CDLL(path), path
    except OSError as error:
        tried = f"{VARIABLE} names it" if named else f"{packaged} does not exist" if path == NAME else "the package's own"
        raise ImportError(
            f"llava's shared library cannot be loaded ({tried}): {error}. A wheel of llava brings it along; otherwise build "
            f"it with `cargo build --release -p llava-capi` and set {VARIABLE} to the path of libllava.so"
        ) from error
