//! Llama 1 to 3 and the many models of its shape: RMSNorm before each sub-layer, RoPE, grouped heads, a gated MLP; and Mistral,
//! which is the same with a sliding window.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::{GGUF_NAMES, HF_NAMES};
use super::spec::window;
use super::{Experts, Family, Spec};
use crate::error::Result;
use crate::ops::elementwise::NormKind;
use crate::ops::rope::Pairing;

pub(super) static FAMILY: Family = Family {
    name: "llama",
    model_types: &["llama"],
    gguf: &["llama"],
    from_config: |c| Spec::from_config(FAMILY.name, c),
    from_metadata,
    names: HF_NAMES,
    gguf_names: GGUF_NAMES,
};

/// In GGUF it is `llama`, which says nothing of a window.
pub(super) static MISTRAL: Family = Family {
    name: "mistral",
    model_types: &["mistral"],
    gguf: &[],
    from_config: mistral,
    from_metadata,
    names: HF_NAMES,
    gguf_names: GGUF_NAMES,
};

fn mistral(c: &Config<'_>) -> Result<Spec> {
    let mut spec = Spec::from_config(MISTRAL.name, c)?;
    spec.set_windows(c, window(c)?, |_| true)?;
    Ok(spec)
}

/// Mixtral's GGUF files are `llama` too, with experts.
pub(super) fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    // llama.cpp's converter reorders the rows of q and k of this architecture, so that pairs stand side by side.
    let mut spec = Spec::from_metadata(FAMILY.name, m, Pairing::Interleaved, NormKind::RmsNorm)?;
    spec.set_windows_of(m, 1, None)?;
    if let Some(scale) = m.f64("attention.scale")? {
        spec.set_attention_scale(scale);
    }
    if let Some(n_experts @ 1..) = m.usize("expert_count")? {
        let n_used = m.need_usize("expert_used_count")?;
        spec.set_experts(Experts { n_experts, n_used, ffn_size: spec.ffn_size, normalize: true }, |_| true);
    }
    Ok(spec)
}
