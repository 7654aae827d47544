//! Where the time of a step goes, as the library tells it.

use super::Subject;
use crate::random::Random;
use crate::report::Report;
use engine::model::{Op, Profile, Taken};
use engine::{CacheOptions, Model, Result};
use serde_json::json;
use std::sync::Arc;

/// Steps of `sizes` tokens each: 1 is decode.
pub fn profiles(report: &mut Report<'_>, subject: &Subject<'_>, model: &Arc<Model>, sizes: &[usize]) -> Result<()> {
    let mut random = Random::new(5);
    for &n in sizes {
        let mut cache = model.new_cache(&CacheOptions::default())?;
        let mut logits = vec![0.0; model.vocab_size()];
        let steps = if n == 1 { report.options.pick(64, 16) } else { report.options.pick(3, 1) };
        // The first one's time goes into memory that is touched for the first time.
        for step in 0..=steps {
            if n > 1 {
                cache.truncate(0)?;
            }
            cache.step(&random.tokens(n, model.vocab_size()), Some(&mut logits))?;
            if step == 0 {
                cache.reset_profile();
            }
        }
        if let Some(profile) = cache.profile() {
            show(report, subject, n, profile);
        }
    }
    Ok(())
}

fn show(report: &mut Report<'_>, subject: &Subject<'_>, n: usize, profile: &Profile) {
    let all = profile.passes();
    let per_pass = |taken: &Taken| 1e3 * taken.time.as_secs_f64() / all.calls as f64;
    let mut ops: Vec<(Op, Taken)> =
        Op::ALL.into_iter().map(|op| (op, profile.of(op))).filter(|(_, taken)| taken.calls > 0).collect();
    ops.sort_by_key(|(_, taken)| std::cmp::Reverse(taken.time));
    let mut lines = format!("profile {n:5} {:8.3} ms a step ({} steps)", per_pass(&all), all.calls);
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
    report.row(&format!("{}/profile/{n}", subject.name), &lines, json!({"steps": all.calls, "ops": figures}));
}
