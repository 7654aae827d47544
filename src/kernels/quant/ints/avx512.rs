//! Vectors of 512 bits with VNNI, for what is done lane by lane.

use super::{Lanewise, bits_of_quad, byte_of_quad};
use std::arch::x86_64::*;

/// Proof that the CPU has AVX-512 F, BW and VNNI.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Wide(());

impl Wide {
    /// Needs what it proves.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn new() -> Self {
        Self(())
    }
}

/// The same 16 bytes in all quarters.
///
/// # Safety
/// They lie at `p`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn four_times(p: *const u8) -> __m512i {
    // SAFETY: the caller's word.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(p.cast()) })
}

/// Four addresses, from `first` on each `distance` bytes after the one before. That they belong together is hidden from the compiler: in a loop it
/// would make the addresses of 16 rows variables of their own, most of them on the stack.
#[allow(clippy::pointers_in_nomem_asm_block)] // It reads nothing.
#[inline(always)]
fn apart(first: *const u8, distance: usize) -> [*const u8; 4] {
    let mut p = first;
    each!(4, I => {
        if I != 0 {
            p = p.wrapping_add(distance);
        }
        // SAFETY: there are no instructions.
        unsafe { std::arch::asm!("/* {p} */", p = inout(reg) p, options(pure, nomem, nostack, preserves_flags)) };
        p
    })
}

impl Lanewise for Wide {
    type B = __m512i;
    type W = __m512i;
    type I = __m512i;
    type F = __m512;
    const ROWS: usize = 16;
    const DOTS: bool = true;

    on_registers! {
        fn pick(a: __m512i, indices: &[u8; 16]) -> __m512i { _mm512_shuffle_epi8(a, four_times(indices.as_ptr())) }
        fn down(a: __m512i, n: usize) -> __m512i { _mm512_srl_epi16(a, _mm_cvtsi32_si128(n as i32)) }
        fn or(a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        // Shifts of 16-bit lanes: what comes over from the neighbour is masked away.
        fn right<const N: i32>(a: __m512i, mask: u8) -> __m512i {
            _mm512_and_si512(_mm512_srl_epi16(a, _mm_cvtsi32_si128(N)), _mm512_set1_epi8(mask as i8))
        }
        fn left<const N: i32>(a: __m512i, mask: u8) -> __m512i {
            _mm512_and_si512(_mm512_sll_epi16(a, _mm_cvtsi32_si128(N)), _mm512_set1_epi8(mask as i8))
        }
        fn add_fifth<const QUAD: usize>(a: __m512i, bits: __m512i) -> __m512i {
            let bytes = _mm512_shuffle_epi8(bits, four_times(const { &byte_of_quad(QUAD) }.as_ptr()));
            let set = _mm512_test_epi8_mask(bytes, _mm512_set1_epi32(bits_of_quad(QUAD) as i32));
            _mm512_mask_add_epi8(a, set, a, _mm512_set1_epi8(16))
        }
        fn lookup(table: &[i8; 16], indices: __m512i) -> __m512i { _mm512_shuffle_epi8(four_times(table.as_ptr().cast()), indices) }
        fn magnitude(a: __m512i) -> __m512i { _mm512_abs_epi8(a) }
        fn pairs(w: __m512i, x: __m512i) -> __m512i { _mm512_maddubs_epi16(w, x) }
        fn signed_pairs(w: __m512i, magnitude: __m512i, x: __m512i) -> __m512i {
            _mm512_maddubs_epi16(magnitude, _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x))
        }
        fn add_quads(sum: __m512i, w: __m512i, x: __m512i) -> __m512i { _mm512_dpbusd_epi32(sum, w, x) }
        // There is no instruction that takes signs over: 128 is added to each w, and what that gives was subtracted in the beginning.
        fn add_signed_quads(sum: __m512i, w: __m512i, _magnitude: __m512i, x: __m512i) -> __m512i {
            _mm512_dpbusd_epi32(sum, _mm512_xor_si512(w, _mm512_set1_epi8(-128)), x)
        }
        fn signed_sum(bias: i32) -> __m512i { _mm512_set1_epi32(bias) }
        fn splat_w(x: i16) -> __m512i { _mm512_set1_epi16(x) }
        fn add_w(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi16(a, b) }
        fn mul_w(a: __m512i, b: __m512i) -> __m512i { _mm512_mullo_epi16(a, b) }
        fn upper(a: __m512i) -> __m512i { _mm512_srai_epi16::<8>(a) }
        fn add_products(sum: __m512i, a: __m512i, b: __m512i) -> __m512i { _mm512_dpwssd_epi32(sum, a, b) }
        fn zero() -> __m512i { _mm512_setzero_si512() }
        fn splat_i(x: i32) -> __m512i { _mm512_set1_epi32(x) }
        fn add_i(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn mul_lanes(a: __m512i, b: __m512i) -> __m512i { _mm512_mullo_epi32(a, b) }
        fn firsts(a: __m512i, by: i16) -> __m512i { _mm512_madd_epi16(a, _mm512_set1_epi32(by.into())) }
        fn both_halves(a: __m512i) -> [__m512; 2] {
            let (first, last) = (_mm512_cvtepi32_epi16(a), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(a)));
            [_mm512_cvtph_ps(first), _mm512_cvtph_ps(last)]
        }
        fn half_powers(a: __m512i) -> __m512 {
            let e = _mm512_and_si512(a, _mm512_set1_epi32(0xff));
            let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, _mm512_set1_epi32(1)));
            let is_denormal = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
            _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, is_denormal, _mm512_set1_epi32(super::LEAST_HALF_POWER), e))
        }
        fn to_f32(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        fn splat_f(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn words(self, a: __m512i) -> __m512i {
        a
    }
    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> __m512i {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8, a: __m512i) {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm512_storeu_si512(p.cast(), a) }
    }
    #[inline(always)]
    unsafe fn load_rows(self, first: *const u8, stride: usize) -> [__m512i; 4] {
        // SAFETY: features by `self`, memory by the caller.
        unsafe {
            let fours = apart(first, 4 * stride);
            let [a, b, c, d] = each!(4, R => {
                let row = |i: usize| fours[i].add(R * stride).cast();
                let two = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(_mm_loadu_si128(row(0))), _mm_loadu_si128(row(1)));
                let three = _mm512_inserti32x4::<2>(two, _mm_loadu_si128(row(2)));
                _mm512_inserti32x4::<3>(three, _mm_loadu_si128(row(3)))
            });
            let (ab, cd) = (
                [_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)],
                [_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d)],
            );
            [
                _mm512_unpacklo_epi64(ab[0], cd[0]),
                _mm512_unpackhi_epi64(ab[0], cd[0]),
                _mm512_unpacklo_epi64(ab[1], cd[1]),
                _mm512_unpackhi_epi64(ab[1], cd[1]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn splat_quad(self, p: *const u8) -> __m512i {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn splat_pair(self, p: *const i16) -> __m512i {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn load_byte_pairs(self, p: *const i8) -> __m512i {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_w(self, p: *mut i16, a: __m512i) {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm512_storeu_si512(p.cast(), a) }
    }
    #[inline(always)]
    unsafe fn load_f(self, p: *const f32) -> __m512 {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_f(self, p: *mut f32, a: __m512) {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm512_storeu_ps(p, a) }
    }
}
