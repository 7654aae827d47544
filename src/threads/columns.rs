//! [`ColumnsMut`]: what one task of a matrix has to itself.

use std::marker::PhantomData;
use std::ops::Range;

/// Some columns of a row-major matrix `[rows, ld]`, owned by one task: `row_mut(r)` is its part of row `r`.
pub struct ColumnsMut<'a, T = f32> {
    ptr: *mut T,
    ld: usize,
    rows: usize,
    cols: Range<usize>,
    _marker: PhantomData<&'a mut T>,
}

// SAFETY: it is a mutable borrow of its columns, as `&mut [T]` would be if they lay in one piece.
unsafe impl<T: Send> Send for ColumnsMut<'_, T> {}

impl<'a, T> ColumnsMut<'a, T> {
    /// All of `y`: `[rows, ld]` with `ld` columns.
    ///
    /// # Panics
    /// If `y` is shorter than that.
    pub fn whole(y: &'a mut [T], rows: usize, ld: usize) -> Self {
        assert!(rows.checked_mul(ld).is_some_and(|n| n <= y.len()), "[{rows}, {ld}] in {} elements", y.len());
        Self { ptr: y.as_mut_ptr(), ld, rows, cols: 0..ld, _marker: PhantomData }
    }
    /// The columns `cols` of the rows at `ptr`, which are those of a matrix that [`ColumnsMut::whole`] checked, or the end of it if
    /// `rows` is 0.
    ///
    /// # Safety
    /// During `'a`, `rows` rows of `ld` elements stay at `ptr`, `cols` lie inside `0..ld`, and nothing else touches these columns.
    pub(super) unsafe fn part(ptr: *mut T, ld: usize, rows: usize, cols: Range<usize>) -> Self {
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
    pub fn as_mut_ptr(&mut self) -> *mut T {
        // With no rows the matrix may be empty, hence wrapping; else cols.start <= ld lies inside it.
        self.ptr.wrapping_add(self.cols.start)
    }
    /// This part of row `r`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row_mut(&mut self, r: usize) -> &mut [T] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        // SAFETY: r < rows and cols lie inside ld, so the range is inside the matrix, which `whole` checked or `part`'s caller promised;
        // this part alone owns these columns, and is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(r * self.ld + self.cols.start), self.cols.len()) }
    }
    /// The rows `rows` of this part.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn sub_rows(&mut self, rows: Range<usize>) -> ColumnsMut<'_, T> {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        // The end of a matrix without rows need not be in it, hence wrapping.
        let ptr = self.ptr.wrapping_add(rows.start * self.ld);
        ColumnsMut { ptr, ld: self.ld, rows: rows.len(), cols: self.cols.clone(), _marker: PhantomData }
    }
    /// The part `cols` (columns of the whole matrix) of this part.
    ///
    /// # Panics
    /// If `cols` is not inside this part.
    pub fn sub(&mut self, cols: Range<usize>) -> ColumnsMut<'_, T> {
        assert!(cols.start >= self.cols.start && cols.end <= self.cols.end && cols.start <= cols.end);
        ColumnsMut { ptr: self.ptr, ld: self.ld, rows: self.rows, cols, _marker: PhantomData }
    }
}

/// Columns that a call of the pool cuts into runs of `chunk`, one for each task; the last ones may be shorter or empty.
pub struct Cut<'a, T> {
    whole: ColumnsMut<'a, T>,
    chunk: usize,
}

// SAFETY: threads can do nothing with a shared one but to call `part`, whose callers see that no two of them have the same columns.
unsafe impl<T: Send> Sync for Cut<'_, T> {}

impl<'a, T> Cut<'a, T> {
    /// `whole` in runs of `chunk` columns.
    pub fn new(whole: ColumnsMut<'a, T>, chunk: usize) -> Self {
        Self { whole, chunk: chunk.max(1) }
    }
    /// How many runs there are.
    pub(super) fn tasks(&self) -> usize {
        self.whole.cols.len().div_ceil(self.chunk)
    }
    /// Run `task`.
    ///
    /// # Safety
    /// No other part of that number is alive.
    pub(super) unsafe fn part(&self, task: usize) -> ColumnsMut<'_, T> {
        let Range { start, end } = self.whole.cols;
        let of = |task: usize| start + task.saturating_mul(self.chunk).min(end - start);
        // SAFETY: these are columns of `whole`, which has them to itself; runs of different numbers do not overlap.
        unsafe { ColumnsMut::part(self.whole.ptr, self.whole.ld, self.whole.rows, of(task)..of(task + 1)) }
    }
}
