//! RustyGradients' arrays: products of square matrices, and functions of many elements.

use super::heading;
use crate::kernels::attention::{Case, Room};
use crate::random::Random;
use crate::report::Report;
use crate::timing::{Times, seconds};
use crate::weights;
use engine::KvType;
use engine::format::DType;
use engine::kernels::{Kernels, Layout};
use engine::ops::elementwise::Source;
use engine::ops::linear::{Linear, Needs, linear};
use engine::ops::profile::Op;
use engine::ops::{Ctx, Worker};
use engine::threads::Pool;
use serde_json::json;
use std::time::Duration;

const BUDGET: Duration = Duration::from_secs(5);

pub fn run(report: &mut Report<'_>) -> Result<(), String> {
    let pool = Pool::new(report.options.threads).map_err(|e| e.to_string())?;
    let kernels = Kernels::select(None).map_err(|e| e.to_string())?;
    products(report, &pool, kernels);
    attention(report, &pool, kernels)?;
    functions(report, &pool, kernels);
    Ok(())
}

/// `[n, n]` times `[n, n]`, one after another: rows of the first are a prompt's tokens, as in prefill.
fn products(report: &mut Report<'_>, pool: &Pool, kernels: &'static Kernels) {
    let mut headed = false;
    for (what, n, times_over) in [("512", 512, 1), ("1024", 1024, 1), ("32x256", 256, 32)] {
        let name = format!("predecessors/rustygradients/matmul-{what}");
        if !report.wants(&name) {
            continue;
        }
        heading(report, &mut headed, "products of f32 matrices");
        let mut random = Random::new(13);
        let matrices: Vec<Linear> =
            (0..times_over).map(|_| weights::linear(&mut random, DType::F32, Layout::OutIn, n, n)).collect();
        let (x, mut y) = (random.normals(n * n, 1.0), vec![0.0; n * n]);
        let mut workers: Vec<Worker> = (0..pool.threads()).map(|_| Worker::default()).collect();
        Needs::of(kernels, matrices.iter()).reserve(&mut workers, 0, n).expect("memory for a product");
        let mut product = || {
            for matrix in &matrices {
                let ctx = &mut Ctx { kernels, pool, workers: &mut workers, few: 0, profile: None };
                linear(ctx, Op::Qkv, std::slice::from_ref(matrix), Source::Ready(&x), n, &mut y);
            }
        };
        product();
        let times = Times::of(report.options.pick(50, 10), BUDGET, || Ok::<_, ()>(seconds(&mut product))).unwrap_or_default();
        let rate = (2 * n * n * n * times_over) as f64 / times.median() / 1e9;
        let line = format!("{what:10} {rate:8.1} GFLOP/s, published 77 to 151, their aim 500 ({} runs)", times.runs());
        report.row(
            &name,
            &line,
            json!({"gflop_per_s": rate, "published": [77, 151], "runs": times.runs(), "spread": times.spread()}),
        );
    }
}

/// 8 heads of 64 elements over 512 tokens. Ours is causal, theirs was not: only what is computed counts, half as much.
fn attention(report: &mut Report<'_>, pool: &Pool, kernels: &'static Kernels) -> Result<(), String> {
    let name = "predecessors/rustygradients/attention-8x512x64";
    if !report.wants(name) {
        return Ok(());
    }
    heading(report, &mut false, "causal attention, f32");
    let case = Case { heads: 8, kv_heads: 8, head_dim: 64, kv_type: KvType::F32, depth: 0, tokens: 512 };
    let mut room = Room::new(&case, pool).map_err(|e| e.to_string())?;
    room.run(kernels);
    let times = Times::of(report.options.pick(50, 10), BUDGET, || Ok::<_, ()>(seconds(|| room.run(kernels)))).unwrap_or_default();
    let rate = case.operations() / times.median() / 1e9;
    let line = format!("8x512x64   {rate:8.1} GFLOP/s, published 77 to 151, their aim 500 ({} runs)", times.runs());
    report.row(name, &line, json!({"gflop_per_s": rate, "published": [77, 151], "runs": times.runs(), "spread": times.spread()}));
    Ok(())
}

type Function = fn(&Kernels, &mut [f32]);

/// In place, on all threads. exp comes with the sum of its values and sigmoid with a product, as a model uses them.
fn functions(report: &mut Report<'_>, pool: &Pool, kernels: &'static Kernels) {
    const FUNCTIONS: [(&str, Function); 3] = [
        ("relu", |k, y| k.relu(y)),
        ("exp", |k, y| {
            k.exp_sum(y, 3.0); // small again: applied again and again, they settle at 0.05
        }),
        ("sigmoid", |k, y| k.silu(y)),
    ];
    const ROW: usize = 1 << 12;
    let mut headed = false;
    for (function, run) in FUNCTIONS {
        for millions in [1, 10, 50] {
            let name = format!("predecessors/rustygradients/{function}-{millions}m");
            if !report.wants(&name) {
                continue;
            }
            heading(report, &mut headed, "functions of many elements in place: relu, exp with its sum, x times sigmoid(x)");
            let rows = (millions * 1_000_000usize).div_ceil(ROW);
            let mut y = Random::new(14).normals(rows * ROW, 1.0);
            let mut scratch = vec![(); pool.threads()];
            let mut apply = || {
                pool.for_each_rows(&mut scratch, &mut y, ROW, 8, |(), _, rows| {
                    rows.chunks_mut(ROW).for_each(|row| run(kernels, row))
                });
            };
            apply();
            let times = Times::of(report.options.pick(20, 5), BUDGET, || Ok::<_, ()>(seconds(&mut apply))).unwrap_or_default();
            let rate = (rows * ROW) as f64 / times.median() / 1e9;
            let line = format!(
                "{function:8} {millions:3} M {rate:8.2} GElem/s, published 1.0, their aim 3 to 5 ({} runs)",
                times.runs()
            );
            report.row(
                &name,
                &line,
                json!({"gelem_per_s": rate, "published": 1.0, "runs": times.runs(), "spread": times.spread()}),
            );
        }
    }
}
