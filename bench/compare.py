#!/usr/bin/env python3
"""How fast llava is beside other engines on the same files, as a table in Markdown.

All engines run one after the other in every round, in turning order, so that what else the machine does in the meantime
strikes each of them. A round gives each a figure for each kind of work; the table has the medians of these, and the
ratios to llava's figure of the same round: their median, least and most. Above 1, llava is faster.

    encode   the vision tower and the projector on one synthetic picture of the tower's size, in milliseconds
    prefill  a prompt in an empty cache, in tokens a second
    decode   tokens one by one after an empty or almost empty cache, in tokens a second

Peers are programs that are there already; none is fetched or built:

    --ik DIR             a build of ik_llama.cpp: DIR/bin/llama-bench and, for encode, DIR/bin/llama-mtmd-cli; its
                         run-time repacking is measured as a peer of its own
    --llama-bench PATH   llama.cpp's llama-bench, and, for encode, the llama-mtmd-cli beside it
    --llama-python PATH  a Python that has llama_cpp; no encode
    --peer NAME=COMMAND  anything else: a command that prints a JSON object as its last line, with one or more of the
                         keys encode (milliseconds), prefill and decode (tokens a second). {work}, {model}, {mmproj},
                         {threads}, {prefill} and {decode} are filled in; {work} is one of the three kinds

Examples:

    bench/compare.py --model lm.gguf --mmproj mmproj.gguf --ik ik_llama.cpp/build
    bench/compare.py --model lm.gguf --work decode --rounds 9 --llama-bench llama.cpp/build/bin/llama-bench
    bench/compare.py --model lm.gguf --peer 'other=python3 other.py --only {work} -t {threads} -p {prefill}'

Run it on a machine that does nothing else. Python 3.9 or later, nothing besides.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import struct
import subprocess
import sys
import tempfile
import zlib

WORKS = ("encode", "prefill", "decode")

# Runs in the Python that has llama_cpp.
LLAMA_PYTHON = """
import json, sys, time
from llama_cpp import Llama
model, threads, n, work = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
llm = Llama(model, n_ctx=n + 64, n_batch=max(n, 32), n_ubatch=max(n, 32), n_threads=threads, n_threads_batch=threads,
            verbose=False)
ids = [7 + i * 7919 % 250 for i in range(n)]
def run():
    llm.reset()
    start = time.perf_counter()
    if work == "prefill":
        llm.eval(ids)
    else:
        for i in ids:
            llm.eval([i])
    return n / (time.perf_counter() - start)
llm.eval(ids[:8])
print(json.dumps({work: run()}))
"""


class Failed(Exception):
    """An engine did not give the figure it was asked for."""


def output(command):
    """What a command prints, both streams together; the last line is standard output's."""
    try:
        end = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise Failed(str(error)) from error
    if end.returncode:
        tail = (end.stderr or end.stdout).strip()[-500:]
        raise Failed(f"{shlex.join(command)} ended with status {end.returncode}:\n{tail}")
    return end.stderr + end.stdout


def last_json(text):
    """The JSON object in the last line of a text."""
    try:
        return json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise Failed(f"no JSON in the last line of {text[-200:]!r}") from error


class Llava:
    """This repository's command."""

    name, works = "llava", WORKS

    def __init__(self, args):
        self.args, self.machines = args, []

    def measure(self, work):
        a = self.args
        command = [a.llava, "bench", "--json", "--reps", "1", "--only", work, "--model", a.model]
        command += ["--threads", str(a.threads), "--prefill", str(a.prefill), "--decode", str(a.decode)]
        # llama-bench generates from an empty cache.
        command += ["--after", "1"] + (["--mmproj", a.mmproj] if a.mmproj else [])
        report = last_json(output(command))
        self.machines.append(report["machine"])
        try:
            return report["encode"]["ms"] if work == "encode" else report[work][0]["tokens_per_s"]
        except (LookupError, TypeError) as error:
            raise Failed(f"nothing was measured: does it fit into the context, is there an mmproj? {report}") from error


class LlamaCpp:
    """llama.cpp or ik_llama.cpp, by their programs."""

    def __init__(self, name, bench, args, image, extra=()):
        self.name, self.bench, self.args, self.image, self.extra = name, bench, args, image, list(extra)
        self.mtmd = os.path.join(os.path.dirname(bench), "llama-mtmd-cli")
        # Run-time repacking concerns the language model alone.
        self.works = WORKS if os.path.exists(self.mtmd) and not extra else WORKS[1:]

    def measure(self, work):
        a = self.args
        if work == "encode":
            command = [self.mtmd, "-m", a.model, "--mmproj", a.mmproj, "--image", self.image, "-p", "hi", "-n", "1"]
            text = output(command + ["--chat-template", "vicuna", "-t", str(a.threads)])
            slices = re.findall(r"(?:slice encoded|image encoded|batch encoding done) in (\d+) ms", text)
            if not slices:
                raise Failed(f"no time of an image in what {self.mtmd} prints")
            return sum(map(int, slices))
        prompt, answer = (a.prefill, 0) if work == "prefill" else (0, a.decode)
        batch = str(max(a.prefill, 32))
        command = [self.bench, "-m", a.model, "-t", str(a.threads), "-p", str(prompt), "-n", str(answer)]
        text = output(command + ["-r", "1", "-b", batch, "-ub", batch, "-o", "json"] + self.extra)
        try:
            return json.loads(text[text.index("[\n"):])[0]["avg_ts"]
        except (ValueError, LookupError) as error:
            raise Failed(f"no figure in what {self.bench} prints") from error


class LlamaPython:
    """llama.cpp by its Python package."""

    name, works = "llama-cpp-python", WORKS[1:]

    def __init__(self, args):
        self.args = args

    def measure(self, work):
        a = self.args
        n = a.prefill if work == "prefill" else a.decode
        return last_json(output([a.llama_python, "-c", LLAMA_PYTHON, a.model, str(a.threads), str(n), work]))[work]


class Peer:
    """Any command that prints JSON."""

    works = WORKS

    def __init__(self, text, args):
        self.name, _, self.command = text.partition("=")
        if not self.name or not self.command:
            sys.exit(f"--peer {text}: expected NAME=COMMAND")
        self.args = args

    def measure(self, work):
        a = vars(self.args)
        values = {key: str(a[key] or "") for key in ("model", "mmproj", "threads", "prefill", "decode")}
        values["work"] = work
        fill = re.compile("{(" + "|".join(values) + ")}")
        words = [fill.sub(lambda m: values[m[1]], word) for word in shlex.split(self.command)]
        try:
            return float(last_json(output(words))[work])
        except (LookupError, TypeError, ValueError) as error:
            raise Failed(f"no {work} in its JSON") from error


def png(path, side):
    """Writes a picture of `side` by `side` pixels, neither flat nor regular."""
    row = lambda y: b"\0" + bytes((3 * side * y + i) * 2654435761 >> 24 & 255 for i in range(3 * side))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    with open(path, "wb") as file:
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        pixels = zlib.compress(b"".join(map(row, range(side))))
        file.write(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def measure(engines, works, rounds):
    """{(work, engine's name): figure of each round, or None where it failed once}"""
    figures = {(work, e.name): [] for e in engines for work in works if work in e.works}
    for turn in range(rounds):
        first = turn % len(engines)
        for work in works:
            for engine in engines[first:] + engines[:first]:
                values = figures.get((work, engine.name))
                if values is None:
                    continue
                print(f"round {turn + 1} of {rounds}: {work}, {engine.name}", file=sys.stderr)
                try:
                    values.append(engine.measure(work))
                except Failed as reason:
                    print(f"{engine.name}, {work}: left out: {reason}", file=sys.stderr)
                    figures[work, engine.name] = None
    return figures


def table(figures, engines, works, args):
    """Markdown."""
    labels = {
        "encode": "encode an image, ms",
        "prefill": f"prefill {args.prefill}, tokens/s",
        "decode": f"decode {args.decode}, tokens/s",
    }
    lines = ["| work | llava | peer | its figure | ratio | min–max |", "|---|---|---|---|---|---|"]
    number = lambda v: f"{v:.0f}" if v >= 100 else f"{v:.3g}"
    for work in works:
        ours = figures.get((work, "llava"))
        for engine in engines[1:]:
            theirs = figures.get((work, engine.name))
            if not ours or not theirs:
                continue
            ratios = [t / o if work == "encode" else o / t for o, t in zip(ours, theirs)]
            own, its = number(statistics.median(ours)), number(statistics.median(theirs))
            spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
            lines.append(f"| {labels[work]} | {own} | {engine.name} | {its} | {statistics.median(ratios):.2f} | {spread} |")
    return "\n".join(lines)


def limits(machines):
    """A sentence about the machine, with how much it wavered."""
    parts = []
    for key, name in [("read_gb_s", "GB/s read"), ("int8_gop_s", "Gop/s int8"), ("bf16_gf_s", "Gop/s bf16"),
                      ("f32_gf_s", "Gop/s f32")]:
        values = [m[key] for m in machines if m.get(key)]
        if values:
            parts.append(f"{statistics.median(values):.3g} {name} ({min(values):.3g}–{max(values):.3g})")
    return "The machine's limits, median of all runs (min–max): " + ", ".join(parts) + "."


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="language model, GGUF")
    parser.add_argument("--mmproj", help="tower and projector, GGUF; without it nothing is encoded")
    parser.add_argument("--llava", default="llava", help="the command (default: the one in PATH)")
    parser.add_argument("--ik", metavar="DIR")
    parser.add_argument("--llama-bench", metavar="PATH")
    parser.add_argument("--llama-python", metavar="PATH")
    parser.add_argument("--peer", metavar="NAME=COMMAND", action="append", default=[])
    parser.add_argument("--work", action="append", choices=WORKS, help="may be repeated (default: all)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
                        else os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prefill", type=int, default=600, help="tokens of the prompt")
    parser.add_argument("--decode", type=int, default=64, help="tokens to generate")
    args = parser.parse_args()
    if min(args.threads, args.rounds, args.prefill, args.decode) < 1:
        parser.error("--threads, --rounds, --prefill and --decode are 1 or more")
    return args


def main():
    args = arguments()
    works = [work for work in args.work or WORKS if work != "encode" or args.mmproj]
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "picture.png")
        if "encode" in works:
            try:
                report = last_json(output([args.llava, "inspect", "--json", args.mmproj]))
                png(image, report["model"]["vision"]["image_size"])
            except (Failed, LookupError) as reason:
                sys.exit(f"{args.mmproj}: {reason}")
        ours = Llava(args)
        engines = [ours]
        if args.ik:
            bench = os.path.join(args.ik, "bin", "llama-bench")
            engines += [LlamaCpp("ik_llama.cpp", bench, args, image),
                        LlamaCpp("ik_llama.cpp -rtr 1", bench, args, image, ["-rtr", "1"])]
        if args.llama_bench:
            engines.append(LlamaCpp("llama.cpp", args.llama_bench, args, image))
        if args.llama_python:
            engines.append(LlamaPython(args))
        engines += [Peer(text, args) for text in args.peer]
        if len(engines) == 1:
            sys.exit("no peers: give --ik, --llama-bench, --llama-python or --peer")
        figures = measure(engines, works, args.rounds)
    count = lambda n, thing: f"{n} {thing}{'' if n == 1 else 's'}"
    files = " and ".join(os.path.basename(f) for f in (args.model, args.mmproj) if f)
    print(f"{files}, {count(args.threads, 'thread')}, {count(args.rounds, 'round')}; a ratio above 1 means that llava is faster.\n")
    print(table(figures, engines, works, args))
    if ours.machines:
        print("\n" + limits(ours.machines))


if __name__ == "__main__":
    main()
