#!/usr/bin/env python3
"""Prints the root mean square errors of llama.cpp's own quantisation, without an importance matrix, that
src/kernels/quant/pack/tests.rs compares with. The input is that of the test, made by the same generator.

    pip install gguf numpy llama-cpp-python && python3 tests/golden/quant/reference_errors.py
"""
import ctypes
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from gguf.quants import dequantize

TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
N = 1 << 15


def random(state):
    """src/kernels/testing.rs: Random::f32."""
    def bits():
        nonlocal state
        state ^= state >> 12
        state = (state ^ (state << 25)) & (2**64 - 1)
        state ^= state >> 27
        return state * 0x2545F4914F6CDD1D & (2**64 - 1)

    while True:
        x = np.float32(bits() >> 40) / np.float32(1 << 23) - np.float32(1)
        yield x / np.float32(64) if bits() & 7 == 0 else x


library = next((Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.so"))
quantize = ctypes.CDLL(str(library)).ggml_quantize_chunk
quantize.restype = ctypes.c_size_t
quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]

numbers = random(9)
# About normal: each the sum of three.
x = np.array([next(numbers) + next(numbers) + next(numbers) for _ in range(N)], np.float32)
for name in TYPES:
    qtype = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    blocks = np.zeros(N // block * size, np.uint8)
    quantize(int(qtype), x.ctypes.data, blocks.ctypes.data, 0, N // 256, 256, None)
    error = np.sqrt(np.mean((dequantize(blocks, qtype).astype(np.float64) - x) ** 2))
    print(f"(Quant::{name.replace('_K', 'K')}, {error:.6e}),")
