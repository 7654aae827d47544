#!/usr/bin/env python3
"""Logits from quantised weights, here and in llama.cpp, both against f32 logits of the same weights dequantised.

    python3 benches/peers/quant_logits.py [TYPE ...]

Tiny random models of four families, quantised by llama.cpp to each type that it can make. The f32 logits are this library's with
weights converted to f32, which the golden tests compare with transformers. What separates the two rows is how each program rounds the
activations, so ours may be no worse: the script fails where our KL divergence is more than 1.25 times llama.cpp's, which is how far
two programs with the same rounding are apart by chance over so few positions (600, of three models).
"""
import sys
import tempfile
from pathlib import Path

import numpy as np
from engine import REPOSITORY, Engine, log_softmax, skip

try:
    import gguf  # noqa: F401
    from llamacpp import LlamaCpp, quantise
    import torch
    from transformers import GPT2Config, LlamaConfig, Olmo2Config, Qwen2Config
except ImportError as missing:
    skip(missing)

sys.path.insert(0, str(REPOSITORY / "tests/golden"))
from make.gguf_files import write_gguf  # noqa: E402
from make.models import random_model  # noqa: E402

# Name of the type and llama.cpp's number of the file type that is that type throughout.
TYPES = {"Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9, "Q8_0": 7, "Q2_K": 10, "Q3_K": 12, "Q4_K": 15, "Q5_K": 17, "Q6_K": 18,
         "IQ4_NL": 25, "IQ4_XS": 30, "TQ1_0": 36, "TQ2_0": 37, "MXFP4": 38}
SIZES = dict(vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=256, bos_token_id=1, eos_token_id=2)
MODELS = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "olmo2": lambda: Olmo2Config(**SIZES),
    "gpt2": lambda: GPT2Config(vocab_size=512, n_embd=256, n_layer=3, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2),
}
N_TOKENS, SEEDS = 200, range(3)


def measure(logits, exact):
    """1 - cosine of all logits, mean KL divergence over the positions."""
    cosine = (logits * exact).sum() / np.sqrt((logits**2).sum() * (exact**2).sum())
    p, q = log_softmax(exact), log_softmax(logits)
    return np.array([1 - float(cosine), float((np.exp(p) * (p - q)).sum(-1).mean())])


def run(model, tokens, one_by_one):
    model.reset()
    if one_by_one:
        return np.concatenate([model.feed([token]) for token in tokens])
    return model.feed(tokens, all_logits=True)


def compare(source, type_name, tokens):
    """For prefill and decode: what `measure` gives of both programs."""
    path = source.with_name(f"{source.stem}-{type_name}.gguf")
    quantise(source, path, TYPES[type_name])
    exact = Engine(path, "f32").feed(tokens, all_logits=True)
    found = []
    for program in (Engine, LlamaCpp):
        model = program(path)
        found.append([measure(run(model, tokens, one_by_one), exact) for one_by_one in (False, True)])
        model.close()
    path.unlink()
    return np.array(found)


def main():
    names = sys.argv[1:] or list(TYPES)
    worse = []
    print("engine / llama.cpp")
    with tempfile.TemporaryDirectory() as folder:
        for family, config in MODELS.items():
            sources = []
            for seed in SEEDS:
                torch.manual_seed(seed)
                sources.append(Path(folder) / f"{family}-{seed}.gguf")
                write_gguf(sources[-1], random_model(config()), torch.float32, True)
            tokens = np.random.default_rng(7).integers(3, 512, N_TOKENS)
            for name in names:
                ours, theirs = np.mean([compare(source, name, tokens) for source in sources], axis=0)
                for i, how in enumerate(("prefill", "decode")):
                    ((cosine, kl), (their_cosine, their_kl)) = ours[i], theirs[i]
                    print(f"{family:6} {name:7} {how:8} 1-cosine {cosine:8.2e} / {their_cosine:8.2e}   KL {kl:8.2e} / {their_kl:8.2e}", flush=True)
                    if kl > 1.25 * their_kl:
                        worse.append(f"{family} {name} {how}: KL {kl:.2e}, llama.cpp {their_kl:.2e}")
    print("\n".join(["worse than llama.cpp:", *worse] if worse else ["nowhere worse than llama.cpp"]))
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
