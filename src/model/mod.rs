//! [`Model`] (immutable, shared by any number of threads) and [`Cache`] (one sequence's state).
#![forbid(unsafe_code)]

mod cache;
mod forward;
mod kv;
mod load;

pub use cache::{Cache, CacheOptions, Canceller, KvType};
pub use load::{LoadOptions, Progress, Weights};

use crate::arch::Spec;
use crate::error::Result;
use crate::format::Checkpoint;
use crate::kernels::Kernels;
use crate::ops::elementwise::Norm;
use crate::ops::linear::Linear;
use crate::ops::rope::RopeTable;
use crate::text::Tokenizer;
use crate::threads::Pool;
use once_cell::sync::OnceCell;
use std::path::Path;
use std::sync::Arc;

/// Facts about a model.
#[derive(Clone, Debug)]
pub struct Info {
    /// Family: "llama", "gpt2", "olmo2".
    pub architecture: &'static str,
    /// Number of parameters.
    pub n_params: u64,
    /// Bytes of weights in memory or mapped.
    pub weight_bytes: u64,
    /// Decoder layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Threads in use.
    pub threads: usize,
    /// Instruction set in use: "scalar", "avx2", "avx512".
    pub isa: &'static str,
}

/// One decoder layer.
struct Layer {
    attention_norm: Norm,
    /// q, k and v side by side: one matrix of the file, or three.
    qkv: Vec<Linear>,
    qk_norm: Option<(Norm, Norm)>,
    o: Linear,
    mlp_norm: Norm,
    /// Gate and up side by side, or up alone.
    up: Vec<Linear>,
    down: Linear,
}

/// A loaded model: weights (mapped where they lie), what it is, its kernels and its threads.
pub struct Model {
    spec: Spec,
    kernels: &'static Kernels,
    pool: Pool,
    embedding: Linear,
    positions: Option<Linear>,
    rope: Option<RopeTable>,
    layers: Vec<Layer>,
    output_norm: Norm,
    /// `None`: the embedding.
    head: Option<Linear>,
    info: Info,
    /// The longest weight panel that prefill unpacks, in elements.
    panel_len: usize,
    /// What it was loaded from; its tensors have gone to the layers.
    source: Checkpoint,
    tokenizer: OnceCell<Tokenizer>,
}

impl Model {
    /// Loads what is at `path`: a Hugging Face directory, a directory of `.npy` files, or a GGUF file.
    pub fn load(path: impl AsRef<Path>, options: LoadOptions<'_>) -> Result<Arc<Model>> {
        load::load(path.as_ref(), options)
    }

    /// Rows of the output head: the width of logits.
    pub fn vocab_size(&self) -> usize {
        self.spec.vocab_size
    }
    /// Most tokens a sequence may have.
    pub fn context_length(&self) -> usize {
        self.spec.context_length
    }
    /// Facts for a person.
    pub fn info(&self) -> &Info {
        &self.info
    }
    /// What the model is.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The tokenizer, read on first use: a model without one loads and steps; the error says why there is none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.get_or_try_init(|| {
            let tokenizer = match &self.source.metadata {
                Some(metadata) => Tokenizer::from_gguf(&self.source.path, metadata),
                None => Tokenizer::from_dir(&self.source.dir, self.source.kind),
            };
            tokenizer?.with_rows(self.spec.vocab_size)
        })
    }

    /// A new, empty sequence.
    pub fn new_cache(self: &Arc<Self>, options: &CacheOptions) -> Result<Cache> {
        Cache::new(self, options)
    }

    /// Builds what positions `0..len` need.
    fn prepare_positions(&self, len: usize) -> Result<()> {
        self.rope.as_ref().map_or(Ok(()), |table| table.prepare(len))
    }

    /// An error if a file that the weights are mapped from was found damaged.
    fn check_files(&self) -> Result<()> {
        self.source.check()
    }
}
