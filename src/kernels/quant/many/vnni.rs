//! The lanes as two vectors of AVX-512, each of the rows of a panel, with the dot products of VNNI: unsigned bytes by signed ones, four to a lane.
//! Signed weights are 128 larger in a panel, and sums begin with −128·Σ q.
//!
//! **Limit.** A Zen 4 has units for one such dot product a cycle, and they also do what else multiplies: for 8 of them (32 elements) two with a type's
//! scales, so 80 % of the peak, less with minimums. So parts of 16 are scaled one by one but meet the activations' factor, which is of 32, together.
//!
//! Two vectors, so that a quad of activations, loaded into all lanes, serves twice: with one a Zen 4, which loads one such vector a cycle, had 56 % of
//! its products' peak.

// Loops by number: what iterators are made of is functions of their own, which a compiler may leave without the CPU's features.
#![allow(clippy::needless_range_loop)]

use super::super::Format;
use super::super::activations::Activations;
use super::lanes::Lanes;
use super::{Panel, QUAD, ROWS, place_of};
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

/// `[e, e]` with `V` in them as 0 and 1, in a place where intrinsics may be: the CPU has the features, and the rest is the function's.
macro_rules! both {
    ($V:ident => $e:expr) => {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { each!(2, $V => $e) }
    };
}

impl Lanes for Dots {
    type W = [__m512i; 2];
    type I = [__m512i; 2];
    type F = [__m512; 2];
    const PANELS: usize = 2;
    const UNSIGNED: bool = true;
    /// A token has up to three sums of two vectors, so 24 of the 32 registers.
    const TOKENS: usize = 4;

    #[inline(always)]
    unsafe fn sums<F: Format, const T: usize>(
        self,
        panels: *const Panel,
        x: *const Activations,
        part: usize,
    ) -> [[__m512i; 2]; T] {
        const { assert!(!F::BYTES.signed || F::BYTES.part == 32 && F::BYTES.offset == 0) };
        let quads = F::BYTES.part / QUAD;
        let mut sums = [self.zero(); T];
        // SAFETY: features by `self`, the rest is the caller's word.
        unsafe {
            for t in 0..T {
                let x = &*x.add(t);
                if F::BYTES.offset > 0 {
                    sums[t] = [_mm512_set1_epi32(x.offsets[part]); 2];
                } else if F::BYTES.signed {
                    sums[t] = [_mm512_set1_epi32(x.biases[part]); 2];
                }
            }
            for k in part * quads..(part + 1) * quads {
                let w = each!(2, V => _mm512_load_si512((*panels.add(V)).w[k].as_ptr().cast()));
                for t in 0..T {
                    let q: *const i32 = (&raw const (*x.add(t)).q).cast::<i32>().add(k);
                    let q = _mm512_set1_epi32(q.read());
                    sums[t] = each!(2, V => _mm512_dpbusd_epi32(sums[t][V], w[V], q));
                }
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn add_sums<F: Format, const T: usize>(
        self,
        panels: *const Panel,
        x: *const Activations,
        j: usize,
        total: &mut [[__m512i; 2]; T],
    ) {
        // SAFETY: features by `self`, the rest is the caller's word.
        unsafe {
            if F::BYTES.part == 32 {
                let scales = self.load_w(&raw const (*panels).numbers.scales[j]);
                let sums = self.sums::<F, T>(panels, x, j);
                for t in 0..T {
                    // In 32 bits: of each pair the first.
                    let factor = _mm512_set1_epi32((*x.add(t)).factors[j].into());
                    total[t] = each!(2, V => {
                        let by = _mm512_madd_epi16(scales[V], factor);
                        _mm512_add_epi32(total[t][V], _mm512_mullo_epi32(sums[t][V], by))
                    });
                }
                return;
            }
            // The factors are those of two parts.
            let mut of_both = [self.zero(); T];
            for half in 0..2 {
                let scales = self.load_w(&raw const (*panels).numbers.scales[place_of::<F>(2 * j + half)]);
                let scales = each!(2, V => _mm512_srai_epi32::<16>(scales[V]));
                let sums = self.sums::<F, T>(panels, x, 2 * j + half);
                for t in 0..T {
                    of_both[t] = each!(2, V => _mm512_add_epi32(of_both[t][V], _mm512_mullo_epi32(sums[t][V], scales[V])));
                }
            }
            for t in 0..T {
                let factor = _mm512_set1_epi32((*x.add(t)).factors[j].into());
                total[t] = each!(2, V => _mm512_add_epi32(total[t][V], _mm512_mullo_epi32(of_both[t][V], factor)));
            }
        }
    }

    #[inline(always)]
    unsafe fn load_w(self, p: *const [[i16; 2]; ROWS]) -> [__m512i; 2] {
        both!(V => _mm512_load_si512(p.byte_add(V * size_of::<Panel>()).cast()))
    }
    #[inline(always)]
    unsafe fn load_d(self, p: *const [f32; ROWS]) -> [__m512; 2] {
        both!(V => _mm512_load_ps(p.byte_add(V * size_of::<Panel>()).cast()))
    }
    #[inline(always)]
    unsafe fn splat_pair(self, p: *const i16) -> [__m512i; 2] {
        // SAFETY: features by `self`, memory by the caller.
        [unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }; 2]
    }
    #[inline(always)]
    fn mul_w(self, a: [__m512i; 2], b: [__m512i; 2]) -> [__m512i; 2] {
        both!(V => _mm512_mullo_epi16(a[V], b[V]))
    }
    #[inline(always)]
    fn zero(self) -> [__m512i; 2] {
        // SAFETY: features by `self`.
        [unsafe { _mm512_setzero_si512() }; 2]
    }
    #[inline(always)]
    fn add_products(self, sum: [__m512i; 2], a: [__m512i; 2], b: [__m512i; 2]) -> [__m512i; 2] {
        both!(V => _mm512_dpwssd_epi32(sum[V], a[V], b[V]))
    }
    #[inline(always)]
    fn to_f32(self, a: [__m512i; 2]) -> [__m512; 2] {
        both!(V => _mm512_cvtepi32_ps(a[V]))
    }
    #[inline(always)]
    fn splat_f(self, x: f32) -> [__m512; 2] {
        // SAFETY: features by `self`.
        [unsafe { _mm512_set1_ps(x) }; 2]
    }
    #[inline(always)]
    unsafe fn load_f(self, p: *const f32) -> [__m512; 2] {
        both!(V => _mm512_loadu_ps(p.add(ROWS * V)))
    }
    #[inline(always)]
    unsafe fn store_f(self, p: *mut f32, a: [__m512; 2]) {
        both!(V => _mm512_storeu_ps(p.add(ROWS * V), a[V]));
    }
    #[inline(always)]
    fn add(self, a: [__m512; 2], b: [__m512; 2]) -> [__m512; 2] {
        both!(V => _mm512_add_ps(a[V], b[V]))
    }
    #[inline(always)]
    fn sub(self, a: [__m512; 2], b: [__m512; 2]) -> [__m512; 2] {
        both!(V => _mm512_sub_ps(a[V], b[V]))
    }
    #[inline(always)]
    fn mul(self, a: [__m512; 2], b: [__m512; 2]) -> [__m512; 2] {
        both!(V => _mm512_mul_ps(a[V], b[V]))
    }
}
