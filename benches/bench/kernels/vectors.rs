//! Kernels on rows that are in cache.

use super::tables;
use crate::random::Random;
use crate::report::Report;
use crate::timing::{Times, seconds};
use engine::kernels::{Activations, Kernels, Scaling};
use engine::threads::ColumnsMut;
use serde_json::json;
use std::hint::black_box;

/// A kernel on `y` with another row of the same length beside it.
type Run = fn(&Kernels, &[f32], &mut [f32]);

/// Name, length of a row in the models, what it does.
const CASES: [(&str, usize, Run); 10] = [
    ("rms_norm", 2048, |k, x, y| k.rms_norm(x, x, 1e-5, y)),
    ("layer_norm", 768, |k, x, y| k.layer_norm(x, x, Some(x), 1e-5, y)),
    ("add", 2048, |k, x, y| k.add(y, x)),
    ("mul", 5632, |k, x, y| k.mul(y, x)),
    ("scale", 2048, |k, _, y| k.scale(y, 0.999)),
    ("silu", 5632, |k, x, y| {
        y.copy_from_slice(x);
        k.silu(y);
    }),
    ("gelu", 3072, |k, x, y| {
        y.copy_from_slice(x);
        k.gelu(y);
    }),
    ("gelu_tanh", 3072, |k, x, y| {
        y.copy_from_slice(x);
        k.gelu_tanh(y);
    }),
    ("relu_squared", 3072, |k, x, y| {
        y.copy_from_slice(x);
        k.relu_squared(y);
    }),
    ("softcap", 32000, |k, x, y| {
        y.copy_from_slice(x);
        k.softcap(y, 30.0);
    }),
];

pub fn run(report: &mut Report<'_>) -> Result<(), String> {
    let wanted: Vec<_> = CASES.iter().filter(|case| report.wants(&format!("kernels/vector/{}", case.0))).collect();
    if wanted.is_empty() && !report.options.wants("kernels/vector/quantise") {
        return Ok(());
    }
    if !report.options.list {
        report.heading("rows in cache, one thread, the best of several runs");
    }
    for (name, n, run) in wanted {
        let x = Random::new(9).normals(*n, 1.0);
        let mut expected = None;
        let (mut cells, mut figures) = (Vec::new(), Vec::new());
        for kernels in tables() {
            let mut y = x.clone();
            run(kernels, &x, &mut y);
            let expected: &Vec<f32> = expected.get_or_insert(y.clone());
            check(&y, expected).map_err(|e| format!("{name}, {}: {e}", kernels.isa().name()))?;
            let seconds = per_call(|| run(kernels, black_box(&x), black_box(&mut y)));
            cells.push(format!("{} {:8.1} ns, {:5.2} G/s", kernels.isa().name(), 1e9 * seconds, *n as f64 / seconds / 1e9));
            figures.push(json!({"isa": kernels.isa().name(), "s": seconds}));
        }
        report.row(&format!("kernels/vector/{name}"), &format!("{name:13} {n:6}: {}", cells.join("; ")), figures.into());
    }
    quantise(report)
}

/// A row's activations to 8 bits: the same bits by every table.
fn quantise(report: &mut Report<'_>) -> Result<(), String> {
    const N: usize = 2048;
    const BLOCKS: usize = N.div_ceil(Activations::BLOCK);
    if !report.wants("kernels/vector/quantise") {
        return Ok(());
    }
    let x = Random::new(9).normals(N, 1.0);
    let (mut cells, mut figures) = (Vec::new(), Vec::new());
    for kernels in tables() {
        let mut y = vec![Activations::ZERO; BLOCKS];
        let mut y = ColumnsMut::whole(&mut y, BLOCKS, 1);
        let seconds = per_call(|| kernels.quantise(black_box(&x), N, Scaling::Factors, black_box(&mut y)));
        cells.push(format!("{} {:8.1} ns, {:5.2} G/s", kernels.isa().name(), 1e9 * seconds, N as f64 / seconds / 1e9));
        figures.push(json!({"isa": kernels.isa().name(), "s": seconds}));
    }
    report.row("kernels/vector/quantise", &format!("{:13} {N:6}: {}", "quantise", cells.join("; ")), figures.into());
    Ok(())
}

/// Seconds of one call: the best of 20 times 200.
fn per_call(mut run: impl FnMut()) -> f64 {
    let mut times = Times::default();
    for _ in 0..20 {
        times.push(seconds(|| (0..200).for_each(|_| run())) / 200.0);
    }
    times.best()
}

/// Against the plain table: a few roundings of each element, and those of one sum over the row.
fn check(got: &[f32], want: &[f32]) -> Result<(), String> {
    let bound = f32::EPSILON * (8.0 + got.len() as f32);
    let is_near = |a: f32, b: f32| (a - b).abs() <= bound * (1.0 + b.abs()); // never true of a NaN
    let far = got.iter().zip(want).position(|(a, b)| !is_near(*a, *b));
    far.map_or(Ok(()), |i| Err(format!("element {i} is {}, expected {}", got[i], want[i])))
}
