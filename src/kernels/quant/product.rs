//! `out[t, c] = Σ_k w[c, k] · x[t, k]` for quantised `w` and the activations of one token in 8 bits, or of two, by integer products.
//!
//! **Order of summation**, for every output, on every instruction set and for any number of tokens (`few` and `many` have the same): one f32 sum,
//! to which a row adds what each 256 elements give, in order.
//!
//! - Of types with integers to scale parts (`Sink::by_256`): the sum of all products q·w·(scale·f), exact as an integer, as f32 times
//!   d·D, where f are the factors of the activations and D is their scale. Then the sum of Σq·(min·f), exact as well, times e·D is
//!   subtracted. Where 256 products may pass 2^31 ([`Bytes::sums`](super::Bytes::sums)), there are two sums of 128, added one after the other.
//! - Of types with a floating-point scale to every 32 elements: for each 32, `p[j] = Σ(q·w) · (d[j]·s[j])`, the sum exact, plus `m[j]`
//!   times the scaled sum of its activations; then (((p₀ + p₂) + p₄) + p₆) + (((p₁ + p₃) + p₅) + p₇).
//!
//! No operation is fused.
//!
//! **Blocking.** The limit is memory: [`ROWS`] rows at once, which are streams read from as many parts of the call's range, each with a
//! prefetch ahead. What a row gives is summed over lanes with that of the others, so that a lane is a row from there on. A second
//! token meets the same rows while these are in the nearest cache.

// Loops by number: what iterators are made of is functions of their own, which a compiler may leave without the CPU's features.
#![allow(clippy::needless_range_loop)]

use super::activations::{Activations, BLOCK};
use super::ints::Ints;
use super::{Blocks, Format, Product, Sink, SuperBlock, group_bytes, quarters};
use crate::kernels::prefetch::{self, LINE};
use crate::threads::ColumnsMut;
use std::hint::black_box;

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

/// What 256 elements of [`ROWS`] rows give with the activations at `x`, which are there, a lane to a row.
struct Meeting<S: Ints> {
    x: *const Activations,
    /// The rows.
    w: [*const u8; ROWS],
    sum: S::F,
}

impl<S: Ints> Meeting<S> {
    /// To the sum the parts, of which these are the sums of each row's products: p₀, p₂, p₄, p₆, p₁, p₃, p₅, p₇.
    #[inline(always)]
    fn add_parts<F: Blocks>(&mut self, s: S, sums: [S::I; ROWS]) {
        // SAFETY: the activations and the blocks are there.
        let parts = unsafe {
            let scales = s.load_f((&raw const (*self.x).scales).cast());
            each!(4, R => {
                let (d, m) = F::scales(s, self.w[R]);
                let parts = s.mul(s.to_f32(sums[R]), s.mul(d, scales));
                match m {
                    Some(m) => s.add(parts, s.mul(m, s.load_f((&raw const (*self.x).sums).cast()))),
                    None => parts,
                }
            })
        };
        self.sum = s.add(self.sum, s.rows_f(parts));
    }

    #[inline(always)]
    fn q(&self) -> *const u8 {
        // SAFETY: the activations are there.
        unsafe { (&raw const (*self.x).q).cast() }
    }
}

impl<S: Ints> Sink<S> for Meeting<S> {
    /// All rows at once; the block is that of the first.
    ///
    /// Nothing overflows, or what does comes back: scale·f is at most 128·31, a lane has at most 32 products of at most 63·127, and sums of
    /// lanes are modulo 2^32, of which `Bytes::sums` says that the last are in range.
    #[inline(always)]
    unsafe fn by_256<F: SuperBlock>(&mut self, s: S, _: *const u8) {
        let sums = const { F::BYTES.sums() };
        let (x, q, w) = (self.x, self.q(), self.w);
        // SAFETY: the blocks and the activations are there.
        unsafe {
            let factors = s.load_w_twice((&raw const (*x).factors).cast());
            let given = each!(4, R => F::scales(s, w[R]));
            let scales = each!(4, R => s.mul_w(given[R].scales, factors));
            let mut stored = [[[0; 2]; 8]; ROWS];
            if F::BYTES.part == 32 {
                each!(4, R => s.store_twice::<0>(stored[R].as_mut_ptr().cast(), scales[R]));
            }
            // Opaque: a compiler that sees what was stored makes shuffles of the loads.
            let by = Spread { scales: &scales, stored: if F::BYTES.part == 32 { black_box(&stored) } else { &stored } };
            // Every vector of activations meets all rows before the next one does.
            let mut totals = [[s.zero(); ROWS]; 2];
            each!(4, C => {
                let q = [s.load(q.add(64 * C)), s.load(q.add(64 * C + 32))];
                let total = &mut totals[C / 2 * (sums - 1)];
                each!(4, R => {
                    let w = F::quarter(s, w[R], C);
                    let first = s.add_products(total[R], pairs::<S, F>(s, w[0], q[0]), by.of::<F, { 2 * C }>(s, R));
                    let last = pairs::<S, F>(s, w[1], q[1]);
                    total[R] = s.here(s.add_products(first, last, by.of::<F, { 2 * C + 1 }>(s, R)));
                });
            });
            let sums_16 = s.load_w((&raw const (*x).sums_16).cast());
            if F::BYTES.offset > 0 {
                // Of w − offset: less offset·Σ(scale·f)·q.
                each!(4, R => {
                    let offsets = s.mul_i(s.add_products(s.zero(), scales[R], sums_16), F::BYTES.offset.into());
                    if sums == 1 {
                        totals[0][R] = s.sub_i(totals[0][R], offsets);
                    } else {
                        let of_halves = s.halves_of_256(offsets);
                        totals[0][R] = s.sub_i(totals[0][R], of_halves[0]);
                        totals[1][R] = s.sub_i(totals[1][R], of_halves[1]);
                    }
                });
            }
            let scale = s.splat_f((*x).scale);
            let d = s.mul(s.set_four(each!(4, R => given[R].d)), scale);
            for i in 0..sums {
                self.sum = s.add(self.sum, s.mul(s.to_f32(s.rows_i(totals[i])), d));
            }
            if F::BYTES.mins {
                let mins = each!(4, R => match given[R].mins {
                    Some(mins) => s.add_products(s.zero(), s.mul_w(mins, factors), sums_16),
                    None => s.zero(),
                });
                let e = s.mul(s.set_four(each!(4, R => given[R].e)), scale);
                self.sum = s.sub(self.sum, s.mul(s.to_f32(s.rows_i(mins)), e));
            }
        }
    }

    /// All rows at once, as above, half by half.
    #[inline(always)]
    unsafe fn by_64<F: Blocks>(&mut self, s: S, _: *const u8) {
        let (q, w) = (self.q(), self.w);
        // SAFETY: the blocks and the activations are there.
        let sums = unsafe {
            let halves = each!(2, H => {
                let q = each!(2, C => {
                    let q = q.add(128 * H + 64 * C);
                    [s.load_two(q, q.add(32)), s.load_two(q.add(16), q.add(48))]
                });
                each!(4, R => {
                    let quads = each!(2, C => {
                        let (w, q) = (F::quarter(s, w[R], 2 * H + C), q[C]);
                        if F::BYTES.signed {
                            let first = s.signed_quads(w[0], s.magnitude(w[0]), q[0]);
                            s.add_signed_quads(first, w[1], s.magnitude(w[1]), q[1])
                        } else {
                            s.quads(w, q)
                        }
                    });
                    s.here(s.join(quads[0], quads[1]))
                })
            });
            each!(4, R => s.join(halves[0][R], halves[1][R]))
        };
        self.add_parts::<F>(s, sums);
    }

    #[inline(always)]
    unsafe fn by_32<F: Blocks>(&mut self, s: S, _: *const u8) {
        let (q, w) = (self.q(), self.w);
        // SAFETY: the blocks and the activations are there.
        let sums = unsafe {
            each!(4, R => {
                let w = quarters::<S, F>(s, w[R]);
                s.sums_of_vectors(each!(8, J => s.signed_quads(w[J], s.magnitude(w[J]), s.load(q.add(32 * J)))))
            })
        };
        self.add_parts::<F>(s, sums);
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
    let (group_bytes, row_bytes) = (group_bytes::<F>(), p.row_bytes::<F>());
    let (whole, rest) = (p.n_in / BLOCK, row_bytes % group_bytes);
    let mut sum = s.splat_f(0.0);
    // SAFETY: `check` saw that w has n_out rows of n_in elements, in whole blocks, and that first + rows are below n_out; that x
    // has a block of each token for each 256 elements of a row, the last of which may be a part.
    unsafe {
        let w: [*const u8; ROWS] = rows.map(|r| p.w.as_ptr().add((p.first + r) * row_bytes));
        for b in 0..whole {
            let x = p.x.as_ptr().add(b * tokens + t);
            sum = meet::<S, F>(s, each!(4, R => w[R].add(b * group_bytes)), x, sum);
        }
        if rest > 0 {
            // What is left of a row, filled up with zeros: blocks of scale 0, which meet activations of 0.
            let x = p.x.as_ptr().add(whole * tokens + t);
            let mut filled = [[0; MAX_BYTES]; ROWS];
            for r in 0..ROWS {
                std::ptr::copy_nonoverlapping(w[r].add(whole * group_bytes), filled[r].as_mut_ptr(), rest);
            }
            sum = meet::<S, F>(s, each!(4, R => filled[R].as_ptr()), x, sum);
        }
        let mut sums = [0.0; 8];
        s.store_f(sums.as_mut_ptr(), sum);
        each!(4, R => sums[R])
    }
}

/// The scales of rows, times the factors of the activations.
struct Spread<'a, S: Ints> {
    scales: &'a [S::W; ROWS],
    /// Of parts of 32: each twice, to be loaded into all lanes. The units that shuffle have enough to do.
    stored: &'a [[[i16; 2]; 8]; ROWS],
}

impl<S: Ints> Spread<'_, S> {
    /// Those of row `r` for the Jth 32 elements, in the lanes of their products.
    #[inline(always)]
    fn of<F: Format, const J: usize>(&self, s: S, r: usize) -> S::W {
        match F::BYTES.part {
            // SAFETY: there are two numbers.
            32 => unsafe { s.splat_pair(self.stored[r][J].as_ptr()) },
            _ => s.spread::<J>(self.scales[r]),
        }
    }
}

#[inline(always)]
fn pairs<S: Ints, F: Format>(s: S, w: S::B, q: S::B) -> S::W {
    if F::BYTES.signed { s.signed_pairs(w, s.magnitude(w), q) } else { s.pairs(w, q) }
}

/// `sum`, a lane to a row, and what the 256 elements of each row at `w` give with the activations at `x`; what is further on is asked for.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn meet<S: Ints, F: Format>(s: S, w: [*const u8; ROWS], x: *const Activations, sum: S::F) -> S::F {
    for r in 0..ROWS {
        for line in (0..group_bytes::<F>()).step_by(LINE) {
            prefetch::near(w[r].wrapping_add(line + AHEAD));
        }
    }
    let mut meeting = Meeting { x, w, sum };
    // SAFETY: the caller's word.
    unsafe { F::read(s, w[0], &mut meeting) };
    meeting.sum
}
