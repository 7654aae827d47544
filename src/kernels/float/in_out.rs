//! `out[t, c] = Σ_k w[k, c] · x[t, k]`: a column of `w` is an output.
//!
//! **Order of summation**, for every output: k = 0, 1, 2… by FMA into one sum.
//!
//! **Blocking.** K in groups of rows, each row a stream that is read from left to right; a tile of C vectors of columns
//! × T tokens takes its sums from `out`, adds the group's products in registers and puts them back.
//!
//! With one token the limit is memory. The wider the call's range, the longer are the pieces of rows that the CPU's own prefetch
//! can follow; only at the end of a piece, where it cannot know how to go on, the next rows' beginnings are asked for. With 8
//! rows (12: the same) two threads read 31 to 37 GB/s on a Zen 3 that gives 38 to 8 bare streams; with 16, ranges of 64
//! columns and every line asked for 512 bytes ahead 13 to 25, as rows that lie a power of two apart push each other out of the cache.
//!
//! With more than one token the group's columns of `x` are first copied together: where they lie, a power of two apart, they
//! fall into one set of the cache (48 to 70 GFLOP/s for 512 tokens of 2048 on a Zen 3).

use super::{Element, Product};
use crate::kernels::columns::{Ahead, Sums, Tile};
use crate::kernels::prefetch::{self, LINE};
use crate::kernels::simd::Simd;
use crate::threads::ColumnsMut;
use std::ops::Range;

/// Rows of `w` between two visits to an output, with more than one token (8 is slower by a third).
const GROUP: usize = 16;
/// The same with one token.
const GROUP_OF_ONE: usize = 8;
/// How far ahead of its use a row is asked for, in bytes, with more than one token.
const AHEAD: usize = 512;
/// Bytes of the next rows' beginnings that are asked for, with one token.
const BEGINNING: usize = 256;
/// Tokens that are done before the next are begun.
const TOKENS: usize = 48;

/// What is asked for at each row: so many bytes, from `offset` on.
#[derive(Clone, Copy)]
struct Lines {
    offset: usize,
    bytes: usize,
}

impl Lines {
    const NONE: Self = Self { offset: 0, bytes: 0 };
}

impl Ahead for Lines {
    #[inline(always)]
    fn row(&mut self, w: *const u8) {
        for line in (0..self.bytes).step_by(LINE) {
            prefetch::near(w.wrapping_add(self.offset + line));
        }
    }
}

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
    let (cols, width) = (out.cols().len(), C * S::LANES);
    let group = if T == 1 { GROUP_OF_ONE } else { GROUP };
    let mut copy = [0.0; TOKENS * GROUP];
    for t in (0..out.rows()).step_by(TOKENS) {
        let tokens = t..out.rows().min(t + TOKENS);
        for k in (0..p.n_in).step_by(group) {
            let ks = k..p.n_in.min(k + group);
            let x = if T == 1 { &p.x[ks.clone()] } else { gather(p, tokens.clone(), ks.clone(), &mut copy) };
            let mut c = 0;
            while c < cols {
                let left = cols - c;
                let ahead = match T {
                    1 if left < 2 * width => Lines { offset: (group * p.n_out - c) * E::SIZE, bytes: BEGINNING },
                    1 => Lines::NONE,
                    _ => Lines { offset: AHEAD, bytes: width * E::SIZE },
                };
                let (tokens, ks) = (tokens.clone(), ks.clone());
                // SAFETY: a strip's columns are c.. below cols, of which the last vector may be in part; x holds the group's
                // columns for these tokens.
                c += unsafe {
                    if left >= width {
                        strip::<S, E, C, T, false>(s, p, x, out, tokens, ks, c, S::LANES, ahead)
                    } else if left >= S::LANES {
                        strip::<S, E, 1, T, false>(s, p, x, out, tokens, ks, c, S::LANES, Lines::NONE)
                    } else {
                        strip::<S, E, 1, T, true>(s, p, x, out, tokens, ks, c, left, Lines::NONE)
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

/// The columns `c..` of `tokens`: C vectors whose last has `last` columns (all, unless PART); returns their number. The first
/// tokens ask for `ahead`.
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
    mut ahead: Lines,
) -> usize {
    let mut t = tokens.start;
    while t < tokens.end {
        // SAFETY: passed on; t.. is inside tokens, x has a row of GROUP for each of them.
        t += unsafe {
            let x = x.as_ptr().add((t - tokens.start) * GROUP);
            match tokens.end - t {
                1 => tile::<S, E, C, 1, PART>(s, p, x, out, ks.clone(), c, last, t, ahead),
                2 | 4 if T > 1 => tile::<S, E, C, 2, PART>(s, p, x, out, ks.clone(), c, last, t, ahead),
                _ => tile::<S, E, C, T, PART>(s, p, x, out, ks.clone(), c, last, t, ahead),
            }
        };
        ahead = Lines::NONE;
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
    mut ahead: Lines,
) -> usize {
    let ld = out.ld();
    // SAFETY: `check` saw that w has n_in rows of n_out elements and that first + c.. is below n_out; the caller
    // that c.. and t.. are inside out, ks inside n_in, and T rows of GROUP at x. Without PART a vector is whole.
    unsafe {
        let tile = Tile::<T> {
            w: p.w.as_ptr().add((ks.start * p.n_out + p.first + c) * E::SIZE),
            ld_w: p.n_out * E::SIZE,
            n: ks.len(),
            x: std::array::from_fn(|j| x.add(j * GROUP)),
            ld_x: 1,
            y: std::array::from_fn(|j| out.as_mut_ptr().add((t + j) * ld + c)),
            last,
            sums: Sums::GoOn,
        };
        tile.multiply::<S, E, _, C, PART>(s, &mut ahead);
    }
    T
}
