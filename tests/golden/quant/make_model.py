#!/usr/bin/env python3
"""Makes `mixed.gguf` beside this file, a tiny Llama whose matrices are of every block type, and what to expect of it:

    mixed.tokens.json   the tokens to feed
    mixed.npy           f32 [tokens, vocabulary]: transformers in f32 from the dequantised weights
    mixed.noise.json    how far its logits move (relative, in the L2 norm) when every linear's input is rounded to 8 bits

    pip install torch transformers gguf numpy && python3 tests/golden/quant/make_model.py
"""
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).resolve().parent
VOCAB, HIDDEN, FFN, HEADS, KV_HEADS, HEAD = 96, 256, 288, 4, 1, 64
TYPES = {
    "token_embd": "Q6_K", "output": "TQ1_0",
    "blk.0.attn_q": "Q4_K", "blk.0.attn_k": "Q8_0", "blk.0.attn_v": "Q6_K", "blk.0.attn_output": "Q5_K",
    "blk.0.ffn_gate": "Q2_K", "blk.0.ffn_up": "Q3_K", "blk.0.ffn_down": "Q4_0",
    "blk.1.attn_q": "Q4_1", "blk.1.attn_k": "TQ2_0", "blk.1.attn_v": "Q5_1", "blk.1.attn_output": "IQ4_NL",
    "blk.1.ffn_gate": "IQ4_XS", "blk.1.ffn_up": "MXFP4", "blk.1.ffn_down": "Q5_0",
}
# Types that the package only dequantises: where the scale is, where that of the mins is, and how many times as large it has
# to be for a mean of zero.
SCALES = {"Q2_K": (80, 82, 1.5), "Q3_K": (108,), "Q4_K": (0, 2, 7.5), "Q5_K": (0, 2, 15.5), "Q6_K": (208,), "IQ4_NL": (0,),
          "IQ4_XS": (0,)}
rng = np.random.default_rng(8)
assert set(TYPES.values()) >= set(SCALES) and len(set(TYPES.values())) == 15


def matrix(name, rows, cols):
    """A random matrix in its type: its bytes, its type, and what it is in f32."""
    qtype = gguf.GGMLQuantizationType[TYPES[name]]
    deviation = 1.0 if name == "token_embd" else 1.3 / cols**0.5
    if TYPES[name] not in SCALES:
        blocks = quantize(rng.normal(0, deviation, (rows, cols)).astype(np.float32), qtype)
    else:
        n, size = gguf.GGML_QUANT_SIZES[qtype]
        blocks = rng.integers(0, 256, (rows * cols // n, size), np.uint8)
        at, *mins = SCALES[TYPES[name]]

        def set_scale(d):
            blocks[:, at : at + 2] = np.array([d], np.float16).view(np.uint8)
            if mins:
                blocks[:, mins[0] : mins[0] + 2] = np.array([d * mins[1]], np.float16).view(np.uint8)

        set_scale(1)
        set_scale(deviation / dequantize(blocks, qtype).std())
        blocks = blocks.reshape(rows, -1)
    return blocks, qtype, dequantize(blocks, qtype).astype(np.float32)


def rounded(x):
    """What the engine makes of a linear's input: 256 share a scale, each 32 a factor from 1 to 63."""
    rows = x.reshape(-1, x.shape[-1])
    rows = torch.nn.functional.pad(rows, (0, -rows.shape[1] % 256))
    blocks = rows.reshape(len(rows), -1, 8, 32)
    largest = blocks.abs().amax(-1, keepdim=True)
    scale = largest.amax(-2, keepdim=True) / (127 * 63)
    step = scale * torch.ceil(largest / (127 * scale)).clamp(1, 63)
    return ((blocks / step).round() * step).reshape(len(rows), -1)[:, : x.shape[-1]].reshape(x.shape)


def rope_order(w, heads):
    """llama.cpp's files have pairs side by side, transformers has them half a head apart."""
    return w.reshape(heads, HEAD // 2, 2, -1).swapaxes(1, 2).reshape(heads * HEAD, -1)


def main():
    writer = gguf.GGUFWriter(HERE / "mixed.gguf", "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(2)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    config = LlamaConfig(vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=2, num_attention_heads=HEADS,
                         num_key_value_heads=KV_HEADS, head_dim=HEAD, rms_norm_eps=1e-5, max_position_embeddings=128,
                         rope_theta=10000.0, tie_word_embeddings=False)
    model = LlamaForCausalLM(config).eval().float()
    state = model.state_dict()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for key, p in state.items():
        name = names.get_name(key, try_suffixes=(".weight",))
        stem = name.removesuffix(".weight")
        if p.ndim == 1:
            value = (1 + 0.4 * rng.normal(size=p.shape)).astype(np.float32)
            writer.add_tensor(name, value)
        else:
            blocks, qtype, value = matrix(stem, *p.shape)
            writer.add_tensor(name, blocks, raw_dtype=qtype)
            if stem.endswith(("attn_q", "attn_k")):
                value = rope_order(value, p.shape[0] // HEAD)
        p.copy_(torch.from_numpy(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    tokens = rng.integers(0, VOCAB, 40).tolist()
    with torch.no_grad():
        exact = model(torch.tensor([tokens])).logits[0]
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(lambda _, args: (rounded(args[0]),))
        noisy = model(torch.tensor([tokens])).logits[0]
    noise = ((noisy - exact).norm() / exact.norm()).item()
    assert 1e-3 < noise < 3e-2, noise
    np.save(HERE / "mixed.npy", exact.numpy().astype("<f4"))
    (HERE / "mixed.tokens.json").write_text(json.dumps(tokens) + "\n")
    (HERE / "mixed.noise.json").write_text(json.dumps(noise) + "\n")
    print("noise", noise, "largest logit", exact.abs().max().item())


main()
