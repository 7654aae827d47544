//! A linear's input in the forms that its matrices take it in, made once for all tasks, and the scratch for it.
#![forbid(unsafe_code)]

use super::{FEW_CHUNK, Linear, MANY_CHUNK};
use crate::error::Result;
use crate::kernels::{Activations, Kernels, Packed, Scaling, Tile};
use crate::ops::profile::Op;
use crate::ops::{Ctx, Path, Worker, grow, lengthen};

/// Elements of the input that one thread converts in the time that a parallel region takes to begin and end.
const ALONE: usize = 1 << 13;

/// Scratch that [`super::linear`] needs for any of a model's matrices.
#[derive(Clone, Copy, Default)]
pub struct Needs {
    /// Elements of a worker's weight panel on the prefill path.
    panel: usize,
    /// Blocks of 8-bit activations of a token.
    blocks: usize,
    /// Inputs, and bf16 terms of each, of what the prefill path packs into tiles.
    tiles: Option<(usize, usize)>,
}

impl Needs {
    /// For each of `linears`.
    pub fn of<'a>(kernels: &Kernels, linears: impl Iterator<Item = &'a Linear>) -> Self {
        let mut needs = Self::default();
        for linear in linears {
            needs.blocks = needs.blocks.max(linear.quantised_len());
            match linear.tile_terms(kernels, Path::Many) {
                Some(terms) => {
                    let (n_in, most) = needs.tiles.unwrap_or_default();
                    needs.tiles = Some((n_in.max(linear.n_in), most.max(terms)));
                }
                None => needs.panel = needs.panel.max(linear.panel_len()),
            }
        }
        needs
    }

    /// Makes room in `workers` for passes of up to `n_tokens` tokens on `path`.
    pub fn reserve(&self, workers: &mut [Worker], path: Path, n_tokens: usize) -> Result<()> {
        let many = path == Path::Many;
        // 8-bit activations on both paths: the head's are always few-token products.
        let sums = if self.blocks > 0 { Kernels::scratch_len(FEW_CHUNK, n_tokens) } else { 0 };
        let panel = if many { self.panel } else { 0 };
        let tiles = if many && self.tiles.is_some() { Kernels::tile_scratch(n_tokens, MANY_CHUNK) } else { 0 };
        for worker in &mut *workers {
            grow(&mut worker.panel, panel.max(sums), "weight panel")?;
            lengthen(&mut worker.tiles, tiles, Tile::ZERO, "tiles of weights and sums")?;
        }
        let Some(first) = workers.first_mut() else { return Ok(()) };
        if let (true, Some((n_in, terms))) = (many, self.tiles) {
            lengthen(&mut first.packed, Packed::len(n_tokens, n_in, terms), Tile::ZERO, "activations in tiles")?;
        }
        lengthen(&mut first.quantised, n_tokens * self.blocks, Activations::ZERO, "activations in 8 bits")
    }
}

/// The input of a linear.
pub struct Input<'a> {
    /// `[n_tokens, n_in]`
    pub x: &'a [f32],
    /// In 8 bits, `[n_in.div_ceil(256), n_tokens]`; the first `blocks` of the first worker's scratch, taken out of it.
    quantised: Vec<Activations>,
    blocks: usize,
    /// As bf16 tiles in `terms` terms; the first `tiles` of the first worker's scratch, taken out of it.
    packed: Vec<Tile>,
    tiles: usize,
    terms: usize,
}

impl<'a> Input<'a> {
    /// `x: [n_tokens, n_in]` for the products with `parts`.
    pub fn new(ctx: &mut Ctx<'_>, parts: &[Linear], x: &'a [f32], n_tokens: usize, n_in: usize) -> Self {
        let (kernels, path) = (ctx.kernels, ctx.path);
        let terms = parts.iter().filter_map(|part| part.tile_terms(kernels, path)).max().unwrap_or(0);
        let in_8_bits = parts.iter().filter(|part| part.tile_terms(kernels, path).is_none());
        let blocks = n_tokens * in_8_bits.map(Linear::quantised_len).max().unwrap_or(0);
        let tiles = Packed::len(n_tokens, n_in, terms);
        let mut input = Self { x, quantised: Vec::new(), blocks, packed: Vec::new(), tiles, terms };
        if blocks > 0 {
            input.quantised = std::mem::take(&mut ctx.workers[0].quantised);
            quantise(ctx, parts, x, n_tokens, n_in, &mut input.quantised[..blocks]);
        }
        if tiles > 0 {
            input.packed = std::mem::take(&mut ctx.workers[0].packed);
            pack(ctx, x, n_tokens, n_in, terms, &mut input.packed[..tiles]);
        }
        if blocks + tiles > 0 {
            ctx.lap(Op::Quantise, 0);
        }
        input
    }

    /// In 8 bits.
    pub fn quantised(&self) -> &[Activations] {
        &self.quantised[..self.blocks]
    }

    /// In tiles.
    pub fn packed(&self) -> Packed<'_> {
        Packed { tiles: &self.packed[..self.tiles], terms: self.terms }
    }

    /// Gives the scratch back.
    pub fn done(self, ctx: &mut Ctx<'_>) {
        if self.blocks > 0 {
            ctx.workers[0].quantised = self.quantised;
        }
        if self.tiles > 0 {
            ctx.workers[0].packed = self.packed;
        }
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
