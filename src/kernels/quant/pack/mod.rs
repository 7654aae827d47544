//! From f32 to blocks, by search: of the scales tried, the one whose nearest integers leave the least squared error. Weights go
//! through here once, while a model is loaded or a file is written. Plain Rust without fused operations and with a fixed order of
//! every sum, so the blocks are the same on every CPU.
//!
//! | module | subject |
//! |---|---|
//! | `fit` | scales (and minima) for a few elements, unrounded |
//! | `by_32`, `by_256` | the blocks of each type: scales rounded to what the type holds, then the integers |
#![forbid(unsafe_code)]

mod by_256;
mod by_32;
mod fit;
#[cfg(test)]
mod tests;

use crate::format::{DType, Quant};
use half::f16;

/// The largest magnitude that is packed, binary16's: so every scale is finite. Weights are thousands of times smaller.
pub const LARGEST: f32 = 65504.0;

/// Whether [`pack`] makes blocks of this type.
pub const fn packs(quant: Quant) -> bool {
    use Quant::*;
    matches!(quant, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q4K | Q5K | Q6K)
}

/// The first element that no type holds: not a number, or larger than [`LARGEST`].
pub fn unfit(src: &[f32]) -> Option<usize> {
    let fits = |x: &f32| x.abs() <= LARGEST;
    // Whole runs first: without an early exit they become vectors.
    let bad = src.chunks(256).position(|run| !run.iter().fold(true, |all, x| all & fits(x)))?;
    src.iter().skip(bad * 256).position(|x| !fits(x)).map(|i| bad * 256 + i)
}

/// Blocks of a type that [`packs`] from as many elements, none of which is [`unfit`].
///
/// # Panics
/// If `src` is not as many whole blocks as `dst`, or there is no packing of the type.
pub fn pack(quant: Quant, src: &[f32], dst: &mut [u8]) {
    assert_eq!(DType::Quant(quant).bytes(src.len()), Some(dst.len()));
    match quant {
        Quant::Q4_0 => blocks(by_32::q4_0, src, dst),
        Quant::Q4_1 => blocks(by_32::q4_1, src, dst),
        Quant::Q5_0 => blocks(by_32::q5_0, src, dst),
        Quant::Q5_1 => blocks(by_32::q5_1, src, dst),
        Quant::Q8_0 => blocks(by_32::q8_0, src, dst),
        Quant::Q4K => blocks(by_256::q4_k, src, dst),
        Quant::Q5K => blocks(by_256::q5_k, src, dst),
        Quant::Q6K => blocks(by_256::q6_k, src, dst),
        _ => panic!("{} is not packed", DType::Quant(quant).name()),
    }
}

#[inline(always)]
fn blocks<const N: usize, const BYTES: usize>(f: impl Fn(&[f32; N], &mut [u8; BYTES]), src: &[f32], dst: &mut [u8]) {
    for (x, block) in src.as_chunks::<N>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0) {
        f(x, block);
    }
}

/// The binary16 number nearest to `x`, and never an infinity. `const`: see [`super::f16_at`].
fn half(x: f32) -> f16 {
    f16::from_f32_const(x.clamp(-LARGEST, LARGEST))
}

/// 1/x, 0 for 0: what elements are multiplied with to get integers.
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}
