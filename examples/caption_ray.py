"""caption_folder.py by Ray Data: the same lines, with one engine in each worker.

pip install ray[data]
python caption_ray.py MODEL FOLDER OUTPUT --workers 2

A worker that dies is replaced, and its images are captioned by another. The output is written once, at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
import ray.data
from caption_folder import caption, images

import llava


class Captioner:
    """An engine in a process of its own, with its share of the CPUs."""

    def __init__(self, model: str, threads: int, prompt: str, max_tokens: int):
        self.model = llava.load(model, threads=threads)
        self.prompt, self.max_tokens = prompt, max_tokens

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        paths = [Path(path) for path in batch["path"]]
        lines = [caption(self.model, path, self.prompt, self.max_tokens) for path in paths]
        return {"path": batch["path"], "line": [json.dumps(line, ensure_ascii=False) for line in lines]}


def lines(
    model: str,
    folder: Path,
    workers: int = 2,
    prompt: str = llava.DESCRIBE,
    max_tokens: int = 200,
    captioner: type[Captioner] = Captioner,
    batch_size: int = 4,
) -> list[str]:
    """The lines of all images, in the order of their names."""
    paths = [{"path": str(folder / name)} for name in images(folder)]
    if not paths:
        return []
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    dataset = ray.data.from_items(paths, override_num_blocks=-(-len(paths) // batch_size)).map_batches(
        captioner,
        fn_constructor_args=(model, threads, prompt, max_tokens),
        compute=ray.data.ActorPoolStrategy(size=workers),
        # What a worker takes of those that ray.init() was told of.
        num_cpus=1,
        batch_size=batch_size,
    )
    done: dict[str, str] = {row["path"]: row["line"] for row in dataset.iter_rows()}
    return [done[path["path"]] for path in paths]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a GGUF file, or a folder with a language model and its mmproj")
    parser.add_argument("folder", type=Path, help="the folder of images")
    parser.add_argument("output", type=Path, help="the file to write")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--prompt", default=llava.DESCRIBE)
    parser.add_argument("--max-tokens", type=int, default=200)
    options = parser.parse_args()
    # Workers import what this process can.
    ray.init(
        num_cpus=options.workers + 1,
        include_dashboard=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}},
    )
    # Workers run in another folder.
    model, folder = os.path.abspath(options.model), options.folder.absolute()
    text = lines(model, folder, options.workers, options.prompt, options.max_tokens)
    part = options.output.with_name(options.output.name + ".part")
    part.write_text("".join(line + "\n" for line in text), encoding="utf-8", errors="backslashreplace")
    part.replace(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
