//! Cohere's Command R: LayerNorm without bias, attention and MLP side by side through one norm, pairs of neighbours turned,
//! scaled logits; the larger models have norms on queries and keys, with weights for each head. Command R7B (Cohere 2) has windows
//! in three layers of four, and RoPE only there.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::{GGUF_NAMES, HF_NAMES};
use super::rope::Rope;
use super::spec::{head_dim, window};
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

pub(super) static COHERE2: Family = Family {
    name: "cohere2",
    model_types: &["cohere2"],
    gguf: &["cohere2"],
    from_config: cohere2,
    from_metadata: cohere2_metadata,
    names: HF_NAMES,
    gguf_names: GGUF_NAMES,
};

fn from_config(c: &Config<'_>) -> Result<Spec> {
    read(FAMILY.name, c, 500_000.0)
}

fn read(family: &'static str, c: &Config<'_>, theta: f64) -> Result<Spec> {
    let head_dim = head_dim(c)?;
    let rope = Rope { pairing: Pairing::Interleaved, ..Rope::full(c, head_dim, theta)? };
    let spec = Spec::from_config_with(family, c, head_dim, rope)?;
    // The first Command R says 8192 positions and runs with model_max_length of them.
    let context_length = c.usize("model_max_length")?.map_or(spec.context_length, |n| n.max(spec.context_length));
    Ok(Spec {
        context_length,
        norm: NormKind::LayerNorm,
        norm_eps: c.f64("layer_norm_eps")?.unwrap_or(1e-5) as f32,
        residual: Residual::ParallelSharedNorm,
        qk_norm: if c.bool("use_qk_norm")?.unwrap_or(false) { QkNorm::EachHead } else { QkNorm::None },
        logit_scale: c.f64("logit_scale")?.unwrap_or(0.0625) as f32,
        tied_head: Some(c.bool("tie_word_embeddings")?.unwrap_or(true)),
        ..spec
    })
}

fn cohere2(c: &Config<'_>) -> Result<Spec> {
    let mut spec = read(COHERE2.name, c, 10_000.0)?;
    let pattern = c.usize("sliding_window_pattern")?.unwrap_or(4).max(1);
    spec.set_windows(c, window(c)?, |i| !(i + 1).is_multiple_of(pattern))?;
    spec.each_layer(|_, layer| layer.rope = layer.window.map(|_| 0));
    Ok(spec)
}

fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    read_metadata(FAMILY.name, m)
}

fn cohere2_metadata(m: &Meta<'_>) -> Result<Spec> {
    let mut spec = read_metadata(COHERE2.name, m)?;
    spec.set_windows_of(m, 4, None)?;
    spec.each_layer(|_, layer| layer.rope = layer.window.map(|_| 0));
    Ok(spec)
}

fn read_metadata(family: &'static str, m: &Meta<'_>) -> Result<Spec> {
    let spec = Spec::from_metadata(family, m, Pairing::Interleaved, NormKind::LayerNorm)?;
    Ok(Spec {
        norm_bias: false,
        residual: Residual::ParallelSharedNorm,
        qk_norm: if m.has_tensor("blk.0.attn_q_norm.weight") { QkNorm::EachHead } else { QkNorm::None },
        logit_scale: m.f64("logit_scale")?.unwrap_or(1.0) as f32,
        ..spec
    })
}
