//! `engine_cache`: one sequence and its steps.

use super::guard::{OutHandle, floats_out, free, guard, guard_or, handle, null, slice};
use super::model::engine_model;
use super::options::{self, engine_cache_options};
use super::status::engine_status;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Cache, Canceller};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{RwLock, TryLockError};

/// One sequence: its tokens' keys and values. One thread at a time may use it, whichever that is; only engine_cache_cancel(),
/// engine_cache_len() and engine_cache_max_tokens() may be called beside.
//
// Two calls at once on one cache are the caller's mistake: the lock is never waited for, but turns the mistake into an error,
// and a panic inside a step into poison.
pub struct engine_cache {
    pub(super) cache: RwLock<Cache>,
    canceller: Canceller,
    /// `cache.len()` after the last call, readable also when the lock is poisoned.
    len: AtomicUsize,
    max_tokens: usize,
}

impl engine_cache {
    fn new(cache: Cache) -> Self {
        let (canceller, len, max_tokens) = (cache.canceller(), AtomicUsize::new(cache.len()), cache.max_tokens());
        Self { cache: RwLock::new(cache), canceller, len, max_tokens }
    }

    fn change(&self, body: impl FnOnce(&mut Cache) -> Result<()>) -> Result<()> {
        let mut cache = self.cache.try_write().map_err(locked)?;
        let result = body(&mut cache);
        self.store_len(&cache);
        result
    }

    /// Notes the length of the cache, which the caller has locked.
    pub(super) fn store_len(&self, cache: &Cache) {
        self.len.store(cache.len(), Ordering::Relaxed);
    }
}

pub(super) fn locked<T>(error: TryLockError<T>) -> Error {
    match error {
        TryLockError::Poisoned(_) => {
            Error::new(ErrorKind::Poisoned, "cache: an internal error left it unusable; it can only be freed")
        }
        TryLockError::WouldBlock => Error::bad_argument("cache: it is in use, by another thread or twice in one batch"),
    }
}

/// A new, empty sequence of `model`. options: NULL means defaults. *cache: the new cache, to be freed with
/// engine_cache_free(); NULL after a failure. It keeps the model alive.
///
/// Errors: ENGINE_ERR_BAD_ARGUMENT for more max_tokens than the model's context length; ENGINE_ERR_OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_new_cache(
    model: *const engine_model,
    options: *const engine_cache_options,
    cache: *mut *mut engine_cache,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let out = OutHandle::new(cache, "cache")?;
        let model = handle(model, "model")?;
        out.set(engine_cache::new(model.model.new_cache(&options::cache(options)?)?));
        Ok(())
    })
}

/// Frees the cache; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_cache_free(cache: *mut engine_cache) {
    // SAFETY: NULL or a live handle, which the caller gives up.
    unsafe { free(cache) }
}

/// Tokens held. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_cache_len(cache: *const engine_cache) -> usize {
    // SAFETY: NULL or a live handle.
    unsafe { cache.as_ref() }.map_or(0, |cache| cache.len.load(Ordering::Relaxed))
}

/// Most tokens that the cache may hold. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_cache_max_tokens(cache: *const engine_cache) -> usize {
    // SAFETY: NULL or a live handle.
    unsafe { cache.as_ref() }.map_or(0, |cache| cache.max_tokens)
}

/// Keeps the first `len` tokens, as if the rest had never been fed; 0 empties the cache.
///
/// Errors: ENGINE_ERR_BAD_ARGUMENT if len is more than engine_cache_len(), or so much less that layers which see only a window of
/// the last tokens no longer hold what is needed (engine_cache_options.rewind_tokens): the message names the least.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_cache_truncate(cache: *mut engine_cache, len: usize) -> engine_status {
    // SAFETY: NULL or a live handle.
    guard(|| unsafe { handle(cache, "cache") }?.change(|cache| cache.truncate(len)))
}

/// A second cache with the same tokens, which goes its own way from here. The memory of what they have in common is shared until
/// one of the two writes to it. *copy: the new cache, to be freed with engine_cache_free(); NULL after a failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_cache_fork(cache: *const engine_cache, copy: *mut *mut engine_cache) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let out = OutHandle::new(copy, "copy")?;
        let fork = handle(cache, "cache")?.cache.try_read().map_err(locked)?.fork()?;
        out.set(engine_cache::new(fork));
        Ok(())
    })
}

/// Feeds tokens and computes what could come next.
///
/// tokens: uint32_t[n_tokens], each less than engine_model_vocab_size(). logits: NULL, or float[vocab_size] for the logits that follow the last
/// token fed (unnormalised: softmax gives probabilities). The two may not overlap. On an error the cache is as it was, and
/// logits has no meaning. With n_tokens = 0 nothing happens; to ask for logits then is an error.
///
/// Errors: ENGINE_ERR_CONTEXT_FULL if the cache has no room for n_tokens more; ENGINE_ERR_BAD_ARGUMENT for a token id that
/// the model does not have; ENGINE_ERR_CANCELLED; ENGINE_ERR_OUT_OF_MEMORY; ENGINE_ERR_IO if a guarded file was truncated;
/// ENGINE_ERR_POISONED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_step(
    cache: *mut engine_cache,
    tokens: *const u32,
    n_tokens: usize,
    logits: *mut f32,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        handle(cache, "cache")?.change(|cache| {
            let tokens = fed(cache, tokens, n_tokens)?;
            if logits.is_null() {
                return if tokens.is_empty() { Ok(()) } else { cache.step(tokens, None) };
            }
            if tokens.is_empty() {
                return Err(Error::bad_argument("n_tokens is 0: logits are those of the last token fed, and there is none"));
            }
            let logits = floats_out(logits, cache.model().vocab_size(), "logits")?;
            cache.step(tokens, Some(logits))
        })
    })
}

/// As engine_step(), with the logits of every position fed: float[n_tokens][vocab_size], row i those that follow tokens[i].
/// logits may be NULL only if n_tokens is 0, when nothing happens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_step_all(
    cache: *mut engine_cache,
    tokens: *const u32,
    n_tokens: usize,
    logits: *mut f32,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        handle(cache, "cache")?.change(|cache| {
            let tokens = fed(cache, tokens, n_tokens)?;
            if tokens.is_empty() {
                return Ok(());
            }
            if logits.is_null() {
                return Err(null("logits"));
            }
            let len = n_tokens.checked_mul(cache.model().vocab_size());
            let len = len.ok_or_else(|| Error::bad_argument("n_tokens: their logits are more than memory can hold"))?;
            cache.step_all(tokens, floats_out(logits, len, "logits")?)
        })
    })
}

/// The tokens of a step. That they fit is checked before a slice is formed: a wild count is the likeliest mistake of all, and
/// must not reach memory.
///
/// # Safety
/// As for [`slice`].
pub(super) unsafe fn fed<'a>(cache: &Cache, tokens: *const u32, n_tokens: usize) -> Result<&'a [u32]> {
    let (len, max) = (cache.len(), cache.max_tokens());
    if n_tokens > max.saturating_sub(len) {
        let message = format!("n_tokens: {n_tokens} more do not fit, the cache holds {len} of at most {max} tokens");
        return Err(Error::new(ErrorKind::ContextFull, message));
    }
    // SAFETY: the caller's promise.
    unsafe { slice(tokens, n_tokens, "tokens") }
}

/// Asks the step that is running on this cache to stop, or the next one if none is: it ends with ENGINE_ERR_CANCELLED and
/// changes nothing. It may be called from any thread while another one uses the cache (not while it frees it). NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_cache_cancel(cache: *const engine_cache) {
    // SAFETY: NULL or a live handle; only the shared parts of it are touched.
    guard_or((), || unsafe { cache.as_ref() }.into_iter().for_each(|cache| cache.canceller.cancel()));
}
