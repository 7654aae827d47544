//! Phi-3 and Phi-4-mini: Llama with fused projections, a part of each head turned, LongRoPE and a sliding window.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::{GGUF, HF};
use super::rope::{Rope, Scaling, settings};
use super::spec::head_dim;
use super::{Family, Names, Slot, Spec};
use crate::error::Result;
use crate::ops::elementwise::NormKind;
use crate::ops::rope::Pairing;

pub(super) static FAMILY: Family = Family {
    name: "phi3",
    model_types: &["phi3"],
    gguf: &["phi3"],
    from_config,
    from_metadata,
    names: Names {
        prefix: "model.",
        rows: &[&[(Slot::Qkv, "model.layers.{}.self_attn.qkv_proj"), (Slot::GateUp, "model.layers.{}.mlp.gate_up_proj")], HF],
        ignored: &[".rotary_emb.inv_freq"],
    },
    gguf_names: Names { prefix: "", rows: &[&[(Slot::GateUp, "blk.{}.ffn_up")], GGUF], ignored: &[] },
};

fn from_config(c: &Config<'_>) -> Result<Spec> {
    let head_dim = head_dim(c)?;
    let mut rope = Rope::partial(c, head_dim, "partial_rotary_factor", 1.0)?;
    // The first files call LongRoPE "yarn".
    if let (Scaling::Yarn { original_context, .. }, Some(settings)) = (&rope.scaling, settings(c)?) {
        rope.scaling = Scaling::long_rope(&settings, c, *original_context)?;
    }
    let mut spec = Spec::from_config_with(FAMILY.name, c, head_dim, rope)?;
    spec.norm_eps = c.f64("rms_norm_eps")?.unwrap_or(1e-5) as f32;
    spec.set_windows(c, c.usize("sliding_window")?, |_| true)?;
    Ok(spec)
}

fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    let mut spec = Spec::from_metadata(FAMILY.name, m, Pairing::HalfSplit, NormKind::RmsNorm)?;
    spec.set_windows_of(m, 1, None)?;
    if m.has_tensor("rope_factors_long.weight") {
        let scaling = Scaling::LongRope {
            short: Vec::new(),
            long: Vec::new(),
            attention_factor: m.f64("rope.scaling.attn_factor")?.unwrap_or(1.0),
            original_context: m.need_usize("rope.scaling.original_context_length")? as f64,
        };
        spec.ropes.iter_mut().for_each(|rope| rope.scaling = scaling.clone());
    }
    Ok(spec)
}
