//! Mixtral: Mistral with a mixture of experts in every layer. Its GGUF files are `llama`'s.
#![forbid(unsafe_code)]

use super::config::Config;
use super::names::{GGUF_NAMES, HF};
use super::rope::Rope;
use super::spec::head_dim;
use super::{Experts, Family, Names, Slot, Spec, llama};
use crate::error::Result;

pub(super) static FAMILY: Family = Family {
    name: "mixtral",
    model_types: &["mixtral"],
    gguf: &[],
    from_config,
    from_metadata: llama::from_metadata,
    names: Names {
        prefix: "model.",
        rows: &[
            &[
                (Slot::Router, "model.layers.{}.block_sparse_moe.gate"),
                (Slot::ExpertGate, "model.layers.{}.block_sparse_moe.experts.{e}.w1"),
                (Slot::ExpertUp, "model.layers.{}.block_sparse_moe.experts.{e}.w3"),
                (Slot::ExpertDown, "model.layers.{}.block_sparse_moe.experts.{e}.w2"),
            ],
            HF,
        ],
        ignored: &[".rotary_emb.inv_freq"],
    },
    gguf_names: GGUF_NAMES,
};

fn from_config(c: &Config<'_>) -> Result<Spec> {
    let head_dim = head_dim(c)?;
    let mut spec = Spec::from_config_with(FAMILY.name, c, head_dim, Rope::full(c, head_dim, 1_000_000.0)?)?;
    spec.norm_eps = c.f64("rms_norm_eps")?.unwrap_or(1e-5) as f32;
    spec.set_windows(c, c.usize("sliding_window")?, |_| true)?;
    let n_experts = c.usize("num_local_experts")?.unwrap_or(8);
    let n_used = c.usize("num_experts_per_tok")?.unwrap_or(2);
    // The weights are softmax over the chosen alone, which is the same as dividing by their sum.
    spec.set_experts(Experts { n_experts, n_used, ffn_size: spec.ffn_size, normalize: true }, |_| true);
    Ok(spec)
}
