//! Steps of many sequences that share the passes over the weights.
#![forbid(unsafe_code)]

use super::Model;
use super::cache::{Cache, Logits, cancelled};
use super::forward::{MAX_CHUNK, Scratch, Sequence, forward};
use crate::error::{Error, Result, try_with_capacity};
use crate::ops::Path;
use std::sync::Arc;

/// One sequence's part of [`step_batch`].
pub struct Request<'a> {
    /// The sequence; all of one batch are of one model.
    pub cache: &'a mut Cache,
    /// What is fed to it.
    pub tokens: &'a [u32],
    /// Where its logits go.
    pub logits: Logits<'a>,
    /// How its step ended: [`step_batch`] writes it.
    pub result: Result<()>,
}

/// Feeds each request's tokens to its cache, as [`Cache::step`] and [`Cache::step_all`] do, with the same bits. Requests of up to
/// [`FEW_TOKENS`](crate::ops::FEW_TOKENS) tokens pass over the weights together, longer ones one after the other. One that fails has its
/// error in `result` and its cache as it was; the others go on.
pub fn step_batch(requests: &mut [Request<'_>]) {
    let Some(model) = requests.first().map(|request| request.cache.model().clone()) else { return };
    let mut few = Vec::new();
    for request in requests {
        request.result = request.check(&model);
        if request.result.is_err() || request.tokens.is_empty() {
            continue;
        }
        match Path::for_tokens(request.tokens.len()) {
            Path::Many => {
                let logits = std::mem::replace(&mut request.logits, Logits::None);
                request.result = request.cache.feed(request.tokens, logits);
            }
            Path::Few => match few.try_reserve(1) {
                Ok(()) => few.push(request),
                Err(_) => request.result = Err(Error::out_of_memory("the list of a batch's requests", size_of_val(&few[..]))),
            },
        }
    }
    let mut rest = &mut few[..];
    while !rest.is_empty() {
        // As many as fit into one pass.
        let mut n_tokens = 0;
        let mut fits = |request: &&mut Request<'_>| {
            n_tokens += request.tokens.len();
            n_tokens <= MAX_CHUNK
        };
        let n = rest.iter().take_while(|request| fits(request)).count();
        let (now, later) = rest.split_at_mut(n.max(1));
        together(&model, now);
        rest = later;
    }
}

impl Request<'_> {
    fn check(&self, model: &Arc<Model>) -> Result<()> {
        if !Arc::ptr_eq(self.cache.model(), model) {
            return Err(Error::bad_argument("the cache is of another model than the batch's first"));
        }
        let vocab = model.vocab_size();
        let (found, expected) = match &self.logits {
            Logits::None => (0, 0),
            Logits::Last(_) if self.tokens.is_empty() => {
                return Err(Error::bad_argument("logits were asked for but no token was fed"));
            }
            Logits::Last(logits) => (logits.len(), vocab),
            Logits::All(logits) => (logits.len(), self.tokens.len().saturating_mul(vocab)),
        };
        if found != expected {
            return Err(Error::bad_argument(format!("the logits buffer has {found} elements; expected {expected}")));
        }
        self.cache.check(self.tokens)
    }
}

/// One pass of requests that have been checked.
fn together(model: &Arc<Model>, requests: &mut [&mut Request<'_>]) {
    let Some(mut scratch) = requests.first_mut().map(|request| std::mem::take(&mut request.cache.scratch)) else { return };
    for request in &mut *requests {
        request.result = request.cache.prepare(request.tokens.len());
    }
    let passed = reserve(model, requests, &mut scratch)
        .and_then(|()| pass(model, requests, &mut scratch))
        .and_then(|()| model.check_files());
    for request in &mut *requests {
        if request.result.is_ok() {
            request.result = passed.clone();
        }
        request.cache.settle(request.cache.len(), request.tokens.len(), &request.result);
    }
    if let Some(first) = requests.first_mut() {
        first.cache.scratch = scratch;
    }
}

/// The pass of those that are prepared; one that was cancelled meanwhile has that as its result.
fn pass(model: &Model, requests: &mut [&mut Request<'_>], scratch: &mut Scratch) -> Result<()> {
    let what = "the sequences of a batch";
    let mut sequences: Vec<Sequence<'_>> = try_with_capacity(requests.len(), what)?;
    let mut results: Vec<&mut Result<()>> = try_with_capacity(requests.len(), what)?;
    for Request { cache, tokens, logits, result } in requests.iter_mut().map(|request| &mut **request) {
        if result.is_ok() {
            sequences.push(cache.sequence(model, tokens, std::mem::replace(logits, Logits::None)));
            results.push(result);
        }
    }
    forward(model, Path::Few, &mut sequences, scratch);
    for (sequence, result) in sequences.iter().zip(results) {
        if sequence.cancelled {
            *result = Err(cancelled());
        }
    }
    Ok(())
}

fn reserve(model: &Model, requests: &[&mut Request<'_>], scratch: &mut Scratch) -> Result<()> {
    let ready = requests.iter().filter(|request| request.result.is_ok());
    scratch.reserve(model, Path::Few, ready.map(|request| (request.cache.len(), request.tokens.len())))?;
    scratch.reserve_many(model)
}
