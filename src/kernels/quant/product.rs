//! `out[t, c] = Σ_k w[c, k] · x[t, k]` for quantised `w` and activations in 8 bits, by integer products.
//!
//! **Order of summation**, for every output and on every instruction set: eight lanes of f32 sums. A row is taken 256 elements at
//! a time, with integer sums that are exact; which elements a lane has and what is added to it is said at [`add_by_32`],
//! [`add_by_64`] and [`add_by_256`]. No operation is fused. At the end the lanes are added as `Ints::sum` says. So a result has the
//! same bits on every instruction set, whatever the number of rows and tokens of a call.
//!
//! **Blocking.** With one token the limit is memory: 4 rows at once, which are 4 streams read from 4 parts of the call's range,
//! each with a prefetch ahead (8 rows are slower by a fifth on a Zen 3: see benches/LOG.md). With more, 256 elements of a row
//! are unpacked to bytes once for up to [`TOKENS`] tokens.

// Loops by number: what iterators are made of is functions of their own, which a compiler may leave without the CPU's features.
#![allow(clippy::needless_range_loop)]

use super::activations::{Activations, BLOCK};
use super::ints::Ints;
use super::{Format, Product, Sink};
use crate::format::DType;
use crate::threads::ColumnsMut;

/// Rows at once.
const ROWS: usize = 4;
/// How far ahead of its use a row is asked for, in bytes. The stream goes on in the next row of its part.
const AHEAD: usize = 512;
/// Tokens that unpacked weights serve.
const TOKENS: usize = 16;
/// Bytes of 256 elements of any type, at most.
pub(super) const MAX_BYTES: usize = 8 * 34;

/// Where the activations of one block are: those of the next token `stride` further on.
#[derive(Clone, Copy)]
struct Tokens {
    x: *const Activations,
    stride: usize,
    n: usize,
}

/// # Safety
/// `p` has passed `Product::check` for `F` and `out`.
#[inline(always)]
pub(in crate::kernels) unsafe fn matmul<S: Ints, F: Format>(s: S, p: &Product<'_>, out: &mut ColumnsMut<'_>) {
    let tokens = out.rows();
    for t in (0..tokens).step_by(TOKENS) {
        // SAFETY: passed on; the tokens are rows of out.
        unsafe {
            match (tokens - t).min(TOKENS) {
                1 => sweep::<S, F, ROWS, 1>(s, p, out, t, 1),
                n => sweep::<S, F, ROWS, TOKENS>(s, p, out, t, n),
            }
        }
    }
}

/// Each token's lanes of sums, for the activations that the weights meet: for no more than T tokens, which are there.
struct Sums<'a, S: Ints, const T: usize> {
    x: Tokens,
    sums: &'a mut [S::F; T],
}

impl<S: Ints, const T: usize> Sink<S> for Sums<'_, S, T> {
    #[inline(always)]
    fn by_256<const SIGNED: bool>(&mut self, s: S, w: [S::B; 8], by: Scales<S>) {
        // SAFETY: `tile` saw to what the type says.
        unsafe { add_by_256::<S, SIGNED, T>(s, w, by, self.x, self.sums) }
    }
    #[inline(always)]
    fn by_64<const SIGNED: bool>(&mut self, s: S, w: [[S::B; 2]; 4], d: S::F, m: Option<S::F>) {
        // SAFETY: `tile` saw to what the type says.
        unsafe { add_by_64::<S, SIGNED, T>(s, w, d, m, self.x, self.sums) }
    }
    #[inline(always)]
    fn by_32(&mut self, s: S, w: [S::B; 8], d: S::F) {
        // SAFETY: `tile` saw to what the type says.
        unsafe { add_by_32(s, w, d, self.x, self.sums) }
    }
}

/// All outputs of `n` tokens from `t` on, R rows at a time.
///
/// # Safety
/// As for `matmul`; these tokens are rows of `out`, and `1 <= n <= T`.
#[inline(always)]
unsafe fn sweep<S: Ints, F: Format, const R: usize, const T: usize>(
    s: S,
    p: &Product<'_>,
    out: &mut ColumnsMut<'_>,
    t: usize,
    n: usize,
) {
    let cols = out.cols().len();
    let streams = cols.div_ceil(R); // rows in each of the R parts; the last parts may be shorter or empty
    for i in 0..streams {
        // Past the end the last row stands in: it is in cache, and gets the same bits again.
        let rows = std::array::from_fn(|j| (j * streams + i).min(cols - 1));
        // SAFETY: rows are below cols, the tokens as the caller says.
        unsafe { tile::<S, F, R, T>(s, p, out, rows, t, n) };
    }
}

/// The outputs `rows` (counted from `p.first`) of `n` tokens from `t` on.
///
/// # Safety
/// As for `sweep`; `rows` are columns of `out`.
#[inline(always)]
unsafe fn tile<S: Ints, F: Format, const R: usize, const T: usize>(
    s: S,
    p: &Product<'_>,
    out: &mut ColumnsMut<'_>,
    rows: [usize; R],
    t: usize,
    n: usize,
) {
    let dtype = DType::Quant(F::TYPE);
    let group_bytes = BLOCK / dtype.block_elements() * dtype.block_bytes();
    let row_bytes = p.n_in / dtype.block_elements() * dtype.block_bytes();
    let stride = p.n_in.div_ceil(BLOCK);
    let (whole, rest) = (p.n_in / BLOCK, row_bytes % group_bytes);
    let ld = out.ld();
    let y = out.as_mut_ptr();
    // SAFETY: `check` saw that w has n_out rows of n_in elements, in whole blocks, and that first + rows are below n_out; that x
    // has `stride` blocks for each row of out; the caller that rows and tokens are inside out.
    unsafe {
        let w: [*const u8; R] = rows.map(|r| p.w.as_ptr().add((p.first + r) * row_bytes));
        let tokens = Tokens { x: p.x.as_ptr().add(t * stride), stride, n: if T == 1 { 1 } else { n } };
        let mut sums = [[s.splat_f(0.0); T]; R];
        for b in 0..whole {
            let tokens = Tokens { x: tokens.x.add(b), ..tokens };
            for r in 0..R {
                let w = w[r].add(b * group_bytes);
                let mut line = 0;
                while line < group_bytes {
                    s.prefetch(w.wrapping_add(line + AHEAD));
                    line += 64;
                }
                F::read(s, w, &mut Sums { x: tokens, sums: &mut sums[r] });
            }
        }
        if rest > 0 {
            // What is left of a row, filled up with zeros: blocks of scale 0, which meet activations of 0.
            let tokens = Tokens { x: tokens.x.add(whole), ..tokens };
            for (w, sums) in w.iter().zip(&mut sums) {
                let mut filled = [0; MAX_BYTES];
                std::ptr::copy_nonoverlapping(w.add(whole * group_bytes), filled.as_mut_ptr(), rest);
                F::read(s, filled.as_ptr(), &mut Sums { x: tokens, sums });
            }
        }
        for (r, sums) in rows.iter().zip(sums) {
            for (j, sum) in sums.into_iter().enumerate().take(tokens.n) {
                *y.add((t + j) * ld + r) = s.sum(sum);
            }
        }
    }
}

/// Adds the products with 256 weights `d[j]·w`, j being the number of the 32 that an element is of: with `s[j]` the scale of the
/// activations, to lane l for each j in order its sum of q·w, which is of elements 4l to 4l + 3 of the 32, times `d[j]·s[j]`.
///
/// An integer sum is of 4 products of at most 128·127.
///
/// # Safety
/// There are activations for `x.n` tokens, no more than T.
#[inline(always)]
unsafe fn add_by_32<S: Ints, const T: usize>(s: S, w: [S::B; 8], d: S::F, x: Tokens, sums: &mut [S::F; T]) {
    let magnitude = each!(8, J => s.magnitude(w[J]));
    for t in 0..x.n.min(T) {
        let sum = &mut sums[t];
        // SAFETY: the caller's word.
        unsafe {
            let x = x.x.add(t * x.stride);
            let q: *const u8 = (&raw const (*x).q).cast();
            let scale = s.mul(d, s.load_f((&raw const (*x).scales).cast()));
            each!(8, J => {
                let quads = s.signed_quads(w[J], magnitude[J], s.load(q.add(32 * J)));
                *sum = s.add(*sum, s.mul(s.to_f32(quads), s.spread_f::<J>(scale)));
            });
        }
    }
}

/// Adds the products with 256 weights `d[j]·w + m[j]`, as [`add_by_32`] but two 32s together: the first four lanes have those at
/// even places, the last four those at odd ones, each lane elements 4l to 4l + 3 and 4l + 16 to 4l + 19 (l = 0 to 3) of
/// its 32. `w` has of each two 32s the first 16 elements of both, then the last 16 of both. At last, `m[j]` times the sum of the
/// activations of 32 number j is added, to lane j/2 where j is even, else to lane 4 + j/2.
///
/// An integer sum is of 8 products of at most 128·127.
///
/// # Safety
/// There are activations for `x.n` tokens, no more than T; bytes of `w` are signed, or below 64.
#[inline(always)]
unsafe fn add_by_64<S: Ints, const SIGNED: bool, const T: usize>(
    s: S,
    w: [[S::B; 2]; 4],
    d: S::F,
    m: Option<S::F>,
    x: Tokens,
    sums: &mut [S::F; T],
) {
    let magnitude = if SIGNED { each!(4, J => [s.magnitude(w[J][0]), s.magnitude(w[J][1])]) } else { w };
    for t in 0..x.n.min(T) {
        let sum = &mut sums[t];
        // SAFETY: the caller's word.
        unsafe {
            let x = x.x.add(t * x.stride);
            let q: *const u8 = (&raw const (*x).q).cast();
            let scale = s.mul(d, s.load_f((&raw const (*x).scales).cast()));
            each!(4, J => {
                let q = q.add(64 * J);
                let q = [s.load_two(q, q.add(32)), s.load_two(q.add(16), q.add(48))];
                let quads = if SIGNED {
                    let first = s.signed_quads(w[J][0], magnitude[J][0], q[0]);
                    s.add_signed_quads(first, w[J][1], magnitude[J][1], q[1])
                } else {
                    s.quads(w[J], q)
                };
                *sum = s.add(*sum, s.mul(s.to_f32(quads), s.spread_halves::<J>(scale)));
            });
            if let Some(m) = m {
                *sum = s.add(*sum, s.mul(m, s.load_f((&raw const (*x).sums).cast())));
            }
        }
    }
}

/// What scales the 16 parts of 256 weights, each of 16: element `d·scales[s]·w − e·mins[s]`, s being the number of the part.
/// `scales` and `mins` have parts at even places in their first half, those at odd ones in the second.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Scales<S: Ints> {
    pub d: f32,
    pub scales: S::W,
    pub e: f32,
    pub mins: Option<S::W>,
}

/// Adds the products with 256 weights. With f the factors of the activations and D their scale, to lane l are added: the sum of
/// q·w·(scale·f) over elements 4l to 4l + 3 of every 32, times `d·D`; then, subtracted, the sum over parts 2l and 2l + 1 of (min·f)·Σq, times `e·D`.
///
/// Nothing overflows: |scale|, |min| ≤ 128 and f ≤ 63 make factors of at most 8064. Unsigned bytes are below 64, so a sum of 32
/// products q·w·8064 is at most 32·127·63·8064 < 2^31; signed ones (127 at most) have scales of at most 32.
///
/// # Safety
/// As for [`add_by_32`].
#[inline(always)]
unsafe fn add_by_256<S: Ints, const SIGNED: bool, const T: usize>(
    s: S,
    w: [S::B; 8],
    by: Scales<S>,
    x: Tokens,
    sums: &mut [S::F; T],
) {
    let magnitude = if SIGNED { each!(8, J => s.magnitude(w[J])) } else { w };
    for t in 0..x.n.min(T) {
        let sum = &mut sums[t];
        // SAFETY: the caller's word.
        unsafe {
            let x = x.x.add(t * x.stride);
            let factors = s.load_w_twice((&raw const (*x).factors).cast());
            let scales = s.mul_w(by.scales, factors);
            let q: *const u8 = (&raw const (*x).q).cast();
            let mut total = s.zero();
            each!(8, J => {
                let q = s.load(q.add(32 * J));
                let pairs = if SIGNED { s.signed_pairs(w[J], magnitude[J], q) } else { s.pairs(w[J], q) };
                total = s.add_products(total, pairs, s.spread::<J>(scales));
            });
            *sum = s.add(*sum, s.mul(s.to_f32(total), s.splat_f(by.d * (*x).scale)));
            if let Some(mins) = by.mins {
                let mins = s.mul_w(mins, factors);
                let total = s.add_products(s.zero(), mins, s.load_w((&raw const (*x).sums_16).cast()));
                *sum = s.sub(*sum, s.mul(s.to_f32(total), s.splat_f(by.e * (*x).scale)));
            }
        }
    }
}
