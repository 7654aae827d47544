//! Types with binary16 scales to every 32 elements. The simple choice (the largest element at the end of the range) is one of those
//! compared, each with its scales rounded, so none of these is worse than it.
#![forbid(unsafe_code)]

use super::fit::{nearest, peak, scale, scale_and_min};
use super::{half, inverse};
use half::f16;

type Block = [f32; 32];

/// The integers of `d`·q + `m`, in `low..=high`.
#[inline(always)]
fn integers(x: &Block, d: f32, m: f32, low: f32, high: f32) -> Block {
    let inverse = inverse(d);
    x.map(|x| nearest((x - m) * inverse, low, high))
}

/// The squared error that they leave.
#[inline(always)]
fn error(x: &Block, d: f32, m: f32, low: f32, high: f32) -> f32 {
    let inverse = inverse(d);
    x.iter().fold(0.0, |sum, x| {
        let r = x - m - d * nearest((x - m) * inverse, low, high);
        sum + r * r
    })
}

/// The scale of a type whose q are in `-half..half`, and the q with `half` added.
#[inline(always)]
fn symmetric(x: &Block, n: f32) -> (f16, [u8; 32]) {
    let candidates = [peak(x) / -n, scale(x, n)].map(half);
    let [simple, found] = candidates.map(|d| error(x, d.to_f32_const(), 0.0, -n, n - 1.0));
    let d = candidates[usize::from(found < simple)];
    (d, integers(x, d.to_f32_const(), 0.0, -n, n - 1.0).map(|q| (q + n) as u8))
}

/// The scale and minimum of a type whose q are in `0..=levels`, and the q.
#[inline(always)]
fn affine(x: &Block, levels: f32) -> (f16, f16, [u8; 32]) {
    let (low, high) = x.iter().fold((x[0], x[0]), |(low, high), &x| (low.min(x), high.max(x)));
    let candidates = [((high - low) / levels, low), scale_and_min(x, levels, f32::INFINITY)];
    let candidates = candidates.map(|(d, m)| (half(d), half(m)));
    let [simple, found] = candidates.map(|(d, m)| error(x, d.to_f32_const(), m.to_f32_const(), 0.0, levels));
    let (d, m) = candidates[usize::from(found < simple)];
    (d, m, integers(x, d.to_f32_const(), m.to_f32_const(), 0.0, levels).map(|q| q as u8))
}

/// Byte i holds the lower four bits of q\[i\] below and those of q\[i + 16\] above.
#[inline(always)]
fn nibbles(q: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| q[i] & 15 | (q[i + 16] & 15) << 4)
}

/// Bit i is the fifth of q\[i\].
#[inline(always)]
fn fifth_bits(q: &[u8; 32]) -> [u8; 4] {
    q.iter().enumerate().fold(0, |bits, (i, q)| bits | u32::from(q >> 4) << i).to_le_bytes()
}

#[inline(always)]
pub(super) fn q4_0(x: &Block, block: &mut [u8; 18]) {
    let (d, q) = symmetric(x, 8.0);
    block[..2].copy_from_slice(&d.to_le_bytes());
    block[2..].copy_from_slice(&nibbles(&q));
}

#[inline(always)]
pub(super) fn q5_0(x: &Block, block: &mut [u8; 22]) {
    let (d, q) = symmetric(x, 16.0);
    block[..2].copy_from_slice(&d.to_le_bytes());
    block[2..6].copy_from_slice(&fifth_bits(&q));
    block[6..].copy_from_slice(&nibbles(&q));
}

#[inline(always)]
pub(super) fn q4_1(x: &Block, block: &mut [u8; 20]) {
    let (d, m, q) = affine(x, 15.0);
    block[..2].copy_from_slice(&d.to_le_bytes());
    block[2..4].copy_from_slice(&m.to_le_bytes());
    block[4..].copy_from_slice(&nibbles(&q));
}

#[inline(always)]
pub(super) fn q5_1(x: &Block, block: &mut [u8; 24]) {
    let (d, m, q) = affine(x, 31.0);
    block[..2].copy_from_slice(&d.to_le_bytes());
    block[2..4].copy_from_slice(&m.to_le_bytes());
    block[4..8].copy_from_slice(&fifth_bits(&q));
    block[8..].copy_from_slice(&nibbles(&q));
}

/// With 8 bits a search gains nothing to speak of: the largest element is ±127.
#[inline(always)]
pub(super) fn q8_0(x: &Block, block: &mut [u8; 34]) {
    let d = half(peak(x).abs() / 127.0);
    let q = integers(x, d.to_f32_const(), 0.0, -127.0, 127.0);
    block[..2].copy_from_slice(&d.to_le_bytes());
    for (byte, q) in block[2..].iter_mut().zip(q) {
        *byte = q as i8 as u8;
    }
}
