"""Captions all images of a folder, one JSON object a line: {"image": NAME, "text": TEXT}, or {"image": NAME, "error": WHY}.

Started again with the same output, it goes on where it was: however it ended, no image is lost or there twice. Images that
failed are recorded and not tried again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import llava

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}


def images(folder: Path) -> list[str]:
    """The names of the images, in order."""
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def caption(model: llava.Model, path: Path, prompt: str, max_tokens: int) -> dict[str, str]:
    """The line of one image."""
    try:
        return {"image": path.name, "text": model.describe(path, prompt, max_tokens=max_tokens).text}
    except (llava.InvalidImage, llava.IoError, llava.InvalidArgument) as error:
        return {"image": path.name, "error": str(error)}


def resume(output: Path) -> set[str]:
    """The images that `output` has already. A last line that was cut short, by a kill or a full disk, is cut off."""
    if not output.exists():
        return set()
    data = output.read_bytes()
    whole = data.rfind(b"\n") + 1
    try:
        done = {json.loads(line)["image"] for line in data[:whole].splitlines()}
    except (ValueError, KeyError, TypeError):
        raise SystemExit(f"{output} exists and is no output of this program") from None
    os.truncate(output, whole)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a GGUF file, or a folder with a language model and its mmproj")
    parser.add_argument("folder", type=Path, help="the folder of images")
    parser.add_argument("output", type=Path, help="the file to append to")
    parser.add_argument("--prompt", default=llava.DESCRIBE)
    parser.add_argument("--max-tokens", type=int, default=200)
    options = parser.parse_args()
    done = resume(options.output)
    names = images(options.folder)
    todo = [name for name in names if name not in done]
    print(f"{len(names) - len(todo)} of {len(names)} done already", file=sys.stderr)
    if not todo:
        return 0
    failed = 0
    # A name that is no UTF-8 is escaped.
    output = options.output.open("a", encoding="utf-8", errors="backslashreplace")
    with llava.load(options.model) as model, output as file:
        begun = time.monotonic()
        for n, name in enumerate(todo, 1):
            line = caption(model, options.folder / name, options.prompt, options.max_tokens)
            # A whole line at once, and on the disk before the next image.
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            rate = n / (time.monotonic() - begun)
            left = (len(todo) - n) / rate
            print(f"{n}/{len(todo)}  {rate:.2f} images/s  {left:.0f} s left  {name}", file=sys.stderr)
            if "error" in line:
                failed += 1
                print(f"  {line['error']}", file=sys.stderr)
    if failed:
        print(f"{failed} images could not be read; their lines say why", file=sys.stderr)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except llava.Error as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted; what is done is kept", file=sys.stderr)
        sys.exit(130)
