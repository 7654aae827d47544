//! The one decoder forward, for every family: what differs between families is in the [`Spec`](crate::arch::Spec).
#![forbid(unsafe_code)]

use super::Model;
use super::kv::KvBlocks;
use crate::arch::{Mlp, NormPlace};
use crate::error::{Error, ErrorKind, Result};
use crate::ops::attention::{Heads, attention};
use crate::ops::elementwise::{Norm, activate, activate_gated, add, norm, norm_queries_and_keys};
use crate::ops::linear::linear;
use crate::ops::rope::rope;
use crate::ops::{Ctx, Path, Worker, grow};
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tokens of a prefill that pass through the layers together.
pub const MAX_CHUNK: usize = 512;

/// The activations of one pass of up to [`MAX_CHUNK`] tokens; they grow to the largest pass so far.
#[derive(Default)]
pub struct Scratch {
    workers: Vec<Worker>,
    /// The residual stream, `[n_tokens, hidden_size]`.
    h: Vec<f32>,
    /// A sub-layer's normed input, then its output, `[n_tokens, hidden_size]`.
    x: Vec<f32>,
    /// Queries, keys and values, `[n_tokens, q_size + 2 kv_size]`.
    qkv: Vec<f32>,
    /// Attention's output, `[n_tokens, q_size]`.
    attention: Vec<f32>,
    /// Gate and up (or up alone), `[n_tokens, (2) ffn_size]`.
    up: Vec<f32>,
    /// act(gate) · up, `[n_tokens, ffn_size]`; unused by a plain MLP.
    gated: Vec<f32>,
}

impl Scratch {
    /// Makes room for passes of up to `n_tokens` tokens of `model`.
    pub fn reserve(&mut self, model: &Model, heads: Heads, path: Path, n_tokens: usize) -> Result<()> {
        let spec = &model.spec;
        let qkv = spec.q_size() + 2 * spec.kv_size();
        let gated = spec.mlp == Mlp::Gated;
        grow(&mut self.h, n_tokens * spec.hidden_size, "activations")?;
        grow(&mut self.x, n_tokens * spec.hidden_size, "activations")?;
        grow(&mut self.qkv, n_tokens * qkv, "activations")?;
        grow(&mut self.attention, n_tokens * spec.q_size(), "activations")?;
        grow(&mut self.up, n_tokens * spec.ffn_size * (1 + usize::from(gated)), "activations")?;
        grow(&mut self.gated, n_tokens * spec.ffn_size * usize::from(gated), "activations")?;
        if self.workers.is_empty() {
            self.workers.try_reserve_exact(model.pool.threads()).map_err(|_| Error::out_of_memory("scratch", 0))?;
            self.workers.resize_with(model.pool.threads(), Worker::default);
        }
        let panel = match path {
            Path::Few => 0,
            Path::Many => model.panel_len,
        };
        for worker in &mut self.workers {
            worker.reserve(panel, spec.hidden_size.max(qkv))?;
            heads.reserve(worker, n_tokens)?;
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

/// One pass of tokens through the model.
pub struct Pass<'a> {
    /// The model.
    pub model: &'a Model,
    /// Sizes of its attention.
    pub heads: Heads,
    /// The path of the whole step, of which these tokens may be a part.
    pub path: Path,
    /// The tokens.
    pub tokens: &'a [u32],
    /// The first one's position.
    pub first: usize,
    /// Set from another thread to end the step.
    pub cancel: &'a AtomicBool,
}

/// Runs `pass`. `kv` is writable at its positions and afterwards holds their keys and values; `scratch` has been reserved.
pub fn forward(pass: &Pass<'_>, kv: &mut KvBlocks, scratch: &mut Scratch, logits: Logits<'_>) -> Result<()> {
    let Pass { model, heads, path, tokens, first, cancel } = *pass;
    let spec = &model.spec;
    let n_tokens = tokens.len();
    let (hidden, q_size, kv_size) = (spec.hidden_size, spec.q_size(), spec.kv_size());
    let width = q_size + 2 * kv_size;
    let Scratch { workers, h, x, qkv, attention: attended, up, gated } = scratch;
    let ctx = &mut Ctx { kernels: model.kernels, pool: &model.pool, workers, path };
    let (h, x) = (&mut h[..n_tokens * hidden], &mut x[..n_tokens * hidden]);
    let (qkv, attended) = (&mut qkv[..n_tokens * width], &mut attended[..n_tokens * q_size]);

    embed(pass, ctx, h, x);
    for (i, layer) in model.layers.iter().enumerate() {
        if cancel.swap(false, Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "the step was cancelled; the cache is as it was before"));
        }
        // h += attention(norm(h)), or h += norm(attention(h))
        let (before, after) = placed(&layer.attention_norm, spec.norm_place);
        let input = normed(ctx, before, h, x);
        linear(ctx, &layer.qkv, input, n_tokens, qkv);
        if let Some((q_norm, k_norm)) = &layer.qk_norm {
            norm_queries_and_keys(ctx, q_norm, k_norm, qkv, width);
        }
        if let Some(table) = &model.rope {
            rope(ctx, table, qkv, width, q_size + kv_size, spec.head_dim, first);
        }
        for (t, row) in qkv.chunks_exact(width).enumerate() {
            let (keys, values) = row[q_size..].split_at(kv_size);
            kv.write(ctx.kernels, i, first + t, keys, values);
        }
        attention(ctx, heads, qkv, width, first, &kv.layer(i), attended);
        linear(ctx, slice::from_ref(&layer.o), attended, n_tokens, x);
        add(ctx, after, x, h, hidden);

        // h += mlp(norm(h)), or h += norm(mlp(h))
        let (before, after) = placed(&layer.mlp_norm, spec.norm_place);
        let input = normed(ctx, before, h, x);
        linear(ctx, &layer.up, input, n_tokens, up);
        let inner = match spec.mlp {
            Mlp::Gated => {
                activate_gated(ctx, spec.activation, up, &mut gated[..n_tokens * spec.ffn_size], spec.ffn_size);
                &gated[..]
            }
            Mlp::Plain => {
                activate(ctx, spec.activation, &mut up[..n_tokens * spec.ffn_size], spec.ffn_size);
                &up[..]
            }
        };
        linear(ctx, slice::from_ref(&layer.down), inner, n_tokens, x);
        add(ctx, after, x, h, hidden);
    }
    head(model, ctx, h, x, logits);
    Ok(())
}

/// h = embedding of the tokens, plus that of their positions where they are learned.
fn embed(pass: &Pass<'_>, ctx: &Ctx<'_>, h: &mut [f32], x: &mut [f32]) {
    let hidden = pass.model.spec.hidden_size;
    for (t, (h, &token)) in h.chunks_exact_mut(hidden).zip(pass.tokens).enumerate() {
        pass.model.embedding.row(ctx, token as usize, h);
        if let Some(positions) = &pass.model.positions {
            positions.row(ctx, pass.first + t, &mut x[..hidden]);
            ctx.kernels.add(h, &x[..hidden]);
        }
    }
}

/// A sub-layer's norm by where it sits: (before, after).
fn placed(norm: &Norm, place: NormPlace) -> (Option<&Norm>, Option<&Norm>) {
    match place {
        NormPlace::Before => (Some(norm), None),
        NormPlace::After => (None, Some(norm)),
    }
}

/// The sub-layer's input: norm(h), put into `x`, or `h` itself.
fn normed<'a>(ctx: &mut Ctx<'_>, before: Option<&Norm>, h: &'a [f32], x: &'a mut [f32]) -> &'a [f32] {
    match before {
        None => h,
        Some(n) => {
            norm(ctx, n, h, x);
            x
        }
    }
}

/// logits = head(norm(h)), of the last token or of all. Always by the few-token path, so that a position's logits have the
/// same bits whether the caller asked for it alone or for all.
fn head(model: &Model, ctx: &mut Ctx<'_>, h: &[f32], x: &mut [f32], logits: Logits<'_>) {
    let hidden = model.spec.hidden_size;
    let (h, logits) = match logits {
        Logits::None => return,
        Logits::Last(logits) => (&h[h.len() - hidden..], logits),
        Logits::All(logits) => (h, logits),
    };
    let (x, n_tokens) = (&mut x[..h.len()], h.len() / hidden);
    ctx.path = Path::Few;
    norm(ctx, &model.output_norm, h, x);
    linear(ctx, slice::from_ref(model.head.as_ref().unwrap_or(&model.embedding)), x, n_tokens, logits);
}
