//! Norms, sums and what is done to each element.

use super::each::{AT_ONCE, Map, Pair, each, each_pair, fold};
use crate::kernels::simd::Simd;

#[inline(always)]
pub(in crate::kernels) fn rms_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let mean_square = squares(s, x, 0.0) / x.len() as f32;
    each_pair(s, y, x, Centred { mean: 0.0, inverse: 1.0 / (mean_square + eps).sqrt() });
    mul(s, y, weight);
}

/// Two passes: the variance is of what is left after the mean, so that a large mean costs no digits.
#[inline(always)]
pub(in crate::kernels) fn layer_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
    let n = x.len() as f32;
    let mean = total(s, x) / n;
    let variance = squares(s, x, mean) / n;
    each_pair(s, y, x, Centred { mean, inverse: 1.0 / (variance + eps).sqrt() });
    mul(s, y, weight);
    if let Some(bias) = bias {
        add(s, y, bias);
    }
}

/// Σ x
#[inline(always)]
fn total<S: Simd>(s: S, x: &[f32]) -> f32 {
    add_up(s, fold(s, x, 0.0, 0.0, Sum))
}

/// Σ (x − centre)²; lanes beyond x are 0.
#[inline(always)]
fn squares<S: Simd>(s: S, x: &[f32], centre: f32) -> f32 {
    add_up(s, fold(s, x, 0.0, centre, SquareFrom { centre }))
}

/// The sum of four vectors' lanes.
#[inline(always)]
pub(super) fn add_up<S: Simd>(s: S, [a, b, c, d]: [S::V; AT_ONCE]) -> f32 {
    s.sum(s.add(s.add(a, b), s.add(c, d)))
}

/// The largest element; `-inf` for none. NaN counts for nothing.
#[inline(always)]
pub(in crate::kernels) fn max<S: Simd>(s: S, x: &[f32]) -> f32 {
    let [a, b, c, d] = fold(s, x, f32::NEG_INFINITY, f32::NEG_INFINITY, Larger);
    s.largest(s.max(s.max(a, b), s.max(c, d)))
}

#[inline(always)]
pub(in crate::kernels) fn add<S: Simd>(s: S, y: &mut [f32], x: &[f32]) {
    each_pair(s, y, x, Sum);
}

#[inline(always)]
pub(in crate::kernels) fn mul<S: Simd>(s: S, y: &mut [f32], x: &[f32]) {
    each_pair(s, y, x, Product);
}

#[inline(always)]
pub(in crate::kernels) fn scale<S: Simd>(s: S, y: &mut [f32], factor: f32) {
    each(s, y, Times { factor });
}

/// y = a·y + b·x
#[inline(always)]
pub(in crate::kernels) fn blend<S: Simd>(s: S, y: &mut [f32], a: f32, x: &[f32], b: f32) {
    each_pair(s, y, x, Blend { a, b });
}

/// y + x
#[derive(Clone, Copy)]
struct Sum;
impl Pair for Sum {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, y: S::V, x: S::V) -> S::V {
        s.add(y, x)
    }
}

/// y · x
#[derive(Clone, Copy)]
struct Product;
impl Pair for Product {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, y: S::V, x: S::V) -> S::V {
        s.mul(y, x)
    }
}

/// y + (x − centre)²
#[derive(Clone, Copy)]
struct SquareFrom {
    centre: f32,
}
impl Pair for SquareFrom {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, y: S::V, x: S::V) -> S::V {
        let d = s.sub(x, s.splat(self.centre));
        s.fma(d, d, y)
    }
}

/// The larger; y if x is NaN.
#[derive(Clone, Copy)]
struct Larger;
impl Pair for Larger {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, y: S::V, x: S::V) -> S::V {
        s.max(x, y)
    }
}

/// (x − mean) · inverse, whatever y was
#[derive(Clone, Copy)]
struct Centred {
    mean: f32,
    inverse: f32,
}
impl Pair for Centred {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, _: S::V, x: S::V) -> S::V {
        s.mul(s.sub(x, s.splat(self.mean)), s.splat(self.inverse))
    }
}

/// a · y + b · x
#[derive(Clone, Copy)]
struct Blend {
    a: f32,
    b: f32,
}
impl Pair for Blend {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, y: S::V, x: S::V) -> S::V {
        s.fma(x, s.splat(self.b), s.mul(y, s.splat(self.a)))
    }
}

/// x · factor
#[derive(Clone, Copy)]
struct Times {
    factor: f32,
}
impl Map for Times {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.mul(x, s.splat(self.factor))
    }
}
