//! Products: `linear` as the library calls it, by every table and on both paths.

use super::tables;
use crate::machine::Limits;
use crate::models::MODELS;
use crate::random::Random;
use crate::report::Report;
use crate::timing::{Times, seconds};
use crate::weights;
use engine::blas;
use engine::format::{DType, Quant};
use engine::kernels::{Activations, Isa, Kernels, Layout};
use engine::ops::elementwise::Source;
use engine::ops::linear::{Linear, Needs, linear};
use engine::ops::profile::Op;
use engine::ops::{Ctx, Path, Worker};
use engine::threads::Pool;
use serde_json::json;
use std::time::Duration;

/// Bytes of different weights, so many that none stays in cache from one use to the next.
const IN_MEMORY: usize = 160 << 20;
/// Outputs of the smallest matrix that is timed: smaller ones only run beside others.
const SMALLEST: usize = 768;
/// Outputs and tokens that are checked.
const CHECKED: (usize, usize) = (80, 20);

type Case = (DType, Layout, usize, usize);

/// The matrices of the models' files, GPT-2's as its Hugging Face checkpoints have them, and one of every other type.
fn cases(quick: bool) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (shape, weights) in &MODELS {
        for tensor in shape.tensors(*weights) {
            match tensor.shape[..] {
                [rows, columns] if rows >= SMALLEST && tensor.name != "position_embd.weight" => {
                    cases.push((tensor.dtype, Layout::OutIn, rows, columns));
                }
                _ => (),
            }
        }
    }
    cases.extend(
        [(768, 768), (2304, 768), (3072, 768), (768, 3072), (5632, 2048)]
            .map(|(n_out, n_in)| (DType::F32, Layout::InOut, n_out, n_in)),
    );
    cases.extend(Quant::ALL.map(|quant| (DType::Quant(quant), Layout::OutIn, 5632, 2048)));
    cases.extend([DType::F16, DType::F32].map(|dtype| (dtype, Layout::OutIn, 5632, 2048)));
    cases.sort_by_key(|case| (case.0.name(), case.1 == Layout::InOut, case.3, case.2));
    cases.dedup();
    if quick {
        cases.retain(|case| (case.2, case.3) == (5632, 2048) || case.1 == Layout::InOut);
    }
    cases
}

pub fn run(report: &mut Report<'_>, pool: &Pool) -> Result<(), String> {
    let sizes: &[usize] = report.options.pick(&[1, 4, 16, 64, 512], &[1, 64]);
    let mut headed = false;
    for case in cases(report.options.quick) {
        let (dtype, layout, n_out, n_in) = case;
        let name = format!("kernels/{}/{n_out}x{n_in}", weights::row_name(dtype, layout));
        let sizes: Vec<usize> = sizes.iter().copied().filter(|m| report.wants(&format!("{name}/{m}"))).collect();
        if sizes.is_empty() {
            continue;
        }
        if !headed {
            report.heading(
                "products of M tokens as the library runs them, the best of several runs; % of what memory or arithmetic allows; then the others",
            );
            headed = true;
        }
        let mut random = Random::new(7);
        let copies = IN_MEMORY.div_ceil(dtype.bytes(n_out * n_in).unwrap_or(IN_MEMORY)).max(1);
        let copies: Vec<Linear> = (0..copies).map(|_| weights::linear(&mut random, dtype, layout, n_out, n_in)).collect();
        check(&copies[0], pool).map_err(|e| format!("{name}: {e}"))?;
        let limits = Limits::now(pool.threads(), true);
        report.remark(&format!("{name}: checked; {}", limits.line(dtype)));
        for m in sizes {
            time(report, &name, m, &copies, pool, &limits);
        }
    }
    Ok(())
}

/// One row: all ways in turns, so that what disturbs one disturbs the others.
fn time(report: &mut Report<'_>, name: &str, m: usize, copies: &[Linear], pool: &Pool, limits: &Limits) {
    let (n_out, n_in, dtype) = (copies[0].n_out(), copies[0].n_in(), copies[0].matrix().dtype);
    let best = tables().last().map(Kernels::isa);
    // Without vectors the many tokens of floats go through BLAS, where there is one: it is timed beside our own kernels so.
    let is_scalar = |kernels: &Kernels| kernels.isa() == Isa::Scalar;
    let by_blas = |kernels: &Kernels, path: Path| {
        is_scalar(kernels) && path == Path::Many && matches!(dtype, DType::Float(_)) && blas::best_with(kernels)
    };
    let is_slow = |kernels: &Kernels, path: Path| {
        is_scalar(kernels) && m * n_out * n_in > 20_000_000 && best != Some(Isa::Scalar) && !by_blas(kernels, path)
    };
    let paths = |kernels: &'static Kernels| [Path::Few, Path::Many].into_iter().filter(move |&path| !is_slow(kernels, path));
    let name_of = |kernels: &Kernels, path: Path| {
        if by_blas(kernels, path) { "blas".into() } else { format!("{} {}", kernels.isa().name(), path_name(path)) }
    };
    let ways: Vec<(&'static Kernels, Path)> = tables().flat_map(|k| paths(k).map(move |path| (k, path))).collect();
    let mut runner = Runner::new(pool, &copies[0], m);
    let mut times = vec![Times::default(); ways.len()];
    let budget = Duration::from_millis(report.options.pick(400, 100)) * ways.len() as u32;
    let mut next = copies.iter().cycle();
    let rounds = Times::of(1000, budget, || {
        for ((kernels, path), times) in ways.iter().zip(&mut times) {
            if let Some(linear) = next.next() {
                times.push(seconds(|| runner.run(kernels, *path, linear)));
            }
        }
        Ok::<_, ()>(0.0)
    });
    let rounds = rounds.map_or(0, |rounds| rounds.runs());

    let bytes = copies[0].weight_bytes() as f64;
    let operations = (2 * m * n_out * n_in) as f64;
    let least = (bytes / limits.bandwidth).max(operations / limits.arithmetic(dtype).1);
    let chosen = |kernels: &Kernels, path: Path| Some(kernels.isa()) == best && path == Path::for_tokens(m);
    let fastest = times.iter().map(Times::best).fold(f64::INFINITY, f64::min);
    let mut chosen_s = f64::NAN;
    let mut all = Vec::new();
    for ((kernels, path), times) in ways.iter().zip(&times) {
        let (isa, seconds, is_chosen) = (kernels.isa().name(), times.best(), chosen(kernels, *path));
        if is_chosen {
            chosen_s = seconds;
        }
        all.push(json!({"isa": isa, "path": path_name(*path), "s": seconds, "of_limit": least / seconds, "chosen": is_chosen}));
    }
    let others = ways
        .iter()
        .zip(&times)
        .filter(|((kernels, path), _)| !chosen(kernels, *path))
        .map(|((kernels, path), times)| format!("{} {:.2}", name_of(kernels, *path), times.best() / chosen_s));
    let line = format!(
        "M {m:3} {:9.3} ms {:6.1} GB/s {:6.0} Gop/s {:4.0} %; times its time: {} ({rounds} runs)",
        1e3 * chosen_s,
        bytes / chosen_s / 1e9,
        operations / chosen_s / 1e9,
        100.0 * least / chosen_s,
        others.collect::<Vec<_>>().join(", ")
    );
    let ratio = fastest / chosen_s;
    let figures = json!({"ways": all, "bytes": bytes, "operations": operations, "fastest_over_chosen": ratio, "runs": rounds});
    report.row(&format!("{name}/{m}"), &line, figures);
}

fn path_name(path: Path) -> &'static str {
    match path {
        Path::Few => "few",
        Path::Many => "many",
    }
}

/// Room for products of a shape.
struct Runner<'a> {
    pool: &'a Pool,
    workers: Vec<Worker>,
    m: usize,
    x: Vec<f32>,
    y: Vec<f32>,
}

impl<'a> Runner<'a> {
    fn new(pool: &'a Pool, linear: &Linear, m: usize) -> Self {
        let mut workers: Vec<Worker> = (0..pool.threads()).map(|_| Worker::default()).collect();
        for (kernels, path) in tables().flat_map(|kernels| [(kernels, Path::Few), (kernels, Path::Many)]) {
            Needs::of(kernels, std::iter::once(linear)).reserve(&mut workers, path.few_of(m), m).expect("memory for a product");
        }
        let x = Random::new(8).normals(m * linear.n_in(), 1.0);
        Self { pool, workers, m, x, y: vec![0.0; m * linear.n_out()] }
    }

    fn run(&mut self, kernels: &'static Kernels, path: Path, part: &Linear) {
        let few = path.few_of(self.m);
        let ctx = &mut Ctx { kernels, pool: self.pool, workers: &mut self.workers, few, profile: None };
        linear(ctx, Op::Qkv, std::slice::from_ref(part), Source::Ready(&self.x), self.m, &mut self.y);
    }
}

/// All tables and paths against products in f64 of the weights and inputs as they are.
fn check(whole: &Linear, pool: &Pool) -> Result<(), String> {
    let (n_out, m) = CHECKED;
    let (part, weights) = weights::first_outputs(whole, n_out);
    let n_in = part.n_in();
    let mut runner = Runner::new(pool, &part, m);
    let dtype = part.matrix().dtype;
    for (kernels, path) in tables().flat_map(|kernels| [Path::Few, Path::Many].map(|path| (kernels, path))) {
        runner.run(kernels, path, &part);
        let in_tiles = path == Path::Many && kernels.tile_terms(dtype, false).is_some();
        let is_rounded = matches!(dtype, DType::Quant(_)) || in_tiles;
        for (t, x) in runner.x.chunks_exact(n_in).enumerate() {
            for (o, w) in weights.chunks_exact(n_in).enumerate() {
                let (want, bound) = product(w, x, is_rounded);
                let got = f64::from(runner.y[t * n_out + o]);
                let is_near = (got - want).abs() <= bound; // never true of a NaN
                if !is_near {
                    let isa = kernels.isa().name();
                    return Err(format!("{isa}, {path:?}: output {o} of token {t} is {got}, expected {want} within {bound:.1e}"));
                }
            }
        }
    }
    Ok(())
}

/// Σ w·x, and how far a kernel may be from it: f32 sums in any order; where it is rounded, also the rounding of x to 8 bits (half of a
/// 127th and of an 8001st of the largest of its block), or of both to bf16 where a matrix unit takes that.
fn product(w: &[f32], x: &[f32], is_rounded: bool) -> (f64, f64) {
    let unit = f64::from(f32::EPSILON) / 2.0;
    let (mut sum, mut magnitude, mut rounded) = (0.0, 0.0, 0.0);
    for (w, x) in w.chunks(Activations::BLOCK).zip(x.chunks(Activations::BLOCK)) {
        let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        for (w, x) in w.iter().zip(x) {
            let (w, x) = (f64::from(*w), f64::from(*x));
            sum += w * x;
            magnitude += (w * x).abs();
            rounded += w.abs() * (f64::from(largest) * (1.0 / 254.0 + 1.0 / 16002.0) + x.abs() / 128.0);
        }
    }
    let bound = magnitude * unit * w.len() as f64 * 2.0;
    (sum, if is_rounded { bound + rounded } else { bound })
}
