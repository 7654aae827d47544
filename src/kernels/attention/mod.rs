//! What attention is made of: products of a few queries with a block of the cache, and softmax in parts. Keys lie with a
//! position to a column (`[head_dim, BLOCK]`) and values with a position to a row (`[BLOCK, head_dim]`), so that scores and outputs are
//! the same kind of product and no sum goes across the lanes of a vector.

pub mod bytes;
pub(super) mod product;
pub(super) mod scalar;
#[cfg(test)]
mod tests;

use super::{Kernels, Softmax};
use crate::format::Float;
use crate::threads::ColumnsMut;
use bytes::ByteProduct;

/// Positions of a block of the cache.
pub const BLOCK: usize = 64;

/// `out[t, c] = Σ_k x[t, k] · w[k, c]` for the columns and rows of `out`.
pub struct BlockProduct<'a> {
    /// `[n_in, ld_w]` elements, of which the last row may be shorter: keys, or values.
    pub w: &'a [u8],
    /// Elements from one row of `w` to the next.
    pub ld_w: usize,
    /// Length of the sums.
    pub n_in: usize,
    /// `[rows, ld_x]`: queries, or weights.
    pub x: &'a [f32],
    /// Elements from one row of `x` to the next.
    pub ld_x: usize,
    /// Whether to start from what `out` holds instead of from 0.
    pub add: bool,
    /// What will be read soon.
    pub next: Option<&'a [u8]>,
}

/// A product with a block. To call it: the CPU has its features, and the product has passed [`BlockProduct::check`].
pub(super) type Multiply = unsafe fn(&BlockProduct<'_>, &mut ColumnsMut<'_>);

impl BlockProduct<'_> {
    /// Panics unless the sizes agree with each other and with `out`: every kernel relies on it.
    fn check(&self, dtype: Float, out: &ColumnsMut<'_>) {
        let (rows, cols) = (out.rows(), out.cols().len());
        // Elements up to the end of the last row.
        let extent =
            |rows: usize, ld: usize, row: usize| rows.checked_sub(1).map_or(Some(0), |n| n.checked_mul(ld)?.checked_add(row));
        let w = extent(self.n_in, self.ld_w, cols).and_then(|n| n.checked_mul(dtype.size()));
        assert!(w.is_some_and(|n| n <= self.w.len()) && extent(rows, self.ld_x, self.n_in).is_some_and(|n| n <= self.x.len()));
    }
}

impl Kernels {
    /// The product with a block of `dtype`. A row's bits do not depend on the others.
    pub fn multiply_block(&self, dtype: Float, p: &BlockProduct<'_>, out: &mut ColumnsMut<'_>) {
        p.check(dtype, out);
        // SAFETY: `select` saw the features; `check` saw the sizes.
        unsafe { self.multiply_block.of(dtype)(p, out) }
    }

    /// Rounds the key of the position that is number `position` of a block to 8 bits, into the block's keys of its head, [`bytes::key_bytes`] in all.
    pub fn put_key(&self, key: &[f32], position: usize, keys: &mut [u8]) {
        assert!(position < BLOCK && keys.len() == bytes::key_bytes(key.len()));
        // SAFETY: `select` saw the features.
        unsafe { (self.products.bytes.put_key)(key, position, keys) }
    }

    /// The same for a value, [`bytes::value_bytes`] in all.
    pub fn put_value(&self, value: &[f32], position: usize, values: &mut [u8]) {
        assert!(position < BLOCK && values.len() == bytes::value_bytes(value.len()));
        // SAFETY: `select` saw the features.
        unsafe { (self.products.bytes.put_value)(value, position, values) }
    }

    /// Rounds `x` to 16 bits relative to its largest element; returns what the integers are to be multiplied by. Of x that is not finite the scale is NaN.
    pub fn to_words(&self, x: &[f32], words: &mut [i16]) -> f32 {
        assert_eq!(x.len(), words.len());
        // SAFETY: `select` saw the features.
        unsafe { (self.products.bytes.to_words)(x, words) }
    }

    /// Scores of queries with the first positions of a block, as many as `out` has columns. The bits are the same on every instruction set, here and in
    /// [`Kernels::multiply_values`].
    pub fn multiply_keys(&self, p: &ByteProduct<'_>, out: &mut ColumnsMut<'_>) {
        p.check_keys(out);
        // SAFETY: `select` saw the features; the sizes were checked.
        unsafe { (self.products.bytes.multiply_keys)(p, out) }
    }

    /// Adds a block's weighted values to `out`; the weights have the positions' scales ([`bytes::value_scales`]) in them.
    pub fn multiply_values(&self, p: &ByteProduct<'_>, out: &mut ColumnsMut<'_>) {
        p.check_values(out);
        // SAFETY: `select` saw the features; the sizes were checked.
        unsafe { (self.products.bytes.multiply_values)(p, out) }
    }

    /// Scores become weights, exp(score − their maximum). A score of −∞ (masked) weighs nothing; of nothing else there is no sum.
    pub fn softmax(&self, scores: &mut [f32]) -> Softmax {
        // SAFETY: `select` saw the features.
        let max = unsafe { (self.max)(scores) };
        if max == f32::NEG_INFINITY {
            scores.fill(0.0); // exp(−∞ − −∞) would be NaN
            return Softmax::EMPTY;
        }
        // SAFETY: as above.
        Softmax { max, sum: unsafe { (self.exp_sum)(scores, max) } }
    }
}
