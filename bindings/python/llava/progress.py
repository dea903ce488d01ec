"""How far something is."""

from __future__ import annotations

import enum
from typing import Callable, NamedTuple


class Stage(enum.Enum):
    """What takes long."""

    LOAD = 1
    """Opening a model. A step is one of its parts."""
    ENCODE = 2
    """The vision tower. A step is one layer on one image."""
    PREFILL = 3
    """A prompt through the language model. A step is one layer on up to 512 positions."""
    DOWNLOAD = 4
    """Files from the Hugging Face Hub. A step is one byte."""


class Progress(NamedTuple):
    """`done` of `total` steps of a stage."""

    stage: Stage
    done: int
    total: int


ProgressFunction = Callable[[Progress], object]
"""Hears of progress; False cancels, everything else goes on, and what it raises comes out of the method that was called.
It is called from a thread of the package's, and can call nothing of the library but `cancel`."""
