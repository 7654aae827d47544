//! Matrices of f32, f16 and bf16, used where they lie and converted in registers.
//!
//! **The order of summation** is fixed for each output and depends on nothing but the instruction set: see `out_in` and
//! `in_out`, and for the tokens of a prompt `many`. It is what makes a result independent of the number of rows, of how the outputs are cut into calls, and so of
//! threads and batches.

pub(super) mod convert;
pub(super) mod in_out;
pub(super) mod many;
pub(super) mod out_in;
pub(super) mod scalar;
#[cfg(test)]
mod tests;

use super::simd::Simd;
use crate::format::Float;
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
    pub fn of(&self, dtype: Float) -> T {
        match dtype {
            Float::F32 => self.f32,
            Float::F16 => self.f16,
            Float::Bf16 => self.bf16,
        }
    }
}

/// A product kernel. To call it: the CPU has its features, and the product has passed [`Product::check`].
pub(super) type Matmul = unsafe fn(&Product<'_>, &mut ColumnsMut<'_>);
/// The way back from [`Unpack`](super::Unpack), with the same conditions.
pub(super) type Pack = unsafe fn(&[f32], &mut [u8]);

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
    /// How far ahead of its use a row of an [`OutIn`](super::Layout::OutIn) matrix is asked for, in bytes. The stream goes on in the next row of
    /// its part.
    pub ahead: usize,
}

impl Product<'_> {
    /// Panics unless the sizes agree with each other and with `out`: every kernel relies on it.
    pub fn check(&self, dtype: Float, out: &ColumnsMut<'_>) {
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
    /// # Safety
    /// `S::LANES` elements lie at `p`.
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::V;
    /// # Safety
    /// `n` elements lie at `p`; lanes from `n` on are 0.
    unsafe fn load_first<S: Simd>(s: S, p: *const u8, n: usize) -> S::V;
    /// # Safety
    /// There is room for `S::LANES` elements at `p`.
    unsafe fn store<S: Simd>(s: S, p: *mut u8, x: S::V);
    /// # Safety
    /// There is room for `n` elements at `p`.
    unsafe fn store_first<S: Simd>(s: S, p: *mut u8, n: usize, x: S::V);
}

macro_rules! element {
    ($type:ty, to_f32: $to_f32:path, from_f32: $from_f32:path,
     load: $load:ident, $load_first:ident, $widen:path, store: $store:ident, $store_first:ident, $narrow:path) => {
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
            #[inline(always)]
            unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::V {
                // SAFETY: passed on.
                $widen(s, unsafe { s.$load(p.cast()) })
            }
            #[inline(always)]
            unsafe fn load_first<S: Simd>(s: S, p: *const u8, n: usize) -> S::V {
                // SAFETY: passed on.
                $widen(s, unsafe { s.$load_first(p.cast(), n) })
            }
            #[inline(always)]
            unsafe fn store<S: Simd>(s: S, p: *mut u8, x: S::V) {
                // SAFETY: passed on.
                unsafe { s.$store(p.cast(), $narrow(s, x)) }
            }
            #[inline(always)]
            unsafe fn store_first<S: Simd>(s: S, p: *mut u8, n: usize, x: S::V) {
                // SAFETY: passed on.
                unsafe { s.$store_first(p.cast(), n, $narrow(s, x)) }
            }
        }
    };
}
element!(f32, to_f32: std::convert::identity, from_f32: std::convert::identity,
    load: load, load_first, same, store: store, store_first, same);
// The `const` conversions: the others ask the CPU whether it has F16C but not the system whether AVX registers may be used.
element!(f16, to_f32: f16::to_f32_const, from_f32: f16::from_f32_const,
    load: load_half, load_half_first, S::f16_to_f32, store: store_half, store_half_first, S::f32_to_f16);
element!(bf16, to_f32: bf16::to_f32, from_f32: bf16::from_f32,
    load: load_half, load_half_first, S::bf16_to_f32, store: store_half, store_half_first, S::f32_to_bf16);

#[inline(always)]
fn same<S: Simd>(_: S, x: S::V) -> S::V {
    x
}
