#!/usr/bin/env python3
"""How fast llava is beside other engines on the same files, as a table in Markdown.

All engines run one after the other in every round, in turning order, so that what else the machine does in the meantime
strikes each of them. A round gives each a figure for each kind of work; the table has the medians of these, and the
ratios to llava's figure of the same round: their median, least and most. Above 1, llava is faster. Where the machine's
load says that something else was running, the table begins with a warning.

    encode   the vision tower and the projector on a picture, in milliseconds
    prefill  a prompt in an empty cache, in tokens a second
    decode   tokens one by one after an empty or almost empty cache, in tokens a second
    first    from the start of a new process, with the files in the system's cache, to the first word that it prints
             about a picture, in milliseconds; a tower that cuts the picture into tiles is beyond this

The picture of encode is synthetic and of the tower's size; so is that of first, unless --image names one.

Peers are programs that are there already; none is fetched or built:

    --ik DIR             a build of ik_llama.cpp: DIR/bin/llama-bench and, for encode and first, DIR/bin/llama-mtmd-cli;
                         its run-time repacking is measured as a peer of its own
    --llama-bench PATH   llama.cpp's llama-bench, and, for encode and first, the llama-mtmd-cli beside it
    --llama-python PATH  a Python that has llama_cpp; prefill and decode alone
    --peer NAME=COMMAND  anything else: a command that prints a JSON object as its last line, with one or more of the
                         keys encode, first (milliseconds), prefill and decode (tokens a second). {work}, {model},
                         {mmproj}, {image}, {threads}, {prefill} and {decode} are filled in; {work} is one of the four
                         kinds, and the command may fail for those that it does not know

All but the last run in a temporary folder: some write logs where they stand.

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
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib

WORKS = ("encode", "prefill", "decode", "first")
LANGUAGE = ("prefill", "decode")
QUESTION = "Describe the image."

# Runs in the Python that has llama_cpp.
LLAMA_PYTHON = """
import json, sys, time
from llama_cpp import Llama
model, threads, n, work = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
llm = Llama(model, n_ctx=n + 64, n_batch=max(n, 32), n_ubatch=max(n, 32), n_threads=threads, n_threads_batch=threads,
            verbose=False)
ids = [7 + i * 7919 % 250 for i in range(n)]
def run(ids):
    llm.reset()
    start = time.perf_counter()
    if work == "prefill":
        llm.eval(ids)
    else:
        for i in ids:
            llm.eval([i])
    return len(ids) / (time.perf_counter() - start)
run(ids[:8])
print(json.dumps({work: run(ids)}))
"""


class Failed(Exception):
    """An engine did not give the figure it was asked for."""


def output(command, folder=None):
    """What a command prints, both streams together; the last line is standard output's."""
    try:
        end = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                             cwd=folder)
    except OSError as error:
        raise Failed(str(error)) from error
    if end.returncode:
        tail = (end.stderr or end.stdout).strip()[-500:]
        raise Failed(f"{shlex.join(command)} ended with status {end.returncode}:\n{tail}")
    return end.stderr + end.stdout


def first_word(command, folder, after=None):
    """Milliseconds until a command writes something that is not blank to its terminal, after a line that matches `after`
    if that is given; then standard error counts too. The command is ended there."""
    import pty  # not on Windows

    master, slave = pty.openpty()
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave if after else errors,
                                       cwd=folder)
        except OSError as error:
            raise Failed(str(error)) from error
        finally:
            os.close(slave)
        pattern = re.compile((after.encode() + rb"[^\n]*\n" if after else b"") + rb"\s*\S")
        text = b""
        try:
            while True:
                try:
                    chunk = os.read(master, 1 << 16)
                except OSError:  # Linux says so where a terminal's other end is closed.
                    chunk = b""
                elapsed = time.perf_counter() - start
                # Escape sequences are not words.
                text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", text + chunk)
                if pattern.search(text):
                    return 1e3 * elapsed
                if not chunk:
                    errors.seek(0)
                    tail = (errors.read() or text).decode(errors="replace").strip()[-500:]
                    raise Failed(f"{shlex.join(command)} ended without a word:\n{tail}")
        finally:
            process.kill()
            process.wait()
            os.close(master)


def last_json(text):
    """The JSON object in the last line of a text."""
    try:
        return json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise Failed(f"no JSON in the last line of {text[-200:]!r}") from error


class Llava:
    """This repository's command."""

    name, works = "llava", WORKS

    def __init__(self, args, folder):
        self.args, self.folder, self.machines = args, folder, []

    def measure(self, work):
        a = self.args
        if work == "first":
            command = [a.llava, "describe", "--model", a.model, "--mmproj", a.mmproj, "--threads", str(a.threads)]
            return first_word(command + ["--prompt", QUESTION, "--max-tokens", "16", a.image], self.folder)
        command = [a.llava, "bench", "--json", "--reps", "1", "--only", work, "--model", a.model]
        command += ["--threads", str(a.threads), "--prefill", str(a.prefill), "--decode", str(a.decode)]
        # llama-bench generates from an empty cache.
        command += ["--after", "1"] + (["--mmproj", a.mmproj] if a.mmproj else [])
        report = last_json(output(command, self.folder))
        self.machines.append(report["machine"])
        try:
            return report["encode"]["ms"] if work == "encode" else report[work][0]["tokens_per_s"]
        except (LookupError, TypeError) as error:
            raise Failed(f"nothing was measured: does it fit into the context, is there an mmproj? {report}") from error


class LlamaCpp:
    """llama.cpp or ik_llama.cpp, by their programs."""

    def __init__(self, name, bench, args, folder, extra=()):
        self.name, self.bench, self.args, self.folder, self.extra = name, bench, args, folder, list(extra)
        self.mtmd = os.path.join(os.path.dirname(bench), "llama-mtmd-cli")
        # Run-time repacking concerns the language model alone.
        self.works = WORKS if os.path.exists(self.mtmd) and not extra else LANGUAGE

    def measure(self, work):
        a = self.args
        describe = [self.mtmd, "-m", a.model, "--mmproj", a.mmproj, "--chat-template", "vicuna", "-t", str(a.threads)]
        if work == "first":
            command = describe + ["--image", a.image, "-p", QUESTION, "-n", "16", "--temp", "0", "--no-warmup"]
            # What comes last before the answer.
            done = r"(?:image decoded \(batch (\d+)/\1\)|batch encoding done) in \d+ ms"
            return first_word(command, self.folder, done)
        if work == "encode":
            command = describe + ["--image", a.picture, "-p", "hi", "-n", "1"]
            text = output(command, self.folder)
            slices = re.findall(r"(?:slice encoded|image encoded|batch encoding done) in (\d+) ms", text)
            if not slices:
                raise Failed(f"no time of an image in what {self.mtmd} prints")
            return sum(map(int, slices))
        prompt, answer = (a.prefill, 0) if work == "prefill" else (0, a.decode)
        batch = str(max(a.prefill, 32))
        command = [self.bench, "-m", a.model, "-t", str(a.threads), "-p", str(prompt), "-n", str(answer)]
        text = output(command + ["-r", "1", "-b", batch, "-ub", batch, "-o", "json"] + self.extra, self.folder)
        try:
            return json.loads(text[text.index("[\n"):])[0]["avg_ts"]
        except (ValueError, LookupError) as error:
            raise Failed(f"no figure in what {self.bench} prints") from error


class LlamaPython:
    """llama.cpp by its Python package."""

    name, works = "llama-cpp-python", LANGUAGE

    def __init__(self, args, folder):
        self.args, self.folder = args, folder

    def measure(self, work):
        a = self.args
        n = a.prefill if work == "prefill" else a.decode
        command = [a.llama_python, "-c", LLAMA_PYTHON, a.model, str(a.threads), str(n), work]
        return last_json(output(command, self.folder))[work]


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
        values = {key: str(a[key] or "") for key in ("model", "mmproj", "image", "threads", "prefill", "decode")}
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


def load():
    """Tasks that ran or waited for a processor in the last minute, on average; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def measure(engines, works, rounds, loads):
    """{(work, engine's name): figure of each round, or None where it failed once}; appends to `loads` after each round"""
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
        loads.append(load())
    return figures


def table(figures, engines, works, args):
    """Markdown."""
    labels = {
        "encode": "encode an image, ms",
        "prefill": f"prefill {args.prefill}, tokens/s",
        "decode": f"decode {args.decode}, tokens/s",
        "first": "first word about an image, ms",
    }
    lines = ["| work | llava (min–max) | peer | its figure (min–max) | ratio | min–max |", "|---|---|---|---|---|---|"]
    number = lambda v: f"{v:.0f}" if v >= 100 else f"{v:.3g}"
    spread = lambda values: f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})"
    for work in works:
        ours = figures.get((work, "llava"))
        for engine in engines[1:]:
            theirs = figures.get((work, engine.name))
            if not ours or not theirs:
                continue
            ratios = [o / t if work in LANGUAGE else t / o for o, t in zip(ours, theirs)]
            cells = [labels[work], spread(ours), engine.name, spread(theirs), f"{statistics.median(ratios):.2f}",
                     f"{min(ratios):.2f}–{max(ratios):.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def warning(before, loads, threads):
    """What the machine's load says against the figures; empty if nothing does."""
    reasons = []
    # Above rest; the engines' own threads, and a program that starts beside them.
    if before is not None and before > 0.3:
        reasons.append(f"the load average was {before:.2f} before anything ran")
    most = max((value for value in loads if value is not None), default=0)
    if most > threads + 0.5:
        reasons.append(f"it rose to {most:.2f} with {threads} threads measured")
    return f"**Warning: the machine was not idle; {', and '.join(reasons)}.**\n" if reasons else ""


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
    parser.add_argument("--mmproj", help="tower and projector, GGUF; without it there is no encode and no first")
    parser.add_argument("--image", help="the picture of first (default: a synthetic one)")
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
    args.llava = shutil.which(args.llava) or parser.error(f"--llava {args.llava}: no such command")
    for key in ("model", "mmproj", "image", "llava", "ik", "llama_bench", "llama_python"):
        path = getattr(args, key)
        # Not with links resolved: a virtual environment's Python is one.
        setattr(args, key, path and os.path.abspath(path))
    return args


def main():
    args = arguments()
    works = [work for work in args.work or WORKS if work in LANGUAGE or args.mmproj]
    before, loads = load(), []
    with tempfile.TemporaryDirectory() as folder:
        args.picture = os.path.join(folder, "picture.png")
        args.image = args.image or args.picture
        if args.mmproj:
            try:
                report = last_json(output([args.llava, "inspect", "--json", args.mmproj]))
                png(args.picture, report["model"]["vision"]["image_size"])
            except (Failed, LookupError) as reason:
                sys.exit(f"{args.mmproj}: {reason}")
        ours = Llava(args, folder)
        engines = [ours]
        if args.ik:
            bench = os.path.join(args.ik, "bin", "llama-bench")
            engines += [LlamaCpp("ik_llama.cpp", bench, args, folder),
                        LlamaCpp("ik_llama.cpp -rtr 1", bench, args, folder, ["-rtr", "1"])]
        if args.llama_bench:
            engines.append(LlamaCpp("llama.cpp", args.llama_bench, args, folder))
        if args.llama_python:
            engines.append(LlamaPython(args, folder))
        engines += [Peer(text, args) for text in args.peer]
        if len(engines) == 1:
            sys.exit("no peers: give --ik, --llama-bench, --llama-python or --peer")
        figures = measure(engines, works, args.rounds, loads)
    count = lambda n, thing: f"{n} {thing}{'' if n == 1 else 's'}"
    files = " and ".join(os.path.basename(f) for f in (args.model, args.mmproj) if f)
    print(f"{files}, {count(args.threads, 'thread')}, {count(args.rounds, 'round')}; a ratio above 1 means that llava is faster.\n")
    if text := warning(before, loads, args.threads):
        print(text)
    print(table(figures, engines, works, args))
    if ours.machines:
        print("\n" + limits(ours.machines))


if __name__ == "__main__":
    main()
