//! Keys and values in 8 bits, and products of queries and weights with a block of them.
//!
//! Two elements of a position's key lie side by side, and of values the same element of two positions: sums go across no other lanes, and an
//! instruction adds two products.
//!
//! ```text
//! keys of a head in a block     [head_dim / 2][BLOCK][2] i8     [head_dim / GROUP][BLOCK] f32, a scale for GROUP elements of a position
//! values                        [BLOCK / 2][head_dim][2] i8     [BLOCK] f32, a scale for a position
//! ```
//!
//! Divisions are rounded up; the half of a pair that is not there is 0. An element is its integer times its scale: the largest of those that share
//! a scale over 127. Keys have more scales than values because in many models a few of a key's elements are always large.
//!
//! Queries, and weights times the scales of their positions, are rounded to 16 bits, relative to the largest of a query or of a span: an error
//! a hundredth of that of 8 bits. Products of these integers are summed without any error, so in any order: those of a block's
//! 64 positions, or of 32 elements, stay below 64·127·32767 < 2^31.

use super::BLOCK;
use super::product::Next;
use crate::kernels::columns::Ahead;
use crate::kernels::quant::ints::Lanewise;
use crate::threads::ColumnsMut;

/// Elements of a key that share a scale.
const GROUP: usize = 32;
/// The largest magnitudes of the integers.
const MAX_BYTE: f32 = 127.0;
const MAX_WORD: f32 = 32767.0;
/// What is smaller becomes 0: from here on a scale and its inverse are normal numbers.
const LEAST: f32 = 7.9e-31; // 2^-100

/// Bytes of a head's keys in a block.
pub fn key_bytes(head_dim: usize) -> usize {
    (head_dim.div_ceil(2) * 2 + head_dim.div_ceil(GROUP) * size_of::<f32>()) * BLOCK
}

/// Bytes of a head's values in a block.
pub fn value_bytes(head_dim: usize) -> usize {
    (head_dim + size_of::<f32>()) * BLOCK
}

/// The scales of a block's values, [`BLOCK`] of them.
pub fn value_scales(values: &[u8], to: &mut [f32]) {
    let (_, scales) = values.split_at(values.len() - size_of::<f32>() * BLOCK);
    for (to, bytes) in to.iter_mut().zip(scales.as_chunks().0) {
        *to = f32::from_le_bytes(*bytes);
    }
}

/// Queries with a block's keys (`scores[t, position]`), or weights with its values (`sums[t, element]`).
pub struct ByteProduct<'a> {
    /// The block's keys, or values.
    pub block: &'a [u8],
    /// Elements of a head.
    pub head_dim: usize,
    /// `[rows, ld_x]`: of a query `head_dim` integers and a zero if that is odd, or the weights of [`BLOCK`] positions.
    pub x: &'a [i16],
    /// Integers from one row of `x` to the next.
    pub ld_x: usize,
    /// What a row's integers are to be multiplied by.
    pub x_scales: &'a [f32],
    /// What will be read soon.
    pub next: Option<&'a [u8]>,
}

/// To call them: the CPU has their features; for a product, what `check_keys` or `check_values` says.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Functions {
    pub put_key: unsafe fn(&[f32], usize, &mut [u8]),
    pub put_value: unsafe fn(&[f32], usize, &mut [u8]),
    pub to_words: unsafe fn(&[f32], &mut [i16]) -> f32,
    pub multiply_keys: Multiply,
    pub multiply_values: Multiply,
}
type Multiply = unsafe fn(&ByteProduct<'_>, &mut ColumnsMut<'_>);

impl ByteProduct<'_> {
    /// Panics unless the sizes agree with each other and with `out`, which has columns of a block's positions.
    pub(super) fn check_keys(&self, out: &ColumnsMut<'_>) {
        assert!(self.block.len() == key_bytes(self.head_dim) && out.cols().len() <= BLOCK);
        self.check_x(out.rows(), self.head_dim.next_multiple_of(2));
    }
    /// The same with a column for each element.
    pub(super) fn check_values(&self, out: &ColumnsMut<'_>) {
        assert!(self.block.len() == value_bytes(self.head_dim) && out.cols().len() == self.head_dim);
        self.check_x(out.rows(), BLOCK);
    }
    fn check_x(&self, rows: usize, row: usize) {
        let len = rows.checked_sub(1).map_or(Some(0), |n| n.checked_mul(self.ld_x)?.checked_add(row));
        assert!(len.is_some_and(|len| len <= self.x.len()) && self.x_scales.len() == rows);
    }
}

/// Rounds a key into a block.
#[inline(always)]
pub(in crate::kernels) fn put_key(key: &[f32], position: usize, block: &mut [u8]) {
    let (pairs, scales) = block.split_at_mut(key.len().div_ceil(2) * 2 * BLOCK);
    let parts = key.chunks(GROUP).zip(pairs.chunks_mut(GROUP * BLOCK)).zip(scales.chunks_exact_mut(size_of::<f32>() * BLOCK));
    for ((key, pairs), scales) in parts {
        let (mut q, Scale { scale, by }) = ([0; GROUP], Scale::of(key, MAX_BYTE));
        q.iter_mut().zip(key).for_each(|(q, x)| *q = round(*x, by) as u8);
        scales[size_of::<f32>() * position..][..size_of::<f32>()].copy_from_slice(&scale.to_le_bytes());
        for (pairs, q) in pairs.chunks_exact_mut(2 * BLOCK).zip(q.as_chunks::<2>().0) {
            pairs[2 * position..][..2].copy_from_slice(q);
        }
    }
}

/// The same for a value.
#[inline(always)]
pub(in crate::kernels) fn put_value(value: &[f32], position: usize, block: &mut [u8]) {
    let (pairs, scales) = block.split_at_mut(value.len() * BLOCK);
    let pairs = &mut pairs[position / 2 * 2 * value.len()..][..2 * value.len()];
    let Scale { scale, by } = Scale::of(value, MAX_BYTE);
    pairs.as_chunks_mut::<2>().0.iter_mut().zip(value).for_each(|(pair, x)| pair[position % 2] = round(*x, by) as u8);
    scales[size_of::<f32>() * position..][..size_of::<f32>()].copy_from_slice(&scale.to_le_bytes());
}

/// Rounds `x` to 16 bits; returns the scale.
#[inline(always)]
pub(in crate::kernels) fn to_words(x: &[f32], words: &mut [i16]) -> f32 {
    let Scale { scale, by } = Scale::of(x, MAX_WORD);
    words.iter_mut().zip(x).for_each(|(word, x)| *word = round(*x, by) as i16);
    scale
}

/// What integers are to be multiplied by, and what numbers are, to become integers.
struct Scale {
    scale: f32,
    by: f32,
}

impl Scale {
    /// The largest magnitude becomes `most`. If one is infinite or NaN, the scale is NaN, and with it every product.
    #[inline(always)]
    fn of(x: &[f32], most: f32) -> Self {
        // Bits are in the order of magnitudes, and NaN's are above all others.
        let largest = f32::from_bits(x.iter().fold(0, |m, x| m.max(x.to_bits() & 0x7fff_ffff)));
        if !largest.is_finite() {
            Self { scale: f32::NAN, by: 0.0 }
        } else if largest < LEAST {
            Self { scale: 0.0, by: 0.0 }
        } else {
            Self { scale: largest / most, by: most / largest }
        }
    }
}

/// `x · by` to nearest, ties to even: it is at most 32767 and two roundings, so adding 1.5·2^23 leaves the integer in the last bits. (Of NaN comes some integer.)
#[inline(always)]
fn round(x: f32, by: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0;
    (x * by + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i32
}

/// `out[t, position] = x_scale[t] · Σ_g scale[g, position] · Σ_(k in g) x[t, k] · key[k, position]`, g in order.
///
/// # Safety
/// `p` has passed `check_keys` for `out`.
#[inline(always)]
pub(in crate::kernels) unsafe fn multiply_keys<S: Lanewise>(s: S, p: &ByteProduct<'_>, out: &mut ColumnsMut<'_>) {
    // SAFETY: passed on.
    unsafe { sweep::<S, true>(s, p, p.head_dim.div_ceil(2), BLOCK, out) }
}

/// `out[t, element] += x_scale[t] · Σ_position x[t, position] · value[position, element]`.
///
/// # Safety
/// `p` has passed `check_values` for `out`.
#[inline(always)]
pub(in crate::kernels) unsafe fn multiply_values<S: Lanewise>(s: S, p: &ByteProduct<'_>, out: &mut ColumnsMut<'_>) {
    // SAFETY: passed on.
    unsafe { sweep::<S, false>(s, p, BLOCK / 2, p.head_dim, out) }
}

/// Vectors of columns of a tile.
const fn vectors<S: Lanewise>() -> usize {
    // Beside 4 rows' sums: 16 of 32 registers, or 8 of 16.
    if S::ROWS == 16 { 4 } else { 2 }
}

/// All outputs of a product with `pairs` pairs of `ld` columns, in tiles of some vectors of columns by up to 4 rows.
///
/// # Safety
/// `p` has passed its check for `out`.
#[inline(always)]
unsafe fn sweep<S: Lanewise, const KEYS: bool>(s: S, p: &ByteProduct<'_>, pairs: usize, ld: usize, out: &mut ColumnsMut<'_>) {
    let (cols, rows) = (out.cols().len(), out.rows());
    let mut tiles =
        Tiles { p, pairs, ld, ahead: Next::new(p.next, pairs * cols.div_ceil(vectors::<S>() * S::ROWS) * rows.div_ceil(4)) };
    let mut c = 0;
    // SAFETY: a strip's columns are c.. below cols.
    unsafe {
        if vectors::<S>() == 4 {
            while c + 4 * S::ROWS <= cols {
                tiles.strip::<S, 4, KEYS>(s, c, out);
                c += 4 * S::ROWS;
            }
        }
        while c + 2 * S::ROWS <= cols {
            tiles.strip::<S, 2, KEYS>(s, c, out);
            c += 2 * S::ROWS;
        }
        if c + S::ROWS <= cols {
            tiles.strip::<S, 1, KEYS>(s, c, out);
            c += S::ROWS;
        }
    }
    for t in 0..rows {
        for c in c..cols {
            tiles.single::<KEYS>(t, c, &mut out.row_mut(t)[c]);
        }
    }
}

/// A product on its way.
struct Tiles<'a> {
    p: &'a ByteProduct<'a>,
    pairs: usize,
    /// Columns of the block.
    ld: usize,
    ahead: Next,
}

impl Tiles<'_> {
    /// Pairs that share a scale, and how many such there are.
    #[inline(always)]
    fn groups<const KEYS: bool>(&self) -> (usize, usize) {
        let of_group = if KEYS { GROUP / 2 } else { self.pairs };
        (of_group, self.pairs.div_ceil(of_group))
    }

    /// # Safety
    /// `p` has passed its check for `out`, which has C vectors of columns from `c` on.
    #[inline(always)]
    unsafe fn strip<S: Lanewise, const C: usize, const KEYS: bool>(&mut self, s: S, c: usize, out: &mut ColumnsMut<'_>) {
        let rows = out.rows();
        let mut t = 0;
        while t < rows {
            // SAFETY: passed on; t.. is inside the rows.
            t += unsafe {
                match rows - t {
                    1 => self.tile::<S, C, 1, KEYS>(s, c, t, out),
                    2 | 3 => self.tile::<S, C, 2, KEYS>(s, c, t, out),
                    _ => self.tile::<S, C, 4, KEYS>(s, c, t, out),
                }
            };
        }
    }

    /// The rows `t..t + T` of a strip; returns T.
    ///
    /// # Safety
    /// As for `strip`; these are rows of `out`.
    #[inline(always)]
    unsafe fn tile<S: Lanewise, const C: usize, const T: usize, const KEYS: bool>(
        &mut self,
        s: S,
        c: usize,
        t: usize,
        out: &mut ColumnsMut<'_>,
    ) -> usize {
        let ((of_group, groups), ld_y) = (self.groups::<KEYS>(), out.ld());
        // SAFETY: by the check, the block has `pairs` rows of `ld` pairs, and for keys `groups` rows of `ld` scales behind them, x has for each of out's
        // rows as many pairs, ld_x apart; c.. and t.. are inside out, whose columns are at most `ld`.
        unsafe {
            let w = self.p.block.as_ptr();
            let w_scales = w.add(2 * self.pairs * self.ld).cast::<f32>();
            let (x, y) = (self.p.x.as_ptr().add(t * self.p.ld_x), out.as_mut_ptr().add(t * ld_y + c));
            for group in 0..groups {
                let mut sums = [[s.zero(); T]; C];
                for pair in group * of_group..self.pairs.min((group + 1) * of_group) {
                    let row = w.add(2 * (pair * self.ld + c));
                    self.ahead.row(row);
                    let mut w = [s.splat_w(0); C];
                    for (i, w) in w.iter_mut().enumerate() {
                        *w = s.load_byte_pairs(row.add(2 * i * S::ROWS).cast());
                    }
                    for j in 0..T {
                        let x = s.splat_pair(x.add(j * self.p.ld_x + 2 * pair));
                        for (w, sums) in w.iter().zip(&mut sums) {
                            sums[j] = s.add_products(sums[j], *w, x);
                        }
                    }
                }
                for (i, sums) in sums.into_iter().enumerate() {
                    for (j, sum) in sums.into_iter().enumerate() {
                        let y = y.add(j * ld_y + i * S::ROWS);
                        let x_scale = self.p.x_scales[t + j];
                        s.store_f(
                            y,
                            if KEYS {
                                let w_scale = s.load_f(w_scales.add(group * self.ld + c + i * S::ROWS));
                                let scaled = s.mul(s.to_f32(sum), w_scale);
                                let sum = if group == 0 { scaled } else { s.add(s.load_f(y), scaled) };
                                if group + 1 == groups { s.mul(sum, s.splat_f(x_scale)) } else { sum }
                            } else {
                                s.add(s.load_f(y), s.mul(s.to_f32(sum), s.splat_f(x_scale)))
                            },
                        );
                    }
                }
            }
        }
        T
    }

    /// One output, with the same bits.
    fn single<const KEYS: bool>(&self, t: usize, c: usize, y: &mut f32) {
        let (of_group, groups) = self.groups::<KEYS>();
        let (w, w_scales) = self.p.block.split_at(2 * self.pairs * self.ld);
        for group in 0..groups {
            let mut sum = 0i32;
            for pair in group * of_group..self.pairs.min((group + 1) * of_group) {
                for half in 0..2 {
                    let w = w[2 * (pair * self.ld + c) + half] as i8;
                    sum = sum.wrapping_add(i32::from(w) * i32::from(self.p.x[t * self.p.ld_x + 2 * pair + half]));
                }
            }
            let (sum, x_scale) = (sum as f32, self.p.x_scales[t]);
            *y = if KEYS {
                let scaled = sum * f32::from_le_bytes(w_scales.as_chunks().0[group * self.ld + c]);
                let sum = if group == 0 { scaled } else { *y + scaled };
                if group + 1 == groups { sum * x_scale } else { sum }
            } else {
                *y + sum * x_scale
            };
        }
    }
}
