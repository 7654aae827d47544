//! The sums of one span: scores, softmax, weighted values.
#![forbid(unsafe_code)]

use super::{BLOCK, Blocks, Heads, KvType, SPAN, Task};
use crate::error::Result;
use crate::format::{DType, Float};
use crate::kernels::{BlockProduct, ByteProduct, Kernels, Softmax, bytes, bytes_of};
use crate::ops::{grow, lengthen};
use crate::threads::ColumnsMut;
use std::ops::Range;

/// From so many rows of queries on, a block of floats is converted to f32 once, not for every few of them.
const CONVERT_FROM: usize = 16;
/// How many blocks of a head's keys or values ahead memory is asked for them; in 8 bits, all values' scales are read before the first value.
const AHEAD: usize = 2;
const BYTES_AHEAD: usize = SPAN / BLOCK;
/// Scores are computed for whole vectors of positions, of any instruction set.
const LANES: usize = 16;

/// What a span needs.
#[derive(Default)]
pub(super) struct SpanScratch {
    /// Scaled queries, `[queries, head_dim]`.
    q: Vec<f32>,
    /// `[queries, SPAN]`.
    scores: Vec<f32>,
    /// A block's keys or values in f32.
    block: Vec<f32>,
    words: Words,
}

/// What keys and values in 8 bits are multiplied by.
#[derive(Default)]
struct Words {
    /// Queries, `[queries, head_dim rounded up to pairs]`, and their scales.
    q: Vec<i16>,
    q_scales: Vec<f32>,
    /// Weights, `[queries, SPAN]`, and their scales.
    weights: Vec<i16>,
    scales: Vec<f32>,
}

impl SpanScratch {
    /// Makes room for so many queries.
    pub fn reserve(&mut self, heads: Heads, queries: usize) -> Result<()> {
        let pairs = heads.head_dim.next_multiple_of(2);
        grow(&mut self.scores, queries * SPAN, "attention scores")?;
        grow(&mut self.q, queries * heads.head_dim, "attention queries")?;
        grow(&mut self.block, BLOCK * heads.head_dim, "a block of keys or values")?;
        grow(&mut self.words.q_scales, queries, "attention queries")?;
        grow(&mut self.words.scales, queries, "attention weights")?;
        lengthen(&mut self.words.q, queries * pairs, 0, "attention queries")?;
        lengthen(&mut self.words.weights, queries * SPAN, 0, "attention weights")
    }
}

impl Task {
    /// The task's queries, scaled.
    pub(super) fn take_queries(&self, (q, q_width): (&[f32], usize), kv: &impl Blocks, scratch: &mut SpanScratch) {
        let dim = self.heads.head_dim;
        let columns = self.heads.group() * dim;
        for (to, row) in scratch.q.chunks_exact_mut(columns).zip(self.rows.clone()) {
            let q = &q[row * q_width + self.kv_head * columns..][..columns];
            to.iter_mut().zip(q).for_each(|(y, x)| *y = x * self.heads.scale);
        }
        if kv.kv_type(self.sequence) == KvType::Q8_0 {
            let Words { q: words, q_scales, .. } = &mut scratch.words;
            let rows = words.chunks_exact_mut(dim.next_multiple_of(2)).zip(q_scales).zip(scratch.q.chunks_exact(dim));
            for ((words, scale), q) in rows.take(self.queries()) {
                *scale = self.kernels.to_words(q, &mut words[..dim]);
                words[dim..].fill(0);
            }
        }
    }

    /// The sums of one span, `[queries, head_dim + 2]`.
    pub(super) fn attend(&self, kv: &impl Blocks, span: usize, scratch: &mut SpanScratch, sums: &mut [f32]) {
        let span = Span::new(self, kv, span);
        let SpanScratch { q, scores, block, words } = scratch;
        let scores = &mut scores[..self.queries() * SPAN];
        let dtype = kv.kv_type(self.sequence).float();
        match dtype {
            Some(dtype) => span.score(dtype, q, block, scores),
            None => span.score_bytes(words, scores),
        }
        self.weigh(&span, scores, sums);
        match dtype {
            Some(dtype) => span.add_values(dtype, block, scores, sums),
            None => span.add_byte_values(words, scores, sums),
        }
    }

    /// Scores to weights, with their maximum and sum; the sums of values are 0.
    fn weigh<B: Blocks>(&self, span: &Span<'_, B>, scores: &mut [f32], sums: &mut [f32]) {
        let Heads { head_dim, softcap, .. } = self.heads;
        let rows = scores.chunks_exact_mut(SPAN).zip(sums.chunks_exact_mut(self.heads.row()));
        for (i, (scores, sums)) in rows.enumerate() {
            let scores = &mut scores[span.seen(i / self.heads.group())];
            if let Some(cap) = softcap {
                self.kernels.softcap(scores, cap);
            }
            let Softmax { max, sum } = self.kernels.softmax(scores);
            sums[..head_dim].fill(0.0);
            (sums[head_dim], sums[head_dim + 1]) = (max, sum);
        }
    }
}

/// A span of a task.
struct Span<'a, B> {
    task: &'a Task,
    kv: &'a B,
    number: usize,
    /// What any of the tokens sees, and what all of them do; positions and blocks are counted from the span's first.
    any: Range<usize>,
    all: Range<usize>,
    blocks: Range<usize>,
}

impl<'a, B: Blocks> Span<'a, B> {
    fn new(task: &'a Task, kv: &'a B, number: usize) -> Self {
        let seen = |t: usize| task.heads.visible(task.first + t, number);
        let (first, last) = (seen(0), seen(task.rows.len() - 1));
        let any = first.start..last.end;
        let blocks = any.start / BLOCK..any.end.div_ceil(BLOCK);
        Self { task, kv, number, any, all: last.start..first.end, blocks }
    }

    /// What token t sees.
    fn seen(&self, t: usize) -> Range<usize> {
        self.task.heads.visible(self.task.first + t, self.number)
    }

    /// A block's keys and values.
    fn block(&self, b: usize) -> (&'a [u8], &'a [u8]) {
        self.kv.block(self.task.sequence, self.number * SPAN / BLOCK + b, self.task.kv_head)
    }

    /// What is read i-th: this span's keys, its values, and then the keys behind it, or where this head's end, the next one's from the beginning.
    fn piece(&self, i: usize) -> Option<&'a [u8]> {
        let (task, n, before) = (self.task, self.blocks.len(), self.number * SPAN / BLOCK);
        match i / n {
            0 => Some(self.block(self.blocks.start + i).0),
            1 => Some(self.block(self.blocks.start + i - n).1),
            _ => {
                let (b, end) = (before + self.blocks.end + i - 2 * n, (task.first + task.rows.len()).div_ceil(BLOCK));
                let next = b - b.min(end) + task.heads.oldest_seen(task.first) / BLOCK;
                if b < end {
                    Some(self.kv.block(task.sequence, b, task.kv_head).0)
                } else if task.kv_head + 1 < task.heads.n_kv_heads && next < end {
                    Some(self.kv.block(task.sequence, next, task.kv_head + 1).0)
                } else {
                    None
                }
            }
        }
    }

    /// The positions of block b that have scores.
    fn scored(&self, b: usize) -> Range<usize> {
        b * BLOCK..self.any.end.next_multiple_of(LANES).min((b + 1) * BLOCK)
    }

    /// `scores: [queries, SPAN]` of the scaled queries `q`, by keys of `dtype`.
    fn score(&self, dtype: Float, q: &[f32], converted: &mut [f32], scores: &mut [f32]) {
        let (task, dim) = (self.task, self.task.heads.head_dim);
        for (i, b) in self.blocks.clone().enumerate() {
            let keys = Held::new(task.kernels, dtype, self.block(b).0, self.piece(i + AHEAD), task.queries(), converted);
            let product = keys.product(BLOCK, dim, (q, dim), false);
            let mut out = ColumnsMut::whole(scores, task.queries(), SPAN);
            task.kernels.multiply_block(keys.dtype, &product, &mut out.sub(self.scored(b)));
        }
    }

    /// Adds the values, of `dtype`, that the weights are those of.
    fn add_values(&self, dtype: Float, converted: &mut [f32], weights: &[f32], sums: &mut [f32]) {
        let (task, dim, row) = (self.task, self.task.heads.head_dim, self.task.heads.row());
        let (group, n_tokens) = (task.heads.group(), task.rows.len());
        for (i, b) in self.blocks.clone().enumerate() {
            let values = Held::new(
                task.kernels,
                dtype,
                self.block(b).1,
                self.piece(self.blocks.len() + i + AHEAD),
                task.queries(),
                converted,
            );
            let mut add = |tokens: Range<usize>, positions: Range<usize>| {
                if positions.start >= positions.end {
                    return;
                }
                let x = &weights[tokens.start * group * SPAN + positions.start..];
                let of_block = positions.start - b * BLOCK;
                let product = BlockProduct {
                    w: &values.data[of_block * dim * values.dtype.size()..],
                    // The pieces at the edges ask for nothing.
                    next: values.next.filter(|_| tokens.len() == n_tokens),
                    ..values.product(dim, positions.len(), (x, SPAN), true)
                };
                let sums = &mut sums[tokens.start * group * row..];
                let mut out = ColumnsMut::whole(sums, tokens.len() * group, row);
                task.kernels.multiply_block(values.dtype, &product, &mut out.sub(0..dim));
            };
            // In the order of the positions: those that all tokens see are added for all of them together.
            let of_block = |range: Range<usize>| range.start.max(b * BLOCK)..range.end.min((b + 1) * BLOCK);
            let all = Some(of_block(self.all.clone())).filter(|all| all.start < all.end).unwrap_or(0..0);
            for t in 0..n_tokens {
                let seen = of_block(self.seen(t));
                add(t..t + 1, seen.start..seen.end.min(all.start));
            }
            add(0..n_tokens, all.clone());
            for t in 0..n_tokens {
                let seen = of_block(self.seen(t));
                add(t..t + 1, seen.start.max(all.end)..seen.end);
            }
        }
    }

    /// [`Self::score`] by keys in 8 bits.
    fn score_bytes(&self, words: &Words, scores: &mut [f32]) {
        let (task, dim) = (self.task, self.task.heads.head_dim);
        for (i, b) in self.blocks.clone().enumerate() {
            let product = ByteProduct {
                block: self.block(b).0,
                head_dim: dim,
                x: &words.q,
                ld_x: dim.next_multiple_of(2),
                x_scales: &words.q_scales[..task.queries()],
                next: self.piece(i + BYTES_AHEAD),
            };
            let mut out = ColumnsMut::whole(scores, task.queries(), SPAN);
            task.kernels.multiply_keys(&product, &mut out.sub(self.scored(b)));
        }
    }

    /// [`Self::add_values`] of 8 bits. A position that a token does not see weighs 0.
    fn add_byte_values(&self, words: &mut Words, weights: &mut [f32], sums: &mut [f32]) {
        let (task, dim, row) = (self.task, self.task.heads.head_dim, self.task.heads.row());
        let mut scales = [0.0; SPAN];
        for b in self.blocks.clone() {
            bytes::value_scales(self.block(b).1, &mut scales[b * BLOCK..][..BLOCK]);
        }
        let within = self.blocks.start * BLOCK..self.blocks.end * BLOCK;
        let rows = weights.chunks_exact_mut(SPAN).zip(words.weights.chunks_exact_mut(SPAN)).zip(&mut words.scales);
        for (i, ((weights, words), scale)) in rows.enumerate() {
            let seen = self.seen(i / task.heads.group());
            task.kernels.mul(&mut weights[seen.clone()], &scales[seen.clone()]);
            words[within.start..seen.start].fill(0);
            *scale = task.kernels.to_words(&weights[seen.clone()], &mut words[seen.clone()]);
            words[seen.end..within.end].fill(0);
        }
        for (i, b) in self.blocks.clone().enumerate() {
            let product = ByteProduct {
                block: self.block(b).1,
                head_dim: dim,
                x: &words.weights[b * BLOCK..],
                ld_x: SPAN,
                x_scales: &words.scales[..task.queries()],
                next: self.piece(self.blocks.len() + i + BYTES_AHEAD),
            };
            let mut out = ColumnsMut::whole(sums, task.queries(), row);
            task.kernels.multiply_values(&product, &mut out.sub(0..dim));
        }
    }
}

/// A block's keys or values as products of floats read them: where they lie, or in f32.
struct Held<'a> {
    dtype: Float,
    data: &'a [u8],
    /// What will be read soon, where it is to be asked for.
    next: Option<&'a [u8]>,
}

impl<'a> Held<'a> {
    fn new(
        kernels: &Kernels,
        dtype: Float,
        data: &'a [u8],
        next: Option<&'a [u8]>,
        queries: usize,
        converted: &'a mut [f32],
    ) -> Self {
        if queries < CONVERT_FROM || dtype == Float::F32 {
            return Self { dtype, data, next };
        }
        kernels.unpack(DType::Float(dtype), data, 0, &mut converted[..data.len() / dtype.size()]);
        Self { dtype: Float::F32, data: bytes_of(converted), next: None }
    }

    /// With `x`, and the elements from one of its rows to the next.
    fn product(&self, ld_w: usize, n_in: usize, (x, ld_x): (&'a [f32], usize), add: bool) -> BlockProduct<'a> {
        BlockProduct { w: self.data, ld_w, n_in, x, ld_x, add, next: self.next }
    }
}
