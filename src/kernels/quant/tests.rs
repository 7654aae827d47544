use super::activations::split;
use super::{BLOCK, f16_at};
use crate::format::{DType, Quant};
use crate::kernels::testing::*;
use crate::kernels::{Activations, Isa, Kernels, Layout, Matrix, Scaling, table};
use crate::threads::ColumnsMut;
use half::f16;
use std::path::Path;

/// Every block type, its bytes, and the elements that the `gguf` package makes of them
/// (tests/golden/quant/make_quant.py).
fn golden() -> impl Iterator<Item = (DType, Vec<u8>, Vec<f32>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/quant");
    Quant::ALL.into_iter().map(move |quant| {
        let dtype = DType::Quant(quant);
        let read = |ending| std::fs::read(folder.join(format!("{}.{ending}", dtype.name()))).unwrap();
        let values: Vec<f32> = read("f32").chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let blocks = read("blocks");
        assert_eq!(dtype.bytes(values.len()), Some(blocks.len()));
        (dtype, blocks, values)
    })
}

#[test]
fn unpack_is_exact() {
    for (name, kernels) in tables() {
        for (dtype, blocks, values) in golden() {
            let mut got = vec![f32::NAN; values.len()];
            kernels.unpack(dtype, &blocks, 0, &mut got);
            for (i, (got, want)) in got.iter().zip(&values).enumerate() {
                assert_eq!(got.to_bits(), want.to_bits(), "{name} {} [{i}]: {got}, not {want}", dtype.name());
            }
        }
    }
}

#[test]
fn unpack_takes_any_blocks() {
    for (name, kernels) in tables() {
        for (dtype, blocks, values) in golden() {
            let n = dtype.block_elements();
            for range in [n..2 * n, 2 * n..5 * n, 3 * n..3 * n] {
                let mut got = vec![f32::NAN; range.len()];
                kernels.unpack(dtype, &blocks, range.start, &mut got);
                assert_eq!(bits(&got), bits(&values[range]), "{name} {}", dtype.name());
            }
        }
    }
}

#[test]
fn unpack_survives_any_bytes() {
    for (_, kernels) in tables() {
        for dtype in Quant::ALL.map(DType::Quant) {
            for byte in [0, 0x7c, 0x7f, 0xfc, 0xff] {
                let mut got = vec![0.0; 256];
                kernels.unpack(dtype, &vec![byte; dtype.bytes(256).unwrap()], 0, &mut got);
            }
        }
    }
}

/// Random blocks whose binary16 scales are of a usual size.
pub(in crate::kernels) fn random_blocks(random: &mut Random, quant: Quant, elements: usize) -> Vec<u8> {
    let dtype = DType::Quant(quant);
    let mut blocks: Vec<u8> = (0..dtype.bytes(elements).unwrap()).map(|_| random.bits() as u8).collect();
    for block in blocks.chunks_exact_mut(dtype.block_bytes()) {
        for at in halves(quant) {
            let scale = f16::from_f32(random.f32() * 0.01);
            block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        if quant == Quant::Mxfp4 {
            block[0] = 118 + block[0] % 8;
        }
    }
    blocks
}

/// Where a block's binary16 numbers are.
fn halves(quant: Quant) -> &'static [usize] {
    match quant {
        Quant::Q4_0 | Quant::Q5_0 | Quant::Q8_0 | Quant::Iq4Nl | Quant::Iq4Xs => &[0],
        Quant::Q4_1 | Quant::Q5_1 | Quant::Q4K | Quant::Q5K => &[0, 2],
        Quant::Q2K => &[80, 82],
        Quant::Q3K => &[108],
        Quant::Q6K => &[208],
        Quant::Tq1_0 => &[52],
        Quant::Tq2_0 => &[64],
        Quant::Mxfp4 => &[],
    }
}

/// The largest b of an element a − b of a block.
fn offset(quant: Quant, block: &[u8]) -> f64 {
    let half = |i: usize| halves(quant).get(i).map_or(0.0, |at| f64::from(f16_at(block, *at)).abs());
    match quant {
        Quant::Q4_0 => 8.0 * half(0),
        Quant::Q5_0 => 16.0 * half(0),
        Quant::Q4_1 | Quant::Q5_1 => half(1),
        Quant::Q2K => 15.0 * half(1),
        Quant::Q4K | Quant::Q5K => 63.0 * half(1),
        Quant::Q3K => 32.0 * 4.0 * half(0),
        Quant::Q6K => 128.0 * 32.0 * half(0),
        Quant::Tq1_0 | Quant::Tq2_0 => half(0),
        Quant::Q8_0 | Quant::Iq4Nl | Quant::Iq4Xs | Quant::Mxfp4 => 0.0,
    }
}

/// More tokens than the product of a few is for.
const MANY: usize = 20;
/// Tokens for each of the three products.
const TOKENS: [usize; 3] = [1, 3, MANY];

/// `x: [n_tokens, n_in]` in 8 bits.
fn quantised(kernels: &Kernels, x: &[f32], n_in: usize, scaling: Scaling) -> Vec<Activations> {
    let (blocks, n_tokens) = (n_in.div_ceil(BLOCK), x.len() / n_in);
    let mut out = vec![Activations::ZERO; blocks * n_tokens];
    kernels.quantise(x, n_in, scaling, &mut ColumnsMut::whole(&mut out, blocks, n_tokens));
    out
}

struct Case {
    quant: Quant,
    n_out: usize,
    n_in: usize,
    m: usize,
    blocks: Unaligned,
    x: Vec<f32>,
}

impl Case {
    fn new(quant: Quant, n_out: usize, n_in: usize, m: usize) -> Self {
        let mut random = Random(1 + (n_out * 1_000_003 + n_in * 1009 + m) as u64);
        let blocks = random_blocks(&mut random, quant, n_out * n_in);
        Self::of(quant, n_out, n_in, m, &blocks, random.vec(m * n_in))
    }
    fn of(quant: Quant, n_out: usize, n_in: usize, m: usize, blocks: &[u8], x: Vec<f32>) -> Self {
        Self { quant, n_out, n_in, m, blocks: Unaligned::of(blocks), x }
    }
    fn matrix(&self) -> Matrix<'_> {
        let Self { quant, n_out, n_in, .. } = *self;
        Matrix { dtype: quant.into(), layout: Layout::OutIn, n_out, n_in, data: self.blocks.data() }
    }
    fn scaling(&self) -> Scaling {
        Scaling::for_types(std::iter::once(self.quant.into()))
    }
    fn activations(&self, kernels: &Kernels) -> Vec<Activations> {
        quantised(kernels, &self.x, self.n_in, self.scaling())
    }
    /// The outputs from `first` on that fill `y: [m, n]`.
    fn run_part(&self, kernels: &Kernels, first: usize, y: &mut [f32]) {
        let n = y.len() / self.m;
        let mut scratch = vec![f32::NAN; Kernels::scratch_len(n, self.m)];
        let mut y = ColumnsMut::whole(y, self.m, n);
        kernels.matmul_quantised(self.matrix(), first, &self.activations(kernels), &mut scratch, &mut y);
    }
    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let mut y = vec![f32::NAN; self.m * self.n_out];
        self.run_part(kernels, 0, &mut y);
        y
    }
    fn name(&self) -> String {
        let Self { quant, n_out, n_in, m, .. } = self;
        format!("{quant:?} n_out {n_out} n_in {n_in} m {m}")
    }
    /// Against f64: the weights by `unpack`, the activations as they were rounded to 8 bits.
    ///
    /// A weight is a − b, so |a| + |b| ≤ |w| + 2|b|. On its way to the output a product a·x or b·x is rounded at most once in
    /// `unpack`'s scale, twice there after, thrice in the scales here, twice where the sum of its integers becomes f32 and is
    /// scaled, and in each sum it is part of: at most three a group of 256, or four of its eight parts and one. All errors together are at most
    /// n·u/(1 − n·u) of the sum of magnitudes for n roundings.
    fn check(&self, name: &str, kernels: &Kernels) {
        let (y, x) = (self.run(kernels), self.activations(kernels));
        let dtype = DType::Quant(self.quant);
        let (blocks, block) = (self.blocks.data(), dtype.block_elements());
        let mut w = vec![0.0; self.n_out * self.n_in];
        table::of(Isa::Scalar).unpack(dtype, blocks, 0, &mut w);
        let groups = self.n_in.div_ceil(BLOCK);
        let n = (5 * groups + 8) as f64 * U;
        for (t, c) in (0..self.m).flat_map(|t| (0..self.n_out).map(move |c| (t, c))) {
            let (mut sum, mut magnitude) = (0.0, 0.0);
            for k in 0..self.n_in {
                let at = c * self.n_in + k;
                let x = &x[k / BLOCK * self.m + t];
                let (i, j) = (k % BLOCK, k % BLOCK / 32);
                let scale = match self.scaling() {
                    Scaling::Factors => f64::from(x.scale) * f64::from(x.factors[j]),
                    Scaling::Own => f64::from(x.scales[split(j)]),
                };
                let x = scale * f64::from(x.q[i]);
                let b = offset(self.quant, &blocks[at / block * dtype.block_bytes()..]);
                sum += f64::from(w[at]) * x;
                magnitude += (f64::from(w[at]).abs() + 2.0 * b) * x.abs();
            }
            let (y, bound) = (f64::from(y[t * self.n_out + c]), n / (1.0 - n) * magnitude);
            assert!((y - sum).abs() <= bound, "{name}, {}: [{t}, {c}] is {y}, not {sum} ± {bound}", self.name());
        }
    }
}

/// Row lengths of a type: whole groups of 256, and rests where it has blocks of 32.
fn lengths(quant: Quant) -> &'static [usize] {
    if DType::Quant(quant).block_elements() == 32 {
        &[32, 64, 224, 256, 288, 480, 512, 736, 2048]
    } else {
        &[256, 512, 768, 2048]
    }
}

#[test]
fn products_of_every_length() {
    for (name, kernels) in tables() {
        for quant in Quant::ALL {
            for &n_in in lengths(quant) {
                for m in TOKENS {
                    Case::new(quant, 9, n_in, m).check(name, kernels);
                }
            }
        }
    }
}

#[test]
fn the_same_bits_on_every_instruction_set_and_for_any_number_of_tokens() {
    for quant in Quant::ALL {
        // Lengths whose activations are a few for the nearest caches, and one that is not.
        for (n_out, n_in, m) in [
            (1, 3, 1),
            (7, 3, 2),
            (8, 3, 3),
            (17, 3, 4),
            (72, 3, 2),
            (131, 1, 4),
            (26, 3, 5),
            (33, 2, 6),
            (64, 3, 7),
            (40, 3, 8),
            (50, 3, 9),
            (36, 3, 12),
            (9, 3, 15),
            (49, 2, 16),
            (4, 3, 16),
            (5, 3, 17),
            (3, 3, 33),
            (65, 3, 1),
            (130, 3, 1),
            (18, 0, 300),
        ] {
            let case = Case::new(quant, n_out, lengths(quant)[n_in], m);
            let want: Vec<u32> = (0..m)
                .flat_map(|t| {
                    let x = case.x[t * case.n_in..][..case.n_in].to_vec();
                    bits(&Case::of(quant, n_out, case.n_in, 1, case.blocks.data(), x).run(table::of(Isa::Scalar)))
                })
                .collect();
            for (name, kernels) in tables() {
                assert_eq!(bits(&case.run(kernels)), want, "{name}, {}", case.name());
            }
        }
    }
}

#[test]
fn any_part_of_the_outputs() {
    for (name, kernels) in tables() {
        for (quant, m) in Quant::ALL.into_iter().flat_map(|quant| TOKENS.map(|m| (quant, m))) {
            let case = Case::new(quant, 37, 256, m);
            let whole = case.run(kernels);
            for (first, n) in [(0, 1), (5, 9), (36, 1), (1, 36), (20, 0)] {
                let mut part = vec![f32::NAN; m * n];
                case.run_part(kernels, first, &mut part);
                for t in 0..m {
                    let want = &whole[t * 37 + first..][..n];
                    assert_eq!(bits(&part[t * n..][..n]), bits(want), "{name}, {}: {first}, {n}", case.name());
                }
            }
        }
    }
}

/// Sums at the edge of what integers hold, by all tables and all products: of weights and activations that are as large as they
/// can be.
#[test]
fn nothing_overflows() {
    for quant in Quant::ALL {
        for block in largest_blocks(quant) {
            let blocks = block.repeat(2 * 512 / DType::Quant(quant).block_elements());
            for (sign, m) in TOKENS.into_iter().flat_map(|m| [(1.0, m), (-1.0, m)]) {
                let case = Case::of(quant, 2, 512, m, &blocks, vec![sign * 3.0; m * 512]);
                for (name, kernels) in tables() {
                    case.check(name, kernels);
                }
            }
        }
    }
}

/// Blocks of one byte again and again, and with the integers that scale parts, and the weights, at either end.
fn largest_blocks(quant: Quant) -> Vec<Vec<u8>> {
    let dtype = DType::Quant(quant);
    // Where the scales of parts are.
    let scales = match quant {
        Quant::Q2K => 0..16,
        Quant::Q3K => 96..108,
        Quant::Q4K | Quant::Q5K => 4..16,
        Quant::Q6K => 192..208,
        Quant::Iq4Xs => 2..8,
        _ => 0..0,
    };
    let mut blocks = Vec::new();
    for byte in [0x00, 0x7f, 0x80, 0xff, 0x0f, 0xf0] {
        let same = [byte];
        let scale_bytes = if scales.is_empty() { &same[..] } else { &[0x00, 0x7f, 0x80, 0xff] };
        for scale in scale_bytes {
            let mut block = vec![byte; dtype.block_bytes()];
            block[scales.clone()].fill(*scale);
            halves(quant).iter().for_each(|at| block[*at..at + 2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes()));
            if quant == Quant::Mxfp4 {
                block[0] = 127;
            }
            blocks.push(block);
        }
    }
    blocks
}

#[test]
fn scales_and_activations_that_are_no_numbers() {
    for (name, kernels) in tables() {
        for quant in Quant::ALL {
            let mut random = Random(5);
            for byte in [0x7c, 0x7e, 0xfc, 0xff] {
                let blocks = vec![byte; DType::Quant(quant).bytes(256).unwrap()];
                let case = Case::of(quant, 1, 256, 1, &blocks, random.vec(256));
                drop(case.run(kernels));
            }
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut case = Case::new(quant, 3, 512, MANY);
                case.x[512 + 300] = bad;
                for m in [3, MANY] {
                    let case = Case::of(quant, 3, 512, m, case.blocks.data(), case.x[..512 * m].to_vec());
                    for (t, y) in case.run(kernels).chunks_exact(3).enumerate() {
                        assert!(
                            y.iter().all(|y| if t == 1 { y.is_nan() } else { y.is_finite() }),
                            "{name}, {quant:?}, {t}: {y:?}"
                        );
                    }
                }
                case = Case::of(quant, 3, 512, 1, case.blocks.data(), case.x[512..1024].to_vec());
                assert!(case.run(kernels).iter().all(|y| y.is_nan()), "{name}, {quant:?}");
            }
        }
    }
}

#[test]
fn no_length_gives_zero() {
    let (mut y, x) = (vec![f32::NAN; 3 * MANY], []);
    for (_, kernels) in tables() {
        for quant in Quant::ALL {
            let w = Matrix { dtype: quant.into(), layout: Layout::OutIn, n_out: 3, n_in: 0, data: &[] };
            for (m, y) in [(MANY, &mut y[..]), (1, &mut [f32::NAN; 3])] {
                let mut scratch = vec![f32::NAN; Kernels::scratch_len(3, m)];
                kernels.matmul_quantised(w, 0, &x, &mut scratch, &mut ColumnsMut::whole(y, m, 3));
                assert!(y.iter().all(|y| y.to_bits() == 0));
            }
            let w = Matrix { n_out: 0, n_in: 256, ..w };
            for m in [1, MANY] {
                kernels.matmul_quantised(w, 0, &vec![Activations::ZERO; m], &mut [], &mut ColumnsMut::whole(&mut [], m, 0));
            }
        }
    }
}

/// Each part's rounding error is at most half of its step, which is what the module says; the sums are those of the q.
#[test]
fn activations_are_near_and_the_same_everywhere() {
    let mut random = Random(11);
    for n in [1, 31, 32, 255, 256, 257, 700] {
        for size in [1e-25, 1.0, 3e37] {
            let mut x: Vec<f32> = random.vec(n).iter().map(|x| x * size).collect();
            x[n / 2] *= 1000.0f32.min(f32::MAX / size / 4.0);
            for scaling in [Scaling::Factors, Scaling::Own] {
                let mut want: Option<Vec<Activations>> = None;
                for (name, kernels) in tables() {
                    let got = quantised(kernels, &x, n, scaling);
                    let want = want.get_or_insert_with(|| got.clone());
                    for ((got, want), x) in got.iter().zip(want).zip(x.chunks(BLOCK)) {
                        assert!(
                            got.q == want.q
                                && got.factors == want.factors
                                && (got.sums_16, got.sums_32) == (want.sums_16, want.sums_32),
                            "{name}"
                        );
                        assert_eq!((bits(&got.scales), bits(&got.sums)), (bits(&want.scales), bits(&want.sums)), "{name}");
                        near(got, x, scaling);
                    }
                }
            }
        }
    }
}

fn near(got: &Activations, x: &[f32], scaling: Scaling) {
    let max = |x: &[f32]| x.iter().fold(0f64, |m, x| m.max(f64::from(x.abs())));
    for (j, part) in x.chunks(32).enumerate() {
        let (step, most) = match scaling {
            Scaling::Factors => {
                assert!((1..=31).contains(&got.factors[j]));
                (f64::from(got.scale) * f64::from(got.factors[j]), max(part) / 127.0 + max(x) / 3937.0)
            }
            Scaling::Own => (f64::from(got.scales[split(j)]), (max(part) / 127.0).max(max(x) / 3937.0 / 4000.0)),
        };
        assert!(step <= most * (1.0 + 4.0 * U));
        for (x, q) in part.iter().zip(&got.q[32 * j..]) {
            assert!(*q >= -127);
            // The quotient is rounded to f32 four times before it is rounded to an integer.
            let error = (f64::from(*x) - step * f64::from(*q)).abs();
            assert!(error <= step * (0.5 + 127.0 * 4.0 * U), "{x}: off by {error}, step {step}");
        }
    }
    for s in 0..16 {
        let sum: i32 = got.q[16 * s..][..16].iter().map(|q| i32::from(*q)).sum();
        assert_eq!(i32::from(got.sums_16[s % 2 * 8 + s / 2]), sum);
    }
    for j in 0..8 {
        let sum: i32 = got.q[32 * j..][..32].iter().map(|q| i32::from(*q)).sum();
        assert_eq!(i32::from(got.sums_32[j]), sum);
        assert_eq!(got.sums[split(j)], got.scales[split(j)] * sum as f32);
    }
}

#[test]
fn nothing_and_almost_nothing_are_zero() {
    for (_, kernels) in tables() {
        for tiny in [0.0, -0.0, 1e-45, 1e-31] {
            let got = quantised(kernels, &[tiny; 256], 256, Scaling::Factors);
            assert!(got[0].q == [0; 256] && got[0].sums == [0.0; 8] && got[0].scale == 0.0);
        }
    }
}

/// Denormals and the largest power too: the rows' eight blocks have the exponents 0 to 255 and 31 more each.
#[test]
fn every_exponent_is_its_power() {
    const ROWS: usize = 256;
    let mut blocks = random_blocks(&mut Random(3), Quant::Mxfp4, ROWS * 256);
    let block_bytes = DType::Quant(Quant::Mxfp4).block_bytes();
    for (i, block) in blocks.chunks_exact_mut(block_bytes).enumerate() {
        block[0] = (i / 8 + 31 * (i % 8)) as u8;
    }
    for m in TOKENS {
        let case = Case::of(Quant::Mxfp4, ROWS, 256, m, &blocks, Random(4).vec(m * 256));
        let want = bits(&case.run(table::of(Isa::Scalar)));
        for (name, kernels) in tables() {
            assert_eq!(bits(&case.run(kernels)), want, "{name}, {m} tokens");
        }
    }
    let power = |e| super::ints::half_power(e);
    assert_eq!([0, 1, 2, 128, 255].map(power), [2f32.powi(-128), 2f32.powi(-127), 2f32.powi(-126), 1.0, 2f32.powi(127)]);
}
