//! Causal attention over a cache of blocks, with online softmax: scores, weights and sum are carried from block to block, so a
//! token's output is summed block by block in order, whatever else is computed beside it.
#![forbid(unsafe_code)]

use super::{Ctx, Worker, grow};
use crate::error::{Error, Result};
use crate::format::Float;
use crate::kernels::{Kernels, Softmax};
use crate::threads::ColumnsMut;
use std::ops::Range;

/// Positions of one cache block.
pub const BLOCK: usize = 64;

/// Tokens that pass over a block together while it is in the nearest cache.
const TILE: usize = 16;

/// Sizes of one attention.
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
    /// Most positions that a token sees, its own counted in; `None`: all.
    pub window: Option<usize>,
    /// Scores s become c·tanh(s / c).
    pub softcap: Option<f32>,
    /// Element type of keys and values.
    pub kv: Float,
}

impl Heads {
    /// Query heads of one task: those that share a kv head read its blocks once, unless that left threads without work.
    fn per_task(&self, threads: usize) -> usize {
        if self.n_kv_heads < threads { 1 } else { self.n_heads / self.n_kv_heads }
    }

    /// The oldest position that the token at `position` sees.
    pub fn oldest_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The positions of `block` that the token at `position` sees, counted from the block's first.
    fn visible(&self, position: usize, block: usize) -> Range<usize> {
        let within = |p: usize| p.saturating_sub(block * BLOCK).min(BLOCK);
        within(self.oldest_seen(position))..within(position + 1)
    }

    /// Makes room in a worker for [`attention`] of up to `n_tokens` tokens.
    pub fn reserve(&self, worker: &mut Worker, n_tokens: usize) -> Result<()> {
        let queries = n_tokens.min(TILE) * (self.n_heads / self.n_kv_heads);
        let scratch = &mut worker.attention;
        grow(&mut scratch.scores, queries * BLOCK, "attention scores")?;
        grow(&mut scratch.q, queries * self.head_dim, "attention queries")?;
        grow(&mut scratch.acc, queries * self.head_dim, "attention outputs")?;
        let more = queries.saturating_sub(scratch.states.len());
        scratch.states.try_reserve_exact(more).map_err(|_| Error::out_of_memory("attention states", more))?;
        scratch.states.resize(queries.max(scratch.states.len()), Softmax::EMPTY);
        Ok(())
    }
}

/// Scratch of one task: a tile's queries are its tokens' heads side by side.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[queries, BLOCK]`.
    scores: Vec<f32>,
    /// Scaled queries, `[queries, head_dim]`.
    q: Vec<f32>,
    /// Sums of weighted values, `[queries, head_dim]`.
    acc: Vec<f32>,
    /// `[queries]`.
    states: Vec<Softmax>,
}

/// Where the cached keys and values are: block `b` of kv head `h`, each `[BLOCK, head_dim]`.
pub trait Blocks: Sync {
    /// Keys and values of one block of one kv head.
    fn block(&self, block: usize, kv_head: usize) -> (&[u8], &[u8]);
}

/// `out: [n_tokens, n_heads * head_dim]` from the queries in the first `n_heads * head_dim` elements of each row of
/// `q: [n_tokens, q_width]`; token t is position `first + t` and sees the positions up to its own (with a window, the last
/// of them), which `kv` holds.
pub fn attention(ctx: &mut Ctx<'_>, heads: Heads, q: &[f32], q_width: usize, first: usize, kv: &impl Blocks, out: &mut [f32]) {
    let width = heads.n_heads * heads.head_dim;
    let n_tokens = out.len() / width;
    let per_task = heads.per_task(ctx.pool.threads());
    let kernels = ctx.kernels;
    let task = |worker: &mut Worker, mut out: ColumnsMut<'_>| {
        for tile in (0..n_tokens).step_by(TILE) {
            let tokens = tile..n_tokens.min(tile + TILE);
            attend_tile(kernels, heads, (q, q_width), first, tokens, kv, &mut worker.attention, &mut out);
        }
    };
    ctx.pool.for_each_columns(ctx.workers, out, n_tokens, width, per_task * heads.head_dim, task);
}

/// The heads that `out`'s columns are, of a few tokens.
#[allow(clippy::too_many_arguments)]
fn attend_tile(
    kernels: &Kernels,
    heads: Heads,
    (q, q_width): (&[f32], usize),
    first: usize,
    tokens: Range<usize>,
    kv: &impl Blocks,
    scratch: &mut Scratch,
    out: &mut ColumnsMut<'_>,
) {
    let Heads { n_heads, n_kv_heads, head_dim, scale, softcap, kv: kv_type, .. } = heads;
    let (cols, n_tokens) = (out.cols(), tokens.len());
    let group = cols.len() / head_dim;
    let kv_head = cols.start / head_dim / (n_heads / n_kv_heads);
    let queries = n_tokens * group;
    let (all_q, all_acc) = (&mut scratch.q[..queries * head_dim], &mut scratch.acc[..queries * head_dim]);
    let states = &mut scratch.states[..queries];
    states.fill(Softmax::EMPTY);
    for (query, t) in all_q.chunks_exact_mut(cols.len()).zip(tokens.clone()) {
        query.iter_mut().zip(&q[t * q_width..][cols.clone()]).for_each(|(y, x)| *y = x * scale);
    }
    for block in heads.oldest_seen(first + tokens.start) / BLOCK..=(first + tokens.end - 1) / BLOCK {
        let (keys, values) = kv.block(block, kv_head);
        // Positions of this block that the tile's token `at` sees: most often all of them, then the tokens go together.
        let visible = |at: usize| heads.visible(first + tokens.start + at, block);
        let mut at = 0;
        while at < n_tokens {
            let seen = visible(at);
            let end = (at + 1..n_tokens).find(|&next| visible(next) != seen).unwrap_or(n_tokens);
            let bytes = seen.start * head_dim * kv_type.size()..seen.end * head_dim * kv_type.size();
            let these = at * group..end * group;
            let elements = these.start * head_dim..these.end * head_dim;
            let (q, acc) = (&all_q[elements.clone()], &mut all_acc[elements]);
            let (k, v) = (&keys[bytes.clone()], &values[bytes]);
            kernels.attend(kv_type, softcap, q, k, v, seen.len(), &mut scratch.scores, &mut states[these], acc);
            at = end;
        }
    }
    for ((acc, states), t) in all_acc.chunks_exact(cols.len()).zip(states.chunks_exact(group)).zip(tokens) {
        let rows = out.row_mut(t).chunks_exact_mut(head_dim).zip(acc.chunks_exact(head_dim));
        for ((row, acc), state) in rows.zip(states) {
            row.iter_mut().zip(acc).for_each(|(y, a)| *y = a / state.sum);
        }
    }
}
