use super::BlockProduct;
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
