//! Matrices from any type to any other, by rows, on all threads.
#![forbid(unsafe_code)]

use crate::error::{Error, Result, try_vec};
use crate::format::DType;
use crate::kernels::{self, Kernels, Layout, Matrix};
use crate::threads::Pool;
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Elements that one task converts at least: some hundred microseconds.
const TASK: usize = 1 << 14;

/// Who converts, and what for in messages.
#[derive(Clone, Copy)]
pub struct Convert<'a> {
    /// The table.
    pub kernels: &'a Kernels,
    /// The threads.
    pub pool: &'a Pool,
    /// The file of the matrix.
    pub file: &'a Path,
    /// The tensor's name.
    pub name: &'a str,
}

/// An element that the type does not hold.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Unfit {
    row: usize,
    column: usize,
    value: f32,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unfit { row, column, value } = self;
        let expected = kernels::LARGEST;
        write!(f, "element [{row}, {column}] is {value}; quantisation takes finite numbers of at most {expected} in magnitude")
    }
}

impl Convert<'_> {
    /// The outputs `first..` of `source` as rows of `dtype` ([`Layout::OutIn`]), as many as `out` holds. A block type or F16
    /// refuses what it cannot hold; the other floats round it.
    ///
    /// # Panics
    /// If the rows are not inside `source`, or are no whole blocks of `dtype`.
    pub fn rows(&self, source: Matrix<'_>, first: usize, dtype: DType, out: &mut [u8]) -> Result<()> {
        let n_in = source.n_in;
        let row_bytes = dtype.bytes(n_in).filter(|&bytes| bytes > 0 && out.len().is_multiple_of(bytes));
        let row_bytes = row_bytes.expect("whole rows of whole blocks");
        assert!(first + out.len() / row_bytes <= source.n_out);
        let chunk = TASK.div_ceil(n_in);
        let parts: Vec<Mutex<&mut [u8]>> = out.chunks_mut(chunk * row_bytes).map(Mutex::new).collect();
        let mut scratch = Vec::new();
        for _ in 0..self.pool.threads().min(parts.len()) {
            scratch.push((try_vec(0.0f32, chunk * n_in, self.name)?, try_vec(0.0f32, chunk, self.name)?));
        }
        let bad: Mutex<Option<Unfit>> = Mutex::new(None);
        self.pool.for_each(&mut scratch, parts.len(), |(panel, column), task| {
            // No task has another's part: the lock only says so to the compiler.
            let Some(part) = parts.get(task) else { return };
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            let n = part.len() / row_bytes;
            let panel = &mut panel[..n * n_in];
            self.unpack(source, first + task * chunk, panel, &mut column[..n]);
            let checked = dtype == DType::F16 || matches!(dtype, DType::Quant(_));
            if let Some(at) = checked.then(|| kernels::unfit(panel)).flatten() {
                let found = Unfit { row: first + task * chunk + at / n_in, column: at % n_in, value: panel[at] };
                let mut bad = bad.lock().unwrap_or_else(PoisonError::into_inner);
                if bad.is_none_or(|bad| (found.row, found.column) < (bad.row, bad.column)) {
                    *bad = Some(found);
                }
                return;
            }
            match dtype {
                DType::Float(float) => self.kernels.pack(float, panel, &mut part),
                DType::Quant(quant) => kernels::pack_quant(quant, panel, &mut part),
            }
        });
        match bad.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(bad) => Err(Error::bad_file(self.file, format_args!("tensor {}: {bad}", self.name))),
            None => Ok(()),
        }
    }

    /// The outputs `first..` as f32: `panel: [column.len(), n_in]`.
    fn unpack(&self, source: Matrix<'_>, first: usize, panel: &mut [f32], column: &mut [f32]) {
        let Matrix { dtype, layout, n_out, n_in, data } = source;
        match layout {
            Layout::OutIn => self.kernels.unpack(dtype, data, first * n_in, panel),
            Layout::InOut => {
                for k in 0..n_in {
                    self.kernels.unpack(dtype, data, k * n_out + first, column);
                    for (row, x) in panel.chunks_exact_mut(n_in).zip(column.iter()) {
                        row[k] = *x;
                    }
                }
            }
        }
    }
}
