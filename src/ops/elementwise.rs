//! Norms, activations and sums, token by token.
#![forbid(unsafe_code)]

use super::{Ctx, Worker};
use crate::kernels::Kernels;

/// Tokens that one task takes: a decode step's single token stays on the calling thread.
const CHUNK: usize = 8;

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
    /// max(x, 0).
    Relu,
}

impl Activation {
    fn apply(self, kernels: &Kernels, y: &mut [f32]) {
        match self {
            Activation::Silu => kernels.silu(y),
            Activation::Gelu => kernels.gelu(y),
            Activation::GeluTanh => kernels.gelu_tanh(y),
            Activation::Relu => kernels.relu(y),
        }
    }
}

/// A norm and its weights.
pub struct Norm {
    /// Which formula.
    pub kind: NormKind,
    /// `[n]`.
    pub weight: Vec<f32>,
    /// `[n]`, for LayerNorm.
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

/// y = norm(x), both `[n_tokens, n]`.
pub fn norm(ctx: &mut Ctx<'_>, norm: &Norm, x: &[f32], y: &mut [f32]) {
    let (kernels, n) = (ctx.kernels, norm.width());
    for_each_token(ctx, y, n, |_, t, row| norm.apply(kernels, &x[t * n..][..n], row));
}

/// h += x, or h += norm(x); both `[n_tokens, n]`. `x` is overwritten.
pub fn add(ctx: &mut Ctx<'_>, norm: Option<&Norm>, x: &mut [f32], h: &mut [f32], n: usize) {
    let kernels = ctx.kernels;
    if let Some(norm) = norm {
        for_each_token(ctx, x, n, |worker, _, row| norm.apply_in_place(kernels, worker, row));
    }
    for_each_token(ctx, h, n, |_, t, row| kernels.add(row, &x[t * n..][..n]));
}

/// Norms of queries and keys, in place in `qkv: [n_tokens, q + k + v]`.
pub fn norm_queries_and_keys(ctx: &mut Ctx<'_>, q_norm: &Norm, k_norm: &Norm, qkv: &mut [f32], width: usize) {
    let kernels = ctx.kernels;
    let (q, k) = (q_norm.width(), k_norm.width());
    for_each_token(ctx, qkv, width, |worker, _, row| {
        q_norm.apply_in_place(kernels, worker, &mut row[..q]);
        k_norm.apply_in_place(kernels, worker, &mut row[q..q + k]);
    });
}

/// y = act(y), `[n_tokens, n]`.
pub fn activate(ctx: &mut Ctx<'_>, activation: Activation, y: &mut [f32], n: usize) {
    let kernels = ctx.kernels;
    for_each_token(ctx, y, n, |_, _, row| activation.apply(kernels, row));
}

/// y = act(gate) · up; `y: [n_tokens, n]`, `gate_up: [n_tokens, 2 n]`, gate first.
pub fn activate_gated(ctx: &mut Ctx<'_>, activation: Activation, gate_up: &[f32], y: &mut [f32], n: usize) {
    let kernels = ctx.kernels;
    for_each_token(ctx, y, n, |_, t, row| {
        let (gate, up) = gate_up[2 * t * n..][..2 * n].split_at(n);
        row.copy_from_slice(gate);
        activation.apply(kernels, row);
        kernels.mul(row, up);
    });
}
