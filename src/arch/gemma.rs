//! Gemma: norms that hold their factor less one, a scaled embedding, tanh GELU in a gated MLP, wide heads. Gemma 2 adds norms
//! behind the sub-layers, soft caps and windows in every second layer; Gemma 3 has norms on queries and keys instead of the caps,
//! windows in five layers of six, and another RoPE in those.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::{GGUF_NAMES, HF, HF_NAMES};
use super::rope::{Rope, Scaling, settings};
use super::spec::window;
use super::{Family, Names, NormPlace, NormWeight, QkNorm, Slot, Spec};
use crate::error::Result;
use crate::ops::elementwise::{Activation, NormKind};
use crate::ops::rope::Pairing;

const NAMES: Names = Names {
    prefix: "model.",
    rows: &[
        &[
            (Slot::AttentionPostNorm, "model.layers.{}.post_attention_layernorm"),
            (Slot::MlpNorm, "model.layers.{}.pre_feedforward_layernorm"),
            (Slot::MlpPostNorm, "model.layers.{}.post_feedforward_layernorm"),
        ],
        HF,
    ],
    ignored: &[".rotary_emb.inv_freq"],
};

pub(super) static GEMMA: Family = Family {
    name: "gemma",
    model_types: &["gemma"],
    gguf: &["gemma"],
    from_config: gemma,
    from_metadata: |m| metadata(GEMMA.name, m),
    names: HF_NAMES,
    gguf_names: GGUF_NAMES,
};

pub(super) static GEMMA2: Family = Family {
    name: "gemma2",
    model_types: &["gemma2"],
    gguf: &["gemma2"],
    from_config: gemma2,
    from_metadata: gemma2_metadata,
    names: NAMES,
    gguf_names: GGUF_NAMES,
};

pub(super) static GEMMA3: Family = Family {
    name: "gemma3",
    model_types: &["gemma3_text"],
    gguf: &["gemma3"],
    from_config: gemma3,
    from_metadata: gemma3_metadata,
    names: NAMES,
    gguf_names: GGUF_NAMES,
};

fn from_config(family: &'static str, c: &Config<'_>) -> Result<Spec> {
    c.only("use_bidirectional_attention", false)?;
    let head_dim = c.usize("head_dim")?.unwrap_or(256);
    let spec = Spec::from_config_with(family, c, head_dim, Rope::full(c, head_dim, 10_000.0)?)?;
    Ok(Spec {
        norm_weight: NormWeight::PlusOne,
        embedding_scale: (spec.hidden_size as f32).sqrt(),
        tied_head: Some(c.bool("tie_word_embeddings")?.unwrap_or(true)),
        ..spec
    })
}

fn gemma(c: &Config<'_>) -> Result<Spec> {
    // The first configs say "gelu" under hidden_act and mean the tanh form, which later ones say under hidden_activation.
    let activation = match (c.str("hidden_activation")?, c.str("hidden_act")?) {
        (None, None | Some("gelu")) => Activation::GeluTanh,
        (None, Some(_)) => c.activation("hidden_act", "")?,
        (Some(_), _) => c.activation("hidden_activation", "")?,
    };
    Ok(Spec { activation, ..from_config(GEMMA.name, c)? })
}

/// What Gemma 2 and 3 have in common.
fn later(family: &'static str, c: &Config<'_>) -> Result<Spec> {
    let mut spec = from_config(family, c)?;
    spec.activation = c.activation("hidden_activation", "gelu_pytorch_tanh")?;
    spec.norm_place = NormPlace::Both;
    spec.set_attention_scale(1.0 / c.f64("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt());
    Ok(spec)
}

fn gemma2(c: &Config<'_>) -> Result<Spec> {
    let mut spec = later(GEMMA2.name, c)?;
    spec.attention_softcap = c.f64_or_null("attn_logit_softcapping", 50.0)?.map(|cap| cap as f32);
    spec.logit_softcap = c.f64_or_null("final_logit_softcapping", 30.0)?.map(|cap| cap as f32);
    spec.set_windows(c, window(c)?, |i| i % 2 == 0)?;
    Ok(spec)
}

fn gemma3(c: &Config<'_>) -> Result<Spec> {
    // It has the key, but no implementation has the cap.
    if let Some(cap) = c.f64("attn_logit_softcapping")? {
        return Err(c.unsupported("attn_logit_softcapping", cap));
    }
    let mut spec = later(GEMMA3.name, c)?;
    spec.logit_softcap = c.f64("final_logit_softcapping")?.map(|cap| cap as f32);
    spec.qk_norm = QkNorm::PerHead;
    let pattern = c.usize("sliding_window_pattern")?.or(c.usize("_sliding_window_pattern")?).unwrap_or(6).max(1);
    spec.set_windows(c, window(c)?, |i| !(i + 1).is_multiple_of(pattern))?;
    // transformers 4: rope_theta and rope_scaling are of the layers that see everything, rope_local_base_freq of the others.
    let head_dim = spec.head_dim;
    let full = Rope::of_layers(c, head_dim, "full_attention", 1e6, || Rope::new(c, settings(c)?.as_ref(), head_dim, 1e6))?;
    let local = c.f64("rope_local_base_freq")?.unwrap_or(10_000.0);
    let sliding = Rope::of_layers(c, head_dim, "sliding_attention", local, || {
        Ok(Rope { theta: local, rotary_dim: head_dim, pairing: Pairing::HalfSplit, scaling: Scaling::None })
    })?;
    spec.set_ropes(full, sliding);
    Ok(spec)
}

fn metadata(family: &'static str, m: &Meta<'_>) -> Result<Spec> {
    let spec = Spec::from_metadata(family, m, Pairing::HalfSplit, NormKind::RmsNorm)?;
    // llama.cpp's converter adds the one to the norms' weights.
    Ok(Spec { embedding_scale: (spec.hidden_size as f32).sqrt(), activation: Activation::GeluTanh, ..spec })
}

/// What Gemma 2 and 3 have in common. `scaled_by_width`: the number of layers of the model (the 27B one) whose scores are scaled
/// by hidden_size / n_heads instead of head_dim, which the files do not say.
fn later_metadata(family: &'static str, m: &Meta<'_>, scaled_by_width: usize) -> Result<Spec> {
    let mut spec = metadata(family, m)?;
    spec.norm_place = NormPlace::Both;
    if spec.n_layers() == scaled_by_width {
        spec.set_attention_scale(1.0 / ((spec.hidden_size / spec.n_heads.max(1)) as f64).sqrt());
    }
    if let Some(scale) = m.f64("attention.scale")? {
        spec.set_attention_scale(scale);
    }
    Ok(spec)
}

/// A soft cap; 0 is none.
fn cap(m: &Meta<'_>, key: &str, default: f64) -> Result<Option<f32>> {
    Ok(Some(m.f64(key)?.unwrap_or(default) as f32).filter(|cap| *cap != 0.0))
}

fn gemma2_metadata(m: &Meta<'_>) -> Result<Spec> {
    let mut spec = later_metadata(GEMMA2.name, m, 46)?;
    // The first files do not have these keys; the model is the same.
    spec.attention_softcap = cap(m, "attn_logit_softcapping", 50.0)?;
    spec.logit_softcap = cap(m, "final_logit_softcapping", 30.0)?;
    spec.set_windows_of(m, 2, Some(4096))?;
    Ok(spec)
}

fn gemma3_metadata(m: &Meta<'_>) -> Result<Spec> {
    let mut spec = later_metadata(GEMMA3.name, m, 62)?;
    spec.qk_norm = QkNorm::PerHead;
    spec.logit_softcap = cap(m, "final_logit_softcapping", 0.0)?;
    spec.set_windows_of(m, 6, None)?;
    if let Some(full) = spec.ropes.first().cloned() {
        let theta = m.f64("rope.freq_base_swa")?.unwrap_or(10_000.0);
        let sliding = Rope { theta, scaling: Scaling::None, ..full.clone() };
        spec.set_ropes(full, sliding);
    }
    Ok(spec)
}
