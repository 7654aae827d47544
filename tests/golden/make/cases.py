"""The list of cases, and what each must satisfy before it is written."""
import json
import shutil
from pathlib import Path

import numpy as np
import torch

from .models import run, smallest_margin, wrong_models

HERE = Path(__file__).resolve().parent.parent
CASES = {}


def case(name, seed, n_tokens=59):
    """Registers a function that fills the case's folder and returns the oracle and the wrong settings that must not pass for it:
    label to what `models.wrong_models` takes."""

    def register(make):
        assert name not in CASES and seed not in [s for _, s, _ in CASES.values()], f"{name}, seed {seed}: taken"
        CASES[name] = (make, seed, n_tokens)
        return make

    return register


def make(name):
    function, seed, n_tokens = CASES[name]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    torch.manual_seed(seed)
    model, wrong = function(folder)
    rng = np.random.default_rng(seed)
    tokens = [int(t) for t in rng.integers(0, model.config.vocab_size, n_tokens)]
    logits = run(model, tokens)
    largest = np.abs(logits).max()
    rounding = np.abs(logits - run(model, tokens, double=True)).max() / largest
    moves = {label: float(np.abs(run(other, tokens) - logits).max() / largest) for label, other in wrong_models(model, wrong)}
    (folder / "tokens.json").write_text(json.dumps(tokens) + "\n")
    np.save(folder / "logits.npy", logits.astype(np.float32))
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{name:20} {size >> 10:4} KiB, largest logit {largest:.1f}, f32-f64 {rounding:.0e}, wrong settings move it by",
          ", ".join(f"{k} {v:.0e}" for k, v in moves.items()), flush=True)
    record("rounding.json", {name: float(f"{rounding:.3g}")})
    margin = smallest_margin(model, tokens)
    assert margin > 1e-3, f"{name}: rounding might choose another expert, the margin is {margin:.1e}: take another seed"
    assert rounding < 2e-5, f"{name}: f32 and f64 differ by {rounding:.1e}"
    weak = {k: v for k, v in moves.items() if not v >= 1e-3}
    assert not weak, f"{name}: these wrong settings would pass: {weak}"


def record(file, entries):
    """Adds to a JSON table beside the cases."""
    path = HERE / file
    table = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(dict(sorted({**table, **entries}.items())), indent=1) + "\n")
