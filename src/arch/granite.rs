//! Granite 3: Llama with four multipliers: of the embedding, of the scores, of each sub-layer's output, and a divisor of the logits.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::{GGUF_NAMES, HF_NAMES};
use super::{Family, Spec};
use crate::error::Result;
use crate::ops::elementwise::NormKind;
use crate::ops::rope::Pairing;

pub(super) static FAMILY: Family = Family {
    name: "granite",
    model_types: &["granite"],
    gguf: &["granite"],
    from_config,
    from_metadata,
    names: HF_NAMES,
    gguf_names: GGUF_NAMES,
};

fn from_config(c: &Config<'_>) -> Result<Spec> {
    let factor = |key| Ok(c.f64(key)?.unwrap_or(1.0));
    let mut spec = Spec::from_config(FAMILY.name, c)?;
    spec.embedding_scale = factor("embedding_multiplier")? as f32;
    spec.residual_scale = factor("residual_multiplier")? as f32;
    spec.logit_scale = (1.0 / factor("logits_scaling")?) as f32;
    spec.set_attention_scale(factor("attention_multiplier")?);
    Ok(spec)
}

/// llama.cpp's converter reorders the rows of q and k; its logit_scale is the divisor too.
fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    let mut spec = Spec::from_metadata(FAMILY.name, m, Pairing::Interleaved, NormKind::RmsNorm)?;
    let factor = |key| Ok(m.f64(key)?.filter(|factor| *factor != 0.0));
    spec.embedding_scale = factor("embedding_scale")?.unwrap_or(1.0) as f32;
    spec.residual_scale = factor("residual_scale")?.unwrap_or(1.0) as f32;
    spec.logit_scale = (1.0 / factor("logit_scale")?.unwrap_or(1.0)) as f32;
    if let Some(scale) = factor("attention.scale")? {
        spec.set_attention_scale(scale);
    }
    Ok(spec)
}
