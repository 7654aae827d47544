"""Qwen2 and Qwen3."""
import torch
from transformers import Qwen2Config, Qwen3Config

from .cases import case
from .files import edit_config, hf
from .llama import USUAL, WINDOW
from .models import without, zeroed

BIASES = zeroed("q_proj.bias", "k_proj.bias", "v_proj.bias")
FULL, SLIDING = "full_attention", "sliding_attention"


def qwen2(**settings):
    return Qwen2Config(**{"vocab_size": 61, "hidden_size": 30, "intermediate_size": 38, "num_hidden_layers": 2,
                          "num_attention_heads": 3,
                          "num_key_value_heads": 1, "max_position_embeddings": 256, "rms_norm_eps": 1e-2,
                          "tie_word_embeddings": True,
                          "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"}, **settings})


def qwen_4(d):
    """transformers 4 knew max_window_layers, and a window that use_sliding_window switches on."""
    d.pop("layer_types")
    d["sliding_window"] = d["sliding_window"] or 20


@case("qwen2-4", 701)
def _(folder):
    """As Qwen2.5-0.5B: tied, a window in the config that is not used."""
    return hf(folder, qwen2(), 4, legacy=qwen_4), {**USUAL, **BIASES, "window": {"use_sliding_window": True, "sliding_window": 20,
                                                                                 "layer_types": [SLIDING] * 2}}


@case("qwen2-window-4", 702, n_tokens=150)
def _(folder):
    """The layers from max_window_layers on have the window."""
    config = qwen2(num_hidden_layers=3, tie_word_embeddings=False, use_sliding_window=True, sliding_window=20,
                   max_window_layers=1)
    wrong = {**USUAL, **BIASES, **WINDOW, "first layers": {"layer_types": [SLIDING, FULL, FULL]},
             "all layers": {"layer_types": [SLIDING] * 3}}
    return hf(folder, config, 4, legacy=qwen_4), wrong


@case("qwen2-window-5", 703, n_tokens=150)
def _(folder):
    """layer_types says what max_window_layers does not."""
    config = qwen2(num_hidden_layers=3, use_sliding_window=True, sliding_window=20, max_window_layers=2,
                   layer_types=[SLIDING, FULL, SLIDING])
    wrong = {**USUAL, **BIASES, **WINDOW, "max_window_layers": {"layer_types": [FULL, FULL, SLIDING]}}
    return hf(folder, config, 5, dtype=torch.bfloat16), wrong


@case("qwen2-f16", 704)
def _(folder):
    config = qwen2(hidden_size=36, num_attention_heads=6, num_key_value_heads=2, tie_word_embeddings=False, vocab_size=67)
    return hf(folder, config, 5, dtype=torch.float16, shards=2), {**USUAL, **BIASES}


@case("qwen2-yarn-4", 705)
def _(folder):
    """As Qwen2.5's page says to lengthen the context: `type`, not `rope_type`."""
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40}
    model = hf(folder, qwen2(rope_parameters={"rope_theta": 1000.0, **scaling}, max_position_embeddings=160), 4, legacy=qwen_4)
    edit_config(folder, lambda d: d["rope_scaling"].update(type=d["rope_scaling"].pop("rope_type")))
    return model, {**USUAL, **BIASES, "scaling": {"rope_parameters": {"rope_type": "default"}},
                   "factor": {"rope_parameters": {"factor": 2.0}}}


# ---- Qwen3 ----

NORMS = {"q_norm": without("q_norm"), "k_norm": without("k_norm")}


def qwen3(**settings):
    return Qwen3Config(**{"vocab_size": 61, "hidden_size": 28, "intermediate_size": 36, "num_hidden_layers": 2,
                          "num_attention_heads": 4,
                          "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 256, "rms_norm_eps": 1e-2,
                          "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"}, **settings})


@case("qwen3-4", 711)
def _(folder):
    return hf(folder, qwen3(), 4, legacy=lambda d: d.pop("layer_types")), {**USUAL, **NORMS}


@case("qwen3-5", 712)
def _(folder):
    """As Qwen3-0.6B: tied; bf16."""
    return hf(folder, qwen3(tie_word_embeddings=True, head_dim=12), 5, dtype=torch.bfloat16), {**USUAL, **NORMS}


@case("qwen3-window-bias", 713, n_tokens=150)
def _(folder):
    config = qwen3(attention_bias=True, use_sliding_window=True, sliding_window=20, max_window_layers=1)
    biases = zeroed("q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias")
    wrong = {**USUAL, **NORMS, **WINDOW, **biases, "all layers": {"layer_types": [SLIDING] * 2}}
    return hf(folder, config, 4, dtype=torch.float16, legacy=qwen_4), wrong
