"""GPT-2, with its rarer options."""
import torch
from transformers import GPT2Config

from .cases import case
from .files import edit_config, hf
from .gguf_files import gguf_case
from .models import zeroed


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
    edit_config(folder, lambda d: d.update(n_ctx=64))
    return model, {"eps": {"layer_norm_epsilon": 1e-5}, "gelu": {"activation_function": "gelu"}}


@case("gpt2-prefixed", 102)
def _(folder):
    """As distilgpt2 and fine-tuned ones: prefix, the tied head written out, masked_bias; here the exact GELU and an MLP that is
    not 4 wide."""

    def rename(tensors):
        out = {**tensors, "lm_head.weight": tensors["transformer.wte.weight"].clone()}
        for i in range(3):
            out[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-10000.0)
        return out

    model = hf(folder, gpt2(n_layer=3, n_embd=30, n_head=5, n_inner=76, vocab_size=83, activation_function="gelu"), 5,
               rename=rename)
    return model, {"eps": {"layer_norm_epsilon": 1e-5}, "gelu": {"activation_function": "gelu_new"}}


@case("gpt2-f16", 103)
def _(folder):
    model = hf(folder, gpt2(n_embd=52, n_head=4, vocab_size=71), 4, dtype=torch.float16)
    return model, {"eps": {"layer_norm_epsilon": 1e-5}, "gelu": {"activation_function": "relu"}}


@case("gpt2-gguf", 401)
def _(folder):
    return gguf_case(folder, gpt2(n_embd=32, n_head=4, vocab_size=73), {"eps": {"layer_norm_epsilon": 1e-5}})


# ---- the rarer options ----


def active(model):
    """A `mend`: takes back the bias that suits the GELUs."""
    for name, p in model.named_parameters():
        if name.endswith("c_fc.bias"):
            p.add_(2.3)
        elif name.endswith("mlp.c_proj.weight"):
            p.mul_(0.1)


BIASES = zeroed("attn.c_attn.bias", "attn.c_proj.bias", "c_fc.bias", "mlp.c_proj.bias", "ln_1.bias", "ln_2.bias", "ln_f.bias")


@case("gpt2-inverse-layer", 111)
def _(folder):
    """Attention scaled by the layer's number too, an untied head, ReLU."""
    config = gpt2(n_layer=3, scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False, activation_function="relu",
                  vocab_size=61)
    wrong = {"eps": {"layer_norm_epsilon": 1e-5}, "activation": {"activation_function": "gelu"},
             "scaling": {"scale_attn_by_inverse_layer_idx": False},
             "tied": lambda model: model.lm_head.weight.copy_(model.transformer.wte.weight), **BIASES}
    return hf(folder, config, 4, mend=active), wrong


@case("gpt2-unscaled", 112)
def _(folder):
    """Attention not scaled, SiLU, an MLP of odd width; bf16."""
    config = gpt2(scale_attn_weights=False, activation_function="silu", n_inner=33, vocab_size=61)
    wrong = {"activation": {"activation_function": "gelu"}, "scaling": {"scale_attn_weights": True}, **BIASES}
    return hf(folder, config, 5, dtype=torch.bfloat16, mend=active), wrong


@case("gpt2-hub-untied", 113)
def _(folder):
    """No prefix, and a head that is not the embedding; an option that changes no result; f16."""
    config = gpt2(tie_word_embeddings=False, activation_function="gelu_pytorch_tanh", vocab_size=61)
    model = hf(folder, config, 4, dtype=torch.float16, rename=lambda t: {k.removeprefix("transformer."): v for k, v in t.items()})
    edit_config(folder, lambda d: d.update(reorder_and_upcast_attn=True))  # with which transformers computes nothing in f64
    return model, {"gelu": {"activation_function": "gelu"},
                   "tied": lambda model: model.lm_head.weight.copy_(model.transformer.wte.weight)}


def activation_case(name, seed):
    @case(f"gpt2-{name.replace('_', '-')}", seed)
    def _(folder):
        config = gpt2(n_layer=1, n_embd=18, vocab_size=37, activation_function=name)
        return hf(folder, config, 4, mend=active), {other: {"activation_function": other} for other in ("gelu", "relu", "silu")}


activation_case("quick_gelu", 121)
activation_case("tanh", 122)
activation_case("relu2", 123)
