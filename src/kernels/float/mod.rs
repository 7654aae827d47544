//! Matrices of f32, f16 and bf16, used where they lie and converted in registers.
//!
//! **The order of summation** is fixed for each output and depends on nothing but the instruction set: see `out_in` and
//! `in_out`. It is what makes a result independent of the number of rows, of how the outputs are cut into calls, and so of
//! threads and batches.

pub(super) mod scalar;

use crate::format::DType;
use crate::threads::ColumnsMut;
use half::{bf16, f16};

/// A thing for each of the three element types.
#[derive(Clone, Copy)]
pub(super) struct Floats<T> {
    pub f32: T,
    pub f16: T,
    pub bf16: T,
}

impl<T: Copy> Floats<T> {
    pub fn of(&self, dtype: DType) -> T {
        match dtype {
            DType::F32 => self.f32,
            DType::F16 => self.f16,
            DType::Bf16 => self.bf16,
        }
    }
}

/// What to multiply: `out[t, c] = Σ_k w[first + c, k] · x[t, k]` (or `w[k, first + c]`, by the kernel's layout).
pub(super) struct Product<'a> {
    /// `n_out * n_in` elements.
    pub w: &'a [u8],
    pub n_out: usize,
    pub n_in: usize,
    /// The first output computed.
    pub first: usize,
    /// `[out.rows(), n_in]`
    pub x: &'a [f32],
    /// Whether to start from what `out` holds instead of from 0; `in_out` kernels only.
    pub add: bool,
}

impl Product<'_> {
    /// Panics unless the sizes agree with each other and with `out`: every kernel relies on it.
    pub fn check(&self, dtype: DType, out: &ColumnsMut<'_>) {
        let elements = self.n_out.checked_mul(self.n_in);
        assert_eq!(elements.and_then(|n| n.checked_mul(dtype.size())), Some(self.w.len()));
        assert!(self.first.checked_add(out.cols().len()).is_some_and(|end| end <= self.n_out));
        assert_eq!(out.rows().checked_mul(self.n_in), Some(self.x.len()));
    }
}

/// An element type of a weight matrix.
pub(super) trait Element: Copy + 'static {
    /// Bytes of one element.
    const SIZE: usize;
    /// The element in `bytes` (exactly `SIZE` of them, little-endian).
    fn decode(bytes: &[u8]) -> f32;
    /// `x` rounded to nearest even, into `bytes`.
    fn encode(x: f32, bytes: &mut [u8]);
}

macro_rules! element {
    ($type:ty, $to_f32:expr, $from_f32:expr) => {
        impl Element for $type {
            const SIZE: usize = size_of::<$type>();
            #[inline(always)]
            fn decode(bytes: &[u8]) -> f32 {
                let mut le = [0; size_of::<$type>()];
                le.copy_from_slice(bytes);
                $to_f32(<$type>::from_le_bytes(le))
            }
            #[inline(always)]
            fn encode(x: f32, bytes: &mut [u8]) {
                bytes.copy_from_slice(&$from_f32(x).to_le_bytes());
            }
        }
    };
}
element!(f32, std::convert::identity, std::convert::identity);
element!(f16, f16::to_f32, f16::from_f32);
element!(bf16, bf16::to_f32, bf16::from_f32);
