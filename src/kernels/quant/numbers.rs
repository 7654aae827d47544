//! What scales the elements of rows side by side, a lane to a row.

use super::activations::BLOCK;
use super::ints::Lanewise;

/// Rows side by side, at most.
pub(super) const MAX_ROWS: usize = 16;
/// Parts of 256 elements, at most.
pub(super) const MAX_PARTS: usize = BLOCK / 16;

/// Rows at the same distance from each other.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Rows {
    pub first: *const u8,
    pub stride: usize,
}

impl Rows {
    /// The 16 bytes at `at` of each row, quad by quad.
    ///
    /// # Safety
    /// As many rows as `S` has lanes have them.
    #[inline(always)]
    pub unsafe fn lines<S: Lanewise>(self, s: S, at: usize) -> [S::B; 4] {
        // SAFETY: the caller's word.
        unsafe { s.load_rows(self.first.add(at), self.stride) }
    }
}

/// The numbers of 256 elements of each row.
#[repr(C, align(64))]
pub(in crate::kernels) struct Numbers {
    /// Of types with integer scales: that of each part, twice, of parts of 16 those at even places first; in the same order the minimums, those of
    /// two parts in a lane; and d and e as the first two of `d`.
    pub scales: [[[i16; 2]; MAX_ROWS]; MAX_PARTS],
    pub mins: [[[i16; 2]; MAX_ROWS]; MAX_PARTS / 2],
    /// Of the others: each part's d and m, those at even places first.
    pub d: [[f32; MAX_ROWS]; 8],
    pub m: [[f32; MAX_ROWS]; 8],
    /// Of those of five bits the fifth ones, part by part.
    pub fifth: [[u32; MAX_ROWS]; 8],
}

impl Numbers {
    pub const ZERO: Self = Self {
        scales: [[[0; 2]; MAX_ROWS]; MAX_PARTS],
        mins: [[[0; 2]; MAX_ROWS]; MAX_PARTS / 2],
        d: [[0.0; MAX_ROWS]; 8],
        m: [[0.0; MAX_ROWS]; 8],
        fifth: [[0; MAX_ROWS]; 8],
    };
}
