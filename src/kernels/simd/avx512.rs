//! AVX-512 F, BW, VL, DQ: 16 lanes, 32 registers, masks instead of tails.

use super::{MAX_LANES, Simd};
use std::arch::x86_64::*;

/// Proof that the CPU has AVX-512 F, BW, VL and DQ (and AVX2, FMA, F16C).
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx512(());

impl Avx512 {
    /// Needs what it proves.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
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

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

impl Simd for Avx512 {
    type V = __m512;
    type H = __m256i;
    const LANES: usize = 16;
    const REGISTERS: usize = 32;

    on_registers! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn round(a: __m512) -> __m512 { _mm512_roundscale_ps::<NEAREST>(a) }
        fn scale(a: __m512, n: __m512) -> __m512 { _mm512_scalef_ps(a, n) }
        fn power(n: __m512) -> __m512 {
            let n = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(n))
        }
        fn sum(a: __m512) -> f32 {
            let a = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        }
        fn largest(a: __m512) -> f32 {
            let a = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        }
        fn f16_to_f32(a: __m256i) -> __m512 { _mm512_cvtph_ps(a) }
        fn bf16_to_f32(a: __m256i) -> __m512 {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(a)))
        }
        fn f32_to_f16(a: __m512) -> __m256i { _mm512_cvtps_ph::<NEAREST>(a) }
        // As in AVX2: round by carry, except for NaN.
        fn f32_to_bf16(a: __m512) -> __m256i {
            let (bits, rounded) = (_mm512_castps_si512(a), rounded(a));
            let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
            let upper = _mm512_mask_or_epi32(rounded, is_nan, bits, _mm512_set1_epi32(0x0040_0000));
            _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(upper))
        }
    }

    #[inline(always)]
    fn transpose(self, rows: &mut [__m512; MAX_LANES]) {
        // No closures, as in `transpose_rows`.
        // SAFETY: `self` proves that the CPU has the features; nothing here touches memory.
        unsafe {
            let mut integers = [_mm512_setzero_si512(); 16];
            for i in 0..16 {
                integers[i] = _mm512_castps_si512(rows[i]);
            }
            integers = transposed(integers);
            for i in 0..16 {
                rows[i] = _mm512_castsi512_ps(integers[i]);
            }
        }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> __m512 {
        // SAFETY: features by `self`, memory by the caller; masked lanes are not read.
        unsafe { _mm512_maskz_loadu_ps(first(n), p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: __m512) {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm512_storeu_ps(p, a) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, a: __m512) {
        // SAFETY: features by `self`, memory by the caller; masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(p, first(n), a) }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u8) -> __m256i {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_half_first(self, p: *const u8, n: usize) -> __m256i {
        // SAFETY: features by `self`, memory by the caller; masked lanes are not read.
        unsafe { _mm256_maskz_loadu_epi16(first(n), p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_half(self, p: *mut u8, a: __m256i) {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm256_storeu_si256(p.cast(), a) }
    }
    #[inline(always)]
    unsafe fn store_half_first(self, p: *mut u8, n: usize, a: __m256i) {
        // SAFETY: features by `self`, memory by the caller; masked lanes are not written.
        unsafe { _mm256_mask_storeu_epi16(p.cast(), first(n), a) }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> [__m512; 4] {
        // Each byte to the top of its lane, and with its sign down again.
        // SAFETY: features by `self`, memory by the caller.
        unsafe {
            let a = _mm512_loadu_si512(p.cast());
            [
                _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(_mm512_slli_epi32::<24>(a))),
                _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(_mm512_slli_epi32::<16>(a))),
                _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(_mm512_slli_epi32::<8>(a))),
                _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(a)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_pairs(self, p: *mut u32, even: __m512, odd: __m512) {
        // SAFETY: features by `self`, memory by the caller.
        unsafe {
            let (even, odd) = (_mm512_srli_epi32::<16>(rounded(even)), rounded(odd));
            let upper = _mm512_and_si512(odd, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            _mm512_storeu_si512(p.cast(), _mm512_or_si512(even, upper))
        }
    }
}

/// The first `n` of 16 lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as __mmask16
}

/// Rounded to bf16 in the upper halves of the lanes: adding 0x7fff, and 1 if the last kept bit is odd, carries into them exactly when
/// rounding up is right.
///
/// # Safety
/// The CPU has the features.
#[inline(always)]
unsafe fn rounded(a: __m512) -> __m512i {
    // SAFETY: the caller's word; nothing touches memory.
    unsafe {
        let bits = _mm512_castps_si512(a);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)))
    }
}

/// Dwords of 16 rows to columns: `to[k][n]` becomes dword k of `rows[n]`.
///
/// # Safety
/// The CPU has AVX-512; 64 bytes lie at each of `rows`, and there is room for 256 dwords at `to`, which begins with a cache line.
#[inline(always)]
pub(in crate::kernels) unsafe fn transpose_rows(rows: [*const u8; 16], to: *mut u32) {
    // No closures, as `map` would need: they are functions of their own, without the features.
    // SAFETY: the caller's word.
    unsafe {
        let mut vectors = [_mm512_setzero_si512(); 16];
        for (vector, row) in vectors.iter_mut().zip(rows) {
            *vector = _mm512_loadu_si512(row.cast());
        }
        for (i, vector) in transposed(vectors).into_iter().enumerate() {
            _mm512_store_si512(to.add(16 * i).cast(), vector);
        }
    }
}

/// 16 × 16 dwords, rows to columns: pairs of rows are interleaved by dwords, then by pairs of dwords, which leaves 4 × 4 blocks of four
/// dwords to be moved.
///
/// # Safety
/// The CPU has AVX-512.
#[inline(always)]
unsafe fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
    let (mut x, mut y) = (rows, rows);
    // SAFETY: AVX-512 by the caller's word; nothing touches memory.
    unsafe {
        for i in (0..16).step_by(2) {
            y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
            y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
        }
        for i in (0..16).step_by(4) {
            for j in 0..2 {
                x[i + 2 * j] = _mm512_unpacklo_epi64(y[i + j], y[i + 2 + j]);
                x[i + 2 * j + 1] = _mm512_unpackhi_epi64(y[i + j], y[i + 2 + j]);
            }
        }
        // x[4g + c] now has, for each block b of four columns, the rows 4g..4g + 4 of column 4b + c.
        for c in 0..4 {
            let (low, high) = ((x[c], x[4 + c]), (x[8 + c], x[12 + c]));
            let (even, odd) = (_mm512_shuffle_i32x4::<0x88>(low.0, low.1), _mm512_shuffle_i32x4::<0xdd>(low.0, low.1));
            let (even_h, odd_h) = (_mm512_shuffle_i32x4::<0x88>(high.0, high.1), _mm512_shuffle_i32x4::<0xdd>(high.0, high.1));
            y[c] = _mm512_shuffle_i32x4::<0x88>(even, even_h);
            y[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even, even_h);
            y[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd, odd_h);
            y[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_h);
        }
    }
    y
}
