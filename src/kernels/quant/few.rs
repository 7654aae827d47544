//! The product of a quantised matrix with the activations of a few tokens, by integer products.
//!
//! **Order of summation**: that of `product`, for one token. So an output has the same bits whatever else is computed beside it.
//!
//! **Layout.** Lanes are rows. Of as many rows as a vector has lanes of 32 bits, 8 or 16, 16 bytes each are transposed as they lie in the file,
//!
//! ```text
//! line[j] = | row 0: 4j..4j+4 | row 1: 4j..4j+4 | … | row 7: 4j..4j+4 | …      j = 0..4
//! ```
//!
//! and become elements there, which meet the same four activations of a token in all lanes. So nothing is stored in between, and no lanes have to be
//! summed; but for one token, which waits for memory, `product` reads more of each row at once.
//!
//! **Blocking.** The limit is memory. The rows of a vector are next to each other: a group. The group after the next is asked for into the second cache
//! meanwhile, from end to end; of this one, the rows' next blocks are asked for into the first.

// Loops by number: what iterators are made of is functions of their own, which a compiler may leave without the CPU's features.
#![allow(clippy::needless_range_loop)]

use super::activations::{Activations, BLOCK, split};
use super::ints::Lanewise;
use super::many::{QUAD, by_256, place_of};
use super::numbers::{MAX_ROWS, Numbers, Rows};
use super::product::MAX_BYTES;
use super::{Format, Product, group_bytes};
use crate::kernels::prefetch::{self, LINE};
use crate::threads::ColumnsMut;

/// How many groups ahead of its use a group is asked for.
const AHEAD: usize = 2;
/// The most tokens.
pub(super) const MOST: usize = 16;

/// Where the first of a quarter's lines is the same for all ([`Format::SHARED`]): the quads of both halves'.
type Shared = [[[u8; QUAD]; MAX_ROWS]; 8];

/// Up to how many tokens are a few.
pub(super) const fn most<S: Lanewise, F: Format>() -> usize {
    if S::ROWS == MAX_ROWS { F::FEW_WIDE } else { F::FEW }
}

/// How many tokens are next of `left`, 2 at least: as many as are in registers, 8 or 4, or fewer so that all have about as many.
#[inline(always)]
fn at_once<S: Lanewise>(left: usize) -> usize {
    left.div_ceil(left.div_ceil(S::ROWS / 2))
}

/// # Safety
/// `p` has passed `Product::check` for `F` and `out`.
#[inline(always)]
pub(super) unsafe fn matmul<S: Lanewise, F: Format>(s: S, p: &Product<'_>, out: &mut ColumnsMut<'_>) {
    assert!((2..=MOST).contains(&out.rows()));
    let mut numbers = Numbers::ZERO;
    for first in (0..out.cols().len()).step_by(S::ROWS) {
        // SAFETY: passed on; the column is one of `out`.
        unsafe { group::<S, F>(s, p, first, &mut numbers, out) };
    }
}

/// The outputs from column `first` on, as many as there are lanes.
///
/// # Safety
/// As for [`matmul`], of at least 2 and at most [`MOST`] tokens; `first` is a column of `out`.
#[inline(always)]
unsafe fn group<S: Lanewise, F: Format>(s: S, p: &Product<'_>, first: usize, numbers: &mut Numbers, out: &mut ColumnsMut<'_>) {
    let (group_bytes, row_bytes, tokens) = (group_bytes::<F>(), p.row_bytes::<F>(), out.rows());
    let (blocks, rest) = (p.n_in.div_ceil(BLOCK), row_bytes % group_bytes);
    let n = S::ROWS.min(out.cols().len() - first);
    let mut sums = [[0.0; MAX_ROWS]; MOST];
    let mut shared: Shared = [[[0; QUAD]; MAX_ROWS]; 8];
    for b in 0..blocks {
        // SAFETY: `check` saw that w has n_out rows of n_in elements, in whole blocks, and that first + cols are below n_out; that x
        // has a block of each token for each 256 elements of a row, the last of which may be a part. What is not there, of it and of the rows,
        // is zeros: blocks of scale 0.
        unsafe {
            let w = p.w.as_ptr().add((p.first + first) * row_bytes + b * group_bytes);
            let whole = b < blocks - 1 || rest == 0;
            let mut copied;
            let rows = if n == S::ROWS && whole {
                Rows { first: w, stride: row_bytes }
            } else {
                let bytes = if whole { group_bytes } else { rest };
                copied = [[0; MAX_BYTES]; MAX_ROWS];
                for r in 0..n {
                    std::ptr::copy_nonoverlapping(w.add(r * row_bytes), copied[r].as_mut_ptr(), bytes);
                }
                Rows { first: copied.as_ptr().cast(), stride: MAX_BYTES }
            };
            F::numbers(s, rows, numbers);
            if F::SHARED {
                for h in 0..2 {
                    let line = rows.lines(s, F::lines(0, h)[0]);
                    each!(4, J => s.store(shared[4 * h + J].as_mut_ptr().cast(), line[J]));
                }
            }
            // A group's bytes from end to end, as many for each block.
            let mut ahead = Some(w.wrapping_add(AHEAD * S::ROWS * row_bytes + b * (S::ROWS - 1) * group_bytes));
            let x = &p.x[b * tokens..][..tokens];
            let mut t = 0;
            while t < tokens {
                let (x, sums, ahead) = (x.as_ptr().add(t), sums.as_mut_ptr().add(t), ahead.take());
                t += match at_once::<S>(tokens - t) {
                    2 => add::<S, F, 2>(s, rows, numbers, &shared, x, sums, ahead),
                    3 => add::<S, F, 3>(s, rows, numbers, &shared, x, sums, ahead),
                    5 if const { S::ROWS == MAX_ROWS } => add::<S, F, 5>(s, rows, numbers, &shared, x, sums, ahead),
                    6 if const { S::ROWS == MAX_ROWS } => add::<S, F, 6>(s, rows, numbers, &shared, x, sums, ahead),
                    7 if const { S::ROWS == MAX_ROWS } => add::<S, F, 7>(s, rows, numbers, &shared, x, sums, ahead),
                    8 if const { S::ROWS == MAX_ROWS } => add::<S, F, 8>(s, rows, numbers, &shared, x, sums, ahead),
                    _ => add::<S, F, 4>(s, rows, numbers, &shared, x, sums, ahead),
                };
            }
        }
    }
    for t in 0..tokens {
        out.row_mut(t)[first..][..n].copy_from_slice(&sums[t][..n]);
    }
}

/// Where the first quad of a quarter's elements is that the line of half `h` has; `o` is the vector of [`Format::elements`] that has it.
const fn element<F: Format>(c: usize, h: usize, o: usize) -> usize {
    64 * c + if F::SPLIT { 32 * h + 16 * o } else { 32 * o + 16 * h }
}

/// How products are summed over a part.
struct Way<S, F>(S, F);

impl<S: Lanewise, F: Format> Way<S, F> {
    /// In 32 bits, by what the CPU has for it or because sums of 16 bits would be too many; else in 16.
    const WIDE: bool = S::DOTS || F::BYTES.fits() < 4;
    /// Whether a sum goes on from one half of a quarter to the other.
    const LONG: bool = F::BYTES.part == 32 && F::QUARTERS == 1 && !F::SPLIT && (Self::WIDE || F::BYTES.fits() >= 8);
}

/// What the products of a part's elements are summed in: one of the two, see [`Way`].
#[derive(Clone, Copy)]
struct Sum<S: Lanewise> {
    narrow: S::W,
    wide: S::I,
}

impl<S: Lanewise> Sum<S> {
    #[inline(always)]
    fn zero(s: S) -> Self {
        Self { narrow: s.splat_w(0), wide: s.zero() }
    }

    /// To which the four quads from element `at` of `x` on will be added, or eight; less the type's offset in all of them.
    ///
    /// # Safety
    /// There is a token at `x`.
    #[inline(always)]
    unsafe fn new<F: Format>(s: S, x: *const Activations, at: usize) -> Self {
        let mut sum = Self::zero(s);
        if F::BYTES.signed && Way::<S, F>::WIDE && (!F::SPLIT || at.is_multiple_of(32)) {
            debug_assert!(F::BYTES.part == 32);
            // SAFETY: the caller's word.
            sum.wide = s.signed_sum(unsafe { (*x).biases[at / 32] });
        }
        if F::BYTES.offset > 0 {
            debug_assert!(F::BYTES.part == 16);
            // SAFETY: the caller's word.
            unsafe {
                let offset = &raw const (*x).offsets[at / 16];
                if S::DOTS {
                    sum.wide = s.splat_i(*offset);
                } else if Way::<S, F>::WIDE {
                    sum.wide = s.add_products(sum.wide, s.splat_pair(offset.cast()), s.splat_w(1));
                } else {
                    sum.narrow = s.splat_pair(offset.cast());
                }
            }
        }
        sum
    }

    #[inline(always)]
    fn add<F: Format>(&mut self, s: S, w: S::B, magnitude: S::B, q: S::B) {
        if !Way::<S, F>::WIDE {
            let pairs = if F::BYTES.signed { s.signed_pairs(w, magnitude, q) } else { s.pairs(w, q) };
            self.narrow = s.add_w(self.narrow, pairs);
        } else if F::BYTES.signed {
            self.wide = s.add_signed_quads(self.wide, w, magnitude, q);
        } else {
            self.wide = s.add_quads(self.wide, w, q);
        }
    }

    /// `total`, and the sum times `scales`, each of which is there twice, and `factor`.
    #[inline(always)]
    fn scaled<F: Format>(self, s: S, total: S::I, scales: S::W, factor: i16) -> S::I {
        if Way::<S, F>::WIDE {
            s.add_i(total, s.mul_lanes(self.wide, s.firsts(scales, factor)))
        } else {
            s.add_products(total, self.narrow, s.mul_w(scales, s.splat_w(factor)))
        }
    }

    /// `total`, and the sum.
    #[inline(always)]
    fn plain<F: Format>(self, s: S, total: S::I) -> S::I {
        if Way::<S, F>::WIDE { s.add_i(total, self.wide) } else { s.add_products(total, self.narrow, s.splat_w(1)) }
    }
}

/// Adds the products of the 256 elements of each row with those of T tokens at `x` to their `sums`, and asks for as many bytes from `ahead` on;
/// returns T.
///
/// # Safety
/// All of it is there.
#[inline(always)]
unsafe fn add<S: Lanewise, F: Format, const T: usize>(
    s: S,
    rows: Rows,
    numbers: &Numbers,
    shared: &Shared,
    x: *const Activations,
    sums: *mut [f32; MAX_ROWS],
    ahead: Option<*const u8>,
) -> usize {
    // SAFETY: the caller's word.
    unsafe {
        let mut of = [[Sum::zero(s); 2]; T];
        // Of types with integer scales.
        let mut total = [s.zero(); T];
        // Of the others, for parts at even places and at odd ones.
        let mut parts = [[s.splat_f(0.0); 2]; T];
        // A loop, as the code would else be too long, for a compiler too.
        for i in 0..8 / F::QUARTERS {
            let (c, h) = (i / 2 * F::QUARTERS, i % 2);
            if let Some(ahead) = ahead {
                let bytes = S::ROWS * group_bytes::<F>() * F::QUARTERS / 8;
                // Any address may be asked for: at the end there are no such rows.
                for line in (i * bytes..(i + 1) * bytes).step_by(LINE) {
                    prefetch::far(ahead.wrapping_add(line));
                }
                let each = S::ROWS / 8 * F::QUARTERS;
                for r in i * each..(i + 1) * each {
                    for line in (0..group_bytes::<F>()).step_by(LINE) {
                        prefetch::near(rows.first.wrapping_add(r * rows.stride + group_bytes::<F>() + line));
                    }
                }
            }
            let at = F::lines(c, h);
            let first = if F::SHARED { each!(4, J => s.load(shared[4 * h + J].as_ptr().cast())) } else { rows.lines(s, at[0]) };
            let [second, third] = each!(2, L => if L + 1 < F::LINES { rows.lines(s, at[L + 1]) } else { first });
            let lines = [first, second, third];
            const { assert!(!F::FIVE_BITS || F::SPLIT && F::QUARTERS == 1) };
            let fifth = if F::FIVE_BITS { s.load(numbers.fifth[i].as_ptr().cast()) } else { first[0] };
            each!(2, K => if K < F::QUARTERS {
                let c = c + K;
                if h == 0 || !Way::<S, F>::LONG {
                    for t in 0..T {
                        of[t] = each!(2, O => Sum::new::<F>(s, x.add(t), element::<F>(c, h, O)));
                    }
                }
                each!(4, J => {
                    let mut w = F::elements(s, c, each!(3, L => lines[L][J]));
                    if F::FIVE_BITS {
                        w = [s.add_fifth::<J>(w[0], fifth), s.add_fifth::<{ 4 + J }>(w[1], fifth)];
                    }
                    each!(2, O => {
                        let magnitude = if F::BYTES.signed { s.magnitude(w[O]) } else { w[O] };
                        for t in 0..T {
                            let q = (&raw const (*x.add(t)).q).cast::<u8>().add(element::<F>(c, h, O) + QUAD * J);
                            of[t][O].add::<F>(s, w[O], magnitude, s.splat_quad(q));
                        }
                    });
                });
                if h == 0 && Way::<S, F>::LONG {
                    continue;
                }
                if by_256::<F>() {
                    each!(2, O => {
                        let at = element::<F>(c, h, O);
                        let scales = s.load_w(numbers.scales[place_of::<F>(at / F::BYTES.part)].as_ptr().cast());
                        for t in 0..T {
                            total[t] = of[t][O].scaled::<F>(s, total[t], scales, (*x.add(t)).factors[at / 32]);
                        }
                    });
                } else if F::SPLIT {
                    for t in 0..T {
                        let sum = of[t][1].plain::<F>(s, of[t][0].plain::<F>(s, s.zero()));
                        // To the sum of parts at odd places, which will be the other one next time.
                        let [other, this] = parts[t];
                        parts[t] = [of_part::<S, F>(s, this, sum, numbers, x.add(t), i), other];
                    }
                } else {
                    each!(2, O => {
                        for t in 0..T {
                            let sum = of[t][O].plain::<F>(s, s.zero());
                            parts[t][O] = of_part::<S, F>(s, parts[t][O], sum, numbers, x.add(t), 2 * c + O);
                        }
                    });
                }
            });
            if by_256::<F>() && (i + 1 == 8 / F::QUARTERS || i + 1 == 4 / F::QUARTERS && F::BYTES.sums() == 2) {
                for t in 0..T {
                    let by = s.mul(s.load_f(numbers.d[0].as_ptr()), s.splat_f((*x.add(t)).scale));
                    let sum = s.add(s.load_f(sums.add(t).cast()), s.mul(s.to_f32(total[t]), by));
                    s.store_f(sums.add(t).cast(), sum);
                    total[t] = s.zero();
                }
            }
        }
        for t in 0..T {
            let sum = s.load_f(sums.add(t).cast());
            if !by_256::<F>() {
                s.store_f(sums.add(t).cast(), s.add(sum, s.add(parts[t][0], parts[t][1])));
            } else if F::BYTES.mins {
                let (x, mut total) = (&*x.add(t), s.zero());
                for pair in 0..BLOCK / F::BYTES.part / 2 {
                    let of = if F::BYTES.part == 32 { x.sums_32.as_ptr() } else { x.sums_16.as_ptr() };
                    let by =
                        s.mul_w(s.load_w(numbers.mins[pair].as_ptr().cast()), s.splat_pair(x.factors[2 * pair % 8..].as_ptr()));
                    total = s.add_products(total, by, s.splat_pair(of.add(2 * pair)));
                }
                let by = s.mul(s.load_f(numbers.d[1].as_ptr()), s.splat_f(x.scale));
                s.store_f(sums.add(t).cast(), s.sub(sum, s.mul(s.to_f32(total), by)));
            }
        }
    }
    T
}

/// `to`, and what part `j` gives with the activations at `x`, the products' sum being `sum`.
///
/// # Safety
/// There is a token at `x`.
#[inline(always)]
unsafe fn of_part<S: Lanewise, F: Format>(s: S, to: S::F, sum: S::I, numbers: &Numbers, x: *const Activations, j: usize) -> S::F {
    let i = split(j);
    // SAFETY: the caller's word; there are as many rows as lanes.
    unsafe {
        let x = &*x;
        let mut p = s.mul(s.to_f32(sum), s.mul(s.load_f(numbers.d[i].as_ptr()), s.splat_f(x.scales[i])));
        if F::BYTES.mins {
            p = s.add(p, s.mul(s.load_f(numbers.m[i].as_ptr()), s.splat_f(x.sums[i])));
        }
        s.add(to, p)
    }
}
