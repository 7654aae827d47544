#!/usr/bin/env python3
"""Prefill and decode in tokens/s, this library and llama.cpp in turns on the same files.

    python3 benches/peers/speed.py MODEL.gguf [...] [--threads 2] [--rounds 3] [--prefill 512] [--decode 64] [--depth 0]

Each round runs both programs once, one after the other; the table has the medians and the ratio of each round's pair, smallest to
largest. Decode feeds the same tokens to both, `--depth` tokens behind the beginning.
"""
import argparse
import statistics
import time

import numpy as np
from engine import Engine, LlamaCpp, skip

try:
    import llama_cpp  # noqa: F401
except ImportError as missing:
    skip(missing)


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(model, args, tokens):
    model.reset()
    prefill = args.prefill / timed(lambda: model.feed(tokens[:args.prefill]))
    model.reset()
    if args.depth:
        model.feed(tokens[:args.depth])
    model.feed(tokens[:1])
    decode = args.decode / timed(lambda: [model.feed([token]) for token in tokens[1:args.decode + 1]])
    return prefill, decode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    for name, default in (("threads", 2), ("rounds", 3), ("prefill", 512), ("decode", 64), ("depth", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    for path in args.models:
        context = max(args.prefill, args.depth + args.decode) + 8
        models = Engine(path, threads=args.threads), LlamaCpp(path, args.threads, context)
        tokens = np.random.default_rng(1).integers(3, models[0].vocab, context)
        for model in models:
            measure(model, args, tokens)  # warm
        rounds = [[measure(model, args, tokens) for model in models] for _ in range(args.rounds)]
        for what, name in ((0, f"prefill {args.prefill}"), (1, f"decode at {args.depth}")):
            ours, theirs = ([pair[i][what] for pair in rounds] for i in (0, 1))
            ratios = sorted(a / b for a, b in zip(ours, theirs))
            medians = statistics.median(ours), statistics.median(theirs)
            print(f"{path.rsplit('/', 1)[-1]:32} {name:14} {medians[0]:8.2f} / {medians[1]:8.2f} tokens/s   "
                  f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})", flush=True)
        for model in models:
            model.close()


if __name__ == "__main__":
    main()
