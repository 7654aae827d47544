//! [`Cache`]: one sequence.
#![forbid(unsafe_code)]

use super::Model;
pub use super::forward::Logits;
use super::forward::{MAX_CHUNK, Scratch, Sequence, forward};
use super::kv::{KvBlocks, KvShape};
use crate::error::{Error, ErrorKind, Result};
use crate::ops::Path;
pub use crate::ops::attention::KvType;
use crate::ops::profile::Profile;
use std::ops::Range;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How to make a cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheOptions {
    /// Most tokens the cache may hold; 0: the model's context length. More than that is an error.
    pub max_tokens: usize,
    /// How keys and values are held.
    pub kv_type: KvType,
    /// Layers with a sliding window keep this many tokens more than they see, so that [`Cache::truncate`] can take back as many;
    /// 0: [`DEFAULT_REWIND`].
    pub rewind_tokens: usize,
}

/// What [`CacheOptions::rewind_tokens`] is by default.
pub const DEFAULT_REWIND: usize = 64;

/// Asks a step that is running on another thread to stop; see [`Cache::canceller`].
#[derive(Clone)]
pub struct Canceller(Arc<AtomicBool>);

impl Canceller {
    /// The step now running, or the next one if none is, ends with [`ErrorKind::Cancelled`].
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One sequence: its keys and values, its position, its scratch. Holds its model alive.
pub struct Cache {
    model: Arc<Model>,
    max_tokens: usize,
    rewind_tokens: usize,
    len: usize,
    kv: KvBlocks,
    pub(super) scratch: Scratch,
    cancel: Arc<AtomicBool>,
}

impl Cache {
    pub(super) fn new(model: &Arc<Model>, options: &CacheOptions) -> Result<Self> {
        let spec = &model.spec;
        let max_tokens = match options.max_tokens {
            0 => spec.context_length,
            n if n > spec.context_length => {
                let context = spec.context_length;
                return Err(Error::bad_argument(format!("max_tokens is {n} but the model's context length is {context}")));
            }
            n => n,
        };
        Ok(Self {
            model: model.clone(),
            max_tokens,
            rewind_tokens: if options.rewind_tokens == 0 { DEFAULT_REWIND } else { options.rewind_tokens },
            len: 0,
            kv: KvBlocks::new(KvShape::new(spec, options.kv_type)),
            scratch: Scratch::default(),
            cancel: Arc::default(),
        })
    }

    /// The model it belongs to.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Most tokens it may hold.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }
    /// Bytes of keys and values held; blocks shared with forks count in full.
    pub fn kv_bytes(&self) -> usize {
        self.kv.bytes()
    }
    /// Where the time of its steps went, if the model was loaded with [`LoadOptions::profile`](super::LoadOptions::profile). Of
    /// steps that share a pass the first request's cache has all.
    pub fn profile(&self) -> Option<&Profile> {
        self.model.profiled.then_some(&self.scratch.profile)
    }
    /// Forgets what [`Cache::profile`] tells.
    pub fn reset_profile(&mut self) {
        self.scratch.profile.reset();
    }
    /// A handle to cancel steps of this cache from any thread.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.cancel.clone())
    }

    /// Keeps the first `len` tokens; more than are held is an error. So are fewer than a layer with a sliding window still can:
    /// it has let go of what is out of its sight, but for [`CacheOptions::rewind_tokens`]. 0 is always possible.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if len > self.len {
            return Err(Error::bad_argument(format!("cannot truncate to {len} tokens: the cache holds {}", self.len)));
        }
        let least = self.kv.least();
        if len > 0 && len < least {
            let message = format!("cannot truncate to {len} tokens: a sliding window has left behind what they would see");
            let advice = format!("the least is {least}, or 0; rewind_tokens keeps more (now {})", self.rewind_tokens);
            return Err(Error::bad_argument(format!("{message}; {advice}")));
        }
        self.len = len;
        self.kv.truncate(len);
        Ok(())
    }

    /// A copy that shares all blocks until one of the two writes to them.
    pub fn fork(&self) -> Result<Cache> {
        Ok(Self { model: self.model.clone(), kv: self.kv.fork()?, scratch: Scratch::default(), cancel: Arc::default(), ..*self })
    }

    /// Feeds `tokens`; writes the last one's logits, `[vocab_size]`, unless `logits` is `None`. On an error nothing has
    /// changed but `logits`.
    pub fn step(&mut self, tokens: &[u32], logits: Option<&mut [f32]>) -> Result<()> {
        match logits {
            None => self.feed(tokens, Logits::None),
            Some(logits) => {
                if tokens.is_empty() {
                    return Err(Error::bad_argument("logits were asked for but no token was fed"));
                }
                self.feed(tokens, Logits::Last(expect_len(logits, self.model.vocab_size())?))
            }
        }
    }

    /// The same with the logits of every fed position, `[n_tokens, vocab_size]`.
    pub fn step_all(&mut self, tokens: &[u32], logits: &mut [f32]) -> Result<()> {
        let len = tokens.len().saturating_mul(self.model.vocab_size());
        self.feed(tokens, Logits::All(expect_len(logits, len)?))
    }

    pub(super) fn feed(&mut self, tokens: &[u32], logits: Logits<'_>) -> Result<()> {
        self.check(tokens)?;
        let before = self.len;
        let fed = self.run(tokens, logits).and_then(|()| self.model.check_files());
        self.settle(before, tokens.len(), &fed);
        fed
    }

    /// Behind a step of `n_tokens`: they are held, or everything is as it was `before`.
    pub(super) fn settle(&mut self, before: usize, n_tokens: usize, fed: &Result<()>) {
        match fed {
            Ok(()) => {
                self.len = before + n_tokens;
                let rewound = self.len.saturating_sub(self.rewind_tokens);
                self.kv.let_go(rewound, 0..0);
            }
            Err(_) => self.kv.truncate(before),
        }
    }

    pub(super) fn check(&self, tokens: &[u32]) -> Result<()> {
        let room = self.max_tokens - self.len;
        if tokens.len() > room {
            let (n, held, max) = (tokens.len(), self.len, self.max_tokens);
            let message = format!("{n} more tokens do not fit: the cache holds {held} of at most {max}");
            return Err(Error::new(ErrorKind::ContextFull, message));
        }
        let vocab_size = self.model.vocab_size();
        match tokens.iter().enumerate().find(|(_, token)| **token as usize >= vocab_size) {
            Some((i, token)) => {
                Err(Error::bad_argument(format!("tokens[{i}] is {token}; the model's vocabulary has {vocab_size} tokens")))
            }
            None => Ok(()),
        }
    }

    /// Room for tokens at `positions`: RoPE tables, blocks.
    pub(super) fn prepare(&mut self, positions: Range<usize>) -> Result<()> {
        self.model.ropes(self.max_tokens).iter().try_for_each(|table| table.prepare(positions.end))?;
        self.kv.make_writable(positions)
    }

    /// This sequence in a pass that feeds `tokens` from position `first` on; [`Cache::prepare`] has made room.
    pub(super) fn sequence<'a>(
        &'a mut self,
        model: &'a Model,
        path: Path,
        tokens: &'a [u32],
        first: usize,
        logits: Logits<'a>,
    ) -> Sequence<'a> {
        let ropes = model.ropes(self.max_tokens);
        Sequence { kv: &mut self.kv, ropes, path, tokens, first, logits, cancel: &self.cancel, cancelled: false }
    }

    /// Behind a pass of a step, up to position `end`: lets go of what layers with a window have left behind, but not of what was there
    /// before the step, and must be there if it fails.
    pub(super) fn passed(&mut self, end: usize) {
        let rewound = |position: usize| position.saturating_sub(self.rewind_tokens);
        self.kv.let_go(rewound(end), rewound(self.len)..self.len);
    }

    /// Passes `tokens` through the model, [`MAX_CHUNK`] at a time.
    fn run(&mut self, tokens: &[u32], mut logits: Logits<'_>) -> Result<()> {
        let (model, path) = (self.model.clone(), Path::for_tokens(tokens.len()));
        let (mut first, mut left) = (self.len, tokens.len());
        for tokens in tokens.chunks(MAX_CHUNK) {
            let n = tokens.len();
            self.prepare(first..first + n)?;
            self.scratch.reserve(&model, path.few_of(n), std::iter::once((first, n)))?;
            let mut scratch = std::mem::take(&mut self.scratch);
            let mut sequence = self.sequence(&model, path, tokens, first, logits.take(n, left, model.vocab_size()));
            forward(&model, slice::from_mut(&mut sequence), &mut scratch);
            let ended = sequence.cancelled;
            self.scratch = scratch;
            if ended {
                return Err(cancelled());
            }
            (first, left) = (first + n, left - n);
            self.passed(first);
        }
        Ok(())
    }
}

pub(super) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the step was cancelled; the cache is as it was before")
}

fn expect_len(logits: &mut [f32], len: usize) -> Result<&mut [f32]> {
    if logits.len() == len {
        return Ok(logits);
    }
    Err(Error::bad_argument(format!("the logits buffer has {} elements; expected {len}", logits.len())))
}
