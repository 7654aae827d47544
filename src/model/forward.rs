//! The one decoder forward, for every family: what differs between families is in the [`Spec`](crate::arch::Spec).
#![forbid(unsafe_code)]

use super::kv::KvBlocks;
use super::{Block, FeedForward, Layer, Model};
use crate::arch::{FusedQkv, Mlp, QkNorm, Residual, Spec};
use crate::error::{Error, Result};
use crate::ops::attention::{Blocks, Heads, KvType, Plan, attention};
use crate::ops::elementwise::{Maker, QkvShape, Source, add, scale, shape_qkv, softcap};
use crate::ops::experts::Routing;
use crate::ops::linear::{Linear, linear};
use crate::ops::profile::{Op, Profile};
use crate::ops::rope::{RopeTable, rope};
use crate::ops::{Ctx, FEW_TOKENS, Path, Worker, grow};
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tokens of a prefill that pass through the layers together.
pub const MAX_CHUNK: usize = 512;

/// The activations of one pass of up to [`MAX_CHUNK`] tokens; they grow to the largest pass so far.
#[derive(Default)]
pub struct Scratch {
    workers: Vec<Worker>,
    plan: Plan,
    /// The residual stream, `[n_tokens, hidden_size]`.
    h: Vec<f32>,
    /// A sub-layer's normed input, `[n_tokens, hidden_size]`.
    x: Vec<f32>,
    /// Queries, keys and values, `[n_tokens, q_size + 2 kv_size]`.
    qkv: Vec<f32>,
    /// Attention's heads, `[n_tokens, q_size]`.
    attended: Vec<f32>,
    /// The attention sub-layer's output, `[n_tokens, hidden_size]`.
    y: Vec<f32>,
    mlp: MlpScratch,
    /// Logits of several sequences before they are dealt out, `[FEW_TOKENS, vocab_size]`.
    logits: Vec<f32>,
    /// Where the time goes, if the model was loaded to tell.
    pub profile: Profile,
}

/// The part of the feed-forward sub-layer.
#[derive(Default)]
struct MlpScratch {
    /// Gate and up (or up alone), `[n_tokens, (2) ffn_size]`.
    up: Vec<f32>,
    /// act(gate) · up, or act(up), `[n_tokens, ffn_size]`.
    inner: Vec<f32>,
    /// The sub-layer's output, `[n_tokens, hidden_size]`.
    z: Vec<f32>,
    /// Of experts: the router's logits, `[n_tokens, n_experts]`.
    logits: Vec<f32>,
    routing: Routing,
    /// The input of one expert's tokens, then its output, `[n_tokens, hidden_size]` each.
    gathered: Vec<f32>,
    from_expert: Vec<f32>,
}

impl Scratch {
    /// Makes room for the logits of passes of more than one sequence.
    pub fn reserve_many(&mut self, model: &Model) -> Result<()> {
        grow(&mut self.logits, FEW_TOKENS * model.spec.vocab_size, "logits")
    }

    /// Makes ready for a pass of `model` with sequences that feed `n` tokens each from position `first` on; the first `few` tokens of all
    /// take the few-token path.
    pub fn reserve<I>(&mut self, model: &Model, few: usize, sequences: I) -> Result<()>
    where
        I: Iterator<Item = (usize, usize)> + Clone,
    {
        let n_tokens = sequences.clone().map(|(_, n)| n).sum::<usize>();
        let heads = widest_heads(&model.spec);
        self.plan.make(heads, model.pool.threads(), sequences)?;
        let spec = &model.spec;
        let qkv = spec.q_size() + 2 * spec.kv_size();
        for (buffer, width) in [
            (&mut self.h, spec.hidden_size),
            (&mut self.x, spec.hidden_size),
            (&mut self.y, spec.hidden_size),
            (&mut self.qkv, qkv),
            (&mut self.attended, spec.q_size()),
        ] {
            grow(buffer, n_tokens * width, "activations")?;
        }
        self.mlp.reserve(spec, n_tokens)?;
        if self.workers.is_empty() {
            self.workers.try_reserve_exact(model.pool.threads()).map_err(|_| Error::out_of_memory("scratch", 0))?;
            self.workers.resize_with(model.pool.threads(), Worker::default);
        }
        for worker in &mut self.workers {
            worker.reserve(spec.hidden_size.max(qkv))?;
            heads.reserve(worker, n_tokens)?;
        }
        model.linear_needs.reserve(&mut self.workers, few, n_tokens)
    }
}

impl MlpScratch {
    fn reserve(&mut self, spec: &Spec, n_tokens: usize) -> Result<()> {
        let gated = usize::from(spec.mlp == Mlp::Gated);
        let ffn_size = spec.ffn_size.max(spec.experts.map_or(0, |e| e.ffn_size));
        grow(&mut self.up, n_tokens * ffn_size * (1 + gated), "activations")?;
        grow(&mut self.inner, n_tokens * ffn_size, "activations")?;
        grow(&mut self.z, n_tokens * spec.hidden_size, "activations")?;
        if let Some(experts) = spec.experts {
            grow(&mut self.logits, n_tokens * experts.n_experts, "activations")?;
            grow(&mut self.gathered, n_tokens * spec.hidden_size, "activations")?;
            grow(&mut self.from_expert, n_tokens * spec.hidden_size, "activations")?;
            self.routing.reserve(n_tokens, experts.n_used, experts.n_experts)?;
        }
        Ok(())
    }
}

/// Which logits a pass writes.
pub enum Logits<'a> {
    /// None.
    None,
    /// The last token's, `[vocab_size]`.
    Last(&'a mut [f32]),
    /// Every token's, `[n_tokens, vocab_size]`.
    All(&'a mut [f32]),
}

impl<'a> Logits<'a> {
    /// Those of the next `n` of `left` tokens; what stays is of the others. A row has `vocab` elements.
    pub fn take(&mut self, n: usize, left: usize, vocab: usize) -> Logits<'a> {
        match self {
            Logits::Last(_) if n == left => std::mem::replace(self, Logits::None),
            Logits::None | Logits::Last(_) => Logits::None,
            Logits::All(rows) => {
                let (these, rest) = std::mem::take(rows).split_at_mut(n * vocab);
                *rows = rest;
                Logits::All(these)
            }
        }
    }
}

/// One sequence's part of a pass.
pub struct Sequence<'a> {
    /// Writable at the tokens' positions; afterwards holds their keys and values.
    pub kv: &'a mut KvBlocks,
    /// The RoPE tables that it uses.
    pub ropes: &'a [RopeTable],
    /// The path of the step that this is a part of.
    pub path: Path,
    /// The tokens.
    pub tokens: &'a [u32],
    /// The first one's position.
    pub first: usize,
    /// What is written of its logits.
    pub logits: Logits<'a>,
    /// Set from another thread to end the step.
    pub cancel: &'a AtomicBool,
    /// It was ended: its keys, values and logits are worth nothing.
    pub cancelled: bool,
}

/// Passes the tokens of `sequences` through the model together, for which `scratch` has been reserved; those of the few-token path
/// come first. What is computed of a sequence does not depend on the others, but for products by BLAS: where those are, a sequence of the
/// prefill path is alone in its pass.
pub fn forward(model: &Model, sequences: &mut [Sequence<'_>], scratch: &mut Scratch) {
    debug_assert!(sequences.is_sorted_by_key(|sequence| sequence.path == Path::Many));
    let spec = &model.spec;
    let n_tokens = sequences.iter().map(|sequence| sequence.tokens.len()).sum();
    let few = sequences.iter().map(|sequence| sequence.path.few_of(sequence.tokens.len())).sum();
    let (hidden, q_size, kv_size) = (spec.hidden_size, spec.q_size(), spec.kv_size());
    let width = q_size + 2 * kv_size;
    let Scratch { workers, plan, h, x, qkv, attended, y, mlp: mlp_scratch, logits, profile } = scratch;
    let profile = model.profiled.then_some(profile);
    let ctx = &mut Ctx { kernels: model.kernels, pool: &model.pool, workers, few, profile };
    let (h, x, y) = (&mut h[..n_tokens * hidden], &mut x[..n_tokens * hidden], &mut y[..n_tokens * hidden]);
    let (qkv, attended) = (&mut qkv[..n_tokens * width], &mut attended[..n_tokens * q_size]);

    if let Some(profile) = &mut ctx.profile {
        profile.begin();
    }
    let mut rows = h.chunks_exact_mut(hidden);
    sequences.iter().for_each(|sequence| embed(model, ctx, sequence, rows.by_ref(), x));
    let row_bytes = [Some(&model.embedding), model.positions.as_ref()].into_iter().flatten().map(Linear::row_bytes);
    ctx.lap(Op::Embedding, n_tokens * row_bytes.sum::<usize>());
    for (i, layer) in model.layers.iter().enumerate() {
        sequences.iter_mut().for_each(|s| s.cancelled |= s.cancel.swap(false, Ordering::Relaxed));
        if sequences.iter().all(|sequence| sequence.cancelled) {
            return;
        }
        // y = attention(norm(h)): each of the norms before and behind is there or is not.
        let input = Source::normed(layer.attention_norm.as_ref(), h, x);
        linear(ctx, Op::Qkv, &layer.qkv, input, n_tokens, qkv);
        shape_qkv(ctx, &qkv_shape(spec, layer), qkv);
        attend(ctx, spec, i, plan, sequences, qkv, attended);
        linear(ctx, Op::AttentionOutput, slice::from_ref(&layer.o), Source::Ready(attended), n_tokens, y);

        // h += y, then h += mlp(norm(h)); or, side by side, h += y + mlp(norm(h)) of the same h.
        let add_attention = |ctx: &mut Ctx<'_>, y: &mut [f32], h: &mut [f32]| {
            add(ctx, layer.attention_post_norm.as_ref(), spec.residual_scale, y, h, hidden);
        };
        let input = match spec.residual {
            Residual::Sequential => {
                add_attention(ctx, y, h);
                Source::normed(layer.mlp_norm.as_ref(), h, x)
            }
            Residual::Parallel => Source::normed(layer.mlp_norm.as_ref(), h, x),
            // Made again: where products are in 8 bits, it was not kept.
            Residual::ParallelSharedNorm => Source::normed(layer.attention_norm.as_ref(), h, x),
        };
        feed_forward(ctx, spec, &layer.mlp, input, n_tokens, mlp_scratch);
        if spec.residual != Residual::Sequential {
            add_attention(ctx, y, h);
        }
        let z = &mut mlp_scratch.z[..n_tokens * hidden];
        add(ctx, layer.mlp_post_norm.as_ref(), spec.residual_scale, z, h, hidden);
    }
    match sequences {
        [alone] => head(model, ctx, h, x, &mut alone.logits),
        many => head_of_many(model, ctx, h, (x, y), many, logits),
    }
}

/// Attention in layer `i`: RoPE, the caches, the heads. `qkv: [n_tokens, q + k + v]`, `out: [n_tokens, q]`.
fn attend(
    ctx: &mut Ctx<'_>,
    spec: &Spec,
    i: usize,
    plan: &mut Plan,
    sequences: &mut [Sequence<'_>],
    qkv: &mut [f32],
    out: &mut [f32],
) {
    let (turned, width) = (spec.q_size() + spec.kv_size(), spec.q_size() + 2 * spec.kv_size());
    if let Some(index) = spec.layers[i].rope {
        plan.for_each_tile(ctx, qkv, width, |tile, rows| {
            if let Some(table) = sequences[tile.sequence].ropes.get(index) {
                rope(table, rows, turned, spec.head_dim, tile.first);
            }
        });
        ctx.lap(Op::Rope, 0);
    }
    let (mut rest, mut written) = (&*qkv, 0);
    for sequence in &mut *sequences {
        let (rows, behind) = rest.split_at(sequence.tokens.len() * width);
        sequence.kv.write(ctx, i, sequence.first, rows, width);
        written += sequence.tokens.len() * sequence.kv.position_bytes();
        rest = behind;
    }
    ctx.lap(Op::KvWrite, written);
    let heads = heads(spec, i);
    attention(ctx, plan, heads, qkv, width, &OfLayer { sequences, layer: i }, out);
    let seen = |s: &Sequence<'_>| s.first + s.tokens.len() - heads.oldest_seen(s.first);
    ctx.lap(Op::Attention, sequences.iter().map(|s| seen(s) * s.kv.position_bytes()).sum());
}

/// The caches of a pass's sequences, as attention in one layer reads them.
struct OfLayer<'a, 'b> {
    sequences: &'a [Sequence<'b>],
    layer: usize,
}

impl Blocks for OfLayer<'_, '_> {
    fn kv_type(&self, sequence: usize) -> KvType {
        self.sequences[sequence].kv.kv_type()
    }
    fn block(&self, sequence: usize, block: usize, kv_head: usize) -> (&[u8], &[u8]) {
        self.sequences[sequence].kv.block(self.layer, block, kv_head)
    }
}

/// What attention needs to know of layer `i`.
fn heads(spec: &Spec, i: usize) -> Heads {
    let Spec { n_heads, n_kv_heads, head_dim, attention_softcap: softcap, .. } = *spec;
    let layer = &spec.layers[i];
    let window = layer.window.unwrap_or(usize::MAX);
    Heads { n_heads, n_kv_heads, head_dim, scale: layer.attention_scale, window, softcap }
}

/// The same of the layer that sees the furthest.
fn widest_heads(spec: &Spec) -> Heads {
    heads(spec, (0..spec.layers.len()).max_by_key(|&i| heads(spec, i).window).unwrap_or(0))
}

/// What a layer does to queries, keys and values before RoPE.
fn qkv_shape<'a>(spec: &Spec, layer: &'a Layer) -> QkvShape<'a> {
    QkvShape {
        sizes: (spec.q_size(), spec.kv_size()),
        head_dim: spec.head_dim,
        by_kv_head: spec.fused_qkv == FusedQkv::ByKvHead,
        norms: layer.qk_norm.as_ref().map(|(q, k)| (q, k)),
        width: (spec.qk_norm != QkNorm::Whole).then_some(spec.head_dim),
        clip: spec.qkv_clip,
    }
}

/// z = mlp(x), or the weighted sum of the experts that the router chooses for each token.
fn feed_forward(ctx: &mut Ctx<'_>, spec: &Spec, mlp: &FeedForward, x: Source<'_>, n_tokens: usize, scratch: &mut MlpScratch) {
    let MlpScratch { up, inner, z, logits, routing, gathered, from_expert } = scratch;
    let hidden = spec.hidden_size;
    let z = &mut z[..n_tokens * hidden];
    let (router, blocks, experts) = match (mlp, spec.experts) {
        (FeedForward::Experts { router, blocks }, Some(experts)) => (router, blocks, experts),
        (FeedForward::Dense(block), _) => return run_block(ctx, spec, block, x, n_tokens, up, inner, z),
        (FeedForward::Experts { .. }, None) => unreachable!("the loader makes experts where the spec has some"),
    };
    let (x, logits) = (x.ready(ctx, hidden), &mut logits[..n_tokens * experts.n_experts]);
    linear(ctx, Op::Router, slice::from_ref(router), Source::Ready(x), n_tokens, logits);
    routing.choose(logits, experts.n_experts, experts.n_used, experts.normalize);
    z.fill(0.0);
    let few = ctx.few;
    // Expert by expert, so that each one's weights are read once; a token's sum is in the order of its experts.
    for (expert, block) in blocks.iter().enumerate() {
        let (mut n, mut n_few) = (0, 0);
        for (t, _) in routing.tokens_of(expert) {
            gathered[n * hidden..][..hidden].copy_from_slice(&x[t * hidden..][..hidden]);
            n += 1;
            n_few += usize::from(t < few);
        }
        if n == 0 {
            continue;
        }
        ctx.lap(Op::Experts, 0);
        ctx.few = n_few;
        run_block(ctx, spec, block, Source::Ready(gathered), n, up, inner, from_expert);
        for ((t, weight), row) in routing.tokens_of(expert).zip(from_expert.chunks_exact_mut(hidden)) {
            ctx.kernels.scale(row, weight);
            ctx.kernels.add(&mut z[t * hidden..][..hidden], row);
        }
        ctx.lap(Op::Experts, 0);
    }
    ctx.few = few;
}

/// z = down(act(gate(x)) · up(x)), or down(act(up(x))).
#[allow(clippy::too_many_arguments)]
fn run_block(
    ctx: &mut Ctx<'_>,
    spec: &Spec,
    block: &Block,
    x: Source<'_>,
    n_tokens: usize,
    up: &mut [f32],
    inner: &mut [f32],
    z: &mut [f32],
) {
    let ffn_size = block.down.n_in();
    linear(ctx, Op::GateUp, &block.up, x, n_tokens, up);
    let maker = match spec.mlp {
        Mlp::Gated => Maker::Gate(spec.activation, up),
        Mlp::Plain => Maker::Activation(spec.activation, up),
    };
    let inner = Source::Made { maker, rows: &mut inner[..n_tokens * ffn_size] };
    linear(ctx, Op::Down, slice::from_ref(&block.down), inner, n_tokens, z);
}

/// A row of h for each token: its embedding, scaled, plus that of its position where they are learned.
fn embed<'a>(model: &Model, ctx: &Ctx<'_>, sequence: &Sequence<'_>, rows: impl Iterator<Item = &'a mut [f32]>, x: &mut [f32]) {
    let scale = model.spec.embedding_scale;
    // The tokens lead: of the rows, which are others' too, no more are taken.
    for ((t, &token), h) in sequence.tokens.iter().enumerate().zip(rows) {
        model.embedding.row(ctx, token as usize, h);
        if scale != 1.0 {
            ctx.kernels.scale(h, scale);
        }
        if let Some(positions) = &model.positions {
            let x = &mut x[..h.len()];
            positions.row(ctx, sequence.first + t, x);
            ctx.kernels.add(h, x);
        }
    }
}

/// logits = head(norm(h)), of the last token or of all. Always by the few-token path, so that a position's logits have the
/// same bits whether the caller asked for it alone or for all.
fn head(model: &Model, ctx: &mut Ctx<'_>, h: &[f32], x: &mut [f32], logits: &mut Logits<'_>) {
    let hidden = model.spec.hidden_size;
    match logits {
        Logits::None => {}
        Logits::Last(logits) => head_of(model, ctx, &h[h.len() - hidden..], x, logits),
        Logits::All(logits) => head_of(model, ctx, h, x, logits),
    }
}

/// The logits of every row of `h`.
fn head_of(model: &Model, ctx: &mut Ctx<'_>, h: &[f32], x: &mut [f32], logits: &mut [f32]) {
    let spec = &model.spec;
    let (x, n_tokens) = (&mut x[..h.len()], h.len() / spec.hidden_size);
    ctx.few = n_tokens;
    let x = Source::normed(Some(&model.output_norm), h, x);
    linear(ctx, Op::Head, slice::from_ref(model.head.as_ref().unwrap_or(&model.embedding)), x, n_tokens, logits);
    scale(ctx, spec.logit_scale, logits, spec.vocab_size);
    if let Some(cap) = spec.logit_softcap {
        softcap(ctx, cap, logits, spec.vocab_size);
    }
}

/// The same for many sequences: the rows whose logits are wanted pass over the head [`FEW_TOKENS`] at a time, and are then dealt out.
fn head_of_many(
    model: &Model,
    ctx: &mut Ctx<'_>,
    h: &[f32],
    (x, gathered): (&mut [f32], &mut [f32]),
    sequences: &mut [Sequence<'_>],
    scratch: &mut [f32],
) {
    let (hidden, vocab) = (model.spec.hidden_size, model.spec.vocab_size);
    let mut wanted: [Option<&mut [f32]>; FEW_TOKENS] = [const { None }; FEW_TOKENS];
    let mut n = 0;
    let mut flush = |wanted: &mut [Option<&mut [f32]>], gathered: &[f32]| {
        let scratch = &mut scratch[..wanted.len() * vocab];
        head_of(model, ctx, &gathered[..wanted.len() * hidden], x, scratch);
        for (out, row) in wanted.iter_mut().zip(scratch.chunks_exact(vocab)) {
            out.take().into_iter().for_each(|out| out.copy_from_slice(row));
        }
        ctx.lap(Op::Logits, 0);
    };
    let mut rows = h.chunks_exact(hidden);
    for sequence in sequences {
        let of_sequence = rows.by_ref().take(sequence.tokens.len());
        let (skipped, out) = match &mut sequence.logits {
            Logits::None => (sequence.tokens.len(), &mut [][..]),
            Logits::Last(out) => (sequence.tokens.len() - 1, &mut out[..]),
            Logits::All(out) => (0, &mut out[..]),
        };
        let mut outs = out.chunks_exact_mut(vocab);
        for (t, row) in of_sequence.enumerate() {
            if t < skipped {
                continue;
            }
            gathered[n * hidden..][..hidden].copy_from_slice(row);
            wanted[n] = outs.next();
            n += 1;
            if n == FEW_TOKENS {
                flush(&mut wanted, gathered);
                n = 0;
            }
        }
    }
    if n > 0 {
        flush(&mut wanted[..n], gathered);
    }
}
