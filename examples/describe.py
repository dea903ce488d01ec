"""Describes images, as the text comes.

python describe.py MODEL IMAGE...    MODEL is a GGUF file, or a folder with a language model and its mmproj
"""

import sys

import llava


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    with llava.load(sys.argv[1]) as model:
        for path in sys.argv[2:]:
            print(f"{path}: ", end="", flush=True)
            model.describe(path, on_text=lambda piece: print(piece, end="", flush=True))
            print()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except llava.Error as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
