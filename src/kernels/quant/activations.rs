//! Activations in 8 bits: what quantised weights are multiplied with.
//!
//! 256 activations x share a scale `d` (f32), each 32 of them a factor `f` (1 to 31), each has its own `q` (−127 to 127):
//! x ≈ d·f·q. `f` is as small as `q` allows, so a part's rounding error is at most half of `d·f`, where
//! `d·f ≤ max|part| / 127 + max|block| / 3937`: nearly what a scale of its own would give, and an integer product can take `f` in.
//! Where only types with a floating-point scale to each 32 will meet them, each 32 do have a scale of their own ([`Scaling`]).

use super::many::OFFSET;
use crate::format::DType;

/// What scales 32 activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// A factor and the scale of their 256: for products with any type.
    Factors,
    /// A scale of their own: for products with types whose blocks have 32 elements.
    Own,
}

impl Scaling {
    /// The best for products with matrices of all these types.
    pub fn for_types(mut types: impl Iterator<Item = DType>) -> Scaling {
        if types.all(|dtype| dtype.block_elements() == PART) { Scaling::Own } else { Scaling::Factors }
    }
}

/// A block of 256 activations.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Activations {
    pub(super) q: [i8; 256],
    /// Σ q of each 16: those at even places, then those at odd ones.
    pub(super) sums_16: [i16; 16],
    /// Σ q of each 32, in order.
    pub(super) sums_32: [i16; 8],
    /// f of each 32, with [`Scaling::Factors`].
    pub(super) factors: [i16; 8],
    /// d, likewise.
    pub(super) scale: f32,
    /// d·f of each 32, or its own scale: those at even places, then those at odd ones.
    pub(super) scales: [f32; 8],
    /// That times Σ q, in the same order.
    pub(super) sums: [f32; 8],
    /// For more than one token only: of each 16, −32 times the sum of the first two q of every four, and that of the last two.
    pub(super) offsets: [[i16; 2]; 16],
}

pub(super) const BLOCK: usize = 256;
const PART: usize = 32;
/// The largest factor: with it the products of every type's 128 elements with all integers that scale them sum up to less than 2^31.
pub(super) const MAX_FACTOR: f32 = 31.0;
/// The largest |q|.
const MAX_Q: f32 = 127.0;
/// Blocks of nothing larger become 0; from here on no intermediate result is a denormal.
const LEAST: f32 = 7.9e-31; // 2^-100
/// The least scale of a part of its own, in scales of its 256.
const LEAST_OWN: f32 = 2.5e-4; // 2^-12

impl Activations {
    /// Elements of a block.
    pub const BLOCK: usize = BLOCK;
    /// 256 zeros.
    pub const ZERO: Activations = Activations {
        q: [0; 256],
        sums_16: [0; 16],
        sums_32: [0; 8],
        factors: [1; 8],
        scale: 0.0,
        scales: [0.0; 8],
        sums: [0.0; 8],
        offsets: [[0; 2]; 16],
    };
}

/// Rounds the blocks from number `first` on of every row of `x: [n_tokens, n_in]`; `out` is `[blocks, n_tokens]`. The last block of a row
/// is filled up with zeros. One that holds a NaN or an infinity makes every product with it a NaN.
#[inline(always)]
pub(in crate::kernels) fn quantise(x: &[f32], n_in: usize, scaling: Scaling, first: usize, out: &mut [Activations]) {
    let n_tokens = x.len() / n_in;
    for (block, out) in out.chunks_exact_mut(n_tokens).enumerate() {
        let block = (first + block) * BLOCK..n_in.min((first + block + 1) * BLOCK);
        for (x, out) in x.chunks_exact(n_in).zip(&mut *out) {
            quantise_part(&x[block.clone()], scaling, out);
        }
        if n_tokens > 1 {
            out.iter_mut().for_each(Activations::set_offsets);
        }
    }
}

impl Activations {
    #[inline(always)]
    fn set_offsets(&mut self) {
        for (offsets, q) in self.offsets.iter_mut().zip(self.q.as_chunks::<16>().0) {
            let of = |at: usize| (0..4).map(|i| i16::from(q[4 * i + at]) + i16::from(q[4 * i + at + 1])).sum::<i16>();
            *offsets = [-OFFSET * of(0), -OFFSET * of(2)]; // at most 32·8·127 < 2^15
        }
    }
}

/// Up to a block of activations, filled up with zeros.
#[inline(always)]
fn quantise_part(x: &[f32], scaling: Scaling, out: &mut Activations) {
    match x.first_chunk() {
        Some(x) => quantise_block(x, scaling, out),
        None => {
            let mut filled = [0.0; BLOCK];
            filled[..x.len()].copy_from_slice(x);
            quantise_block(&filled, scaling, out);
        }
    }
}

/// Where number j of 8 is, when those at even places come first.
pub(super) const fn split(j: usize) -> usize {
    j / 2 + j % 2 * 4
}

#[inline(always)]
fn quantise_block(x: &[f32; BLOCK], scaling: Scaling, out: &mut Activations) {
    let (parts, _) = x.as_chunks::<PART>();
    // The bits of magnitudes are in the order of the magnitudes, and a NaN's are above all others.
    let mut largest = [0u32; 8];
    for (largest, part) in largest.iter_mut().zip(parts) {
        *largest = part.iter().fold(0, |m, x| m.max(x.to_bits() & 0x7fff_ffff));
    }
    let max = f32::from_bits(largest.into_iter().fold(0, u32::max));
    if max < LEAST || !max.is_finite() {
        let scale = if max.is_finite() { 0.0 } else { f32::NAN };
        *out = Activations { scale, scales: [scale; 8], sums: [scale; 8], ..Activations::ZERO };
        return;
    }
    out.scale = max / (MAX_Q * MAX_FACTOR);
    let per_factor = MAX_FACTOR / max;
    for (j, part) in parts.iter().enumerate() {
        let largest = f32::from_bits(largest[j]);
        let factor = (largest * per_factor).ceil().clamp(1.0, MAX_FACTOR);
        let scale = match scaling {
            // Parts that are as good as nothing beside their 256 keep to these: no denormals, no infinite inverse.
            Scaling::Own => (largest / MAX_Q).max(out.scale * LEAST_OWN),
            Scaling::Factors => out.scale * factor,
        };
        let inverse = 1.0 / scale;
        let (mut even, mut odd) = (0, 0);
        let q = &mut out.q[j * PART..][..PART];
        for (i, (q, x)) in q.iter_mut().zip(part).enumerate() {
            // |x · inverse| is at most 127 and a few roundings, so adding 1.5·2^23 leaves the nearest integer (ties to even) in
            // the last bits.
            const SHIFT: f32 = 12_582_912.0;
            let rounded = (x * inverse + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i32;
            *q = rounded as i8;
            if i < PART / 2 {
                even += rounded;
            } else {
                odd += rounded;
            }
        }
        (out.sums_16[j], out.sums_16[j + 8]) = (even as i16, odd as i16);
        out.sums_32[j] = (even + odd) as i16;
        out.factors[j] = factor as i16;
        out.scales[split(j)] = scale;
        out.sums[split(j)] = scale * (even + odd) as f32;
    }
}
