//! [`ColumnsMut`]: what one task of a matrix has to itself.

use std::marker::PhantomData;
use std::ops::Range;

/// Some columns of a row-major matrix `[rows, ld]`, owned by one task: `row_mut(r)` is its part of row `r`.
pub struct ColumnsMut<'a> {
    ptr: *mut f32,
    ld: usize,
    rows: usize,
    cols: Range<usize>,
    _marker: PhantomData<&'a mut f32>,
}

// SAFETY: it is a mutable borrow of its columns, as `&mut [f32]` would be if they lay in one piece.
unsafe impl Send for ColumnsMut<'_> {}

impl<'a> ColumnsMut<'a> {
    /// All of `y`: `[rows, ld]` with `ld` columns.
    ///
    /// # Panics
    /// If `y` is shorter than that.
    pub fn whole(y: &'a mut [f32], rows: usize, ld: usize) -> Self {
        assert!(rows.checked_mul(ld).is_some_and(|n| n <= y.len()), "[{rows}, {ld}] in {} elements", y.len());
        Self { ptr: y.as_mut_ptr(), ld, rows, cols: 0..ld, _marker: PhantomData }
    }
    /// The columns `cols` of the rows at `ptr`, which are those of a matrix that [`ColumnsMut::whole`] checked, or the end of it if
    /// `rows` is 0.
    ///
    /// # Safety
    /// During `'a`, `rows` rows of `ld` elements stay at `ptr`, `cols` lie inside `0..ld`, and nothing else touches these columns.
    pub(super) unsafe fn part(ptr: *mut f32, ld: usize, rows: usize, cols: Range<usize>) -> Self {
        Self { ptr, ld, rows, cols, _marker: PhantomData }
    }
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Which columns of the whole matrix these are.
    pub fn cols(&self) -> Range<usize> {
        self.cols.clone()
    }
    /// Elements from one row to the next.
    pub fn ld(&self) -> usize {
        self.ld
    }
    /// The address of row 0, first column of this part; valid for `rows` rows of `cols.len()` elements, `ld` apart.
    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        // With no rows the matrix may be empty, hence wrapping; else cols.start <= ld lies inside it.
        self.ptr.wrapping_add(self.cols.start)
    }
    /// This part of row `r`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row_mut(&mut self, r: usize) -> &mut [f32] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        // SAFETY: r < rows and cols lie inside ld, so the range is inside the matrix, which `whole` checked or `part`'s caller promised;
        // this part alone owns these columns, and is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(r * self.ld + self.cols.start), self.cols.len()) }
    }
    /// The rows `rows` of this part.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn sub_rows(&mut self, rows: Range<usize>) -> ColumnsMut<'_> {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        // The end of a matrix without rows need not be in it, hence wrapping.
        let ptr = self.ptr.wrapping_add(rows.start * self.ld);
        ColumnsMut { ptr, ld: self.ld, rows: rows.len(), cols: self.cols.clone(), _marker: PhantomData }
    }
    /// The part `cols` (columns of the whole matrix) of this part.
    ///
    /// # Panics
    /// If `cols` is not inside this part.
    pub fn sub(&mut self, cols: Range<usize>) -> ColumnsMut<'_> {
        assert!(cols.start >= self.cols.start && cols.end <= self.cols.end && cols.start <= cols.end);
        ColumnsMut { ptr: self.ptr, ld: self.ld, rows: self.rows, cols, _marker: PhantomData }
    }
}
