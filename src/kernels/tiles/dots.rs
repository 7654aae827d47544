//! AVX-512's dot products of bf16 in the place of a matrix unit, for weights that are bf16: `vdpbf16ps` adds the products of two pairs to each of
//! 16 sums, twice as many a cycle as f32 FMA on AMD's CPUs (half as many on a Sapphire Rapids).
//!
//! Of a block of 32 × 32 outputs eight tokens at a time have their sums in registers, 16 vectors. A row of a tile of weights is a vector of 16 outputs'
//! pairs, which meets the same pair of a token in all lanes.
//!
//! **Order of summation**: pair by pair of inputs, in each the odd one first, by FMA into one sum.

// Loops by number: what iterators are made of is functions of their own, which a compiler may leave without the CPU's features.
#![allow(clippy::needless_range_loop)]

use super::{Block, Products, Tile, Unit};
use crate::kernels::simd::avx512::transpose_rows;
use std::arch::x86_64::*;

/// Tokens whose sums are in registers.
const TOKENS: usize = 8;

/// Proof that the CPU has AVX-512 BF16.
pub(in crate::kernels) struct Dots(());

impl Unit for Dots {
    const BF16_ONLY: bool = true;

    #[inline(always)]
    unsafe fn new() -> Self {
        Self(())
    }

    #[inline(always)]
    unsafe fn multiply(&self, products: Products, block: Block) {
        assert!(products == Products::One);
        for t in (0..block.tokens).step_by(TOKENS) {
            // SAFETY: passed on; tokens and outputs that are not there are zeros in the tiles.
            unsafe { eight(&block, t) }
        }
    }

    #[inline(always)]
    unsafe fn transpose(&self, rows: [*const u8; 16], tile: &mut Tile) {
        // SAFETY: AVX-512 is there by the word of `new`'s caller, 64 bytes of each row by this one's.
        unsafe { transpose_rows(rows, tile.0.as_mut_ptr()) }
    }
}

/// The sums of the tokens from `t` on.
///
/// # Safety
/// As for [`Unit::multiply`], and the CPU has what `Dots` stands for.
#[inline(always)]
unsafe fn eight(block: &Block, t: usize) {
    let (tile, row) = (t / 16, t % 16 * 16);
    // SAFETY: the tiles are there; each has 16 rows of 16 dwords.
    unsafe {
        let c = block.c.add(2 * tile);
        let sum = |j: usize, i: usize| (&raw mut (*c.add(i)).0).cast::<f32>().add(row + 16 * j);
        let mut sums = [[_mm512_setzero_ps(); 2]; TOKENS];
        if block.add {
            for j in 0..TOKENS {
                for i in 0..2 {
                    sums[j][i] = _mm512_load_ps(sum(j, i));
                }
            }
        }
        for step in 0..block.steps {
            let x = (&raw const (*block.a.add(step * block.a_step + tile)).0).cast::<i32>().add(row);
            let w = block.b.add(step * block.b_step).cast::<u8>();
            for k in 0..16 {
                let w = [load_pairs(w.add(64 * k)), load_pairs(w.add(size_of::<Tile>() + 64 * k))];
                for j in 0..TOKENS {
                    let x = splat_pair(x.add(16 * j + k));
                    for i in 0..2 {
                        sums[j][i] = _mm512_dpbf16_ps(sums[j][i], x, w[i]);
                    }
                }
            }
        }
        for j in 0..TOKENS {
            for i in 0..2 {
                _mm512_store_ps(sum(j, i), sums[j][i]);
            }
        }
    }
}

/// # Safety
/// The CPU has the features; 64 bytes lie at `p`, which begins with a cache line.
#[inline(always)]
unsafe fn load_pairs(p: *const u8) -> __m512bh {
    // SAFETY: the caller's word; the types differ in name only.
    unsafe { std::mem::transmute(_mm512_load_si512(p.cast())) }
}

/// # Safety
/// The CPU has the features; a pair lies at `p`.
#[inline(always)]
unsafe fn splat_pair(p: *const i32) -> __m512bh {
    // SAFETY: the caller's word; the types differ in name only.
    unsafe { std::mem::transmute(_mm512_set1_epi32(p.read())) }
}
