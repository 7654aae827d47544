"""GGUF, as llama.cpp's converter writes it (conversion/*.py there): what is renamed, reordered, added and left out, family by
family."""
import math
from collections import defaultdict

import gguf
import numpy as np
import torch

from .files import saved
from .models import random_model

# ---- names ----

GLOBAL = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm",
    "transformer.word_embeddings": "token_embd",
    "gpt_neox.embed_in": "token_embd", "gpt_neox.final_layer_norm": "output_norm", "embed_out": "output",
}
LAYER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp", "block_sparse_moe.gate": "ffn_gate_inp",
    "experts.gate_proj": "ffn_gate_exps", "experts.up_proj": "ffn_up_exps", "experts.down_proj": "ffn_down_exps",
    "experts.w1": "ffn_gate_exps", "experts.w3": "ffn_up_exps", "experts.w2": "ffn_down_exps",
    "ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "attention.query_key_value": "attn_qkv", "attention.dense": "attn_output",
    "self_attention.query_key_value": "attn_qkv", "self_attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down", "ln_attn": "attn_norm_2", "ln_mlp": "attn_norm",
}
NORM_AFTER_ATTENTION = ("olmo2", "olmo3", "gemma2", "gemma3_text")


def gguf_name(name, family):
    stem, kind = name.rsplit(".", 1)
    if stem in GLOBAL:
        return f"{GLOBAL[stem]}.{kind}"
    layer, inner = stem.split(".", 3)[2], stem.split(".", 3)[3]
    if inner == "post_attention_layernorm" and family in NORM_AFTER_ATTENTION:
        return f"blk.{layer}.post_attention_norm.{kind}"
    return f"blk.{layer}.{LAYER[inner]}.{kind}"


# ---- tensors ----


def interleaved(tensor, heads):
    """Rows of each head from half-split order (0, d/2, …) to pairs of neighbours (0, 1, …): llama.cpp's order for Llama."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


INTERLEAVED = ("llama", "mistral", "mixtral", "olmo", "granite", "smollm3")


def q_then_k_then_v(tensor, groups, queries):
    """Rows that lie group by group (its queries, its key, its value) reordered: all queries, all keys, all values."""
    parts = tensor.unflatten(0, (groups, queries + 2, -1))
    return torch.cat([parts[:, :-2].flatten(0, 2), parts[:, -2].flatten(0, 1), parts[:, -1].flatten(0, 1)])


def reordered(name, tensor, c):
    """The tensor in the order of rows, and with the values, that the file has."""
    family = c.model_type
    if family == "gpt2" and tensor.dim() == 2 and ".h." in name:
        return tensor.T  # Conv1D keeps [in, out]
    if family in INTERLEAVED and (".q_proj." in name or ".k_proj." in name):
        return interleaved(tensor, c.num_attention_heads if ".q_proj." in name else c.num_key_value_heads)
    if family.startswith("gemma") and name.endswith("norm.weight"):
        return tensor + 1
    if family == "gpt_neox" and "query_key_value" in name:
        return q_then_k_then_v(tensor, c.num_attention_heads, 1)
    if family == "falcon" and "query_key_value" in name:
        groups = c.num_kv_heads if c.new_decoder_architecture else 1
        return q_then_k_then_v(tensor, groups, c.num_attention_heads // groups)
    return tensor


def experts_stacked(tensors):
    """Each expert's own matrices become one of [experts, rows, columns]."""
    out, experts = {}, defaultdict(dict)
    for name, tensor in tensors.items():
        head, found, tail = name.partition(".experts.")
        if found:
            number, matrix = tail.split(".", 1)
            layer = head.rsplit(".", 1)[0]
            experts[f"{layer}.experts.{matrix}"][int(number)] = tensor
        else:
            out[name] = tensor
    return out | {name: torch.stack([each[i] for i in range(len(each))]) for name, each in experts.items()}


def rope_factors(c):
    """Not metadata but tensors: what each frequency is divided by."""
    rope = getattr(c, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        return {f"rope_factors_{kind}.weight": torch.tensor(rope[f"{kind}_factor"]) for kind in ("long", "short")}
    if rope.get("rope_type") != "llama3":
        return {}
    theta, original, head_dim = rope["rope_theta"], rope["original_max_position_embeddings"], c.head_dim
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    divide = []
    for i in range(0, head_dim, 2):
        turns = original / (2 * np.pi * theta ** (i / head_dim))
        smooth = min(1.0, max(0.0, (turns - low) / (high - low)))
        divide.append(1 / ((1 - smooth) / factor + smooth))
    return {"rope_freqs.weight": torch.from_numpy(np.array(divide, np.float32))}


def is_always_f32(name, dimensions):
    """By the name in the file."""
    return dimensions == 1 or name.endswith(("_norm.weight", "ffn_gate_inp.weight", "position_embd.weight"))


def converted(model):
    """Name to tensor, as the file has them."""
    c = model.config
    tensors = experts_stacked(saved(model))
    return rope_factors(c) | {gguf_name(name, c.model_type): reordered(name, t, c).contiguous() for name, t in tensors.items()}


# ---- metadata ----

ARCHITECTURE = {"mistral": "llama", "mixtral": "llama", "olmo3": "olmo2", "gemma3_text": "gemma3", "gpt_neox": "gptneox",
                "cohere": "command-r", "qwen3_moe": "qwen3moe"}


def write_metadata(w, c, dtype):
    """What every family has, then what a family adds."""
    w.add_context_length(2048 if c.model_type == "falcon" else c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_head_count(c.num_attention_heads)
    w.add_file_type({torch.float32: 0, torch.float16: 1, torch.bfloat16: 32}[dtype])
    FAMILIES.get(c.model_type, usual)(w, c)


def gpt2(w, c):
    w.add_feed_forward_length(4 * c.n_embd)
    w.add_layer_norm_eps(c.layer_norm_epsilon)


def shape(w, c):
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count_kv(c.num_key_value_heads)
    if hasattr(c, "rms_norm_eps"):
        w.add_layer_norm_rms_eps(c.rms_norm_eps)


def head_dim(w, c):
    if getattr(c, "head_dim", None):
        w.add_key_length(c.head_dim)
        w.add_value_length(c.head_dim)


def full_rope(c):
    """What the layers without a window have."""
    return c.rope_parameters.get("full_attention", c.rope_parameters)


def rope_base(w, c):
    w.add_rope_freq_base(full_rope(c)["rope_theta"])
    if "sliding_attention" in c.rope_parameters:
        w.add_rope_freq_base_swa(c.rope_parameters["sliding_attention"]["rope_theta"])


def rope_scaling(w, c):
    rope = full_rope(c)
    if rope["rope_type"] in ("linear", "yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        w.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for key, add in (("attention_factor", w.add_rope_scaling_yarn_attn_factor),
                         ("beta_fast", w.add_rope_scaling_yarn_beta_fast),
                         ("beta_slow", w.add_rope_scaling_yarn_beta_slow)):
            if key in rope:
                add(rope[key])


def usual(w, c):
    shape(w, c)
    rope_base(w, c)
    head_dim(w, c)
    rope_scaling(w, c)


def llama(w, c):
    shape(w, c)
    w.add_vocab_size(c.vocab_size)
    rope_base(w, c)
    w.add_rope_dimension_count(getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads)
    head_dim(w, c)
    rope_scaling(w, c)


def mixture(w, c):
    w.add_expert_count(c.num_experts)
    w.add_expert_used_count(c.num_experts_per_tok)


def mixtral(w, c):
    llama(w, c)
    mixture(w, c)


def qwen3_moe(w, c):
    usual(w, c)
    mixture(w, c)
    w.add_expert_feed_forward_length(c.moe_intermediate_size)


def olmoe(w, c):
    usual(w, c)
    mixture(w, c)


def olmo(w, c):
    usual(w, c)
    w.add_layer_norm_eps(1e-5)
    if c.clip_qkv is not None:
        w.add_clamp_kqv(c.clip_qkv)


def olmo3(w, c):
    usual(w, c)
    w.add_sliding_window(c.sliding_window)
    w.add_sliding_window_pattern([kind == "sliding_attention" for kind in c.layer_types])


def gemma(w, c):
    """The base of rope is not written."""
    shape(w, c)
    head_dim(w, c)


def gemma2(w, c):
    """Nor are the scale of the attention and the pattern: the reader knows them."""
    gemma(w, c)
    w.add_attn_logit_softcapping(c.attn_logit_softcapping)
    w.add_final_logit_softcapping(c.final_logit_softcapping)
    w.add_sliding_window(c.sliding_window)


def gemma3(w, c):
    usual(w, c)
    if c.final_logit_softcapping:
        w.add_final_logit_softcapping(c.final_logit_softcapping)
    w.add_sliding_window(c.sliding_window)


def granite(w, c):
    llama(w, c)
    w.add_attention_scale(c.attention_multiplier)
    w.add_embedding_scale(c.embedding_multiplier)
    w.add_residual_scale(c.residual_multiplier)
    w.add_logit_scale(c.logits_scaling)


def phi3(w, c):
    """A window of 0 where there is none; the scaling's kind is not written, its tensors tell."""
    shape(w, c)
    w.add_rope_freq_base(c.rope_parameters["rope_theta"])
    w.add_rope_scaling_orig_ctx_len(c.original_max_position_embeddings)
    w.add_rope_dimension_count(int(c.rope_parameters["partial_rotary_factor"] * c.hidden_size) // c.num_attention_heads)
    w.add_sliding_window(c.sliding_window or 0)
    if c.rope_parameters["rope_type"] == "longrope":
        scale = c.max_position_embeddings / c.original_max_position_embeddings
        longer = math.log(scale) / math.log(c.original_max_position_embeddings) if scale > 1 else 0.0
        w.add_rope_scaling_attn_factors(math.sqrt(1 + longer))


def gpt_neox(w, c):
    """The base of rope is not written."""
    w.add_feed_forward_length(c.intermediate_size)
    w.add_rope_dimension_count(int(c.rope_parameters["partial_rotary_factor"] * (c.hidden_size // c.num_attention_heads)))
    w.add_parallel_residual(c.use_parallel_residual)
    w.add_layer_norm_eps(c.layer_norm_eps)


def falcon(w, c):
    """The context is always 2048 and the MLP four times as wide; the base of rope is not written."""
    w.add_tensor_data_layout("jploski")
    w.add_feed_forward_length(4 * c.hidden_size)
    w.add_head_count_kv(c.num_kv_heads if c.new_decoder_architecture else 1)
    w.add_layer_norm_eps(c.layer_norm_epsilon)


def cohere(w, c):
    usual(w, c)
    w.add_layer_norm_eps(c.layer_norm_eps)
    w.add_logit_scale(c.logit_scale)
    w.add_rope_scaling_type(gguf.RopeScalingType.NONE)


def cohere2(w, c):
    cohere(w, c)
    w.add_sliding_window(c.sliding_window)
    w.add_vocab_size(c.vocab_size)
    w.add_rope_dimension_count(c.head_dim)


FAMILIES = {"gpt2": gpt2, "llama": llama, "mistral": llama, "mixtral": mixtral, "smollm3": llama, "granite": granite,
            "olmo": olmo, "olmo3": olmo3, "olmoe": olmoe, "qwen3_moe": qwen3_moe, "gemma": gemma, "gemma2": gemma2,
            "gemma3_text": gemma3, "phi3": phi3, "gpt_neox": gpt_neox, "falcon": falcon, "cohere": cohere,
            "cohere2": cohere2}


def write_gguf_tokens(w, n):
    tokens = ["<unk>", "<s>", "</s>", "▁"] + [f"▁w{i}" for i in range(4, n)]
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    w.add_token_scores([-float(i) for i in range(n)])
    w.add_token_types([2, 3, 3] + [1] * (n - 3))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)


# ---- the file ----


def write_gguf(path, model, dtype=torch.float32, tokens=False):
    c = model.config
    w = gguf.GGUFWriter(path, ARCHITECTURE.get(c.model_type, c.model_type))
    write_metadata(w, c, dtype)
    if tokens:
        write_gguf_tokens(w, c.vocab_size)
    for name, tensor in converted(model).items():
        if dtype == torch.float32 or is_always_f32(name, tensor.dim()):
            w.add_tensor(name, tensor.numpy())
        elif dtype == torch.float16:
            w.add_tensor(name, tensor.half().numpy())
        else:
            w.add_tensor(name, tensor.bfloat16().view(torch.uint16).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def gguf_case(folder, config, wrong, dtype=torch.float32, tokens=False, **random):
    """The oracle has the values of the file: only what is written in 16 bits is rounded to it."""
    model = random_model(config, **random)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1 and not name.endswith(("norm.weight", "mlp.gate.weight", "wpe.weight")):
                p.copy_(p.to(dtype).float())
    write_gguf(folder / "model.gguf", model, dtype, tokens)
    return model, wrong
