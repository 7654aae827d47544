//! [`Model`] (immutable, shared by any number of threads) and [`Cache`] (one sequence's state).
#![forbid(unsafe_code)]

mod batch;
mod cache;
mod estimate;
mod forward;
mod kv;
mod load;

pub use crate::ops::profile::{Op, Profile, Taken};
pub use batch::{Request, step_batch};
pub use cache::{Cache, CacheOptions, Canceller, KvType, Logits};
pub use estimate::Estimate;
pub use load::{LoadOptions, Matmul, Progress, Weights};

use crate::arch::Spec;
use crate::error::Result;
use crate::format::Checkpoint;
use crate::kernels::Kernels;
use crate::ops::elementwise::Norm;
use crate::ops::linear::{Linear, Needs};
use crate::ops::rope::RopeTable;
use crate::text::{Tokenizer, UnknownPre};
use crate::threads::Pool;
use once_cell::sync::OnceCell;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Facts about a model.
#[derive(Clone, Debug)]
pub struct Info {
    /// Family: "llama", "gpt2", "olmo2".
    pub architecture: &'static str,
    /// What the files call the model, where they do: `general.name`, `_name_or_path`.
    pub name: String,
    /// The type that most of the weights' bytes have in the files: "F32", "BF16", "Q4_K".
    pub file_type: &'static str,
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
    /// Instruction set in use: "scalar", "avx2", "avx512", "amx".
    pub isa: &'static str,
}

/// One decoder layer. The norms are those before and behind each sub-layer.
struct Layer {
    attention_norm: Option<Norm>,
    /// q, k and v side by side: one matrix of the file, or three.
    qkv: Vec<Linear>,
    qk_norm: Option<(Norm, Norm)>,
    o: Linear,
    attention_post_norm: Option<Norm>,
    mlp_norm: Option<Norm>,
    mlp: FeedForward,
    mlp_post_norm: Option<Norm>,
}

/// A layer's feed-forward sub-layer.
enum FeedForward {
    Dense(Block),
    /// A router `[n_experts, hidden_size]`, and as many blocks.
    Experts {
        router: Linear,
        blocks: Vec<Block>,
    },
}

/// One feed-forward block.
struct Block {
    /// Gate and up side by side (one matrix of the file, or two), or up alone.
    up: Vec<Linear>,
    down: Linear,
}

impl Layer {
    fn linears(&self) -> impl Iterator<Item = &Linear> {
        let (router, blocks) = match &self.mlp {
            FeedForward::Dense(block) => (None, std::slice::from_ref(block)),
            FeedForward::Experts { router, blocks } => (Some(router), blocks.as_slice()),
        };
        let blocks = blocks.iter().flat_map(|block| block.up.iter().chain([&block.down]));
        self.qkv.iter().chain([&self.o]).chain(router).chain(blocks)
    }

    fn norms(&self) -> impl Iterator<Item = &Norm> {
        let around = [&self.attention_norm, &self.attention_post_norm, &self.mlp_norm, &self.mlp_post_norm];
        around.into_iter().flatten().chain(self.qk_norm.iter().flat_map(|(q, k)| [q, k]))
    }
}

/// A loaded model: weights (mapped where they lie), what it is, its kernels and its threads.
pub struct Model {
    spec: Spec,
    kernels: &'static Kernels,
    pool: Pool,
    embedding: Linear,
    positions: Option<Linear>,
    /// By [`Spec::ropes`].
    ropes: Vec<RopeTable>,
    /// The same for sequences that may grow beyond this many positions, where those have other tables (LongRoPE).
    long_ropes: Option<(usize, Vec<RopeTable>)>,
    layers: Vec<Layer>,
    output_norm: Norm,
    /// `None`: the embedding.
    head: Option<Linear>,
    info: Info,
    /// Whether its caches note where the time goes.
    profiled: bool,
    /// Scratch for its matrices.
    linear_needs: Needs,
    /// What it was loaded from; its tensors have gone to the layers.
    source: Checkpoint,
    unknown_pre_tokenizer: UnknownPre,
    tokenizer: OnceCell<Tokenizer>,
}

impl Model {
    /// Loads what is at `path`: a Hugging Face directory, a directory of `.npy` files, or a GGUF file.
    pub fn load(path: impl AsRef<Path>, options: LoadOptions<'_>) -> Result<Arc<Model>> {
        load::load(path.as_ref(), options)
    }

    /// What loading `path` with `options` will take, told from the headers alone.
    pub fn estimate(path: impl AsRef<Path>, options: &LoadOptions<'_>) -> Result<Estimate> {
        estimate::estimate(path.as_ref(), options)
    }

    /// Rows of the output head: the width of logits.
    pub fn vocab_size(&self) -> usize {
        self.spec.vocab_size
    }
    /// Most tokens a sequence may have.
    pub fn context_length(&self) -> usize {
        self.spec.context_length
    }
    /// Whether products of long prompts are BLAS's: it sums in an order that depends on how the prompt is cut into calls, so that
    /// logits have the same bits only for the same cut.
    pub fn prefill_by_blas(&self) -> bool {
        self.linear_needs.blas()
    }
    /// Facts for a person.
    pub fn info(&self) -> &Info {
        &self.info
    }
    /// What the model is.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The value of a key of the GGUF metadata or of `config.json` (with dots between the names of nested objects), as text: texts
    /// as they are, numbers and truth values as JSON has them, lists as JSON.
    pub fn metadata(&self, key: &str) -> Result<Option<String>> {
        match &self.source.metadata {
            Some(metadata) => metadata.text(key),
            None => Ok(self.source.config.as_ref().and_then(|config| config_text(config, key))),
        }
    }
    /// The keys that [`Model::metadata`] knows, in alphabetic order.
    pub fn metadata_keys(&self) -> Vec<String> {
        match (&self.source.metadata, &self.source.config) {
            (Some(metadata), _) => metadata.keys().map(str::to_owned).collect(),
            (None, Some(config)) => {
                let mut keys = Vec::new();
                config_keys(config, "", &mut keys);
                keys.sort();
                keys
            }
            (None, None) => Vec::new(),
        }
    }

    /// The tokenizer, read on first use: a model without one loads and steps; the error says why there is none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.get_or_try_init(|| {
            let tokenizer = match &self.source.metadata {
                Some(metadata) => Tokenizer::from_gguf(&self.source.path, metadata, self.unknown_pre_tokenizer),
                None => Tokenizer::from_dir(&self.source.dir, self.source.kind),
            };
            tokenizer?.with_rows(self.spec.vocab_size)
        })
    }

    /// A new, empty sequence.
    pub fn new_cache(self: &Arc<Self>, options: &CacheOptions) -> Result<Cache> {
        Cache::new(self, options)
    }

    /// The RoPE tables of a sequence of at most `max_tokens` tokens.
    fn ropes(&self, max_tokens: usize) -> &[RopeTable] {
        match &self.long_ropes {
            Some((short_context, long)) if max_tokens > *short_context => long,
            _ => &self.ropes,
        }
    }

    /// An error if a file that the weights are mapped from was found damaged.
    fn check_files(&self) -> Result<()> {
        self.source.check()
    }
}

/// The value at `key` in a config, as text.
fn config_text(config: &Value, key: &str) -> Option<String> {
    // A name may have a dot in it itself.
    let nested = || key.match_indices('.').find_map(|(dot, _)| config_text(config.get(&key[..dot])?, &key[dot + 1..]));
    match config.get(key) {
        None => nested(),
        Some(Value::String(text)) => Some(text.clone()),
        Some(value) => Some(value.to_string()),
    }
}

/// The names of all values that are no objects, those inside objects with the object's name and a dot before.
fn config_keys(config: &Value, prefix: &str, keys: &mut Vec<String>) {
    for (name, value) in config.as_object().into_iter().flatten() {
        let name = format!("{prefix}{name}");
        match value {
            Value::Object(_) => config_keys(value, &format!("{name}."), keys),
            _ => keys.push(name),
        }
    }
}
