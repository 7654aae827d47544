"""Phi-3: fused projections, partial rotary, longrope, a window."""
import torch
from transformers import Phi3Config

from .cases import case
from .files import edit_config, hf
from .llama import USUAL, WINDOW


def phi3(rope=None, partial=1.0, **settings):
    rope = {"rope_theta": 1000.0, "rope_type": "default", "partial_rotary_factor": partial, **(rope or {})}
    return Phi3Config(**{"vocab_size": 53, "hidden_size": 36, "intermediate_size": 34, "num_hidden_layers": 2,
                         "num_attention_heads": 3,
                         "num_key_value_heads": 1, "max_position_embeddings": 96, "original_max_position_embeddings": 96,
                         "rms_norm_eps": 1e-2, "rope_parameters": rope, "bos_token_id": 1, "eos_token_id": 2,
                         "pad_token_id": None, **settings})


def swapped_rows(suffix, half):
    """The two parts of a fused projection read in the wrong order."""

    def mutate(model):
        for name, p in model.named_parameters():
            if name.endswith(suffix):
                p.copy_(torch.cat([p[half:], p[:half]]))

    return mutate


def fused(config):
    head_dim = config.hidden_size // config.num_attention_heads
    return {"gate and up": swapped_rows("gate_up_proj.weight", config.intermediate_size),
            "q, k and v": swapped_rows("qkv_proj.weight", head_dim * config.num_key_value_heads)}


def rope_wrong(*labels):
    """Of the factors (6 of them): the other set; and what is computed from the two context lengths."""
    wrong = {"partial": {"partial_rotary_factor": 1.0, "short_factor": 6 * [1.0], "long_factor": 6 * [1.0]},
             "short": {"short_factor": LONG}, "long": {"long_factor": SHORT}, "attention": {"attention_factor": 1.0},
             "default attention": {"attention_factor": None}}
    return {label: {"rope_parameters": wrong[label]} for label in labels}


SHORT = [1.0, 1.1, 1.25, 1.5, 1.9, 2.6]
LONG = [1.05, 1.7, 2.9, 4.3, 6.1, 8.8]
LONGROPE = {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG}


def phi3_4(d):
    """rope_scaling held the two lists alone; the rest was beside it."""
    if d["rope_scaling"]:
        d["rope_scaling"] = {"type": "longrope", "short_factor": SHORT, "long_factor": LONG}
    if d["partial_rotary_factor"] == 1.0:
        del d["partial_rotary_factor"]


@case("phi3-window-4", 901, n_tokens=150)
def _(folder):
    """As Phi-3-mini-4k: a window, no scaling."""
    config = phi3(max_position_embeddings=256, original_max_position_embeddings=256, sliding_window=20, num_key_value_heads=3)
    return hf(folder, config, 4, legacy=phi3_4), {**USUAL, **WINDOW, **fused(config)}


@case("phi3-partial-5", 902)
def _(folder):
    """Part of each head rotates; tied; bf16."""
    config = phi3(partial=0.75, hidden_size=48, tie_word_embeddings=True)
    wrong = {**USUAL, **fused(config), "partial": {"rope_parameters": {"partial_rotary_factor": 1.0}}}
    return hf(folder, config, 5, dtype=torch.bfloat16), wrong


@case("phi3-longrope-short", 903)
def _(folder):
    """A context that is no longer than the original one: the short factors, and attention is not scaled. "su" is what the first
    Phi-3-mini-128k called it."""
    config = phi3(LONGROPE, max_position_embeddings=96, original_max_position_embeddings=96)
    model = hf(folder, config, 4, legacy=phi3_4)
    edit_config(folder, lambda d: d["rope_scaling"].update(type="su"))  # which transformers 5 means to read, but does not
    return model, {**USUAL, **fused(config), **rope_wrong("short")}


@case("phi3-longrope-4", 904, n_tokens=90)
def _(folder):
    """As Phi-3-mini-128k: the prompt is longer than the original context, so that transformers takes the long factors too."""
    config = phi3(LONGROPE, max_position_embeddings=256, original_max_position_embeddings=48)
    wrong = {**USUAL, **fused(config), **rope_wrong("long", "attention"), "context": {"max_position_embeddings": 96}}
    return hf(folder, config, 4, dtype=torch.float16, legacy=phi3_4), wrong


@case("phi3-longrope-5", 905, n_tokens=150)
def _(folder):
    """As Phi-4-mini: partial rotary with longrope, tied, an attention factor, and a window."""
    config = phi3({**LONGROPE, "attention_factor": 1.3}, partial=0.75, hidden_size=48, max_position_embeddings=256,
                  original_max_position_embeddings=64, sliding_window=20, tie_word_embeddings=True)
    wrong = {**USUAL, **WINDOW, **fused(config), **rope_wrong("long", "default attention"),
             "partial": {"rope_parameters": {"partial_rotary_factor": 1.0, "long_factor": LONG + [1.0, 1.0],
                                             "short_factor": LONG + [1.0, 1.0]}}}
    return hf(folder, config, 5), wrong
