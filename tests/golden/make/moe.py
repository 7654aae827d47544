"""Mixtures of experts: Mixtral, Qwen3-MoE and OLMoE."""
import torch
from transformers import MixtralConfig, OlmoeConfig, Qwen3MoeConfig

from .cases import case
from .files import hf
from .llama import USUAL, WINDOW
from .models import without, zeroed


def first_of_two(suffix):
    """The two halves of the experts' fused projection, gate and up, taken for each other."""

    def mutate(model):
        for name, p in model.named_parameters():
            if name.endswith(suffix):
                p.copy_(p.roll(p.shape[1] // 2, 1))

    return mutate


def next_expert(model):
    """Every expert is the one after it."""
    for name, p in model.named_parameters():
        if "experts." in name:
            p.copy_(p.roll(1, 0))


def shares_as_they_are(model):
    """The chosen experts' shares do not sum to 1: they are what the softmax over all experts gave."""
    for m in model.modules():
        if type(m).__name__ == "MixtralTopKRouter":

            def forward(x, m=m):
                logits = torch.nn.functional.linear(x, m.weight)
                shares, chosen = torch.topk(logits.softmax(-1), m.top_k, dim=-1)
                return logits, shares, chosen

            m.forward = forward


def moe_wrong(k):
    return {**USUAL, "fewer experts": {"num_experts_per_tok": k - 1}, "more experts": {"num_experts_per_tok": k + 1},
            "gate and up": first_of_two("gate_up_proj"), "order of experts": next_expert}


SMALL = {"vocab_size": 53, "hidden_size": 24, "intermediate_size": 14, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1,
         "max_position_embeddings": 256, "rms_norm_eps": 1e-2}


def rope():
    return {"rope_theta": 1000.0, "rope_type": "default"}


# ---- Mixtral ----


def mixtral(**settings):
    return MixtralConfig(**{**SMALL, "num_local_experts": 5, "num_experts_per_tok": 2, "rope_parameters": rope(), **settings})


MIXTRAL = {**moe_wrong(2), "shares": shares_as_they_are}


@case("mixtral-4", 1201)
def _(folder):
    """As Mixtral-8x7B: no head_dim in its config, or null."""
    return hf(folder, mixtral(), 4, drop=("head_dim",)), MIXTRAL


@case("mixtral-window-5", 1202, n_tokens=150)
def _(folder):
    """A window, which no Mixtral uses; head_dim is not hidden_size / heads; shards; bf16."""
    config = mixtral(sliding_window=20, head_dim=10, num_local_experts=6, num_experts_per_tok=3)
    return hf(folder, config, 5, dtype=torch.bfloat16, shards=3), {**moe_wrong(3), **WINDOW, "shares": shares_as_they_are}


@case("mixtral-f16", 1203)
def _(folder):
    """As many experts as there are, two of two: none is left out."""
    config = mixtral(num_local_experts=2, tie_word_embeddings=True)
    wrong = dict(MIXTRAL)
    del wrong["more experts"], wrong["shares"]
    return hf(folder, config, 4, dtype=torch.float16), wrong


# ---- Qwen3-MoE ----


def qwen3_moe(**settings):
    return Qwen3MoeConfig(**{**SMALL, "intermediate_size": 30, "moe_intermediate_size": 11, "num_experts": 7,
                             "num_experts_per_tok": 3,
                             "head_dim": 10, "norm_topk_prob": True, "rope_parameters": rope(), **settings})


def qwen3_moe_4(d):
    """transformers 4 wrote num_experts."""
    d["num_experts"] = d.pop("num_local_experts")
    d |= {"max_window_layers": 48}


QWEN3_MOE = {**moe_wrong(3), "q_norm": without("q_norm"), "k_norm": without("k_norm")}


@case("qwen3-moe-4", 1211)
def _(folder):
    """As Qwen3-30B-A3B: the shares are made to sum to 1."""
    return hf(folder, qwen3_moe(), 4, legacy=qwen3_moe_4), {**QWEN3_MOE, "norm_topk_prob": {"norm_topk_prob": False}}


@case("qwen3-moe-dense-layers-5", 1212)
def _(folder):
    """Every second layer is a mixture, but for one that mlp_only_layers names; the shares as they are; bf16."""
    config = qwen3_moe(num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[1], norm_topk_prob=False)
    return hf(folder, config, 5, dtype=torch.bfloat16), {**QWEN3_MOE, "norm_topk_prob": {"norm_topk_prob": True}}


@case("qwen3-moe-f16", 1214, n_tokens=100)
def _(folder):
    """No head_dim, biases, tied, a window in every layer."""
    config = qwen3_moe(head_dim=12, attention_bias=True, tie_word_embeddings=True, use_sliding_window=True, sliding_window=20)
    wrong = {**QWEN3_MOE, **WINDOW, "norm_topk_prob": {"norm_topk_prob": False},
             **zeroed("q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias")}
    return hf(folder, config, 5, dtype=torch.float16), wrong


# ---- OLMoE ----


def olmoe(**settings):
    return OlmoeConfig(**{**SMALL, "num_experts": 6, "num_experts_per_tok": 2, "clip_qkv": None, "bos_token_id": None,
                          "eos_token_id": 2, "pad_token_id": None, "rope_parameters": rope(), **settings})


def clipped_before_the_norm(model):
    clip = model.config.clip_qkv
    model.config.clip_qkv = None
    for layer in model.model.layers:
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            part.register_forward_hook(lambda m, x, y: y.clamp(-clip, clip))
        layer.self_attn.v_proj.register_forward_hook(lambda m, x, y: y.clamp(-clip, clip))


OLMOE = {**moe_wrong(2), "q_norm": without("q_norm"), "k_norm": without("k_norm")}


@case("olmoe-4", 1221)
def _(folder):
    """As OLMoE-1B-7B: no clipping, the shares as they are."""
    return hf(folder, olmoe(num_key_value_heads=2), 4), {**OLMOE, "norm_topk_prob": {"norm_topk_prob": True},
                                                         "clip": {"clip_qkv": 0.9}}


@case("olmoe-clip-5", 1222)
def _(folder):
    """Clipped after the norm of q and k; the shares are made to sum to 1; bf16."""
    wrong = {**OLMOE, "norm_topk_prob": {"norm_topk_prob": False}, "clip": {"clip_qkv": None}, "clip's value": {"clip_qkv": 1.0},
             "clip before the norm": clipped_before_the_norm}
    return hf(folder, olmoe(clip_qkv=0.9, norm_topk_prob=True), 5, dtype=torch.bfloat16), wrong


@case("olmoe-f16", 1225)
def _(folder):
    config = olmoe(num_experts=9, num_experts_per_tok=4, clip_qkv=0.7)
    wrong = {**moe_wrong(4), "clip": {"clip_qkv": None}, "norm_topk_prob": {"norm_topk_prob": True}}
    return hf(folder, config, 4, dtype=torch.float16, shards=2), wrong
