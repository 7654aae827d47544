//! Causal attention over a cache of blocks, with online softmax: scores, weights and sum are carried from block to block, so a
//! token's output is summed block by block in order, whatever else is computed beside it.
#![forbid(unsafe_code)]

use super::{Ctx, Worker};
use crate::format::DType;
use crate::kernels::Softmax;
use crate::threads::ColumnsMut;

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
    /// Element type of keys and values.
    pub kv: DType,
}

impl Heads {
    /// Elements of a worker's scratch that [`attention`] needs.
    pub fn scratch_len(&self) -> usize {
        BLOCK + TILE * self.head_dim
    }
}

/// Where the cached keys and values are: block `b` of kv head `h`, each `[BLOCK, head_dim]`.
pub trait Blocks: Sync {
    /// Keys and values of one block of one kv head.
    fn block(&self, block: usize, kv_head: usize) -> (&[u8], &[u8]);
}

/// `out: [n_tokens, n_heads * head_dim]` from the queries in the first `n_heads * head_dim` elements of each row of
/// `q: [n_tokens, q_width]`; token t is position `first + t` and sees positions `0..=first + t`, which `kv` holds.
pub fn attention(ctx: &mut Ctx<'_>, heads: Heads, q: &[f32], q_width: usize, first: usize, kv: &impl Blocks, out: &mut [f32]) {
    let kernels = ctx.kernels;
    let Heads { n_heads, n_kv_heads, head_dim, scale, kv: kv_type } = heads;
    let width = n_heads * head_dim;
    let n_tokens = out.len() / width;
    // One task is one query head of all tokens.
    let task = |worker: &mut Worker, mut out: ColumnsMut<'_>| {
        let head = out.cols().start / head_dim;
        let kv_head = head / (n_heads / n_kv_heads);
        let (scores, queries) = worker.attention.split_at_mut(BLOCK);
        for tile in (0..n_tokens).step_by(TILE) {
            let tokens = tile..n_tokens.min(tile + TILE);
            let mut states = [Softmax::EMPTY; TILE];
            for (query, t) in queries.chunks_exact_mut(head_dim).zip(tokens.clone()) {
                let from = &q[t * q_width + head * head_dim..][..head_dim];
                query.iter_mut().zip(from).for_each(|(y, x)| *y = x * scale);
                out.row_mut(t).fill(0.0);
            }
            for block in 0..=(first + tokens.end - 1) / BLOCK {
                let (keys, values) = kv.block(block, kv_head);
                for ((t, query), state) in tokens.clone().zip(queries.chunks_exact(head_dim)).zip(&mut states) {
                    let visible = (first + t + 1).saturating_sub(block * BLOCK).min(BLOCK);
                    if visible > 0 {
                        let bytes = visible * head_dim * kv_type.size();
                        let (keys, values) = (&keys[..bytes], &values[..bytes]);
                        kernels.attend(kv_type, query, keys, values, visible, scores, state, out.row_mut(t));
                    }
                }
            }
            for (t, state) in tokens.zip(states) {
                out.row_mut(t).iter_mut().for_each(|y| *y /= state.sum);
            }
        }
    };
    ctx.pool.for_each_columns(ctx.workers, out, n_tokens, width, head_dim, task);
}
