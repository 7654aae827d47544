//! Arrays of f32, f16 and bf16 from and to f32.

use super::Element;
use crate::kernels::simd::Simd;

/// `data` holds as many elements as `out`.
#[inline(always)]
pub(in crate::kernels) fn unpack<S: Simd, E: Element>(s: S, data: &[u8], out: &mut [f32]) {
    for (y, bytes) in out.chunks_mut(S::LANES).zip(data.chunks(S::LANES * E::SIZE)) {
        let n = bytes.len() / E::SIZE;
        // SAFETY: bytes holds n elements, LANES of them in the first case.
        let x = unsafe { if n == S::LANES { E::load(s, bytes.as_ptr()) } else { E::load_first(s, bytes.as_ptr(), n) } };
        s.put(y, x);
    }
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
