//! What a parallel region costs.

use crate::report::Report;
use crate::timing::Times;
use engine::threads::Pool;
use serde_json::json;
use std::hint::black_box;
use std::time::{Duration, Instant};

pub fn run(report: &mut Report<'_>, pool: &Pool) {
    let mut scratch = vec![(); pool.threads()];
    let mut measure = |calls: usize, pause: Duration| {
        let mut times = Times::default();
        for _ in 0..calls {
            std::thread::sleep(pause);
            let start = Instant::now();
            pool.for_each(&mut scratch, pool.threads(), |_, task| {
                black_box(task);
            });
            times.push(start.elapsed().as_secs_f64());
        }
        times
    };
    for (name, pause, calls) in [("awake", Duration::ZERO, 100_000), ("asleep", Duration::from_millis(1), 300)] {
        let row = format!("kernels/fork-join/{name}");
        if !report.wants(&row) {
            continue;
        }
        measure(calls / 10, pause);
        let times = measure(calls, pause);
        let (p50, p99) = (1e9 * times.median(), 1e9 * times.quantile(0.99));
        let line = format!("fork-join, workers {name:6} {p50:8.0} ns, 99 of 100 within {p99:.0} ns ({calls} calls)");
        report.row(&row, &line, json!({"p50_ns": p50, "p99_ns": p99, "runs": calls}));
    }
}
