from __future__ import annotations

import array
import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import WIDE

import llava


def test_values_are_seen_where_they_are_and_live_as_long_as_the_view(model: llava.Model) -> None:
    embedding = model.encode(WIDE)
    assert embedding.shape == (embedding.tokens, embedding.width) == (16, 64)
    view = embedding.memoryview()
    assert view.shape == (16, 64) and view.format == "f" and view.readonly
    values = view.tobytes()
    rows: Any = view.tolist()
    assert embedding.tolist() == rows
    embedding.close()
    with pytest.raises(llava.InvalidHandle):
        embedding.memoryview()
    # Others take the memory if it is free.
    others = [model.encode(WIDE) for _ in range(50)]
    assert view.tobytes() == values
    del others
    view = model.encode(WIDE).memoryview()
    gc.collect()
    assert view.tobytes() == values


def test_saved_loaded_and_made_by_hand(model: llava.Model, tmp_path: Path) -> None:
    embedding = model.encode(WIDE)
    embedding.save(tmp_path / "e.npy")
    expected = embedding.memoryview().tobytes()
    flat = array.array("f", expected)
    by_hand = [
        llava.Embedding.load(str(tmp_path / "e.npy")),
        llava.Embedding.from_array(embedding.memoryview()),
        llava.Embedding.from_array(embedding.tolist()),
        llava.Embedding.from_array(memoryview(flat).cast("B").cast("f", (16, 64))),
    ]
    for made in by_hand:
        assert made.shape == (16, 64) and made.memoryview().tobytes() == expected
    wrongs: list[Any] = [[], [[]], [1.0, 2.0], [[1.0], [1.0, 2.0]], "text", None, flat, [["a"]]]
    for wrong in wrongs:
        with pytest.raises(llava.InvalidArgument):
            llava.Embedding.from_array(wrong)
    with pytest.raises(OSError):
        llava.Embedding.load(tmp_path / "nowhere.npy")
    with pytest.raises(OSError):
        embedding.save(tmp_path / "no folder" / "e.npy")
    with pytest.raises(llava.InvalidArgument, match="wide"):
        model.session().attach(llava.Embedding.from_array([[1.0, 2.0]]))


def test_numpy_takes_them_without_a_copy(model: llava.Model, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    embedding = model.encode(WIDE)
    values = embedding.numpy()
    assert values.shape == (16, 64) and values.dtype == numpy.float32 and not values.flags.writeable
    assert numpy.shares_memory(values, embedding.numpy()), "the same memory"
    assert values.__array_interface__["data"][0] == embedding._address
    copy = values.copy()
    embedding.close()
    del embedding
    gc.collect()
    others = [model.encode(WIDE) for _ in range(50)]
    assert (values == copy).all() and len(others) == 50

    again = model.encode(WIDE)
    again.save(tmp_path / "e.npy")
    assert (numpy.load(tmp_path / "e.npy") == copy).all()
    assert (numpy.asarray(again) == copy).all() and numpy.array(again, dtype=numpy.float64).dtype == numpy.float64
    for source in (copy, copy.astype(numpy.float64), numpy.asfortranarray(copy), copy[::-1][::-1]):
        assert (llava.Embedding.from_array(source).numpy() == copy).all()
    logits = numpy.asarray(model.logits([1, again], 2))
    assert logits.shape == (2, 280) and numpy.isfinite(logits).all()


def test_nothing_is_imported_that_is_not_needed() -> None:
    code = "import sys, llava; print([m for m in ('numpy', 'PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
