//! `out[t, c] = Σ_k w[k, c] · x[t, k]`: a column of `w` is an output.
//!
//! **Order of summation**, for every output: k = 0, 1, 2… by FMA into one sum, from 0 or from what `out` holds.
//!
//! **Blocking.** K in groups of [`GROUP`] rows, each row a stream that is read from left to right; a tile of C vectors
//! of columns × T tokens takes its sums from `out`, adds the group's products in registers and puts them back.

use super::{Element, Product};
use crate::kernels::simd::Simd;
use crate::threads::ColumnsMut;

/// Rows of `w` between two visits to an output. As many as L1 has ways: rows are often a multiple of 4 KiB apart, and then
/// the lines of a tile all fall into one set.
const GROUP: usize = 8;
/// How far ahead of its use a row is asked for, in bytes.
const AHEAD: usize = 512;

/// # Safety
/// `p` has passed `Product::check` for `E` and `out`.
#[inline(always)]
pub(in crate::kernels) unsafe fn matmul<S: Simd, E: Element>(s: S, p: &Product<'_>, out: &mut ColumnsMut<'_>) {
    if !p.add {
        for t in 0..out.rows() {
            out.row_mut(t).fill(0.0);
        }
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
/// As for `matmul`.
#[inline(always)]
unsafe fn sweep<S: Simd, E: Element, const C: usize, const T: usize>(s: S, p: &Product<'_>, out: &mut ColumnsMut<'_>) {
    let cols = out.cols().len();
    for k in (0..p.n_in).step_by(GROUP) {
        let ks = k..p.n_in.min(k + GROUP);
        let mut c = 0;
        while c < cols {
            // SAFETY: a tile's columns are c.. below cols, of which the last tile has fewer than a vector.
            c += unsafe {
                match cols - c {
                    left if left >= C * S::LANES => strip::<S, E, C, T, false>(s, p, out, ks.clone(), c, S::LANES),
                    left => strip::<S, E, 1, T, true>(s, p, out, ks.clone(), c, left.min(S::LANES)),
                }
            };
        }
    }
}

/// The columns `c..` of all tokens: C vectors whose last has `last` columns (all, unless PART); returns their number.
///
/// # Safety
/// As for `matmul`; the columns are inside `out`, `ks` inside `p.n_in`.
#[inline(always)]
unsafe fn strip<S: Simd, E: Element, const C: usize, const T: usize, const PART: bool>(
    s: S,
    p: &Product<'_>,
    out: &mut ColumnsMut<'_>,
    ks: std::ops::Range<usize>,
    c: usize,
    last: usize,
) -> usize {
    let tokens = out.rows();
    let mut t = 0;
    while t < tokens {
        // SAFETY: passed on; t.. is below tokens.
        t += unsafe {
            match tokens - t {
                1 => tile::<S, E, C, 1, PART>(s, p, out, ks.clone(), c, last, t),
                2 | 4 if T > 1 => tile::<S, E, C, 2, PART>(s, p, out, ks.clone(), c, last, t),
                _ => tile::<S, E, C, T, PART>(s, p, out, ks.clone(), c, last, t),
            }
        };
    }
    (C - 1) * S::LANES + last
}

/// A strip's tokens `t..t + T`; returns T.
///
/// # Safety
/// As for `strip`; `t..t + T` are rows of `out`.
#[inline(always)]
unsafe fn tile<S: Simd, E: Element, const C: usize, const T: usize, const PART: bool>(
    s: S,
    p: &Product<'_>,
    out: &mut ColumnsMut<'_>,
    ks: std::ops::Range<usize>,
    c: usize,
    last: usize,
    t: usize,
) -> usize {
    let ld = out.ld();
    // SAFETY: `check` saw that w has n_in rows of n_out elements and that first + c.. is below n_out; that x has n_in elements
    // for each row of out; the caller that c.. and t.. are inside out and ks inside n_in. Without PART a vector is whole.
    unsafe {
        let w = p.w.as_ptr().add((p.first + c) * E::SIZE);
        let x: [*const f32; T] = std::array::from_fn(|j| p.x.as_ptr().add((t + j) * p.n_in));
        let y: [*mut f32; T] = std::array::from_fn(|j| out.as_mut_ptr().add((t + j) * ld + c));
        let mut sums: [[S::V; T]; C] =
            std::array::from_fn(|i| y.map(|y| if PART { s.load_first(y, last) } else { s.load(y.add(i * S::LANES)) }));
        for k in ks {
            let w = w.add(k * p.n_out * E::SIZE);
            if t == 0 && !PART {
                for line in (0..C * S::LANES * E::SIZE).step_by(64) {
                    s.prefetch(w.wrapping_add(line + AHEAD));
                }
            }
            let x: [S::V; T] = x.map(|x| s.splat(*x.add(k)));
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
