//! Where the time of a step goes, as the library tells it.

use super::Subject;
use super::steps::{fill, too_long};
use crate::random::Random;
use crate::report::Report;
use engine::model::{Op, Profile, Taken};
use engine::{CacheOptions, Model, Result};
use serde_json::json;
use std::sync::Arc;

/// The end of its row's name; tokens in the cache; tokens of a step.
pub type Step = (&'static str, usize, usize);
const FULL: [Step; 3] = [("decode-0", 0, 1), ("decode-2048", 2048, 1), ("prefill-512", 0, 512)];
const QUICK: [Step; 2] = [("decode-0", 0, 1), ("prefill-128", 0, 128)];

/// Those that are asked for of the model whose rows begin with `name`.
pub fn wanted(report: &Report<'_>, name: &str) -> Vec<Step> {
    let steps: &[Step] = report.options.pick(&FULL, &QUICK);
    steps.iter().copied().filter(|step| report.wants(&format!("{name}/profile/{}", step.0))).collect()
}

pub fn profiles(report: &mut Report<'_>, subject: &Subject<'_>, model: &Arc<Model>, steps: &[Step]) -> Result<()> {
    let mut random = Random::new(5);
    for &(name, depth, n) in steps {
        let runs = if n == 1 { report.options.pick(64, 16) } else { report.options.pick(3, 1) };
        if too_long(report, subject, name, depth + n + runs) {
            continue;
        }
        let mut cache = model.new_cache(&CacheOptions::default())?;
        let mut logits = vec![0.0; model.vocab_size()];
        fill(&mut cache, &mut random, depth)?;
        // The first one's time goes into memory that is touched for the first time.
        for step in 0..=runs {
            cache.truncate(depth)?;
            cache.step(&random.tokens(n, model.vocab_size()), Some(&mut logits))?;
            if step == 0 {
                cache.reset_profile();
            }
        }
        if let Some(profile) = cache.profile() {
            show(report, subject, name, profile);
        }
    }
    Ok(())
}

fn show(report: &mut Report<'_>, subject: &Subject<'_>, name: &str, profile: &Profile) {
    let all = profile.passes();
    let per_pass = |taken: &Taken| 1e3 * taken.time.as_secs_f64() / all.calls as f64;
    let mut ops: Vec<(Op, Taken)> =
        Op::ALL.into_iter().map(|op| (op, profile.of(op))).filter(|(_, taken)| taken.calls > 0).collect();
    ops.sort_by_key(|(_, taken)| std::cmp::Reverse(taken.time));
    let mut lines = format!("profile of {name}: {:.3} ms a step ({} steps)", per_pass(&all), all.calls);
    for (op, taken) in &ops {
        let share = 100.0 * taken.time.as_secs_f64() / all.time.as_secs_f64();
        let rate = match taken.bytes {
            0 => String::new(),
            bytes => format!("{:7.1} GB/s", bytes as f64 / taken.time.as_secs_f64() / 1e9),
        };
        let calls = taken.calls as f64 / all.calls as f64;
        lines += &format!("\n    {:18} {:9.3} ms {share:5.1} %  {calls:4.0} calls {rate}", op.name(), per_pass(taken));
    }
    let figures: Vec<_> = ops
        .iter()
        .map(|(op, taken)| {
            let passes = all.calls as f64;
            json!({
                "op": op.name(), "calls": taken.calls as f64 / passes, "s": taken.time.as_secs_f64() / passes,
                "bytes": taken.bytes as f64 / passes,
            })
        })
        .collect();
    report.row(&format!("{}/profile/{name}", subject.name), &lines, json!({"steps": all.calls, "ops": figures}));
}
