//! SmolLM3: Llama, but every fourth layer (or those that the config lists) has no RoPE.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::{GGUF_NAMES, HF_NAMES};
use super::rope::Rope;
use super::spec::head_dim;
use super::{Family, Spec};
use crate::error::Result;
use crate::ops::elementwise::NormKind;
use crate::ops::rope::Pairing;

pub(super) static FAMILY: Family = Family {
    name: "smollm3",
    model_types: &["smollm3"],
    gguf: &["smollm3"],
    from_config,
    from_metadata,
    names: HF_NAMES,
    gguf_names: GGUF_NAMES,
};

fn from_config(c: &Config<'_>) -> Result<Spec> {
    let head_dim = head_dim(c)?;
    let mut spec = Spec::from_config_with(FAMILY.name, c, head_dim, Rope::full(c, head_dim, 2_000_000.0)?)?;
    spec.tied_head = Some(c.bool("tie_word_embeddings")?.unwrap_or(true));
    let interval = c.usize("no_rope_layer_interval")?.unwrap_or(4);
    if interval == 0 {
        return Err(c.bad("no_rope_layer_interval", "is 0; expected 1 or more"));
    }
    // In spite of its name, a 1 in the list is a layer with RoPE.
    let listed = c.usizes("no_rope_layers")?;
    if let Some(list) = listed.as_ref().filter(|list| list.len() != spec.n_layers()) {
        let message = format_args!("has {} entries; expected {}", list.len(), spec.n_layers()).to_string();
        return Err(c.bad("no_rope_layers", message));
    }
    let has_rope = |i: usize| listed.as_ref().map_or(!(i + 1).is_multiple_of(interval), |list| list.get(i) != Some(&0));
    spec.each_layer(|i, layer| layer.rope = has_rope(i).then_some(0));
    let slides = c.bool("use_sliding_window")?.unwrap_or(false);
    spec.set_windows(c, c.usize("sliding_window")?.filter(|_| slides), |i| !has_rope(i))?;
    Ok(spec)
}

/// llama.cpp's converter reorders the rows of q and k, and nothing in the file says which layers have no RoPE.
fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    let mut spec = Spec::from_metadata(FAMILY.name, m, Pairing::Interleaved, NormKind::RmsNorm)?;
    spec.each_layer(|i, layer| layer.rope = (i % 4 != 3).then_some(0));
    Ok(spec)
}
