//! Arrays of f32, f16 and bf16 from and to f32.

use super::Element;
use crate::kernels::simd::Simd;

/// `data` holds as many elements as `out`.
#[inline(always)]
pub(in crate::kernels) fn unpack<S: Simd, E: Element>(s: S, data: &[u8], out: &mut [f32]) {
    let (mut whole, mut bytes) = (out.chunks_exact_mut(S::LANES), data.chunks_exact(S::LANES * E::SIZE));
    for (y, bytes) in whole.by_ref().zip(bytes.by_ref()) {
        // SAFETY: both are LANES elements.
        unsafe { s.store(y.as_mut_ptr(), E::load(s, bytes.as_ptr())) };
    }
    let (rest, bytes) = (whole.into_remainder(), bytes.remainder());
    // SAFETY: bytes holds as many elements, fewer than LANES.
    s.put(rest, unsafe { E::load_first(s, bytes.as_ptr(), rest.len()) });
}

/// `dst` has room for as many elements as `src`.
#[inline(always)]
pub(in crate::kernels) fn pack<S: Simd, E: Element>(s: S, src: &[f32], dst: &mut [u8]) {
    for (x, bytes) in src.chunks(S::LANES).zip(dst.chunks_mut(S::LANES * E::SIZE)) {
        let n = bytes.len() / E::SIZE;
        let x = s.get(x, 0.0);
        // SAFETY: bytes has room for n elements, LANES of them in the first case.
        unsafe { if n == S::LANES { E::store(s, bytes.as_mut_ptr(), x) } else { E::store_first(s, bytes.as_mut_ptr(), n, x) } }
    }
}
