//! A linear's input in the forms that its matrices take it in, made once for all tasks, and the scratch for it.
#![forbid(unsafe_code)]

use super::{FEW_CHUNK, Linear, MANY_CHUNK, Way};
use crate::error::Result;
use crate::kernels::{Activations, Kernels, Packed, Scaling, Tile};
use crate::ops::elementwise::{CHUNK, Source};
use crate::ops::profile::Op;
use crate::ops::{Ctx, Path, Worker, grow, lengthen};
use crate::threads::{ColumnsMut, Cut};
use std::ops::Range;

/// Elements of the input that one thread makes and converts in little more than the time that a parallel region takes to begin and end.
const ALONE: usize = 1 << 12;

/// Scratch that [`super::linear`] needs for any of a model's matrices.
#[derive(Clone, Copy, Default)]
pub struct Needs {
    /// Elements of a worker's weight panel on the prefill path.
    panel: usize,
    /// Whether the prefill path calls BLAS.
    blas: bool,
    /// Inputs of a token that becomes 8-bit activations.
    row: usize,
    /// Blocks of these.
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
            if linear.is_quantised() {
                needs.row = needs.row.max(linear.n_in);
                needs.activations = needs.activations.max(linear.quantised_len());
            }
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
        // 8-bit activations on both paths: the head's are always few-token products. Beside a matrix that BLAS multiplies tasks are long.
        let chunk = if many && self.blas { MANY_CHUNK } else { FEW_CHUNK };
        let sums = if self.activations > 0 { Kernels::scratch_len(chunk, n_tokens) } else { 0 };
        let panel = if many { self.panel } else { 0 };
        let tiles = if many && self.tiles.is_some() { Kernels::tile_scratch(n_many, MANY_CHUNK) } else { 0 };
        // As many as `convert` makes at a time.
        let rows = if self.row > 0 { ALONE.max(CHUNK * self.row) } else { 0 };
        for worker in &mut *workers {
            grow(&mut worker.panel, panel.max(sums), "weight panel")?;
            grow(&mut worker.rows, rows, "rows on their way to 8 bits")?;
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
    /// `[n_tokens, n_in]`, if any product takes it as it is.
    x: &'a [f32],
    n_in: usize,
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
    /// `source: [n_tokens, n_in]` for the products with `parts`, where the last tokens, `many`, take the prefill path.
    pub fn new(ctx: &mut Ctx<'_>, parts: &[Linear], source: Source<'a>, many: Range<usize>, n_in: usize) -> Self {
        let kernels = ctx.kernels;
        let (mut kept, mut terms, mut activations, mut blocks) = (false, 0, 0, 0);
        // Tokens in 8 bits: the few, and where quantised types have no other way the many.
        let mut in_8_bits = many.start;
        for part in parts {
            activations = activations.max(part.quantised_len());
            let way = part.way(kernels, Path::Many);
            kept |= many.start > 0 && !part.is_quantised() || !many.is_empty() && way != Way::Quantised;
            match way {
                Way::Tiles => terms = terms.max(part.tile_terms(kernels).unwrap_or(0)),
                Way::Quantised => in_8_bits = many.end,
                Way::Blocks => blocks = in_blocks(kernels, n_in),
                Way::Sgemm | Way::Few => (),
            }
        }
        let scratch = &mut ctx.workers[0];
        let mut quantised = Taken::out_of(&mut scratch.quantised, in_8_bits * activations);
        let mut blocks = Taken::out_of(&mut scratch.blocks, many.len() * blocks);
        let mut packed = Taken::out_of(&mut scratch.packed, Packed::len(many.len(), n_in, terms));
        let x = if quantised.len + packed.len > 0 {
            let scaling = Scaling::for_types(parts.iter().filter(|part| part.is_quantised()).map(|part| part.weight.dtype));
            let quantised = ColumnsMut::whole(quantised.get_mut(), activations, in_8_bits);
            let forms = Forms { n_in, kept, scaling, quantised, terms, packed: packed.get_mut() };
            convert(ctx, source, many.clone(), forms)
        } else {
            source.ready(ctx, n_in)
        };
        if blocks.len > 0 {
            to_blocks(ctx, &x[many.start * n_in..many.end * n_in], many.len(), n_in, blocks.get_mut());
            ctx.lap(Op::Quantise, 0);
        }
        Self { x, n_in, quantised, blocks, packed, terms, many }
    }

    /// These tokens, as they are.
    pub fn rows(&self, tokens: Range<usize>) -> &[f32] {
        &self.x[tokens.start * self.n_in..tokens.end * self.n_in]
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

/// The forms that are made of rows.
struct Forms<'a> {
    n_in: usize,
    /// Whether the rows are wanted as they are besides.
    kept: bool,
    scaling: Scaling,
    /// Those of the first tokens, a column each; without rows if no product is with 8 bits.
    quantised: ColumnsMut<'a, Activations>,
    /// Those of the prefill path, in `terms` bf16 numbers each; empty if no product is on a matrix unit.
    terms: usize,
    packed: &'a mut [Tile],
}

/// The rows of `source`, made if they are not, and their forms, a few tokens at a time; the last tokens, `many`, take the prefill path.
fn convert<'a>(ctx: &mut Ctx<'_>, source: Source<'a>, many: Range<usize>, forms: Forms<'_>) -> &'a [f32] {
    let Forms { n_in, kept, scaling, mut quantised, terms, packed } = forms;
    let kernels = ctx.kernels;
    let (op, maker, ready, rows) = match source {
        Source::Ready(x) => (Op::Quantise, None, x, &mut [][..]),
        Source::Made { maker, rows } => (maker.op(), Some(maker), &[][..], rows),
    };
    let mut made = ColumnsMut::whole(&mut *rows, usize::from(kept && maker.is_some()), many.end * n_in);
    let in_8_bits = quantised.cols().end;
    for (tokens, packed) in [(0..many.start, &mut [][..]), (many.clone(), packed)] {
        if tokens.is_empty() {
            continue;
        }
        let (n_packed, len) = (usize::from(!packed.is_empty()), packed.len());
        let chunk = if tokens.len() * n_in < ALONE {
            tokens.len()
        } else if n_packed > 0 {
            Packed::TOKENS
        } else {
            tokens.len().div_ceil(ctx.pool.threads()).min(CHUNK)
        };
        let cuts = (
            Cut::new(made.sub(tokens.start * n_in..tokens.end * n_in), chunk * n_in),
            Cut::new(quantised.sub(tokens.start.min(in_8_bits)..tokens.end.min(in_8_bits)), chunk),
            Cut::new(ColumnsMut::whole(packed, n_packed, len), Packed::len(chunk, n_in, terms)),
        );
        let tasks = tokens.len().div_ceil(chunk);
        ctx.pool.for_each_cut(ctx.workers, tasks, cuts, |worker, task, (mut made, mut quantised, mut packed)| {
            let these = tokens.start + task * chunk..tokens.end.min(tokens.start + (task + 1) * chunk);
            let x = match maker {
                None => &ready[these.start * n_in..these.end * n_in],
                Some(maker) => {
                    let rows = if kept { made.row_mut(0) } else { &mut worker.rows[..these.len() * n_in] };
                    rows.chunks_exact_mut(n_in).zip(these).for_each(|(row, t)| maker.make(kernels, t, row));
                    rows
                }
            };
            if quantised.rows() > 0 && !quantised.cols().is_empty() {
                kernels.quantise(x, n_in, scaling, &mut quantised);
            }
            if packed.rows() > 0 {
                kernels.pack_tiles(x, n_in, terms, packed.row_mut(0));
            }
        });
    }
    ctx.lap(op, 0);
    if maker.is_some() { rows } else { ready }
}

/// `x: [n_tokens, n_in]` in blocks of inputs.
fn to_blocks(ctx: &mut Ctx<'_>, x: &[f32], n_tokens: usize, n_in: usize, out: &mut [f32]) {
    let kernels = ctx.kernels;
    let block_len = n_tokens * kernels.block_inputs().unwrap_or(n_in);
    ctx.pool.for_each_rows(ctx.workers, out, block_len, 1, |_, first, blocks| kernels.to_blocks(x, n_in, first, blocks));
}
