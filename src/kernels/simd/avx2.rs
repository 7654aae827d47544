//! AVX2 with FMA and F16C: 8 lanes, 16 registers.

use super::{MAX_LANES, Simd};
use std::arch::x86_64::*;

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx2(());

impl Avx2 {
    /// Needs what it proves.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn new() -> Self {
        Self(())
    }
}

/// Functions that are intrinsics on registers.
macro_rules! on_registers {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $ret:ty $body:block)*) => {
        $(#[inline(always)]
        fn $name(self, $($arg: $type),*) -> $ret {
            // SAFETY: `self` proves that the CPU has the features; nothing here touches memory.
            unsafe { $body }
        })*
    };
}

impl Simd for Avx2 {
    type V = __m256;
    type H = __m128i;
    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    on_registers! {
        fn splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn round(a: __m256) -> __m256 { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        // In two steps, of which the first is exact: one power of two cannot reach from 1 to the denormals.
        fn scale(a: __m256, n: __m256) -> __m256 {
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let rest = _mm256_sub_epi32(n, half);
            let bias = _mm256_set1_epi32(127);
            let half = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias)));
            let rest = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias)));
            _mm256_mul_ps(_mm256_mul_ps(a, half), rest)
        }
        fn power(n: __m256) -> __m256 {
            let n = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
        }
        fn sum(a: __m256) -> f32 {
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        }
        fn largest(a: __m256) -> f32 {
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        }
        fn f16_to_f32(a: __m128i) -> __m256 { _mm256_cvtph_ps(a) }
        fn bf16_to_f32(a: __m128i) -> __m256 {
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(a)))
        }
        fn f32_to_f16(a: __m256) -> __m128i { _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a) }
        // Rounding could carry a NaN to zero or infinity: it keeps its upper bits and is made quiet instead.
        fn f32_to_bf16(a: __m256) -> __m128i {
            let (bits, rounded) = (_mm256_castps_si256(a), rounded(a));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, a));
            let upper = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, is_nan));
            _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256::<1>(upper))
        }
    }

    /// By pairs of lanes, then of pairs, then of halves.
    #[inline(always)]
    fn transpose(self, rows: &mut [__m256; MAX_LANES]) {
        let (mut x, mut y) = (*rows, *rows);
        // SAFETY: `self` proves that the CPU has the features; nothing here touches memory.
        unsafe {
            for i in (0..8).step_by(2) {
                y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
                y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
            }
            for i in (0..8).step_by(4) {
                for j in 0..2 {
                    x[i + 2 * j] = _mm256_shuffle_ps::<0x44>(y[i + j], y[i + 2 + j]);
                    x[i + 2 * j + 1] = _mm256_shuffle_ps::<0xee>(y[i + j], y[i + 2 + j]);
                }
            }
            for i in 0..4 {
                rows[i] = _mm256_permute2f128_ps::<0x20>(x[i], x[4 + i]);
                rows[4 + i] = _mm256_permute2f128_ps::<0x31>(x[i], x[4 + i]);
            }
        }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> __m256 {
        // SAFETY: features by `self`, memory by the caller; masked lanes are not read.
        unsafe { _mm256_maskload_ps(p, first(n)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: __m256) {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm256_storeu_ps(p, a) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, a: __m256) {
        // SAFETY: features by `self`, memory by the caller; masked lanes are not written.
        unsafe { _mm256_maskstore_ps(p, first(n), a) }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u8) -> __m128i {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm_loadu_si128(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_half_first(self, p: *const u8, n: usize) -> __m128i {
        let mut lanes = [0u8; 16];
        // SAFETY: features by `self`; 2n bytes lie at p (the caller's word), and n ≤ 8 is seen to here.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), 2 * n.min(8));
            _mm_loadu_si128(lanes.as_ptr().cast())
        }
    }
    #[inline(always)]
    unsafe fn store_half(self, p: *mut u8, a: __m128i) {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm_storeu_si128(p.cast(), a) }
    }
    #[inline(always)]
    unsafe fn store_half_first(self, p: *mut u8, n: usize, a: __m128i) {
        let mut lanes = [0u8; 16];
        // SAFETY: features by `self`; there is room for 2n bytes at p (the caller's word), and n ≤ 8 is seen to here.
        unsafe {
            _mm_storeu_si128(lanes.as_mut_ptr().cast(), a);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, 2 * n.min(8));
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> [__m256; 4] {
        // Each byte to the top of its lane, and with its sign down again.
        // SAFETY: features by `self`, memory by the caller.
        unsafe {
            let a = _mm256_loadu_si256(p.cast());
            [
                _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(_mm256_slli_epi32::<24>(a))),
                _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(_mm256_slli_epi32::<16>(a))),
                _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(_mm256_slli_epi32::<8>(a))),
                _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(a)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_pairs(self, p: *mut u32, even: __m256, odd: __m256) {
        // SAFETY: features by `self`, memory by the caller.
        unsafe {
            let (even, odd) = (_mm256_srli_epi32::<16>(rounded(even)), rounded(odd));
            _mm256_storeu_si256(p.cast(), _mm256_blend_epi16::<0xaa>(even, odd))
        }
    }
}

/// All bits set in the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __m256i {
    const MASK: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: 8 − n is 0..=8, so 8 lanes from there are inside MASK; AVX: all callers hold an `Avx2`.
    unsafe { _mm256_loadu_si256(MASK.as_ptr().add(8 - n.min(8)).cast()) }
}

/// Rounded to bf16 in the upper halves of the lanes: adding 0x7fff, and 1 if the last kept bit is odd, carries into them exactly when
/// rounding up is right.
///
/// # Safety
/// The CPU has the features.
#[inline(always)]
unsafe fn rounded(a: __m256) -> __m256i {
    // SAFETY: the caller's word; nothing touches memory.
    unsafe {
        let bits = _mm256_castps_si256(a);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)))
    }
}
