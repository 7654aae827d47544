//! OLMo: as Llama, but LayerNorm without weights, and queries, keys and values may be clamped.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::{GGUF_NAMES, HF_NAMES};
use super::{Family, NormWeight, Spec};
use crate::error::Result;
use crate::ops::elementwise::NormKind;
use crate::ops::rope::Pairing;

pub(super) static FAMILY: Family = Family {
    name: "olmo",
    model_types: &["olmo"],
    gguf: &["olmo"],
    from_config,
    from_metadata,
    names: HF_NAMES,
    gguf_names: GGUF_NAMES,
};

fn from_config(c: &Config<'_>) -> Result<Spec> {
    let clip = c.f64("clip_qkv")?.map(|clip| clip as f32);
    // Its config has no epsilon.
    let norm = (NormKind::LayerNorm, NormWeight::None, 1e-5);
    let spec = Spec::from_config(FAMILY.name, c)?;
    Ok(Spec { norm: norm.0, norm_weight: norm.1, norm_eps: norm.2, qkv_clip: clip, ..spec })
}

fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    let clip = m.f64("attention.clamp_kqv")?.map(|clip| clip as f32).filter(|clip| *clip != 0.0);
    // llama.cpp's converter reorders the rows of q and k, so that pairs stand side by side.
    let spec = Spec::from_metadata(FAMILY.name, m, Pairing::Interleaved, NormKind::LayerNorm)?;
    Ok(Spec { norm_weight: NormWeight::None, norm_bias: false, qkv_clip: clip, ..spec })
}
