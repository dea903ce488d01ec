"""The small random pair of tests/golden: gibberish, but always the same."""

from __future__ import annotations

from pathlib import Path

import pytest

import llava

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden" / "transformers"
PAIR = GOLDEN / "llava"
WIDE = GOLDEN / "images" / "wide.png"
TALL = GOLDEN / "images" / "tall.png"


@pytest.fixture(scope="session")
def model() -> llava.Model:
    return llava.load(PAIR, threads=2)
