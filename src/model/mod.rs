//! [`Model`] (immutable, shared by any number of threads) and [`Cache`] (one sequence's state).
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::format::MapMode;
use crate::kernels::Isa;
use crate::text::Tokenizer;
use std::path::Path;
use std::sync::Arc;

/// What to do with the weights while loading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// As they lie in the file.
    #[default]
    Keep,
    /// Converted to f32.
    F32,
    /// Converted to bf16.
    Bf16,
}

/// Element type of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// f32.
    #[default]
    F32,
    /// binary16.
    F16,
    /// bfloat16.
    Bf16,
}

/// Called with the fraction loaded, 0 to 1; `false` cancels the load.
pub type Progress<'a> = &'a mut dyn FnMut(f32) -> bool;

/// How to load a model. `Default` is what most programs want.
#[derive(Default)]
pub struct LoadOptions<'a> {
    /// Threads, the caller's counted in; 0: physical cores this process may use.
    pub threads: usize,
    /// Instruction set; `None`: the best this CPU has (or the environment's `ENGINE_ISA`).
    pub isa: Option<Isa>,
    /// Conversion of the weights.
    pub weights: Weights,
    /// How files are brought into memory.
    pub mapping: MapMode,
    /// Progress callback.
    pub progress: Option<Progress<'a>>,
}

/// How to make a cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheOptions {
    /// Most tokens the cache may hold; 0: the model's context length. More than that is an error.
    pub max_tokens: usize,
    /// Element type of keys and values.
    pub kv_type: KvType,
}

/// Facts about a model.
#[derive(Clone, Debug)]
pub struct Info {
    /// Family: "llama", "gpt2", "olmo2".
    pub architecture: String,
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

/// A loaded model: weights (mapped where they lie), its [`crate::arch`] spec, its kernels and its threads.
pub struct Model {}

impl Model {
    /// Loads what is at `path`: a Hugging Face directory, a directory of `.npy` files, or a GGUF file.
    pub fn load(path: impl AsRef<Path>, options: LoadOptions<'_>) -> Result<Arc<Model>> {
        let _ = options;
        Err(Error::unsupported(format!("{}: not implemented", path.as_ref().display())))
    }
    /// Rows of the output head: the width of logits.
    pub fn vocab_size(&self) -> usize {
        0
    }
    /// Most tokens a sequence may have.
    pub fn context_length(&self) -> usize {
        0
    }
    /// Facts for a person.
    pub fn info(&self) -> Info {
        unimplemented!()
    }
    /// The tokenizer, read on first use; an error says why there is none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        Err(Error::unsupported("no tokenizer"))
    }
    /// A new, empty sequence.
    pub fn new_cache(self: &Arc<Self>, options: &CacheOptions) -> Result<Cache> {
        let _ = options;
        Err(Error::unsupported("not implemented"))
    }
}

/// Asks a step that is running on another thread to stop; see [`Cache::canceller`].
#[derive(Clone)]
pub struct Canceller(Arc<std::sync::atomic::AtomicBool>);

impl Canceller {
    /// The step now running, or the next one if none is, ends with [`crate::ErrorKind::Cancelled`].
    pub fn cancel(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// One sequence: its keys and values, its position, its scratch. Holds its model alive.
pub struct Cache {
    model: Arc<Model>,
}

impl Cache {
    /// The model it belongs to.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
    /// Tokens held.
    pub fn len(&self) -> usize {
        0
    }
    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Most tokens it may hold.
    pub fn max_tokens(&self) -> usize {
        0
    }
    /// Keeps the first `len` tokens; more than are held is an error.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        let _ = len;
        Ok(())
    }
    /// A copy that shares all blocks until one of the two writes.
    pub fn fork(&self) -> Result<Cache> {
        Err(Error::unsupported("not implemented"))
    }
    /// Feeds `tokens`; writes the last one's logits, `[vocab_size]`, unless `logits` is `None`. On an error nothing has changed.
    pub fn step(&mut self, tokens: &[u32], logits: Option<&mut [f32]>) -> Result<()> {
        let _ = (tokens, logits);
        Err(Error::unsupported("not implemented"))
    }
    /// The same with the logits of every fed position, `[n_tokens, vocab_size]`.
    pub fn step_all(&mut self, tokens: &[u32], logits: &mut [f32]) -> Result<()> {
        let _ = (tokens, logits);
        Err(Error::unsupported("not implemented"))
    }
    /// A handle to cancel steps of this cache from any thread.
    pub fn canceller(&self) -> Canceller {
        unimplemented!()
    }
}
