//! What scales the elements of rows side by side, a lane to a row.

use super::activations::BLOCK;

/// Rows that are read at once.
pub(super) const EIGHT: usize = 8;
/// Parts of 256 elements, at most.
pub(super) const MAX_PARTS: usize = BLOCK / 16;

/// Eight rows at the same distance from each other.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Rows {
    pub first: *const u8,
    pub stride: usize,
}

impl Rows {
    /// Byte `at` of each.
    ///
    /// # Safety
    /// They have it.
    #[inline(always)]
    pub unsafe fn at(self, at: usize) -> [*const u8; EIGHT] {
        // SAFETY: the caller's word.
        unsafe {
            let first = self.first.add(at);
            each!(8, R => first.add(R * self.stride))
        }
    }
}

/// The numbers of 256 elements of so many rows.
#[repr(C, align(64))]
pub(in crate::kernels) struct Numbers<const ROWS: usize> {
    /// Of types with integer scales: that of each part, twice, of parts of 16 those at even places first; in the same order the minimums, those of
    /// two parts in a lane; and d and e as the first two of `d`.
    pub scales: [[[i16; 2]; ROWS]; MAX_PARTS],
    pub mins: [[[i16; 2]; ROWS]; MAX_PARTS / 2],
    /// Of the others: each part's d and m, those at even places first.
    pub d: [[f32; ROWS]; 8],
    pub m: [[f32; ROWS]; 8],
}

impl<const ROWS: usize> Numbers<ROWS> {
    pub const ZERO: Self = Self {
        scales: [[[0; 2]; ROWS]; MAX_PARTS],
        mins: [[[0; 2]; ROWS]; MAX_PARTS / 2],
        d: [[0.0; ROWS]; 8],
        m: [[0.0; ROWS]; 8],
    };
}
