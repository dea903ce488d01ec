"""Writes byte_level.json, sentencepiece.json and equal_scores.json: small made-up vocabularies, and llama.cpp's ids for strings.

    python make.py        (packages: see tests/oracle/llama_vocab.py)
"""

import json
import pathlib
import random
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "oracle"))

import gguf  # noqa: E402
from llama_vocab import Vocab  # noqa: E402

PRES = ["llama-bpe", "qwen2", "smollm", "tekken", "gpt-2", "default"]
TEXT = (
    "the cat sat on the mat and the dog's ball isn't there, we'll see what they've done in the year 2024: "
    "123 456 7890 apples... WHAT IS SHOWN? The image shows a red bus on the street. HelloWorld fooBar élan été "
    "\n\n\n    indented   text \t\t tabs \r\n lines --- === >>> ((())) naïve über 中文中文 🙂🙂 "
)
STRINGS = [
    "", " ", "  ", "\n", "\n\n", " \n \n", "\t\ttabs", "the cat", " the cat ", "The dog's WE'LL they've isn'T", "1", "12",
    "123", "1234", "12345678", "a1b22c333", "HelloWorld fooBar XMLHttp éAA", "été\u0301 e\u0301", "中文 image 中", "🙂🙂x🙂",
    "---===>>>", "a... b!!", "\u00a0x\u3000y", "\x00\x01", "x\r\n\r\ny", "<s>x</s> y", "<|end|>\n the <|end|> cat", "[u] [u]x",
    " [u]the", "</s></s>", "<unk>", "<0x41>", "▁the▁cat", "\U0010ffff\ue000", "''''s", "$1,000.00", "//a/b\n/", "٣٤ Ⅷ½",
    "    indented   text  ", "<|endoftext|> the", "<|end", "<s><s>", "the<s>the", "QQQQQQQQ zzzz",
]


def strings():
    rng = random.Random(7)
    parts = TEXT.split(" ") + STRINGS + [" ", "  ", "\n", "'s", "9", "É"]
    return STRINGS + [rng.choice(["", " "]).join(rng.choices(parts, k=rng.randint(1, 8))) for _ in range(100)]


def byte_letters():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def byte_level():
    """Byte-pair encoding of TEXT as a whole, so that merges cross what pre-tokenizers keep apart."""
    letters = byte_letters()
    # Two bytes are left out, as real vocabularies leave out some.
    tokens = [letters[b] for b in range(256) if b not in (0xF5, ord("Q"))]
    symbols = [letters[b] for b in TEXT.encode()]
    # Numbers and words like fooBar are too rare in TEXT to be merged by themselves.
    merges = ["1 2", "12 3", "123 4", "o B", "o W"]
    tokens += ["12", "123", "1234", "oB", "oW"]
    while len(merges) < 90:
        pairs = {}
        for pair in zip(symbols, symbols[1:]):
            pairs[pair] = pairs.get(pair, 0) + 1
        left, right = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(f"{left} {right}")
        tokens.append(left + right)
        joined, i = [], 0
        while i < len(symbols):
            if symbols[i:i + 2] == [left, right]:
                joined.append(left + right)
                i += 2
            else:
                joined.append(symbols[i])
                i += 1
        symbols = joined
    tokens.append(letters[ord("t")] + letters[ord("z")] + letters[ord("z")])  # no merge leads here: ignore_merges
    types = [1] * len(tokens)
    for text, kind in (("<s>", 3), ("</s>", 3), ("<|end|>", 3), ("<|endoftext|>", 1), ("[u]", 4), ("[u]x", 4)):
        tokens.append(text)
        types.append(kind)
    return {"model": "gpt2", "tokens": tokens, "types": types, "merges": merges, "scores": None}


def sentencepiece(equal_scores):
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    types = [2, 3, 3] + [6] * 256
    words = TEXT.replace(" ", "▁")
    pieces = {c for c in words if ord(c) < 0x3000} | {words[i:i + n] for n in (2, 3, 4, 5) for i in range(0, len(words) - n, 3)}
    pieces = sorted((p for p in pieces if "\n" not in p), key=lambda p: (-len(p) % 3, p))[:250] + ["▁"]
    pieces = list(dict.fromkeys(pieces))
    tokens += pieces
    types += [1] * len(pieces)
    for text, kind in (("<|end|>", 3), ("<|endoftext|>", 3), ("[u]", 4), ("[u]x", 4)):
        tokens.append(text)
        types.append(kind)
    scores = [0.0 if equal_scores else -float(i % 97) for i in range(len(tokens))]
    return {"model": "llama", "tokens": tokens, "types": types, "merges": None, "scores": scores}


def write(path, vocab, name, pre):
    writer = gguf.GGUFWriter(path, "llama")
    for add in ("context_length", "embedding_length", "block_count", "feed_forward_length", "head_count"):
        getattr(writer, f"add_{add}")(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_name(name)
    writer.add_tokenizer_model(vocab["model"])
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocab["tokens"])
    writer.add_token_types(vocab["types"])
    if vocab["scores"]:
        writer.add_token_scores(vocab["scores"])
    if vocab["merges"]:
        writer.add_token_merges(vocab["merges"])
    writer.add_bos_token_id(vocab["tokens"].index("<s>"))
    writer.add_eos_token_id(vocab["tokens"].index("</s>"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def golden(target, vocab, variants):
    texts = strings()
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        for name, pre in variants:
            path = f"{folder}/v.gguf"
            write(path, vocab, name, pre)
            v = Vocab(path)
            facts = v.facts()
            answers.append({
                "name": name, "pre": pre, **facts,
                "plain": [v.tokenize(t, False) for t in texts], "parse": [v.tokenize(t, True) for t in texts],
            })
            v.close()
    with open(HERE / target, "w") as out:
        for key, value in {**vocab, "strings": texts}.items():
            out.write(("{" if key == "model" else ",") + f'"{key}":{json.dumps(value, separators=(",", ":"))}\n')
        out.write(',"answers":[' + "\n,".join(json.dumps(a, separators=(",", ":")) for a in answers) + "]}\n")


golden("byte_level.json", byte_level(), [("made up", pre) for pre in PRES])
golden("sentencepiece.json", sentencepiece(False), [("made up", None), ("phi-3 made up", None)])
golden("equal_scores.json", sentencepiece(True), [("made up", None)])
