//! Attention as the library calls it, over a cache of random keys and values.

use super::tables;
use crate::machine::Limits;
use crate::random::Random;
use crate::report::Report;
use crate::timing::{Times, seconds};
use crate::weights;
use engine::Result;
use engine::format::{DType, Float};
use engine::kernels::{Isa, Kernels, Layout};
use engine::ops::attention::{BLOCK, Blocks, Heads, Plan, attention};
use engine::ops::{Ctx, Path, Worker};
use engine::threads::Pool;
use serde_json::json;
use std::time::Duration;

/// `tokens` of one sequence behind `depth` others.
#[derive(Clone, Copy)]
pub struct Case {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub dtype: Float,
    pub depth: usize,
    pub tokens: usize,
}

/// Heads, kv heads, elements of a head: GPT-2, TinyLlama, OLMo-2 1B, Llama-2 7B.
const SHAPES: [(usize, usize, usize); 4] = [(12, 12, 64), (32, 4, 64), (16, 16, 128), (32, 32, 128)];
/// Depth and tokens: decode, and the end of a prompt.
const STEPS: [(usize, usize); 3] = [(512, 1), (4096, 1), (512, 512)];

fn cases(quick: bool) -> impl Iterator<Item = Case> {
    let shapes = if quick { &SHAPES[1..2] } else { &SHAPES };
    shapes.iter().flat_map(|&(heads, kv_heads, head_dim)| {
        [Float::F32, Float::F16, Float::Bf16]
            .into_iter()
            .flat_map(move |dtype| STEPS.map(|(depth, tokens)| Case { heads, kv_heads, head_dim, dtype, depth, tokens }))
    })
}

impl Case {
    fn row(&self) -> String {
        let Case { heads, kv_heads, head_dim, depth, tokens, .. } = self;
        let dtype = weights::row_name(self.dtype.into(), Layout::OutIn);
        format!("kernels/attention/{dtype}/{heads}x{kv_heads}x{head_dim}/{depth}+{tokens}")
    }
    /// Multiplications and additions of queries with keys and of weights with values.
    pub fn operations(&self) -> f64 {
        let seen: usize = (1..=self.tokens).map(|t| self.depth + t).sum();
        (4 * self.heads * self.head_dim * seen) as f64
    }
    /// Bytes of keys and values.
    fn bytes(&self) -> f64 {
        (2 * self.kv_heads * self.head_dim * (self.depth + self.tokens) * self.dtype.size()) as f64
    }
}

pub fn run(report: &mut Report<'_>, pool: &Pool) -> std::result::Result<(), String> {
    let mut limits = None;
    for case in cases(report.options.quick) {
        let row = case.row();
        if !report.wants(&row) {
            continue;
        }
        let limits = limits.get_or_insert_with(|| {
            report.heading("attention, the best of several runs; % of what memory or arithmetic (f32) allows");
            Limits::now(pool.threads(), true)
        });
        let mut room = Room::new(&case, pool).map_err(|e| e.to_string())?;
        let is_slow = |kernels: &Kernels| kernels.isa() == Isa::Scalar && case.operations() > 1e8;
        let (mut cells, mut all) = (Vec::new(), Vec::new());
        for kernels in tables() {
            room.check(kernels).map_err(|e| format!("{row}: {e}"))?;
            if is_slow(kernels) {
                continue;
            }
            let budget = Duration::from_millis(report.options.pick(500, 100));
            let times = Times::of(2000, budget, || Ok::<_, ()>(seconds(|| room.run(kernels)))).unwrap_or_default();
            let best = times.best();
            let least = (case.bytes() / limits.bandwidth).max(case.operations() / limits.arithmetic(DType::F32).1);
            let rates = (case.bytes() / best / 1e9, case.operations() / best / 1e9);
            let isa = kernels.isa().name();
            cells.push(format!(
                "{isa} {:.3} ms {:.1} GB/s {:.0} Gop/s {:.0} %",
                1e3 * best,
                rates.0,
                rates.1,
                100.0 * least / best
            ));
            all.push(json!({"isa": isa, "s": best, "of_limit": least / best, "runs": times.runs()}));
        }
        let name = row.trim_start_matches("kernels/attention/");
        let figures = json!({"ways": all, "bytes": case.bytes(), "operations": case.operations()});
        report.row(&row, &format!("{name:28} {}", cells.join("; ")), figures);
    }
    Ok(())
}

/// A cache, queries, and room to attend.
pub struct Room<'a> {
    case: Case,
    pool: &'a Pool,
    workers: Vec<Worker>,
    plan: Plan,
    kv: Cached,
    /// `[tokens, heads * head_dim]`, as `out`.
    q: Vec<f32>,
    out: Vec<f32>,
}

impl<'a> Room<'a> {
    pub fn new(case: &Case, pool: &'a Pool) -> Result<Self> {
        let (heads, width) = (Self::heads(case), case.heads * case.head_dim);
        let mut workers: Vec<Worker> = (0..pool.threads()).map(|_| Worker::default()).collect();
        workers.iter_mut().try_for_each(|worker| heads.reserve(worker, case.tokens))?;
        let mut plan = Plan::default();
        plan.make(heads, pool.threads(), [(case.depth, case.tokens)].into_iter())?;
        let mut random = Random::new(15);
        let q = random.normals(case.tokens * width, 1.0);
        Ok(Self { case: *case, pool, workers, plan, kv: Cached::new(case, &mut random), out: vec![0.0; q.len()], q })
    }

    fn heads(case: &Case) -> Heads {
        let Case { heads: n_heads, kv_heads: n_kv_heads, head_dim, .. } = *case;
        Heads { n_heads, n_kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt(), window: usize::MAX, softcap: None }
    }

    pub fn run(&mut self, kernels: &'static Kernels) {
        let few = Path::for_tokens(self.case.tokens).few_of(self.case.tokens);
        let ctx = &mut Ctx { kernels, pool: self.pool, workers: &mut self.workers, few, profile: None };
        let (heads, width) = (Self::heads(&self.case), self.case.heads * self.case.head_dim);
        attention(ctx, &mut self.plan, heads, &self.q, width, &self.kv, &mut self.out);
    }

    /// The first and the last token's heads against the definition in f64.
    fn check(&mut self, kernels: &'static Kernels) -> std::result::Result<(), String> {
        self.run(kernels);
        let Case { heads, kv_heads, head_dim, depth, tokens, .. } = self.case;
        for token in [0, tokens - 1] {
            for head in [0, heads / 2, heads - 1] {
                let at = (token * heads + head) * head_dim;
                let kv_head = head / (heads / kv_heads);
                let (want, bound) = self.kv.attend(&self.q[at..at + head_dim], kv_head, depth + token + 1);
                for (got, want) in self.out[at..at + head_dim].iter().zip(&want) {
                    let is_near = (f64::from(*got) - want).abs() <= bound; // never true of a NaN
                    if !is_near {
                        let isa = kernels.isa().name();
                        return Err(format!("{isa}: head {head} of token {token} has {got}, expected {want} within {bound:.1e}"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Random keys and values in blocks.
struct Cached {
    case: Case,
    /// Of each kv head and block, `[head_dim, BLOCK]`.
    keys: Vec<u8>,
    /// `[BLOCK, head_dim]`.
    values: Vec<u8>,
}

impl Cached {
    fn new(case: &Case, random: &mut Random) -> Self {
        let blocks = (case.depth + case.tokens).div_ceil(BLOCK);
        let len = case.kv_heads * blocks * BLOCK * case.head_dim * case.dtype.size();
        let pool = weights::pool(random, case.dtype.into(), 0.5);
        let mut fill = || {
            let mut bytes = Vec::with_capacity(len);
            let filled: std::result::Result<(), ()> = weights::each_part(random, case.dtype.into(), &pool, len, |part| {
                bytes.extend_from_slice(part);
                Ok(())
            });
            filled.expect("memory takes everything");
            bytes
        };
        Self { case: *case, keys: fill(), values: fill() }
    }

    fn of(&self, all: &'_ [u8], block: usize, kv_head: usize) -> std::ops::Range<usize> {
        let size = BLOCK * self.case.head_dim * self.case.dtype.size();
        let blocks = all.len() / size / self.case.kv_heads;
        let start = (kv_head * blocks + block) * size;
        start..start + size
    }

    fn floats(&self, bytes: &[u8]) -> Vec<f64> {
        let mut floats = vec![0.0; bytes.len() / self.case.dtype.size()];
        tables().next().expect("the plain table").unpack(self.case.dtype.into(), bytes, 0, &mut floats);
        floats.into_iter().map(f64::from).collect()
    }

    /// What a query of the first `seen` positions should get, and how far from it f32 may be: e for the scores' roundings, which
    /// change weights by a factor within 1 ± 2e, and a rounding for each value added.
    fn attend(&self, q: &[f32], kv_head: usize, seen: usize) -> (Vec<f64>, f64) {
        let (dim, unit) = (self.case.head_dim, f64::from(f32::EPSILON) / 2.0);
        let scale = 1.0 / (dim as f64).sqrt();
        let (mut scores, mut values, mut e) = (Vec::new(), Vec::new(), 0.0f64);
        for block in 0..seen.div_ceil(BLOCK) {
            let (keys, these) = self.block(0, block, kv_head);
            let keys = self.floats(keys);
            for position in 0..BLOCK.min(seen - block * BLOCK) {
                let products = q.iter().enumerate().map(|(d, q)| f64::from(*q) * keys[d * BLOCK + position] * scale);
                scores.push(products.clone().sum::<f64>());
                e = e.max(products.map(f64::abs).sum::<f64>() * (dim + 3) as f64 * unit);
            }
            values.extend(self.floats(these));
        }
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let out = (0..dim).map(|d| weights.iter().zip(values.chunks(dim)).map(|(w, v)| w * v[d]).sum::<f64>() / sum).collect();
        let most = values.iter().map(|v| v.abs()).fold(0.0, f64::max);
        (out, (4.0 * e + 2.0 * (seen + 16) as f64 * unit) * most)
    }
}

impl Blocks for Cached {
    fn dtype(&self, _: usize) -> Float {
        self.case.dtype
    }
    fn block(&self, _: usize, block: usize, kv_head: usize) -> (&[u8], &[u8]) {
        (&self.keys[self.of(&self.keys, block, kv_head)], &self.values[self.of(&self.values, block, kv_head)])
    }
}
