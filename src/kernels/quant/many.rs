//! The product of a quantised matrix with the activations of several tokens, by integer products.
//!
//! **Order of summation**: that of `product`, for few tokens. So an output has the same bits whatever else is computed beside it.
//!
//! **Layout.** Lanes are rows: 256 elements of 16 rows are unpacked to a [`Panel`] of bytes,
//!
//! ```text
//! w[k / 4] = | row 0: k..k+4 | row 1: k..k+4 | … | row 15: k..k+4 |        4 KB, which stay in the nearest cache
//! ```
//!
//! and every token's four activations k..k+4, in all lanes, meet them. So the products of one output meet in one lane, and are summed in
//! 16 bits as long as they fit; what follows (to 32 bits and times an integer scale once a part, or once a part to f32) is done for eight outputs
//! at once.
//!
//! **Blocking.** Of a few tokens all activations stay in the nearest caches: 16 rows are taken from end to end, as 16 streams. Of many, 256
//! elements of all the tokens lie side by side (less than 256 KB for 512 tokens, which stay in L2) while the rows of a task pass by. Sums
//! between blocks of 256 are kept in scratch.

// Loops by number: what iterators are made of is functions of their own, which a compiler may leave without the CPU's features.
#![allow(clippy::needless_range_loop)]

use super::activations::{Activations, BLOCK};
use super::ints::Ints;
use super::product::MAX_BYTES;
use super::row::{store, store_in_order};
use super::{Blocks, Format, Product, Sink, SuperBlock};
use crate::format::DType;
use crate::threads::ColumnsMut;
use std::mem::offset_of;

/// Rows of a panel: two vectors of lanes.
const ROWS: usize = 16;
/// Tokens whose sums are in registers at once.
const TOKENS: usize = 3;
/// Bytes that are multiplied together: those of one lane.
const QUAD: usize = 4;
/// Parts of 256 elements, at most.
const MAX_PARTS: usize = BLOCK / 16;
/// The constant that is subtracted from the bytes of types with a [`Bytes::offset`]: theirs are scaled up to it.
pub(super) const OFFSET: i16 = 32;

/// Elements of scratch for a call with so many outputs and tokens.
pub(in crate::kernels) fn scratch_len(n_out: usize, n_tokens: usize) -> usize {
    n_out.next_multiple_of(ROWS) * n_tokens
}

/// Whether tokens with so many blocks of activations in all are a few.
const fn are_few(blocks: usize) -> bool {
    blocks * size_of::<Activations>() <= 96 << 10
}

/// 256 elements of 16 rows.
#[repr(C, align(64))]
struct Panel {
    /// As drawn above.
    w: [[[u8; QUAD]; ROWS]; BLOCK / QUAD],
    /// As those of [`Row`], which says in what order parts are.
    scales: [[[i16; 2]; ROWS]; MAX_PARTS],
    mins: [[[i16; 2]; ROWS]; MAX_PARTS / 2],
    d: [[f32; ROWS]; 8],
    m: [[f32; ROWS]; 8],
}

impl Panel {
    const ZERO: Panel = Panel {
        w: [[[0; QUAD]; ROWS]; BLOCK / QUAD],
        scales: [[[0; 2]; ROWS]; MAX_PARTS],
        mins: [[[0; 2]; ROWS]; MAX_PARTS / 2],
        d: [[0.0; ROWS]; 8],
        m: [[0.0; ROWS]; 8],
    };
}

/// 256 elements of one row.
#[repr(C, align(64))]
struct Row {
    w: [u8; BLOCK],
    /// Of types with integer scales: that of each part, twice, of parts of 16 those at even places first; in the same order the minimums; and d
    /// and e as the first two of `d`.
    scales: [[i16; 2]; MAX_PARTS],
    mins: [i16; MAX_PARTS],
    /// Of the others: each part's d and m, those at even places first.
    d: [f32; 8],
    m: [f32; 8],
}

impl Row {
    const ZERO: Row = Row { w: [0; BLOCK], scales: [[0; 2]; MAX_PARTS], mins: [0; MAX_PARTS], d: [0.0; 8], m: [0.0; 8] };
}

/// Whether a type has integer scales.
const fn by_256<F: Format>() -> bool {
    DType::Quant(F::TYPE).block_elements() == BLOCK
}

/// Where numbers that belong to part `part` of F are.
const fn place<F: Format>(part: usize) -> usize {
    if F::BYTES.part == 16 { part / 2 + part % 2 * 8 } else { part }
}

/// `n` quads of each of 16 rows that are a [`Row`] apart, to lanes of as many lines. A pair and a number are as long as a quad.
///
/// # Safety
/// They lie there, and there is room for n lines; n is a multiple of 4.
#[inline(always)]
unsafe fn lines<S: Ints>(s: S, n: usize, rows: *const u8, to: *mut u8) {
    for half in 0..2 {
        for i in (0..n).step_by(4) {
            // SAFETY: the caller's word.
            unsafe {
                let row = rows.add(8 * half * size_of::<Row>() + i * QUAD);
                let vectors = s.load_rows(each!(8, R => row.add(R * size_of::<Row>())));
                each!(4, I => s.store(to.add((i + I) * ROWS * QUAD + 32 * half), vectors[I]));
            }
        }
    }
}

impl Panel {
    /// From the 16 rows.
    #[inline(always)]
    fn fill<S: Ints, F: Format>(&mut self, s: S, rows: &[Row; ROWS]) {
        let (from, to): (*const u8, *mut u8) = (rows.as_ptr().cast(), (&raw mut *self).cast());
        // SAFETY: the quads of an array of rows go to the lines of the same array of the panel.
        unsafe {
            lines(s, BLOCK / QUAD, from.add(offset_of!(Row, w)), to.add(offset_of!(Panel, w)));
            if by_256::<F>() {
                let parts = BLOCK / F::BYTES.part;
                lines(s, 4, from.add(offset_of!(Row, d)), to.add(offset_of!(Panel, d)));
                lines(s, parts, from.add(offset_of!(Row, scales)), to.add(offset_of!(Panel, scales)));
                if F::BYTES.mins {
                    lines(s, parts / 2, from.add(offset_of!(Row, mins)), to.add(offset_of!(Panel, mins)));
                }
            } else {
                lines(s, 8, from.add(offset_of!(Row, d)), to.add(offset_of!(Panel, d)));
                if F::BYTES.mins {
                    lines(s, 8, from.add(offset_of!(Row, m)), to.add(offset_of!(Panel, m)));
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
        if let Some(times) = (OFFSET as u8).checked_div(F::BYTES.offset)
            && times > 1
        {
            self.w.iter_mut().for_each(|w| *w *= times);
            self.d[0] /= f32::from(times); // a power of two
        }
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
    let sums = &mut scratch[..scratch_len(cols, tokens)];
    sums.fill(0.0);
    let (groups, blocks) = (cols.div_ceil(ROWS), p.n_in.div_ceil(BLOCK));
    let (mut panel, mut rows) = (Panel::ZERO, [const { Row::ZERO }; ROWS]);
    let few = are_few(tokens * blocks);
    let place = |i: usize| if few { (i / blocks, i % blocks) } else { (i % groups, i / groups) };
    let steps = tokens.div_ceil(TOKENS) * if by_256::<F>() { BLOCK / F::BYTES.part } else { 4 };
    for i in 0..groups * blocks {
        let (group, block) = place(i);
        for r in 0..ROWS {
            // SAFETY: `check` saw that the rows from first on are rows of w, and this one is below cols; past the end the last
            // one stands in.
            unsafe { unpack::<S, F>(s, p, (group * ROWS + r).min(cols - 1), block, &mut rows[r]) };
        }
        panel.fill::<S, F>(s, &rows);
        let (next_group, next_block) = place(i + 1);
        let mut ahead = Ahead::new::<F>(p, next_group * ROWS, next_block, steps);
        let (x, sums) = (&p.x[block * tokens..][..tokens], &mut sums[group * ROWS * tokens..][..ROWS * tokens]);
        let mut t = 0;
        while t < tokens {
            let (x, sums) = (&x[t..], &mut sums[t * ROWS..]);
            // SAFETY: there are as many tokens, with ROWS sums each.
            t += unsafe {
                match tokens - t {
                    1 => add::<S, F, 1>(s, &panel, x, sums, &mut ahead),
                    2 | 4 => add::<S, F, 2>(s, &panel, x, sums, &mut ahead),
                    _ => add::<S, F, TOKENS>(s, &panel, x, sums, &mut ahead),
                }
            };
        }
    }
    for (group, sums) in sums.chunks_exact(ROWS * tokens.max(1)).enumerate() {
        for t in 0..tokens {
            let row = &mut out.row_mut(t)[group * ROWS..];
            let n = row.len().min(ROWS);
            row[..n].copy_from_slice(&sums[t * ROWS..][..n]);
        }
    }
}

/// Block `block` of row `p.first + row`.
///
/// # Safety
/// As for `matmul`; `p.first + row` is a row of `p.w`, `block` is a block of it.
#[inline(always)]
unsafe fn unpack<S: Ints, F: Format>(s: S, p: &Product<'_>, row: usize, block: usize, to: &mut Row) {
    let dtype = DType::Quant(F::TYPE);
    let group_bytes = group_bytes::<F>();
    let row_bytes = p.n_in / dtype.block_elements() * dtype.block_bytes();
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
    fn new<F: Format>(p: &Product<'_>, row: usize, block: usize, steps: usize) -> Self {
        let dtype = DType::Quant(F::TYPE);
        let row_bytes = p.n_in / dtype.block_elements() * dtype.block_bytes();
        let next = p.w.as_ptr().wrapping_add((p.first + row) * row_bytes + block * group_bytes::<F>());
        let every = (steps / ROWS).clamp(1, 8); // of many tokens it is soon over
        Self { next, row_bytes, left: ROWS, rows: ROWS.div_ceil(steps), wait: every, every }
    }

    /// One step.
    #[inline(always)]
    fn step<S: Ints, F: Format>(&mut self, s: S) {
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
            for last in (63..group_bytes::<F>()).step_by(64) {
                s.prefetch(self.next.wrapping_add(last));
            }
            s.prefetch(self.next.wrapping_add(group_bytes::<F>() - 1));
            self.next = self.next.wrapping_add(self.row_bytes);
        }
        self.left = self.left.saturating_sub(self.rows);
    }
}

/// Bytes of 256 elements.
const fn group_bytes<F: Format>() -> usize {
    let dtype = DType::Quant(F::TYPE);
    BLOCK / dtype.block_elements() * dtype.block_bytes()
}

/// Two vectors of lanes for each of T tokens.
type Lanes<V, const T: usize> = [[V; 2]; T];

/// Adds the products of `panel` with the first T tokens of `x` to `sums: [T, ROWS]`; returns T.
///
/// # Safety
/// There are T tokens and their sums.
#[inline(always)]
unsafe fn add<S: Ints, F: Format, const T: usize>(
    s: S,
    panel: &Panel,
    x: &[Activations],
    sums: &mut [f32],
    ahead: &mut Ahead,
) -> usize {
    debug_assert!(x.len() >= T && sums.len() >= T * ROWS);
    // SAFETY: the caller's word.
    unsafe {
        let (x, y) = (x.as_ptr(), sums.as_mut_ptr());
        let mut sum = [[s.splat_f(0.0); 2]; T];
        for t in 0..T {
            sum[t] = [s.load_f(y.add(t * ROWS)), s.load_f(y.add(t * ROWS + 8))];
        }
        if by_256::<F>() {
            add_by_256::<S, F, T>(s, panel, x, &mut sum, ahead);
        } else {
            add_by_32::<S, F, T>(s, panel, x, &mut sum, ahead);
        }
        for t in 0..T {
            s.store_f(y.add(t * ROWS), sum[t][0]);
            s.store_f(y.add(t * ROWS + 8), sum[t][1]);
        }
    }
    T
}

/// The sums of products with part `part`, times `by`, added to `total`.
///
/// # Safety
/// There are T tokens at `x`.
#[inline(always)]
unsafe fn add_part<S: Ints, F: Format, const T: usize>(
    s: S,
    panel: &Panel,
    x: *const Activations,
    part: usize,
    by: Lanes<S::W, T>,
    total: &mut Lanes<S::I, T>,
) {
    let (quads, fits) = (F::BYTES.part / QUAD, const { F::BYTES.fits() });
    // SAFETY: of x the caller's word; quads and parts are those of a block.
    unsafe {
        let mut pairs = [[s.splat_w(0); 2]; T];
        if F::BYTES.offset > 0 {
            for t in 0..T {
                pairs[t] = [s.splat_pair((&raw const (*x.add(t)).offsets[part]).cast()); 2];
            }
        }
        for i in 0..quads {
            let k = part * quads + i;
            let w: *const u8 = (&raw const panel.w[k]).cast();
            let w = [s.load(w), s.load(w.add(32))];
            let magnitude = if F::BYTES.signed { [s.magnitude(w[0]), s.magnitude(w[1])] } else { w };
            for t in 0..T {
                let q = s.splat_quad((&raw const (*x.add(t)).q).cast::<u8>().add(QUAD * k));
                for v in 0..2 {
                    if fits == 1 && !by_256::<F>() {
                        total[t][v] = s.add_signed_quads(total[t][v], w[v], magnitude[v], q);
                    } else {
                        let two = if F::BYTES.signed { s.signed_pairs(w[v], magnitude[v], q) } else { s.pairs(w[v], q) };
                        pairs[t][v] = s.add_w(pairs[t][v], two);
                    }
                }
            }
            if (i + 1) % fits == 0 || i + 1 == quads {
                for t in 0..T {
                    for v in 0..2 {
                        total[t][v] = s.add_products(total[t][v], pairs[t][v], by[t][v]);
                        pairs[t][v] = s.splat_w(0);
                    }
                }
            }
        }
    }
}

/// For types with integer scales.
///
/// # Safety
/// There are T tokens at `x`.
#[inline(always)]
unsafe fn add_by_256<S: Ints, F: Format, const T: usize>(
    s: S,
    panel: &Panel,
    x: *const Activations,
    sum: &mut Lanes<S::F, T>,
    ahead: &mut Ahead,
) {
    let part_len = F::BYTES.part;
    let parts = BLOCK / part_len / const { F::BYTES.sums() };
    // SAFETY: of x the caller's word; all else are arrays of so many elements.
    unsafe {
        let scaled = |s: S, number: &[f32; ROWS], t: usize| {
            let (number, scale) = (number.as_ptr(), s.splat_f((*x.add(t)).scale));
            [s.mul(s.load_f(number), scale), s.mul(s.load_f(number.add(8)), scale)]
        };
        for i in 0..const { F::BYTES.sums() } {
            let mut total = [[s.zero(); 2]; T];
            for part in i * parts..(i + 1) * parts {
                let scales: *const i16 = panel.scales[place::<F>(part)].as_ptr().cast();
                let scales = [s.load_w(scales), s.load_w(scales.add(16))];
                let mut by = [[s.splat_w(0); 2]; T];
                for t in 0..T {
                    let factor = s.splat_w((*x.add(t)).factors[part * part_len / 32]);
                    by[t] = [s.mul_w(scales[0], factor), s.mul_w(scales[1], factor)];
                }
                ahead.step::<S, F>(s);
                add_part::<S, F, T>(s, panel, x, part, by, &mut total);
            }
            for t in 0..T {
                let d = scaled(s, &panel.d[0], t);
                for v in 0..2 {
                    sum[t][v] = s.add(sum[t][v], s.mul(s.to_f32(total[t][v]), d[v]));
                }
            }
        }
        if F::BYTES.mins {
            let mut total = [[s.zero(); 2]; T];
            for pair in 0..BLOCK / part_len / 2 {
                let mins: *const i16 = panel.mins[pair].as_ptr().cast();
                let mins = [s.load_w(mins), s.load_w(mins.add(16))];
                for t in 0..T {
                    let x = &*x.add(t);
                    let sums = if part_len == 32 { x.sums_32.as_ptr() } else { x.sums_16.as_ptr() };
                    let (factors, sums) = (s.splat_pair(x.factors[2 * pair % 8..].as_ptr()), s.splat_pair(sums.add(2 * pair)));
                    for v in 0..2 {
                        total[t][v] = s.add_products(total[t][v], s.mul_w(mins[v], factors), sums);
                    }
                }
            }
            for t in 0..T {
                let e = scaled(s, &panel.d[1], t);
                for v in 0..2 {
                    sum[t][v] = s.sub(sum[t][v], s.mul(s.to_f32(total[t][v]), e[v]));
                }
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
    panel: &Panel,
    x: *const Activations,
    sum: &mut Lanes<S::F, T>,
    ahead: &mut Ahead,
) {
    let one = [[s.splat_w(1); 2]; T];
    // Of parts at even places and at odd ones.
    let mut sums = [[[s.splat_f(0.0); 2]; T]; 2];
    // SAFETY: of x the caller's word; all else are arrays of so many elements.
    unsafe {
        for j in 0..4 {
            ahead.step::<S, F>(s);
            each!(2, ODD => {
                let mut total = [[s.zero(); 2]; T];
                add_part::<S, F, T>(s, panel, x, 2 * j + ODD, one, &mut total);
                let i = j + 4 * ODD; // where its numbers are
                let (d, m) = (panel.d[i].as_ptr(), panel.m[i].as_ptr());
                let (d, m) = ([s.load_f(d), s.load_f(d.add(8))], [s.load_f(m), s.load_f(m.add(8))]);
                for t in 0..T {
                    let x = &*x.add(t);
                    let (scale, sum_of_x) = (s.splat_f(x.scales[i]), s.splat_f(x.sums[i]));
                    for v in 0..2 {
                        let mut p = s.mul(s.to_f32(total[t][v]), s.mul(d[v], scale));
                        if F::BYTES.mins {
                            p = s.add(p, s.mul(m[v], sum_of_x));
                        }
                        sums[ODD][t][v] = s.add(sums[ODD][t][v], p);
                    }
                }
            });
        }
    }
    for t in 0..T {
        for v in 0..2 {
            sum[t][v] = s.add(sum[t][v], s.add(sums[0][t][v], sums[1][t][v]));
        }
    }
}
