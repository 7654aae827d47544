"""libengine.so through its C ABI."""
import ctypes
import os
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
WEIGHTS = {"keep": 0, "f32": 1, "bf16": 2}
KV_TYPES = {"f32": 1, "f16": 2, "bf16": 3, "q8_0": 4}


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


class LoadOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("threads", ctypes.c_uint32), ("isa", ctypes.c_int32), ("weights", ctypes.c_int32),
                ("mapping", ctypes.c_int32), ("flags", ctypes.c_uint32), ("progress", ctypes.c_void_p), ("user_data", ctypes.c_void_p),
                ("profile", ctypes.c_uint32), ("matmul", ctypes.c_int32)]


class CacheOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("kv_type", ctypes.c_int32), ("max_tokens", ctypes.c_size_t), ("rewind_tokens", ctypes.c_size_t)]


class Request(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("status", ctypes.c_int32), ("cache", ctypes.c_void_p), ("tokens", ctypes.c_void_p),
                ("n_tokens", ctypes.c_size_t), ("logits", ctypes.c_void_p), ("want", ctypes.c_int32), ("reserved", ctypes.c_uint32)]


LOGITS_LAST = 1


def library():
    path = Path(os.environ.get("ENGINE_LIBRARY", REPOSITORY / "target/release/libengine.so"))
    if not path.exists():
        skip(f"there is no {path}: cargo build --release")
    lib = ctypes.CDLL(str(path))
    lib.engine_last_error_message.restype = ctypes.c_char_p
    for name in ("engine_model_vocab_size", "engine_cache_len", "engine_model_context_length"):
        getattr(lib, name).restype = ctypes.c_size_t
    return lib


class Engine:
    """A model in this library and one cache of it."""

    name = "engine"

    def __init__(self, path, weights="keep", threads=2, kv_type="f32"):
        self.lib = library()
        options = LoadOptions(ctypes.sizeof(LoadOptions), threads, 0, WEIGHTS[weights], 0, 0, None, None, 0, 0)
        self.model, self.cache = ctypes.c_void_p(), ctypes.c_void_p()
        self.check(self.lib.engine_load_model(str(path).encode(), ctypes.byref(options), ctypes.byref(self.model)))
        options = CacheOptions(ctypes.sizeof(CacheOptions), KV_TYPES[kv_type], 0, 0)
        self.check(self.lib.engine_new_cache(self.model, ctypes.byref(options), ctypes.byref(self.cache)))
        self.vocab = self.lib.engine_model_vocab_size(self.model)
        self.others = []

    def check(self, status):
        if status != 0:
            raise RuntimeError(self.lib.engine_last_error_message().decode())

    def metadata(self, key):
        """A key of the model's metadata as text, or None."""
        text, size = ctypes.create_string_buffer(4096), ctypes.c_size_t(4096)
        if self.lib.engine_model_metadata(self.model, key.encode(), text, ctypes.byref(size)) != 0:
            return None
        return text.raw[:size.value].decode()

    def context_length(self):
        return self.lib.engine_model_context_length(self.model)

    def reset(self, length=0):
        self.check(self.lib.engine_cache_truncate(self.cache, ctypes.c_size_t(length)))

    def begin(self, prompt, n):
        """Begins n sequences with a prompt."""
        self.reset()
        self.feed(prompt)
        while len(self.others) < n - 1:
            self.others.append(ctypes.c_void_p())
            self.check(self.lib.engine_cache_fork(self.cache, ctypes.byref(self.others[-1])))
        for other in self.others:
            self.check(self.lib.engine_cache_truncate(other, ctypes.c_size_t(0)))
            ids = np.ascontiguousarray(prompt, dtype=np.uint32)
            pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32))
            self.check(self.lib.engine_step(other, pointer, ctypes.c_size_t(len(ids)), None))

    def stepper(self, n):
        """A function that feeds a token to each of n sequences, without work of Python's own worth a word."""
        logits = np.empty((n, self.vocab), np.float32)
        ids = np.empty(n, np.uint32)
        requests = (Request * n)()
        for i, cache in enumerate([self.cache, *self.others][:n]):
            row = (ids.ctypes.data + 4 * i, 1, logits.ctypes.data + 4 * self.vocab * i)
            requests[i] = Request(ctypes.sizeof(Request), 0, cache, *row, LOGITS_LAST, 0)

        def step(tokens):
            ids[:] = tokens
            self.check(self.lib.engine_step_batch(requests, ctypes.c_size_t(n)))
            return logits

        return step

    def feed(self, tokens, all_logits=False):
        """Logits of the last token, or of all."""
        ids = np.ascontiguousarray(tokens, dtype=np.uint32)
        out = np.empty((len(ids) if all_logits else 1, self.vocab), np.float32)
        step = self.lib.engine_step_all if all_logits else self.lib.engine_step
        pointer = ctypes.POINTER(ctypes.c_uint32)
        self.check(step(self.cache, ids.ctypes.data_as(pointer), ctypes.c_size_t(len(ids)), out.ctypes.data_as(ctypes.POINTER(ctypes.c_float))))
        return out

    def close(self):
        for cache in [self.cache, *self.others]:
            self.lib.engine_cache_free(cache)
        self.lib.engine_model_free(self.model)


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))
