"""GPT-NeoX, Falcon and Cohere: attention and MLP beside each other."""
import torch
from transformers import Cohere2Config, CohereConfig, FalconConfig, GPTNeoXConfig

from .cases import case
from .files import hf
from .gemma import FULL, SLIDING
from .llama import USUAL
from .models import without, zeroed

# ---- GPT-NeoX ----


def neox(partial=0.25, theta=1000.0, **settings):
    rope = {"rope_theta": theta, "rope_type": "default", "partial_rotary_factor": partial}
    return GPTNeoXConfig(**{"vocab_size": 61, "hidden_size": 32, "intermediate_size": 46, "num_hidden_layers": 2,
                            "num_attention_heads": 2,
                            "max_position_embeddings": 64, "layer_norm_eps": 1e-2, "hidden_act": "gelu", "rope_parameters": rope,
                            **settings})


def split_wrongly(model):
    """The fused projection's rows taken as all heads' q, then k, then v; they are q, k, v of each head in turn."""
    heads = model.config.num_attention_heads
    for name, p in model.named_parameters():
        if "query_key_value" in name:
            p.copy_(p.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2))


NEOX = {"eps": {"layer_norm_eps": 1e-5}, "theta": USUAL["theta"], "gelu": {"hidden_act": "gelu_new"}, "q, k and v": split_wrongly,
        "partial": {"rope_parameters": {"partial_rotary_factor": 1.0}}, "parallel": {"use_parallel_residual": False},
        **zeroed("dense_h_to_4h.bias", "dense_4h_to_h.bias", "input_layernorm.bias", "post_attention_layernorm.bias",
                 "final_layer_norm.bias")}
ATTENTION_BIASES = zeroed("query_key_value.bias", "attention.dense.bias")


def neox_4(d):
    d["rotary_pct"], d["rotary_emb_base"] = d.pop("partial_rotary_factor"), d.pop("rope_theta")


@case("gpt-neox-4", 1101)
def _(folder):
    """As Pythia: the causal mask and the frequencies among the tensors; no attention_bias in its config."""

    def rename(tensors):
        mask = {"bias": torch.tril(torch.ones(64, 64, dtype=torch.bool)).view(1, 1, 64, 64), "masked_bias": torch.tensor(-1e9),
                "rotary_emb.inv_freq": 1000.0 ** (-torch.arange(0, 4, 2) / 4)}
        return {**tensors, **{f"gpt_neox.layers.{i}.attention.{k}": v.clone() for i in range(2) for k, v in mask.items()}}

    return hf(folder, neox(), 4, legacy=neox_4, rename=rename, drop=("attention_bias",)), {**NEOX, **ATTENTION_BIASES}


@case("gpt-neox-serial-5", 1102)
def _(folder):
    """One after the other, as RedPajama-INCITE and StableLM-alpha; all of each head rotates; the other GELU by another name;
    bf16."""
    config = neox(partial=1.0, hidden_size=36, num_attention_heads=3, hidden_act="gelu_fast", use_parallel_residual=False)
    wrong = {**NEOX, **ATTENTION_BIASES, "parallel": {"use_parallel_residual": True}, "gelu": {"hidden_act": "gelu"},
             "partial": {"rope_parameters": {"partial_rotary_factor": 0.5}}}
    return hf(folder, config, 5, dtype=torch.bfloat16), wrong


@case("gpt-neox-no-bias", 1103)
def _(folder):
    """attention_bias false, tied, most of each head rotates; f16."""
    config = neox(partial=0.75, attention_bias=False, tie_word_embeddings=True)
    return hf(folder, config, 4, dtype=torch.float16, legacy=neox_4), NEOX


# ---- Falcon ----


def falcon(**settings):
    return FalconConfig(**{"vocab_size": 61, "hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3,
                           "num_kv_heads": None,
                           "max_position_embeddings": 96, "layer_norm_epsilon": 1e-2, "bos_token_id": 1, "eos_token_id": 2,
                           "ffn_hidden_size": 58, "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"}, **settings})


def lean(model):
    """A `mend`: the norm's bias and the MLP's weights for channel 0 take the MLP to where the GELUs differ; Falcon's MLP has no
    bias."""
    for name, p in model.named_parameters():
        if name.endswith("norm.bias") or name.endswith("ln_mlp.bias"):
            p[0] = 2.3
        elif name.endswith("dense_h_to_4h.weight"):
            p[:, 0] = -1.0


def one_after_the_other(name, sum_up):
    """The model with each layer's MLP fed, through norm `name`, with what attention made of the stream."""

    def mutate(model):
        layers = model.transformer.h if hasattr(model, "transformer") else model.model.layers
        for layer in layers:
            layer.forward = sum_up(layer, getattr(layer, name))

    return mutate


def falcon_serial(layer, norm):
    def forward(x, **more):
        middle = x + layer.self_attention(layer.input_layernorm(x) if hasattr(layer, "input_layernorm") else layer.ln_attn(x),
                                          **{k: v for k, v in more.items() if k != "cache_position"})[0]
        return middle + layer.mlp(norm(middle)), None

    return forward


def falcon_beside(layer, norm):
    def forward(x, **more):
        attention = layer.self_attention(layer.input_layernorm(x), **{k: v for k, v in more.items() if k != "cache_position"})[0]
        return x + attention + layer.mlp(norm(x)), None

    return forward


def one_norm(model):
    for layer in model.transformer.h:
        layer.ln_mlp = layer.ln_attn


def shared_by_neighbours(model):
    """The kv heads dealt out to the query heads in turn (0, 1, 0, 1, …); they are each for neighbours (0, 0, …, 1, 1, …)."""
    c = model.config
    per = c.num_attention_heads // c.num_kv_heads
    for layer in model.transformer.h:
        w = layer.self_attention.query_key_value.weight
        parts = w.unflatten(0, (c.num_kv_heads, per + 2, -1)).clone()
        q = parts[:, :per].flatten(0, 1)
        parts[:, :per] = q.unflatten(0, (per, c.num_kv_heads)).transpose(0, 1)
        w.copy_(parts.flatten(0, 2))


FALCON = {"eps": {"layer_norm_epsilon": 1e-5}, "theta": USUAL["theta"], "gelu": {"activation": "gelu_new"}}


@case("falcon-4", 1111)
def _(folder):
    """As Falcon-7B: one norm, one kv head, parallel; the tied head written out; no ffn_hidden_size, num_kv_heads or activation
    in its config."""
    config = falcon(ffn_hidden_size=None, hidden_size=30)
    wrong = {**FALCON, "parallel": one_after_the_other("input_layernorm", falcon_serial),
             **zeroed("input_layernorm.bias", "ln_f.bias")}
    drop = ("ffn_hidden_size", "num_kv_heads", "activation", "num_ln_in_parallel_attn", "tie_word_embeddings")

    def rename(tensors):
        return {**tensors, "lm_head.weight": tensors["transformer.word_embeddings.weight"].clone()}

    return hf(folder, config, 4, drop=drop, mend=lean, rename=rename), wrong


@case("falcon-new-5", 1112)
def _(folder):
    """As Falcon-40B: two norms, kv heads in groups; multi_query is to be ignored; bf16."""
    config = falcon(new_decoder_architecture=True, num_attention_heads=6, num_kv_heads=2, hidden_size=48)
    wrong = {**FALCON, "parallel": one_after_the_other("ln_mlp", falcon_serial), "two norms": one_norm,
             "groups": shared_by_neighbours, **zeroed("ln_attn.bias", "ln_mlp.bias", "ln_f.bias")}
    return hf(folder, config, 5, dtype=torch.bfloat16, mend=lean), wrong


@case("falcon-new-one-norm", 1113)
def _(folder):
    """As Falcon2-11B: the new form with one norm; untied, f16."""
    config = falcon(new_decoder_architecture=True, num_attention_heads=4, hidden_size=40, num_kv_heads=2,
                    num_ln_in_parallel_attn=1, tie_word_embeddings=False)
    wrong = {**FALCON, "groups": shared_by_neighbours, **zeroed("input_layernorm.bias", "ln_f.bias")}
    return hf(folder, config, 4, dtype=torch.float16, mend=lean), wrong


@case("falcon-serial-bias", 1114)
def _(folder):
    """As Falcon-RW, but rotary: one after the other, biases, a kv head for each head."""
    config = falcon(multi_query=False, parallel_attn=False, bias=True)
    wrong = {**FALCON, "parallel": one_after_the_other("post_attention_layernorm", falcon_beside), "q, k and v": split_wrongly,
             **zeroed("query_key_value.bias", "attention.dense.bias", "dense_h_to_4h.bias", "dense_4h_to_h.bias")}
    return hf(folder, config, 4), wrong


# ---- Cohere ----


def cohere(**settings):
    return CohereConfig(**{"vocab_size": 61, "hidden_size": 36, "intermediate_size": 42, "num_hidden_layers": 2,
                           "num_attention_heads": 3,
                           "num_key_value_heads": 1, "max_position_embeddings": 96, "layer_norm_eps": 1e-2, "logit_scale": 0.3,
                           "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"}, "bos_token_id": 1,
                           "eos_token_id": 2, "pad_token_id": None, **settings})


def cohere_serial(layer, norm):
    def forward(x, **more):
        middle = x + layer.self_attn(norm(x), **more)[0]
        return middle + layer.mlp(norm(middle))

    return forward


def rms_norms(model):
    """Norms that do not subtract the mean."""
    for m in model.modules():
        if type(m).__name__ in ("CohereLayerNorm", "Cohere2LayerNorm"):
            m.forward = lambda x, m=m: m.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.variance_epsilon)


def halves_rotated(model):
    """Pairs taken as (0, d/2), …; Cohere rotates neighbours, whatever the file."""
    head_dim = model.config.hidden_size // model.config.num_attention_heads
    for name, p in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            p.copy_(p.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2))


COHERE = {"eps": {"layer_norm_eps": 1e-5}, "theta": USUAL["theta"], "activation": USUAL["activation"],
          "logit_scale": {"logit_scale": 1.0},
          "parallel": one_after_the_other("input_layernorm", cohere_serial), "norm": rms_norms}


@case("cohere-4", 1121)
def _(folder):
    """As Command R: no use_qk_norm in its config, tied."""
    return hf(folder, cohere(), 4, drop=("use_qk_norm",)), {**COHERE, "pairs": halves_rotated}


@case("cohere-qk-norm-5", 1122)
def _(folder):
    """As Command R+: q and k normed per head, each head with its own weights; bf16."""

    def one_for_all_heads(model):
        for name, p in model.named_parameters():
            if "q_norm" in name or "k_norm" in name:
                p.copy_(p[0].expand_as(p))

    wrong = {**COHERE, "q_norm": without("q_norm"), "k_norm": without("k_norm"), "a norm per head": one_for_all_heads}
    return hf(folder, cohere(use_qk_norm=True, num_attention_heads=6, num_key_value_heads=2), 5, dtype=torch.bfloat16), wrong


@case("cohere-bias", 1123)
def _(folder):
    """Biases, untied; f16."""
    config = cohere(attention_bias=True, tie_word_embeddings=False, num_key_value_heads=3)
    wrong = {**COHERE, "pairs": halves_rotated, **zeroed("q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias")}
    return hf(folder, config, 4, dtype=torch.float16), wrong


# ---- Cohere 2 ----


def cohere2(**settings):
    return Cohere2Config(**{"vocab_size": 61, "hidden_size": 36, "intermediate_size": 42, "num_hidden_layers": 4,
                            "num_attention_heads": 3,
                            "num_key_value_heads": 1, "max_position_embeddings": 256, "layer_norm_eps": 1e-2, "logit_scale": 0.3,
                            "sliding_window": 20, "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"},
                            "bos_token_id": 1,
                            "eos_token_id": 2, "pad_token_id": None, **settings})


# A layer's type says both whether it has a window and whether it has RoPE.
COHERE2 = {**COHERE, "window": {"sliding_window": 64}, "no window": {"sliding_window": 256},
           "all layers": {"layer_types": 4 * [SLIDING]}}


def pattern_for_types(d):
    """The pattern was a number once."""
    del d["layer_types"]
    d["sliding_window_pattern"] = 4


@case("cohere2-4", 1131, n_tokens=150)
def _(folder):
    return hf(folder, cohere2(), 4, legacy=pattern_for_types, drop=("head_dim",)), {**COHERE2, "pairs": halves_rotated}


@case("cohere2-5", 1132, n_tokens=203)
def _(folder):
    """The layers as a list; biases, more kv heads; bf16."""
    config = cohere2(layer_types=[FULL, SLIDING, SLIDING, FULL], num_key_value_heads=3, attention_bias=True,
                     num_attention_heads=6)
    wrong = {**COHERE2, **zeroed("q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias"),
             "layers": {"layer_types": 3 * [SLIDING] + [FULL]}}
    return hf(folder, config, 5, dtype=torch.bfloat16), wrong
