"""What llama.cpp computes: the oracle for text decoding and quantised matrix products.

  llama_cpp.py models --vocab VOCAB.gguf --out DIR         a random model for each quantization type
  llama_cpp.py logits --model F.gguf --ids ids.txt --out F.npy
  llama_cpp.py greedy --model F.gguf --prompts P.json --n 100 --out F.json
  llama_cpp.py replay --model F.gguf --greedy F.json --kv f32 --out R.json

`logits` writes float32 [ids, vocabulary]. `greedy` reads a JSON list of {"name", "text"} (special tokens in the
text are recognised) and writes JSON: {"model", "xllamacpp", "kv", "prompts": [{"name", "prompt", "prompt_ids",
"ids", "text", "top2"}]}, where ids end with the end-of-generation token or after n, and top2 has for every step
[best id, its logit, second id, its logit]. `replay` feeds the tokens of such a file, in one batch, and writes
{"prompts": [{"name", "steps"}]} with [best id, logit of the file's best, logit of the file's second] for every step.
All run two threads and llama.cpp's defaults (f16 cache); `--kv f32` runs a f32 cache with plain attention.
"""

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import libllama
import synthetic


def parse_ids(text):
    """Token ids from a list ("1 15043 3186", commas allowed) or from the file of that name"""
    if os.path.exists(text):
        with open(text, encoding="utf-8") as file:
            text = file.read()
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise SystemExit(f"--ids: neither a file nor a list of token ids: {text[:80]!r}")


def models(args):
    os.makedirs(args.out, exist_ok=True)
    write = lambda name: synthetic.write(os.path.join(args.out, name + ".gguf"), name, args.vocab)
    with ThreadPoolExecutor(2) as pool:  # the quantisers run outside the interpreter lock
        list(pool.map(write, synthetic.NAMES))


def logits(args):
    ids = parse_ids(args.ids)
    model = libllama.Model(args.model)
    wrong = [i for i in ids if not 0 <= i < model.n_vocab]
    if not ids or wrong:
        raise SystemExit(f"--ids: at least one id, each under {model.n_vocab} (found {wrong})")
    context = libllama.Context(model, len(ids), args.kv)
    np.save(args.out, context.decode(ids, every=True))
    context.close()
    model.close()


def continue_greedily(model, prompt, n, kv):
    """At most n most likely tokens after a prompt, and the two best logits of every step"""
    prompt_ids = model.tokenize(prompt)
    context = libllama.Context(model, len(prompt_ids) + n, kv)
    ids, top2, feed = [], [], prompt_ids
    while len(ids) < n and not (ids and model.is_end(ids[-1])):
        row = context.decode(feed)[0]
        best = int(row.argmax())
        rest = row.copy()
        rest[best] = -np.inf
        second = int(rest.argmax())
        ids.append(best)
        top2.append([best, round(float(row[best]), 6), second, round(float(row[second]), 6)])
        feed = [best]
    context.close()
    return {"prompt_ids": prompt_ids, "ids": ids, "text": model.detokenize(ids), "top2": top2}


def greedy(args):
    with open(args.prompts, encoding="utf-8") as file:
        prompts = json.load(file)
    model = libllama.Model(args.model)
    done = []
    for p in prompts:
        done.append({"name": p["name"], "prompt": p["text"], **continue_greedily(model, p["text"], args.n, args.kv)})
    model.close()
    about = {"model": os.path.basename(args.model), "xllamacpp": libllama.VERSION, "kv": args.kv, "prompts": done}
    with open(args.out, "w", encoding="utf-8") as file:
        json.dump(about, file, ensure_ascii=False)


def replay(args):
    with open(args.greedy, encoding="utf-8") as file:
        prompts = json.load(file)["prompts"]
    model = libllama.Model(args.model, args.repack)
    done = []
    for p in prompts:
        fed = p["prompt_ids"] + p["ids"][:-1]
        context = libllama.Context(model, len(fed), args.kv)
        rows = context.decode(fed, every=True)[len(p["prompt_ids"]) - 1 :]
        context.close()
        steps = [[int(row.argmax()), float(row[a]), float(row[b])] for row, (a, _, b, _) in zip(rows, p["top2"])]
        done.append({"name": p["name"], "steps": steps})
    model.close()
    with open(args.out, "w", encoding="utf-8") as file:
        json.dump({"prompts": done}, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("models", help="random models, one for each quantization type")
    command.add_argument("--vocab", required=True, help="GGUF file whose LLaMA SentencePiece vocabulary to take")
    command.add_argument("--out", required=True, help="folder to write into")
    command.set_defaults(run=models)
    command = commands.add_parser("logits", help="logits after every one of some token ids")
    command.add_argument("--ids", required=True, help="token ids, or a file of them")
    command.set_defaults(run=logits)
    runs = [command]
    command = commands.add_parser("greedy", help="greedy continuations of prompts")
    command.add_argument("--prompts", required=True, help='JSON list of {"name", "text"}')
    command.add_argument("--n", type=int, default=100, help="tokens at most, each prompt (default 100)")
    command.set_defaults(run=greedy)
    runs.append(command)
    command = commands.add_parser("replay", help="logits along the continuations that greedy wrote")
    command.add_argument("--greedy", required=True, help="file that greedy wrote")
    command.add_argument("--no-repack", dest="repack", action="store_false", help="without re-ordered weights")
    command.set_defaults(run=replay)
    for command in [*runs, command]:
        command.add_argument("--model", required=True, help="GGUF text model")
        command.add_argument("--out", required=True, help="file to write")
        command.add_argument("--kv", choices=["f16", "f32"], default="f16", help="type of the cache (default f16)")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
