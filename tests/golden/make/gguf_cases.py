"""Every family from a GGUF file. What the converter does not write must have the value that a reader knows: rope's base in Gemma
1 and 2, Falcon and GPT-NeoX, Gemma's attention scale and pattern, whether experts' shares sum to 1."""
import torch

from .cases import case
from .gemma import FULL, GEMMA2, LINEAR, SCALING, SLIDING
from .gemma import gemma, gemma2, gemma3, gemma3_wrong, gemma_wrong, no_embedding_scale
from .gguf_files import gguf_case
from .gpt2 import BIASES, gpt2
from .llama import USUAL, WINDOW, mistral
from .llama_like import MULTIPLIERS, granite, smollm3
from .models import lean, scaled, without, zeroed
from .moe import MIXTRAL, OLMOE, QWEN3_MOE, mixtral, olmoe, qwen3_moe
from .olmo import OLMO3_SCALED, OLMO3_USUAL, OLMO_WRONG, YARN_64, olmo, olmo3
from .parallel import ATTENTION_BIASES, COHERE, COHERE2, FALCON, NEOX, cohere, cohere2, falcon, neox, one_norm
from .parallel import lean as falcon_lean
from .phi import LONGROPE, fused, phi3, rope_wrong
from .qwen import BIASES as QWEN_BIASES
from .qwen import NORMS, qwen2, qwen3

F16, BF16 = torch.float16, torch.bfloat16
THETA = {"theta": {"rope_parameters": {"rope_theta": 1000.0}}}
DEFAULT_ROPE = {"rope_theta": 10000.0, "rope_type": "default"}


@case("gpt2-gguf-f16", 1401)
def _(folder):
    wrong = {"eps": {"layer_norm_epsilon": 1e-5}, "gelu": {"activation_function": "gelu"}, **BIASES}
    return gguf_case(folder, gpt2(vocab_size=61), wrong, F16)


@case("mistral-gguf", 1402)
def _(folder):
    """The architecture is llama, and a window would be lost."""
    return gguf_case(folder, mistral(sliding_window=None, head_dim=12), {**USUAL, "window": {"sliding_window": 20}}, BF16)


@case("olmo-gguf", 1403)
def _(folder):
    return gguf_case(folder, olmo(), OLMO_WRONG, F16, embedding=0.02)


@case("olmo3-gguf", 1404, n_tokens=150)
def _(folder):
    """The architecture is olmo2; the pattern is an array, and rope is scaled in the full layers alone."""
    config = olmo3(YARN_64, theta=3000.0, layer_types=[SLIDING, FULL, SLIDING, SLIDING])
    return gguf_case(folder, config, {**OLMO3_USUAL, **OLMO3_SCALED, "pattern": {"layer_types": 3 * [SLIDING] + [FULL]}}, BF16)


@case("qwen2-gguf", 1405)
def _(folder):
    return gguf_case(folder, qwen2(), {**USUAL, **QWEN_BIASES}, F16)


@case("qwen3-gguf", 1406)
def _(folder):
    return gguf_case(folder, qwen3(), {**USUAL, **NORMS}, BF16)


@case("gemma-gguf", 1407)
def _(folder):
    wrong = {**gemma_wrong("hidden_act"), **THETA}
    return gguf_case(folder, gemma(rope_parameters=DEFAULT_ROPE), wrong, F16, mend=lean)


@case("gemma2-gguf", 1408, n_tokens=150)
def _(folder):
    """1/sqrt(head_dim), the first of two layers has the window."""
    config = gemma2(rope_parameters=DEFAULT_ROPE, query_pre_attn_scalar=10)
    return gguf_case(folder, config, {**GEMMA2, **THETA, "query_pre_attn_scalar": {"query_pre_attn_scalar": 17}}, BF16, mend=lean)


def quiet(model):
    """A `mend` for many layers, which would make much of rounding."""
    for name, p in model.named_parameters():
        if "post_" in name:
            p.mul_(0.1).sub_(0.8)


SCALED_BY_WIDTH = {"query_pre_attn_scalar": {"query_pre_attn_scalar": 4}, "1 + w": scaled("norm.weight", 1, -1.0),
                   "embedding scale": no_embedding_scale}


@case("gemma2-gguf-27b", 1409)
def _(folder):
    """With 46 layers, as gemma-2-27b, attention is scaled by 1/sqrt(hidden_size / heads), which only the number of layers
    tells."""
    config = gemma2(rope_parameters=DEFAULT_ROPE, num_hidden_layers=46, hidden_size=12, head_dim=4, intermediate_size=7,
                    query_pre_attn_scalar=6)
    return gguf_case(folder, config, {**SCALED_BY_WIDTH, **THETA}, F16, mend=quiet)


@case("gemma3-gguf-27b", 1425)
def _(folder):
    """The same with 62 layers, as gemma-3-27b."""
    config = gemma3(LINEAR, num_hidden_layers=62, hidden_size=12, head_dim=4, intermediate_size=7, query_pre_attn_scalar=6)
    return gguf_case(folder, config, {**SCALED_BY_WIDTH, **SCALING}, F16, mend=quiet)


@case("gemma3-gguf", 1410, n_tokens=150)
def _(folder):
    """The sixth layer is global; linear scaling in the global layers."""
    config = gemma3(LINEAR, num_hidden_layers=7, query_pre_attn_scalar=10)
    wrong = gemma3_wrong(7 * [SLIDING], **SCALING)
    return gguf_case(folder, config, {**wrong, "query_pre_attn_scalar": {"query_pre_attn_scalar": 17}}, F16, mend=lean)


@case("smollm3-gguf", 1411)
def _(folder):
    wrong = {**USUAL, "rope everywhere": {"no_rope_layers": [1] * 5}, "rope where none is": {"no_rope_layers": [0, 0, 0, 1, 0]}}
    return gguf_case(folder, smollm3(num_hidden_layers=5), wrong, F16)


@case("granite-gguf", 1412)
def _(folder):
    biases = zeroed("q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias")
    return gguf_case(folder, granite(attention_bias=True), {**USUAL, **MULTIPLIERS, **biases}, BF16, embedding=0.1)


@case("phi3-gguf-long", 1413, n_tokens=90)
def _(folder):
    config = phi3(LONGROPE, partial=0.75, hidden_size=48, max_position_embeddings=256, original_max_position_embeddings=48)
    wrong = {**USUAL, **fused(config), **rope_wrong("long", "attention"), "context": {"max_position_embeddings": 96}}
    return gguf_case(folder, config, wrong, F16)


@case("phi3-gguf-window", 1414, n_tokens=150)
def _(folder):
    """The window is in the file, though llama.cpp says that it ignores it. No scaling."""
    config = phi3(max_position_embeddings=256, original_max_position_embeddings=256, sliding_window=20)
    return gguf_case(folder, config, {**USUAL, **WINDOW, **fused(config)}, BF16)


@case("phi3-gguf-short", 1415)
def _(folder):
    """The short factors; no window, which is written as 0."""
    config = phi3(LONGROPE)
    return gguf_case(folder, config, {**USUAL, **fused(config), **rope_wrong("short")}, F16)


@case("gpt-neox-gguf", 1416)
def _(folder):
    wrong = {k: v for k, v in {**NEOX, **ATTENTION_BIASES}.items() if k != "q, k and v"}
    return gguf_case(folder, neox(theta=10000.0), {**wrong, **THETA}, F16)


@case("gpt-neox-gguf-serial", 1417)
def _(folder):
    config = neox(theta=10000.0, partial=0.5, use_parallel_residual=False)
    return gguf_case(folder, config, {**NEOX, **ATTENTION_BIASES, **THETA, "parallel": {"use_parallel_residual": True}}, BF16)


@case("falcon-gguf", 1418)
def _(folder):
    config = falcon(ffn_hidden_size=None, hidden_size=30, rope_parameters=DEFAULT_ROPE)
    return gguf_case(folder, config, {**FALCON, **THETA}, F16, mend=falcon_lean)


@case("falcon-gguf-new", 1419)
def _(folder):
    """As Falcon-40B: attn_norm is the MLP's norm, attn_norm_2 the attention's."""
    config = falcon(new_decoder_architecture=True, num_attention_heads=6, num_kv_heads=2, ffn_hidden_size=None,
                    rope_parameters=DEFAULT_ROPE)
    return gguf_case(folder, config, {**FALCON, **THETA, "two norms": one_norm}, BF16, mend=falcon_lean)


@case("cohere-gguf", 1420)
def _(folder):
    return gguf_case(folder, cohere(), COHERE, F16)


@case("cohere-gguf-qk-norm", 1421)
def _(folder):
    config = cohere(use_qk_norm=True, num_attention_heads=6, num_key_value_heads=2)
    return gguf_case(folder, config, {**COHERE, "q_norm": without("q_norm"), "k_norm": without("k_norm")}, BF16)


@case("mixtral-gguf", 1422)
def _(folder):
    """The architecture is llama."""
    return gguf_case(folder, mixtral(), MIXTRAL, F16)


@case("qwen3-moe-gguf", 1423)
def _(folder):
    """The shares are always made to sum to 1."""
    return gguf_case(folder, qwen3_moe(), {**QWEN3_MOE, "norm_topk_prob": {"norm_topk_prob": False}}, BF16)


@case("olmoe-gguf", 1424)
def _(folder):
    """The shares are always as they are; the eps is always 1e-5."""
    wrong = {**OLMOE, "eps": {"rms_norm_eps": 1e-6}, "norm_topk_prob": {"norm_topk_prob": True}}
    return gguf_case(folder, olmoe(rms_norm_eps=1e-5), wrong, F16, embedding=0.01)


@case("cohere2-gguf", 1431, n_tokens=150)
def _(folder):
    return gguf_case(folder, cohere2(), COHERE2, F16)
