//! exp and what is made of it, on whole vectors.

use super::each::{AT_ONCE, Map, each};
use super::{ERFC, ERFC_SLOPE, GELU_CUBIC, GELU_FLAT, QUICK_GELU, SQRT_2_OVER_PI};
use crate::kernels::simd::Simd;
use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// ln 2 in two parts: the first has so few bits that n · LN_2_HIGH is exact for every n that occurs.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Twice the argument from which tanh is 1.
const TANH_FLAT: f32 = 24.0;
/// exp(r) = 1 + r + r²·Q(r): a minimax fit of Q over |r| ≤ 0.3475, relative error 3.1e-9. Lowest power first.
const Q: [f32; 5] = [0.499_999_94, 0.166_665_2, 0.041_668_404, 0.008_368_899, 0.001_381_422_2];
/// Below this, exp is 0: it is less than half of the least denormal.
const EXP_ZERO: f32 = -104.0;
/// −127·ln 2 and a little less.
const WEIGHT_ZERO: f32 = -88.1;
/// Above this, exp is infinite.
const EXP_INFINITE: f32 = 89.0;

/// Within 1.01 units in the last place (the worst of all f32), of a denormal result's too; NaN stays NaN.
///
/// x = n·ln 2 + r with |r| ≤ ½·ln 2, so exp(x) = 2^n · exp(r).
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.max(s.splat(EXP_ZERO), s.min(s.splat(EXP_INFINITE), x));
    let n = s.round(s.mul(x, s.splat(LOG2_E)));
    let r = s.fma(n, s.splat(-LN_2_HIGH), x);
    let r = s.fma(n, s.splat(-LN_2_LOW), r);
    let q = polynomial(s, r, &Q);
    s.scale(s.add(s.splat(1.0), s.fma(s.mul(r, r), q, r)), n)
}

/// exp(x) for x ≤ 0, as a weight: as [`exp`], but 0 where that is below 2^-126 (some of it: below 2^-126.5). NaN stays NaN.
#[inline(always)]
fn weight<S: Simd>(s: S, x: S::V) -> S::V {
    // At WEIGHT_ZERO n is −127.
    let x = s.max(s.splat(WEIGHT_ZERO), x);
    let n = s.round(s.mul(x, s.splat(LOG2_E)));
    let r = s.fma(n, s.splat(-LN_2_HIGH), x);
    let r = s.fma(n, s.splat(-LN_2_LOW), r);
    let q = polynomial(s, r, &Q);
    s.mul(s.add(s.splat(1.0), s.fma(s.mul(r, r), q, r)), s.power(n))
}

/// tanh(u) = e / (e + 2) with e = exp(2u) − 1, which is 2^n·(exp(r) − 1) + (2^n − 1): near 0, where n is 0, no digits are
/// lost. Within 4 units of the last place; NaN stays NaN.
#[inline(always)]
fn tanh<S: Simd>(s: S, u: S::V) -> S::V {
    // Beyond ±12, tanh is ±1 in f32.
    let x = s.max(s.splat(-TANH_FLAT), s.min(s.splat(TANH_FLAT), s.add(u, u)));
    let n = s.round(s.mul(x, s.splat(LOG2_E)));
    let r = s.fma(n, s.splat(-LN_2_HIGH), x);
    let r = s.fma(n, s.splat(-LN_2_LOW), r);
    let power = s.scale(s.splat(1.0), n);
    let small = s.fma(s.mul(r, r), polynomial(s, r, &Q), r);
    let e = s.fma(power, small, s.sub(power, s.splat(1.0)));
    s.div(e, s.add(e, s.splat(2.0)))
}

/// Horner's rule; the lowest power is first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, coefficients: &[f32; N]) -> S::V {
    let mut y = s.splat(coefficients[N - 1]);
    for c in coefficients[..N - 1].iter().rev() {
        y = s.fma(y, x, s.splat(*c));
    }
    y
}

/// x · sigmoid(x)
#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct Silu;
impl Map for Silu {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.div(x, s.add(s.splat(1.0), exp(s, s.sub(s.splat(0.0), x))))
    }
}

/// x · Φ(x), as max(x, 0) − |x|·Φ(−|x|)
#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct Gelu;
impl Map for Gelu {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        let zero = s.splat(0.0);
        let a = s.min(s.splat(GELU_FLAT), s.max(s.sub(zero, x), x));
        let slope = s.fma(s.splat(ERFC_SLOPE * FRAC_1_SQRT_2), a, s.splat(1.0));
        let t = s.div(s.splat(0.5), slope); // ½·t of the formula
        let p = polynomial(s, s.fma(t, s.splat(4.0), s.splat(-1.0)), &ERFC);
        let phi = s.mul(s.mul(exp(s, s.mul(s.mul(a, a), s.splat(-0.5))), t), p);
        s.sub(s.max(zero, x), s.mul(a, phi))
    }
}

/// ½·x·(1 + tanh(u)) with u = √(2/π)·(x + 0.044715·x³), as x · sigmoid(2u)
#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct GeluTanh;
impl Map for GeluTanh {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        let cubic = s.mul(s.mul(s.mul(x, x), x), s.splat(GELU_CUBIC));
        let minus_2u = s.mul(s.add(x, cubic), s.splat(-2.0 * SQRT_2_OVER_PI));
        s.div(x, s.add(s.splat(1.0), exp(s, minus_2u)))
    }
}

/// max(x, 0)
#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct Relu;
impl Map for Relu {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.max(s.splat(0.0), x)
    }
}

/// max(x, 0)²
#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct ReluSquared;
impl Map for ReluSquared {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        let y = s.max(s.splat(0.0), x);
        s.mul(y, y)
    }
}

/// x · sigmoid(1.702 x)
#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct QuickGelu;
impl Map for QuickGelu {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.div(x, s.add(s.splat(1.0), exp(s, s.mul(x, s.splat(-QUICK_GELU)))))
    }
}

/// cap · tanh(x / cap)
#[derive(Clone, Copy)]
struct Cap(f32);
impl Map for Cap {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
        let cap = s.splat(self.0);
        s.mul(tanh(s, s.div(x, cap)), cap)
    }
}

/// y = cap · tanh(y / cap)
#[inline(always)]
pub(in crate::kernels) fn softcap<S: Simd>(s: S, y: &mut [f32], cap: f32) {
    each(s, y, Cap(cap));
}

/// y = f(y)
#[inline(always)]
pub(in crate::kernels) fn map<S: Simd, F: Map + Default>(s: S, y: &mut [f32]) {
    each(s, y, F::default());
}

/// y = exp(y − shift), for y ≤ shift; returns the sum of y.
#[inline(always)]
pub(in crate::kernels) fn exp_sum<S: Simd>(s: S, y: &mut [f32], shift: f32) -> f32 {
    let mut sums = [s.splat(0.0); AT_ONCE];
    let shift = s.splat(shift);
    let mut chunks = y.chunks_exact_mut(AT_ONCE * S::LANES);
    for y in &mut chunks {
        for (sum, y) in sums.iter_mut().zip(y.chunks_exact_mut(S::LANES)) {
            let e = weight(s, s.sub(s.get(y, 0.0), shift));
            s.put(y, e);
            *sum = s.add(*sum, e);
        }
    }
    for (sum, y) in sums.iter_mut().zip(chunks.into_remainder().chunks_mut(S::LANES)) {
        // Lanes beyond y are exp(−∞) = 0.
        let e = weight(s, s.sub(s.get(y, f32::NEG_INFINITY), shift));
        s.put(y, e);
        *sum = s.add(*sum, e);
    }
    super::norm::add_up(s, sums)
}
