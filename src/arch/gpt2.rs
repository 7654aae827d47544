//! GPT-2: LayerNorm, learned positions, one matrix for q, k and v, a plain MLP, biases everywhere.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::{Bias, Family, Mlp, Names, NormPlace, Position, QkNorm, Slot, Spec};
use crate::error::Result;
use crate::kernels::Layout;
use crate::ops::elementwise::{Activation, NormKind};

pub(super) static FAMILY: Family = Family {
    name: "gpt2",
    model_types: &["gpt2"],
    gguf: &["gpt2"],
    from_config,
    from_metadata,
    names: Names {
        prefix: "transformer.",
        rows: &[
            (Slot::Embedding, "transformer.wte"),
            (Slot::PositionEmbedding, "transformer.wpe"),
            (Slot::OutputNorm, "transformer.ln_f"),
            (Slot::Head, "lm_head"),
            (Slot::AttentionNorm, "transformer.h.{}.ln_1"),
            (Slot::Qkv, "transformer.h.{}.attn.c_attn"),
            (Slot::O, "transformer.h.{}.attn.c_proj"),
            (Slot::MlpNorm, "transformer.h.{}.ln_2"),
            (Slot::Up, "transformer.h.{}.mlp.c_fc"),
            (Slot::Down, "transformer.h.{}.mlp.c_proj"),
        ],
        // The causal mask, as older versions of transformers saved it.
        ignored: &[".attn.bias", ".attn.masked_bias"],
    },
    gguf_names: Names {
        prefix: "",
        rows: &[
            (Slot::Embedding, "token_embd"),
            (Slot::PositionEmbedding, "position_embd"),
            (Slot::OutputNorm, "output_norm"),
            (Slot::Head, "output"),
            (Slot::AttentionNorm, "blk.{}.attn_norm"),
            (Slot::Qkv, "blk.{}.attn_qkv"),
            (Slot::O, "blk.{}.attn_output"),
            (Slot::MlpNorm, "blk.{}.ffn_norm"),
            (Slot::Up, "blk.{}.ffn_up"),
            (Slot::Down, "blk.{}.ffn_down"),
        ],
        ignored: &[],
    },
};

/// What both kinds of file have in common.
struct Sizes {
    vocab_size: usize,
    context_length: usize,
    n_layers: usize,
    hidden_size: usize,
    ffn_size: usize,
    n_heads: usize,
    eps: f64,
}

fn spec(s: Sizes, activation: Activation, layout: Layout, tied_head: Option<bool>) -> Spec {
    let head_dim = s.hidden_size / s.n_heads.max(1);
    Spec {
        family: FAMILY.name,
        vocab_size: s.vocab_size,
        context_length: s.context_length,
        n_layers: s.n_layers,
        hidden_size: s.hidden_size,
        ffn_size: s.ffn_size,
        n_heads: s.n_heads,
        n_kv_heads: s.n_heads,
        head_dim,
        norm: NormKind::LayerNorm,
        norm_eps: s.eps as f32,
        norm_place: NormPlace::Before,
        position: Position::Learned,
        qk_norm: QkNorm::None,
        attention_scale: 1.0 / (head_dim as f32).sqrt(),
        mlp: Mlp::Plain,
        activation,
        qkv_bias: Bias::Yes,
        o_bias: Bias::Yes,
        mlp_bias: Bias::Yes,
        fused_qkv: true,
        layout,
        tied_head,
    }
}

fn from_config(c: &Config<'_>) -> Result<Spec> {
    c.only("scale_attn_by_inverse_layer_idx", false)?;
    c.only("add_cross_attention", false)?;
    let hidden_size = c.need_usize("n_embd")?;
    let sizes = Sizes {
        vocab_size: c.need_usize("vocab_size")?,
        context_length: c.need_usize("n_positions")?,
        n_layers: c.need_usize("n_layer")?,
        hidden_size,
        ffn_size: c.usize("n_inner")?.unwrap_or(4 * hidden_size),
        n_heads: c.need_usize("n_head")?,
        eps: c.f64("layer_norm_epsilon")?.unwrap_or(1e-5),
    };
    let activation = c.activation("activation_function", "gelu_new")?;
    let tied_head = c.bool("tie_word_embeddings")?.unwrap_or(true);
    let mut spec = spec(sizes, activation, Layout::InOut, Some(tied_head));
    if !c.bool("scale_attn_weights")?.unwrap_or(true) {
        spec.attention_scale = 1.0;
    }
    Ok(spec)
}

fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    let sizes = Sizes {
        vocab_size: m.vocab_size,
        context_length: m.need_usize("context_length")?,
        n_layers: m.need_usize("block_count")?,
        hidden_size: m.need_usize("embedding_length")?,
        ffn_size: m.need_usize("feed_forward_length")?,
        n_heads: m.need_usize("attention.head_count")?,
        eps: m.need_f64("attention.layer_norm_epsilon")?,
    };
    // llama.cpp's converter turns the projections round to [n_out, n_in].
    Ok(spec(sizes, Activation::GeluTanh, Layout::OutIn, None))
}
