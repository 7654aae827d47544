//! `engine_step_batch`: steps of many caches at once.

use super::cache::{engine_cache, fed, locked};
use super::guard::{floats_out, guard, handle, null};
use super::options::{Sized_, check_tail, struct_size, unknown};
use super::status::{ENGINE_OK, Status, engine_status};
use crate::error::{Error, Result, try_with_capacity};
use crate::model::{Cache, Logits, Request, step_batch};
use std::sync::RwLockWriteGuard;

/// engine_request.want: no logits.
pub const ENGINE_LOGITS_NONE: i32 = 0;
/// engine_request.want: those that follow the last token fed, float[vocab_size].
pub const ENGINE_LOGITS_LAST: i32 = 1;
/// engine_request.want: those of every token fed, float[n_tokens][vocab_size].
pub const ENGINE_LOGITS_ALL: i32 = 2;

/// One sequence's part of engine_step_batch(). Zero the whole struct, then set struct_size and what is wanted.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct engine_request {
    /// sizeof(engine_request), the same in all requests of a batch.
    pub struct_size: u32,
    /// Written: how this request ended.
    pub status: engine_status,
    /// The sequence. No two requests may have the same.
    pub cache: *mut engine_cache,
    /// What is fed to it: uint32_t[n_tokens].
    pub tokens: *const u32,
    /// See tokens.
    pub n_tokens: usize,
    /// Where its logits go; ignored with ENGINE_LOGITS_NONE.
    pub logits: *mut f32,
    /// ENGINE_LOGITS_…
    pub want: i32,
    /// 0; anything else is refused.
    pub reserved: u32,
}

// SAFETY: repr(C), a u32 first, integers and raw pointers only.
unsafe impl Sized_ for engine_request {
    const NAME: &'static str = "engine_request";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// Feeds tokens to many caches of one model at once: single tokens of some, pieces of prompts of others. Each does what engine_step()
/// or engine_step_all() would do, with the same bits in the logits, but they share the passes over the weights, up to 512 tokens in
/// one, which are most of what a step of few tokens costs. (Where prompts go through OpenBLAS, which is those of f32 weights with
/// AVX-512 on Intel's CPUs, the requests of more than 16 tokens pass one after the other.)
///
/// requests: engine_request[n]. A request that fails has its status, and its cache is as it was; the others go on. So does one whose
/// cache is cancelled meanwhile. Returns ENGINE_OK if all went well, else the status of the first that failed, with its sentence, which
/// begins with its place ("requests[2]: ...").
///
/// With n = 0 nothing happens.
///
/// Errors: those of engine_step(); ENGINE_ERR_BAD_ARGUMENT for a cache that is in the batch twice or of another model than the first,
/// for `want` or `reserved` of no meaning, and for a longer struct whose further bytes are not 0. Where `requests` cannot be read as an
/// array of n requests (NULL, its struct_size, n beyond all memory), that is ENGINE_ERR_BAD_ARGUMENT and no status is written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_step_batch(requests: *mut engine_request, n: usize) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        if n == 0 {
            return Ok(());
        }
        if requests.is_null() {
            return Err(null("requests"));
        }
        let stride = struct_size(requests.cast_const())?;
        let align = align_of::<engine_request>();
        if stride % align != 0 || !requests.is_aligned() {
            let message = format!("its address ({requests:p}) and struct_size ({stride}) must be multiples of {align}");
            return Err(Error::bad_argument(format!("requests: not an array of engine_request: {message}")));
        }
        if n.checked_mul(stride).is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(Error::bad_argument(format!("n: {n} requests are more than memory can hold")));
        }
        run(requests, n, stride)
    })
}

/// # Safety
/// `requests` are `n` structs, `stride` bytes apart, whose pointers are as the header asks.
unsafe fn run(requests: *mut engine_request, n: usize, stride: usize) -> Result<()> {
    // SAFETY: the caller's promise.
    let at = |i: usize| unsafe { requests.byte_add(i * stride) };
    let room = (|| Ok((list(n)?, list(n)?, list(n)?)))();
    let (mut caches, mut results, mut batch): (Vec<Result<_>>, Vec<Result<()>>, Vec<_>) = room.inspect_err(|error| {
        // SAFETY: the caller's promise.
        (0..n).for_each(|i| unsafe { (*at(i)).status = status(error) });
    })?;
    for i in 0..n {
        // SAFETY: the caller's promise.
        caches.push(unsafe { lock(at(i), stride) });
    }
    for (i, cache) in caches.iter_mut().enumerate() {
        let part = match cache {
            // SAFETY: the caller's promise.
            Ok(cache) => unsafe { part(&*at(i), cache) },
            Err(error) => Err(error.clone()),
        };
        results.push(part.map(|part| batch.push(part)));
    }
    step_batch(&mut batch);
    let mut ended = batch.into_iter().map(|request| request.result);
    results.iter_mut().filter(|result| result.is_ok()).for_each(|result| *result = ended.next().unwrap_or(Ok(())));
    drop(ended);
    let mut first = Ok(());
    for (i, (result, cache)) in results.into_iter().zip(caches).enumerate() {
        // SAFETY: the caller's promise.
        unsafe { (*at(i)).status = result.as_ref().map_or_else(status, |()| ENGINE_OK) };
        if let Ok(cache) = cache {
            // SAFETY: the handle was live when it was locked, and still is.
            unsafe { &*(*at(i)).cache }.store_len(&cache);
        }
        first = first.and(result.map_err(|error| error.context(format_args!("requests[{i}]"))));
    }
    first
}

fn list<T>(n: usize) -> Result<Vec<T>> {
    try_with_capacity(n, "the list of a batch's requests")
}

fn status(error: &Error) -> engine_status {
    Status::from(error.kind()).0
}

/// # Safety
/// `request` has `stride` bytes, and its cache is NULL or a live handle.
unsafe fn lock<'a>(request: *const engine_request, stride: usize) -> Result<RwLockWriteGuard<'a, Cache>> {
    // SAFETY: the caller's promise; bytes have no alignment.
    let (request, bytes) = unsafe { (&*request, std::slice::from_raw_parts(request.cast::<u8>(), stride)) };
    if request.struct_size as usize != stride {
        let found = request.struct_size;
        return Err(Error::bad_argument(format!("struct_size is {found}, but {stride} in the first request")));
    }
    check_tail::<engine_request>(bytes)?;
    // SAFETY: the caller's promise.
    unsafe { handle(request.cache, "cache")? }.cache.try_write().map_err(locked)
}

/// # Safety
/// The pointers of `request` are as the header asks.
unsafe fn part<'a>(request: &engine_request, cache: &'a mut Cache) -> Result<Request<'a>> {
    if request.reserved != 0 {
        return unknown("reserved", request.reserved);
    }
    // SAFETY: the caller's promise.
    let tokens = unsafe { fed(cache, request.tokens, request.n_tokens)? };
    let vocab = cache.model().vocab_size();
    let len = match request.want {
        ENGINE_LOGITS_NONE => 0,
        ENGINE_LOGITS_LAST => vocab,
        ENGINE_LOGITS_ALL => tokens.len().saturating_mul(vocab),
        other => return unknown("want", other),
    };
    // SAFETY: the caller's promise.
    let logits = unsafe { floats_out(request.logits, len, "logits")? };
    let logits = match request.want {
        ENGINE_LOGITS_NONE => Logits::None,
        ENGINE_LOGITS_LAST => Logits::Last(logits),
        _ => Logits::All(logits),
    };
    Ok(Request { cache, tokens, logits, result: Ok(()) })
}
