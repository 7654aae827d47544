//! The innermost part of products in which a column of `w` is an output: `out[t, c] = Σ_k w[k, c] · x[t, k]`.

use super::float::Element;
use super::simd::Simd;

/// C vectors of columns × T rows of `x`: the sums stay in registers for all of K, which is summed in order, by FMA into one sum.
pub(super) struct Tile<const T: usize> {
    /// The first row's first column.
    pub w: *const u8,
    /// Bytes from one row of `w` to the next.
    pub ld_w: usize,
    /// Rows of `w`.
    pub n: usize,
    /// `n` elements each, `ld_x` apart.
    pub x: [*const f32; T],
    pub ld_x: usize,
    /// Where the sums go.
    pub y: [*mut f32; T],
    /// Columns of the last vector: all of them, unless PART.
    pub last: usize,
    pub sums: Sums,
}

/// What becomes of what is at `y`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sums {
    /// It is written over.
    First,
    /// The sums begin with it.
    GoOn,
    /// The sums are added to it.
    Added,
}

/// Asks for what will be read later.
pub(super) trait Ahead {
    /// Before the products with each row of `w`, which is at `w`.
    fn row(&mut self, w: *const u8);
}

impl<const T: usize> Tile<T> {
    /// # Safety
    /// At `w` lie `n` rows, `ld_w` bytes apart, of C vectors of columns of type E; at each of `x` `n` elements, `ld_x` apart; at each of `y` as
    /// many as columns, which nobody else uses. The last vector, and with PART no other, has only `last` columns.
    #[inline(always)]
    pub unsafe fn multiply<S: Simd, E: Element, A: Ahead, const C: usize, const PART: bool>(&self, s: S, ahead: &mut A) {
        let last = self.last;
        let mut sums = [[s.splat(0.0); T]; C];
        // SAFETY: as the caller says; vector i has the columns from i * LANES on.
        unsafe {
            let old = |i: usize, y: *mut f32| if PART { s.load_first(y, last) } else { s.load(y.add(i * S::LANES)) };
            if self.sums == Sums::GoOn {
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (y, sum) in self.y.iter().zip(sums) {
                        *sum = old(i, *y);
                    }
                }
            }
            for k in 0..self.n {
                let w = self.w.add(k * self.ld_w);
                ahead.row(w);
                // The fewer operands of the two wait in registers for the others.
                let row = |i: usize| if PART { E::load_first(s, w, last) } else { E::load(s, w.add(i * S::LANES * E::SIZE)) };
                if C < T {
                    let mut w = [s.splat(0.0); C];
                    for (i, w) in w.iter_mut().enumerate() {
                        *w = row(i);
                    }
                    for (j, x) in self.x.iter().enumerate() {
                        let x = s.splat(*x.add(k * self.ld_x));
                        for (w, sums) in w.iter().zip(&mut sums) {
                            sums[j] = s.fma(*w, x, sums[j]);
                        }
                    }
                } else {
                    let mut x = [s.splat(0.0); T];
                    for (splat, x) in x.iter_mut().zip(&self.x) {
                        *splat = s.splat(*x.add(k * self.ld_x));
                    }
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let w = row(i);
                        for (x, sum) in x.iter().zip(sums) {
                            *sum = s.fma(w, *x, *sum);
                        }
                    }
                }
            }
            for (i, sums) in sums.into_iter().enumerate() {
                for (y, sum) in self.y.iter().zip(sums) {
                    let sum = if self.sums == Sums::Added { s.add(old(i, *y), sum) } else { sum };
                    if PART {
                        s.store_first(*y, last, sum);
                    } else {
                        s.store(y.add(i * S::LANES), sum);
                    }
                }
            }
        }
    }
}
