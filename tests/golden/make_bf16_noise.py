#!/usr/bin/env python3
"""How far the logits of cases with 16-bit weights move where a matrix unit multiplies: bf16_noise.json, relative in the L2 norm.

There every linear but the head, which is always a product of few tokens, takes its input as one bf16 number where the weights are bf16, or as the sum of two where they are f16;
such weights are the sum of two as well, and the product of the two second terms is left out. Needs what make_golden.py needs.

    python3 tests/golden/make_bf16_noise.py
"""
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

# Each registers its cases.
from make import gemma, gguf_cases, gpt2, llama, llama_like, moe, olmo, parallel, phi, qwen  # noqa: F401
from make.cases import CASES, HERE, record
from make.models import run


def two_terms(x):
    first = x.to(torch.bfloat16).to(x.dtype)
    return first, (x - first).to(torch.bfloat16).to(x.dtype)


def holds(weight, dtype):
    """Whether rounding to `dtype` changes nothing."""
    return bool((weight == weight.to(dtype).float()).all())


def is_of(model, dtype):
    """Whether most of its matrices are; some of a GGUF file are f32."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    return 2 * sum(holds(p, dtype) for p in matrices) > len(matrices)


def noise(name, model):
    tokens = json.loads((HERE / name / "tokens.json").read_text())
    exact = run(model, tokens)
    assert np.abs(exact - np.load(HERE / name / "logits.npy")).max() <= 1e-5 * np.abs(exact).max(), f"{name} is another model now"
    head, linear = model.get_output_embeddings().weight, torch.nn.functional.linear

    def on_the_unit(x, weight, bias=None):
        if weight is head or not holds(weight, torch.float16) and not holds(weight, torch.bfloat16):
            return linear(x, weight, bias)
        (x0, x1), (w0, w1) = two_terms(x), two_terms(weight)
        y = linear(x0, w0, bias)
        return y if holds(weight, torch.bfloat16) else y + linear(x1, w0) + linear(x0, w1)

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.forward = lambda x, module=module: on_the_unit(x, module.weight, module.bias)
        if isinstance(module, transformers.pytorch_utils.Conv1D):
            module.forward = lambda x, module=module: on_the_unit(x, module.weight.T, module.bias)
    torch.nn.functional.linear = on_the_unit  # experts, of which one tensor holds all
    noisy = run(model, tokens)
    torch.nn.functional.linear = linear
    return float(np.linalg.norm(noisy - exact) / np.linalg.norm(exact))


for name, (function, seed, _) in CASES.items():
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        model, _ = function(Path(folder))
    if is_of(model, torch.bfloat16) or is_of(model, torch.float16):
        record("bf16_noise.json", {name: float(f"{noise(name, model):.3g}")})
