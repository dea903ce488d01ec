"""How far two computations of the same thing are apart.

  compare.py logits OURS.npy ORACLE.npy     float [positions, vocabulary] each
  compare.py greedy OURS.json ORACLE.json   as llama_cpp.py greedy writes; ours needs only "name" and "ids"
  compare.py gaps OURS.json ORACLE.json     ours as llama_cpp.py replay writes, of the oracle's greedy file

Exits with 1 when shapes or prompts do not match; how far is too far is for the caller to say.
"""

import argparse
import json

import numpy as np


def relative(ours, oracle):
    """Norm of the difference over the norm of the oracle"""
    return float(np.linalg.norm(ours - oracle) / np.linalg.norm(oracle))


def difference(ours, oracle):
    """The figures that the tests bound: largest absolute difference; relative error over all positions, of the best,
    the median and the worst one; and the share of positions with the same most likely token"""
    ours, oracle = ours.astype(np.float64), oracle.astype(np.float64)
    positions = [relative(a, b) for a, b in zip(ours, oracle)]
    return {
        "max_abs": float(np.abs(ours - oracle).max()),
        "relative": relative(ours, oracle),
        "best": min(positions),
        "median": float(np.median(positions)),
        "worst": max(positions),
        "top1": float((ours.argmax(-1) == oracle.argmax(-1)).mean()),
    }


def logits(args):
    ours, oracle = np.load(args.ours), np.load(args.oracle)
    if ours.shape != oracle.shape or ours.ndim != 2:
        raise SystemExit(f"shapes differ: ours {ours.shape}, oracle {oracle.shape}")
    found = difference(ours, oracle)
    print(f"max abs {found['max_abs']:.3e}  relative {found['relative']:.3e}  top-1 agreement {found['top1']:.4f}")
    print(f"relative by position: best {found['best']:.3e}  median {found['median']:.3e}  worst {found['worst']:.3e}")


def prompts(args):
    """(name, ours, oracle's) of every prompt of two files"""
    ours, oracle = ({p["name"]: p for p in json.load(open(path))["prompts"]} for path in (args.ours, args.oracle))
    if ours.keys() != oracle.keys():
        raise SystemExit(f"prompts differ: {sorted(ours.keys() ^ oracle.keys())}")
    return [(name, ours[name], oracle[name]) for name in oracle]


def greedy(args):
    """Prints for each prompt the first step where the tokens part, and how close the oracle's two best logits were
    there: a small gap is a coin toss, a large one a defect"""
    for name, ours, theirs in prompts(args):
        mine, ids = ours["ids"], theirs["ids"]
        step = next((i for i, (a, b) in enumerate(zip(mine, ids)) if a != b), min(len(mine), len(ids)))
        if len(mine) == len(ids) == step:
            print(f"{name}: the same {step} tokens")
        elif step == len(ids):
            print(f"{name}: the same {step} tokens, then ours goes on for {len(mine) - step}")
        else:
            best, first, second, next_best = theirs["top2"][step]
            got = mine[step] if step < len(mine) else "nothing"
            print(f"{name}: step {step} of {len(ids)}: ours {got}, oracle {best}; ", end="")
            print(f"its second was {second}, {first - next_best:.4f} behind")


def gaps(args):
    """Prints how far the gap between the oracle's two best tokens is from the oracle's, over all steps, and the
    widest gap of the oracle at which ours had another best token"""
    off, lost = [], []
    for name, ours, theirs in prompts(args):
        if len(ours["steps"]) != len(theirs["top2"]):
            raise SystemExit(f"{name}: {len(ours['steps'])} steps, the oracle has {len(theirs['top2'])}")
        for (best, a, b), (token, first, _, second) in zip(ours["steps"], theirs["top2"]):
            off.append(abs(a - b - (first - second)))
            if best != token:
                lost.append(first - second)
    mean, high, most = np.mean(off), np.percentile(off, 99), max(off)
    print(f"{len(off)} steps: gap off by {mean:.3f} on average, {high:.3f} at the 99th percentile, {most:.3f} at most")
    print(f"another best token at {len(lost)} steps" + (f", the widest gap there {max(lost):.3f}" if lost else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run in (logits, greedy, gaps):
        command = commands.add_parser(run.__name__)
        command.add_argument("ours")
        command.add_argument("oracle")
        command.set_defaults(run=run)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
