"""Each example, run as a person would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import PAIR, ROOT, TALL, WIDE

import llava

EXAMPLES = ROOT / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(llava.__file__).parent.parent), "PYTHONUNBUFFERED": "1"}


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty-four images, one of them broken, and what is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(23):
        shutil.copy(TALL if i % 2 else WIDE, folder / f"{i:02} größer.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    return folder


@pytest.fixture
def expected(folder: Path, model: llava.Model) -> list[dict[str, str]]:
    texts = {path: model.describe(path, max_tokens=40).text for path in (WIDE, TALL)}
    lines = [{"image": f"{i:02} größer.png", "text": texts[TALL if i % 2 else WIDE]} for i in range(23)]
    with pytest.raises(llava.InvalidImage) as broken:
        llava.Image.open(folder / "broken.jpg")
    return [*lines, {"image": "broken.jpg", "error": str(broken.value)}]


def read(output: Path) -> list[Any]:
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def test_describe(model: llava.Model) -> None:
    out = run("describe.py", PAIR, WIDE, TALL)
    assert out.returncode == 0, out.stderr
    assert out.stdout == "".join(f"{path}: {model.describe(path)}\n" for path in (WIDE, TALL))
    assert run("describe.py", PAIR).returncode == 2
    missing = run("describe.py", PAIR, "nowhere.png")
    assert missing.returncode == 1 and missing.stderr.startswith("error: nowhere.png")


def test_caption_folder_and_again(folder: Path, expected: list[dict[str, str]], tmp_path: Path) -> None:
    output = tmp_path / "captions.jsonl"
    first = run("caption_folder.py", PAIR, folder, output, "--max-tokens", "40")
    assert first.returncode == 0, first.stderr
    assert read(output) == expected
    assert "24/24" in first.stderr and "0 s left" in first.stderr and "1 images could not be read" in first.stderr
    again = run("caption_folder.py", PAIR, folder, output, "--max-tokens", "40")
    assert "24 of 24 done already" in again.stderr and read(output) == expected
    # Cut anywhere, it ends the same.
    data = output.read_bytes()
    for cut in (0, 1, len(data) // 3, len(data) // 2, len(data) - 1):
        output.write_bytes(data[:cut])
        assert run("caption_folder.py", PAIR, folder, output, "--max-tokens", "40").returncode == 0
        assert output.read_bytes() == data, cut
    output.write_text("something else\n")
    foreign = run("caption_folder.py", PAIR, folder, output)
    assert foreign.returncode == 1 and "no output of this program" in foreign.stderr
    assert output.read_text() == "something else\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_caption_folder_interrupted_loses_and_doubles_nothing(
    folder: Path, expected: list[dict[str, str]], tmp_path: Path, number: signal.Signals
) -> None:
    # So many that a slow machine interrupts in time too.
    for i in range(200):
        shutil.copy(WIDE, folder / f"more {i:03}.png")
        expected.append({"image": f"more {i:03}.png", "text": expected[0]["text"]})
    output = tmp_path / "captions.jsonl"
    arguments = ("caption_folder.py", PAIR, folder, output, "--max-tokens", "40")
    interrupted = 0
    for _ in range(12):
        child = start(*arguments)
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("1/"):  # One image is done, and the next has begun.
                child.send_signal(number)
                break
        rest = child.stderr.read()
        interrupted += child.wait() in (-signal.SIGKILL, 130)
        assert number is signal.SIGKILL or "Traceback" not in rest
    assert interrupted >= 3
    assert run(*arguments).returncode == 0
    assert read(output) == expected


def test_notebook() -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("numpy")
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "committed without outputs"
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT, LLAVA_MODEL=str(PAIR), IMAGE=str(WIDE))
    try:
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert all(cell.outputs for cell in cells)
    results = [output["data"]["text/plain"] for cell in cells for output in cell.outputs if "data" in output]
    assert any(result.startswith("((16, 64),") for result in results), results


# Ray's job with a worker that kills itself once, in the middle of a batch.
RAY = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import ray
from caption_ray import Captioner, lines

class Dying(Captioner):
    def __call__(self, batch):
        result = super().__call__(batch)
        marks = Path(os.environ["MARKS"])
        with open(marks / str(os.getpid()), "a") as file:
            file.write("x")
        # The first to get here creates the mark and dies with a finished, unreported batch.
        if len((marks / str(os.getpid())).read_text()) == 2:
            try:
                os.close(os.open(marks / "killed", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return result
            os.kill(os.getpid(), 9)
        return result

ray.init(num_cpus=3, include_dashboard=False, runtime_env={"env_vars": {
    "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "MARKS": sys.argv[5]}})
text = lines(sys.argv[2], Path(sys.argv[3]), workers=2, max_tokens=40, captioner=Dying, batch_size=2)
Path(sys.argv[4]).write_text("".join(line + "\\n" for line in text), encoding="utf-8")
"""


def test_ray_gives_the_same_lines_though_a_worker_is_killed(
    folder: Path, expected: list[dict[str, str]], tmp_path: Path
) -> None:
    pytest.importorskip("ray.data")
    sequential, output, marks = tmp_path / "sequential.jsonl", tmp_path / "ray.jsonl", tmp_path / "marks"
    marks.mkdir()
    assert run("caption_folder.py", PAIR, folder, sequential, "--max-tokens", "40").returncode == 0
    begun = time.monotonic()
    out = subprocess.run(
        [sys.executable, "-c", RAY, EXAMPLES, PAIR, folder, output, marks],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    print(out.stderr[-2000:], f"{time.monotonic() - begun:.0f} s")
    assert out.returncode == 0, out.stderr[-4000:]
    workers = sorted(path.name for path in marks.iterdir())
    assert "killed" in workers and len(workers) >= 4, f"two workers, one killed and replaced: {workers}"
    assert read(output) == expected
    assert output.read_bytes() == sequential.read_bytes()


def test_ray_example_from_the_command_line(folder: Path, expected: list[dict[str, str]], tmp_path: Path) -> None:
    pytest.importorskip("ray.data")
    output = tmp_path / "ray.jsonl"
    out = run("caption_ray.py", PAIR, folder, output, "--max-tokens", "40", "--workers", "2")
    assert out.returncode == 0, out.stderr[-4000:]
    assert read(output) == expected
