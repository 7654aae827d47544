use super::bytes::{ByteProduct, key_bytes, value_bytes, value_scales};
use super::{BLOCK, BlockProduct};
use crate::format::Float;
use crate::kernels::testing::*;
use crate::kernels::{Kernels, Softmax};
use crate::threads::ColumnsMut;

/// A product with `n_in` of 80 rows of a block of `ld_w` columns, for `rows` rows of x.
struct Case {
    dtype: Float,
    ld_w: usize,
    n_in: usize,
    rows: usize,
    w: Vec<f32>,
    x: Vec<f32>,
}

const LD_X: usize = 83;

impl Case {
    fn new(dtype: Float, ld_w: usize, n_in: usize, rows: usize) -> Self {
        let mut random = Random((ld_w * 1000 + n_in * 10 + rows) as u64);
        let w = random.vec(80 * ld_w).into_iter().map(|x| held(dtype, x)).collect();
        Self { dtype, ld_w, n_in, rows, w, x: random.vec(rows * LD_X) }
    }
    /// The first `cols` columns of the rows from `row` on, added to `y: [rows, cols + 1]`, or not.
    fn run(&self, kernels: &Kernels, row: usize, cols: usize, add: bool, y: &mut [f32]) {
        let data = Unaligned::new(self.dtype, &self.w);
        let next = Some(data.data());
        let product =
            BlockProduct { w: data.data(), ld_w: self.ld_w, n_in: self.n_in, x: &self.x[row * LD_X..], ld_x: LD_X, add, next };
        let mut out = ColumnsMut::whole(y, y.len() / (cols + 1), cols + 1);
        kernels.multiply_block(self.dtype, &product, &mut out.sub(0..cols));
    }
    /// Against f64. A sum of K products in any order from a first value, each rounded at most once and each sum once, is off by at
    /// most (K + 1)·u/(1 − (K + 1)·u)·Σ|w·x|, and one rounding of a denormal a time.
    fn check(&self, name: &str, kernels: &Kernels, cols: usize, add: bool) {
        let before: Vec<f32> = Random(5).vec(self.rows * (cols + 1));
        let mut y = before.clone();
        self.run(kernels, 0, cols, add, &mut y);
        for t in 0..self.rows {
            assert_eq!(y[t * (cols + 1) + cols], before[t * (cols + 1) + cols], "{name}: beyond the columns");
            for c in 0..cols {
                let mut sum = if add { f64::from(before[t * (cols + 1) + c]) } else { 0.0 };
                let mut size = sum.abs();
                for k in 0..self.n_in {
                    let product = f64::from(self.w[k * self.ld_w + c]) * f64::from(self.x[t * LD_X + k]);
                    sum += product;
                    size += product.abs();
                }
                let k = (self.n_in + 2) as f64;
                let bound = k * U / (1.0 - k * U) * size + k * TINY;
                let y = f64::from(y[t * (cols + 1) + c]);
                let Self { dtype, ld_w, n_in, rows, .. } = self;
                let label = format!("{name} {dtype:?} [{rows}, {n_in}] · [{n_in}, {cols} of {ld_w}]");
                assert!((y - sum).abs() <= bound, "{label}: [{t}, {c}] is {y}, not {sum} ± {bound}");
            }
        }
    }
}

#[test]
fn products_of_every_size() {
    for (name, kernels) in tables() {
        for dtype in DTYPES {
            for rows in (1..=14).chain([64]) {
                for (ld_w, n_in) in [(64, 20), (80, 64), (7, 1), (64, 0)] {
                    for cols in [1, 7, 8, 16, 31, 32, 64, 70, 80].into_iter().filter(|&cols| cols <= ld_w) {
                        for add in [false, true] {
                            Case::new(dtype, ld_w, n_in, rows).check(name, kernels, cols, add);
                        }
                    }
                }
            }
        }
    }
}

/// A row has the same bits alone and among others, in one sum and in two.
#[test]
fn rows_and_cuts_change_no_bits() {
    for (name, kernels) in tables() {
        for dtype in DTYPES {
            for rows in [2, 3, 5, 8, 13] {
                let (case, cols) = (Case::new(dtype, 80, 80, rows), 75);
                let mut together = vec![f32::NAN; rows * (cols + 1)];
                case.run(kernels, 0, cols, false, &mut together);
                for t in 0..rows {
                    let mut alone = vec![f32::NAN; cols + 1];
                    case.run(kernels, t, cols, false, &mut alone);
                    assert_eq!(bits(&alone[..cols]), bits(&together[t * (cols + 1)..][..cols]), "{name} {dtype:?} {rows}");
                }
                let first = Case { n_in: 33, w: case.w.clone(), x: case.x.clone(), ..case };
                let mut twice = vec![f32::NAN; rows * (cols + 1)];
                first.run(kernels, 0, cols, false, &mut twice);
                let behind = |x: &[f32], from: usize| x[from..].iter().chain(&x[..from]).copied().collect();
                let second = Case { n_in: 47, w: behind(&case.w, 33 * 80), x: behind(&case.x, 33), ..case };
                second.run(kernels, 0, cols, true, &mut twice);
                let outputs = |y: &[f32]| y.chunks(cols + 1).flat_map(|y| bits(&y[..cols])).collect::<Vec<_>>();
                assert_eq!(outputs(&twice), outputs(&together), "{name} {dtype:?} {rows}");
            }
        }
    }
}

/// A weight is off by two units, as exp is, and by one rounding of its argument, or by 2^-126 as it may be 0 below that; the sum by one
/// unit more for each.
#[test]
fn softmax_gives_weights_and_their_sum() {
    for (name, kernels) in tables() {
        for n in [1, 2, 7, 8, 9, 31, 64, 256] {
            for size in [1.0, 30.0, 1000.0] {
                let scores: Vec<f32> = Random(n as u64).vec(n).into_iter().map(|s| s * size).collect();
                let mut weights = scores.clone();
                let Softmax { max, sum } = kernels.softmax(&mut weights);
                assert_eq!(max, scores.iter().copied().fold(f32::NEG_INFINITY, f32::max));
                let mut expected_sum = 0.0;
                for (score, weight) in scores.iter().zip(&weights) {
                    let exponent = f64::from(*score) - f64::from(max);
                    let expected = exponent.exp();
                    expected_sum += expected;
                    let bound = expected * U * (4.0 + exponent.abs()) + f64::from(f32::MIN_POSITIVE);
                    let weight = f64::from(*weight);
                    assert!((weight - expected).abs() <= bound, "{name}: exp({exponent}) is {weight}, not {expected} ± {bound}");
                }
                let bound = expected_sum * U * (4.0 + 2.0 * f64::from(size) + n as f64);
                assert!((f64::from(sum) - expected_sum).abs() <= bound, "{name}: the sum is {sum}, not {expected_sum}");
            }
        }
    }
}

/// Scores of −∞ (masked positions) weigh nothing, and of nothing else there is no sum.
#[test]
fn masked_positions_weigh_nothing() {
    for (name, kernels) in tables() {
        let mut scores = [f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY];
        assert_eq!((kernels.softmax(&mut scores), scores), (Softmax { max: 2.0, sum: 1.0 }, [0.0, 1.0, 0.0]), "{name}");
        let mut scores = [f32::NEG_INFINITY; 9];
        assert_eq!((kernels.softmax(&mut scores), scores), (Softmax::EMPTY, [0.0; 9]), "{name}");
        assert_eq!(kernels.softmax(&mut []), Softmax::EMPTY, "{name}");
    }
}

/// Head sizes: with remainders of every kind of vector, of pairs and of what shares a scale.
const DIMS: [usize; 9] = [1, 8, 20, 31, 32, 64, 80, 100, 256];

/// Keys and values of a block's positions, but for `unused`, and what they have become in 8 bits.
fn in_bytes(kernels: &Kernels, dim: usize, unused: usize) -> ([Vec<f32>; 2], [Vec<u8>; 2]) {
    let mut random = Random(dim as u64);
    let [keys, values] = std::array::from_fn(|_| random.vec(BLOCK * dim));
    let (mut to_keys, mut to_values) = (vec![0; key_bytes(dim)], vec![0; value_bytes(dim)]);
    for position in (0..BLOCK).filter(|&position| position != unused) {
        kernels.put_key(&keys[position * dim..][..dim], position, &mut to_keys);
        kernels.put_value(&values[position * dim..][..dim], position, &mut to_values);
    }
    ([keys, values], [to_keys, to_values])
}

/// The integer and the scale of an element of a position, by the layout that the module's head draws.
fn key(block: &[u8], dim: usize, position: usize, element: usize) -> (i8, f32) {
    let scale = dim.div_ceil(2) * 2 * BLOCK + (element / 32 * BLOCK + position) * 4;
    let scale = f32::from_le_bytes(block[scale..][..4].try_into().unwrap());
    (block[(element / 2 * BLOCK + position) * 2 + element % 2] as i8, scale)
}
fn value(block: &[u8], dim: usize, position: usize, element: usize) -> (i8, f32) {
    let scale = f32::from_le_bytes(block[dim * BLOCK + position * 4..][..4].try_into().unwrap());
    (block[(position / 2 * dim + element) * 2 + position % 2] as i8, scale)
}

fn scales_of(values: &[u8]) -> [f32; BLOCK] {
    let mut scales = [f32::MAX; BLOCK];
    value_scales(values, &mut scales);
    scales
}

/// Half a step of those that share the scale, and the largest of them whole; what nobody wrote is untouched; all tables agree.
#[test]
fn keys_and_values_in_8_bits() {
    for dim in DIMS {
        let mut first = None;
        for (name, kernels) in tables() {
            let ([keys, values], made) = in_bytes(kernels, dim, 5);
            for position in 0..BLOCK {
                for element in 0..dim {
                    let found = [key(&made[0], dim, position, element), value(&made[1], dim, position, element)];
                    let groups = [element / 32 * 32..dim.min(element / 32 * 32 + 32), 0..dim];
                    for ((x, (q, scale)), group) in [&keys, &values].into_iter().zip(found).zip(groups) {
                        if position == 5 {
                            assert_eq!((q, scale), (0, 0.0));
                            continue;
                        }
                        let row = &x[position * dim..][..dim];
                        let largest = row[group].iter().fold(0.0, |m: f32, x| m.max(x.abs()));
                        assert_eq!(scale, largest / 127.0, "{name} {dim}");
                        let (x, y) = (f64::from(row[element]), f64::from(q) * f64::from(scale));
                        assert!((x - y).abs() <= f64::from(scale) * (0.5 + 1e-4), "{name} {dim}: {x} became {y}");
                    }
                }
            }
            assert_eq!(scales_of(&made[1]), std::array::from_fn(|p| value(&made[1], dim, p, 0).1));
            assert!(first.get_or_insert(made.clone()) == &made, "{name} {dim}");
        }
    }
}

/// Exact sums of integers, times scales: each multiplication and each addition of a group is one rounding, and so is a sum's way to f32.
#[test]
fn products_with_8_bits() {
    for dim in DIMS {
        for rows in (1..=9).chain([64]) {
            let mut first = None;
            for (name, kernels) in tables() {
                let (_, [keys, values]) = in_bytes(kernels, dim, BLOCK);
                let mut random = Random(rows as u64);
                let ld_x = 260;
                let (mut q, mut weights) = (vec![0i16; rows * ld_x], vec![0i16; rows * ld_x]);
                let mut scales = [vec![0.0; rows], vec![0.0; rows]];
                for t in 0..rows {
                    scales[0][t] = kernels.to_words(&random.vec(dim), &mut q[t * ld_x..][..dim]);
                    let positive: Vec<f32> = random.vec(BLOCK).iter().map(|x| x.abs()).collect();
                    scales[1][t] = kernels.to_words(&positive, &mut weights[t * ld_x..][..BLOCK]);
                }
                let product = |block, x, x_scales| ByteProduct { block, head_dim: dim, x, ld_x, x_scales, next: Some(&[]) };
                let mut made = Vec::new();
                for cols in [16, 48, 64] {
                    let mut scores = vec![f32::NAN; rows * (BLOCK + 1)];
                    let mut out = ColumnsMut::whole(&mut scores, rows, BLOCK + 1);
                    kernels.multiply_keys(&product(&keys, &q, &scales[0]), &mut out.sub(0..cols));
                    for (i, score) in scores.iter().enumerate() {
                        let (t, position) = (i / (BLOCK + 1), i % (BLOCK + 1));
                        if position >= cols {
                            assert!(score.is_nan(), "{name} {dim}: beyond the columns");
                            continue;
                        }
                        let (mut sum, mut size) = (0.0, 0.0);
                        for element in 0..dim {
                            let (k, scale) = key(&keys, dim, position, element);
                            let product =
                                f64::from(k) * f64::from(scale) * f64::from(q[t * ld_x + element]) * f64::from(scales[0][t]);
                            (sum, size) = (sum + product, size + product.abs());
                        }
                        let bound = size * U * (4 + dim.div_ceil(32)) as f64;
                        assert!((f64::from(*score) - sum).abs() <= bound, "{name} {dim} {rows}: {score}, not {sum} ± {bound}");
                    }
                    made.extend(bits(&scores));
                }
                let before = Random(7).vec(rows * (dim + 1));
                let mut sums = before.clone();
                let mut out = ColumnsMut::whole(&mut sums, rows, dim + 1);
                kernels.multiply_values(&product(&values, &weights, &scales[1]), &mut out.sub(0..dim));
                for (i, (y, before)) in sums.iter().zip(&before).enumerate() {
                    let (t, element) = (i / (dim + 1), i % (dim + 1));
                    if element == dim {
                        assert_eq!(y, before, "{name} {dim}: beyond the columns");
                        continue;
                    }
                    let dot: i64 =
                        (0..BLOCK).map(|p| i64::from(value(&values, dim, p, element).0) * i64::from(weights[t * ld_x + p])).sum();
                    let sum = f64::from(*before) + dot as f64 * f64::from(scales[1][t]);
                    let bound = (f64::from(before.abs()) + 3.0 * (dot as f64 * f64::from(scales[1][t])).abs()) * U * 1.01;
                    assert!((f64::from(*y) - sum).abs() <= bound, "{name} {dim} {rows}: {y}, not {sum} ± {bound}");
                }
                made.extend(bits(&sums));
                assert!(first.get_or_insert(made.clone()) == &made, "{name} {dim} {rows}");
            }
        }
    }
}

/// The largest integers do not overflow a sum: all of a block's weights and values, and a whole query and key.
#[test]
fn the_largest_sums_of_8_bits() {
    for (name, kernels) in tables() {
        let dim = 256;
        let (mut keys, mut values) = (vec![0; key_bytes(dim)], vec![0; value_bytes(dim)]);
        for position in 0..BLOCK {
            kernels.put_key(&vec![-127.0; dim], position, &mut keys);
            kernels.put_value(&vec![-127.0; dim], position, &mut values);
        }
        let mut x = vec![0; dim];
        let x_scales = [kernels.to_words(&vec![-32767.0; dim], &mut x)];
        assert_eq!((x[0], x_scales), (-32767, [1.0]), "{name}");
        let product = |block| ByteProduct { block, head_dim: dim, x: &x, ld_x: dim, x_scales: &x_scales, next: None };
        let mut scores = [0.0; BLOCK];
        kernels.multiply_keys(&product(&keys), &mut ColumnsMut::whole(&mut scores, 1, BLOCK));
        let mut sums = vec![0.0; dim];
        kernels.multiply_values(&product(&values), &mut ColumnsMut::whole(&mut sums, 1, dim));
        let close = |y: f32, terms: f64| (f64::from(y) / (terms * 127.0 * 32767.0) - 1.0).abs() < 10.0 * U;
        assert!(
            scores.iter().all(|&y| close(y, 256.0)) && sums.iter().all(|&y| close(y, 64.0)),
            "{name}: {} {}",
            scores[0],
            sums[0]
        );
    }
}

/// What is not finite makes every product with it a NaN, and no other; what is next to nothing becomes 0.
#[test]
fn what_has_no_8_bits() {
    for (name, kernels) in tables() {
        let mut words = [1; 40];
        assert!(kernels.to_words(&[f32::NAN; 40], &mut words).is_nan(), "{name}");
        assert_eq!((kernels.to_words(&[1e-38; 40], &mut words), words), (0.0, [0; 40]), "{name}");
        assert_eq!(kernels.to_words(&[], &mut []), 0.0, "{name}");
        let x_scales = [kernels.to_words(&[1.0; 40], &mut words)];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (_, [mut keys, mut values]) = in_bytes(kernels, 40, BLOCK);
            let mut row = [1.0; 40];
            row[33] = bad;
            kernels.put_key(&row, 6, &mut keys);
            kernels.put_value(&row, 6, &mut values);
            let product = ByteProduct { block: &keys, head_dim: 40, x: &words, ld_x: 40, x_scales: &x_scales, next: None };
            let mut scores = [0.0; BLOCK];
            kernels.multiply_keys(&product, &mut ColumnsMut::whole(&mut scores, 1, BLOCK));
            assert!(scores.iter().enumerate().all(|(p, score)| score.is_nan() == (p == 6)), "{name}");
            assert!(scales_of(&values).iter().enumerate().all(|(p, scale)| scale.is_nan() == (p == 6)), "{name}");
        }
    }
}
