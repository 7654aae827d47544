"""Gemma 1, 2 and 3 (text): norms of 1 + w, a scaled embedding, caps, windows, two ropes."""
import torch
from transformers import Gemma2Config, Gemma3TextConfig, GemmaConfig

from .cases import case
from .files import edit_config, hf
from .llama import WINDOW
from .models import lean, scaled, without

FULL, SLIDING = "full_attention", "sliding_attention"


def no_embedding_scale(model):
    model.model.embed_tokens.embed_scale.fill_(1.0)


def exact_gelu(model):
    """Gemma 1's config cannot say it: "gelu" is read as the other one."""
    for layer in model.model.layers:
        layer.mlp.act_fn = torch.nn.GELU()


def gemma_wrong(activation):
    return {"eps": {"rms_norm_eps": 1e-5}, "gelu": exact_gelu, "silu": {activation: "silu"},
            "1 + w": scaled("norm.weight", 1, -1.0), "embedding scale": no_embedding_scale}


THETA = {"theta": {"rope_parameters": {"rope_theta": 10000.0}}}
SMALL = {"vocab_size": 53, "hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 10, "max_position_embeddings": 256, "rms_norm_eps": 1e-2}
ROPE = {"rope_theta": 1000.0, "rope_type": "default"}


# ---- Gemma 1 ----


def gemma(**settings):
    return GemmaConfig(**{**SMALL, "rope_parameters": dict(ROPE), "rms_norm_eps": 0.1, **settings})


@case("gemma-4", 1001)
def _(folder):
    """As gemma-2b once was: hidden_act says gelu, and gelu_pytorch_tanh is meant; no hidden_activation."""
    model = hf(folder, gemma(), 4, mend=lean)
    edit_config(folder, lambda d: d.update(hidden_act="gelu"))
    return model, {**gemma_wrong("hidden_act"), **THETA}


@case("gemma-hidden-activation", 1002)
def _(folder):
    """As gemma-2b now is: hidden_activation beside hidden_act; more kv heads; bf16."""
    config = gemma(num_attention_heads=4, num_key_value_heads=4, head_dim=6)
    model = hf(folder, config, 4, dtype=torch.bfloat16, mend=lean)
    edit_config(folder, lambda d: d.update(hidden_act="gelu", hidden_activation="gelu_pytorch_tanh"))
    return model, {**gemma_wrong("hidden_act"), **THETA}


@case("gemma-5", 1003)
def _(folder):
    model = hf(folder, gemma(num_key_value_heads=2, head_dim=14), 5, dtype=torch.float16, mend=lean)
    return model, {**gemma_wrong("hidden_act"), **THETA}


# ---- Gemma 2 ----


def gemma2(**settings):
    return Gemma2Config(**{**SMALL, "rope_parameters": dict(ROPE), "sliding_window": 20, "query_pre_attn_scalar": 17,
                           "attn_logit_softcapping": 2.5, "final_logit_softcapping": 3.0, **settings})


GEMMA2 = {**gemma_wrong("hidden_activation"), **THETA, **WINDOW, "query_pre_attn_scalar": {"query_pre_attn_scalar": 10},
          "attention cap": {"attn_logit_softcapping": None}, "final cap": {"final_logit_softcapping": None},
          "attention cap's value": {"attn_logit_softcapping": 3.0}, "final cap's value": {"final_logit_softcapping": 3.3},
          "windows": {"layer_types": [FULL, SLIDING]}, "all windows": {"layer_types": [SLIDING, SLIDING]},
          "norm after attention": without("post_attention_layernorm"),
          "norm after the MLP": without("post_feedforward_layernorm")}


@case("gemma2-4", 1011, n_tokens=150)
def _(folder):
    """As gemma-2-2b: the first of two layers has the window, which no config said; hidden_act beside hidden_activation."""
    model = hf(folder, gemma2(), 4, legacy=lambda d: d.pop("layer_types"), mend=lean)
    edit_config(folder, lambda d: d.update(hidden_act="gelu_pytorch_tanh", cache_implementation="hybrid"))
    return model, GEMMA2


@case("gemma2-5", 1012, n_tokens=203)
def _(folder):
    """The layer types are spelled out, and others; bf16."""
    config = gemma2(num_hidden_layers=3, layer_types=[FULL, SLIDING, FULL], num_key_value_heads=2)
    wrong = {**GEMMA2, "windows": {"layer_types": [SLIDING, FULL, SLIDING]}, "all windows": {"layer_types": [SLIDING] * 3}}
    return hf(folder, config, 5, dtype=torch.bfloat16, mend=lean), wrong


@case("gemma2-no-caps", 1013, n_tokens=100)
def _(folder):
    """Caps that are null; f16."""
    config = gemma2(attn_logit_softcapping=None, final_logit_softcapping=None, head_dim=12, query_pre_attn_scalar=4)
    wrong = {k: v for k, v in GEMMA2.items() if "cap" not in k}
    wrong |= {"attention cap": {"attn_logit_softcapping": 50.0}, "final cap": {"final_logit_softcapping": 30.0}}
    return hf(folder, config, 4, dtype=torch.float16, legacy=lambda d: d.pop("layer_types"), mend=lean), wrong


# ---- Gemma 3, text ----


def gemma3(rope=None, **settings):
    rope = {FULL: {"rope_theta": 5000.0, "rope_type": "default", **(rope or {})},
            SLIDING: {"rope_theta": 300.0, "rope_type": "default"}}
    return Gemma3TextConfig(**{**SMALL, "num_hidden_layers": 4, "rope_parameters": rope, "sliding_window": 20,
                               "query_pre_attn_scalar": 17, **settings})


def gemma3_wrong(pattern, **more):
    return {**gemma_wrong("hidden_activation"), **WINDOW, "query_pre_attn_scalar": {"query_pre_attn_scalar": 10},
            "q_norm": without("q_norm"), "k_norm": without("k_norm"), "pattern": {"layer_types": pattern},
            "local theta": {"rope_parameters": {SLIDING: {"rope_theta": 5000.0}}},
            "global theta": {"rope_parameters": {FULL: {"rope_theta": 300.0}}},
            "norm after attention": without("post_attention_layernorm"),
            "norm after the MLP": without("post_feedforward_layernorm"), **more}


LINEAR = {"rope_type": "linear", "factor": 8.0}
SCALING = {"global scaling": {"rope_parameters": {FULL: {"rope_type": "default"}}},
           "local scaling": {"rope_parameters": {SLIDING: LINEAR}}}


def gemma3_4(d):
    """Two thetas, and one scaling, which the global layers alone use."""
    rope = d.pop("rope_parameters")
    d["rope_theta"], d["rope_local_base_freq"] = rope[FULL].pop("rope_theta"), rope[SLIDING]["rope_theta"]
    d["rope_scaling"] = None if rope[FULL]["rope_type"] == "default" else rope[FULL]


@case("gemma3-4", 1021, n_tokens=150)
def _(folder):
    """As gemma-3-4b's text part: the pattern as a number, here 3 where nothing says 6; linear scaling."""
    config = gemma3(LINEAR, layer_types=[SLIDING, SLIDING, FULL, SLIDING])

    def legacy(d):
        gemma3_4(d)
        del d["layer_types"]
        d["sliding_window_pattern"] = 3

    return hf(folder, config, 4, legacy=legacy, mend=lean), gemma3_wrong([SLIDING] * 4, **SCALING)


@case("gemma3-default-pattern", 1022, n_tokens=100)
def _(folder):
    """Neither layer types nor a pattern: the sixth layer is global; f16."""
    config = gemma3(num_hidden_layers=7)
    wrong = gemma3_wrong([SLIDING] * 7)
    return hf(folder, config, 4, dtype=torch.float16, legacy=lambda d: (gemma3_4(d), d.pop("layer_types")), mend=lean), wrong


@case("gemma3-5", 1023, n_tokens=150)
def _(folder):
    """Rope per layer type; caps, which the config has and no checkpoint uses (the attention's is ignored by transformers too);
    bf16."""
    config = gemma3(LINEAR, num_key_value_heads=2, layer_types=[FULL, SLIDING, SLIDING, FULL], final_logit_softcapping=3.0)
    wrong = gemma3_wrong([SLIDING, SLIDING, SLIDING, FULL], **SCALING, **{"final cap": {"final_logit_softcapping": None}})
    return hf(folder, config, 5, dtype=torch.bfloat16, mend=lean), wrong
