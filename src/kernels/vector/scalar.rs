//! The plain versions, with the standard library's `exp`.
#![forbid(unsafe_code)]

use super::{ERFC, ERFC_SLOPE, GELU_CUBIC, GELU_FLAT, QUICK_GELU, SQRT_2_OVER_PI};
use std::f32::consts::FRAC_1_SQRT_2;

pub(in crate::kernels) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let mean_square = sum(x, |x| x * x) / x.len() as f32;
    let inverse = 1.0 / (mean_square + eps).sqrt();
    for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
        *y = x * inverse * w;
    }
}

/// Two passes: the variance is of what is left after the mean, so that a large mean costs no digits.
pub(in crate::kernels) fn layer_norm(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
    let n = x.len() as f32;
    let mean = sum(x, |x| x) / n;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
    let inverse = 1.0 / (variance + eps).sqrt();
    for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
        *y = (x - mean) * inverse * w;
    }
    if let Some(bias) = bias {
        add(y, bias);
    }
}

/// Σ f(x), by eight sums in parallel.
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0; 8];
    for x in x.chunks(8) {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += f(*x);
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (b + f)) + ((c + g) + (d + h))
}

pub(in crate::kernels) fn add(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

pub(in crate::kernels) fn mul(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y *= x;
    }
}

pub(in crate::kernels) fn scale(y: &mut [f32], factor: f32) {
    for y in y {
        *y *= factor;
    }
}

pub(in crate::kernels) fn blend(y: &mut [f32], a: f32, x: &[f32], b: f32) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = a * *y + b * x;
    }
}

pub(in crate::kernels) fn silu(y: &mut [f32]) {
    for y in y {
        *y /= 1.0 + (-*y).exp();
    }
}

pub(in crate::kernels) fn gelu(y: &mut [f32]) {
    for y in y {
        let a = y.abs().min(GELU_FLAT);
        let t = 1.0 / (1.0 + ERFC_SLOPE * (a * FRAC_1_SQRT_2));
        let p = ERFC.iter().rev().fold(0.0, |p, c| p * (2.0 * t - 1.0) + c);
        let phi = 0.5 * (-0.5 * a * a).exp() * t * p; // Φ(−a)
        *y = if y.is_nan() { *y } else { y.max(0.0) - a * phi };
    }
}

/// ½·(1 + tanh(u)) is sigmoid(2u), which loses no digits for negative x.
pub(in crate::kernels) fn gelu_tanh(y: &mut [f32]) {
    for y in y {
        let u = SQRT_2_OVER_PI * (*y + GELU_CUBIC * *y * *y * *y);
        *y /= 1.0 + (-2.0 * u).exp();
    }
}

pub(in crate::kernels) fn relu(y: &mut [f32]) {
    for y in y {
        if *y < 0.0 {
            *y = 0.0;
        }
    }
}

pub(in crate::kernels) fn relu_squared(y: &mut [f32]) {
    for y in y {
        *y = if *y < 0.0 { 0.0 } else { *y * *y };
    }
}

/// With the sigmoid at 1.702 x: an early approximation of gelu.
pub(in crate::kernels) fn quick_gelu(y: &mut [f32]) {
    for y in y {
        *y /= 1.0 + (-QUICK_GELU * *y).exp();
    }
}

/// cap · tanh(y / cap)
pub(in crate::kernels) fn softcap(y: &mut [f32], cap: f32) {
    for y in y {
        *y = (*y / cap).tanh() * cap;
    }
}

pub(in crate::kernels) fn max(y: &[f32]) -> f32 {
    y.iter().fold(f32::NEG_INFINITY, |max, y| max.max(*y))
}

pub(in crate::kernels) fn exp_sum(y: &mut [f32], shift: f32) -> f32 {
    for y in y.iter_mut() {
        *y = (*y - shift).exp();
    }
    sum(y, |y| y)
}
