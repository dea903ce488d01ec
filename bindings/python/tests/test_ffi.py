"""The declarations against include/llava.h and against the library."""

from __future__ import annotations

import ctypes
import enum
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

import llava
from llava import _ffi, errors, model, progress
from llava.answer import _REASONS
from llava.image import _FORMATS

HEADER = (ROOT / "include" / "llava.h").read_text(encoding="utf-8")


def header_functions() -> dict[str, int]:
    """Each function of the header and its number of parameters."""
    code = re.sub(r"/\*.*?\*/|^#.*?$", "", HEADER, flags=re.S | re.M)
    found = {}
    for declaration in re.findall(r"LLAVA_API\s[^;]+;", code):
        match = re.search(r"\b(llava_\w+)\(([^;]*)\);", declaration)
        assert match, declaration
        parameters = match.group(2).strip()
        found[match.group(1)] = 0 if parameters == "void" else parameters.count(",") + 1
    return found


def header_enum(name: str) -> dict[str, int]:
    match = re.search(rf"enum {name}\n.*?\n \{{(.*?)\n\}};", HEADER, flags=re.S)
    assert match, name
    return {key: int(value) for key, value in re.findall(r"(LLAVA_\w+) = (-?\d+),", match.group(1))}


def test_every_function_of_the_header_is_declared() -> None:
    ours = {name: len(parameters) for name, parameters in _ffi.FALLIBLE.items()}
    ours.update({name: len(parameters) - 1 for name, parameters in _ffi.INFALLIBLE.items()})
    assert ours == header_functions()


def test_every_status_of_the_header_has_an_exception() -> None:
    statuses = {value: key for key, value in header_enum("llava_status").items() if value}
    classes = {c.status: c for c in errors.Error.__subclasses__()}
    assert set(statuses) == set(classes)
    for number in statuses:
        assert _ffi.lib.llava_status_name(number).decode() == statuses[number]
        error = errors.failure(number, "why")
        assert type(error) is classes[number] and error.status == number and str(error) == "why"
        # llava.Error and what a program would catch besides.
        assert getattr(llava, type(error).__name__) is type(error)
    unknown = errors.failure(-999, "new")
    assert type(unknown) is llava.Error and unknown.status == -999


def test_numbers_are_those_of_the_header() -> None:
    def values(name: str) -> set[int]:
        return set(header_enum(name).values())

    assert values("llava_pixel_format") == set(_FORMATS.values())
    assert values("llava_kv_type") == set(model._KV_TYPES.values())
    assert values("llava_finish_reason") == {0, *_REASONS}
    assert values("llava_stage") == {stage.value for stage in progress.Stage}
    assert issubclass(llava.FinishReason, enum.Enum)
    version = re.findall(r"#define LLAVA_ABI_VERSION (\d+)", HEADER)
    assert version == [str(_ffi.ABI_VERSION)]
    assert llava.__version__ == ".".join(re.findall(r"#define LLAVA_VERSION_\w+ (\d+)", HEADER))


def test_defaults_are_those_of_the_library() -> None:
    defaults = _ffi.GenerationOptions()
    _ffi.lib.llava_generation_options_init(ctypes.byref(defaults), ctypes.sizeof(defaults))
    ours = llava.Generation().to_c()
    for name, kind, *_ in defaults._fields_:
        if not issubclass(kind, ctypes._Pointer):
            assert getattr(ours, name) == getattr(defaults, name), name
    options = _ffi.ModelOptions()
    _ffi.lib.llava_model_options_init(ctypes.byref(options), ctypes.sizeof(options))
    assert options.struct_size == ctypes.sizeof(options)


def test_another_layout_is_refused() -> None:
    layout = _ffi._layout(_ffi.lib)
    _ffi.check_layout("lib", layout)
    for key in layout:
        changed = dict(layout)
        offset, size = changed[key]
        changed[key] = (offset + 8, size) if key[1] else (offset, size - 4)
        with pytest.raises(ImportError, match=key[0]):
            _ffi.check_layout("lib", changed)
    # Structs that say their size may grow.
    grown = dict(layout)
    grown["llava_answer", ""] = (0, layout["llava_answer", ""][1] + 64)
    _ffi.check_layout("lib", grown)


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, timeout=120
    )


def test_a_missing_or_foreign_library_is_an_import_error_that_says_what_to_do() -> None:
    missing = run("import llava", LLAVA_LIBRARY="/nowhere/libllava.so")
    assert missing.returncode == 1
    assert "ImportError" in missing.stderr and "LLAVA_LIBRARY" in missing.stderr and "cargo" in missing.stderr
    foreign = run("import llava", LLAVA_LIBRARY="libc.so.6")
    assert "ImportError: libc.so.6 is not the shared library of llava" in foreign.stderr
