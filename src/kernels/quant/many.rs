//! The product of a quantised matrix with the activations of several tokens, by integer products.
//!
//! **Order of summation**: that of `product`, for one token. So an output has the same bits whatever else is computed beside it.
//!
//! **Layout.** Lanes are rows: 256 elements of 16 rows are unpacked to a [`Panel`] of bytes,
//!
//! ```text
//! w[k / 4] = | row 0: k..k+4 | row 1: k..k+4 | … | row 15: k..k+4 |        4 KB, which stay in the nearest cache
//! ```
//!
//! and every token's four activations k..k+4, in all lanes, meet them ([`lanes`]). So the products of one output meet in one lane, and
//! what follows (times an integer scale once a part, or once a part to f32) is done for all outputs at once.
//!
//! **Blocking.** Of a few tokens all activations stay in the nearest caches: the rows of one panel, or two, are taken from end to end, as streams. Of many, 256
//! elements of all the tokens lie side by side (less than 256 KB for 512 tokens, which stay in L2) while the rows of a task pass by. Sums
//! between blocks of 256 are kept in scratch.

// Loops by number: what iterators are made of is functions of their own, which a compiler may leave without the CPU's features.
#![allow(clippy::needless_range_loop)]

pub(in crate::kernels) mod lanes;
#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) mod vnni;

use super::activations::{Activations, BLOCK, split_16};
use super::ints::Ints;
use super::numbers::{MAX_PARTS, MAX_ROWS, Numbers};
use super::product::MAX_BYTES;
use super::row::{store, store_in_order};
use super::{Blocks, Format, Product, Sink, SuperBlock, group_bytes};
use crate::format::DType;
use crate::kernels::prefetch::{self, LINE};
use crate::threads::ColumnsMut;
use lanes::Lanes;
use std::mem::offset_of;
use std::ops::Range;
use std::ptr::null;

/// Rows of a panel: a lane each.
const ROWS: usize = MAX_ROWS;
/// Rows that are unpacked at once: half a panel.
const EIGHT: usize = ROWS / 2;
/// The largest [`Lanes::PANELS`].
const MAX_PANELS: usize = 2;
/// Bytes that are multiplied together: those of one lane.
pub(super) const QUAD: usize = 4;
/// The constant that is subtracted from the bytes of types with a [`Bytes::offset`]: all have this one.
pub(super) const OFFSET: i16 = 32;

/// Elements of scratch for a call with so many outputs and tokens.
pub(in crate::kernels) fn scratch_len(n_out: usize, n_tokens: usize) -> usize {
    n_out.next_multiple_of(MAX_PANELS * ROWS) * n_tokens
}

/// Whether tokens with so many blocks of activations in all are a few.
const fn are_few(blocks: usize) -> bool {
    blocks * size_of::<Activations>() <= 96 << 10
}

/// 256 elements of 16 rows.
#[repr(C, align(64))]
pub struct Panel {
    /// As drawn above.
    w: [[[u8; QUAD]; ROWS]; BLOCK / QUAD],
    numbers: Numbers,
}

impl Panel {
    const ZERO: Panel = Panel { w: [[[0; QUAD]; ROWS]; BLOCK / QUAD], numbers: Numbers::ZERO };
}

/// 256 elements of one row, its numbers as those of [`Numbers`].
#[repr(C, align(64))]
struct Row {
    w: [u8; BLOCK],
    scales: [[i16; 2]; MAX_PARTS],
    mins: [i16; MAX_PARTS],
    d: [f32; 8],
    m: [f32; 8],
}

impl Row {
    const ZERO: Row = Row { w: [0; BLOCK], scales: [[0; 2]; MAX_PARTS], mins: [0; MAX_PARTS], d: [0.0; 8], m: [0.0; 8] };
}

/// Whether a type has integer scales.
pub(super) const fn by_256<F: Format>() -> bool {
    DType::Quant(F::TYPE).block_elements() == BLOCK
}

/// Where numbers that belong to part `part` of F are.
pub(super) const fn place_of<F: Format>(part: usize) -> usize {
    if F::BYTES.part == 16 { split_16(part) } else { part }
}

/// `n` quads of each of eight rows that are a [`Row`] apart, to lanes of as many lines. A pair and a number are as long as a quad.
///
/// # Safety
/// They lie there, and there is room for n lines; n is a multiple of 4.
#[inline(always)]
unsafe fn lines<S: Ints>(s: S, n: usize, rows: *const u8, to: *mut u8) {
    for i in (0..n).step_by(4) {
        // SAFETY: the caller's word.
        unsafe {
            let vectors = s.load_rows(rows.add(i * QUAD), size_of::<Row>());
            each!(4, I => s.store(to.add((i + I) * ROWS * QUAD), vectors[I]));
        }
    }
}

impl Panel {
    /// Half of it, from the eight rows.
    #[inline(always)]
    fn fill<S: Ints, F: Format>(&mut self, s: S, half: usize, rows: &[Row; EIGHT]) {
        let (from, to): (*const u8, *mut u8) =
            (rows.as_ptr().cast(), (&raw mut *self).cast::<u8>().wrapping_add(half * EIGHT * QUAD));
        // SAFETY: the quads of an array of rows go to the lines of the same array of the panel.
        unsafe {
            lines(s, BLOCK / QUAD, from.add(offset_of!(Row, w)), to.add(offset_of!(Panel, w)));
            if by_256::<F>() {
                let parts = BLOCK / F::BYTES.part;
                lines(s, 4, from.add(offset_of!(Row, d)), to.add(offset_of!(Panel, numbers.d)));
                lines(s, parts, from.add(offset_of!(Row, scales)), to.add(offset_of!(Panel, numbers.scales)));
                if F::BYTES.mins {
                    lines(s, parts / 2, from.add(offset_of!(Row, mins)), to.add(offset_of!(Panel, numbers.mins)));
                }
            } else {
                lines(s, 8, from.add(offset_of!(Row, d)), to.add(offset_of!(Panel, numbers.d)));
                if F::BYTES.mins {
                    lines(s, 8, from.add(offset_of!(Row, m)), to.add(offset_of!(Panel, numbers.m)));
                }
            }
        }
    }
}

impl<S: Ints> Sink<S> for Row {
    #[inline(always)]
    unsafe fn by_256<F: SuperBlock>(&mut self, s: S, p: *const u8) {
        // SAFETY: the block is the caller's word; there is room for the numbers that are written.
        let by = unsafe {
            store::<S, F>(s, p, &mut self.w);
            let by = F::scales(s, p);
            s.store_twice::<0>(self.scales.as_mut_ptr().cast(), by.scales);
            if F::BYTES.part == 16 {
                s.store_twice::<1>(self.scales[8..].as_mut_ptr().cast(), by.scales);
            }
            if let Some(by) = by.mins {
                s.store_w(self.mins.as_mut_ptr(), by);
            }
            by
        };
        (self.d[0], self.d[1]) = (by.d, by.e);
    }

    #[inline(always)]
    unsafe fn by_64<F: Blocks>(&mut self, s: S, p: *const u8) {
        // SAFETY: the blocks are the caller's word; there is room for 8 numbers in each.
        unsafe {
            store_in_order::<S, F>(s, p, &mut self.w);
            let (d, m) = F::scales(s, p);
            s.store_f(self.d.as_mut_ptr(), d);
            if let Some(m) = m {
                s.store_f(self.m.as_mut_ptr(), m);
            }
        }
    }

    #[inline(always)]
    unsafe fn by_32<F: Blocks>(&mut self, s: S, p: *const u8) {
        // SAFETY: the blocks are the caller's word; there is room for 8 numbers.
        unsafe {
            store::<S, F>(s, p, &mut self.w);
            s.store_f(self.d.as_mut_ptr(), F::scales(s, p).0);
        }
    }
}

/// `scratch` is of [`scratch_len`].
///
/// # Safety
/// `p` has passed `Product::check` for `F` and `out`.
#[inline(always)]
pub(super) unsafe fn matmul<S: Ints, F: Format>(s: S, p: &Product<'_>, scratch: &mut [f32], out: &mut ColumnsMut<'_>) {
    let (cols, tokens) = (out.cols().len(), out.rows());
    let scratch = &mut scratch[..scratch_len(cols, tokens)];
    let group_rows = const { S::Lanes::PANELS * ROWS };
    let (groups, blocks) = (cols.div_ceil(group_rows), p.n_in.div_ceil(BLOCK));
    if blocks == 0 {
        return (0..tokens).for_each(|t| out.row_mut(t).fill(0.0));
    }
    let (mut panels, mut rows) = ([Panel::ZERO; MAX_PANELS], [const { Row::ZERO }; EIGHT]);
    let few = are_few(tokens * blocks);
    let place = |i: usize| if few { (i / blocks, i % blocks) } else { (i % groups, i / groups) };
    let steps = tokens.div_ceil(S::Lanes::TOKENS) * 8;
    for i in 0..groups * blocks {
        let (group, block) = place(i);
        for half in 0..2 * S::Lanes::PANELS {
            for r in 0..EIGHT {
                // SAFETY: `check` saw that the rows from first on are rows of w, and this one is below cols; past the end the last
                // one stands in.
                unsafe { unpack::<S, F>(s, p, (group * group_rows + half * EIGHT + r).min(cols - 1), block, &mut rows[r]) };
            }
            if const { F::BYTES.signed && S::Lanes::UNSIGNED } {
                rows.iter_mut().flat_map(|row| &mut row.w).for_each(|w| *w ^= 128); // 128 larger
            }
            panels[half / 2].fill::<S, F>(s, half % 2, &rows);
        }
        let (next_group, next_block) = place(i + 1);
        let mut ahead = Ahead::new::<F>(p, next_group * group_rows..(next_group + 1) * group_rows, next_block, steps);
        let unfinished = scratch[group * group_rows * tokens..][..group_rows * tokens].as_mut_ptr();
        // What the last block makes whole goes where it belongs, if the group has all its rows.
        let (to, apart) = if block + 1 == blocks && (group + 1) * group_rows <= cols {
            (out.as_mut_ptr().wrapping_add(group * group_rows), out.ld())
        } else {
            (unfinished, group_rows)
        };
        let x = &p.x[block * tokens..][..tokens];
        let mut t = 0;
        while t < tokens {
            let x = &x[t..];
            // SAFETY: there are as many tokens, with a sum for each row: in scratch, and in `out` where it has all rows.
            t += unsafe {
                let from = if block > 0 { unfinished.add(t * group_rows).cast_const() } else { null() };
                let sums = Sums { from, to: to.add(t * apart), apart };
                if const { S::Lanes::TOKENS == 4 } {
                    match tokens - t {
                        1 => add::<S, F, 1>(s, &panels, x, sums, &mut ahead),
                        2 => add::<S, F, 2>(s, &panels, x, sums, &mut ahead),
                        3 | 5 | 6 => add::<S, F, 3>(s, &panels, x, sums, &mut ahead),
                        _ => add::<S, F, 4>(s, &panels, x, sums, &mut ahead),
                    }
                } else {
                    match tokens - t {
                        1 => add::<S, F, 1>(s, &panels, x, sums, &mut ahead),
                        2 | 4 => add::<S, F, 2>(s, &panels, x, sums, &mut ahead),
                        _ => add::<S, F, 3>(s, &panels, x, sums, &mut ahead),
                    }
                }
            };
        }
    }
    let rest = cols % group_rows; // rows of the last group, if they are not all
    if rest > 0 {
        for (t, sums) in scratch[(cols - rest) * tokens..].chunks_exact(group_rows).take(tokens).enumerate() {
            out.row_mut(t)[cols - rest..].copy_from_slice(&sums[..rest]);
        }
    }
}

/// Where the sums of a group's rows are, for some tokens.
#[derive(Clone, Copy)]
struct Sums {
    /// `[tokens, rows]`; null: all are 0.
    from: *const f32,
    /// Where they go, a token's `apart` elements behind those of the one before.
    to: *mut f32,
    apart: usize,
}

/// Block `block` of row `p.first + row`.
///
/// # Safety
/// As for `matmul`; `p.first + row` is a row of `p.w`, `block` is a block of it.
#[inline(always)]
unsafe fn unpack<S: Ints, F: Format>(s: S, p: &Product<'_>, row: usize, block: usize, to: &mut Row) {
    let (group_bytes, row_bytes) = (group_bytes::<F>(), p.row_bytes::<F>());
    // SAFETY: the row's bytes are in w, as `check` saw; of its last block, what is there is copied and the rest is blocks of scale 0.
    unsafe {
        let w = p.w.as_ptr().add((p.first + row) * row_bytes + block * group_bytes);
        let rest = row_bytes - block * group_bytes;
        if rest >= group_bytes {
            F::read(s, w, to);
        } else {
            let mut filled = [0; MAX_BYTES];
            std::ptr::copy_nonoverlapping(w, filled.as_mut_ptr(), rest);
            F::read(s, filled.as_ptr(), to);
        }
    }
}

/// The 256 elements of rows that are unpacked next, asked for row by row, evenly over the parts of all products of the ones before: memory
/// would else rest meanwhile.
struct Ahead {
    /// The next row's.
    next: *const u8,
    row_bytes: usize,
    /// Rows not asked for so far.
    left: usize,
    /// Rows in a step, steps until the next such one, and steps from one to the next.
    rows: usize,
    wait: usize,
    every: usize,
}

impl Ahead {
    #[inline(always)]
    fn new<F: Format>(p: &Product<'_>, rows: Range<usize>, block: usize, steps: usize) -> Self {
        let row_bytes = p.row_bytes::<F>();
        let next = p.w.as_ptr().wrapping_add((p.first + rows.start) * row_bytes + block * group_bytes::<F>());
        let every = (steps / rows.len()).clamp(1, 8); // of many tokens it is soon over
        Self { next, row_bytes, left: rows.len(), rows: rows.len().div_ceil(steps), wait: every, every }
    }

    /// One step.
    #[inline(always)]
    fn step<S: Ints, F: Format>(&mut self) {
        if self.left == 0 {
            return;
        }
        self.wait -= 1;
        if self.wait > 0 {
            return;
        }
        self.wait = self.every;
        for _ in 0..self.rows.min(self.left) {
            // Any address may be asked for: at the end there are no such rows. The line with the first byte came with the block before.
            for last in (LINE - 1..group_bytes::<F>()).step_by(LINE) {
                Self::ask::<S>(self.next.wrapping_add(last));
            }
            Self::ask::<S>(self.next.wrapping_add(group_bytes::<F>() - 1));
            self.next = self.next.wrapping_add(self.row_bytes);
        }
        self.left = self.left.saturating_sub(self.rows);
    }

    /// Into the nearest cache, if there is room beside the panels and the activations.
    #[inline(always)]
    fn ask<S: Ints>(p: *const u8) {
        if S::Lanes::PANELS > 1 { prefetch::far(p) } else { prefetch::near(p) }
    }
}

/// Adds the products of the panels with the first T tokens of `x` to their `sums`; returns T.
///
/// # Safety
/// There are T tokens and their sums.
#[inline(always)]
unsafe fn add<S: Ints, F: Format, const T: usize>(
    s: S,
    panels: &[Panel; MAX_PANELS],
    x: &[Activations],
    sums: Sums,
    ahead: &mut Ahead,
) -> usize {
    let rows = const { S::Lanes::PANELS * ROWS };
    debug_assert!(x.len() >= T);
    let (l, x) = (s.lanes(), x.as_ptr());
    let mut sum = [l.splat_f(0.0); T];
    // Where the next sums go: the outputs of each token are in a page of their own, and a store that has to wait for it stops those behind it.
    for t in T..2 * T {
        for line in (0..rows).step_by(LINE / size_of::<f32>()) {
            prefetch::near(sums.to.wrapping_add(t * sums.apart + line).cast());
        }
    }
    // SAFETY: the caller's word.
    unsafe {
        if !sums.from.is_null() {
            for t in 0..T {
                sum[t] = l.load_f(sums.from.add(t * rows));
            }
        }
        if by_256::<F>() {
            add_by_256::<S, F, T>(s, panels, x, &mut sum, ahead);
        } else {
            add_by_32::<S, F, T>(s, panels, x, &mut sum, ahead);
        }
        for t in 0..T {
            l.store_f(sums.to.add(t * sums.apart), sum[t]);
        }
    }
    T
}

/// What [`add`] sums, a vector to a token.
type Total<S, const T: usize> = [<<S as Ints>::Lanes as Lanes>::F; T];

/// For types with integer scales.
///
/// # Safety
/// There are T tokens at `x`.
#[inline(always)]
unsafe fn add_by_256<S: Ints, F: Format, const T: usize>(
    s: S,
    panels: &[Panel; MAX_PANELS],
    x: *const Activations,
    sum: &mut Total<S, T>,
    ahead: &mut Ahead,
) {
    // By pointer: what belongs to the second panel lies behind it.
    let (l, panels) = (s.lanes(), panels.as_ptr());
    let part_len = F::BYTES.part;
    let sums = const { F::BYTES.sums() };
    // SAFETY: of x the caller's word; all else are arrays of so many elements.
    unsafe {
        for i in 0..sums {
            let mut total = [l.zero(); T];
            for j in i * 8 / sums..(i + 1) * 8 / sums {
                ahead.step::<S, F>();
                l.add_sums::<F, T>(panels, x, j, &mut total);
            }
            for t in 0..T {
                sum[t] = l.add(
                    sum[t],
                    l.mul(l.to_f32(total[t]), l.mul(l.load_d(&raw const (*panels).numbers.d[0]), l.splat_f((*x.add(t)).scale))),
                );
            }
        }
        if F::BYTES.mins {
            let mut total = [l.zero(); T];
            for pair in 0..BLOCK / part_len / 2 {
                let mins = l.load_w(&raw const (*panels).numbers.mins[pair]);
                for t in 0..T {
                    let x = &*x.add(t);
                    let sums = if part_len == 32 { x.sums_32.as_ptr() } else { x.sums_16.as_ptr() };
                    let factors = l.splat_pair(x.factors[2 * pair % 8..].as_ptr());
                    total[t] = l.add_products(total[t], l.mul_w(mins, factors), l.splat_pair(sums.add(2 * pair)));
                }
            }
            for t in 0..T {
                sum[t] = l.sub(
                    sum[t],
                    l.mul(l.to_f32(total[t]), l.mul(l.load_d(&raw const (*panels).numbers.d[1]), l.splat_f((*x.add(t)).scale))),
                );
            }
        }
    }
}

/// For types with a floating-point scale to each part of 32.
///
/// # Safety
/// There are T tokens at `x`.
#[inline(always)]
unsafe fn add_by_32<S: Ints, F: Format, const T: usize>(
    s: S,
    panels: &[Panel; MAX_PANELS],
    x: *const Activations,
    sum: &mut Total<S, T>,
    ahead: &mut Ahead,
) {
    // By pointer: what belongs to the second panel lies behind it.
    let (l, panels) = (s.lanes(), panels.as_ptr());
    // Of parts at even places and at odd ones.
    // SAFETY: of x the caller's word; all else are arrays of so many elements.
    let sums = unsafe {
        each!(2, ODD => {
            let mut sums = [l.splat_f(0.0); T];
            for j in 0..4 {
                ahead.step::<S, F>();
                let total = l.sums::<F, T>(panels, x, 2 * j + ODD);
                let i = j + 4 * ODD; // where its numbers are
                let (d, m) = (l.load_d(&raw const (*panels).numbers.d[i]), l.load_d(&raw const (*panels).numbers.m[i]));
                for t in 0..T {
                    let x = &*x.add(t);
                    let mut p = l.mul(l.to_f32(total[t]), l.mul(d, l.splat_f(x.scales[i])));
                    if F::BYTES.mins {
                        p = l.add(p, l.mul(m, l.splat_f(x.sums[i])));
                    }
                    sums[t] = l.add(sums[t], p);
                }
            }
            sums
        })
    };
    for t in 0..T {
        sum[t] = l.add(sum[t], l.add(sums[0][t], sums[1][t]));
    }
}
