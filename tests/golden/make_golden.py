#!/usr/bin/env python3
"""Makes the golden cases beside this file: tiny random models and the logits that transformers computes for them.

    pip install torch transformers safetensors gguf numpy
    python3 tests/golden/make_golden.py [case ...]          # all cases without an argument

The committed files were made with the versions in `versions.json`, which every run rewrites. A case is a folder:

    model/ or model.gguf   the model, as a user has it
    tokens.json            the tokens to feed
    logits.npy             f32 [tokens, vocabulary]: transformers in f32 from the weights as they are in the file

Every parameter is random: weights, biases, norm weights and biases. Sizes are odd, so that every kernel meets its edges. A case
is worth nothing if a wrong setting passes it, so each names settings and a wrong value for each (`wrong`), and it is asserted
that the wrong value moves the logits by more than 1e-3 of the largest, ten times what the Rust test allows. And it is
asserted that transformers in f64 agrees to 2e-5 of it, so that what the test measures is not the oracle's own rounding;
`rounding.json` has what it is for each case.

The cases are in `make/`, a file per group of families.
"""
import platform
import sys
from fnmatch import fnmatch

import numpy as np
import safetensors
import torch
import transformers

# Each registers its cases.
from make import gemma, gguf_cases, gpt2, llama, llama_like, moe, olmo, parallel, phi, qwen  # noqa: F401
from make.cases import CASES, make, record


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    wanted = sys.argv[1:] or ["*"]
    failed = []
    for name in CASES:
        if any(fnmatch(name, pattern) for pattern in wanted):
            try:
                make(name)
            except Exception as error:  # noqa: BLE001: the other cases are made all the same
                failed.append(f"{name}: {type(error).__name__}: {error}")
    versions = {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
                "safetensors": safetensors.__version__, "numpy": np.__version__}
    record("versions.json", versions)
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
