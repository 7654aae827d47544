use crate::format::Float;
use crate::kernels::testing::*;
use crate::kernels::{Kernels, Layout, Matrix};
use crate::threads::ColumnsMut;
use half::{bf16, f16};

struct Case {
    dtype: Float,
    layout: Layout,
    n_out: usize,
    n_in: usize,
    /// As the matrix holds them, in its layout.
    w: Vec<f32>,
    data: Unaligned,
    m: usize,
    x: Vec<f32>,
}

impl Case {
    fn new(dtype: Float, layout: Layout, n_out: usize, n_in: usize, m: usize) -> Self {
        let mut random = Random(1 + (n_out * 1_000_003 + n_in * 1009 + m) as u64);
        Self::of(dtype, layout, n_out, n_in, m, random.vec(n_out * n_in), random.vec(m * n_in))
    }
    fn of(dtype: Float, layout: Layout, n_out: usize, n_in: usize, m: usize, w: Vec<f32>, x: Vec<f32>) -> Self {
        let data = Unaligned::new(dtype, &w);
        let w = w.into_iter().map(|w| held(dtype, w)).collect();
        Self { dtype, layout, n_out, n_in, w, data, m, x }
    }
    fn matrix(&self) -> Matrix<'_> {
        let Self { dtype, layout, n_out, n_in, .. } = *self;
        Matrix { dtype: dtype.into(), layout, n_out, n_in, data: self.data.data() }
    }
    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let mut y = vec![f32::NAN; self.m * self.n_out];
        kernels.matmul(self.matrix(), 0, &self.x, &mut ColumnsMut::whole(&mut y, self.m, self.n_out));
        y
    }
    fn name(&self) -> String {
        let Self { dtype, layout, n_out, n_in, m, .. } = self;
        format!("{dtype:?} {layout:?} n_out {n_out} n_in {n_in} m {m}")
    }
    /// Against f64. A sum of K products in any order, each rounded at most once and each sum once, is off by at most
    /// K·u/(1 − K·u)·Σ|w·x|, and one rounding of a denormal a time.
    fn check(&self, name: &str, kernels: &Kernels) {
        let y = self.run(kernels);
        for t in 0..self.m {
            for c in 0..self.n_out {
                let (mut sum, mut sum_abs) = (0.0, 0.0);
                for k in 0..self.n_in {
                    let w = match self.layout {
                        Layout::OutIn => self.w[c * self.n_in + k],
                        Layout::InOut => self.w[k * self.n_out + c],
                    };
                    let product = f64::from(w) * f64::from(self.x[t * self.n_in + k]);
                    sum += product;
                    sum_abs += product.abs();
                }
                let k = (self.n_in + 1) as f64;
                let bound = k * U / (1.0 - k * U) * sum_abs + k * TINY;
                let y = f64::from(y[t * self.n_out + c]);
                assert!((y - sum).abs() <= bound, "{name}, {}: [{t}, {c}] is {y}, not {sum} ± {bound}", self.name());
            }
        }
    }
}

const LAYOUTS: [Layout; 2] = [Layout::OutIn, Layout::InOut];

fn for_all(f: impl Fn(&str, &Kernels, Float, Layout)) {
    for (name, kernels) in tables() {
        for dtype in DTYPES {
            for layout in LAYOUTS {
                f(name, kernels, dtype, layout);
            }
        }
    }
}

#[test]
fn products_of_every_length() {
    for_all(|name, kernels, dtype, layout| {
        for n_in in (1..=70).chain([127, 128, 129, 172, 2048]) {
            Case::new(dtype, layout, 9, n_in, 2).check(name, kernels);
        }
    });
}

#[test]
fn products_of_every_number_of_rows_and_tokens() {
    for_all(|name, kernels, dtype, layout| {
        for n_out in (1..=17).chain([31, 64, 65, 130, 200]) {
            for m in [1, 2, 3, 4, 5] {
                Case::new(dtype, layout, n_out, 21, m).check(name, kernels);
            }
        }
        for m in 1..=33 {
            Case::new(dtype, layout, 10, 37, m).check(name, kernels);
        }
        // More tokens than stay in cache at once: several token blocks.
        Case::new(dtype, layout, 5, 8192, 21).check(name, kernels);
    });
}

/// The product of many tokens, if `kernels` have it: the outputs `first..` to the columns `cols` of `y: [m, ld]`.
fn many(kernels: &Kernels, case: &Case, first: usize, cols: std::ops::Range<usize>, ld: usize, y: &mut [f32]) -> Option<()> {
    let len = case.n_in.next_multiple_of(kernels.block_inputs()?) * case.m;
    let (mut x, mut scratch) = (vec![f32::NAN; len], vec![f32::NAN; Kernels::MANY_SCRATCH]);
    if case.n_in > 0 {
        kernels.to_blocks(&case.x, case.n_in, 0, &mut x);
    }
    kernels.matmul_many(case.matrix(), first, &x, &mut scratch, &mut ColumnsMut::whole(y, case.m, ld).sub(cols));
    Some(())
}

/// Bit for bit: blocks of inputs summed in order by FMA, then their sums in order.
#[test]
fn many_tokens_in_their_order() {
    for_all(|name, kernels, dtype, layout| {
        let Some(block) = kernels.block_inputs() else { return };
        let n_outs = (1..=18).chain([31, 32, 33, 63, 64, 65, 100, 128, 129, 300]).map(|n| (n, 37, 7));
        let n_ins = (0..=35).chain([block - 1, block, block + 1, 2 * block + 17, 1000]).map(|n| (41, n, 5));
        let tokens = (0..=26).chain([50]).map(|m| (70, 40, m));
        for (n_out, n_in, m) in n_outs.chain(n_ins).chain(tokens) {
            let case = Case::new(dtype, layout, n_out, n_in, m);
            let w = |c: usize, k: usize| match layout {
                Layout::OutIn => case.w[c * n_in + k],
                Layout::InOut => case.w[k * n_out + c],
            };
            let expected = |t: usize, c: usize| {
                let mut sum = 0.0;
                for k in (0..n_in).step_by(block) {
                    let part = (k..n_in.min(k + block)).fold(0.0, |s, k| w(c, k).mul_add(case.x[t * n_in + k], s));
                    sum = if k == 0 { part } else { sum + part };
                }
                sum
            };
            // All of them, and some of them elsewhere.
            for (first, at, ld) in [(0, 0, n_out), (n_out / 3, 5, n_out + 9)] {
                let mut y = vec![-7.0; m * ld];
                many(kernels, &case, first, at..at + n_out - first, ld, &mut y).unwrap();
                for (i, y) in y.iter().enumerate() {
                    let (t, c) = (i / ld, i % ld);
                    let right = if (at..at + n_out - first).contains(&c) { expected(t, first + c - at) } else { -7.0 };
                    assert_eq!(y.to_bits(), right.to_bits(), "{name}, {}: {y}, not {right}, at [{t}, {c}]", case.name());
                }
            }
        }
    });
}

#[test]
fn no_length_gives_zero_and_nothing_is_read() {
    for_all(|_, kernels, dtype, layout| {
        assert_eq!(bits(&Case::new(dtype, layout, 3, 0, 2).run(kernels)), [0; 6]);
        assert!(Case::new(dtype, layout, 0, 5, 2).run(kernels).is_empty());
        assert!(Case::new(dtype, layout, 5, 5, 0).run(kernels).is_empty());
    });
}

/// An output's bits are the same for any number of tokens, and for any cut of the outputs into calls.
#[test]
fn same_bits_for_any_tokens_and_any_cut() {
    for_all(|name, kernels, dtype, layout| {
        for (n_out, n_in, m) in [(61, 70, 33), (17, 172, 7), (203, 64, 5), (9, 20_000, 8)] {
            let case = Case::new(dtype, layout, n_out, n_in, m);
            let whole = case.run(kernels);
            let mut from = 0;
            for tokens in [1, 2, 3, 1, 4, 5, 1, 16] {
                let tokens = tokens.min(m - from);
                let mut y = vec![f32::NAN; tokens * n_out];
                let x = &case.x[from * n_in..][..tokens * n_in];
                kernels.matmul(case.matrix(), 0, x, &mut ColumnsMut::whole(&mut y, tokens, n_out));
                assert_eq!(bits(&y), bits(&whole[from * n_out..][..tokens * n_out]), "{name}, {}: tokens", case.name());
                from += tokens;
            }
            for cut in [1, 2, 3, 7, 8, 16, 33, 64] {
                let mut y = vec![f32::NAN; m * n_out];
                let mut out = ColumnsMut::whole(&mut y, m, n_out);
                for first in (0..n_out).step_by(cut) {
                    let mut part = out.sub(first..n_out.min(first + cut));
                    kernels.matmul(case.matrix(), first, &case.x, &mut part);
                }
                assert_eq!(bits(&y), bits(&whole), "{name}, {}: cut {cut}", case.name());
            }
        }
    });
}

/// A call writes its columns and no others, and may write them elsewhere than at the outputs' own numbers.
#[test]
fn writes_only_its_columns() {
    for_all(|name, kernels, dtype, layout| {
        let case = Case::new(dtype, layout, 40, 19, 3);
        let whole = case.run(kernels);
        for (first, len, at) in [(0, 40, 5), (3, 1, 0), (7, 8, 31), (9, 17, 20), (1, 33, 2)] {
            let ld = 50;
            let mut y = vec![-7.0; 3 * ld];
            let mut out = ColumnsMut::whole(&mut y, 3, ld);
            kernels.matmul(case.matrix(), first, &case.x, &mut out.sub(at..at + len));
            for (i, y) in y.iter().enumerate() {
                let (t, c) = (i / ld, i % ld);
                let expected = if (at..at + len).contains(&c) { whole[t * 40 + first + c - at] } else { -7.0 };
                assert_eq!(y.to_bits(), expected.to_bits(), "{name}, {}: {first} {len} {at}, [{t}, {c}]", case.name());
            }
        }
    });
}

#[test]
fn denormals_and_huge_values_count() {
    for_all(|name, kernels, dtype, layout| {
        let mut random = Random(5);
        // Denormals of the type itself: 2^-20 for f16, 2^-130 for the others.
        let small = if dtype == Float::F16 { -20 } else { -130 };
        for exponent in [small, 14, if dtype == Float::F16 { 15 } else { 60 }] {
            let w = random.vec(11 * 45).into_iter().map(|w| w * 2f32.powi(exponent / 2) * 2f32.powi(exponent - exponent / 2));
            let w = w.collect();
            let x = random.vec(2 * 45);
            Case::of(dtype, layout, 11, 45, 2, w, x).check(name, kernels);
        }
    });
}

#[test]
fn infinity_and_nan_stay_in_their_output() {
    for_all(|name, kernels, dtype, layout| {
        for k in [0, 8, 16, 20] {
            let (n_out, n_in) = (10, 21);
            let mut w = vec![1.0; n_out * n_in];
            let mut put = |c: usize, x: f32| match layout {
                Layout::OutIn => w[c * n_in + k] = x,
                Layout::InOut => w[k * n_out + c] = x,
            };
            put(2, f32::INFINITY);
            put(5, f32::NEG_INFINITY);
            put(9, f32::NAN);
            let y = Case::of(dtype, layout, n_out, n_in, 1, w, vec![1.0; n_in]).run(kernels);
            for (c, y) in y.iter().enumerate() {
                let right = match c {
                    2 => *y == f32::INFINITY,
                    5 => *y == f32::NEG_INFINITY,
                    9 => y.is_nan(),
                    _ => *y == n_in as f32,
                };
                assert!(right, "{name} {dtype:?} {layout:?}: [{c}] is {y}");
            }
        }
    });
}

/// All 65536 values of both 16-bit types, against the `half` crate.
#[test]
fn unpack_is_exact() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for (name, kernels) in tables() {
        for (dtype, to_f32) in
            [(Float::F16, (|x| f16::from_bits(x).to_f32()) as fn(u16) -> f32), (Float::Bf16, |x| bf16::from_bits(x).to_f32())]
        {
            let mut y = vec![0.0; 65536];
            kernels.unpack(dtype.into(), &all, 0, &mut y);
            for (x, y) in (0..=u16::MAX).zip(&y) {
                let expected = to_f32(x);
                let same = expected.to_bits() == y.to_bits() || (expected.is_nan() && y.is_nan());
                assert!(same, "{name} {dtype:?} {x:#06x}: {y}, not {expected}");
            }
        }
    }
}

#[test]
fn unpack_takes_any_part() {
    let x = Random(3).vec(70);
    for (name, kernels) in tables() {
        for dtype in DTYPES {
            let data = Unaligned::new(dtype, &x);
            for first in [0, 1, 5, 40] {
                for n in (0..=20).chain([30]) {
                    let mut y = vec![0.0; n];
                    kernels.unpack(dtype.into(), data.data(), first, &mut y);
                    let expected: Vec<f32> = x[first..first + n].iter().map(|x| held(dtype, *x)).collect();
                    assert_eq!(y, expected, "{name} {dtype:?} {first} {n}");
                }
            }
        }
    }
}

/// Values at, just below and just above every rounding edge: each 16-bit value, the midpoints between neighbours, and one bit
/// to either side of these.
#[test]
fn pack_rounds_to_nearest_even() {
    let mut x = Vec::new();
    for bits in 0..=u16::MAX {
        for base in [f16::from_bits(bits).to_f32().to_bits(), u32::from(bits) << 16] {
            for half in [0, 0x1000, 0x8000] {
                for delta in [0, 1, u32::MAX] {
                    x.push(f32::from_bits(base.wrapping_add(half).wrapping_add(delta)));
                }
            }
        }
    }
    let mut random = Random(9);
    x.extend((0..100_000).map(|_| f32::from_bits(random.bits() as u32)));
    for (name, kernels) in tables() {
        for (dtype, from_f32) in
            [(Float::F16, (|x| f16::from_f32(x).to_bits()) as fn(f32) -> u16), (Float::Bf16, |x| bf16::from_f32(x).to_bits())]
        {
            let mut y = vec![0; 2 * x.len()];
            kernels.pack(dtype, &x, &mut y);
            for (x, y) in x.iter().zip(y.chunks_exact(2)) {
                let (y, expected) = (u16::from_le_bytes([y[0], y[1]]), from_f32(*x));
                let is_nan = |y| held_nan(dtype, y);
                let same = y == expected || (x.is_nan() && is_nan(y) && is_nan(expected));
                assert!(same, "{name} {dtype:?} {x:?} ({:#010x}): {y:#06x}, not {expected:#06x}", x.to_bits());
            }
        }
    }
}

fn held_nan(dtype: Float, y: u16) -> bool {
    if dtype == Float::F16 { f16::from_bits(y).is_nan() } else { bf16::from_bits(y).is_nan() }
}

#[test]
fn pack_takes_any_length() {
    for (name, kernels) in tables() {
        for dtype in DTYPES {
            for n in 0..=40 {
                let x = Random(7).vec(n);
                let mut y = vec![0xAA; n * dtype.size() + 1];
                kernels.pack(dtype, &x, &mut y[1..]);
                assert_eq!(&y[1..], Unaligned::new(dtype, &x).data(), "{name} {dtype:?} {n}");
                assert_eq!(y[0], 0xAA);
            }
        }
    }
}
