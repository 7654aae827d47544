#!/usr/bin/env python3
"""Makes the golden cases beside this file: tiny random models and the logits that transformers computes for them.

    pip install torch transformers safetensors gguf numpy
    python3 tests/golden/make_golden.py [case ...]          # all cases without an argument

The committed files were made with the versions in `versions.json`, which every run rewrites. A case is a folder:

    model/ or model.gguf   the model, as a user has it
    tokens.json            the tokens to feed
    logits.npy             f32 [tokens, vocabulary]: transformers in f32 from the weights as they are in the file

Every parameter is random: weights, biases, norm weights and biases. Sizes are odd, so that every kernel meets its edges. A case
is worth nothing if a wrong setting passes it, so each names settings and a wrong value for each (`wrong`), and it is asserted
that the wrong value moves the logits by more than 1e-3 of the largest, ten times what the Rust test allows. And it is
asserted that transformers in f64 agrees to 2e-5 of it, so that what the test measures is not the oracle's own rounding;
`rounding.json` has what it is for each case.
"""
import copy
import json
import platform
import shutil
import sys
from pathlib import Path

import gguf
import numpy as np
import safetensors
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, LlamaConfig, Olmo2Config

HERE = Path(__file__).resolve().parent
CASES = {}


def case(name, seed, n_tokens=59):
    """Registers a function that fills the case's folder and returns what `finish` needs."""

    def register(make):
        assert seed not in [s for _, s, _ in CASES.values()], f"{name}: seed {seed} is taken"
        CASES[name] = (make, seed, n_tokens)
        return make

    return register


# ---- random models ----


def random_model(config, dtype=torch.float32, embedding=0.3):
    """A model with every parameter random, rounded to `dtype`, held in f32. `embedding`: standard deviation of the embedding;
    a small one makes eps matter in the first layer."""
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().float()
    generator = torch.Generator().manual_seed(torch.initial_seed() + 1)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            x = torch.randn(p.shape, generator=generator)
            if "norm" in name or ".ln_" in name:
                x = x * 0.4 + (0 if name.endswith("bias") else 1)
            elif name.endswith("bias"):
                x = x * 0.4
            elif "embed" in name or "wte" in name or "wpe" in name:
                x = x * embedding
            else:
                fan_in = p.shape[0] if config.model_type == "gpt2" and "lm_head" not in name else p.shape[1]
                x = x * (0.5 if "mlp.c_fc" in name else 1.3) / fan_in**0.5
            if "mlp.c_fc.bias" in name:
                x = x - 2.3  # where the two GELUs are small and differ by a hundredth of themselves; else nothing would show it
            elif "mlp.c_proj.weight" in name:
                x = x * 12
            p.copy_(x.to(dtype).float())
    model.tie_weights()
    return model


def parameters(model):
    """Name to tensor as save_pretrained would write them: a tied head is left out."""
    return {k: v.contiguous() for k, v in model.state_dict().items() if not (k == "lm_head.weight" and model.config.tie_word_embeddings)}


def run(model, tokens, double=False):
    model = copy.deepcopy(model).double() if double else model
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double().numpy()


def with_settings(model, config):
    """The same weights under another config."""
    other = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().float()
    other.load_state_dict(model.state_dict())
    other.tie_weights()
    return other


def change(config, **settings):
    """A copy of `config` with other settings; `rope_parameters` is merged key by key, None drops a key."""
    d = config.to_dict()
    rope = settings.pop("rope_parameters", {})
    if rope:
        d["rope_parameters"] = {k: v for k, v in {**d["rope_parameters"], **rope}.items() if v is not None}
    d.update(settings)
    return type(config).from_dict(d)


# ---- files ----


def write_config(folder, config, form, drop=(), dtype="float32"):
    """config.json as transformers 5 writes it, or as transformers 4 did: rope_theta and rope_scaling apart, torch_dtype."""
    d = config.to_dict()
    d = {k: d[k] for k in config.to_diff_dict() | ESSENTIAL.get(config.model_type, {}) if k in d}
    d = {k: v for k, v in d.items() if k not in ("_name_or_path", "dtype", "torch_dtype", *drop)}
    d["architectures"] = [{"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "olmo2": "Olmo2ForCausalLM"}[config.model_type]]
    if form == 5:
        d |= {"dtype": dtype, "transformers_version": transformers.__version__}
    else:
        rope = d.pop("rope_parameters", None)
        if rope:
            rope = dict(rope)
            d["rope_theta"] = rope.pop("rope_theta")
            kind = rope.pop("rope_type", "default")
            # "type" is what transformers called it before 4.43.
            d["rope_scaling"] = None if kind == "default" else {("type" if kind == "linear" else "rope_type"): kind, **rope}
        d |= {"torch_dtype": dtype, "transformers_version": "4.46.0"}
    (folder / "config.json").write_text(json.dumps(d, indent=1, sort_keys=True) + "\n")


ESSENTIAL = {
    "llama": dict.fromkeys(["model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                            "num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters",
                            "tie_word_embeddings", "attention_bias", "mlp_bias", "head_dim"]),
    "gpt2": dict.fromkeys(["model_type", "vocab_size", "n_embd", "n_layer", "n_head", "n_inner", "n_positions", "activation_function",
                           "layer_norm_epsilon"]),
}
ESSENTIAL["olmo2"] = {k: None for k in ESSENTIAL["llama"] if k not in ("mlp_bias", "head_dim")}


def write_safetensors(folder, tensors, dtype=torch.float32, shards=1):
    """model.safetensors, or shards with an index: neighbours go to different shards, so that no layer is whole in one file."""
    tensors = {k: v.to(dtype).clone() if v.is_floating_point() else v for k, v in tensors.items()}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    files = {f"model-{i + 1:05}-of-{shards:05}.safetensors": list(tensors)[i::shards] for i in range(shards)}
    for file, names in files.items():
        save_file({n: tensors[n] for n in names}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in tensors.values())},
             "weight_map": {n: file for file, names in files.items() for n in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")


def hf(folder, config, form, dtype=torch.float32, shards=1, rename=lambda t: t, drop=(), **random):
    """A Hugging Face directory; the oracle is then what transformers makes of that directory."""
    model = random_model(config, dtype, **random)
    path = folder / "model"
    path.mkdir()
    write_config(path, config, form, drop, str(dtype).removeprefix("torch."))
    write_safetensors(path, rename(parameters(model)), dtype, shards)
    read, info = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    for k, v in model.state_dict().items():
        assert torch.equal(v, read.state_dict()[k]), f"{k} was not read back from {path}"
    return read.eval()


# ---- GPT-2 ----


def gpt2(**settings):
    # Explicit zeros and odd numbers: nothing is left to a default that a reader could have guessed.
    settings = {"vocab_size": 97, "n_embd": 27, "n_layer": 2, "n_head": 3, "n_positions": 64, "layer_norm_epsilon": 1e-2,
                "activation_function": "gelu_new", **settings}
    return GPT2Config(**settings, bos_token_id=settings["vocab_size"] - 1, eos_token_id=settings["vocab_size"] - 1)


@case("gpt2-hub", 101)
def _(folder):
    """As openai-community/gpt2: no prefix, the causal mask among the tensors, n_ctx beside n_positions, no n_inner."""

    def rename(tensors):
        out = {k.removeprefix("transformer."): v for k, v in tensors.items()}
        for i in range(2):
            out[f"h.{i}.attn.bias"] = torch.tril(torch.ones(64, 64)).view(1, 1, 64, 64)
        return dict(sorted(out.items()))

    model = hf(folder, gpt2(), 4, rename=rename, drop=("n_inner", "tie_word_embeddings"))
    path = folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "n_ctx": 64}, indent=1, sort_keys=True) + "\n")
    return model, {"eps": {"layer_norm_epsilon": 1e-5}, "gelu": {"activation_function": "gelu"}}


@case("gpt2-prefixed", 102)
def _(folder):
    """As distilgpt2 and fine-tuned ones: prefix, the tied head written out, masked_bias; here the exact GELU and an MLP that is not 4 wide."""

    def rename(tensors):
        out = {**tensors, "lm_head.weight": tensors["transformer.wte.weight"].clone()}
        for i in range(3):
            out[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-10000.0)
        return out

    model = hf(folder, gpt2(n_layer=3, n_embd=30, n_head=5, n_inner=76, vocab_size=83, activation_function="gelu"), 5, rename=rename)
    return model, {"eps": {"layer_norm_epsilon": 1e-5}, "gelu": {"activation_function": "gelu_new"}}


@case("gpt2-f16", 103)
def _(folder):
    model = hf(folder, gpt2(n_embd=52, n_head=4, vocab_size=71), 4, dtype=torch.float16)
    return model, {"eps": {"layer_norm_epsilon": 1e-5}, "gelu": {"activation_function": "relu"}}


# ---- Llama ----


def llama(rope=None, **settings):
    """The small one, for everything about positions; context 96, 8 rotary pairs."""
    rope = {"rope_theta": 1000.0, "rope_type": "default", **(rope or {})}
    return LlamaConfig(**{"vocab_size": 61, "hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 3,
                          "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 96, "rms_norm_eps": 1e-2,
                          "rope_parameters": rope, "bos_token_id": 1, "eos_token_id": 2, **settings})


USUAL = {"eps": {"rms_norm_eps": 1e-5}, "theta": {"rope_parameters": {"rope_theta": 10000.0}}, "activation": {"hidden_act": "gelu"}}
UNSCALED = {"scaling": {"rope_parameters": {"rope_type": "default"}}}


@case("llama-mha", 201)
def _(folder):
    """As the first Llama: no num_key_value_heads, no head_dim, no rope_theta (10000) in its config."""
    config = llama(hidden_size=30, num_attention_heads=3, num_key_value_heads=3, head_dim=10, intermediate_size=44, vocab_size=101,
                   rope={"rope_theta": 10000.0})
    model = hf(folder, config, 4, drop=("num_key_value_heads", "head_dim", "attention_bias", "mlp_bias"))
    path = folder / "model" / "config.json"
    d = json.loads(path.read_text())
    del d["rope_theta"], d["rope_scaling"]
    path.write_text(json.dumps(d, indent=1, sort_keys=True) + "\n")
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
    config = llama(hidden_size=36, num_attention_heads=4, num_key_value_heads=1, head_dim=18, vocab_size=103, tie_word_embeddings=True)
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
    config = llama(hidden_size=72, num_attention_heads=6, num_key_value_heads=3, head_dim=12, intermediate_size=100, vocab_size=89)
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


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 48}
LLAMA3_WRONG = {**USUAL, **UNSCALED, "factor": {"rope_parameters": {"factor": 4.0}}, "low": {"rope_parameters": {"low_freq_factor": 1.7}},
                "high": {"rope_parameters": {"high_freq_factor": 3.0}},
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
             "slow": {"beta_slow": None}, "attention": {"attention_factor": None}, "truncate": {"truncate": None}, "mscale": {"mscale": None}}
    return {**USUAL, **UNSCALED, **{k: {"rope_parameters": wrong[k]} for k in ("factor", "original", *keys)}}


@case("llama-yarn-4", 215)
def _(folder):
    """Every default: beta_fast 32, beta_slow 1, attention factor 0.1 ln(factor) + 1; the prompt is longer than the original context."""
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


# ---- OLMo-2 ----


def olmo2(**settings):
    return Olmo2Config(**{"vocab_size": 79, "hidden_size": 40, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4,
                          "num_key_value_heads": 4, "max_position_embeddings": 96, "rms_norm_eps": 1e-2,
                          "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}, "bos_token_id": None, "eos_token_id": 2,
                          "pad_token_id": None, **settings})


@case("olmo2-mha", 301)
def _(folder):
    return hf(folder, olmo2(), 4), USUAL


@case("olmo2-gqa-bf16", 302)
def _(folder):
    config = olmo2(hidden_size=60, num_attention_heads=6, num_key_value_heads=2, intermediate_size=84, num_hidden_layers=3)
    return hf(folder, config, 5, dtype=torch.bfloat16, shards=2), USUAL


# ---- directories of .npy ----


def write_npy(folder, model):
    path = folder / "model"
    path.mkdir()
    for name, tensor in parameters(model).items():
        np.save(path / f"{name}.npy", tensor.numpy())
    tokens = ["<s>", "a\\b", "new\nline", "tab\there", "\rback", "ĠFour", "Ġscore", "é"]
    tokens += [f"Ġw{i}" for i in range(len(tokens), model.config.vocab_size - 3)]  # fewer than there are logits, as DirkTensor's
    escape = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
    (path / "vocab.txt").write_text("".join(f"{i}\t{t.translate(escape)}\n" for i, t in enumerate(tokens)), encoding="utf-8")
    return path


@case("olmo2-npy", 303)
def _(folder):
    """DirkTensor's directory; what is inferred without a config: head_dim 128, theta 500000, eps 1e-6. The small embedding makes
    such an eps show."""
    config = olmo2(hidden_size=40, num_attention_heads=2, num_key_value_heads=1, head_dim=128, intermediate_size=36, rms_norm_eps=1e-6, num_hidden_layers=1,
                   rope_parameters={"rope_theta": 500000.0, "rope_type": "default"})
    model = random_model(config, embedding=0.01)
    write_npy(folder, model)
    return model, USUAL


@case("olmo2-npy-config", 304)
def _(folder):
    """The same with a config.json, which overrides what would be inferred."""
    model = random_model(olmo2(num_key_value_heads=2, hidden_size=32, intermediate_size=44))
    write_config(write_npy(folder, model), model.config, 5)
    return model, USUAL


# ---- GGUF, as llama.cpp's converter writes it ----

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


@case("gpt2-gguf", 401)
def _(folder):
    return gguf_case(folder, gpt2(n_embd=32, n_head=4, vocab_size=73), {"eps": {"layer_norm_epsilon": 1e-5}})


@case("llama-gguf-f16", 402)
def _(folder):
    config = llama(hidden_size=54, num_attention_heads=6, num_key_value_heads=2, head_dim=10, intermediate_size=74)
    return gguf_case(folder, config, USUAL, torch.float16, tokens=True)


@case("llama-gguf-llama3", 403)
def _(folder):
    return gguf_case(folder, llama(rope=LLAMA3, tie_word_embeddings=True), LLAMA3_WRONG)


@case("llama-gguf-yarn", 404)
def _(folder):
    return gguf_case(folder, llama(rope={**YARN, "original_max_position_embeddings": 40}, max_position_embeddings=160), yarn_wrong())


@case("llama-gguf-linear", 405)
def _(folder):
    return gguf_case(folder, llama(rope={"rope_type": "linear", "factor": 3.0}), {**USUAL, **UNSCALED})


@case("olmo2-gguf-bf16", 406)
def _(folder):
    return gguf_case(folder, olmo2(num_key_value_heads=2, hidden_size=56), USUAL, torch.bfloat16)


# ---- all of it ----


def make(name):
    function, seed, n_tokens = CASES[name]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    torch.manual_seed(seed)
    model, wrong = function(folder)
    rng = np.random.default_rng(seed)
    tokens = [int(t) for t in rng.integers(0, model.config.vocab_size, n_tokens)]
    logits = run(model, tokens)
    largest = np.abs(logits).max()
    rounding = np.abs(logits - run(model, tokens, double=True)).max() / largest
    assert rounding < 2e-5, f"{name}: f32 and f64 differ by {rounding:.1e}"
    moves = {}
    for label, settings in wrong.items():
        other = run(with_settings(model, change(model.config, **settings)), tokens)
        moves[label] = float(np.abs(other - logits).max() / largest)
    (folder / "tokens.json").write_text(json.dumps(tokens) + "\n")
    np.save(folder / "logits.npy", logits.astype(np.float32))
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{name:20} {size >> 10:4} KiB, largest logit {largest:.1f}, f32-f64 {rounding:.0e}, wrong settings move it by",
          ", ".join(f"{k} {v:.0e}" for k, v in moves.items()), flush=True)
    record("rounding.json", {name: float(f"{rounding:.3g}")})
    weak = {k: v for k, v in moves.items() if v < 1e-3}
    assert not weak, f"{name}: these wrong settings would pass: {weak}"


def record(file, entries):
    """Adds to a JSON table beside this file."""
    path = HERE / file
    table = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(dict(sorted({**table, **entries}.items())), indent=1) + "\n")


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in sys.argv[1:] or CASES:
        make(name)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
                "safetensors": safetensors.__version__, "numpy": np.__version__}
    record("versions.json", versions)


if __name__ == "__main__":
    main()
