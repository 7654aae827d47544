//! Causal attention over a cache of blocks.
//!
//! **Order of summation.** Positions are cut into spans of [`SPAN`], counted from the sequence's first token. Of each span that a
//! token sees, the weights are relative to the span's own largest score, and weighted values are added position by position (in 8 bits block
//! by block, each summed exactly); the spans are then merged in order. So a token's output has the same bits whoever computes it, in however many tasks, with
//! whatever other tokens and sequences.
//!
//! **Tasks.** The query heads that share a kv head, of a few tokens of a sequence: a [`Tile`]. They read its keys and values once. If
//! these are too few tasks for the threads, each span is a task.
#![forbid(unsafe_code)]

mod span;

use super::{Ctx, Worker, grow};
use crate::error::{Error, Result};
use crate::format::Float;
pub use crate::kernels::BLOCK;
use crate::kernels::{Kernels, bytes};
use crate::threads::ColumnsMut;
use span::SpanScratch;
use std::ops::Range;

/// Positions whose weights are computed together: few enough that their scores stay in cache, and that many threads find work in
/// a short context; enough that merging costs nothing beside them.
const SPAN: usize = 256;
/// Rows of queries that share a block while it is in cache.
const TILE_QUERIES: usize = 64;
/// With fewer tasks for each thread the spans become tasks.
const TASKS_PER_THREAD: usize = 4;
/// Merging fewer elements than this takes less time than a parallel region.
const MERGE_ALONE: usize = 1 << 13;

/// How keys and values are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// f32.
    #[default]
    F32,
    /// binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// 8 bits: of a key a scale for 32 elements, of a value one for all. Scores and weighted values are sums of integers.
    Q8_0,
}

impl KvType {
    /// The element type, if it is one of floats.
    pub fn float(self) -> Option<Float> {
        match self {
            KvType::F32 => Some(Float::F32),
            KvType::F16 => Some(Float::F16),
            KvType::Bf16 => Some(Float::Bf16),
            KvType::Q8_0 => None,
        }
    }

    /// Bytes of a head's keys, and of its values, in one block.
    pub fn head_bytes(self, head_dim: usize) -> (usize, usize) {
        match self.float().map(|dtype| BLOCK * head_dim * dtype.size()) {
            Some(bytes) => (bytes, bytes),
            None => (bytes::key_bytes(head_dim), bytes::value_bytes(head_dim)),
        }
    }
}

/// What attention needs to know of a layer.
#[derive(Clone, Copy)]
pub struct Heads {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Scores are q·k times this.
    pub scale: f32,
    /// Most positions that a token sees, its own counted in; `usize::MAX`: all.
    pub window: usize,
    /// Scores s become c·tanh(s / c).
    pub softcap: Option<f32>,
}

impl Heads {
    /// Query heads that share a kv head.
    fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Tokens of a tile, at most.
    fn tile(&self) -> usize {
        (TILE_QUERIES / self.group()).max(1)
    }

    /// The oldest position that the token at `position` sees.
    pub fn oldest_seen(&self, position: usize) -> usize {
        (position + 1).saturating_sub(self.window)
    }

    /// The positions of `span` that the token at `position` sees, counted from the span's first.
    fn visible(&self, position: usize, span: usize) -> Range<usize> {
        let within = |p: usize| p.saturating_sub(span * SPAN).min(SPAN);
        within(self.oldest_seen(position))..within(position + 1)
    }

    /// The spans that `n` tokens from `first` on see.
    fn spans(&self, first: usize, n: usize) -> Range<usize> {
        self.oldest_seen(first) / SPAN..(first + n).div_ceil(SPAN)
    }

    /// Elements of a query's row of sums.
    fn row(&self) -> usize {
        self.head_dim + 2
    }

    /// Makes room in a worker for [`attention`] of up to `n_tokens` tokens of a sequence.
    pub fn reserve(&self, worker: &mut Worker, n_tokens: usize) -> Result<()> {
        let queries = n_tokens.min(self.tile()) * self.group();
        let scratch = &mut worker.attention;
        scratch.inner.reserve(*self, queries)?;
        grow(&mut scratch.total, queries * self.row(), "attention sums")?;
        grow(&mut scratch.part, queries * self.row(), "attention sums")
    }
}

/// Scratch of one task; its queries are a tile's tokens' heads side by side.
#[derive(Default)]
pub(super) struct Scratch {
    inner: SpanScratch,
    /// A row of sums for each query (`[queries, head_dim + 2]`): weighted values, the largest score, the sum of weights.
    total: Vec<f32>,
    /// The same of one span.
    part: Vec<f32>,
}

/// Where the cached keys and values of some sequences are.
pub trait Blocks: Sync {
    /// How they are held.
    fn kv_type(&self, sequence: usize) -> KvType;
    /// One kv head's keys, `[head_dim, BLOCK]`, and values, `[BLOCK, head_dim]`, of a block; for 8 bits see [`crate::kernels::bytes`].
    fn block(&self, sequence: usize, block: usize, kv_head: usize) -> (&[u8], &[u8]);
}

/// A few consecutive tokens of one sequence.
#[derive(Clone, Copy)]
pub struct Tile {
    /// Which sequence.
    pub sequence: usize,
    /// The first token's position.
    pub first: usize,
}

/// How the tokens of a pass are shared out, the same in all layers, and room for the sums of spans that are tasks.
#[derive(Default)]
pub struct Plan {
    tiles: Vec<Tile>,
    /// Tile i's tokens are the rows `edges[i]..edges[i + 1]` of the pass.
    edges: Vec<usize>,
    /// Rows of sums for each tile, kv head and span.
    parts: Vec<f32>,
}

impl Plan {
    /// For sequences that feed `n` tokens each from position `first` on, in this order; the window of `heads` is the widest of any
    /// layer.
    pub fn make<I>(&mut self, heads: Heads, threads: usize, sequences: I) -> Result<()>
    where
        I: Iterator<Item = (usize, usize)> + Clone,
    {
        let size = heads.tile();
        let n_tiles = sequences.clone().map(|(_, n)| n.div_ceil(size)).sum::<usize>();
        self.tiles.clear();
        self.edges.clear();
        self.tiles.try_reserve(n_tiles).map_err(|_| Error::out_of_memory("the plan of a pass", n_tiles))?;
        self.edges.try_reserve(n_tiles + 1).map_err(|_| Error::out_of_memory("the plan of a pass", n_tiles))?;
        self.edges.push(0);
        let mut row = 0;
        for (sequence, (first, n)) in sequences.enumerate() {
            for start in (0..n).step_by(size) {
                row += size.min(n - start);
                self.tiles.push(Tile { sequence, first: first + start });
                self.edges.push(row);
            }
        }
        // In large steps, as a sequence grows.
        let spans = self.span_tasks(heads, threads).map_or(0, usize::next_power_of_two);
        let len = self.parts_len(heads, spans);
        grow(&mut self.parts, len, "attention sums of spans")
    }

    /// Calls `f(tile, its rows)` for each tile's rows of `y: [n_tokens, width]`.
    pub fn for_each_tile<F>(&self, ctx: &mut Ctx<'_>, y: &mut [f32], width: usize, f: F)
    where
        F: Fn(Tile, &mut ColumnsMut<'_>) + Sync,
    {
        ctx.pool.for_each_tile(ctx.workers, y, width, &self.edges, width, |_, tile, mut rows| f(self.tiles[tile], &mut rows));
    }

    /// If spans are to be tasks, the most that a tile has.
    fn span_tasks(&self, heads: Heads, threads: usize) -> Option<usize> {
        if threads == 1 || self.tiles.len() * heads.n_kv_heads >= TASKS_PER_THREAD * threads {
            return None;
        }
        let spans =
            self.tiles.iter().zip(self.edges.windows(2)).map(|(tile, rows)| heads.spans(tile.first, rows[1] - rows[0]).len());
        spans.max().filter(|&spans| spans > 1)
    }

    /// Elements of the sums of a tile's queries, at most.
    fn part_len(&self, heads: Heads) -> usize {
        self.edges.windows(2).map(|rows| rows[1] - rows[0]).max().unwrap_or(0) * heads.group() * heads.row()
    }

    fn parts_len(&self, heads: Heads, spans: usize) -> usize {
        self.tiles.len() * heads.n_kv_heads * spans * self.part_len(heads)
    }
}

/// `out: [n_tokens, n_heads * head_dim]` from the queries in the first `n_heads * head_dim` elements of each row of
/// `q: [n_tokens, q_width]`, for the tokens of `plan`; each sees the positions of its sequence up to its own (with a window, the
/// last of them), which `kv` holds.
pub fn attention(ctx: &mut Ctx<'_>, plan: &mut Plan, heads: Heads, q: &[f32], q_width: usize, kv: &impl Blocks, out: &mut [f32]) {
    match plan.span_tasks(heads, ctx.pool.threads()) {
        None => by_tiles(ctx, plan, heads, (q, q_width), kv, out),
        Some(spans) => by_spans(ctx, plan, heads, spans, (q, q_width), kv, out),
    }
}

/// A tile and a kv head are a task.
fn by_tiles(ctx: &mut Ctx<'_>, plan: &Plan, heads: Heads, q: (&[f32], usize), kv: &impl Blocks, out: &mut [f32]) {
    let (kernels, width, columns) = (ctx.kernels, heads.n_heads * heads.head_dim, heads.group() * heads.head_dim);
    ctx.pool.for_each_tile(ctx.workers, out, width, &plan.edges, columns, |worker, tile, mut out| {
        let task = Task::new(kernels, heads, plan, tile, out.cols().start / columns);
        let Scratch { inner, total, part } = &mut worker.attention;
        let (total, part) = (&mut total[..task.queries() * heads.row()], &mut part[..task.queries() * heads.row()]);
        task.take_queries(q, kv, inner);
        let mut spans = task.spans();
        if let Some(first) = spans.next() {
            task.attend(kv, first, inner, total);
        }
        for span in spans {
            task.attend(kv, span, inner, part);
            task.merge(total, part);
        }
        task.write(total, &mut out);
    });
}

/// A span of a tile and a kv head is a task; of `spans` spans, a tile may have fewer.
fn by_spans(
    ctx: &mut Ctx<'_>,
    plan: &mut Plan,
    heads: Heads,
    spans: usize,
    q: (&[f32], usize),
    kv: &impl Blocks,
    out: &mut [f32],
) {
    let (kernels, width, columns) = (ctx.kernels, heads.n_heads * heads.head_dim, heads.group() * heads.head_dim);
    let mut parts = std::mem::take(&mut plan.parts);
    let (len, plan_ref) = (plan.part_len(heads), &*plan);
    let used = &mut parts[..plan.parts_len(heads, spans)];
    ctx.pool.for_each_rows(ctx.workers, used, len, 1, |worker, part, to| {
        let (of_tile, span) = (part / spans, part % spans);
        let task = Task::new(kernels, heads, plan_ref, of_tile / heads.n_kv_heads, of_tile % heads.n_kv_heads);
        if let Some(span) = task.spans().nth(span) {
            let inner = &mut worker.attention.inner;
            task.take_queries(q, kv, inner);
            task.attend(kv, span, inner, &mut to[..task.queries() * heads.row()]);
        }
    });
    let mergers = if used.len() < MERGE_ALONE { 1 } else { ctx.workers.len() };
    ctx.pool.for_each_tile(&mut ctx.workers[..mergers], out, width, &plan.edges, columns, |worker, tile, mut out| {
        let task = Task::new(kernels, heads, plan_ref, tile, out.cols().start / columns);
        let rows = task.queries() * heads.row();
        let mut parts = used[(tile * heads.n_kv_heads + task.kv_head) * spans * len..].chunks_exact(len).take(task.spans().len());
        let total = &mut worker.attention.total[..rows];
        if let Some(first) = parts.next() {
            total.copy_from_slice(&first[..rows]);
        }
        parts.for_each(|part| task.merge(total, &part[..rows]));
        task.write(total, &mut out);
    });
    plan.parts = parts;
}

/// The query heads that share a kv head, of the tokens of a tile.
struct Task {
    kernels: &'static Kernels,
    heads: Heads,
    kv_head: usize,
    sequence: usize,
    /// The first token's position.
    first: usize,
    /// The tokens' rows in the pass.
    rows: Range<usize>,
}

impl Task {
    fn new(kernels: &'static Kernels, heads: Heads, plan: &Plan, tile: usize, kv_head: usize) -> Self {
        let Tile { sequence, first } = plan.tiles[tile];
        Self { kernels, heads, kv_head, sequence, first, rows: plan.edges[tile]..plan.edges[tile + 1] }
    }
    fn queries(&self) -> usize {
        self.rows.len() * self.heads.group()
    }
    fn spans(&self) -> Range<usize> {
        self.heads.spans(self.first, self.rows.len())
    }

    /// Adds the sums of the span that follows.
    fn merge(&self, total: &mut [f32], part: &[f32]) {
        let dim = self.heads.head_dim;
        for (total, part) in total.chunks_exact_mut(dim + 2).zip(part.chunks_exact(dim + 2)) {
            let (before, now) = (total[dim], part[dim]);
            if now == f32::NEG_INFINITY {
                continue; // it saw nothing of this span
            }
            if before == f32::NEG_INFINITY {
                total.copy_from_slice(part);
                continue;
            }
            let max = before.max(now);
            let (before, now) = if before > now { (1.0, (now - max).exp()) } else { ((before - max).exp(), 1.0) };
            self.kernels.blend(&mut total[..dim], before, &part[..dim], now);
            total[dim] = max;
            total[dim + 1] = total[dim + 1] * before + part[dim + 1] * now;
        }
    }

    /// Sums to outputs.
    fn write(&self, total: &[f32], out: &mut ColumnsMut<'_>) {
        let (dim, group) = (self.heads.head_dim, self.heads.group());
        for (t, sums) in total.chunks_exact(group * self.heads.row()).enumerate() {
            for (out, sums) in out.row_mut(t).chunks_exact_mut(dim).zip(sums.chunks_exact(dim + 2)) {
                out.iter_mut().zip(sums).for_each(|(y, x)| *y = x / sums[dim + 1]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
