"""llama.cpp through llama-cpp-python, with the same few calls as engine.py."""
import ctypes

import llama_cpp
import numpy as np

F32, F16, Q8_0 = 0, 1, 8


class LlamaCpp:
    """The same model in llama.cpp."""

    name = "llama.cpp"

    def __init__(self, path, threads=2, context=512, flash_attention=None, kv_type=F32, sequences=1, model=None):
        """model: another one's, to make a second context of it."""
        self.owns_model, self.model = model is None, model
        if self.owns_model:
            quiet()
            llama_cpp.llama_backend_init()
            self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        params.n_seq_max = sequences
        params.type_k = params.type_v = kv_type
        if flash_attention is not None:
            params.flash_attn_type = 1 if flash_attention else 0
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp makes no context for {path}")
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.length = 0
        self.batches = []

    def reset(self, length=0):
        memory = llama_cpp.llama_get_memory(self.context)
        if length == 0:
            llama_cpp.llama_memory_clear(memory, True)
        elif not llama_cpp.llama_memory_seq_rm(memory, 0, length, -1):
            raise RuntimeError(f"llama.cpp does not go back to {length} tokens")
        self.length = length

    def begin(self, prompt, n):
        """Begins n sequences with a prompt; the context was made for so many."""
        self.reset()
        step = self.stepper(n)
        for token in prompt:
            step([token] * n)

    def stepper(self, n):
        """A function that feeds a token to each of n sequences."""
        batch = llama_cpp.llama_batch_init(n, 0, 1)
        self.batches.append(batch)

        def step(tokens):
            batch.n_tokens = n
            for i, token in enumerate(tokens):
                batch.token[i], batch.pos[i] = int(token), self.length
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, i
                batch.logits[i] = True
            if llama_cpp.llama_decode(self.context, batch) != 0:
                raise RuntimeError("llama_decode failed")
            self.length += 1
            return [llama_cpp.llama_get_logits_ith(self.context, i) for i in range(n)]

        return step

    def feed(self, tokens, all_logits=False):
        """Logits of the last token, or of all."""
        rows = []
        for first in range(0, len(tokens), 512):
            part = tokens[first:first + 512]
            batch = llama_cpp.llama_batch_init(len(part), 0, 1)
            batch.n_tokens = len(part)
            for i, token in enumerate(part):
                batch.token[i], batch.pos[i] = int(token), self.length + i
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
                batch.logits[i] = all_logits or first + i + 1 == len(tokens)
            if llama_cpp.llama_decode(self.context, batch) != 0:
                raise RuntimeError("llama_decode failed")
            self.length += len(part)
            for i in range(len(part)):
                if batch.logits[i]:
                    row = llama_cpp.llama_get_logits_ith(self.context, i)
                    rows.append(np.ctypeslib.as_array(row, (self.vocab,)).copy())
            llama_cpp.llama_batch_free(batch)
        return np.array(rows)

    def close(self):
        for batch in self.batches:
            llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(self.context)
        if self.owns_model:
            llama_cpp.llama_model_free(self.model)


def quiet(keep=[]):
    """No logging but errors."""
    if not keep:
        keep.append(llama_cpp.llama_log_callback(lambda level, text, data: None))
        llama_cpp.llama_log_set(keep[0], ctypes.c_void_p(0))


def quantise(source, target, file_type, pure=True):
    """llama.cpp's own quantisation of a file."""
    quiet()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.pure, params.allow_requantize = file_type, 2, pure, True
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) != 0:
        raise RuntimeError(f"llama.cpp cannot quantise {source} to {file_type}")
