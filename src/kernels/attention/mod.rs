//! One block of cached positions for the query heads that share it, with online softmax: the scores are a product with K
//! (`[n, head_dim]`, a row per output), the output one with V (a column per output), so it is made of the table's own
//! kernels and has their fixed orders of summation.

#[cfg(test)]
mod tests;

use super::float::Product;
use super::{Kernels, Softmax};
use crate::format::Float;
use crate::threads::ColumnsMut;

/// `q: [g, head_dim]`, `scores: [g, n]` (scratch), `states: [g]`, `acc: [g, head_dim]`; `k`, `v`: `[n, head_dim]` of `kv`.
#[allow(clippy::too_many_arguments)]
pub(super) fn attend(
    kernels: &Kernels,
    kv: Float,
    softcap: Option<f32>,
    q: &[f32],
    k: &[u8],
    v: &[u8],
    n: usize,
    scores: &mut [f32],
    states: &mut [Softmax],
    acc: &mut [f32],
) {
    let g = states.len();
    if g == 0 || n == 0 {
        return;
    }
    let dim = q.len() / g;
    assert!(q.len() == g * dim && acc.len() == q.len());
    let scores = &mut scores[..g * n];

    let product = Product { w: k, n_out: n, n_in: dim, first: 0, x: q, add: false };
    let mut out = ColumnsMut::whole(scores, g, n);
    product.check(kv, &out);
    // SAFETY: `Kernels::select` saw the features; `check` saw the sizes.
    unsafe { kernels.out_in.of(kv)(&product, &mut out) };

    if let Some(cap) = softcap {
        kernels.softcap(scores, cap);
    }
    for ((scores, state), acc) in scores.chunks_exact_mut(n).zip(states).zip(acc.chunks_exact_mut(dim)) {
        update(kernels, scores, state, acc);
    }

    let product = Product { w: v, n_out: dim, n_in: n, first: 0, x: scores, add: true };
    let mut out = ColumnsMut::whole(acc, g, dim);
    product.check(kv, &out);
    // SAFETY: as above.
    unsafe { kernels.in_out.of(kv)(&product, &mut out) };
}

/// Turns scores into weights relative to the new maximum, and what was accumulated so far with them.
fn update(kernels: &Kernels, scores: &mut [f32], state: &mut Softmax, acc: &mut [f32]) {
    // SAFETY: `Kernels::select` saw the features.
    let max = state.max.max(unsafe { (kernels.max)(scores) });
    if state.max == f32::NEG_INFINITY {
        acc.fill(0.0); // nothing accumulated yet: 0 · acc would keep a NaN
    } else if max > state.max {
        let factor = (state.max - max).exp();
        state.sum *= factor;
        // SAFETY: as above.
        unsafe { (kernels.scale)(acc, factor) };
    }
    if max == f32::NEG_INFINITY {
        scores.fill(0.0); // every position is masked: exp(−inf − −inf) would be NaN
        return;
    }
    state.max = max;
    // SAFETY: as above.
    state.sum += unsafe { (kernels.exp_sum)(scores, max) };
}
