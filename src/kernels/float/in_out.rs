//! `out[t, c] = Σ_k w[k, c] · x[t, k]`: a column of `w` is an output.
//!
//! **Order of summation**, for every output: k = 0, 1, 2… by FMA into one sum.
//!
//! **Blocking.** K in groups of rows, each row a stream that is read from left to right; a tile of C vectors of columns
//! × T tokens takes its sums from `out`, adds the group's products in registers and puts them back. With more than one token
//! the group's columns of `x` are first copied together: where they lie, a power of two apart, they fall into one set of the
//! cache (48 to 70 GFLOP/s for 512 tokens of 2048 on a Zen 3).

use super::{Element, Product};
use crate::kernels::simd::Simd;
use crate::threads::ColumnsMut;
use std::ops::Range;

/// Rows of `w` between two visits to an output (8 is slower by a tenth with one token, by a third with more).
const GROUP: usize = 16;
/// Tokens that are done before the next are begun.
const TOKENS: usize = 48;
/// How far ahead of its use a row is asked for, in bytes.
const AHEAD: usize = 512;

/// # Safety
/// `p` has passed `Product::check` for `E` and `out`.
#[inline(always)]
pub(in crate::kernels) unsafe fn matmul<S: Simd, E: Element>(s: S, p: &Product<'_>, out: &mut ColumnsMut<'_>) {
    for t in 0..out.rows() {
        out.row_mut(t).fill(0.0);
    }
    // SAFETY: passed on.
    unsafe {
        match out.rows() {
            1 => sweep::<S, E, 8, 1>(s, p, out),
            _ if S::REGISTERS >= 32 => sweep::<S, E, 8, 3>(s, p, out),
            _ => sweep::<S, E, 4, 3>(s, p, out),
        }
    }
}

/// Adds all products, in tiles of C vectors of columns by at most T tokens.
///
/// # Safety
/// As for `matmul`; with T = 1 there is one token.
#[inline(always)]
unsafe fn sweep<S: Simd, E: Element, const C: usize, const T: usize>(s: S, p: &Product<'_>, out: &mut ColumnsMut<'_>) {
    let cols = out.cols().len();
    let mut copy = [0.0; TOKENS * GROUP];
    for t in (0..out.rows()).step_by(TOKENS) {
        let tokens = t..out.rows().min(t + TOKENS);
        for k in (0..p.n_in).step_by(GROUP) {
            let ks = k..p.n_in.min(k + GROUP);
            let x = if T == 1 { &p.x[ks.clone()] } else { gather(p, tokens.clone(), ks.clone(), &mut copy) };
            let mut c = 0;
            while c < cols {
                // SAFETY: a strip's columns are c.. below cols, of which the last has fewer than a vector; x holds the group's
                // columns for these tokens.
                c += unsafe {
                    match cols - c {
                        left if left >= C * S::LANES => {
                            strip::<S, E, C, T, false>(s, p, x, out, tokens.clone(), ks.clone(), c, S::LANES)
                        }
                        left => strip::<S, E, 1, T, true>(s, p, x, out, tokens.clone(), ks.clone(), c, left.min(S::LANES)),
                    }
                };
            }
        }
    }
}

/// `x[tokens, ks]` as `[tokens, GROUP]`.
#[inline(always)]
fn gather<'a>(p: &Product<'_>, tokens: Range<usize>, ks: Range<usize>, copy: &'a mut [f32; TOKENS * GROUP]) -> &'a [f32] {
    for (t, row) in tokens.zip(copy.chunks_exact_mut(GROUP)) {
        row[..ks.len()].copy_from_slice(&p.x[t * p.n_in..][ks.clone()]);
    }
    copy
}

/// The columns `c..` of `tokens`: C vectors whose last has `last` columns (all, unless PART); returns their number.
///
/// # Safety
/// As for `matmul`; the columns and tokens are inside `out`, `ks` inside `p.n_in`; `x` is `[tokens, GROUP]`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn strip<S: Simd, E: Element, const C: usize, const T: usize, const PART: bool>(
    s: S,
    p: &Product<'_>,
    x: &[f32],
    out: &mut ColumnsMut<'_>,
    tokens: Range<usize>,
    ks: Range<usize>,
    c: usize,
    last: usize,
) -> usize {
    let mut t = tokens.start;
    while t < tokens.end {
        // SAFETY: passed on; t.. is inside tokens, x has a row of GROUP for each of them.
        t += unsafe {
            let x = x.as_ptr().add((t - tokens.start) * GROUP);
            let first = t == tokens.start;
            match tokens.end - t {
                1 => tile::<S, E, C, 1, PART>(s, p, x, out, ks.clone(), c, last, t, first),
                2 | 4 if T > 1 => tile::<S, E, C, 2, PART>(s, p, x, out, ks.clone(), c, last, t, first),
                _ => tile::<S, E, C, T, PART>(s, p, x, out, ks.clone(), c, last, t, first),
            }
        };
    }
    (C - 1) * S::LANES + last
}

/// A strip's tokens `t..t + T`, whose group of `x` is at `x`; returns T.
///
/// # Safety
/// As for `strip`; `t..t + T` are rows of `out`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn tile<S: Simd, E: Element, const C: usize, const T: usize, const PART: bool>(
    s: S,
    p: &Product<'_>,
    x: *const f32,
    out: &mut ColumnsMut<'_>,
    ks: Range<usize>,
    c: usize,
    last: usize,
    t: usize,
    prefetch: bool,
) -> usize {
    let ld = out.ld();
    // SAFETY: `check` saw that w has n_in rows of n_out elements and that first + c.. is below n_out; the caller
    // that c.. and t.. are inside out, ks inside n_in, and T rows of GROUP at x. Without PART a vector is whole.
    unsafe {
        let w = p.w.as_ptr().add((ks.start * p.n_out + p.first + c) * E::SIZE);
        let y: [*mut f32; T] = std::array::from_fn(|j| out.as_mut_ptr().add((t + j) * ld + c));
        let mut sums: [[S::V; T]; C] =
            std::array::from_fn(|i| y.map(|y| if PART { s.load_first(y, last) } else { s.load(y.add(i * S::LANES)) }));
        for k in 0..ks.len() {
            let w = w.add(k * p.n_out * E::SIZE);
            if prefetch && !PART {
                for line in (0..C * S::LANES * E::SIZE).step_by(64) {
                    s.prefetch(w.wrapping_add(line + AHEAD));
                }
            }
            let x: [S::V; T] = std::array::from_fn(|j| s.splat(*x.add(j * GROUP + k)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let w = if PART { E::load_first(s, w, last) } else { E::load(s, w.add(i * S::LANES * E::SIZE)) };
                for (x, sum) in x.iter().zip(sums) {
                    *sum = s.fma(w, *x, *sum);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (y, sum) in y.iter().zip(sums) {
                if PART {
                    s.store_first(*y, last, sum);
                } else {
                    s.store(y.add(i * S::LANES), sum);
                }
            }
        }
    }
    T
}
