"""SmolLM3 and Granite: Llama with one idea more."""
import torch
from transformers import GraniteConfig, SmolLM3Config

from .cases import case
from .files import hf
from .llama import USUAL
from .models import zeroed

FULL, SLIDING = "full_attention", "sliding_attention"


def smollm3(**settings):
    return SmolLM3Config(**{"vocab_size": 53, "hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 4,
                            "num_attention_heads": 2,
                            "num_key_value_heads": 1, "max_position_embeddings": 96, "rms_norm_eps": 1e-2, "bos_token_id": 1,
                            "eos_token_id": 2,
                            "pad_token_id": None, "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"}, **settings})


@case("smollm3-4", 801)
def _(folder):
    """As SmolLM3-3B: tied, every fourth layer without rope; the list is in the config, 1 where there is rope."""
    wrong = {**USUAL, "rope everywhere": {"no_rope_layers": [1] * 4}, "rope where none is": {"no_rope_layers": [0, 0, 0, 1]}}
    return hf(folder, smollm3(), 4), wrong


@case("smollm3-interval", 802)
def _(folder):
    """The interval alone says which; bf16, untied."""
    config = smollm3(no_rope_layer_interval=2, tie_word_embeddings=False)
    wrong = {**USUAL, "rope everywhere": {"no_rope_layers": [1] * 4}, "interval": {"no_rope_layers": [1, 1, 1, 0]}}
    return hf(folder, config, 4, dtype=torch.bfloat16, legacy=lambda d: (d.pop("no_rope_layers"), d.pop("layer_types"))), wrong


@case("smollm3-window-5", 803, n_tokens=150)
def _(folder):
    """Biases, and a window in the layers without rope; f16."""
    config = smollm3(no_rope_layers=[1, 0, 0, 1], use_sliding_window=True, sliding_window=20, attention_bias=True, mlp_bias=True,
                     max_position_embeddings=256)
    wrong = {**USUAL, "rope everywhere": {"no_rope_layers": [1] * 4}, "interval": {"no_rope_layers": [1, 1, 1, 0]},
             "window": {"sliding_window": 1000}, "window's edge": {"sliding_window": 21},
             "window's layers": {"layer_types": [SLIDING, FULL, FULL, SLIDING]},
             **zeroed("q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias", "gate_proj.bias", "up_proj.bias",
                      "down_proj.bias")}
    return hf(folder, config, 5, dtype=torch.float16), wrong


# ---- Granite ----

MULTIPLIERS = {name: {name: 1.0} for name in ("embedding_multiplier", "residual_multiplier", "logits_scaling")}
# What a reader that knows no attention_multiplier scales by.
MULTIPLIERS["attention_multiplier"] = {"attention_multiplier": 10**-0.5}


def granite(**settings):
    return GraniteConfig(**{"vocab_size": 61, "hidden_size": 30, "intermediate_size": 38, "num_hidden_layers": 2,
                            "num_attention_heads": 3,
                            "num_key_value_heads": 1, "max_position_embeddings": 96, "rms_norm_eps": 1e-2,
                            "embedding_multiplier": 5.5,
                            "residual_multiplier": 0.4, "attention_multiplier": 0.17, "logits_scaling": 3.0,
                            "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"}, **settings})


@case("granite-4", 811)
def _(folder):
    return hf(folder, granite(tie_word_embeddings=True), 4, embedding=0.1), {**USUAL, **MULTIPLIERS}


@case("granite-5", 812)
def _(folder):
    return hf(folder, granite(num_key_value_heads=3), 5, dtype=torch.bfloat16, embedding=0.1), {**USUAL, **MULTIPLIERS}


@case("granite-f16-bias", 813)
def _(folder):
    """With attention_bias and mlp_bias, which scale as their products do."""
    biases = zeroed("q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias", "gate_proj.bias", "up_proj.bias",
                    "down_proj.bias")
    config = granite(attention_bias=True, mlp_bias=True)
    return hf(folder, config, 4, dtype=torch.float16, embedding=0.1), {**USUAL, **MULTIPLIERS, **biases}
