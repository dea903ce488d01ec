"""Writes what llama.cpp makes of many strings, for tests/tokenizer_llama_cpp.rs. For the packages see llama_vocab.py.

    python tests/oracle/tokenizer.py --strings STRINGS.inp --spm LLAMA.gguf --smollm SMOLLM.gguf [--qwen QWEN.gguf] --out DIR

STRINGS.inp holds llama.cpp's own test strings (models/ggml-vocab-*.gguf.inp), the others any GGUF with that vocabulary.
DIR gets, for each vocabulary and pre-tokenizer, a GGUF without tensors and the ids as JSON. Only the pre-tokenizer
differs between the files of one vocabulary, so a difference in ids is one in the splitting of words.
"""

import argparse
import json
import pathlib
import random

from llama_vocab import Vocab, copy_vocab

PRES = ["smollm", "llama-bpe", "qwen2", "tekken", "gpt-2", "default"]
SPECIAL = [
    "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|fim_prefix|>", "<repo_name>", "<0x0A>",
    "<|eot_id|>", "<file_sep>", "<|file_sep|>", "<tool_call>", "</tool_call>", "<image>", "<gh_stars>", "<reponame>",
]
WORDS = (
    "the The THE describe image a cat's dogs' we'll WE'LL I'm I'M 'tis don't DON'T they've 'S 's 'd 'Re hello_world "
    "fooBar XMLHttp e.g. naïve Ünïcode straße İstanbul ſ K 1st 2nd 3.14 1,000,000 x86_64 ٣٤٥ Ⅷ ½ ² 中文 日本語 ひらがな "
    "한국어 ไทย हिन्दी עברית العربية Ελλάδα кириллица 🙂 👩‍👩‍👧‍👦 🇩🇪 é e\u0301 \u0301 ------ ====== ...... !!! ??? /// -> <- => && || "
    "```` \"\"\" '''' $x += `ls` ^_^ ~/ #1 @me %d {} [] () <a> \\n http://a.b/c?d=e#f \u200b \ufeff \u00ad ▁ ▁▁ Ġ"
).split(" ")
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\n  \n", "\u00a0", "\u3000", "\u2028", "\x85", "\x0b", "\x0c"]
PLANES = [
    (0x00, 0x80), (0x80, 0x250), (0x250, 0x600), (0x600, 0x1000), (0x1000, 0x3000), (0x3000, 0xA000), (0xA000, 0xD800),
    (0xE000, 0x10000), (0x10000, 0x20000), (0x20000, 0x30000), (0x30000, 0x40000), (0xE0000, 0xF0000),
    (0xF0000, 0x110000),
]


def piece(rng):
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(WORDS)
    if kind < 0.55:
        return rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 7])
    if kind < 0.65:
        return rng.choice(SPECIAL)
    if kind < 0.72:
        return "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 9)))
    if kind < 0.82:
        return "".join(rng.choice("abcXYZ'éÉß \n/.1") for _ in range(rng.randint(1, 12)))
    low, high = rng.choice(PLANES)
    return "".join(chr(rng.randrange(low, high)) for _ in range(rng.randint(1, 4)))


def strings(path, count):
    known = pathlib.Path(path).read_bytes().decode().split("\n__ggml_vocab_test__\n")
    rng = random.Random(15)
    made = ["".join(piece(rng) for _ in range(rng.randint(1, 12))) for _ in range(count)]
    return [""] + known + SPECIAL + [a + b for a in SPECIAL for b in ("x", " x", "\n")] + made


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("strings", "spm", "smollm", "qwen", "out"):
        parser.add_argument(f"--{name}", required=name != "qwen")
    parser.add_argument("--count", type=int, default=5000)
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    texts = strings(args.strings, args.count)
    (out / "strings.json").write_text(json.dumps(texts))
    jobs = [("llama-spm", args.spm, {})]
    jobs += [(f"smollm2-{pre}", args.smollm, {"pre": pre}) for pre in PRES]
    jobs += [("smollm2-missing", args.smollm, {"pre": None})]
    if args.qwen:
        jobs += [(f"qwen-{pre}", args.qwen, {"pre": pre}) for pre in ("qwen2", "llama-bpe", "tekken")]
    for name, source, changes in jobs:
        target = out / f"{name}.gguf"
        copy_vocab(source, str(target), **changes)
        vocab = Vocab(target)
        answer = vocab.facts()
        answer["plain"] = [vocab.tokenize(t, False) for t in texts]
        answer["parse"] = [vocab.tokenize(t, True) for t in texts]
        answer["pieces"] = [vocab.piece(t).hex() for t in range(len(vocab))]
        (out / f"{name}.json").write_text(json.dumps(answer))
        vocab.close()
        print(f"{name}: {len(texts)} strings, {sum(map(len, answer['plain']))} tokens")


main()
