"""Llama, and Mistral: the same with a sliding window."""
import torch
from transformers import LlamaConfig, MistralConfig

from .cases import case
from .files import edit_config, hf
from .gguf_files import gguf_case


def llama(rope=None, **settings):
    """The small one, for everything about positions; context 96, 8 rotary pairs."""
    rope = {"rope_theta": 1000.0, "rope_type": "default", **(rope or {})}
    return LlamaConfig(**{"vocab_size": 61, "hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 2,
                          "num_attention_heads": 3,
                          "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 96, "rms_norm_eps": 1e-2,
                          "rope_parameters": rope, "bos_token_id": 1, "eos_token_id": 2, **settings})


USUAL = {"eps": {"rms_norm_eps": 1e-5}, "theta": {"rope_parameters": {"rope_theta": 10000.0}},
         "activation": {"hidden_act": "gelu"}}
UNSCALED = {"scaling": {"rope_parameters": {"rope_type": "default"}}}


@case("llama-mha", 201)
def _(folder):
    """As the first Llama: no num_key_value_heads, no head_dim, no rope_theta (10000) in its config."""
    config = llama(hidden_size=30, num_attention_heads=3, num_key_value_heads=3, head_dim=10, intermediate_size=44,
                   vocab_size=101,
                   rope={"rope_theta": 10000.0})
    model = hf(folder, config, 4, drop=("num_key_value_heads", "head_dim", "attention_bias", "mlp_bias"))
    edit_config(folder, lambda d: (d.pop("rope_theta"), d.pop("rope_scaling")))
    return model, {**USUAL, "theta": {"rope_parameters": {"rope_theta": 500000.0}}}


@case("llama-gqa-sharded", 202, n_tokens=203)
def _(folder):
    """Three shards; more tokens than a cache block or a prefill tile is likely to hold."""
    config = llama(hidden_size=48, num_attention_heads=6, num_key_value_heads=2, head_dim=8, intermediate_size=68, vocab_size=53,
                   max_position_embeddings=256)
    return hf(folder, config, 5, shards=3), USUAL


@case("llama-mqa-tied", 203)
def _(folder):
    """Names without `model.`, as the inner model alone is saved; the head is the embedding."""
    config = llama(hidden_size=36, num_attention_heads=4, num_key_value_heads=1, head_dim=18, vocab_size=103,
                   tie_word_embeddings=True)
    model = hf(folder, config, 4, rename=lambda t: {k.removeprefix("model."): v for k, v in t.items()})
    return model, USUAL


@case("llama-bias", 204)
def _(folder):
    return hf(folder, llama(attention_bias=True, mlp_bias=True, hidden_size=30, num_attention_heads=3), 5), USUAL


@case("llama-head-dim", 205)
def _(folder):
    """head_dim is not hidden_size / heads."""
    config = llama(hidden_size=44, num_attention_heads=4, num_key_value_heads=2, head_dim=14, intermediate_size=39)
    return hf(folder, config, 4), USUAL


@case("llama-bf16", 206)
def _(folder):
    config = llama(hidden_size=72, num_attention_heads=6, num_key_value_heads=3, head_dim=12, intermediate_size=100,
                   vocab_size=89)
    return hf(folder, config, 5, dtype=torch.bfloat16), USUAL


@case("llama-f16-tied", 207)
def _(folder):
    config = llama(hidden_size=66, num_attention_heads=6, num_key_value_heads=2, head_dim=22, intermediate_size=94, vocab_size=77,
                   tie_word_embeddings=True)
    return hf(folder, config, 4, dtype=torch.float16, shards=2), USUAL


@case("llama-linear-4", 211)
def _(folder):
    return hf(folder, llama(rope={"rope_type": "linear", "factor": 3.0}), 4), {**USUAL, **UNSCALED}


@case("llama-linear-5", 212)
def _(folder):
    return hf(folder, llama(rope={"rope_type": "linear", "factor": 2.5}), 5), {**USUAL, **UNSCALED}


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 48}
LLAMA3_WRONG = {**USUAL, **UNSCALED, "factor": {"rope_parameters": {"factor": 4.0}},
                "low": {"rope_parameters": {"low_freq_factor": 1.7}}, "high": {"rope_parameters": {"high_freq_factor": 3.0}},
                "original": {"rope_parameters": {"original_max_position_embeddings": 95}}}


@case("llama-llama3-4", 213)
def _(folder):
    return hf(folder, llama(rope=LLAMA3), 4), LLAMA3_WRONG


@case("llama-llama3-5", 214)
def _(folder):
    return hf(folder, llama(rope={**LLAMA3, "rope_theta": 300.0}), 5), LLAMA3_WRONG


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}


def yarn_wrong(*keys):
    wrong = {"factor": {"factor": 2.0}, "original": {"original_max_position_embeddings": 20}, "fast": {"beta_fast": None},
             "slow": {"beta_slow": None}, "attention": {"attention_factor": None}, "truncate": {"truncate": None},
             "mscale": {"mscale": None}}
    return {**USUAL, **UNSCALED, **{k: {"rope_parameters": wrong[k]} for k in ("factor", "original", *keys)}}


@case("llama-yarn-4", 215)
def _(folder):
    """Every default: beta_fast 32, beta_slow 1, attention factor 0.1 ln(factor) + 1; the prompt is longer than the original
    context."""
    return hf(folder, llama(rope={**YARN, "original_max_position_embeddings": 40}, max_position_embeddings=160), 4), yarn_wrong()


YARN_72 = {**YARN, "original_max_position_embeddings": 72}  # long enough for beta_fast to bound something


@case("llama-yarn-5", 216, n_tokens=90)
def _(folder):
    rope = {**YARN_72, "beta_fast": 2.0, "beta_slow": 0.5, "attention_factor": 0.8}
    return hf(folder, llama(rope=rope, max_position_embeddings=288), 5), yarn_wrong("fast", "slow", "attention")


@case("llama-yarn-mscale", 217)
def _(folder):
    rope = {**YARN_72, "beta_fast": 2.5, "beta_slow": 0.4, "mscale": 0.7, "mscale_all_dim": 1.3, "truncate": False}
    return hf(folder, llama(rope=rope, max_position_embeddings=288), 4), yarn_wrong("fast", "slow", "mscale", "truncate")


@case("llama-gguf-f16", 402)
def _(folder):
    config = llama(hidden_size=54, num_attention_heads=6, num_key_value_heads=2, head_dim=10, intermediate_size=74)
    return gguf_case(folder, config, USUAL, torch.float16, tokens=True)


@case("llama-gguf-llama3", 403)
def _(folder):
    return gguf_case(folder, llama(rope=LLAMA3, tie_word_embeddings=True), LLAMA3_WRONG)


@case("llama-gguf-yarn", 404)
def _(folder):
    return gguf_case(folder, llama(rope={**YARN, "original_max_position_embeddings": 40}, max_position_embeddings=160),
                     yarn_wrong())


@case("llama-gguf-linear", 405)
def _(folder):
    return gguf_case(folder, llama(rope={"rope_type": "linear", "factor": 3.0}), {**USUAL, **UNSCALED})


# ---- Mistral ----

WINDOW = {"window": {"sliding_window": 1000}, "window's edge": {"sliding_window": 21}}


def mistral(**settings):
    """A window of 20 tokens: prompts of 150 are longer than it and a block of any likely size."""
    return MistralConfig(**{"vocab_size": 59, "hidden_size": 28, "intermediate_size": 36, "num_hidden_layers": 2,
                            "num_attention_heads": 4,
                            "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 256, "rms_norm_eps": 1e-2,
                            "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"}, "sliding_window": 20, **settings})


@case("mistral-window-4", 501, n_tokens=150)
def _(folder):
    """As Mistral-7B-v0.1: no head_dim in its config."""
    config = mistral(hidden_size=40, intermediate_size=38)
    return hf(folder, config, 4, drop=("head_dim",)), {**USUAL, **WINDOW}


@case("mistral-window-5", 502, n_tokens=207)
def _(folder):
    """Three layers see further than one window; in bf16."""
    return hf(folder, mistral(num_hidden_layers=3), 5, dtype=torch.bfloat16, shards=2), {**USUAL, **WINDOW}


@case("mistral-full", 503)
def _(folder):
    """As Mistral-7B-v0.3 and Mistral-Nemo: the window is null, head_dim is not hidden_size / heads."""
    return hf(folder, mistral(sliding_window=None, head_dim=12), 4, dtype=torch.float16), {
        **USUAL, "window": {"sliding_window": 20}}
