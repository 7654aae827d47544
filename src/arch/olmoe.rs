//! OLMoE: RMSNorm over whole queries and keys as OLMo-2, norms before the sub-layers as Llama, and mixtures of experts.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::{GGUF_NAMES, HF_NAMES};
use super::{Experts, Family, QkNorm, Spec};
use crate::error::Result;
use crate::ops::elementwise::NormKind;
use crate::ops::rope::Pairing;

pub(super) static FAMILY: Family = Family {
    name: "olmoe",
    model_types: &["olmoe"],
    gguf: &["olmoe"],
    from_config,
    from_metadata,
    names: HF_NAMES,
    gguf_names: GGUF_NAMES,
};

fn from_config(c: &Config<'_>) -> Result<Spec> {
    let mut spec = Spec::from_config(FAMILY.name, c)?;
    spec.norm_eps = c.f64("rms_norm_eps")?.unwrap_or(1e-5) as f32;
    spec.qk_norm = QkNorm::Whole;
    spec.qkv_clip = c.f64("clip_qkv")?.map(|clip| clip as f32);
    let experts = Experts {
        n_experts: c.usize("num_experts")?.unwrap_or(64),
        n_used: c.usize("num_experts_per_tok")?.unwrap_or(8),
        ffn_size: spec.ffn_size,
        normalize: c.bool("norm_topk_prob")?.unwrap_or(false),
    };
    spec.set_experts(experts, |_| true);
    Ok(spec)
}

fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    let mut spec = Spec::from_metadata(FAMILY.name, m, Pairing::HalfSplit, NormKind::RmsNorm)?;
    spec.qk_norm = QkNorm::Whole;
    spec.qkv_clip = m.f64("attention.clamp_kqv")?.map(|clip| clip as f32).filter(|clip| *clip != 0.0);
    let experts = Experts {
        n_experts: m.need_usize("expert_count")?,
        n_used: m.need_usize("expert_used_count")?,
        ffn_size: m.usize("expert_feed_forward_length")?.unwrap_or(spec.ffn_size),
        normalize: m.bool("expert_weights_norm")?.unwrap_or(false),
    };
    spec.set_experts(experts, |_| true);
    Ok(spec)
}
