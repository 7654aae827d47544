use crate::format::Float;
use crate::kernels::testing::*;
use crate::kernels::{Kernels, Softmax};

struct Case {
    kv: Float,
    softcap: Option<f32>,
    dim: usize,
    n: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    fn new(kv: Float, dim: usize, n: usize, heads: usize, size: f32) -> Self {
        let mut random = Random((dim * 1000 + n) as u64);
        let q = random.vec(heads * dim).into_iter().map(|q| q * size).collect();
        let mut held = || random.vec(n * dim).into_iter().map(|x| held(kv, x)).collect();
        Self { kv, softcap: None, dim, n, q, k: held(), v: held() }
    }
    /// In blocks of `block` positions, `group` heads at a time; states and unnormalised outputs.
    fn run(&self, kernels: &Kernels, block: usize, group: usize) -> (Vec<Softmax>, Vec<f32>) {
        let Self { kv, softcap, dim, n, .. } = *self;
        let (k, v) = (Unaligned::new(kv, &self.k), Unaligned::new(kv, &self.v));
        let heads = self.q.len() / dim;
        let mut states = vec![Softmax::EMPTY; heads];
        let mut acc = vec![f32::NAN; heads * dim];
        let mut scores = vec![f32::NAN; group * block];
        for h in (0..heads).step_by(group) {
            for from in (0..n).step_by(block) {
                let len = block.min(n - from);
                let part = from * dim * kv.size()..(from + len) * dim * kv.size();
                let (k, v) = (&k.data()[part.clone()], &v.data()[part]);
                let q = &self.q[h * dim..(h + group) * dim];
                let acc = &mut acc[h * dim..(h + group) * dim];
                kernels.attend(kv, softcap, q, k, v, len, &mut scores, &mut states[h..h + group], acc);
            }
        }
        (states, acc)
    }
    /// Against f64. A score s is off by (dim + 1)·u·Σ|q·k|, s − max by one rounding more, each exp by 2u; every block rescales what
    /// came before by another such exp; a soft cap, which is flatter than its argument, adds 7 roundings of the cap; the weighted sums add (n + 1)·u. Numerator and denominator are both off so.
    fn check(&self, name: &str, kernels: &Kernels, block: usize) {
        let (states, acc) = self.run(kernels, block, 1);
        let Self { dim, n, .. } = *self;
        for (h, q) in self.q.chunks(dim).enumerate() {
            let products = |p: usize| q.iter().zip(&self.k[p * dim..]).map(|(q, k)| f64::from(*q) * f64::from(*k));
            let cap = self.softcap.map_or(f64::INFINITY, f64::from);
            let capped = |s: f64| if cap.is_finite() { cap * (s / cap).tanh() } else { s };
            let scores: Vec<f64> = (0..n).map(|p| capped(products(p).sum())).collect();
            let size = (0..n).map(|p| products(p).map(f64::abs).sum()).fold(0.0, f64::max);
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let blocks = n.div_ceil(block) as f64;
            let exponent = (dim + 1) as f64 * size + 2.0 * size + if cap.is_finite() { 7.0 * cap } else { 0.0 };
            let relative = 2.0 * U * (2.0 * exponent * 2.0 + 3.0 * (blocks + 1.0) + (n + 1) as f64) * 1.01;
            for d in 0..dim {
                let (mut expected, mut bound) = (0.0, 0.0);
                for (p, w) in weights.iter().enumerate() {
                    let v = f64::from(self.v[p * dim + d]);
                    expected += w * v / sum;
                    bound += w * v.abs() / sum * relative;
                }
                let y = f64::from(acc[h * dim + d] / states[h].sum);
                assert!(
                    (y - expected).abs() <= bound + TINY,
                    "{name} {:?} n {n} dim {dim} block {block}: {y}, not {expected} ± {bound}",
                    self.kv
                );
            }
        }
    }
}

#[test]
fn agrees_with_softmax() {
    for (name, kernels) in tables() {
        for kv in DTYPES {
            for (dim, n) in [(1, 1), (4, 3), (7, 17), (16, 33), (48, 70), (64, 100), (80, 65), (128, 256)] {
                for block in [1, 16, 64, 256] {
                    Case::new(kv, dim, n, 2, 1.0).check(name, kernels, block);
                }
            }
        }
    }
}

#[test]
fn scores_far_apart_do_not_overflow() {
    for (name, kernels) in tables() {
        for size in [30.0, 1000.0] {
            let case = Case::new(Float::F32, 16, 40, 1, size);
            let (states, acc) = case.run(kernels, 8, 1);
            assert!(states[0].sum >= 1.0 && states[0].sum.is_finite(), "{name}: {:?}", states[0]);
            assert!(acc.iter().all(|a| a.is_finite()), "{name}");
        }
        Case::new(Float::F32, 16, 40, 1, 30.0).check(name, kernels, 8);
    }
}

#[test]
fn a_soft_cap_bounds_the_scores() {
    for (name, kernels) in tables() {
        for cap in [0.5, 3.0, 50.0] {
            Case { softcap: Some(cap), ..Case::new(Float::F32, 16, 70, 2, 5.0) }.check(name, kernels, 64);
        }
    }
}

/// The heads that share K and V get the same bits together as alone.
#[test]
fn a_group_has_the_bits_of_its_heads() {
    for (name, kernels) in tables() {
        for kv in DTYPES {
            for group in [2, 3, 4, 6] {
                let case = Case::new(kv, 20, 37, 12, 1.0);
                let (alone, together) = (case.run(kernels, 16, 1), case.run(kernels, 16, group));
                assert_eq!(alone.0, together.0, "{name} {kv:?} {group}");
                assert_eq!(bits(&alone.1), bits(&together.1), "{name} {kv:?} {group}");
            }
        }
    }
}

/// Scores of −∞ (masked positions) weigh nothing, and a block of nothing else changes nothing.
#[test]
fn masked_positions_weigh_nothing() {
    for (name, kernels) in tables() {
        let (k, v) = ([f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY], [5.0, 3.0, 7.0]);
        let (k, v) = (Unaligned::new(Float::F32, &k), Unaligned::new(Float::F32, &v));
        let (mut state, mut acc, mut scores) = (Softmax::EMPTY, [f32::NAN], [0.0; 3]);
        kernels.attend(
            Float::F32,
            None,
            &[1.0],
            &k.data()[..4],
            &v.data()[..4],
            1,
            &mut scores,
            std::slice::from_mut(&mut state),
            &mut acc,
        );
        assert_eq!((state, acc), (Softmax::EMPTY, [0.0]), "{name}");
        kernels.attend(Float::F32, None, &[1.0], k.data(), v.data(), 3, &mut scores, std::slice::from_mut(&mut state), &mut acc);
        assert_eq!((state, acc), (Softmax { max: 2.0, sum: 1.0 }, [3.0]), "{name}");
        kernels.attend(Float::F32, None, &[1.0], &[], &[], 0, &mut scores, std::slice::from_mut(&mut state), &mut acc);
        assert_eq!((state, acc), (Softmax { max: 2.0, sum: 1.0 }, [3.0]), "{name}");
    }
}
