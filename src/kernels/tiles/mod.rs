//! The prefill path's products on a matrix unit, or what stands for one: tiles of bf16, summed in f32.
//!
//! | module | subject |
//! |---|---|
//! | `permission` | whether this process may use AMX |
//! | `amx` | Intel's tiles |
//! | `dots` | AVX-512's dot products of bf16, of bf16 weights only, in the place of a unit |
//! | `pack` | activations and weights of any type into tiles |
//! | `product` | the blocked product |
//!
//! **Rounding.** Activations and weights become sums of bf16 numbers ([`Products`]), and their products are summed in f32. With
//! u = 2⁻⁸, the half unit of bf16, and K inputs in S = ⌈K/32⌉ steps, an output is off by at most
//!
//! | weights | activations and weights | at most |
//! |---|---|---|
//! | bf16 | one term, the weights' exact | u · Σ\|w·x\| |
//! | quantised | one term each | (2u + u²) · Σ\|w·x\| |
//! | f16 | two terms each, the weights' exact | (u² + u²) · Σ\|w·x\| |
//! | f32, where asked for | three terms each, both exact | (2u³ + u⁴) · Σ\|w·x\| |
//!
//! and by the rounding of the sums on top, γ = n·2⁻²⁴/(1 − n·2⁻²⁴): with `amx` n = 17 + P·S roundings of a product for P products of terms, with `dots`
//! 32·S.
//! Quantised weights are rounded from their f32 values, to nearest even.
//! Terms and sums below 2⁻¹²⁶ count as zero. An infinity makes its outputs infinite or NaN, as does a number that is one in bf16.
//!
//! **Order of summation**, for each output: step by step of 32 inputs, and in each the products of terms as [`Products`] lists them.
//! With `amx` in one of them the even and the odd inputs are summed apart, each from zero by FMA, then both together, and that is added to the
//! output; with `dots` input by input, of each pair the odd one first, by FMA into the output. So its bits depend on its own weights and its own row alone: not on other tokens, nor on how the work is cut.

#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports))] // there is no unit yet for the body of it

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
pub(super) mod dots;
#[cfg(all(test, target_arch = "x86_64"))]
pub(super) mod emulated;
mod pack;
#[cfg(target_arch = "x86_64")]
pub(super) mod permission;
pub(super) mod product;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
pub(super) mod trapped;

use super::quant::{Quants, row};
use super::{Kernels, Matrix};
use crate::format::{DType, Float};
use crate::threads::ColumnsMut;
pub(super) use pack::pack_rows;

/// 16 rows of 16 dwords: of f32, or of pairs of bf16.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Tile(pub(super) [u32; 256]);

impl Tile {
    /// Nothing but zeros.
    pub const ZERO: Tile = Tile([0; 256]);

    /// Row `row`.
    #[inline(always)]
    fn row(&self, row: usize) -> *const u32 {
        self.0[16 * row..][..16].as_ptr()
    }
}

/// Inputs of a step: a row of a tile.
const STEP: usize = 32;
/// Tokens, and outputs, of a block: two tiles.
const SIDE: usize = 32;

/// Which products of bf16 terms make up a product. x = x₀ + x₁ + …, each the rest of what is before it, rounded to bf16; w the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Products {
    /// x₀·w₀
    One,
    /// x₀·w₀, x₁·w₀, x₀·w₁
    Three,
    /// x₀·w₀, x₁·w₀, x₂·w₀, x₀·w₁, x₁·w₁, x₀·w₂
    Six,
}

impl Products {
    /// For weights of `dtype`; `None` for f32 weights unless they are to be split.
    fn of(dtype: DType, split: bool) -> Option<Self> {
        match dtype {
            DType::Quant(_) | DType::Float(Float::Bf16) => Some(Products::One),
            DType::Float(Float::F16) => Some(Products::Three),
            DType::Float(Float::F32) => split.then_some(Products::Six),
        }
    }
    /// Terms of each side.
    fn terms(self) -> usize {
        match self {
            Products::One => 1,
            Products::Three => 2,
            Products::Six => 3,
        }
    }
}

/// Tokens packed into tiles by [`Kernels::pack_tiles`].
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    /// `[n_tokens.div_ceil(SIDE), steps, terms, 2]`: in each tile 16 tokens of 32 inputs, zeros where there are none.
    pub tiles: &'a [Tile],
    /// bf16 terms of each number.
    pub terms: usize,
}

impl Packed<'_> {
    /// Tokens that share tiles.
    pub const TOKENS: usize = SIDE;

    /// Tiles of `n_tokens` tokens of `n_in` inputs in `terms` terms.
    pub fn len(n_tokens: usize, n_in: usize, terms: usize) -> usize {
        n_tokens.div_ceil(SIDE) * n_in.div_ceil(STEP) * terms * 2
    }
}

/// A product of tiles: `c[i, j] (+)= Σ a[step, x, i] · b[step, w, j]` over `steps`, for the terms x and w of [`Products`], the
/// token tiles i and the weight tiles j.
pub(super) struct Block {
    /// Pairs of token tiles, one pair a term.
    a: *const Tile,
    /// Tiles from one step to the next.
    a_step: usize,
    /// Pairs of weight tiles.
    b: *const Tile,
    b_step: usize,
    /// At least one.
    steps: usize,
    /// `[2, 2]` tiles.
    c: *mut Tile,
    /// Whether to start from what `c` holds instead of from 0.
    add: bool,
    /// Tokens that count, 1 to 32, the first ones; of `c` the others' rows may be written or left alone.
    tokens: usize,
}

/// A matrix unit, ready for use in this thread.
pub(super) trait Unit {
    /// Whether it is for weights of bf16 alone, so for no other product than [`Products::One`]: others are faster without it.
    const BF16_ONLY: bool;

    /// # Safety
    /// The CPU has it, and this process may use it.
    unsafe fn new() -> Self;
    /// # Safety
    /// All tiles that `block` speaks of are there, those of `c` for this call alone.
    unsafe fn multiply(&self, products: Products, block: Block);
    /// `tile[k][n]` becomes dword k of `rows[n]`.
    ///
    /// # Safety
    /// 64 bytes lie at each of `rows`, at any alignment.
    unsafe fn transpose(&self, rows: [*const u8; 16], tile: &mut Tile);
}

/// What to multiply.
pub(super) struct Product<'a> {
    kernels: &'a Kernels,
    w: Matrix<'a>,
    /// The first output computed.
    first: usize,
    x: Packed<'a>,
    products: Products,
    rows: &'a Quants<row::Read>,
}

/// The functions of a matrix unit in a kernel table. To call them: the CPU has it, this process may use it, and sizes are
/// as [`Kernels::pack_tiles`] and [`Kernels::matmul_tiles`] check them.
#[derive(Clone, Copy)]
pub(super) struct Functions {
    pub pack: unsafe fn(&[f32], usize, usize, &mut [Tile]),
    pub multiply: unsafe fn(&Product<'_>, &mut [Tile], &mut ColumnsMut<'_>),
    /// Rows of quantised weights, for `multiply`.
    pub rows: Quants<row::Read>,
    /// [`Unit::BF16_ONLY`]
    pub bf16_only: bool,
}

impl Functions {
    /// What makes up a product with weights of `dtype`; `None` if the unit does not take them.
    fn products(&self, dtype: DType, split: bool) -> Option<Products> {
        Products::of(dtype, split).filter(|_| dtype == DType::BF16 || !self.bf16_only)
    }
}

impl Kernels {
    /// In how many terms the input of a product with weights of `dtype` on the matrix unit is packed; `None` if there is no such
    /// unit or it does not take them. f32 weights it takes if they may be `split` into bf16 terms.
    pub fn tile_terms(&self, dtype: DType, split: bool) -> Option<usize> {
        self.tiles.as_ref()?.products(dtype, split).map(Products::terms)
    }

    /// Rows of `x: [n, n_in]` as tiles of `terms` terms, [`Packed::len`] of them.
    pub fn pack_tiles(&self, x: &[f32], n_in: usize, terms: usize, out: &mut [Tile]) {
        assert!(n_in > 0 && x.len().is_multiple_of(n_in) && (1..=3).contains(&terms));
        assert_eq!(out.len(), Packed::len(x.len() / n_in, n_in, terms));
        let Some(tiles) = &self.tiles else { panic!("{} has no tiles", self.isa.name()) };
        // SAFETY: `select` saw that tiles may be used; the sizes agree.
        unsafe { (tiles.pack)(x, n_in, terms, out) }
    }

    /// Tiles of scratch that [`Kernels::matmul_tiles`] needs for `n_tokens` tokens and `n_out` outputs of a call.
    pub fn tile_scratch(n_tokens: usize, n_out: usize) -> usize {
        product::scratch(n_tokens, n_out)
    }

    /// The product on the matrix unit: as [`Kernels::matmul`], with `x` from [`Kernels::pack_tiles`] in at least as many terms as
    /// [`Kernels::tile_terms`] says. f32 weights are split.
    pub fn matmul_tiles(&self, w: Matrix<'_>, first: usize, x: Packed<'_>, scratch: &mut [Tile], out: &mut ColumnsMut<'_>) {
        let Some(tiles) = &self.tiles else { panic!("{} has no tiles", self.isa.name()) };
        let Some(products) = tiles.products(w.dtype, true) else { panic!("no tiles of {}", w.dtype.name()) };
        let (n_tokens, n) = (out.rows(), out.cols().len());
        let elements = w.n_out.checked_mul(w.n_in);
        assert_eq!(elements.and_then(|n| w.dtype.bytes(n)), Some(w.data.len()));
        assert!(first.checked_add(n).is_some_and(|end| end <= w.n_out));
        assert!(x.terms >= products.terms() && x.tiles.len() == Packed::len(n_tokens, w.n_in, x.terms));
        assert!(scratch.len() >= product::scratch(n_tokens, n));
        let product = Product { kernels: self, w, first, x, products, rows: &tiles.rows };
        // SAFETY: `select` saw that tiles may be used; the sizes were checked.
        unsafe { (tiles.multiply)(&product, scratch, out) }
    }
}
