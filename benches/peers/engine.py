"""libengine.so through its C ABI, and llama.cpp through llama-cpp-python, with the same few calls."""
import ctypes
import os
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
WEIGHTS = {"keep": 0, "f32": 1, "bf16": 2}


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


class LoadOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("threads", ctypes.c_uint32), ("isa", ctypes.c_int32), ("weights", ctypes.c_int32),
                ("mapping", ctypes.c_int32), ("flags", ctypes.c_uint32), ("progress", ctypes.c_void_p), ("user_data", ctypes.c_void_p)]


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

    def __init__(self, path, weights="keep", threads=2):
        self.lib = library()
        options = LoadOptions(ctypes.sizeof(LoadOptions), threads, 0, WEIGHTS[weights], 0, 0, None, None)
        self.model, self.cache = ctypes.c_void_p(), ctypes.c_void_p()
        self.check(self.lib.engine_load_model(str(path).encode(), ctypes.byref(options), ctypes.byref(self.model)))
        self.check(self.lib.engine_new_cache(self.model, None, ctypes.byref(self.cache)))
        self.vocab = self.lib.engine_model_vocab_size(self.model)

    def check(self, status):
        if status != 0:
            raise RuntimeError(self.lib.engine_last_error_message().decode())

    def reset(self):
        self.check(self.lib.engine_cache_truncate(self.cache, ctypes.c_size_t(0)))

    def feed(self, tokens, all_logits=False):
        """Logits of the last token, or of all."""
        ids = np.ascontiguousarray(tokens, dtype=np.uint32)
        out = np.empty((len(ids) if all_logits else 1, self.vocab), np.float32)
        step = self.lib.engine_step_all if all_logits else self.lib.engine_step
        pointer = ctypes.POINTER(ctypes.c_uint32)
        self.check(step(self.cache, ids.ctypes.data_as(pointer), ctypes.c_size_t(len(ids)), out.ctypes.data_as(ctypes.POINTER(ctypes.c_float))))
        return out

    def close(self):
        self.lib.engine_cache_free(self.cache)
        self.lib.engine_model_free(self.model)


class LlamaCpp:
    """The same model in llama.cpp."""

    name = "llama.cpp"

    def __init__(self, path, threads=2, context=512, flash_attention=None):
        import llama_cpp

        self.api = llama_cpp
        quiet(llama_cpp)
        llama_cpp.llama_backend_init()
        load = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), load)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = 0  # f32, as this library's default
        if flash_attention is not None:
            params.flash_attn_type = 1 if flash_attention else 0
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp makes no context for {path}")
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.length = 0

    def reset(self):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        self.length = 0

    def feed(self, tokens, all_logits=False):
        """Logits of the last token, or of all."""
        rows = []
        for first in range(0, len(tokens), 512):
            part = tokens[first:first + 512]
            batch = self.api.llama_batch_init(len(part), 0, 1)
            batch.n_tokens = len(part)
            for i, token in enumerate(part):
                batch.token[i], batch.pos[i] = int(token), self.length + i
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
                batch.logits[i] = all_logits or first + i + 1 == len(tokens)
            if self.api.llama_decode(self.context, batch) != 0:
                raise RuntimeError("llama_decode failed")
            self.length += len(part)
            for i in range(len(part)):
                if batch.logits[i]:
                    row = self.api.llama_get_logits_ith(self.context, i)
                    rows.append(np.ctypeslib.as_array(row, (self.vocab,)).copy())
            self.api.llama_batch_free(batch)
        return np.array(rows)

    def close(self):
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)


def quiet(llama_cpp, keep=[]):
    """No logging but errors."""
    if not keep:
        keep.append(llama_cpp.llama_log_callback(lambda level, text, data: None))
        llama_cpp.llama_log_set(keep[0], ctypes.c_void_p(0))


def quantise(source, target, file_type, pure=True):
    """llama.cpp's own quantisation of a file."""
    import llama_cpp

    quiet(llama_cpp)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.pure, params.allow_requantize = file_type, 2, pure, True
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) != 0:
        raise RuntimeError(f"llama.cpp cannot quantise {source} to {file_type}")


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))
