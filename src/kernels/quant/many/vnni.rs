//! The lanes as one vector of AVX-512, with the dot products of VNNI: unsigned bytes by signed ones, four to a lane. Signed weights are taken 128
//! larger, and 128·Σ q less.

// Loops by number: what iterators are made of is functions of their own, which a compiler may leave without the CPU's features.
#![allow(clippy::needless_range_loop)]

use super::super::Format;
use super::super::activations::Activations;
use super::lanes::{Lanes, Quads};
use super::{QUAD, ROWS};
use std::arch::x86_64::*;

/// Proof that the CPU has AVX-512 F, BW and VNNI.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Dots(());

impl Dots {
    /// Needs what it proves.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn new() -> Self {
        Self(())
    }
}

impl Lanes for Dots {
    type W = __m512i;
    type I = __m512i;
    type F = __m512;
    type By = __m512i;
    /// With sums of parts at even places and at odd ones, 24 of the 32 registers.
    const TOKENS: usize = 8;

    #[inline(always)]
    unsafe fn sums<F: Format, const T: usize>(self, w: &Quads, x: *const Activations, part: usize) -> [__m512i; T] {
        const { assert!(!F::BYTES.signed || F::BYTES.part == 32 && F::BYTES.offset == 0) };
        let quads = F::BYTES.part / QUAD;
        let mut sums = [self.zero(); T];
        // SAFETY: features by `self`; of x the caller's word.
        unsafe {
            for t in 0..T {
                let x = &*x.add(t);
                if F::BYTES.offset > 0 {
                    sums[t] = _mm512_madd_epi16(self.splat_pair(x.offsets[part].as_ptr()), _mm512_set1_epi16(1));
                } else if F::BYTES.signed {
                    sums[t] = _mm512_set1_epi32(-128 * i32::from(x.sums_32[part]));
                }
            }
            for k in part * quads..(part + 1) * quads {
                let mut w = _mm512_load_si512(w[k].as_ptr().cast());
                if F::BYTES.signed {
                    w = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
                }
                for t in 0..T {
                    let q: *const i32 = (&raw const (*x.add(t)).q).cast::<i32>().add(k);
                    sums[t] = _mm512_dpbusd_epi32(sums[t], w, _mm512_set1_epi32(q.read()));
                }
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn add_sums<F: Format, const T: usize>(
        self,
        w: &Quads,
        x: *const Activations,
        part: usize,
        by: [__m512i; T],
        total: &mut [__m512i; T],
    ) {
        // SAFETY: features by `self`; of x the caller's word.
        unsafe {
            let sums = self.sums::<F, T>(w, x, part);
            for t in 0..T {
                total[t] = _mm512_add_epi32(total[t], _mm512_mullo_epi32(sums[t], by[t]));
            }
        }
    }

    /// In 32 bits: that of the first of each pair.
    #[inline(always)]
    fn by(self, scales: __m512i, factor: i16) -> __m512i {
        // SAFETY: features by `self`.
        unsafe { _mm512_madd_epi16(scales, _mm512_set1_epi32(factor.into())) }
    }
    #[inline(always)]
    unsafe fn load_w(self, p: *const i16) -> __m512i {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_pair(self, p: *const i16) -> __m512i {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    fn mul_w(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: features by `self`.
        unsafe { _mm512_mullo_epi16(a, b) }
    }
    #[inline(always)]
    fn zero(self) -> __m512i {
        // SAFETY: features by `self`.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    fn add_products(self, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: features by `self`.
        unsafe { _mm512_dpwssd_epi32(sum, a, b) }
    }
    #[inline(always)]
    fn to_f32(self, a: __m512i) -> __m512 {
        // SAFETY: features by `self`.
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn splat_f(self, x: f32) -> __m512 {
        // SAFETY: features by `self`.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load_f(self, from: &[f32; ROWS]) -> __m512 {
        // SAFETY: features by `self`; there are 16.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn store_f(self, p: *mut f32, a: __m512) {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { _mm512_storeu_ps(p, a) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: features by `self`.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: features by `self`.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: features by `self`.
        unsafe { _mm512_mul_ps(a, b) }
    }
}
