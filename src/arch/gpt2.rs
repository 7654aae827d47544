//! GPT-2: LayerNorm, learned positions, one matrix for q, k and v, a plain MLP, biases everywhere.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::GGUF_NAMES;
use super::{Bias, Family, Mlp, Names, Slot, Spec};
use crate::error::Result;
use crate::kernels::Layout;
use crate::ops::elementwise::{Activation, NormKind};
use crate::ops::rope::Pairing;

pub(super) static FAMILY: Family = Family {
    name: "gpt2",
    model_types: &["gpt2"],
    gguf: &["gpt2"],
    from_config,
    from_metadata,
    names: Names {
        prefix: "transformer.",
        rows: &[&[
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
        ]],
        // The causal mask, as older versions of transformers saved it.
        ignored: &[".attn.bias", ".attn.masked_bias"],
    },
    gguf_names: GGUF_NAMES,
};

fn from_config(c: &Config<'_>) -> Result<Spec> {
    c.only("add_cross_attention", false)?;
    let (hidden_size, n_layers) = (c.need_usize("n_embd")?, c.need_usize("n_layer")?);
    let spec = Spec::with_learned_positions(FAMILY.name, n_layers, hidden_size, c.need_usize("n_head")?);
    let mut spec = Spec {
        vocab_size: c.need_usize("vocab_size")?,
        context_length: c.need_usize("n_positions")?,
        ffn_size: c.usize("n_inner")?.unwrap_or(hidden_size.saturating_mul(4)),
        norm: NormKind::LayerNorm,
        norm_bias: true,
        norm_eps: c.f64("layer_norm_epsilon")?.unwrap_or(1e-5) as f32,
        mlp: Mlp::Plain,
        activation: c.activation("activation_function", "gelu_new")?,
        qkv_bias: Bias::Yes,
        o_bias: Bias::Yes,
        mlp_bias: Bias::Yes,
        layout: Layout::InOut,
        tied_head: Some(c.bool("tie_word_embeddings")?.unwrap_or(true)),
        ..spec.map_err(|e| e.context(c.path.display()))?
    };
    if !c.bool("scale_attn_weights")?.unwrap_or(true) {
        spec.set_attention_scale(1.0);
    }
    if c.bool("scale_attn_by_inverse_layer_idx")?.unwrap_or(false) {
        spec.each_layer(|i, layer| layer.attention_scale /= (i + 1) as f32);
    }
    Ok(spec)
}

/// llama.cpp's converter turns the projections round to [n_out, n_in].
fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    let mut spec = Spec::from_metadata(FAMILY.name, m, Pairing::HalfSplit, NormKind::LayerNorm)?;
    spec.each_layer(|_, layer| layer.rope = None);
    let (learned_positions, ropes) = (true, Vec::new());
    Ok(Spec { learned_positions, ropes, mlp: Mlp::Plain, activation: Activation::GeluTanh, ..spec })
}
