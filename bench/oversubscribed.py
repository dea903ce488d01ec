#!/usr/bin/env python3
"""What llava loses where more threads want to run than there are CPUs, as a table in Markdown. Linux only.

Each case is `llava bench` with the threads or the company that it should not have, beside what the right number of threads
gives; the cases take turns, and a round gives each a figure. A loss is how many times longer the same work takes, median
(least–most) of the rounds. It should be below 1.5.

    threads asked   four times as many threads as CPUs are asked for
    CPUs taken      all threads are moved to one CPU after the model is loaded; beside one thread on that CPU
    at once         so many processes with a thread for every CPU each; beside as many times the time of one alone

    bench/oversubscribed.py --model lm.gguf

Run it on a machine that does nothing else. Python 3.9 or later, nothing besides.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

KINDS = ("prefill", "decode")


def start(args, threads, cpus, more=()):
    command = [args.llava, "bench", "--json", "--reps", "1", "--only", ",".join(KINDS), "--model", args.model]
    command += ["--prefill", str(args.prefill), "--decode", str(args.decode), "--threads", str(threads)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                            preexec_fn=lambda: os.sched_setaffinity(0, cpus))


def seconds(process):
    """Seconds a token of each kind, and the number of threads."""
    text = process.communicate()[0]
    if process.returncode:
        sys.exit(process.returncode)
    report = json.loads(text)
    return {kind: 1 / report[kind][0]["tokens_per_s"] for kind in KINDS}, report["threads"]


def move(process, threads, cpu):
    """Moves a process to one CPU when it has all its threads."""
    tasks = f"/proc/{process.pid}/task"
    name = f"llava-{threads - 1}"
    while process.poll() is None:
        ids = os.listdir(tasks)
        if any(open(f"{tasks}/{i}/comm").read().strip() == name for i in ids):
            for i in ids:
                os.sched_setaffinity(int(i), {cpu})
            return
        time.sleep(0.001)


def one_round(args, cpus):
    """{case: {kind: loss}}"""
    n, last = len(cpus), max(cpus)
    alone, _ = seconds(start(args, n, cpus))
    # Asked for all threads, it has to see that there is one CPU.
    single, used = seconds(start(args, n, {last}))
    if used != 1:
        sys.exit(f"{used} threads serve where the process may use one CPU")
    loss = lambda got, times, right: {kind: got[kind] / times / right[kind] for kind in KINDS}
    cases = {"threads asked": loss(seconds(start(args, 4 * n, cpus))[0], 1, alone)}
    if n > 1:
        moved = start(args, n, cpus)
        move(moved, n, last)
        cases["CPUs taken"] = loss(seconds(moved)[0], 1, single)
    for k in (2, 4):
        each = [seconds(p)[0] for p in [start(args, n, cpus) for _ in range(k)]]
        cases[f"{k} at once, the slowest"] = {kind: max(loss(e, k, alone)[kind] for e in each) for kind in KINDS}
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="language model, GGUF; a small one loses most")
    parser.add_argument("--llava", default="llava", help="the command (default: the one in PATH)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prefill", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--decode", type=int, default=256, help="tokens to generate")
    args = parser.parse_args()
    cpus = os.sched_getaffinity(0)
    rounds = []
    for i in range(args.rounds):
        print(f"round {i + 1} of {args.rounds}", file=sys.stderr)
        rounds.append(one_round(args, cpus))
    print(f"{os.path.basename(args.model)}, {len(cpus)} CPUs, {args.rounds} rounds, times longer than right\n")
    print("| case | prefill | decode |\n|---|---|---|")
    for case in rounds[0]:
        cells = []
        for kind in KINDS:
            values = [r[case][kind] for r in rounds]
            cells.append(f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})")
        print(f"| {case} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
