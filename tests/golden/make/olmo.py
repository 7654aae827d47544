"""OLMo, OLMo-2 and OLMo-3."""
import torch
from transformers import Olmo2Config, Olmo3Config, OlmoConfig

from .cases import case
from .files import hf, write_config, write_npy
from .gguf_files import gguf_case
from .llama import USUAL, WINDOW, YARN
from .models import random_model, without, zeroed


# ---- OLMo-2 ----


def olmo2(**settings):
    return Olmo2Config(**{"vocab_size": 79, "hidden_size": 40, "intermediate_size": 44, "num_hidden_layers": 2,
                          "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 96, "rms_norm_eps": 1e-2,
                          "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}, "bos_token_id": None,
                          "eos_token_id": 2, "pad_token_id": None, **settings})


@case("olmo2-mha", 301)
def _(folder):
    return hf(folder, olmo2(), 4), USUAL


@case("olmo2-gqa-bf16", 302)
def _(folder):
    config = olmo2(hidden_size=60, num_attention_heads=6, num_key_value_heads=2, intermediate_size=84, num_hidden_layers=3)
    return hf(folder, config, 5, dtype=torch.bfloat16, shards=2), USUAL


@case("olmo2-npy", 303)
def _(folder):
    """DirkTensor's directory; what is inferred without a config: head_dim 128, theta 500000, eps 1e-6. The small embedding makes
    such an eps show."""
    config = olmo2(hidden_size=40, num_attention_heads=2, num_key_value_heads=1, head_dim=128, intermediate_size=36,
                   rms_norm_eps=1e-6, num_hidden_layers=1,
                   rope_parameters={"rope_theta": 500000.0, "rope_type": "default"})
    model = random_model(config, embedding=0.01)
    write_npy(folder, model)
    return model, USUAL


@case("olmo2-npy-config", 304)
def _(folder):
    """The same with a config.json, which overrides what would be inferred."""
    model = random_model(olmo2(num_key_value_heads=2, hidden_size=32, intermediate_size=44))
    write_config(write_npy(folder, model), model, 5)
    return model, USUAL


@case("olmo2-gguf-bf16", 406)
def _(folder):
    return gguf_case(folder, olmo2(num_key_value_heads=2, hidden_size=56), USUAL, torch.bfloat16)


# ---- OLMo ----


def olmo(**settings):
    return OlmoConfig(**{"vocab_size": 61, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2,
                         "num_attention_heads": 4,
                         "num_key_value_heads": 2, "max_position_embeddings": 96, "clip_qkv": 0.9, "bos_token_id": None,
                         "eos_token_id": 2,
                         "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"}, "pad_token_id": None, **settings})


def rms_norms(model):
    """Norms that do not subtract the mean."""
    for m in model.modules():
        if type(m).__name__ == "OlmoLayerNorm":
            m.forward = lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def other_eps(model):
    for m in model.modules():
        if type(m).__name__ == "OlmoLayerNorm":
            m.forward = lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)


# The small embedding makes the eps, 1e-5 whatever the config, show.
OLMO_WRONG = {"theta": USUAL["theta"], "activation": USUAL["activation"], "clip": {"clip_qkv": None},
              "clip's value": {"clip_qkv": 1.0}, "norm": rms_norms, "eps": other_eps}


@case("olmo-4", 601)
def _(folder):
    """As OLMo-7B, with clip_qkv and an untied head."""
    return hf(folder, olmo(), 4, embedding=0.02), OLMO_WRONG


@case("olmo-5", 602)
def _(folder):
    """As OLMo-1B: tied, no clipping, as many kv heads as heads; in bf16."""
    config = olmo(num_key_value_heads=4, hidden_size=40, tie_word_embeddings=True, clip_qkv=None)
    wrong = {**OLMO_WRONG, "clip": {"clip_qkv": 0.9}}
    del wrong["clip's value"]
    return hf(folder, config, 5, dtype=torch.bfloat16, embedding=0.02), wrong


@case("olmo-f16-bias", 603)
def _(folder):
    wrong = {**OLMO_WRONG, **zeroed("q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias")}
    return hf(folder, olmo(attention_bias=True), 4, dtype=torch.float16, embedding=0.02), wrong


# ---- OLMo-3: OLMo-2 with a window in three layers of four; where the window is, rope is never scaled ----


def olmo3(rope=None, theta=500000.0, **settings):
    """The full layers' rope is scaled, the windowed layers' is not."""
    full = {"rope_theta": theta, **(rope or {"rope_type": "default"})}
    return Olmo3Config(**{"vocab_size": 53, "hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 4,
                          "num_attention_heads": 2,
                          "num_key_value_heads": 1, "max_position_embeddings": 256, "rms_norm_eps": 1e-2, "sliding_window": 20,
                          "rope_parameters": {"full_attention": full, "sliding_attention": {"rope_theta": theta,
                                                                                            "rope_type": "default"}},
                          "bos_token_id": None, "eos_token_id": 2, "pad_token_id": None, **settings})


YARN_64 = {**YARN, "original_max_position_embeddings": 64, "attention_factor": 1.2, "beta_fast": 32.0, "beta_slow": 1.0}
OLMO3_USUAL = {"eps": USUAL["eps"], "activation": USUAL["activation"], **WINDOW, "q_norm": without("q_norm"),
               "k_norm": without("k_norm"), "windowed theta": {"rope_parameters": {"sliding_attention": {"rope_theta": 10000.0}}},
               "full theta": {"rope_parameters": {"full_attention": {"rope_theta": 10000.0}}}}
OLMO3_SCALED = {"full not scaled": {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
                "windowed scaled": {"rope_parameters": {"sliding_attention": YARN_64}}}


def olmo3_4(d):
    """transformers 4 wrote one theta and one scaling, which only the full layers use. Not every theta can be told so:
    transformers 5 reads another than 500000 for the full layers alone, where transformers 4 used it for all."""
    rope = d.pop("rope_parameters")
    assert rope["full_attention"]["rope_theta"] == rope["sliding_attention"]["rope_theta"] == 500000.0
    d["rope_theta"] = rope["full_attention"].pop("rope_theta")
    d["rope_scaling"] = rope["full_attention"]


@case("olmo3-4", 611, n_tokens=150)
def _(folder):
    """As Olmo-3-7B: the pattern spelled out, yarn."""
    wrong = {**OLMO3_USUAL, **OLMO3_SCALED, "pattern": {"layer_types": ["full_attention"] + 3 * ["sliding_attention"]}}
    return hf(folder, olmo3(YARN_64), 4, legacy=olmo3_4), wrong


@case("olmo3-default-pattern", 612, n_tokens=100)
def _(folder):
    """Neither the pattern nor a scaling in the config: every fourth layer is full."""
    config = olmo3(num_hidden_layers=5, num_key_value_heads=2)
    wrong = {**OLMO3_USUAL, "pattern": {"layer_types": 5 * ["sliding_attention"]}}
    return hf(folder, config, 4, dtype=torch.float16, legacy=lambda d: (olmo3_4(d), d.update(rope_scaling=None)),
              drop=("layer_types",)), wrong


@case("olmo3-5", 613, n_tokens=205)
def _(folder):
    """Rope per layer type, with thetas that are not the default; another pattern; bf16."""
    config = olmo3(YARN_64, theta=3000.0, layer_types=["full_attention", "sliding_attention", "sliding_attention",
                                                       "full_attention"])
    wrong = {**OLMO3_USUAL, **OLMO3_SCALED, "pattern": {"layer_types": 3 * ["sliding_attention"] + ["full_attention"]}}
    return hf(folder, config, 5, dtype=torch.bfloat16), wrong
