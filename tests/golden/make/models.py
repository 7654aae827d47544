"""Random models, the same with a wrong setting, and their logits."""
import copy

import torch
from transformers import AutoModelForCausalLM

# The implementations that take odd sizes.
PLAIN = {"attn_implementation": "eager", "experts_implementation": "eager"}


def random_model(config, dtype=torch.float32, embedding=0.3, mend=lambda model: None):
    """A model with every parameter random, rounded to `dtype`, held in f32. `embedding`: standard deviation of the embedding; a
    small one makes eps matter in the first layer. `mend` may change parameters before they are rounded."""
    model = AutoModelForCausalLM.from_config(config, **PLAIN).eval().float()
    generator = torch.Generator().manual_seed(torch.initial_seed() + 1)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            p.copy_(random_parameter(name, torch.randn(p.shape, generator=generator), config, embedding))
        mend(model)
        for p in model.parameters():
            p.copy_(p.to(dtype).float())
    model.tie_weights()
    return model


PLAIN_MLP_IN = ("mlp.c_fc.", "mlp.dense_h_to_4h.")
PLAIN_MLP_OUT = ("mlp.c_proj.weight", "mlp.dense_4h_to_h.weight")


def random_parameter(name, x, config, embedding):
    """`x`, standard normal, at the scale that suits the parameter."""
    transposed = config.model_type == "gpt2" and "lm_head" not in name
    if "norm" in name or ".ln_" in name:
        one_plus = config.model_type.startswith("gemma")
        return x * 0.4 + (0 if name.endswith("bias") or one_plus else 1)
    plain_mlp = any(part in name for part in PLAIN_MLP_IN)
    if name.endswith("bias"):
        # Where the two GELUs are small and differ by a hundredth of themselves; else nothing would show which it is.
        return x * 0.4 - (2.3 if plain_mlp else 0)
    if any(part in name for part in ("embed_tokens", "word_embeddings", "embed_in", "wte", "wpe")):
        return x * embedding
    fan_in = x.shape[0] if transposed else x.shape[-1]
    x = x * (0.5 if plain_mlp else 1.3) / fan_in**0.5
    return x * 12 if name.endswith(PLAIN_MLP_OUT) else x


def parameters(model):
    """Name to tensor as the model itself names them; a tied head is left out."""
    tied = model.config.tie_word_embeddings
    return {k: v.contiguous() for k, v in model.state_dict().items() if not (k == "lm_head.weight" and tied)}


def run(model, tokens, double=False):
    model = copy.deepcopy(model).double() if double else model
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double().numpy()


# ---- wrong ones ----


def wrong_models(model, wrong):
    """(label, model) for each entry of `wrong`: settings for `change`, or a function that changes a copy of the model."""
    for label, what in wrong.items():
        if callable(what):
            other = copy.deepcopy(model)
            with torch.no_grad():
                what(other)
        else:
            other = with_settings(model, change(model.config, **what))
        yield label, other


def with_settings(model, config):
    """The same weights under another config."""
    other = AutoModelForCausalLM.from_config(config, **PLAIN).eval().float()
    other.load_state_dict(model.state_dict())
    other.tie_weights()
    return other


def change(config, **settings):
    """A copy of `config` with other settings; `rope_parameters` is merged key by key, None drops a key. Where they are kept per
    layer type, `rope_parameters` is too."""
    d = copy.deepcopy(config.to_dict())
    for key, value in settings.pop("rope_parameters", {}).items():
        if isinstance(value, dict):
            d["rope_parameters"][key] = merged(d["rope_parameters"][key], value)
        else:
            d["rope_parameters"] = merged(d["rope_parameters"], {key: value})
    d.update(settings)
    return type(config).from_dict(d)


def merged(old, new):
    return {k: v for k, v in {**old, **new}.items() if v is not None}


def without(module):
    """The model with every module of this name passing its input on: what a reader that ignores the module computes."""

    def mutate(model):
        found = [(parent, name) for parent in model.modules() for name, _ in parent.named_children() if name == module]
        assert found, module
        for parent, name in found:
            setattr(parent, name, torch.nn.Identity())

    return mutate


def scaled(suffix, by, plus=0.0):
    """The model with every parameter whose name ends so multiplied, and something added."""

    def mutate(model):
        found = [p for name, p in model.named_parameters() if name.endswith(suffix)]
        assert found, suffix
        for p in found:
            p.mul_(by).add_(plus)

    return mutate


def zeroed(*suffixes):
    """One wrong model per suffix: biases ignored, say."""
    return {f"no {suffix}": scaled(suffix, 0) for suffix in suffixes}


def lean(model):
    """A `mend` for gated models: the gate's input leans to where the GELUs differ by a hundredth of themselves. Channel 0 of the
    embedding is constant, hence nearly so after the norm; the gate's weights for it set the mean; the last norm drops it."""
    for name, p in model.named_parameters():
        if "embed_tokens" in name:
            p[:, 0] = 2.0
        elif name.endswith("gate_proj.weight"):
            p.mul_(0.4)[:, 0] = -0.8
        elif name.endswith("down_proj.weight"):
            p.mul_(12)
        elif name == "model.norm.weight":
            p[0] = -1.0
        elif name.endswith(("pre_feedforward_layernorm.weight", "post_attention_layernorm.weight")):
            p[0] = 0.0


# ---- experts ----


def smallest_margin(model, tokens):
    """By how much, over all tokens and layers, the least of the chosen experts' logits is above the best of the others'.
    Infinite for a model without experts."""
    margins = [float("inf")]

    def hook(router, inputs, outputs):
        logits = outputs[0].sort(-1, descending=True).values
        if router.top_k < logits.shape[-1]:
            margins.append(float((logits[:, router.top_k - 1] - logits[:, router.top_k]).min()))

    hooks = [m.register_forward_hook(hook) for m in model.modules() if type(m).__name__.endswith("TopKRouter")]
    run(model, tokens)
    for h in hooks:
        h.remove()
    return min(margins)
