"""GGUF, as llama.cpp's converter writes it."""
import gguf
import numpy as np
import torch

from .models import parameters, random_model

LAYER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}
OLMO2_LAYER = {**LAYER, "post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm",
               "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
GLOBAL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "transformer.wte": "token_embd",
          "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm"}


def gguf_name(name, family):
    stem, kind = name.rsplit(".", 1)
    if stem in GLOBAL:
        return f"{GLOBAL[stem]}.{kind}"
    layer, inner = stem.split(".", 3)[2], stem.split(".", 3)[3]
    return f"blk.{layer}.{(OLMO2_LAYER if family == 'olmo2' else LAYER)[inner]}.{kind}"


def interleaved(tensor, heads):
    """Rows of each head from half-split order (0, d/2, …) to pairs of neighbours (0, 1, …): llama.cpp's order for Llama."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def write_gguf(folder, model, dtype=torch.float32, tokens=False):
    c, family = model.config, model.config.model_type
    w = gguf.GGUFWriter(folder / "model.gguf", family)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_head_count(c.num_attention_heads)
    w.add_file_type({torch.float32: 0, torch.float16: 1, torch.bfloat16: 32}[dtype])
    if family == "gpt2":
        w.add_feed_forward_length(c.n_inner or 4 * c.n_embd)
        w.add_layer_norm_eps(c.layer_norm_epsilon)
    else:
        w.add_feed_forward_length(c.intermediate_size)
        w.add_head_count_kv(c.num_key_value_heads)
        w.add_layer_norm_rms_eps(c.rms_norm_eps)
        w.add_vocab_size(c.vocab_size)
        write_gguf_rope(w, c)
    if tokens:
        write_gguf_tokens(w, c.vocab_size)
    for name, tensor in parameters(model).items():
        if family == "gpt2" and tensor.dim() == 2 and ".h." in name:
            tensor = tensor.T  # Conv1D keeps [in, out]
        if family == "llama" and (".q_proj." in name or ".k_proj." in name):
            tensor = interleaved(tensor, c.num_attention_heads if ".q_proj." in name else c.num_key_value_heads)
        tensor = tensor.contiguous()
        if tensor.dim() == 1 or dtype == torch.float32:
            w.add_tensor(gguf_name(name, family), tensor.numpy())
        elif dtype == torch.float16:
            w.add_tensor(gguf_name(name, family), tensor.half().numpy())
        else:
            bits = tensor.bfloat16().view(torch.uint16).numpy()
            w.add_tensor(gguf_name(name, family), bits, raw_dtype=gguf.GGMLQuantizationType.BF16)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def write_gguf_rope(w, c):
    rope = c.rope_parameters
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    w.add_rope_freq_base(rope["rope_theta"])
    if c.model_type == "llama":
        w.add_rope_dimension_count(head_dim)
        w.add_key_length(head_dim)
        w.add_value_length(head_dim)
    if rope["rope_type"] in ("linear", "yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        w.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "llama3":
        # Not metadata but a tensor: what each frequency is divided by.
        theta, original = rope["rope_theta"], rope["original_max_position_embeddings"]
        low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
        divide = []
        for i in range(0, head_dim, 2):
            turns = original / (2 * np.pi * theta ** (i / head_dim))
            smooth = min(1.0, max(0.0, (turns - low) / (high - low)))
            divide.append(1 / ((1 - smooth) / factor + smooth))
        w.add_tensor("rope_freqs.weight", np.array(divide, np.float32))


def write_gguf_tokens(w, n):
    tokens = ["<unk>", "<s>", "</s>", "▁"] + [f"▁w{i}" for i in range(4, n)]
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    w.add_token_scores([-float(i) for i in range(n)])
    w.add_token_types([2, 3, 3] + [1] * (n - 3))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)


def gguf_case(folder, config, wrong, dtype=torch.float32, tokens=False, **random):
    """1-D tensors stay f32 in llama.cpp's 16-bit files, so only matrices are rounded."""
    model = random_model(config, **random)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.copy_(p.to(dtype).float())
    write_gguf(folder, model, dtype, tokens)
    return model, wrong
