"""The code in the documentation runs."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import PAIR, ROOT, WIDE

import llava


@pytest.mark.parametrize("name", ["docs/python.md", "README.md", "bindings/python/README.md"])
def test_snippets_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = pytest.importorskip("numpy")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "llava-v1.5-7b").symlink_to(PAIR)
    shutil.copy(WIDE, "cat.jpg")
    names: dict[str, Any] = {
        "questions": ["Is it asleep?", "Is it indoors?"],
        "paths": ["cat.jpg", "cat.jpg"],
        "values": numpy.zeros((3, 64), numpy.float32),
    }
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), flags=re.S)
    assert snippets

    async def run() -> None:
        for snippet in snippets:
            if "model" in names:  # Those of before are closed.
                names["session"] = names["model"].session(max_tokens=8)
            result = eval(compile(snippet, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
            if inspect.iscoroutine(result):
                await result

    asyncio.run(run())


def test_the_packages_own_snippet_is_the_readmes() -> None:
    readme = (ROOT / "bindings" / "python" / "README.md").read_text(encoding="utf-8")
    for line in (llava.__doc__ or "").splitlines():
        if line.startswith("    ") and line.strip():
            assert line.strip() in readme, line
