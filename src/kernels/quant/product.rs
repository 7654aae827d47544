//! `out[t, c] = Σ_k w[c, k] · x[t, k]` for quantised `w` and the activations of one token or a few in 8 bits, by integer products.
//!
//! **Order of summation**, for every output, on every instruction set and for any number of tokens (`many` has the same): one f32 sum,
//! to which a row adds what each 256 elements give, in order.
//!
//! - Of types with integers to scale parts (`Sink::by_256`): the sum of all products q·w·(scale·f), exact as an integer, as f32 times
//!   d·D, where f are the factors of the activations and D is their scale. Then the sum of Σq·(min·f), exact as well, times e·D is
//!   subtracted. Where 256 products may pass 2^31 ([`Bytes::sums`](super::Bytes::sums)), there are two sums of 128, added one after the other.
//! - Of types with a floating-point scale to every 32 elements: for each 32, `p[j] = Σ(q·w) · (d[j]·s[j])`, the sum exact, plus `m[j]`
//!   times the scaled sum of its activations; then ((p₀ + p₂) + (p₄ + p₆)) + ((p₁ + p₃) + (p₅ + p₇)).
//!
//! No operation is fused.
//!
//! **Blocking.** The limit is memory: [`ROWS`] rows at once, which are streams read from as many parts of the call's range, each with a
//! prefetch ahead. What a row gives is summed over lanes with that of the others, so that a lane is a row from there on. Further tokens
//! meet the same rows while these are in the nearest cache.

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
/// Bytes of 256 elements of any type, at most.
pub(super) const MAX_BYTES: usize = 8 * 34;

/// What scales the 16 parts of 256 weights, each of 16: element `d·scales[s]·(w − offset) − e·mins[s]`, s being the number of the part.
/// `scales` and `mins` have parts at even places in their first half, those at odd ones in the second.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Scales<S: Ints> {
    pub d: f32,
    pub scales: S::W,
    pub e: f32,
    pub mins: Option<S::W>,
}

/// What 256 elements of a row give, before lanes are added.
#[derive(Clone, Copy)]
struct Given<S: Ints> {
    /// Of types with integer scales: their sums, that of the minimums, and d and e.
    totals: [S::I; 2],
    mins: S::I,
    d: f32,
    e: f32,
    /// Of the others: p₀, p₂, p₄, p₆, p₁, p₃, p₅, p₇.
    parts: S::F,
}

/// Makes it of weights and the activations that they meet, which are there.
struct Meeting<S: Ints> {
    x: *const Activations,
    given: Given<S>,
}

impl<S: Ints> Meeting<S> {
    /// The parts from the sums of their products, in the order that `parts` has.
    #[inline(always)]
    fn scale(&mut self, s: S, sums: S::I, d: S::F, m: Option<S::F>) {
        // SAFETY: the activations are there.
        unsafe {
            let scales = s.load_f((&raw const (*self.x).scales).cast());
            let mut parts = s.mul(s.to_f32(sums), s.mul(d, scales));
            if let Some(m) = m {
                parts = s.add(parts, s.mul(m, s.load_f((&raw const (*self.x).sums).cast())));
            }
            self.given.parts = parts;
        }
    }

    #[inline(always)]
    fn q(&self) -> *const u8 {
        // SAFETY: the activations are there.
        unsafe { (&raw const (*self.x).q).cast() }
    }
}

impl<S: Ints> Sink<S> for Meeting<S> {
    /// Nothing overflows, or what does comes back: scale·f is at most 128·31, a lane has at most 32 products of at most 63·127, and sums of
    /// lanes are modulo 2^32, of which `Bytes::sums` says that the last are in range.
    #[inline(always)]
    fn by_256<F: Format>(&mut self, s: S, w: [S::B; 8], by: Scales<S>) {
        let (x, q) = (self.x, self.q());
        // SAFETY: the activations are there.
        unsafe {
            let factors = s.load_w_twice((&raw const (*x).factors).cast());
            let sums_16 = s.load_w((&raw const (*x).sums_16).cast());
            let scales = s.mul_w(by.scales, factors);
            let mut totals = [s.zero(); 2];
            each!(8, J => {
                let q = s.load(q.add(32 * J));
                let pairs = if F::BYTES.signed { s.signed_pairs(w[J], s.magnitude(w[J]), q) } else { s.pairs(w[J], q) };
                totals[J / 4] = s.add_products(totals[J / 4], pairs, s.spread::<J>(scales));
            });
            if F::BYTES.offset > 0 {
                // Of w − offset: less offset·Σ(scale·f)·q.
                let offsets = s.mul_i(s.add_products(s.zero(), scales, sums_16), F::BYTES.offset.into());
                let of_halves = s.halves_of_256(offsets);
                totals = [s.sub_i(totals[0], of_halves[0]), s.sub_i(totals[1], of_halves[1])];
            }
            if F::BYTES.sums() == 1 {
                totals[0] = s.add_i(totals[0], totals[1]);
            }
            (self.given.totals, self.given.d, self.given.e) = (totals, by.d, by.e);
            if let Some(mins) = by.mins {
                self.given.mins = s.add_products(s.zero(), s.mul_w(mins, factors), sums_16);
            }
        }
    }

    #[inline(always)]
    fn by_64<F: Format>(&mut self, s: S, w: [[S::B; 2]; 4], d: S::F, m: Option<S::F>) {
        let q = self.q();
        let quads = each!(4, J => {
            // SAFETY: the activations are there.
            let q = unsafe {
                let q = q.add(64 * J);
                [s.load_two(q, q.add(32)), s.load_two(q.add(16), q.add(48))]
            };
            if F::BYTES.signed {
                let first = s.signed_quads(w[J][0], s.magnitude(w[J][0]), q[0]);
                s.add_signed_quads(first, w[J][1], s.magnitude(w[J][1]), q[1])
            } else {
                s.quads(w[J], q)
            }
        });
        self.scale(s, s.sums_of_halves(quads), d, m);
    }

    #[inline(always)]
    fn by_32<F: Format>(&mut self, s: S, w: [S::B; 8], d: S::F) {
        let q = self.q();
        // SAFETY: the activations are there.
        let quads = each!(8, J => s.signed_quads(w[J], s.magnitude(w[J]), unsafe { s.load(q.add(32 * J)) }));
        self.scale(s, s.sums_of_vectors(quads), d, None);
    }
}

/// # Safety
/// `p` has passed `Product::check` for `F` and `out`.
#[inline(always)]
pub(super) unsafe fn matmul<S: Ints, F: Format>(s: S, p: &Product<'_>, out: &mut ColumnsMut<'_>) {
    let cols = out.cols().len();
    let streams = cols.div_ceil(ROWS); // rows in each of the parts; the last parts may be shorter or empty
    for i in 0..streams {
        // Past the end the last row stands in: it is in cache, and gets the same bits again.
        let rows = std::array::from_fn(|j| (j * streams + i).min(cols - 1));
        for t in 0..out.rows() {
            // SAFETY: rows are below cols, t is below the number of tokens.
            let sums = unsafe { tile::<S, F>(s, p, rows, t, out.rows()) };
            let y = out.row_mut(t);
            for r in 0..ROWS {
                y[rows[r]] = sums[r];
            }
        }
    }
}

/// The outputs `rows` (counted from `p.first`) of token `t` of `tokens`.
///
/// # Safety
/// As for `matmul`; `rows` are columns of `out`.
#[inline(always)]
unsafe fn tile<S: Ints, F: Format>(s: S, p: &Product<'_>, rows: [usize; ROWS], t: usize, tokens: usize) -> [f32; ROWS] {
    let dtype = DType::Quant(F::TYPE);
    let group_bytes = BLOCK / dtype.block_elements() * dtype.block_bytes();
    let row_bytes = p.n_in / dtype.block_elements() * dtype.block_bytes();
    let (whole, rest) = (p.n_in / BLOCK, row_bytes % group_bytes);
    let mut sum = s.splat_f(0.0);
    // SAFETY: `check` saw that w has n_out rows of n_in elements, in whole blocks, and that first + rows are below n_out; that x
    // has a block of each token for each 256 elements of a row, the last of which may be a part.
    unsafe {
        let w: [*const u8; ROWS] = rows.map(|r| p.w.as_ptr().add((p.first + r) * row_bytes));
        for b in 0..whole {
            let x = p.x.as_ptr().add(b * tokens + t);
            let given = each!(4, R => meet::<S, F>(s, w[R].add(b * group_bytes), x));
            sum = add::<S, F>(s, sum, &given, (*x).scale);
        }
        if rest > 0 {
            // What is left of a row, filled up with zeros: blocks of scale 0, which meet activations of 0.
            let x = p.x.as_ptr().add(whole * tokens + t);
            let mut filled = [[0; MAX_BYTES]; ROWS];
            for r in 0..ROWS {
                std::ptr::copy_nonoverlapping(w[r].add(whole * group_bytes), filled[r].as_mut_ptr(), rest);
            }
            let given = each!(4, R => meet::<S, F>(s, filled[R].as_ptr(), x));
            sum = add::<S, F>(s, sum, &given, (*x).scale);
        }
        let mut sums = [0.0; 8];
        s.store_f(sums.as_mut_ptr(), sum);
        each!(4, R => sums[R])
    }
}

/// What the 256 elements at `w` give with the activations at `x`; what is further on is asked for.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn meet<S: Ints, F: Format>(s: S, w: *const u8, x: *const Activations) -> Given<S> {
    let dtype = DType::Quant(F::TYPE);
    for line in (0..BLOCK / dtype.block_elements() * dtype.block_bytes()).step_by(64) {
        s.prefetch(w.wrapping_add(line + AHEAD));
    }
    let nothing = Given { totals: [s.zero(); 2], mins: s.zero(), d: 0.0, e: 0.0, parts: s.splat_f(0.0) };
    let mut meeting = Meeting { x, given: nothing };
    // SAFETY: the caller's word.
    unsafe { F::read(s, w, &mut meeting) };
    meeting.given
}

/// `sum`, a lane to a row, and what 256 elements of the rows give; `scale` is that of the activations.
#[inline(always)]
fn add<S: Ints, F: Format>(s: S, mut sum: S::F, given: &[Given<S>; ROWS], scale: f32) -> S::F {
    if DType::Quant(F::TYPE).block_elements() < BLOCK {
        return s.add(sum, s.rows_f(each!(4, R => given[R].parts)));
    }
    let scale = s.splat_f(scale);
    let d = s.mul(s.set_four(each!(4, R => given[R].d)), scale);
    for i in 0..F::BYTES.sums() {
        sum = s.add(sum, s.mul(s.to_f32(s.rows_i(each!(4, R => given[R].totals[i]))), d));
    }
    if F::BYTES.mins {
        let e = s.mul(s.set_four(each!(4, R => given[R].e)), scale);
        sum = s.sub(sum, s.mul(s.to_f32(s.rows_i(each!(4, R => given[R].mins))), e));
    }
    sum
}
