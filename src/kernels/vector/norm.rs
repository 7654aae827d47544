//! Norms, sums and what is done to each element.

use crate::kernels::simd::Simd;

/// Sums are taken by this many vectors in turn, since an addition takes as many cycles as four of them need.
const SUMS: usize = 4;

#[inline(always)]
pub(in crate::kernels) fn rms_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let mean_square = squares(s, x, 0.0) / x.len() as f32;
    let inverse = s.splat(1.0 / (mean_square + eps).sqrt());
    for ((y, x), w) in y.chunks_mut(S::LANES).zip(x.chunks(S::LANES)).zip(weight.chunks(S::LANES)) {
        s.put(y, s.mul(s.mul(s.get(x, 0.0), inverse), s.get(w, 0.0)));
    }
}

/// Two passes: the variance is of what is left after the mean, so that a large mean costs no digits.
#[inline(always)]
pub(in crate::kernels) fn layer_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
    let n = x.len() as f32;
    let mean = total(s, x) / n;
    let variance = squares(s, x, mean) / n;
    let inverse = s.splat(1.0 / (variance + eps).sqrt());
    let mean = s.splat(mean);
    for ((y, x), w) in y.chunks_mut(S::LANES).zip(x.chunks(S::LANES)).zip(weight.chunks(S::LANES)) {
        s.put(y, s.mul(s.mul(s.sub(s.get(x, 0.0), mean), inverse), s.get(w, 0.0)));
    }
    if let Some(bias) = bias {
        add(s, y, bias);
    }
}

/// Σ x
#[inline(always)]
fn total<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut sums = [s.splat(0.0); SUMS];
    for x in x.chunks(SUMS * S::LANES) {
        for (sum, x) in sums.iter_mut().zip(x.chunks(S::LANES)) {
            *sum = s.add(*sum, s.get(x, 0.0));
        }
    }
    add_up(s, sums)
}

/// Σ (x − centre)²
#[inline(always)]
fn squares<S: Simd>(s: S, x: &[f32], centre: f32) -> f32 {
    let c = s.splat(centre);
    let mut sums = [s.splat(0.0); SUMS];
    for x in x.chunks(SUMS * S::LANES) {
        for (sum, x) in sums.iter_mut().zip(x.chunks(S::LANES)) {
            let d = s.sub(s.get(x, centre), c); // lanes beyond x are 0
            *sum = s.fma(d, d, *sum);
        }
    }
    add_up(s, sums)
}

/// The sum of four vectors' lanes.
#[inline(always)]
pub(super) fn add_up<S: Simd>(s: S, [a, b, c, d]: [S::V; SUMS]) -> f32 {
    s.sum(s.add(s.add(a, b), s.add(c, d)))
}

/// The largest element; `-inf` for none. NaN counts for nothing.
#[inline(always)]
pub(in crate::kernels) fn max<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut largest = [s.splat(f32::NEG_INFINITY); SUMS];
    for x in x.chunks(SUMS * S::LANES) {
        for (largest, x) in largest.iter_mut().zip(x.chunks(S::LANES)) {
            *largest = s.max(s.get(x, f32::NEG_INFINITY), *largest);
        }
    }
    let [a, b, c, d] = largest;
    s.largest(s.max(s.max(a, b), s.max(c, d)))
}

#[inline(always)]
pub(in crate::kernels) fn add<S: Simd>(s: S, y: &mut [f32], x: &[f32]) {
    for (y, x) in y.chunks_mut(S::LANES).zip(x.chunks(S::LANES)) {
        s.put(y, s.add(s.get(y, 0.0), s.get(x, 0.0)));
    }
}

#[inline(always)]
pub(in crate::kernels) fn mul<S: Simd>(s: S, y: &mut [f32], x: &[f32]) {
    for (y, x) in y.chunks_mut(S::LANES).zip(x.chunks(S::LANES)) {
        s.put(y, s.mul(s.get(y, 0.0), s.get(x, 0.0)));
    }
}

#[inline(always)]
pub(in crate::kernels) fn scale<S: Simd>(s: S, y: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    for y in y.chunks_mut(S::LANES) {
        s.put(y, s.mul(s.get(y, 0.0), factor));
    }
}

/// y = a·y + b·x
#[inline(always)]
pub(in crate::kernels) fn blend<S: Simd>(s: S, y: &mut [f32], a: f32, x: &[f32], b: f32) {
    let (a, b) = (s.splat(a), s.splat(b));
    for (y, x) in y.chunks_mut(S::LANES).zip(x.chunks(S::LANES)) {
        s.put(y, s.fma(s.get(x, 0.0), b, s.mul(s.get(y, 0.0), a)));
    }
}
