//! Attention as the library calls it, over a cache of random keys and values.

use super::tables;
use crate::machine::Limits;
use crate::random::Random;
use crate::report::Report;
use crate::timing::{Times, seconds};
use crate::weights;
use engine::format::DType;
use engine::kernels::{Isa, Kernels, Layout};
use engine::ops::attention::{BLOCK, Blocks, Heads, Plan, attention};
use engine::ops::{Ctx, Path, Worker};
use engine::threads::Pool;
use engine::{KvType, Result};
use serde_json::json;
use std::time::Duration;

/// `tokens` of one sequence behind `depth` others.
#[derive(Clone, Copy)]
pub struct Case {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub kv_type: KvType,
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
        [KvType::F32, KvType::F16, KvType::Bf16, KvType::Q8_0]
            .into_iter()
            .flat_map(move |kv_type| STEPS.map(|(depth, tokens)| Case { heads, kv_heads, head_dim, kv_type, depth, tokens }))
    })
}

impl Case {
    fn row(&self) -> String {
        let Case { heads, kv_heads, head_dim, depth, tokens, .. } = self;
        let dtype = self.kv_type.float().map_or("q8_0".into(), |dtype| weights::row_name(dtype.into(), Layout::OutIn));
        format!("kernels/attention/{dtype}/{heads}x{kv_heads}x{head_dim}/{depth}+{tokens}")
    }
    /// Multiplications and additions of queries with keys and of weights with values.
    pub fn operations(&self) -> f64 {
        let seen: usize = (1..=self.tokens).map(|t| self.depth + t).sum();
        (4 * self.heads * self.head_dim * seen) as f64
    }
    /// Bytes of keys and values.
    fn bytes(&self) -> f64 {
        let (keys, values) = self.kv_type.head_bytes(self.head_dim);
        ((keys + values) / BLOCK * self.kv_heads * (self.depth + self.tokens)) as f64
    }
    /// Operations a second at most: products of 16-bit integers, which keys and values in 8 bits take, are twice those of f32.
    fn arithmetic(&self, limits: &Limits) -> f64 {
        limits.arithmetic(DType::F32).1 * if self.kv_type == KvType::Q8_0 { 2.0 } else { 1.0 }
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
            report.heading(
                "attention, the best of several runs; % of what memory or arithmetic (f32, with 8 bits twice that) allows",
            );
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
            let least = (case.bytes() / limits.bandwidth).max(case.operations() / case.arithmetic(limits));
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
        let ((keys, values), blocks) =
            (case.kv_type.head_bytes(case.head_dim), case.kv_heads * (case.depth + case.tokens).div_ceil(BLOCK));
        let Some(dtype) = case.kv_type.float() else { return Self::in_bytes(case, random, blocks) };
        let pool = weights::pool(random, dtype.into(), 0.5);
        let mut fill = |len: usize| {
            let mut bytes = Vec::with_capacity(len);
            let filled: std::result::Result<(), ()> = weights::each_part(random, dtype.into(), &pool, len, |part| {
                bytes.extend_from_slice(part);
                Ok(())
            });
            filled.expect("memory takes everything");
            bytes
        };
        Self { case: *case, keys: fill(blocks * keys), values: fill(blocks * values) }
    }

    fn in_bytes(case: &Case, random: &mut Random, blocks: usize) -> Self {
        let (key_bytes, value_bytes) = case.kv_type.head_bytes(case.head_dim);
        let (mut keys, mut values) = (vec![0; blocks * key_bytes], vec![0; blocks * value_bytes]);
        for (keys, values) in keys.chunks_exact_mut(key_bytes).zip(values.chunks_exact_mut(value_bytes)) {
            for position in 0..BLOCK {
                plain().put_key(&random.normals(case.head_dim, 0.5), position, keys);
                plain().put_value(&random.normals(case.head_dim, 0.5), position, values);
            }
        }
        Self { case: *case, keys, values }
    }

    fn of(&self, all: &'_ [u8], size: usize, block: usize, kv_head: usize) -> std::ops::Range<usize> {
        let blocks = all.len() / size / self.case.kv_heads;
        let start = (kv_head * blocks + block) * size;
        start..start + size
    }

    /// A block's keys, `[head_dim, BLOCK]`, and values, `[BLOCK, head_dim]`.
    fn floats(&self, block: usize, kv_head: usize) -> [Vec<f64>; 2] {
        let (keys, values) = self.block(0, block, kv_head);
        let dim = self.case.head_dim;
        match self.case.kv_type.float() {
            Some(dtype) => [keys, values].map(|bytes| {
                let mut floats = vec![0.0; bytes.len() / dtype.size()];
                plain().unpack(dtype.into(), bytes, 0, &mut floats);
                floats.into_iter().map(f64::from).collect()
            }),
            // As `engine::kernels::bytes` draws them.
            None => {
                let scale =
                    |bytes: &[u8], i: usize| f64::from(f32::from_le_bytes(bytes[4 * i..][..4].try_into().expect("4 bytes")));
                let (keys, key_scales) = keys.split_at(dim.next_multiple_of(2) * BLOCK);
                let (values, value_scales) = values.split_at(dim * BLOCK);
                let key = |i: usize| {
                    let (d, position) = (i / BLOCK, i % BLOCK);
                    let q = keys[(d / 2 * BLOCK + position) * 2 + d % 2] as i8;
                    f64::from(q) * scale(key_scales, d / 32 * BLOCK + position)
                };
                let value = |i: usize| {
                    let (position, d) = (i / dim, i % dim);
                    f64::from(values[(position / 2 * dim + d) * 2 + position % 2] as i8) * scale(value_scales, position)
                };
                [(0..dim * BLOCK).map(key).collect(), (0..dim * BLOCK).map(value).collect()]
            }
        }
    }

    /// What a query of the first `seen` positions should get, and how far from it f32 may be: e for the scores' roundings, which
    /// change weights by a factor within 1 ± 2e, and a rounding for each value added. With keys and values in 8 bits a query's elements are rounded to 65534ths of
    /// its largest, and weights to those of the largest of their 256.
    fn attend(&self, q: &[f32], kv_head: usize, seen: usize) -> (Vec<f64>, f64) {
        let (dim, unit) = (self.case.head_dim, f64::from(f32::EPSILON) / 2.0);
        let scale = 1.0 / (dim as f64).sqrt();
        let words = if self.case.kv_type == KvType::Q8_0 { 1.0 / 65534.0 } else { 0.0 };
        let e_words = words * scale * q.iter().map(|q| f64::from(q.abs())).fold(0.0, f64::max) * 1.01;
        let (mut scores, mut values, mut e) = (Vec::new(), Vec::new(), 0.0f64);
        for block in 0..seen.div_ceil(BLOCK) {
            let [keys, these] = self.floats(block, kv_head);
            for position in 0..BLOCK.min(seen - block * BLOCK) {
                let products = q.iter().enumerate().map(|(d, q)| f64::from(*q) * keys[d * BLOCK + position] * scale);
                scores.push(products.clone().sum::<f64>());
                e = e.max(products.map(f64::abs).sum::<f64>() * (dim + 3) as f64 * unit);
                let keys = (0..dim).map(|d| keys[d * BLOCK + position].abs()).sum::<f64>();
                e = e.max(e_words * keys);
            }
            values.extend(these);
        }
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let out = (0..dim).map(|d| weights.iter().zip(values.chunks(dim)).map(|(w, v)| w * v[d]).sum::<f64>() / sum).collect();
        let most = values.iter().map(|v| v.abs()).fold(0.0, f64::max);
        (out, (4.0 * e + 2.0 * (seen + 16) as f64 * unit + 256.0 * words) * most)
    }
}

impl Blocks for Cached {
    fn kv_type(&self, _: usize) -> KvType {
        self.case.kv_type
    }
    fn block(&self, _: usize, block: usize, kv_head: usize) -> (&[u8], &[u8]) {
        let (keys, values) = self.case.kv_type.head_bytes(self.case.head_dim);
        (&self.keys[self.of(&self.keys, keys, block, kv_head)], &self.values[self.of(&self.values, values, block, kv_head)])
    }
}

fn plain() -> &'static Kernels {
    tables().next().expect("the plain table")
}
