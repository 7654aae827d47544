//! `out[t, c] = Σ_k w[c, k] · x[t, k]` for quantised `w` and activations in 8 bits, by integer products.
//!
//! **Order of summation**, for every output and on every instruction set: eight f32 sums; lane l has the elements 4l to 4l + 3 of
//! every 32. A row is taken 256 elements at a time, with integer sums that are exact, and what is added to the lanes is said at
//! [`add_by_32`] and [`add_by_256`]; no operation is fused. At the end the lanes are added as `Ints::sum` says. So a result has the
//! same bits on every instruction set, whatever the number of rows and tokens of a call.
//!
//! **Blocking.** With one token the limit is memory: 8 rows at once, which are 8 streams read from 8 parts of the call's range,
//! each with a prefetch ahead. With more, 256 elements of a row are unpacked to bytes once for up to [`TOKENS`] tokens.

use super::activations::{Activations, BLOCK};
use super::ints::Ints;
use super::{Format, Product};
use crate::format::DType;
use crate::threads::ColumnsMut;

/// How far ahead of its use a row is asked for, in bytes. The stream goes on in the next row of its part.
const AHEAD: usize = 1024;
/// Tokens that unpacked weights serve.
const TOKENS: usize = 16;
/// Bytes of 256 elements of any type, at most.
const MAX_BYTES: usize = 8 * 34;

/// Where the activations of one block are: those of the next token `stride` further on.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Tokens {
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
                1 => sweep::<S, F, 8, 1>(s, p, out, t, 1),
                n => sweep::<S, F, 4, TOKENS>(s, p, out, t, n),
            }
        }
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
            for (w, sums) in w.iter().zip(&mut sums) {
                let w = w.add(b * group_bytes);
                for line in (0..group_bytes).step_by(64) {
                    s.prefetch(w.wrapping_add(line + AHEAD));
                }
                F::add_products(s, w, tokens, sums);
            }
        }
        if rest > 0 {
            // What is left of a row, filled up with zeros: blocks of scale 0, which meet activations of 0.
            let tokens = Tokens { x: tokens.x.add(whole), ..tokens };
            for (w, sums) in w.iter().zip(&mut sums) {
                let mut filled = [0; MAX_BYTES];
                std::ptr::copy_nonoverlapping(w.add(whole * group_bytes), filled.as_mut_ptr(), rest);
                F::add_products(s, filled.as_ptr(), tokens, sums);
            }
        }
        for (r, sums) in rows.iter().zip(sums) {
            for (j, sum) in sums.into_iter().enumerate().take(tokens.n) {
                *y.add((t + j) * ld + r) = s.sum(sum);
            }
        }
    }
}

/// The block with `J` as a constant 0 to 7.
macro_rules! for_8 {
    ($J:ident, $body:block) => {
        for_8!($J, $body, 0 1 2 3 4 5 6 7)
    };
    ($J:ident, $body:block, $($j:literal)*) => {
        $({
            const $J: i32 = $j;
            $body
        })*
    };
}

/// Adds the products with 256 weights `d[j]·w + m[j]`, j being the number of the 32 that an element is of. To a lane are added, with
/// `s[j]` the scale of the activations: for each j in order the lane's sum of q·w of that 32, times `d[j]·s[j]`; then, in lane j,
/// `m[j]` times the sum of the activations of all 32.
///
/// An integer sum is of 4 products of at most 128·127.
///
/// # Safety
/// There are activations for `x.n` tokens, no more than T; bytes of `w` are signed, or below 128.
#[inline(always)]
pub(super) unsafe fn add_by_32<S: Ints, const SIGNED: bool, const T: usize>(
    s: S,
    w: [S::B; 8],
    d: S::F,
    m: Option<S::F>,
    x: Tokens,
    sums: &mut [S::F; T],
) {
    let magnitude = if SIGNED { w.map(|w| s.magnitude(w)) } else { w };
    for (t, sum) in sums.iter_mut().enumerate().take(x.n) {
        // SAFETY: the caller's word.
        unsafe {
            let x = x.x.add(t * x.stride);
            let scale = s.mul(d, s.load_f((&raw const (*x).scales).cast()));
            let q: *const u8 = (&raw const (*x).q).cast();
            for_8!(J, {
                let j = J as usize;
                let q = s.load(q.add(32 * j));
                let quads = if SIGNED { s.signed_quads(w[j], magnitude[j], q) } else { s.quads(w[j], q) };
                *sum = s.add(*sum, s.mul(s.to_f32(quads), s.spread_f::<J>(scale)));
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
pub(super) struct Scales<S: Ints> {
    pub d: f32,
    pub scales: S::W,
    pub e: f32,
    pub mins: Option<S::W>,
}

/// Adds the products with 256 weights. With f the factors of the activations and D their scale, to a lane are added: the lane's sum
/// of q·w·(scale·f) over all 256, times `d·D`; then, subtracted, the sum over parts 2l and 2l + 1 of (min·f)·Σq, times `e·D`.
///
/// Nothing overflows: |scale|, |min| ≤ 128 and f ≤ 63 make factors of at most 8064. Unsigned bytes are below 64, so a sum of 32
/// products q·w·8064 is at most 32·127·63·8064 < 2^31; signed ones (127 at most) have scales of at most 32.
///
/// # Safety
/// As for [`add_by_32`].
#[inline(always)]
pub(super) unsafe fn add_by_256<S: Ints, const SIGNED: bool, const T: usize>(
    s: S,
    w: [S::B; 8],
    by: Scales<S>,
    x: Tokens,
    sums: &mut [S::F; T],
) {
    let magnitude = if SIGNED { w.map(|w| s.magnitude(w)) } else { w };
    for (t, sum) in sums.iter_mut().enumerate().take(x.n) {
        // SAFETY: the caller's word.
        unsafe {
            let x = x.x.add(t * x.stride);
            let factors = s.load_w_twice((&raw const (*x).factors).cast());
            let scales = s.mul_w(by.scales, factors);
            let q: *const u8 = (&raw const (*x).q).cast();
            let mut total = s.zero();
            for_8!(J, {
                let j = J as usize;
                let q = s.load(q.add(32 * j));
                let pairs = if SIGNED { s.signed_pairs(w[j], magnitude[j], q) } else { s.pairs(w[j], q) };
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
