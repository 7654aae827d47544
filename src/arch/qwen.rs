//! Qwen2: Llama with biases on q, k and v. Qwen3: without them, but RMSNorm over each head's queries and keys; and its
//! mixtures of experts.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::{GGUF_NAMES, HF_NAMES};
use super::rope::Rope;
use super::spec::window;
use super::{Bias, Experts, Family, QkNorm, Spec};
use crate::error::Result;
use crate::ops::elementwise::NormKind;
use crate::ops::rope::Pairing;

pub(super) static QWEN2: Family = Family {
    name: "qwen2",
    model_types: &["qwen2"],
    gguf: &["qwen2"],
    from_config: qwen2,
    from_metadata: |m| metadata(QWEN2.name, m),
    names: HF_NAMES,
    gguf_names: GGUF_NAMES,
};

pub(super) static QWEN3: Family = Family {
    name: "qwen3",
    model_types: &["qwen3"],
    gguf: &["qwen3"],
    from_config: qwen3,
    from_metadata: |m| Ok(Spec { qk_norm: QkNorm::PerHead, ..metadata(QWEN3.name, m)? }),
    names: HF_NAMES,
    gguf_names: GGUF_NAMES,
};

pub(super) static QWEN3_MOE: Family = Family {
    name: "qwen3_moe",
    model_types: &["qwen3_moe"],
    gguf: &["qwen3moe"],
    from_config: qwen3_moe,
    from_metadata: qwen3_moe_metadata,
    names: HF_NAMES,
    gguf_names: GGUF_NAMES,
};

/// Windows where they are in use: `slides` says in which layers.
fn set_windows(spec: &mut Spec, c: &Config<'_>, slides: impl Fn(usize) -> bool) -> Result<()> {
    let in_use = c.bool("use_sliding_window")?.unwrap_or(false);
    spec.set_windows(c, window(c)?.filter(|_| in_use), slides)
}

/// Qwen2's and Qwen3's windows are in the later layers.
fn set_late_windows(spec: &mut Spec, c: &Config<'_>) -> Result<()> {
    let full = c.usize("max_window_layers")?.unwrap_or(28);
    set_windows(spec, c, |i| i >= full)
}

fn qwen2(c: &Config<'_>) -> Result<Spec> {
    let mut spec = Spec { qkv_bias: Bias::Yes, o_bias: Bias::No, ..Spec::from_config(QWEN2.name, c)? };
    set_late_windows(&mut spec, c)?;
    Ok(spec)
}

fn qwen3(c: &Config<'_>) -> Result<Spec> {
    let head_dim = c.usize("head_dim")?.unwrap_or(128);
    let spec = Spec::from_config_with(QWEN3.name, c, head_dim, Rope::from_config(c, head_dim)?)?;
    let mut spec = Spec { qk_norm: QkNorm::PerHead, ..spec };
    set_late_windows(&mut spec, c)?;
    Ok(spec)
}

fn qwen3_moe(c: &Config<'_>) -> Result<Spec> {
    let mut spec = Spec { qk_norm: QkNorm::PerHead, ..Spec::from_config(QWEN3_MOE.name, c)? };
    // Where it has windows, it has them in every layer.
    set_windows(&mut spec, c, |_| true)?;
    let experts = Experts {
        n_experts: c.usize("num_experts")?.or(c.usize("num_local_experts")?).unwrap_or(128),
        n_used: c.usize("num_experts_per_tok")?.unwrap_or(8),
        ffn_size: c.usize("moe_intermediate_size")?.unwrap_or(768),
        normalize: c.bool("norm_topk_prob")?.unwrap_or(false),
    };
    let (dense, step) = (c.usizes("mlp_only_layers")?.unwrap_or_default(), c.usize("decoder_sparse_step")?.unwrap_or(1));
    if step == 0 {
        return Err(c.bad("decoder_sparse_step", "is 0; expected 1 or more"));
    }
    spec.set_experts(experts, |i| (i + 1).is_multiple_of(step));
    for i in dense {
        if let Some(layer) = spec.layers.get_mut(i) {
            layer.sparse = false;
        }
    }
    Ok(spec)
}

fn metadata(family: &'static str, m: &Meta<'_>) -> Result<Spec> {
    Spec::from_metadata(family, m, Pairing::HalfSplit, NormKind::RmsNorm)
}

fn qwen3_moe_metadata(m: &Meta<'_>) -> Result<Spec> {
    let mut spec = Spec { qk_norm: QkNorm::PerHead, ..metadata(QWEN3_MOE.name, m)? };
    let experts = Experts {
        n_experts: m.need_usize("expert_count")?,
        n_used: m.need_usize("expert_used_count")?,
        ffn_size: m.need_usize("expert_feed_forward_length")?,
        // llama.cpp always does, and no file says.
        normalize: m.bool("expert_weights_norm")?.unwrap_or(true),
    };
    spec.set_experts(experts, |i| m.has_tensor(&format!("blk.{i}.ffn_gate_inp.weight")));
    Ok(spec)
}
