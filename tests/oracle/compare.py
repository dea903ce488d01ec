"""How far two computations of the same thing are apart.

  compare.py logits OURS.npy ORACLE.npy     float [positions, vocabulary] each
  compare.py greedy OURS.json ORACLE.json   as llama_cpp.py greedy writes; ours needs only "name" and "ids"

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


def greedy(args):
    """Prints for each prompt the first step where the tokens part, and how close the oracle's two best logits were
    there: a small gap is a coin toss, a large one a defect"""
    ours, oracle = ({p["name"]: p for p in json.load(open(path))["prompts"]} for path in (args.ours, args.oracle))
    if ours.keys() != oracle.keys():
        raise SystemExit(f"prompts differ: {sorted(ours.keys() ^ oracle.keys())}")
    for name, theirs in oracle.items():
        mine, ids = ours[name]["ids"], theirs["ids"]
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run in (logits, greedy):
        command = commands.add_parser(run.__name__)
        command.add_argument("ours")
        command.add_argument("oracle")
        command.set_defaults(run=run)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
