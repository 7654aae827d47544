//! Activations in 8 bits: what quantised weights are multiplied with.
//!
//! 256 activations x share a scale `d` (f32), each 32 of them a factor `f` (1 to 31), each has its own `q` (−127 to 127):
//! x ≈ d·f·q. `f` is as small as `q` allows, so a part's rounding error is at most half of `d·f`, where
//! `d·f ≤ max|part| / 127 + max|block| / 3937`: nearly what a scale of its own would give, and an integer product can take `f` in.
//! Where only types with a floating-point scale to each 32 will meet them, each 32 do have a scale of their own ([`Scaling`]).

// Loops by number: what iterators are made of is functions of their own, which a compiler may leave without the CPU's features.
#![allow(clippy::needless_range_loop)]

use super::ints::Ints;
use super::many::OFFSET;
use crate::format::DType;
use crate::threads::ColumnsMut;

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
    /// For more than one token only, and with factors: what sums of products of 16 elements begin with that are taken [`OFFSET`] too large,
    /// −32·Σ q. Without [`Lanewise::DOTS`] as a pair of i16, −32 times the sum of the first two q of every four and of the last two.
    pub(super) offsets: [i32; 16],
    /// For more than one token only, and where there are [`Lanewise::DOTS`]: −128·Σ q of each 32, the same for signed elements, which are taken 128 too large.
    pub(super) biases: [i32; 8],
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
        offsets: [0; 16],
        biases: [0; 8],
    };
}

/// Rounds every row of `x`, which are tokens of `n_in` inputs, to a column of `out`. The last block of a row is filled up with zeros. One that
/// holds a NaN or an infinity makes every product with it a NaN.
#[inline(always)]
pub(in crate::kernels) fn quantise<S: Ints>(
    s: S,
    x: &[f32],
    n_in: usize,
    scaling: Scaling,
    out: &mut ColumnsMut<'_, Activations>,
) {
    let (blocks, one) = (out.rows(), out.ld() == 1);
    for block in 0..=blocks {
        if block < blocks {
            let inputs = block * BLOCK..n_in.min((block + 1) * BLOCK);
            let out = out.row_mut(block);
            for t in 0..out.len() {
                quantise_part(s, &x[t * n_in..][inputs.clone()], scaling, &mut out[t]);
            }
        }
        // Not at once: what was just stored could not be read in longer pieces.
        if !one && block > 0 {
            let out = out.row_mut(block - 1);
            for t in 0..out.len() {
                begin(s, scaling, &mut out[t]);
            }
        }
    }
}

/// [`Activations::offsets`] and [`Activations::biases`].
#[inline(always)]
fn begin<S: Ints>(s: S, scaling: Scaling, out: &mut Activations) {
    let factors = scaling == Scaling::Factors;
    if S::DOTS {
        for j in 0..8 {
            out.biases[j] = -128 * i32::from(out.sums_32[j]);
        }
        if factors {
            for part in 0..16 {
                out.offsets[part] = -i32::from(OFFSET) * i32::from(out.sums_16[split_16(part)]);
            }
        }
    } else if factors {
        pairs(s, &out.q, &mut out.offsets);
    }
}

/// [`Activations::offsets`] as pairs: eight 16s of `q` as rows, of which lanes are made.
#[inline(always)]
fn pairs<S: Ints>(s: S, q: &[i8; BLOCK], offsets: &mut [i32; 16]) {
    for first in [0, 8] {
        // SAFETY: there are eight times 16 bytes, and room for as many pairs.
        unsafe {
            let quads = s.load_rows(q[16 * first..].as_ptr().cast(), 16);
            let by = s.splat_quad([OFFSET as u8; 4].as_ptr());
            let mut sum = s.splat_w(0);
            for j in 0..4 {
                sum = s.sub_w(sum, s.pairs(by, quads[j])); // at most 32·8·127 < 2^15 in the end
            }
            s.store_w(offsets[first..].as_mut_ptr().cast(), sum);
        }
    }
}

/// Up to a block of activations, filled up with zeros.
#[inline(always)]
fn quantise_part<S: Ints>(s: S, x: &[f32], scaling: Scaling, out: &mut Activations) {
    match x.first_chunk() {
        Some(x) => quantise_block(s, x, scaling, out),
        None => {
            let mut filled = [0.0; BLOCK];
            filled[..x.len()].copy_from_slice(x);
            quantise_block(s, &filled, scaling, out);
        }
    }
}

/// Where number j of 8 is, when those at even places come first.
pub(super) const fn split(j: usize) -> usize {
    j / 2 + j % 2 * 4
}

/// The same of 16.
pub(super) const fn split_16(j: usize) -> usize {
    j / 2 + j % 2 * 8
}

/// For each 32 the bits of its largest magnitude: they are in the order of the magnitudes, and a NaN's are above all others.
#[inline(always)]
pub(super) fn largest(x: &[f32; BLOCK]) -> [u32; 8] {
    let mut largest = [0; 8];
    for (largest, part) in largest.iter_mut().zip(x.as_chunks::<PART>().0) {
        *largest = part.iter().fold(0, |m, x| m.max(x.to_bits() & 0x7fff_ffff));
    }
    largest
}

/// `x · by` rounded to nearest (ties to even), `by` being that of the 32 that x is of, to at most 127 in magnitude; the sums of each 32's first 16 and
/// of its last 16.
#[inline(always)]
pub(super) fn round(x: &[f32; BLOCK], by: &[f32; 8], q: &mut [i8; BLOCK]) -> [[i32; 8]; 2] {
    let mut sums = [[0; 8]; 2];
    for (j, (q, x)) in q.as_chunks_mut::<PART>().0.iter_mut().zip(x.as_chunks::<PART>().0).enumerate() {
        for (i, (q, x)) in q.iter_mut().zip(x).enumerate() {
            // |x · by| is at most 127 and a few roundings, so adding 1.5·2^23 leaves the nearest integer in the last bits.
            const SHIFT: f32 = 12_582_912.0;
            let rounded = (x * by[j] + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i32;
            *q = rounded as i8;
            sums[i / (PART / 2)][j] += rounded;
        }
    }
    sums
}

#[inline(always)]
fn quantise_block<S: Ints>(s: S, x: &[f32; BLOCK], scaling: Scaling, out: &mut Activations) {
    let largest = s.largest(x);
    let max = f32::from_bits(largest.into_iter().fold(0, u32::max));
    if max < LEAST || !max.is_finite() {
        let scale = if max.is_finite() { 0.0 } else { f32::NAN };
        *out = Activations { scale, scales: [scale; 8], sums: [scale; 8], ..Activations::ZERO };
        return;
    }
    out.scale = max / (MAX_Q * MAX_FACTOR);
    let per_factor = MAX_FACTOR / max;
    let (mut scales, mut inverses) = ([0.0; 8], [0.0; 8]);
    for j in 0..8 {
        let largest = f32::from_bits(largest[j]);
        let factor = (largest * per_factor).ceil().clamp(1.0, MAX_FACTOR);
        out.factors[j] = factor as i16;
        scales[j] = match scaling {
            // Parts that are as good as nothing beside their 256 keep to these: no denormals, no infinite inverse.
            Scaling::Own => (largest / MAX_Q).max(out.scale * LEAST_OWN),
            Scaling::Factors => out.scale * factor,
        };
        inverses[j] = 1.0 / scales[j];
    }
    let [first, last] = s.round(x, &inverses, &mut out.q);
    for j in 0..8 {
        let sum = first[j] + last[j];
        (out.sums_16[j], out.sums_16[j + 8]) = (first[j] as i16, last[j] as i16);
        out.sums_32[j] = sum as i16;
        out.scales[split(j)] = scales[j];
        out.sums[split(j)] = scales[j] * sum as f32;
    }
}
