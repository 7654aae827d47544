//! `out[t, c] = Σ_k w[c, k] · x[t, k]`: a row of `w` is an output.
//!
//! **Order of summation**, for every output: one vector of sums; lane l takes k = l, l + LANES, l + 2·LANES… by FMA (the
//! last vector filled up with zeros); then the lanes are added as `Simd::sum` says.
//!
//! **Blocking.** A tile of R rows × T tokens has its R·T sums in registers. With one token the limit is memory: 8 rows
//! at once, which are 8 streams read from 8 parts of the call's range, each with a prefetch ahead. With more tokens
//! each vector of `w`, converted once, serves T of them, and a block of tokens stays in L2 while the rows pass by. Where they are several
//! tiles, each asks for its share of the next rows, into L2: memory would else rest after the first.
//! The other way round (a block of rows in L2 while the tokens pass by) was slower: 46 against 68 GFLOP/s for 512 tokens of
//! 2048 on a Zen 3, whose peak is 104.

use super::{Element, Product};
use crate::kernels::prefetch::{self, LINE};
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
            1 => sweep::<S, E, 8, 1, false>(s, p, out),
            2 if S::REGISTERS >= 32 => sweep::<S, E, 8, 2, false>(s, p, out),
            3 if S::REGISTERS >= 32 => sweep::<S, E, 8, 3, false>(s, p, out),
            4 if S::REGISTERS >= 32 => sweep::<S, E, 6, 4, false>(s, p, out),
            _ if S::REGISTERS >= 32 => sweep::<S, E, 6, 4, true>(s, p, out),
            2 => sweep::<S, E, 4, 2, false>(s, p, out),
            3 => sweep::<S, E, 4, 3, false>(s, p, out),
            4 => sweep::<S, E, 4, 2, true>(s, p, out),
            _ => sweep::<S, E, 3, 4, true>(s, p, out),
        }
    }
}

/// Rows that a tile asks for: it is one of two at least, of at most 6 rows.
const ASKED: usize = 3;

/// All outputs, in tiles of R rows by T tokens: of all of them, or if FAR of at most T.
///
/// # Safety
/// As for `matmul`.
#[inline(always)]
unsafe fn sweep<S: Simd, E: Element, const R: usize, const T: usize, const FAR: bool>(
    s: S,
    p: &Product<'_>,
    out: &mut ColumnsMut<'_>,
) {
    let (cols, tokens) = (out.cols().len(), out.rows());
    assert!(FAR || tokens == T);
    let block = (TOKEN_BLOCK / (4 * p.n_in.max(1))).max(T) / T * T;
    let streams = cols.div_ceil(R); // rows in each of the R parts; the last parts may be shorter or empty
    let row_bytes = p.n_in * E::SIZE;
    for from in (0..tokens).step_by(block) {
        let to = tokens.min(from + block);
        let tiles = (to - from).div_ceil(T);
        for i in 0..streams {
            // Past the end the last row stands in: it is in cache, and gets the same bits again.
            let rows = std::array::from_fn(|j| (j * streams + i).min(cols - 1));
            let next = p.w.as_ptr().wrapping_add((p.first + i + 1) * row_bytes);
            let mut t = from;
            while t < to {
                let number = (t - from).div_ceil(T);
                let (first, last) = (number * R / tiles, ((number + 1) * R / tiles).saturating_sub(1));
                let next = std::array::from_fn(|j| next.wrapping_add((first + j).min(last) * streams * row_bytes));
                // SAFETY: rows are below cols, tokens t.. below to.
                t += unsafe {
                    match to - t {
                        _ if !FAR => multiply::<S, E, R, T, FAR>(s, p, out, rows, t, next),
                        1 => multiply::<S, E, R, 1, FAR>(s, p, out, rows, t, next),
                        2 => multiply::<S, E, R, 2, FAR>(s, p, out, rows, t, next),
                        3 | 5 | 6 if T == 4 => multiply::<S, E, R, 3, FAR>(s, p, out, rows, t, next),
                        _ => multiply::<S, E, R, T, FAR>(s, p, out, rows, t, next),
                    }
                };
            }
        }
    }
}

/// A tile: the outputs `rows` (counted from `p.first`) of the tokens `t..t + T`; returns T. If FAR, rows at `next` will be read next.
///
/// # Safety
/// As for `matmul`; `rows` are columns of `out`, `t..t + T` are rows of it.
#[inline(always)]
unsafe fn multiply<S: Simd, E: Element, const R: usize, const T: usize, const FAR: bool>(
    s: S,
    p: &Product<'_>,
    out: &mut ColumnsMut<'_>,
    rows: [usize; R],
    t: usize,
    next: [*const u8; ASKED],
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
        let line = (LINE / (S::LANES * E::SIZE)).max(1) * S::LANES; // elements of a cache line, at least a vector
        let mut i = 0;
        while i + line <= k {
            if FAR {
                for next in next {
                    prefetch::far(next.wrapping_add(i * E::SIZE));
                }
            } else {
                for w in w {
                    prefetch::near(w.wrapping_add(i * E::SIZE + p.ahead));
                }
            }
            for i in (i..i + line).step_by(S::LANES) {
                // The fewer operands of the two wait in registers for the others.
                if R < T {
                    let w: [S::V; R] = w.map(|w| E::load(s, w.add(i * E::SIZE)));
                    for (j, x) in x.iter().enumerate() {
                        let x = s.load(x.add(i));
                        for (w, sums) in w.iter().zip(&mut sums) {
                            sums[j] = s.fma(*w, x, sums[j]);
                        }
                    }
                } else {
                    let x: [S::V; T] = x.map(|x| s.load(x.add(i)));
                    for (w, sums) in w.iter().zip(&mut sums) {
                        let w = E::load(s, w.add(i * E::SIZE));
                        for (x, sum) in x.iter().zip(sums) {
                            *sum = s.fma(w, *x, *sum);
                        }
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
