//! Tokens after tokens: RustML's GPT-2 in batches, RusTorch's TinyLlama, DirkTensor's fourscore.

use super::heading;
use crate::models::gguf;
use crate::models::shapes::{GPT2, OLMO2_1B, Shape, TINYLLAMA, Weights};
use crate::random::Random;
use crate::report::Report;
use crate::timing::{Times, seconds};
use engine::model::{Logits, Request, step_batch};
use engine::{Cache, CacheOptions, LoadOptions, Model, Recipe, Result};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Tokens of each prompt; the predecessors name none.
const PROMPT: usize = 8;

/// Greedy generation: whose figure, the model, sequences at once, tokens of each, the published tokens per second.
struct Generation {
    row: &'static str,
    shape: Shape,
    weights: Weights,
    sequences: usize,
    tokens: usize,
    published: f64,
}

const Q4_K_M: Weights = Weights::Quantised(Recipe::Q4KM);
const GENERATIONS: [Generation; 5] = [
    Generation { row: "rustml/2x50", shape: GPT2, weights: Weights::F32, sequences: 2, tokens: 50, published: 2.2 },
    Generation { row: "rustml/4x30", shape: GPT2, weights: Weights::F32, sequences: 4, tokens: 30, published: 1.3 },
    Generation { row: "rustorch/10", shape: TINYLLAMA, weights: Q4_K_M, sequences: 1, tokens: 10, published: 0.60 },
    Generation { row: "rustorch/50", shape: TINYLLAMA, weights: Q4_K_M, sequences: 1, tokens: 50, published: 0.53 },
    Generation { row: "rustorch/100", shape: TINYLLAMA, weights: Q4_K_M, sequences: 1, tokens: 100, published: 0.91 },
];

pub fn run(report: &mut Report<'_>) -> std::result::Result<(), String> {
    let mut headed = false;
    for generation in &GENERATIONS {
        let name = format!("predecessors/{}", generation.row);
        if !report.wants(&name) {
            continue;
        }
        heading(report, &mut headed, &format!("generation, greedy, prompts of {PROMPT} tokens counted in the time"));
        let model = load(report, &generation.shape, generation.weights)?;
        let runs = report.options.pick(5, 2);
        let all = (generation.sequences * generation.tokens) as f64;
        let times = Times::of(runs, Duration::from_secs(30), || generate(&model, generation)).map_err(|e| e.to_string())?;
        let (rate, published) = (all / times.median(), generation.published);
        let what = format!(
            "{} {}, {} x {} tokens",
            generation.shape.name,
            generation.weights.name(),
            generation.sequences,
            generation.tokens
        );
        let line = format!("{what:40} {rate:8.1} tokens/s, published {published:.2} ({} runs)", times.runs());
        report.row(
            &name,
            &line,
            json!({"tokens_per_s": rate, "published": published, "runs": times.runs(), "spread": times.spread()}),
        );
    }
    fourscore(report, &mut headed)
}

fn load(report: &Report<'_>, shape: &Shape, weights: Weights) -> std::result::Result<Arc<Model>, String> {
    let path = gguf::file(&report.options.dir, shape, weights).map_err(|e| e.to_string())?;
    Model::load(path, LoadOptions { threads: report.options.threads, ..Default::default() }).map_err(|e| e.to_string())
}

fn largest(logits: &[f32]) -> u32 {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(token, _)| token as u32)
}

/// Seconds for prompts and tokens.
fn generate(model: &Arc<Model>, generation: &Generation) -> Result<f64> {
    let (vocab, n) = (model.vocab_size(), generation.sequences);
    let mut caches = Vec::new();
    for _ in 0..n {
        caches.push(model.new_cache(&CacheOptions::default())?);
    }
    let mut random = Random::new(11);
    let mut feeds: Vec<Vec<u32>> = (0..n).map(|_| random.tokens(PROMPT, vocab)).collect();
    let mut logits = vec![0.0; n * vocab];
    let mut stepped = Ok(());
    let seconds = seconds(|| {
        for _ in 0..generation.tokens {
            let parts = caches.iter_mut().zip(&feeds).zip(logits.chunks_mut(vocab));
            let request = |((cache, tokens), logits): ((_, _), _)| {
                let tokens: &Vec<u32> = tokens;
                Request { cache, tokens, logits: Logits::Last(logits), result: Ok(()) }
            };
            let mut requests: Vec<Request<'_>> = parts.map(request).collect();
            step_batch(&mut requests);
            stepped = requests.into_iter().try_for_each(|request| request.result);
            if stepped.is_err() {
                return;
            }
            feeds = logits.chunks(vocab).map(|logits| vec![largest(logits)]).collect();
        }
    });
    stepped.map(|()| seconds)
}

/// DirkTensor's harness: four tokens one by one, then greedily up to 20 steps, with the five best of each.
fn fourscore(report: &mut Report<'_>, headed: &mut bool) -> std::result::Result<(), String> {
    let name = "predecessors/dirktensor/fourscore";
    if !report.wants(name) {
        return Ok(());
    }
    heading(report, headed, "generation");
    let model = load(report, &OLMO2_1B, Weights::F32)?;
    let mut cache = model.new_cache(&CacheOptions::default()).map_err(|e| e.to_string())?;
    let runs = report.options.pick(5, 2);
    let times = Times::of(runs, Duration::from_secs(40), || four_and_on(&mut cache)).map_err(|e| e.to_string())?;
    let per_step = 1e3 * times.median();
    let line = format!(
        "{:40} {per_step:8.1} ms a step, published 627 (PyTorch there 366) ({} runs of 20)",
        "olmo2-1b f32, fourscore",
        times.runs()
    );
    let figures = json!({"ms_per_step": per_step, "published": 627, "published_pytorch": 366, "runs": times.runs(), "spread": times.spread()});
    report.row(name, &line, figures);
    Ok(())
}

/// Seconds of one of the 20 steps, by their mean.
fn four_and_on(cache: &mut Cache) -> Result<f64> {
    const STEPS: usize = 20;
    cache.truncate(0)?;
    let mut logits = vec![0.0; cache.model().vocab_size()];
    let mut tokens = vec![28070, 5573, 323, 8254];
    let mut stepped = Ok(());
    let seconds = seconds(|| {
        for i in 0..STEPS {
            stepped = cache.step(&[tokens[i]], Some(&mut logits));
            if stepped.is_err() {
                return;
            }
            let best = five_best(&logits);
            if i + 1 == tokens.len() {
                tokens.push(best[0] as u32);
            }
        }
    });
    stepped.map(|()| seconds / STEPS as f64)
}

fn five_best(logits: &[f32]) -> [usize; 5] {
    let mut best = [0; 5];
    for i in 0..logits.len() {
        let place = best.iter().position(|&other| logits[i] > logits[other]);
        if let Some(place) = place {
            best[place..].rotate_right(1);
            best[place] = i;
        }
    }
    best
}
