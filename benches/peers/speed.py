#!/usr/bin/env python3
"""This library and its peers on the same files in turns: prefill, decode, batches, start, memory.

    python3 benches/peers/speed.py MODEL.gguf [...] [--only PART ...] [--kv f32] [--threads 2] [--rounds 3] [--steps 32] [--json FILE]

Files: those that `make bench` writes to target/bench-models, or any other. --only takes parts of the rows' names (prefill/512, decode/0,
decode/2048, batch/1 to batch/16, start). Each round runs every program once, one after the other; a row has each program's median, and of
each peer the ratio of this library's figure to its own in the same round: the median, smallest and largest.

Our keys and values are of --kv (f32, f16, bf16 or q8_0), llama.cpp's of 16 bits, with flash attention on and off, and with --kv q8_0 also of
8 bits; the best of these counts. PyTorch runs transformers' model of the same shape in the file's type, f32 or bf16. A peer that is not
installed, or has no such type, is named.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from engine import KV_TYPES, Engine, skip

ROWS = ["prefill/512", "decode/0", "decode/2048", "batch/1", "batch/2", "batch/4", "batch/8", "batch/16", "start"]
PROMPT = 8  # of a batch's sequences
START = [1, 300, 400, 500]


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peers(missing):
    """The classes that can be had; adds a sentence to `missing` for each other one."""
    found = {}
    for name, module, hint in (("llama.cpp", "llamacpp", "pip install llama-cpp-python, with CC=clang"),
                               ("PyTorch", "pytorch", "pip install torch transformers")):
        try:
            found[name] = __import__(module)
        except ImportError as error:
            missing.append(f"{name} is missing ({error}): {hint}")
    return found


class Programs:
    """Every program that has the model, by name."""

    def __init__(self, path, found, args, notes):
        self.path, self.args, self.found, self.notes = path, args, dict(found), notes
        self.engine = Engine(path, threads=args.threads, kv_type=args.kv)
        self.all = {"engine": self.engine}
        if "PyTorch" in found:
            try:
                self.all["PyTorch"] = found["PyTorch"].PyTorch(self.engine.metadata, args.threads)
            except KeyError as error:
                notes.append(f"PyTorch has no such model: {error}")

    def contexts(self, tokens, sequences):
        """All of them, with contexts of llama.cpp for so many tokens of so many sequences."""
        with_llama = dict(self.all)
        if "llama.cpp" in self.found:
            api, model = self.found["llama.cpp"], None
            try:
                settings = [("with flash attention", True, api.F16), ("without flash attention", False, api.F16)]
                if self.args.kv == "q8_0":
                    settings.append(("in 8 bits", True, api.Q8_0))
                for name, flash, kv_type in settings:
                    context = api.LlamaCpp(self.path, self.args.threads, tokens * sequences, flash, kv_type, sequences, model)
                    model = context.model
                    with_llama[f"llama.cpp {name}"] = context
            except RuntimeError as error:
                self.notes.append(str(error))
                del self.found["llama.cpp"]
        return with_llama

    def close(self, contexts):
        # The first one owns the model, so it goes last.
        for name in reversed([name for name in contexts if name not in self.all]):
            contexts[name].close()


def rounds(args, programs, measure):
    """Of each program, what `measure` gives in each round, behind one that does not count."""
    figures = {name: [] for name in programs}
    for i in range(args.rounds + 1):
        for name, program in programs.items():
            time.sleep(0.2)  # threads of the one before go to sleep
            figure = measure(program)
            if i > 0:
                figures[name].append(figure)
    return figures


def prefill(programs, tokens, args):
    def measure(program):
        program.reset()
        return len(tokens) / timed(lambda: program.feed(tokens))

    return rounds(args, programs, measure)


def decode(programs, tokens, depth, args):
    for program in programs.values():
        program.reset()
        for first in range(0, depth, 512):
            program.feed(tokens[first:min(first + 512, depth)])

    def measure(program):
        program.reset(depth)
        step = program.stepper(1)
        step(tokens[depth:depth + 1])
        steps = tokens[depth + 1:depth + 1 + args.steps]
        return len(steps) / timed(lambda: [step([token]) for token in steps])

    return rounds(args, programs, measure)


def batch(programs, tokens, n, args):
    def measure(program):
        program.begin(tokens[:PROMPT], n)
        step = program.stepper(n)
        step(tokens[:n])
        return n * args.steps / timed(lambda: [step(tokens[i:i + n]) for i in range(args.steps)])

    return rounds(args, programs, measure)


def memory():
    """Resident MB: the process's own, pages of files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return [int(lines[key].split()[0]) / 1000 for key in ("RssAnon", "RssFile")]


def start_child(name, path, threads, kv):
    before, start = memory(), time.perf_counter()
    if name == "engine":
        program = Engine(path, threads=threads, kv_type=kv)
    else:
        import llamacpp
        program = llamacpp.LlamaCpp(path, threads, 512, "without" not in name, llamacpp.F16)
    program.feed(START)
    seconds, after = time.perf_counter() - start, memory()
    print(json.dumps({"s": seconds, "mb": [b - a for a, b in zip(before, after)]}))


def start(names, path, args, notes):
    """Seconds from opening a program's library to its first token, and memory, in processes of their own."""
    def run(name):
        command = [sys.executable, __file__, "--child", name, "--threads", str(args.threads), "--kv", args.kv, str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{name}: {done.stderr.strip()[-500:]}")
        told = json.loads(done.stdout.splitlines()[-1])
        memories[name] = told["mb"]
        return told["s"]

    memories = {}
    figures = rounds(args, {name: name for name in names}, run)
    for name, (own, mapped) in memories.items():
        notes.append(f"memory after the first token, {name}: {own:.0f} MB of its own + {mapped:.0f} of files")
    return figures, memories


def compare(figures, lower_is_better):
    """Of each peer (of llama.cpp's settings the best one) the ratios to ours, so that more than 1 means that ours is ahead."""
    medians = {name: statistics.median(values) for name, values in figures.items()}
    llama = [name for name in figures if name.startswith("llama.cpp")]
    best = (min if lower_is_better else max)(llama, key=medians.get, default=None)
    ratios = {}
    for name in figures:
        if name != "engine" and (name == best or name not in llama):
            pairs = zip(figures["engine"], figures[name])
            each = sorted(theirs / ours if lower_is_better else ours / theirs for ours, theirs in pairs)
            ratios[name] = (statistics.median(each), each[0], each[-1])
    return medians, ratios


def show(row, figures, unit):
    medians, ratios = compare(figures, unit == "s")
    print(f"  {row:12} engine {medians.pop('engine'):9.3f} {unit}", flush=True)
    for name, median in medians.items():
        ratio = "ratio {:.2f} ({:.2f} to {:.2f})".format(*ratios[name]) if name in ratios else "not its best setting"
        print(f"  {'':12} {name:32} {median:9.3f} {unit}   {ratio}", flush=True)
    return {"row": row, "unit": unit, "rounds": figures, "ratios": ratios}


def measure(path, found, args):
    wanted = [row for row in ROWS if not args.only or any(part in row for part in args.only)]
    print(f"{Path(path).name}, {args.threads} threads, {args.rounds} rounds")
    notes, results = [], []
    programs = Programs(path, found, args, notes)
    tokens = np.random.default_rng(1).integers(3, programs.engine.vocab, 4096)

    def group(rows, context, sequences, run):
        rows = [row for row in wanted if row in rows]
        longest = programs.engine.context_length()
        if rows and context > longest:
            notes.append(f"{', '.join(rows)}: skipped, the context is {longest} tokens")
        elif rows:
            contexts = programs.contexts(context, sequences)
            for row in rows:
                results.append(show(row, run(contexts, row), "tokens/s"))
            programs.close(contexts)

    short = 512 + 8
    group(["prefill/512"], short, 1, lambda all, row: prefill(all, tokens[:512], args))
    group(["decode/0"], short, 1, lambda all, row: decode(all, tokens, 0, args))
    group(["decode/2048"], 2048 + args.steps + 8, 1, lambda all, row: decode(all, tokens, 2048, args))
    for n in (1, 2, 4, 8, 16):
        group([f"batch/{n}"], 256, n, lambda all, row: batch(all, tokens, n, args))
    programs.all.pop("PyTorch", None)
    if "start" in wanted:
        names = ["engine"] + ["llama.cpp with flash attention"] * ("llama.cpp" in programs.found)
        figures, memories = start(names, path, args, notes)
        results.append({**show("start", figures, "s"), "mb": memories})
        if "PyTorch" in found:
            notes.append("start: PyTorch has no file to load")
    programs.engine.close()
    for note in notes:
        print(f"  {note}")
    return {"model": Path(path).name, "rows": results, "notes": notes}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--only", nargs="+", default=[])
    for name, default in (("threads", 2), ("rounds", 3), ("steps", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--kv", choices=KV_TYPES, default="f32")
    parser.add_argument("--json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return start_child(args.child, args.models[0], args.threads, args.kv)
    missing = []
    found = peers(missing)
    for line in missing:
        print(line)
    if not found:
        skip("there is no peer")
    results = [measure(path, found, args) for path in args.models]
    if args.json:
        Path(args.json).write_text(json.dumps({"threads": args.threads, "kv": args.kv, "missing": missing, "models": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
