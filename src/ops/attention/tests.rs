use super::*;
use crate::kernels::testing::U;
use crate::kernels::{Isa, bytes, bytes_of};
use crate::threads::Pool;

const HEADS: Heads = Heads { n_heads: 6, n_kv_heads: 2, head_dim: 20, scale: 0.3, window: usize::MAX, softcap: None };
/// Positions beyond those of the sequence, which nothing may read.
const UNUSED: f32 = f32::NAN;

/// Keys and values of sequences of some lengths.
struct Cached {
    kv_type: KvType,
    lens: Vec<usize>,
    /// Of each sequence: `[positions][k | v][n_kv_heads][head_dim]`.
    rows: Vec<Vec<f32>>,
    /// Of each sequence, block and kv head: keys, values.
    blocks: Vec<Vec<[Vec<u8>; 2]>>,
}

impl Cached {
    fn new(kv_type: KvType, lens: &[usize]) -> Self {
        let mut made = Self { kv_type, lens: lens.to_vec(), rows: Vec::new(), blocks: Vec::new() };
        for (i, &len) in lens.iter().enumerate() {
            let width = 2 * HEADS.n_kv_heads * HEADS.head_dim;
            let mut rows = noise(i as u64 + 1, len * width);
            if kv_type == KvType::Q8_0 {
                rows.chunks_exact_mut(HEADS.head_dim).for_each(to_steps);
            }
            let block = |i: usize| {
                let (first, head) = (i / HEADS.n_kv_heads * BLOCK, i % HEADS.n_kv_heads);
                let at = |p: usize, part: usize, d: usize| {
                    let element = p * width + (part * HEADS.n_kv_heads + head) * HEADS.head_dim + d;
                    rows.get(element).copied().unwrap_or(UNUSED)
                };
                if kv_type == KvType::Q8_0 {
                    return in_bytes(|p, part| (0..HEADS.head_dim).map(|d| at(first + p, part, d)).collect());
                }
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                (0..HEADS.head_dim).for_each(|d| keys.extend((first..first + BLOCK).map(|p| at(p, 0, d))));
                (first..first + BLOCK).for_each(|p| values.extend((0..HEADS.head_dim).map(|d| at(p, 1, d))));
                [bytes_of(&keys).to_vec(), bytes_of(&values).to_vec()]
            };
            made.blocks.push((0..len.div_ceil(BLOCK) * HEADS.n_kv_heads).map(block).collect());
            made.rows.push(rows);
        }
        made
    }

    /// Attention in f64, of a query at `position`.
    fn expected(&self, heads: Heads, sequence: usize, position: usize, head: usize, q: &[f32]) -> Vec<f64> {
        let (dim, kv_head) = (heads.head_dim, head / heads.group());
        let row = |p: usize, part: usize| {
            let width = 2 * heads.n_kv_heads * dim;
            &self.rows[sequence][p * width + (part * heads.n_kv_heads + kv_head) * dim..][..dim]
        };
        let seen = (position + 1).saturating_sub(heads.window)..position + 1;
        let scores: Vec<f64> = seen
            .clone()
            .map(|p| {
                let dot: f64 = q.iter().zip(row(p, 0)).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                let s = dot * f64::from(heads.scale);
                heads.softcap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh())
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        let of = |d: usize| seen.clone().zip(&scores).map(|(p, s)| (s - max).exp() * f64::from(row(p, 1)[d])).sum::<f64>() / sum;
        (0..dim).map(of).collect()
    }
}

/// Rounds a row to what 8 bits hold exactly.
fn to_steps(row: &mut [f32]) {
    let largest = row.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
    row.iter_mut().for_each(|x| *x = (*x / largest * 127.0).round_ties_even() * (largest / 127.0));
}

/// A head's block of `row(position, 0 for keys, 1 for values)`.
fn in_bytes(row: impl Fn(usize, usize) -> Vec<f32>) -> [Vec<u8>; 2] {
    let kernels = Kernels::select(Some(Isa::Scalar)).unwrap();
    let (mut keys, mut values) = (vec![0; bytes::key_bytes(HEADS.head_dim)], vec![0; bytes::value_bytes(HEADS.head_dim)]);
    for position in 0..BLOCK {
        kernels.put_key(&row(position, 0), position, &mut keys);
        kernels.put_value(&row(position, 1), position, &mut values);
    }
    [keys, values]
}

impl Blocks for Cached {
    fn kv_type(&self, _: usize) -> KvType {
        self.kv_type
    }
    fn block(&self, sequence: usize, block: usize, kv_head: usize) -> (&[u8], &[u8]) {
        let [keys, values] = &self.blocks[sequence][block * HEADS.n_kv_heads + kv_head];
        (keys, values)
    }
}

/// In −1..1.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut random = crate::kernels::testing::Random(seed);
    random.vec(n)
}

fn kernels() -> impl Iterator<Item = &'static Kernels> {
    Isa::ALL.into_iter().filter(|isa| isa.available()).map(|isa| Kernels::select(Some(isa)).unwrap())
}

/// The last `n` tokens of each sequence of `kv`, whose queries are the last rows of each of `q`.
fn run(kernels: &'static Kernels, threads: usize, heads: Heads, kv: &Cached, q: &[Vec<f32>], n: &[usize]) -> Vec<Vec<f32>> {
    let width = heads.n_heads * heads.head_dim;
    let pool = Pool::new(threads).unwrap();
    let mut workers: Vec<Worker> = (0..threads).map(|_| Worker::default()).collect();
    let mut plan = Plan::default();
    let sequences = kv.lens.iter().zip(n).map(|(len, n)| (len - n, *n));
    plan.make(heads, threads, sequences.clone()).unwrap();
    workers.iter_mut().for_each(|worker| heads.reserve(worker, n.iter().sum()).unwrap());
    let q: Vec<f32> = q.iter().zip(n).flat_map(|(q, n)| q[q.len() - n * width..].iter().copied()).collect();
    let mut out = vec![f32::NAN; q.len()];
    let ctx = &mut Ctx { kernels, pool: &pool, workers: &mut workers, few: usize::MAX, profile: None };
    attention(ctx, &mut plan, heads, &q, width, kv, &mut out);
    let mut rest = &out[..];
    n.iter().map(|n| rest.split_off(..n * width).unwrap().to_vec()).collect()
}

fn queries(kv: &Cached, heads: Heads) -> Vec<Vec<f32>> {
    let width = heads.n_heads * heads.head_dim;
    kv.lens.iter().enumerate().map(|(i, len)| noise(100 + i as u64, len * width)).collect()
}

fn variants() -> [Heads; 4] {
    let windowed = |window| Heads { window, ..HEADS };
    [HEADS, windowed(20), windowed(300), Heads { softcap: Some(2.0), ..windowed(257) }]
}

/// Of 20 products below 1, a score is off by 2·21·u·20·0.3, its weight by twice that and a few units more; the weighted sum and its
/// divisor, of up to 700 terms, by 700 units each: below 2000·u for values below 1, with u = 2^-24.
#[test]
fn spans_agree_with_softmax() {
    agree_with_softmax(KvType::F32, 2000.0 * U);
}

/// With keys and values that 8 bits hold, what is lost besides comes from queries and weights in 16: of a score 20·0.3/65534, of its weight as much of itself,
/// and so of the sum; and each of a span's 256 weights is off by a 65534th of the largest, which is at most the sum.
#[test]
fn spans_of_8_bits_agree_with_softmax() {
    agree_with_softmax(KvType::Q8_0, 2000.0 * U + (2.0 * 6.0 + 256.0) / 65534.0);
}

fn agree_with_softmax(kv_type: KvType, bound: f64) {
    let kv = Cached::new(kv_type, &[700]);
    for kernels in kernels() {
        for heads in variants() {
            let q = queries(&kv, heads);
            let found = run(kernels, 2, heads, &kv, &q, &[700]).remove(0);
            for position in [0, 1, 63, 64, 255, 256, 257, 300, 511, 512, 699] {
                for head in 0..heads.n_heads {
                    let at = (position * heads.n_heads + head) * heads.head_dim;
                    let expected = kv.expected(heads, 0, position, head, &q[0][at..][..heads.head_dim]);
                    for (y, expected) in found[at..].iter().zip(expected) {
                        let off = (f64::from(*y) - expected).abs();
                        assert!(off < bound, "{:?}, position {position}: {y}, not {expected}", kernels.isa());
                    }
                }
            }
        }
    }
}

/// One token or many, alone or with other sequences, by tiles or by spans on any number of threads.
#[test]
fn the_same_bits_however_the_work_is_cut() {
    for kv_type in [KvType::F32, KvType::Q8_0] {
        let kv = Cached::new(kv_type, &[600, 37, 300]);
        for kernels in kernels() {
            for heads in variants() {
                same_bits(kernels, heads, &kv);
            }
        }
    }
}

fn same_bits(kernels: &'static Kernels, heads: Heads, kv: &Cached) {
    let q = queries(kv, heads);
    let row = heads.n_heads * heads.head_dim;
    let all = run(kernels, 1, heads, kv, &q, &[600, 37, 300]);
    for threads in [1, 2, 3, 8] {
        for n in [[1, 1, 1], [5, 1, 16], [70, 37, 1], [300, 20, 45]] {
            let found = run(kernels, threads, heads, kv, &q, &n);
            for ((found, all), n) in found.iter().zip(&all).zip(n) {
                let same = found.iter().zip(&all[all.len() - n * row..]).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{:?}, {threads} threads, {n} tokens, window {}", kernels.isa(), heads.window);
            }
        }
        let alone = Cached { kv_type: kv.kv_type, lens: vec![600], rows: Vec::new(), blocks: vec![kv.blocks[0].clone()] };
        let found = run(kernels, threads, heads, &alone, &q[..1], &[1]).remove(0);
        let same = found.iter().zip(&all[0][599 * row..]).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{:?}, {threads} threads, alone, window {}", kernels.isa(), heads.window);
    }
}
