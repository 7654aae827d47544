//! Prefill, decode and batches of a loaded model.

use super::Subject;
use crate::random::Random;
use crate::report::Report;
use crate::timing::{Times, seconds};
use engine::model::{Logits, Request, step_batch};
use engine::ops::attention::BLOCK;
use engine::{Cache, CacheOptions, KvType, LoadOptions, Model, Result};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// No more runs of a row begin after this.
const BUDGET: Duration = Duration::from_secs(20);

/// The caches that decode is measured with, and what their rows are called.
pub const CACHES: [(KvType, &str); 3] =
    [(KvType::F32, "decode"), (KvType::F16, "decode-kv-f16"), (KvType::Q8_0, "decode-kv-q8_0")];

/// Which rows of a model are wanted: tokens of a prompt, depths of each of [`CACHES`], sequences of a batch.
pub struct Steps {
    pub prefills: Vec<usize>,
    pub decodes: [Vec<usize>; CACHES.len()],
    pub batches: Vec<usize>,
}

impl Steps {
    pub fn is_empty(&self) -> bool {
        self.prefills.is_empty() && self.decodes.iter().all(Vec::is_empty) && self.batches.is_empty()
    }

    pub fn measure(&self, report: &mut Report<'_>, subject: &Subject<'_>, model: &Arc<Model>) -> Result<()> {
        prefills(report, subject, model, &self.prefills)?;
        decodes(report, subject, model, &self.decodes)?;
        batches(report, subject, model, &self.batches)
    }
}

fn prefills(report: &mut Report<'_>, subject: &Subject<'_>, model: &Arc<Model>, sizes: &[usize]) -> Result<()> {
    let (mut random, mut logits) = (Random::new(2), vec![0.0; model.vocab_size()]);
    for &n in sizes {
        if too_long(report, subject, &format!("prefill {n:5}"), n) {
            continue;
        }
        let tokens = random.tokens(n, model.vocab_size());
        let mut cache = model.new_cache(&CacheOptions::default())?;
        let runs = report.options.pick(5, 2);
        let times = Times::of(runs, BUDGET, || {
            cache.truncate(0)?;
            let mut stepped = Ok(());
            let seconds = seconds(|| stepped = cache.step(&tokens, Some(&mut logits)));
            stepped.map(|()| seconds)
        })?;
        let operations = (2 * n * subject.shape.layer_weights()) as f64;
        let of_peak = subject.of_peak(operations, times.median());
        let (rate, spread) = (n as f64 / times.median(), times.spread());
        let line = format!(
            "prefill {n:5} {rate:8.1} tokens/s {:8.0} Gop/s {:3.0} % of the peak ({} runs, {:.0} % apart)",
            operations / times.median() / 1e9,
            100.0 * of_peak,
            times.runs(),
            100.0 * spread
        );
        let figures =
            json!({"tokens_per_s": rate, "operations": operations, "of_peak": of_peak, "runs": times.runs(), "spread": spread});
        report.row(&format!("{}/prefill/{n}", subject.name), &line, figures);
    }
    Ok(())
}

fn decodes(report: &mut Report<'_>, subject: &Subject<'_>, model: &Arc<Model>, wanted: &[Vec<usize>]) -> Result<()> {
    if wanted.iter().all(Vec::is_empty) {
        return Ok(());
    }
    let (steps, weights) = (report.options.pick(64, 16), weights_per_step(subject)?);
    for (depths, (kv_type, row)) in wanted.iter().zip(CACHES) {
        let mut random = Random::new(3);
        let mut cache = model.new_cache(&CacheOptions { kv_type, ..Default::default() })?;
        for &depth in depths {
            if too_long(report, subject, &format!("{row} {depth:6}"), depth + steps) {
                continue;
            }
            fill(&mut cache, &mut random, depth)?;
            let times = decode(&mut cache, &random.tokens(steps, model.vocab_size()))?;
            let read = (weights + key_and_value_bytes(&cache, kv_type)) as f64;
            let (rate, of_bandwidth) = (1.0 / times.median(), read / times.median() / subject.limits.bandwidth);
            let line = format!(
                "{row} {depth:6} {rate:8.2} tokens/s {:8.1} GB/s  {:3.0} % of the bandwidth ({} steps, {:.0} % apart)",
                read / times.median() / 1e9,
                100.0 * of_bandwidth,
                times.runs(),
                100.0 * times.spread()
            );
            let figures = json!({
                "tokens_per_s": rate, "bytes_per_step": read, "of_bandwidth": of_bandwidth, "runs": times.runs(),
                "spread": times.spread(), "bandwidth": subject.limits.bandwidth,
            });
            report.row(&format!("{}/{row}/{depth}", subject.name), &line, figures);
        }
    }
    Ok(())
}

/// Random tokens until the cache holds `depth`.
pub fn fill(cache: &mut Cache, random: &mut Random, depth: usize) -> Result<()> {
    cache.truncate(cache.len().min(depth))?;
    let tokens = random.tokens(depth - cache.len(), cache.model().vocab_size());
    cache.step(&tokens, None)
}

/// Each token's seconds, behind one that is not timed.
fn decode(cache: &mut Cache, tokens: &[u32]) -> Result<Times> {
    let (mut times, mut logits) = (Times::default(), vec![0.0; cache.model().vocab_size()]);
    let depth = cache.len();
    cache.step(&tokens[..1], Some(&mut logits))?;
    cache.truncate(depth)?;
    for token in tokens {
        let mut stepped = Ok(());
        times.push(seconds(|| stepped = cache.step(&[*token], Some(&mut logits))));
        stepped?;
    }
    Ok(times)
}

/// Bytes of weights that a step of one token reads, by the library's own count.
fn weights_per_step(subject: &Subject<'_>) -> Result<usize> {
    let model = Model::load(subject.path, LoadOptions { threads: 1, profile: true, ..Default::default() })?;
    let mut cache = model.new_cache(&CacheOptions::default())?;
    cache.step(&[1], Some(&mut vec![0.0; model.vocab_size()]))?;
    let bytes = cache.profile().map_or(0, |profile| profile.passes().bytes as usize);
    // The token's key and value are written and read.
    Ok(bytes - 2 * key_and_value_bytes(&cache, KvType::F32))
}

/// Bytes of the keys and values that a cache holds.
fn key_and_value_bytes(cache: &Cache, kv_type: KvType) -> usize {
    let spec = cache.model().spec();
    let (keys, values) = kv_type.head_bytes(spec.head_dim);
    (keys + values) / BLOCK * spec.n_kv_heads * spec.n_layers() * cache.len()
}

fn batches(report: &mut Report<'_>, subject: &Subject<'_>, model: &Arc<Model>, sizes: &[usize]) -> Result<()> {
    let (steps, vocab) = (report.options.pick(32, 8), model.vocab_size());
    let mut random = Random::new(4);
    let mut alone = None;
    for &size in sizes {
        let mut caches = Vec::new();
        for _ in 0..size {
            let mut cache = model.new_cache(&CacheOptions::default())?;
            cache.step(&random.tokens(8, vocab), None)?;
            caches.push(cache);
        }
        let mut logits = vec![0.0; size * vocab];
        let mut times = Times::default();
        for step in 0..=steps {
            let tokens = random.tokens(size, vocab);
            let parts = caches.iter_mut().zip(tokens.chunks(1)).zip(logits.chunks_mut(vocab));
            let mut requests: Vec<Request<'_>> = parts
                .map(|((cache, tokens), logits)| Request { cache, tokens, logits: Logits::Last(logits), result: Ok(()) })
                .collect();
            let seconds = seconds(|| step_batch(&mut requests));
            requests.into_iter().try_for_each(|request| request.result)?;
            if step > 0 {
                times.push(seconds);
            }
        }
        let rate = size as f64 / times.median();
        if size == 1 {
            alone = Some(rate);
        }
        let ratio = alone.map_or(String::new(), |alone| format!("{:8.2} times one sequence's", rate / alone));
        let line = format!("batch {size:7} {rate:8.2} tokens/s {ratio} ({} steps)", times.runs());
        let figures = json!({"tokens_per_s": rate, "step_s": times.median(), "runs": times.runs(), "spread": times.spread()});
        report.row(&format!("{}/batch/{size}", subject.name), &line, figures);
    }
    Ok(())
}

/// Whether `tokens` are more than the model takes, which is then said.
pub fn too_long(report: &mut Report<'_>, subject: &Subject<'_>, row: &str, tokens: usize) -> bool {
    let too_long = tokens > subject.shape.context;
    if too_long {
        report.remark(&format!("{row}  skipped: the context is {} tokens", subject.shape.context));
    }
    too_long
}
