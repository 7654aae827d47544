//! What a model is: a [`Spec`] (plain data) and the names of its tensors, a file per family. Nothing here touches weights.
//!
//! To add a family: a file with its [`Family`] (how its config becomes a [`Spec`], its tensors' names by slot) and a line in
//! [`FAMILIES`]. If it needs something that no field of [`Spec`] says, add one field here and one branch in
//! `model::forward`.
#![forbid(unsafe_code)]

pub mod config;
mod gpt2;
mod llama;
mod names;
mod olmo2;
pub mod rope;

pub use names::{Names, Row, Slot};

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Kind};
use crate::kernels::Layout;
use crate::ops::elementwise::{Activation, NormKind};
use config::{Config, Meta};
use rope::Rope;
use std::path::Path;

/// Where a sub-layer's norm sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlace {
    /// h + f(norm(h)), as GPT-2 and Llama do.
    Before,
    /// h + norm(f(h)), as OLMo-2 does.
    After,
}

/// How positions enter.
#[derive(Clone, Debug)]
pub enum Position {
    /// A learned table, added to the embedding.
    Learned,
    /// Rotary embedding of queries and keys.
    Rope(Rope),
}

/// Norm on queries and keys, before RoPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// RMSNorm over the whole projected vector, all heads together.
    Whole,
}

/// The feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// down(act(gate(x)) · up(x)).
    Gated,
    /// down(act(up(x))).
    Plain,
}

/// Whether a projection has a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// It has none; one in the file is an error.
    No,
    /// It has one; a missing one is an error.
    Yes,
    /// The file decides (GGUF metadata does not say).
    IfPresent,
}

/// A decoder-only transformer, as data.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Family name.
    pub family: &'static str,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Most positions.
    pub context_length: usize,
    /// Decoder layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub ffn_size: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Kind of every norm.
    pub norm: NormKind,
    /// Their epsilon.
    pub norm_eps: f32,
    /// Where a sub-layer's norm sits.
    pub norm_place: NormPlace,
    /// How positions enter.
    pub position: Position,
    /// Norm on queries and keys.
    pub qk_norm: QkNorm,
    /// Scores are q·k times this.
    pub attention_scale: f32,
    /// The feed-forward block's shape.
    pub mlp: Mlp,
    /// Its activation.
    pub activation: Activation,
    /// Bias of q, k and v.
    pub qkv_bias: Bias,
    /// Bias of the attention's output projection.
    pub o_bias: Bias,
    /// Bias of the feed-forward projections.
    pub mlp_bias: Bias,
    /// q, k and v are one matrix in the file.
    pub fused_qkv: bool,
    /// How the layers' projections lie in the file (the embedding and the head are always [`Layout::OutIn`]).
    pub layout: Layout,
    /// The head is the embedding: `Some` says so, `None` lets the file decide (a missing head is tied).
    pub tied_head: Option<bool>,
}

/// A family of models: where its [`Spec`] and its tensors' names come from.
pub struct Family {
    /// Its name.
    pub name: &'static str,
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
pub static FAMILIES: &[&Family] = &[&gpt2::FAMILY, &llama::FAMILY, &olmo2::FAMILY];

/// Tells which family a checkpoint is of, and reads its [`Spec`]; with the names of its tensors.
pub fn identify(checkpoint: &Checkpoint) -> Result<(Spec, &'static Names)> {
    let (spec, names) = match (&checkpoint.metadata, &checkpoint.config) {
        (Some(metadata), _) => {
            let name = metadata
                .get_str("general.architecture")?
                .ok_or_else(|| Error::bad_file(&checkpoint.path, "metadata key general.architecture is missing"))?;
            let family = find(|f| f.gguf.contains(&name))
                .ok_or_else(|| unknown(&checkpoint.path, "general.architecture", name, |f| f.gguf))?;
            let names = &family.gguf_names;
            let vocab_size = rows_of_embedding(checkpoint, names)?;
            ((family.from_metadata)(&Meta::new(&checkpoint.path, metadata, name, vocab_size)?)?, names)
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
    spec.check().map_err(|e| e.context(checkpoint.path.display()))?;
    Ok((spec, names))
}

fn rows_of_embedding(checkpoint: &Checkpoint, names: &Names) -> Result<usize> {
    let name = names.stem(Slot::Embedding, 0).unwrap_or_default() + ".weight";
    let tensor = checkpoint.tensors.get(&name);
    let tensor = tensor.ok_or_else(|| Error::bad_file(&checkpoint.path, format!("tensor {name} is missing")))?;
    Ok(tensor.shape.first().copied().unwrap_or(0))
}

fn find(wanted: impl Fn(&Family) -> bool) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|f| wanted(f))
}

fn unknown(path: &Path, key: &str, found: &str, of: fn(&Family) -> &'static [&'static str]) -> Error {
    let known: Vec<&str> = FAMILIES.iter().flat_map(|f| of(f)).copied().collect();
    let path = path.display();
    Error::unsupported(format!("{path}: {key} \"{found}\" is not supported; this version runs {}", known.join(", ")))
}

impl Spec {
    /// Elements of all query heads.
    pub fn q_size(&self) -> usize {
        self.n_heads * self.head_dim
    }
    /// Elements of all key (or value) heads.
    pub fn kv_size(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Cross-checks the hyper-parameters; the caps keep every product of two of them far inside `usize`.
    fn check(&self) -> Result<()> {
        let caps = [
            ("number of layers", self.n_layers, 4096),
            ("hidden size", self.hidden_size, 1 << 20),
            ("feed-forward size", self.ffn_size, 1 << 22),
            ("number of heads", self.n_heads, 1 << 14),
            ("number of key/value heads", self.n_kv_heads, 1 << 14),
            ("head dimension", self.head_dim, 1 << 14),
            ("vocabulary size", self.vocab_size, 1 << 26),
            ("context length", self.context_length, 1 << 30),
        ];
        for (what, value, cap) in caps {
            if value == 0 || value > cap {
                return Err(bad(format!("{what} is {value}; expected 1 to {cap}")));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(bad(format!("{} heads cannot share {} key/value heads", self.n_heads, self.n_kv_heads)));
        }
        if self.q_size() > 1 << 22 {
            return Err(bad(format!("{} heads of {} elements are too wide", self.n_heads, self.head_dim)));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(bad(format!("norm epsilon is {}; expected a finite number >= 0", self.norm_eps)));
        }
        if let Position::Rope(rope) = &self.position {
            rope.check(self.head_dim)?;
        }
        Ok(())
    }
}

/// [`crate::ErrorKind::BadFile`] without a path; [`identify`] puts it in front.
fn bad(message: String) -> Error {
    Error::new(crate::ErrorKind::BadFile, message)
}
