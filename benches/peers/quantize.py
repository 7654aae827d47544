#!/usr/bin/env python3
"""Files that engine_quantize writes, next to those of llama.cpp's own quantisation of the same models.

    python3 benches/peers/quantize.py

Tiny random models of several families (16 layers, so that the mixtures differ from layer to layer) and stories260k. Fails unless
both files have the same size and every tensor the same type in both, the root mean square error of the weights is no larger in
ours, and llama.cpp loads ours and gives logits of about the distance from f32 that those from its own file have. The KL divergences
of single small models scatter: between 0.43 and 1.61 of each other were seen, either way, so only twice as much is an error.
"""
import ctypes
import sys
import tempfile
from pathlib import Path

import numpy as np
from engine import REPOSITORY, library, log_softmax, skip

try:
    import gguf
    from llamacpp import LlamaCpp, quantise
    import torch
    from transformers import GPT2Config, LlamaConfig, MixtralConfig, Olmo2Config, Qwen2Config
except ImportError as missing:
    skip(missing)

sys.path.insert(0, str(REPOSITORY / "tests/golden"))
from make.gguf_files import write_gguf  # noqa: E402
from make.models import random_model  # noqa: E402

# Name, ENGINE_WEIGHTS_..., llama.cpp's file type.
TYPES = [("Q8_0", 3, 7), ("Q6_K", 7, 18), ("Q5_K", 6, 16), ("Q4_K_M", 8, 15), ("Q4_K", 4, 14), ("Q4_0", 5, 2)]
SIZES = dict(vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=16, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2)
MODELS = {
    "llama": lambda: LlamaConfig(**SIZES),
    "llama, odd rows": lambda: LlamaConfig(**SIZES | dict(hidden_size=160, intermediate_size=200)),
    "qwen2, tied": lambda: Qwen2Config(**SIZES, tie_word_embeddings=True),
    "olmo2": lambda: Olmo2Config(**SIZES),
    "gpt2": lambda: GPT2Config(vocab_size=512, n_embd=256, n_layer=16, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2),
    "mixtral": lambda: MixtralConfig(**SIZES, num_local_experts=8, num_experts_per_tok=2),
}


def types(path):
    return {tensor.name: (tensor.tensor_type.name, tuple(tensor.shape)) for tensor in gguf.GGUFReader(path).tensors}


def weight_error(path, exact):
    """Root mean square of the error of all weights."""
    errors = [gguf.dequantize(t.data, t.tensor_type).ravel() - exact[t.name] for t in gguf.GGUFReader(path).tensors]
    return float(np.sqrt(np.mean(np.concatenate(errors).astype(np.float64) ** 2)))


def logits(path, tokens):
    model = LlamaCpp(path)
    out = log_softmax(model.feed(tokens, all_logits=True))
    model.close()
    return out


def compare(name, source, folder):
    lib, bad = library(), []
    tokens = np.random.default_rng(1).integers(3, 500, 200)
    exact = logits(source, tokens)
    weights = {t.name: gguf.dequantize(t.data, t.tensor_type).ravel() for t in gguf.GGUFReader(source).tensors}
    for type_name, number, file_type in TYPES:
        ours, theirs = folder / "ours.gguf", folder / "theirs.gguf"
        status = lib.engine_quantize(str(source).encode(), str(ours).encode(), ctypes.c_int32(number), None)
        if status != 0:
            raise RuntimeError(lib.engine_last_error_message().decode())
        quantise(source, theirs, file_type, pure=False)
        expected = types(theirs)
        differ = [f"{tensor}: {found}, not {expected[tensor]}" for tensor, found in types(ours).items() if expected[tensor] != found]
        kl = [float((np.exp(exact) * (exact - logits(path, tokens))).sum(-1).mean()) for path in (ours, theirs)]
        errors = [weight_error(path, weights) for path in (ours, theirs)]
        sizes = [path.stat().st_size for path in (ours, theirs)]
        print(f"{name:16}{type_name:7} KL {kl[0]:.3e} / {kl[1]:.3e}   error of the weights {errors[0]:.3e} / {errors[1]:.3e}   "
              f"bytes {sizes[0]} / {sizes[1]}  {'; '.join(differ[:3])}", flush=True)
        if differ or sizes[0] != sizes[1] or errors[0] > errors[1] or kl[0] > 2 * kl[1]:
            bad.append(f"{name} {type_name}")
    return bad


def main():
    bad = []
    print("llama.cpp's logits from the file of engine_quantize / of its own quantisation, against those of the f32 file")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, config in MODELS.items():
            torch.manual_seed(3)
            source = folder / "source.gguf"
            write_gguf(source, random_model(config()), torch.float32, True)
            bad += compare(name, source, folder)
        stories = REPOSITORY / "../shared/models/stories260k/stories260k-f32.gguf"
        if stories.exists():
            bad += compare("stories260k", stories, folder)
        else:
            print(f"stories260k skipped: there is no {stories}")
    if bad:
        sys.exit("FAILED: " + ", ".join(bad))


if __name__ == "__main__":
    main()
