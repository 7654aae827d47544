#!/usr/bin/env python3
"""Makes the dequantisation cases beside this file: for each block type `NAME.blocks` (random bytes, and blocks with extreme
scales) and `NAME.f32`, what the `gguf` package makes of them.

    pip install gguf numpy && python3 tests/golden/quant/make_quant.py
"""
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize

HERE = Path(__file__).resolve().parent
# Type, and where its binary16 numbers are.
TYPES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2],
    "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [], "TQ1_0": [52], "TQ2_0": [64],
}
# The largest, the smallest and the largest denormal, the smallest normal, zeros, one.
EXTREME = np.array([0x7BFF, 0xFBFF, 0x0001, 0x83FF, 0x0400, 0x0000, 0x8000, 0x3C00], np.uint16)

rng = np.random.default_rng(4)
for name, scales in TYPES.items():
    qtype = gguf.GGMLQuantizationType[name]
    n, size = gguf.GGML_QUANT_SIZES[qtype]
    count = 4 if n == 256 else 16
    blocks = rng.integers(0, 256, (count + len(EXTREME), size), np.uint8)
    if name == "MXFP4":
        blocks[count:, 0] = [0, 1, 2, 3, 127, 128, 254, 255]
    for at in scales:
        random = rng.normal(0, 0.1, count).astype(np.float16).view(np.uint16)
        numbers = np.concatenate([random, rng.permutation(EXTREME)])
        blocks[:, at : at + 2] = numbers.view(np.uint8).reshape(-1, 2)
    with np.errstate(over="ignore"):
        values = dequantize(blocks, qtype)
    (HERE / f"{name}.blocks").write_bytes(blocks.tobytes())
    (HERE / f"{name}.f32").write_bytes(values.astype("<f4").tobytes())
