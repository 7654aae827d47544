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

/// Feeds each request's tokens to its cache, as [`Cache::step`] and [`Cache::step_all`] do, with the same bits. They share the passes over
/// the weights, of up to [`MAX_CHUNK`] tokens; where long prompts are multiplied by BLAS, those pass one after the other. A request that
/// fails has its error in `result` and its cache as it was; the others go on.
pub fn step_batch(requests: &mut [Request<'_>]) {
    let Some(model) = requests.first().map(|request| request.cache.model().clone()) else { return };
    let mut feeds = Vec::new();
    for (place, request) in requests.iter_mut().enumerate() {
        request.result = request.check(&model);
        if request.result.is_err() || request.tokens.is_empty() {
            continue;
        }
        let path = Path::for_tokens(request.tokens.len());
        if path == Path::Many && model.prefill_by_blas() {
            let logits = std::mem::replace(&mut request.logits, Logits::None);
            request.result = request.cache.feed(request.tokens, logits);
        } else if feeds.try_reserve(1).is_err() {
            request.result = Err(Error::out_of_memory("the list of a batch's requests", size_of_val(&feeds[..])));
        } else {
            feeds.push(Feed { fed: 0, now: 0, place, path, request });
        }
    }
    // As `forward` wants them.
    feeds.sort_unstable_by_key(|feed| (feed.path == Path::Many, feed.place));
    let Some(mut scratch) = feeds.first_mut().map(|feed| std::mem::take(&mut feed.request.cache.scratch)) else { return };
    while shared_pass(&model, &mut feeds, &mut scratch) {}
    let unchanged = model.check_files();
    for Feed { request, .. } in &mut feeds {
        if request.result.is_ok() {
            request.result = unchanged.clone();
        }
        request.cache.settle(request.cache.len(), request.tokens.len(), &request.result);
    }
    if let Some(first) = feeds.first_mut() {
        first.request.cache.scratch = scratch;
    }
}

/// A request under way.
struct Feed<'r, 'a> {
    request: &'r mut Request<'a>,
    /// Its number in the batch.
    place: usize,
    path: Path,
    /// Tokens that have passed; the cache counts them when all have.
    fed: usize,
    /// Tokens in the pass now.
    now: usize,
}

impl Feed<'_, '_> {
    /// The position of the next token to pass.
    fn first(&self) -> usize {
        self.request.cache.len() + self.fed
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

/// One pass, with as many tokens as there is room for; false if nothing is left to pass.
fn shared_pass(model: &Model, feeds: &mut [Feed<'_, '_>], scratch: &mut Scratch) -> bool {
    let (mut few, mut room) = (0, MAX_CHUNK);
    for feed in &mut *feeds {
        feed.now = 0;
        let left = feed.request.tokens.len() - feed.fed;
        if feed.request.result.is_ok() && left > 0 && room > 0 {
            let (first, n) = (feed.first(), left.min(room));
            feed.request.result = feed.request.cache.prepare(first..first + n);
            if feed.request.result.is_ok() {
                feed.now = n;
                room -= n;
                few += feed.path.few_of(n);
            }
        }
    }
    let in_pass = |feed: &&mut Feed<'_, '_>| feed.now > 0;
    if room == MAX_CHUNK {
        return false;
    }
    let lengths = feeds.iter().filter(|feed| feed.now > 0).map(|feed| (feed.first(), feed.now));
    let ready = scratch.reserve(model, few, lengths).and_then(|()| scratch.reserve_many(model));
    if let Err(error) = ready.and_then(|()| pass(model, feeds, scratch)) {
        feeds.iter_mut().filter(in_pass).for_each(|feed| feed.request.result = Err(error.clone()));
    }
    for feed in feeds.iter_mut().filter(in_pass) {
        feed.fed += feed.now;
        if feed.request.result.is_ok() {
            feed.request.cache.passed(feed.first());
        }
    }
    true
}

/// The pass itself; one that was cancelled meanwhile has that as its result.
fn pass(model: &Model, feeds: &mut [Feed<'_, '_>], scratch: &mut Scratch) -> Result<()> {
    let what = "the sequences of a batch";
    let mut sequences: Vec<Sequence<'_>> = try_with_capacity(feeds.len(), what)?;
    let mut results: Vec<&mut Result<()>> = try_with_capacity(feeds.len(), what)?;
    for Feed { request, path, fed, now, .. } in feeds.iter_mut().filter(|feed| feed.now > 0) {
        let Request { cache, tokens, logits, result } = &mut **request;
        let first = cache.len() + *fed;
        let logits = logits.take(*now, tokens.len() - *fed, model.vocab_size());
        sequences.push(cache.sequence(model, *path, &tokens[*fed..][..*now], first, logits));
        results.push(result);
    }
    forward(model, &mut sequences, scratch);
    for (sequence, result) in sequences.iter().zip(results) {
        if sequence.cancelled {
            *result = Err(cancelled());
        }
    }
    Ok(())
}
