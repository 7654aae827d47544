//! What a model is: a [`Spec`] (plain data) and the names of its tensors, a file per family. Nothing here touches weights.
//!
//! To add a family: a file with its `Family` (how its config becomes a [`Spec`], its tensors' names by slot) and a line in
//! `FAMILIES`. If it needs something that no field of [`Spec`] says, add one field there and one branch in
//! `model::forward`. docs/architectures.md says more, and has the table of what each family uses.
#![forbid(unsafe_code)]

mod cohere;
pub mod config;
mod falcon;
mod gemma;
mod gpt2;
mod gpt_neox;
mod granite;
mod llama;
mod mixtral;
mod names;
mod olmo;
mod olmo2;
mod olmoe;
mod phi3;
mod qwen;
pub mod rope;
mod smollm3;
mod spec;
#[cfg(test)]
mod tests;

pub use names::{Names, Row, Slot};
pub use spec::{Bias, Experts, FusedQkv, LayerKind, Mlp, NormPlace, NormWeight, QkNorm, Residual, Spec};

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Kind};
use config::{Config, Meta};
use std::path::Path;

/// A family of models: where its [`Spec`] and its tensors' names come from.
struct Family {
    /// Its name.
    name: &'static str,
    /// `model_type` in config.json.
    model_types: &'static [&'static str],
    /// `general.architecture` in GGUF.
    gguf: &'static [&'static str],
    from_config: fn(&Config<'_>) -> Result<Spec>,
    from_metadata: fn(&Meta<'_>) -> Result<Spec>,
    names: Names,
    gguf_names: Names,
}

/// Every family this version knows.
static FAMILIES: &[&Family] = &[
    &gpt2::FAMILY,
    &llama::FAMILY,
    &llama::MISTRAL,
    &mixtral::FAMILY,
    &olmo::FAMILY,
    &olmo2::FAMILY,
    &olmo2::OLMO3,
    &olmoe::FAMILY,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &qwen::QWEN3_MOE,
    &phi3::FAMILY,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &smollm3::FAMILY,
    &granite::FAMILY,
    &gpt_neox::FAMILY,
    &falcon::FAMILY,
    &cohere::FAMILY,
    &cohere::COHERE2,
];

/// The names of all families.
pub fn families() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.name)
}

/// Tells which family a checkpoint is of, and reads its [`Spec`]; with the names of its tensors.
pub fn identify(checkpoint: &Checkpoint) -> Result<(Spec, &'static Names)> {
    let context = |e: Error| e.context(checkpoint.path.display());
    let (mut spec, names) = match (&checkpoint.metadata, &checkpoint.config) {
        (Some(metadata), _) => {
            let name = metadata
                .get_str("general.architecture")?
                .ok_or_else(|| Error::bad_file(&checkpoint.path, "metadata key general.architecture is missing"))?;
            let family = find(|f| f.gguf.contains(&name))
                .ok_or_else(|| unknown(&checkpoint.path, "general.architecture", name, |f| f.gguf))?;
            let meta = Meta::new(&checkpoint.path, metadata, name, &checkpoint.tensors, &family.gguf_names)?;
            ((family.from_metadata)(&meta)?, &family.gguf_names)
        }
        (None, Some(value)) => {
            let config = Config::new(&checkpoint.dir.join("config.json"), value)?;
            let name = config.str("model_type")?.unwrap_or("");
            let family = find(|f| f.model_types.contains(&name))
                .ok_or_else(|| unknown(&config.path, "model_type", name, |f| f.model_types))?;
            config.refuse_quantized()?;
            ((family.from_config)(&config)?, &family.names)
        }
        (None, None) => {
            debug_assert_eq!(checkpoint.kind, Kind::Npy);
            (olmo2::infer(checkpoint)?, &olmo2::FAMILY.names)
        }
    };
    spec.check().map_err(context)?;
    spec.drop_idle_windows();
    Ok((spec, names))
}

fn find(wanted: impl Fn(&Family) -> bool) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|f| wanted(f))
}

fn unknown(path: &Path, key: &str, found: &str, of: fn(&Family) -> &'static [&'static str]) -> Error {
    let known: Vec<&str> = FAMILIES.iter().flat_map(|f| of(f)).copied().collect();
    let path = path.display();
    Error::unsupported(format!("{path}: {key} \"{found}\" is not supported; this version runs {}", known.join(", ")))
}
