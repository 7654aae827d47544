//! The product with a block of keys or values, in registers.
//!
//! **Order of summation**, for every output: k = 0, 1, 2… by FMA into one sum, from 0 or from what `out` holds.
//!
//! **Blocking.** A tile of C vectors of columns × T rows of `x` has its sums in registers for all of K, which is short. Rows of
//! `w` are read from left to right. Meanwhile a block that will be read later is asked for line by line, evenly over all tiles: what is read but
//! once would else be waited for in the first tiles, and memory would rest during the others. It is asked for into L2: of L1, which has no room for it
//! beside this one, more lines are wanted at a time than a CPU can wait for.

use super::BlockProduct;
use crate::kernels::columns::{self, Sums, Tile};
use crate::kernels::float::Element;
use crate::kernels::prefetch::{self, LINE};
use crate::kernels::simd::Simd;
use crate::threads::ColumnsMut;

/// The lines of what will be read soon, shared out among the steps of a product. Of a large block in turns from its four quarters, as memory
/// gives more to several streams than to one: 16 heads of 128 in f32 at 4096 positions 1.3 times as fast on a Zen 3; smaller blocks gained nothing.
pub(super) struct Next {
    next: *const u8,
    /// Lines asked for so far.
    asked: usize,
    lines: usize,
    /// Logarithm of the number of parts, and the lines of one.
    parts: u32,
    part: usize,
    steps: usize,
    /// `lines` for each step so far, less `steps` for each line so far.
    due: usize,
}

impl Next {
    /// For so many steps.
    #[inline(always)]
    pub fn new(next: Option<&[u8]>, steps: usize) -> Self {
        let next = next.unwrap_or(&[]);
        let lines = next.len().div_ceil(LINE);
        let parts = if next.len() < LARGE { 0 } else { 2 };
        Self { next: next.as_ptr(), asked: 0, lines, parts, part: lines.div_ceil(1 << parts), steps: steps.max(1), due: 0 }
    }
}

impl columns::Ahead for Next {
    /// One step.
    #[inline(always)]
    fn row(&mut self, _: *const u8) {
        self.due += self.lines;
        while self.due >= self.steps {
            self.due -= self.steps;
            let (part, line) = (self.asked & ((1 << self.parts) - 1), self.asked >> self.parts);
            // The last part may be shorter: a prefetch may be of any address.
            prefetch::far(self.next.wrapping_add((part * self.part + line) * LINE));
            self.asked += 1;
        }
    }
}

/// Bytes of a large block.
const LARGE: usize = 32 << 10;

/// # Safety
/// `p` has passed `BlockProduct::check` for `E` and `out`.
#[inline(always)]
pub(in crate::kernels) unsafe fn multiply<S: Simd, E: Element>(s: S, p: &BlockProduct<'_>, out: &mut ColumnsMut<'_>) {
    // SAFETY: passed on.
    unsafe {
        match out.rows() {
            0 => (),
            // 64 columns each: a block's keys have so many, and its values a multiple in most models.
            1 if S::LANES == 16 => sweep::<S, E, 4, 1>(s, p, out),
            1 => sweep::<S, E, 8, 1>(s, p, out),
            // Of 6 rows the compiler loads all ten operands first and leaves two of the 24 sums on the stack: 0.85 of the speed.
            _ if S::REGISTERS >= 32 => sweep::<S, E, 4, 5>(s, p, out),
            4 | 8 => sweep::<S, E, 2, 4>(s, p, out),
            _ => sweep::<S, E, 4, 3>(s, p, out),
        }
    }
}

/// All outputs, in tiles of C vectors of columns by at most T rows.
///
/// # Safety
/// As for `multiply`.
#[inline(always)]
unsafe fn sweep<S: Simd, E: Element, const C: usize, const T: usize>(s: S, p: &BlockProduct<'_>, out: &mut ColumnsMut<'_>) {
    let cols = out.cols().len();
    let mut ahead = Next::new(p.next, p.n_in * cols.div_ceil(C * S::LANES) * out.rows().div_ceil(T));
    let mut c = 0;
    while c < cols {
        // SAFETY: a strip's columns are c.. below cols, of which the last vector may be in part.
        c += unsafe {
            match cols - c {
                left if left >= C * S::LANES => strip::<S, E, C, T, false>(s, p, out, c, S::LANES, &mut ahead),
                left if left >= S::LANES => strip::<S, E, 1, T, false>(s, p, out, c, S::LANES, &mut ahead),
                left => strip::<S, E, 1, T, true>(s, p, out, c, left, &mut ahead),
            }
        };
    }
}

/// The columns `c..` of all rows: C vectors whose last has `last` columns (all, unless PART); returns their number.
///
/// # Safety
/// As for `multiply`; the columns are inside `out`.
#[inline(always)]
unsafe fn strip<S: Simd, E: Element, const C: usize, const T: usize, const PART: bool>(
    s: S,
    p: &BlockProduct<'_>,
    out: &mut ColumnsMut<'_>,
    c: usize,
    last: usize,
    ahead: &mut Next,
) -> usize {
    let rows = out.rows();
    let mut t = 0;
    while t < rows {
        // SAFETY: passed on; t.. is inside the rows.
        t += unsafe {
            match rows - t {
                1 => tile::<S, E, C, 1, PART>(s, p, out, c, last, t, ahead),
                2 | 4 if T == 3 => tile::<S, E, C, 2, PART>(s, p, out, c, last, t, ahead),
                2 | 3 | 6 | 7 if T > 3 => tile::<S, E, C, 2, PART>(s, p, out, c, last, t, ahead),
                4 | 8 | 9 if T > 3 => tile::<S, E, C, 4, PART>(s, p, out, c, last, t, ahead),
                _ => tile::<S, E, C, T, PART>(s, p, out, c, last, t, ahead),
            }
        };
    }
    (C - 1) * S::LANES + last
}

/// A strip's rows `t..t + T`; returns T.
///
/// # Safety
/// As for `strip`; `t..t + T` are rows of `out`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn tile<S: Simd, E: Element, const C: usize, const T: usize, const PART: bool>(
    s: S,
    p: &BlockProduct<'_>,
    out: &mut ColumnsMut<'_>,
    c: usize,
    last: usize,
    t: usize,
    ahead: &mut Next,
) -> usize {
    let ld = out.ld();
    // SAFETY: `check` saw that w has n_in rows of at least as many columns as out, ld_w apart, and x a row of n_in elements for
    // each of out, ld_x apart; the caller that c.. and t.. are inside out. Without PART a vector is whole.
    unsafe {
        let tile = Tile::<T> {
            w: p.w.as_ptr().add(c * E::SIZE),
            ld_w: p.ld_w * E::SIZE,
            n: p.n_in,
            x: std::array::from_fn(|j| p.x.as_ptr().add((t + j) * p.ld_x)),
            ld_x: 1,
            y: std::array::from_fn(|j| out.as_mut_ptr().add((t + j) * ld + c)),
            last,
            sums: if p.add { Sums::GoOn } else { Sums::First },
        };
        tile.multiply::<S, E, _, C, PART>(s, ahead);
    }
    T
}
