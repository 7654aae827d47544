//! A linear's input in the forms that its matrices take it in, made once for all tasks, and the scratch for it.
#![forbid(unsafe_code)]

use super::{FEW_CHUNK, Linear, MANY_CHUNK, Way};
use crate::error::Result;
use crate::kernels::{Activations, Kernels, Packed, Scaling, Tile};
use crate::ops::profile::Op;
use crate::ops::{Ctx, Path, Worker, grow, lengthen};
use std::ops::Range;

/// Elements of the input that one thread converts in the time that a parallel region takes to begin and end.
const ALONE: usize = 1 << 13;

/// Scratch that [`super::linear`] needs for any of a model's matrices.
#[derive(Clone, Copy, Default)]
pub struct Needs {
    /// Elements of a worker's weight panel on the prefill path.
    panel: usize,
    /// Whether the prefill path calls BLAS.
    blas: bool,
    /// Blocks of 8-bit activations of a token.
    activations: usize,
    /// Elements of a token that the prefill path copies into blocks.
    blocks: usize,
    /// Inputs, and bf16 terms of each, of what the prefill path packs into tiles.
    tiles: Option<(usize, usize)>,
}

impl Needs {
    /// For each of `linears`.
    pub fn of<'a>(kernels: &Kernels, linears: impl Iterator<Item = &'a Linear>) -> Self {
        let mut needs = Self::default();
        for linear in linears {
            needs.activations = needs.activations.max(linear.quantised_len());
            match linear.way(kernels, Path::Many) {
                Way::Tiles => {
                    let (n_in, most) = needs.tiles.unwrap_or_default();
                    needs.tiles = Some((n_in.max(linear.n_in), most.max(linear.tile_terms(kernels).unwrap_or(0))));
                }
                Way::Blocks => {
                    needs.blocks = needs.blocks.max(in_blocks(kernels, linear.n_in));
                    needs.panel = needs.panel.max(Kernels::MANY_SCRATCH);
                }
                Way::Sgemm => {
                    needs.panel = needs.panel.max(linear.panel_len());
                    needs.blas = true;
                }
                Way::Quantised | Way::Few => (),
            }
        }
        needs
    }

    /// Whether the prefill path calls BLAS.
    pub fn blas(&self) -> bool {
        self.blas
    }

    /// Makes room in `workers` for passes of `n_tokens` tokens, of which the first `few` take the few-token path.
    pub fn reserve(&self, workers: &mut [Worker], few: usize, n_tokens: usize) -> Result<()> {
        let n_many = n_tokens.saturating_sub(few);
        let many = n_many > 0;
        // 8-bit activations on both paths: the head's are always few-token products.
        let sums = if self.activations > 0 { Kernels::scratch_len(FEW_CHUNK, n_tokens) } else { 0 };
        let panel = if many { self.panel } else { 0 };
        let tiles = if many && self.tiles.is_some() { Kernels::tile_scratch(n_many, MANY_CHUNK) } else { 0 };
        for worker in &mut *workers {
            grow(&mut worker.panel, panel.max(sums), "weight panel")?;
            lengthen(&mut worker.tiles, tiles, Tile::ZERO, "tiles of weights and sums")?;
        }
        let Some(first) = workers.first_mut() else { return Ok(()) };
        if let (true, Some((n_in, terms))) = (many, self.tiles) {
            lengthen(&mut first.packed, Packed::len(n_many, n_in, terms), Tile::ZERO, "activations in tiles")?;
        }
        grow(&mut first.blocks, n_many * self.blocks, "activations in blocks")?;
        lengthen(&mut first.quantised, n_tokens * self.activations, Activations::ZERO, "activations in 8 bits")
    }
}

/// Elements of `n_in` inputs in whole blocks.
fn in_blocks(kernels: &Kernels, n_in: usize) -> usize {
    kernels.block_inputs().map_or(0, |inputs| n_in.next_multiple_of(inputs))
}

/// The input of a linear.
pub struct Input<'a> {
    /// `[n_tokens, n_in]`
    pub x: &'a [f32],
    /// Which tokens take the prefill path: those behind the ones of the few-token path.
    pub many: Range<usize>,
    /// All tokens whose products are with 8-bit activations, in 8 bits: `[n_in.div_ceil(256), tokens]`.
    quantised: Taken<Activations>,
    /// `many` in blocks, `[blocks, tokens · inputs of a block]`.
    blocks: Taken<f32>,
    /// `many` as bf16 tiles in `terms` terms.
    packed: Taken<Tile>,
    terms: usize,
}

/// The first `len` of what is taken out of the first worker's scratch.
struct Taken<T> {
    scratch: Vec<T>,
    len: usize,
}

impl<T> Taken<T> {
    /// `len` of `scratch`, if any.
    fn out_of(scratch: &mut Vec<T>, len: usize) -> Self {
        Self { scratch: if len > 0 { std::mem::take(scratch) } else { Vec::new() }, len }
    }
    fn get(&self) -> &[T] {
        &self.scratch[..self.len]
    }
    fn get_mut(&mut self) -> &mut [T] {
        &mut self.scratch[..self.len]
    }
    fn give_back(self, scratch: &mut Vec<T>) {
        if self.len > 0 {
            *scratch = self.scratch;
        }
    }
}

impl<'a> Input<'a> {
    /// `x: [n_tokens, n_in]` for the products with `parts`, where the last ones, `many`, take the prefill path.
    pub fn new(ctx: &mut Ctx<'_>, parts: &[Linear], x: &'a [f32], many: Range<usize>, n_in: usize) -> Self {
        let kernels = ctx.kernels;
        let (mut terms, mut activations, mut blocks) = (0, 0, 0);
        // Tokens in 8 bits: the few, and where quantised types have no other way the many.
        let mut in_8_bits = many.start;
        for part in parts {
            activations = activations.max(part.quantised_len());
            match part.way(kernels, Path::Many) {
                Way::Tiles => terms = terms.max(part.tile_terms(kernels).unwrap_or(0)),
                Way::Quantised => in_8_bits = many.end,
                Way::Blocks => blocks = in_blocks(kernels, n_in),
                Way::Sgemm | Way::Few => (),
            }
        }
        let scratch = &mut ctx.workers[0];
        let mut input = Self {
            x,
            quantised: Taken::out_of(&mut scratch.quantised, in_8_bits * activations),
            blocks: Taken::out_of(&mut scratch.blocks, many.len() * blocks),
            packed: Taken::out_of(&mut scratch.packed, Packed::len(many.len(), n_in, terms)),
            terms,
            many: many.clone(),
        };
        let x_many = &x[many.start * n_in..];
        if input.quantised.len > 0 {
            quantise(ctx, parts, &x[..in_8_bits * n_in], in_8_bits, n_in, input.quantised.get_mut());
        }
        if input.blocks.len > 0 {
            to_blocks(ctx, x_many, many.len(), n_in, input.blocks.get_mut());
        }
        if input.packed.len > 0 {
            pack(ctx, x_many, many.len(), n_in, terms, input.packed.get_mut());
        }
        if input.quantised.len + input.blocks.len + input.packed.len > 0 {
            ctx.lap(Op::Quantise, 0);
        }
        input
    }

    /// In 8 bits.
    pub fn quantised(&self) -> &[Activations] {
        self.quantised.get()
    }

    /// In tiles.
    pub fn packed(&self) -> Packed<'_> {
        Packed { tiles: self.packed.get(), terms: self.terms }
    }

    /// In blocks.
    pub fn blocks(&self) -> &[f32] {
        self.blocks.get()
    }

    /// Gives the scratch back.
    pub fn done(self, ctx: &mut Ctx<'_>) {
        let scratch = &mut ctx.workers[0];
        self.quantised.give_back(&mut scratch.quantised);
        self.blocks.give_back(&mut scratch.blocks);
        self.packed.give_back(&mut scratch.packed);
    }
}

/// `x: [n_tokens, n_in]` in 8 bits, for the quantised ones of `parts`.
fn quantise(ctx: &mut Ctx<'_>, parts: &[Linear], x: &[f32], n_tokens: usize, n_in: usize, out: &mut [Activations]) {
    let kernels = ctx.kernels;
    let scaling = Scaling::for_types(parts.iter().filter(|part| part.is_quantised()).map(|part| part.weight.dtype));
    if x.len() < ALONE {
        return kernels.quantise(x, n_in, scaling, 0, out);
    }
    ctx.pool.for_each_rows(ctx.workers, out, n_tokens, 1, |_, first, columns| {
        kernels.quantise(x, n_in, scaling, first, columns);
    });
}

/// The rows of `x: [n_tokens, n_in]` as bf16 tiles.
fn pack(ctx: &mut Ctx<'_>, x: &[f32], n_tokens: usize, n_in: usize, terms: usize, out: &mut [Tile]) {
    let kernels = ctx.kernels;
    if x.len() < ALONE {
        return kernels.pack_tiles(x, n_in, terms, out);
    }
    let row_len = Packed::len(1, n_in, terms); // of as many tokens as share tiles
    ctx.pool.for_each_rows(ctx.workers, out, row_len, 1, |_, first, rows| {
        let tokens = first * Packed::TOKENS..n_tokens.min((first + rows.len() / row_len) * Packed::TOKENS);
        kernels.pack_tiles(&x[tokens.start * n_in..tokens.end * n_in], n_in, terms, rows);
    });
}

/// `x: [n_tokens, n_in]` in blocks of inputs.
fn to_blocks(ctx: &mut Ctx<'_>, x: &[f32], n_tokens: usize, n_in: usize, out: &mut [f32]) {
    let kernels = ctx.kernels;
    let block_len = n_tokens * kernels.block_inputs().unwrap_or(n_in);
    ctx.pool.for_each_rows(ctx.workers, out, block_len, 1, |_, first, blocks| kernels.to_blocks(x, n_in, first, blocks));
}
