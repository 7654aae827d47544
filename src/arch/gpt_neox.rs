//! GPT-NeoX and Pythia: LayerNorm, biases, one matrix for q, k and v (head by head), a part of each head turned, and attention
//! and MLP side by side.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::GGUF_NAMES;
use super::rope::{Rope, settings};
use super::spec::head_dim;
use super::{Bias, Family, FusedQkv, Mlp, Names, Residual, Slot, Spec};
use crate::error::Result;
use crate::ops::elementwise::{Activation, NormKind};
use crate::ops::rope::Pairing;

pub(super) static FAMILY: Family = Family {
    name: "gpt_neox",
    model_types: &["gpt_neox"],
    gguf: &["gptneox"],
    from_config,
    from_metadata,
    names: Names {
        prefix: "gpt_neox.",
        rows: &[&[
            (Slot::Embedding, "gpt_neox.embed_in"),
            (Slot::OutputNorm, "gpt_neox.final_layer_norm"),
            (Slot::Head, "embed_out"),
            (Slot::AttentionNorm, "gpt_neox.layers.{}.input_layernorm"),
            (Slot::Qkv, "gpt_neox.layers.{}.attention.query_key_value"),
            (Slot::O, "gpt_neox.layers.{}.attention.dense"),
            (Slot::MlpNorm, "gpt_neox.layers.{}.post_attention_layernorm"),
            (Slot::Up, "gpt_neox.layers.{}.mlp.dense_h_to_4h"),
            (Slot::Down, "gpt_neox.layers.{}.mlp.dense_4h_to_h"),
        ]],
        // The causal mask and the frequencies, as older versions of transformers saved them.
        ignored: &[".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"],
    },
    gguf_names: GGUF_NAMES,
};

fn from_config(c: &Config<'_>) -> Result<Spec> {
    let head_dim = head_dim(c)?;
    let rope = Rope::partial(c, head_dim, "rotary_pct", 0.25)?;
    // transformers 4 calls the base rotary_emb_base.
    let nested = settings(c)?.map(|settings| settings.f64("rope_theta")).transpose()?.flatten();
    let rope = Rope { theta: nested.or(c.f64("rotary_emb_base")?).unwrap_or(rope.theta), ..rope };
    let spec = Spec::from_config_with(FAMILY.name, c, head_dim, rope)?;
    let attention_bias = if c.bool("attention_bias")?.unwrap_or(true) { Bias::Yes } else { Bias::No };
    Ok(Spec {
        norm: NormKind::LayerNorm,
        norm_bias: true,
        norm_eps: c.f64("layer_norm_eps")?.unwrap_or(1e-5) as f32,
        residual: residual(c.bool("use_parallel_residual")?.unwrap_or(true)),
        mlp: Mlp::Plain,
        activation: c.activation("hidden_act", "gelu")?,
        qkv_bias: attention_bias,
        o_bias: attention_bias,
        mlp_bias: Bias::Yes,
        fused_qkv: FusedQkv::ByKvHead,
        ..spec
    })
}

fn residual(parallel: bool) -> Residual {
    if parallel { Residual::Parallel } else { Residual::Sequential }
}

/// llama.cpp's converter puts the rows of q, k and v in turn.
fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    let spec = Spec::from_metadata(FAMILY.name, m, Pairing::HalfSplit, NormKind::LayerNorm)?;
    let residual = residual(m.bool("use_parallel_residual")?.unwrap_or(true));
    Ok(Spec { residual, mlp: Mlp::Plain, activation: Activation::Gelu, ..spec })
}
