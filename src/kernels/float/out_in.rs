//! `out[t, c] = Σ_k w[c, k] · x[t, k]`: a row of `w` is an output.
//!
//! **Order of summation**, for every output: one vector of sums; lane l takes k = l, l + LANES, l + 2·LANES… by FMA (the
//! last vector filled up with zeros); then the lanes are added as `Simd::sum` says.
//!
//! **Blocking.** A tile of R rows × T tokens has its R·T sums in registers. With one token the limit is memory: 8 rows
//! at once, which are 8 streams read from 8 parts of the call's range, each with a prefetch ahead. With more tokens
//! each vector of `w`, converted once, serves T of them, and a block of tokens stays in L2 while the rows pass by.
//! The other way round (a block of rows in L2 while the tokens pass by) was slower: 46 against 68 GFLOP/s for 512 tokens of
//! 2048 on a Zen 3, whose peak is 104.

use super::{Element, Product};
use crate::kernels::simd::Simd;
use crate::threads::ColumnsMut;

/// Bytes of `x` that are used again and again while rows pass by: half of a small L2.
const TOKEN_BLOCK: usize = 256 << 10;

/// # Safety
/// `p` has passed `Product::check` for `E` and `out`.
#[inline(always)]
pub(in crate::kernels) unsafe fn matmul<S: Simd, E: Element>(s: S, p: &Product<'_>, out: &mut ColumnsMut<'_>) {
    // SAFETY: passed on.
    unsafe {
        match out.rows() {
            1 => sweep::<S, E, 8, 1>(s, p, out),
            _ if S::REGISTERS >= 32 => sweep::<S, E, 8, 3>(s, p, out),
            _ => sweep::<S, E, 4, 3>(s, p, out),
        }
    }
}

/// All outputs, in tiles of R rows by at most T tokens.
///
/// # Safety
/// As for `matmul`.
#[inline(always)]
unsafe fn sweep<S: Simd, E: Element, const R: usize, const T: usize>(s: S, p: &Product<'_>, out: &mut ColumnsMut<'_>) {
    let (cols, tokens) = (out.cols().len(), out.rows());
    let block = (TOKEN_BLOCK / (4 * p.n_in.max(1))).max(T) / T * T;
    let streams = cols.div_ceil(R); // rows in each of the R parts; the last parts may be shorter or empty
    for from in (0..tokens).step_by(block) {
        let to = tokens.min(from + block);
        for i in 0..streams {
            // Past the end the last row stands in: it is in cache, and gets the same bits again.
            let rows = std::array::from_fn(|j| (j * streams + i).min(cols - 1));
            let mut t = from;
            while t < to {
                // SAFETY: rows are below cols, tokens t.. below to.
                t += unsafe {
                    match to - t {
                        1 => tile::<S, E, R, 1>(s, p, out, rows, t, t == from),
                        2 | 4 if T > 1 => tile::<S, E, R, 2>(s, p, out, rows, t, t == from),
                        _ => tile::<S, E, R, T>(s, p, out, rows, t, t == from),
                    }
                };
            }
        }
    }
}

/// The outputs `rows` (counted from `p.first`) of the tokens `t..t + T`; returns T.
///
/// # Safety
/// As for `matmul`; `rows` are columns of `out`, `t..t + T` are rows of it.
#[inline(always)]
unsafe fn tile<S: Simd, E: Element, const R: usize, const T: usize>(
    s: S,
    p: &Product<'_>,
    out: &mut ColumnsMut<'_>,
    rows: [usize; R],
    t: usize,
    prefetch: bool,
) -> usize {
    let k = p.n_in;
    let ld = out.ld();
    let y = out.as_mut_ptr();
    // SAFETY: `check` saw that w has n_out rows of n_in elements, and that first + rows are below n_out; that x has n_in
    // elements for each row of out; the caller that rows and t.. are inside out. Every load is of elements i.. below k.
    unsafe {
        let w: [*const u8; R] = rows.map(|r| p.w.as_ptr().add((p.first + r) * k * E::SIZE));
        let x: [*const f32; T] = std::array::from_fn(|j| p.x.as_ptr().add((t + j) * k));
        let mut sums = [[s.splat(0.0); T]; R];
        let line = (64 / (S::LANES * E::SIZE)).max(1) * S::LANES; // elements of a cache line, at least a vector
        let mut i = 0;
        while i + line <= k {
            if prefetch {
                for w in w {
                    s.prefetch(w.wrapping_add(i * E::SIZE + p.ahead));
                }
            }
            for i in (i..i + line).step_by(S::LANES) {
                let x: [S::V; T] = x.map(|x| s.load(x.add(i)));
                for (w, sums) in w.iter().zip(&mut sums) {
                    let w = E::load(s, w.add(i * E::SIZE));
                    for (x, sum) in x.iter().zip(sums) {
                        *sum = s.fma(w, *x, *sum);
                    }
                }
            }
            i += line;
        }
        while i < k {
            let n = (k - i).min(S::LANES);
            let x: [S::V; T] = x.map(|x| s.load_first(x.add(i), n));
            for (w, sums) in w.iter().zip(&mut sums) {
                let w = E::load_first(s, w.add(i * E::SIZE), n);
                for (x, sum) in x.iter().zip(sums) {
                    *sum = s.fma(w, *x, *sum);
                }
            }
            i += n;
        }
        for (r, sums) in rows.iter().zip(sums) {
            for (j, sum) in sums.into_iter().enumerate() {
                *y.add((t + j) * ld + r) = s.sum(sum);
            }
        }
    }
    T
}
