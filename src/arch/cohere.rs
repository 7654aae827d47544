//! Cohere's Command R: LayerNorm without bias, attention and MLP side by side through one norm, pairs of neighbours turned,
//! scaled logits; the larger models have norms on queries and keys, with weights for each head.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::{GGUF_NAMES, HF_NAMES};
use super::rope::Rope;
use super::spec::head_dim;
use super::{Family, QkNorm, Residual, Spec};
use crate::error::Result;
use crate::ops::elementwise::NormKind;
use crate::ops::rope::Pairing;

pub(super) static FAMILY: Family = Family {
    name: "cohere",
    model_types: &["cohere"],
    gguf: &["command-r"],
    from_config,
    from_metadata,
    names: HF_NAMES,
    gguf_names: GGUF_NAMES,
};

fn from_config(c: &Config<'_>) -> Result<Spec> {
    let head_dim = head_dim(c)?;
    let rope = Rope { pairing: Pairing::Interleaved, ..Rope::full(c, head_dim, 500_000.0)? };
    let spec = Spec::from_config_with(FAMILY.name, c, head_dim, rope)?;
    Ok(Spec {
        norm: NormKind::LayerNorm,
        norm_eps: c.f64("layer_norm_eps")?.unwrap_or(1e-5) as f32,
        residual: Residual::ParallelSharedNorm,
        qk_norm: if c.bool("use_qk_norm")?.unwrap_or(false) { QkNorm::EachHead } else { QkNorm::None },
        logit_scale: c.f64("logit_scale")?.unwrap_or(0.0625) as f32,
        tied_head: Some(c.bool("tie_word_embeddings")?.unwrap_or(true)),
        ..spec
    })
}

fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    let spec = Spec::from_metadata(FAMILY.name, m, Pairing::Interleaved, NormKind::LayerNorm)?;
    Ok(Spec {
        norm_bias: false,
        residual: Residual::ParallelSharedNorm,
        qk_norm: if m.has_tensor("blk.0.attn_q_norm.weight") { QkNorm::EachHead } else { QkNorm::None },
        logit_scale: m.f64("logit_scale")?.unwrap_or(1.0) as f32,
        ..spec
    })
}
