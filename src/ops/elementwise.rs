//! Norms, activations and sums, token by token.
#![forbid(unsafe_code)]

use super::profile::Op;
use super::{Ctx, Worker};
use crate::kernels::Kernels;

/// Tokens that one task takes: a decode step's single token stays on the calling thread.
pub(super) const CHUNK: usize = 8;

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// (x − mean) / sqrt(var + eps) · weight + bias.
    LayerNorm,
    /// x / sqrt(mean(x²) + eps) · weight.
    RmsNorm,
}

/// The activation of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(x).
    Silu,
    /// x · Φ(x), by erf.
    Gelu,
    /// The tanh approximation of [`Activation::Gelu`].
    GeluTanh,
    /// x · sigmoid(1.702 x).
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// max(x, 0)².
    ReluSquared,
    /// tanh(x).
    Tanh,
}

impl Activation {
    fn apply(self, kernels: &Kernels, y: &mut [f32]) {
        match self {
            Activation::Silu => kernels.silu(y),
            Activation::Gelu => kernels.gelu(y),
            Activation::GeluTanh => kernels.gelu_tanh(y),
            Activation::QuickGelu => kernels.quick_gelu(y),
            Activation::Relu => kernels.relu(y),
            Activation::ReluSquared => kernels.relu_squared(y),
            Activation::Tanh => kernels.softcap(y, 1.0),
        }
    }
}

/// A norm and its weights.
pub struct Norm {
    /// Which formula.
    pub kind: NormKind,
    /// `[n]`.
    pub weight: Vec<f32>,
    /// `[n]`, for LayerNorm, where it has one.
    pub bias: Option<Vec<f32>>,
    /// Epsilon.
    pub eps: f32,
}

impl Norm {
    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    fn apply(&self, kernels: &Kernels, x: &[f32], y: &mut [f32]) {
        match self.kind {
            NormKind::RmsNorm => kernels.rms_norm(x, &self.weight, self.eps, y),
            NormKind::LayerNorm => kernels.layer_norm(x, &self.weight, self.bias.as_deref(), self.eps, y),
        }
    }

    /// Norms `y` in place.
    fn apply_in_place(&self, kernels: &Kernels, worker: &mut Worker, y: &mut [f32]) {
        let x = &mut worker.row[..y.len()];
        x.copy_from_slice(y);
        self.apply(kernels, x, y);
    }

    /// Norms each `width` elements of `y` in place, with the weights' rows of as many in turn.
    fn apply_to_heads(&self, kernels: &Kernels, worker: &mut Worker, y: &mut [f32], width: usize) {
        for (y, weight) in y.chunks_exact_mut(width).zip(self.weight.chunks_exact(width).cycle()) {
            let x = &mut worker.row[..width];
            x.copy_from_slice(y);
            match self.kind {
                NormKind::RmsNorm => kernels.rms_norm(x, weight, self.eps, y),
                NormKind::LayerNorm => kernels.layer_norm(x, weight, None, self.eps, y),
            }
        }
    }
}

/// A sub-layer's input, `[n_tokens, n]`: it is there, or its rows are made when a linear takes them, which turns them into the form that its
/// kernels take while they are in the nearest cache.
pub enum Source<'a> {
    /// It is there.
    Ready(&'a [f32]),
    /// It is to be made.
    Made {
        /// By this.
        maker: Maker<'a>,
        /// Room for it, if it is wanted as it is.
        rows: &'a mut [f32],
    },
}

/// What makes a row.
#[derive(Clone, Copy)]
pub enum Maker<'a> {
    /// norm(h), h being `[n_tokens, n]`.
    Norm(&'a Norm, &'a [f32]),
    /// act(x), x being `[n_tokens, n]`.
    Activation(Activation, &'a [f32]),
    /// act(gate) · up, of `[n_tokens, 2 n]`, gate first.
    Gate(Activation, &'a [f32]),
}

impl<'a> Source<'a> {
    /// norm(h), if it is wanted in `x`, both `[n_tokens, n]`; h itself if there is no norm.
    pub fn normed(norm: Option<&'a Norm>, h: &'a [f32], x: &'a mut [f32]) -> Self {
        match norm {
            None => Source::Ready(h),
            Some(norm) => Source::Made { maker: Maker::Norm(norm, h), rows: x },
        }
    }

    /// The rows, of `n` elements, made if they are not.
    pub fn ready(self, ctx: &mut Ctx<'_>, n: usize) -> &'a [f32] {
        match self {
            Source::Ready(x) => x,
            Source::Made { maker, rows } => {
                let kernels = ctx.kernels;
                for_each_token(ctx, rows, n, |_, t, row| maker.make(kernels, t, row));
                ctx.lap(maker.op(), 0);
                rows
            }
        }
    }
}

impl Maker<'_> {
    /// Row `t`, in `row`.
    pub fn make(self, kernels: &Kernels, t: usize, row: &mut [f32]) {
        let n = row.len();
        match self {
            Maker::Norm(norm, h) => norm.apply(kernels, &h[t * n..][..n], row),
            Maker::Activation(activation, x) => {
                row.copy_from_slice(&x[t * n..][..n]);
                activation.apply(kernels, row);
            }
            Maker::Gate(activation, gate_up) => {
                let (gate, up) = gate_up[2 * t * n..][..2 * n].split_at(n);
                row.copy_from_slice(gate);
                activation.apply(kernels, row);
                kernels.mul(row, up);
            }
        }
    }

    /// As what its time counts.
    pub fn op(self) -> Op {
        match self {
            Maker::Norm(..) => Op::Norm,
            Maker::Activation(..) | Maker::Gate(..) => Op::Activation,
        }
    }
}

/// Calls `f(worker, token, row)` for each row of `y: [n_tokens, n]`.
fn for_each_token<F>(ctx: &mut Ctx<'_>, y: &mut [f32], n: usize, f: F)
where
    F: Fn(&mut Worker, usize, &mut [f32]) + Sync,
{
    ctx.pool.for_each_rows(ctx.workers, y, n, CHUNK, |worker, first, rows| {
        for (i, row) in rows.chunks_exact_mut(n).enumerate() {
            f(worker, first + i, row);
        }
    });
}

/// h += scale · x, or h += scale · norm(x); both `[n_tokens, n]`. `x` is overwritten.
pub fn add(ctx: &mut Ctx<'_>, norm: Option<&Norm>, scale: f32, x: &mut [f32], h: &mut [f32], n: usize) {
    let kernels = ctx.kernels;
    if norm.is_some() || scale != 1.0 {
        for_each_token(ctx, x, n, |worker, _, row| {
            if let Some(norm) = norm {
                norm.apply_in_place(kernels, worker, row);
            }
            if scale != 1.0 {
                kernels.scale(row, scale);
            }
        });
        ctx.lap(Op::Norm, 0);
    }
    for_each_token(ctx, h, n, |_, t, row| kernels.add(row, &x[t * n..][..n]));
    ctx.lap(Op::Residual, 0);
}

/// What is done to queries, keys and values between their projection and RoPE.
pub struct QkvShape<'a> {
    /// Elements of the queries, and of the keys (as many of the values), in a row.
    pub sizes: (usize, usize),
    /// Elements of a head.
    pub head_dim: usize,
    /// The rows come by key/value head: its queries, its key, its value; they are put in turn.
    pub by_kv_head: bool,
    /// Norms of queries and keys, each `width` elements on their own.
    pub norms: Option<(&'a Norm, &'a Norm)>,
    /// See [`QkvShape::norms`]; `None`: all of them together.
    pub width: Option<usize>,
    /// Everything is clamped to ± this.
    pub clip: Option<f32>,
}

impl QkvShape<'_> {
    /// Whether there is anything to do.
    fn is_plain(&self) -> bool {
        !self.by_kv_head && self.norms.is_none() && self.clip.is_none()
    }
}

/// Puts `qkv: [n_tokens, q + k + v]` in the shape that `shape` asks for.
pub fn shape_qkv(ctx: &mut Ctx<'_>, shape: &QkvShape<'_>, qkv: &mut [f32]) {
    if shape.is_plain() {
        return;
    }
    let kernels = ctx.kernels;
    let (q, kv) = shape.sizes;
    for_each_token(ctx, qkv, q + 2 * kv, |worker, _, row| {
        if shape.by_kv_head {
            put_in_turn(worker, row, shape);
        }
        if let Some((q_norm, k_norm)) = shape.norms {
            q_norm.apply_to_heads(kernels, worker, &mut row[..q], shape.width.unwrap_or(q));
            k_norm.apply_to_heads(kernels, worker, &mut row[q..q + kv], shape.width.unwrap_or(kv));
        }
        if let Some(clip) = shape.clip {
            row.iter_mut().for_each(|x| *x = x.clamp(-clip, clip));
        }
    });
    ctx.lap(Op::QkvShape, 0);
}

/// `[n_kv_heads][queries | k | v][head_dim]` becomes all queries, all keys, all values.
fn put_in_turn(worker: &mut Worker, row: &mut [f32], shape: &QkvShape<'_>) {
    let ((q, kv), dim) = (shape.sizes, shape.head_dim);
    let n_kv_heads = kv / dim;
    let queries = q / n_kv_heads;
    let grouped = &mut worker.row[..row.len()];
    grouped.copy_from_slice(row);
    for (i, group) in grouped.chunks_exact(queries + 2 * dim).enumerate() {
        row[i * queries..][..queries].copy_from_slice(&group[..queries]);
        row[q + i * dim..][..dim].copy_from_slice(&group[queries..queries + dim]);
        row[q + kv + i * dim..][..dim].copy_from_slice(&group[queries + dim..]);
    }
}

/// y *= factor, logits `[n_tokens, n]`.
pub fn scale(ctx: &mut Ctx<'_>, factor: f32, y: &mut [f32], n: usize) {
    let kernels = ctx.kernels;
    if factor != 1.0 {
        for_each_token(ctx, y, n, |_, _, row| kernels.scale(row, factor));
        ctx.lap(Op::Logits, 0);
    }
}

/// y = cap · tanh(y / cap), logits `[n_tokens, n]`.
pub fn softcap(ctx: &mut Ctx<'_>, cap: f32, y: &mut [f32], n: usize) {
    let kernels = ctx.kernels;
    for_each_token(ctx, y, n, |_, _, row| kernels.softcap(row, cap));
    ctx.lap(Op::Logits, 0);
}
