//! AVX2 with F16C; and the same with the dot products of AVX-512's VNNI on vectors of 256 bits (one token waits for memory there,
//! so wider vectors would gain little; a few have [`Wide`], several [`Dots`]).

use super::super::many::lanes::Two;
use super::super::many::vnni::Dots;
use super::avx512::Wide;
use super::{Ints, Lanewise, bits_of_quad, byte_of_quad};
use std::arch::x86_64::*;

/// Proof that the CPU has AVX2 and F16C.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx2(());

impl Avx2 {
    /// Needs what it proves.
    #[target_feature(enable = "avx2,f16c")]
    pub fn new() -> Self {
        Self(())
    }
}

/// Proof that the CPU has AVX2, F16C and AVX-512 BW, VL and VNNI.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Vnni(());

impl Vnni {
    /// Needs what it proves.
    #[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
    pub fn new() -> Self {
        Self(())
    }
    #[inline(always)]
    fn dots(self) -> Dots {
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { Dots::new() }
    }
    #[inline(always)]
    fn wide(self) -> Wide {
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { Wide::new() }
    }
}

/// The indices of `spread`.
#[repr(align(32))]
struct Lanes([[i16; 16]; 8]);

static LANES: Lanes = {
    let mut lanes = [[0; 16]; 8];
    let mut j = 0;
    while j < 8 {
        lanes[j] = [2 * j as i16 + (2 * j as i16 + 1) * 256; 16];
        j += 1;
    }
    Lanes(lanes)
};

/// `Ints::spread`, not by the intrinsic: of indices that it knows the compiler makes two shuffles of words in the place of one of bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn spread<const J: usize>(a: __m256i) -> __m256i {
    let out;
    // SAFETY: one instruction, which reads 32 bytes of LANES.
    unsafe {
        std::arch::asm!(
            "vpshufb {out}, {a}, ymmword ptr [{lanes} + {at}]",
            out = lateout(ymm_reg) out,
            a = in(ymm_reg) a,
            lanes = in(reg) &LANES.0,
            at = const 32 * J,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    out
}

/// Vector i has quads i of each, half by half.
#[inline]
#[target_feature(enable = "avx2")]
fn four_rows([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab, cd) =
        ([_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)], [_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d)]);
    [
        _mm256_unpacklo_epi64(ab[0], cd[0]),
        _mm256_unpackhi_epi64(ab[0], cd[0]),
        _mm256_unpacklo_epi64(ab[1], cd[1]),
        _mm256_unpackhi_epi64(ab[1], cd[1]),
    ]
}

/// `Ints::here`.
#[inline]
#[target_feature(enable = "avx2")]
fn here(mut a: __m256i) -> __m256i {
    // SAFETY: there are no instructions.
    unsafe { std::arch::asm!("/* {a} */", a = inout(ymm_reg) a, options(nomem, nostack, preserves_flags)) };
    a
}

/// `Ints` for `$type`, which has AVX2; the functions that differ are `$lane` of [`Lanewise`] and `$own` of [`Ints`].
macro_rules! ints {
    ($type:ty, $dots:literal, lanes: $lanes:ty = $as_lanes:expr, rows: $rows:ty = $as_rows:expr, { $($lane:tt)* }, { $($own:tt)* }) => {
        impl Lanewise for $type {
            type B = __m256i;
            type W = __m256i;
            type I = __m256i;
            type F = __m256;
            const DOTS: bool = $dots;
            const ROWS: usize = 8;

            on_registers! {
                $($lane)*

                fn or(a: __m256i, b: __m256i) -> __m256i { _mm256_or_si256(a, b) }
                // Shifts of 16-bit lanes: what comes over from the neighbour is masked away.
                fn right<const N: i32>(a: __m256i, mask: u8) -> __m256i {
                    _mm256_and_si256(_mm256_srli_epi16::<N>(a), _mm256_set1_epi8(mask as i8))
                }
                fn left<const N: i32>(a: __m256i, mask: u8) -> __m256i {
                    _mm256_and_si256(_mm256_slli_epi16::<N>(a), _mm256_set1_epi8(mask as i8))
                }
                fn add_fifth<const QUAD: usize>(a: __m256i, bits: __m256i) -> __m256i {
                    let of_quad = const { &byte_of_quad(QUAD) };
                    let bytes = _mm256_shuffle_epi8(bits, _mm256_broadcastsi128_si256(_mm_loadu_si128(of_quad.as_ptr().cast())));
                    let mask = _mm256_set1_epi32(bits_of_quad(QUAD) as i32);
                    let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, mask), mask);
                    _mm256_or_si256(a, _mm256_and_si256(set, _mm256_set1_epi8(16)))
                }
                fn lookup(table: &[i8; 16], indices: __m256i) -> __m256i {
                    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), indices)
                }
                fn magnitude(a: __m256i) -> __m256i { _mm256_abs_epi8(a) }
                fn pairs(w: __m256i, x: __m256i) -> __m256i { _mm256_maddubs_epi16(w, x) }
                fn signed_pairs(w: __m256i, magnitude: __m256i, x: __m256i) -> __m256i {
                    _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w))
                }
                fn splat_w(x: i16) -> __m256i { _mm256_set1_epi16(x) }
                fn add_w(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi16(a, b) }
                fn mul_w(a: __m256i, b: __m256i) -> __m256i { _mm256_mullo_epi16(a, b) }
                fn zero() -> __m256i { _mm256_setzero_si256() }
                fn splat_i(x: i32) -> __m256i { _mm256_set1_epi32(x) }
                fn add_i(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
                fn mul_lanes(a: __m256i, b: __m256i) -> __m256i { _mm256_mullo_epi32(a, b) }
                fn firsts(a: __m256i, by: i16) -> __m256i { _mm256_madd_epi16(a, _mm256_set1_epi32(by.into())) }
                fn pick(a: __m256i, indices: &[u8; 16]) -> __m256i {
                    _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(_mm_loadu_si128(indices.as_ptr().cast())))
                }
                fn down(a: __m256i, n: usize) -> __m256i { _mm256_srl_epi16(a, _mm_cvtsi32_si128(n as i32)) }
                fn upper(a: __m256i) -> __m256i { _mm256_srai_epi16::<8>(a) }
                fn both_halves(a: __m256i) -> [__m256; 2] {
                    let (first, last) = (_mm256_and_si256(a, _mm256_set1_epi32(0xffff)), _mm256_srli_epi32::<16>(a));
                    let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(first, last));
                    [_mm256_cvtph_ps(_mm256_castsi256_si128(both)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(both))]
                }
                fn half_powers(a: __m256i) -> __m256 {
                    let e = _mm256_and_si256(a, _mm256_set1_epi32(0xff));
                    let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, _mm256_set1_epi32(1)));
                    let denormal = _mm256_sllv_epi32(_mm256_set1_epi32(super::LEAST_HALF_POWER), e);
                    let is_normal = _mm256_cmpgt_epi32(e, _mm256_set1_epi32(1));
                    _mm256_castsi256_ps(_mm256_blendv_epi8(denormal, normal, is_normal))
                }
                fn to_f32(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }
                fn splat_f(x: f32) -> __m256 { _mm256_set1_ps(x) }
                fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
                fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
                fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
            }

            #[inline(always)]
            fn words(self, a: __m256i) -> __m256i {
                a
            }
            #[inline(always)]
            unsafe fn load(self, p: *const u8) -> __m256i {
                // SAFETY: features by `self`, memory by the caller.
                unsafe { _mm256_loadu_si256(p.cast()) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut u8, a: __m256i) {
                // SAFETY: features by `self`, memory by the caller.
                unsafe { _mm256_storeu_si256(p.cast(), a) }
            }
            #[inline(always)]
            unsafe fn load_rows(self, first: *const u8, stride: usize) -> [__m256i; 4] {
                // SAFETY: features by `self`, memory by the caller.
                unsafe {
                    four_rows(each!(4, R => {
                        _mm256_loadu2_m128i(first.add((R + 4) * stride).cast(), first.add(R * stride).cast())
                    }))
                }
            }
            #[inline(always)]
            unsafe fn splat_quad(self, p: *const u8) -> __m256i {
                // SAFETY: features by `self`, memory by the caller.
                unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn splat_pair(self, p: *const i16) -> __m256i {
                // SAFETY: features by `self`, memory by the caller.
                unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn load_byte_pairs(self, p: *const i8) -> __m256i {
                // SAFETY: features by `self`, memory by the caller.
                unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())) }
            }
            #[inline(always)]
            unsafe fn store_w(self, p: *mut i16, a: __m256i) {
                // SAFETY: features by `self`, memory by the caller.
                unsafe { _mm256_storeu_si256(p.cast(), a) }
            }
            #[inline(always)]
            unsafe fn store_f(self, p: *mut f32, a: __m256) {
                // SAFETY: features by `self`, memory by the caller.
                unsafe { _mm256_storeu_ps(p, a) }
            }
            #[inline(always)]
            unsafe fn load_f(self, p: *const f32) -> __m256 {
                // SAFETY: features by `self`, memory by the caller.
                unsafe { _mm256_loadu_ps(p) }
            }
        }

        impl Ints for $type {
            type Lanes = $lanes;
            #[inline(always)]
            fn lanes(self) -> $lanes {
                $as_lanes(self)
            }
            type Rows = $rows;
            #[inline(always)]
            fn rows(self) -> $rows {
                $as_rows(self)
            }
            on_registers! {
                $($own)*

                fn digits(a: __m256i, powers: &[u8; 32]) -> __m256i {
                    let powers = _mm256_loadu_si256(powers.as_ptr().cast());
                    // The lower bytes of 16-bit products: those of bytes at even places, then of the others.
                    let even = _mm256_mullo_epi16(a, powers);
                    let odd = _mm256_mullo_epi16(_mm256_srli_epi16::<8>(a), _mm256_srli_epi16::<8>(powers));
                    let b = _mm256_or_si256(_mm256_and_si256(even, _mm256_set1_epi16(255)), _mm256_slli_epi16::<8>(odd));
                    // 1 for those above 85, whose 3-fold passes 256, and 1 more for those above 170 = 256 - 86.
                    let one = _mm256_set1_epi8(1);
                    let above = each!(2, I => _mm256_min_epu8(_mm256_subs_epu8(b, _mm256_set1_epi8([85, -86][I])), one));
                    _mm256_add_epi8(above[0], above[1])
                }
                fn widen_twice(bytes: u64) -> __m256i {
                    _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(_mm_cvtsi64_si128(bytes as i64)))
                }
                fn widen_split(bytes: [u64; 2]) -> __m256i {
                    let bytes = _mm_set_epi64x(bytes[1] as i64, bytes[0] as i64);
                    let split = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
                    _mm256_cvtepi8_epi16(_mm_shuffle_epi8(bytes, split))
                }
                fn sub_w(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi16(a, b) }
                fn spread<const J: usize>(a: __m256i) -> __m256i { spread::<J>(a) }
                fn here(a: __m256i) -> __m256i { here(a) }
                fn sub_i(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
                fn mul_i(a: __m256i, by: i32) -> __m256i { _mm256_mullo_epi32(a, _mm256_set1_epi32(by)) }
                fn halves_of_256(a: __m256i) -> [__m256i; 2] {
                    let zero = _mm256_setzero_si256();
                    [_mm256_blend_epi32::<0b1100_1100>(a, zero), _mm256_blend_epi32::<0b0011_0011>(a, zero)]
                }
                fn join(a: __m256i, b: __m256i) -> __m256i { _mm256_hadd_epi32(a, b) }
                fn sums_of_vectors(a: [__m256i; 8]) -> __m256i {
                    let [a, b, c, d, e, f, g, h] = a;
                    let even = _mm256_hadd_epi32(_mm256_hadd_epi32(a, c), _mm256_hadd_epi32(e, g));
                    let odd = _mm256_hadd_epi32(_mm256_hadd_epi32(b, d), _mm256_hadd_epi32(f, h));
                    let (first, last) =
                        (_mm256_permute2x128_si256::<0x20>(even, odd), _mm256_permute2x128_si256::<0x31>(even, odd));
                    _mm256_add_epi32(first, last)
                }
                fn rows_i(rows: [__m256i; 4]) -> __m256i {
                    let [a, b, c, d] = rows;
                    let four = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
                    _mm256_castsi128_si256(_mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256::<1>(four)))
                }
                fn set_four(a: [f32; 4]) -> __m256 { _mm256_castps128_ps256(_mm_setr_ps(a[0], a[1], a[2], a[3])) }
                fn rows_f(rows: [__m256; 4]) -> __m256 {
                    let [a, b, c, d] = rows;
                    // Lanes 0 and 1 of two rows (and 4 and 5), 2 and 3 (6 and 7); then each lane of all rows.
                    let (ab, cd) = (
                        [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)],
                        [_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d)],
                    );
                    let two = |of: usize| {
                        let (ab, cd) = (_mm256_castps_pd(ab[of]), _mm256_castps_pd(cd[of]));
                        [_mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)), _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd))]
                    };
                    let ([first, second], [third, fourth]) = (two(0), two(1));
                    let sums = _mm256_add_ps(_mm256_add_ps(_mm256_add_ps(first, second), third), fourth);
                    _mm256_castps128_ps256(_mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums)))
                }
            }

            #[inline(always)]
            unsafe fn store_twice<const HALF: i32>(self, p: *mut i16, a: __m256i) {
                // SAFETY: features by `self`, memory by the caller.
                unsafe {
                    let a = _mm256_extracti128_si256::<HALF>(a);
                    _mm_storeu_si128(p.cast(), _mm_unpacklo_epi16(a, a));
                    _mm_storeu_si128(p.add(8).cast(), _mm_unpackhi_epi16(a, a));
                }
            }
            #[inline(always)]
            unsafe fn load_nibbles(self, p: *const u8) -> __m256i {
                // SAFETY: features by `self`, memory by the caller.
                unsafe {
                    let bytes = _mm_loadu_si128(p.cast());
                    _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes), _mm256_set1_epi8(15))
                }
            }
            #[inline(always)]
            unsafe fn load_two(self, p: *const u8, q: *const u8) -> __m256i {
                // SAFETY: features by `self`, memory by the caller.
                unsafe { _mm256_set_m128i(_mm_loadu_si128(q.cast()), _mm_loadu_si128(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_six_bits(self, p: *const u8) -> [__m256i; 2] {
                // SAFETY: features by `self`, memory by the caller.
                unsafe {
                    let all = _mm_loadu_si128(p.cast()); // in its lanes d and e, then a, b, c
                    let low = _mm_srlv_epi32(_mm_shuffle_epi32::<0b11_10_11_01>(all), _mm_setr_epi32(0, 0, 0, 4));
                    let high = _mm_srli_epi32::<2>(_mm_shuffle_epi32::<0b10_00_01_00>(all));
                    let (six, four, two) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x3030_3030);
                    let low = _mm_and_si128(low, _mm_setr_epi32(six, four, six, four));
                    let high = _mm_and_si128(high, _mm_setr_epi32(0, two, 0, two));
                    let both = _mm256_cvtepu8_epi16(_mm_or_si128(low, high));
                    [_mm256_permute4x64_epi64::<0b01_00_01_00>(both), _mm256_permute4x64_epi64::<0b11_10_11_10>(both)]
                }
            }
            #[inline(always)]
            unsafe fn load_bits(self, p: *const u8, q: *const u8) -> [__m256i; 2] {
                // Each byte's own bit is singled out and compared.
                // SAFETY: features by `self`, memory by the caller.
                unsafe {
                    let at = |p: *const u8| _mm_set1_epi32(p.cast::<i32>().read_unaligned());
                    let bits = _mm256_set_m128i(at(q), at(p));
                    let first = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0101_0101_0101_0101, 0));
                    let last = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0303_0303_0303_0303, 0x0202_0202_0202_0202));
                    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
                    let first = _mm256_and_si256(_mm256_shuffle_epi8(bits, first), bit);
                    let last = _mm256_and_si256(_mm256_shuffle_epi8(bits, last), bit);
                    let sixteen = _mm256_set1_epi8(16);
                    [
                        _mm256_and_si256(_mm256_cmpeq_epi8(first, bit), sixteen),
                        _mm256_and_si256(_mm256_cmpeq_epi8(last, bit), sixteen),
                    ]
                }
            }
            #[inline(always)]
            unsafe fn load_w_twice(self, p: *const i16) -> __m256i {
                // SAFETY: features by `self`, memory by the caller.
                unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_half(self, p: *const u8) -> f32 {
                // SAFETY: features by `self`, memory by the caller.
                unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(p.cast::<u16>().read_unaligned().into()))) }
            }
            #[inline(always)]
            unsafe fn load_halves(self, p: *const u8, stride: usize) -> __m256 {
                // SAFETY: features by `self`, memory by the caller.
                unsafe {
                    // By the units for integers, which have nothing else to do.
                    let at = |j: usize| u64::from(p.add(j * stride).cast::<u16>().read_unaligned());
                    let even = (at(0) | at(2) << 16) | (at(4) | at(6) << 16) << 32;
                    let odd = (at(1) | at(3) << 16) | (at(5) | at(7) << 16) << 32;
                    let bits = _mm_unpacklo_epi64(_mm_cvtsi64_si128(even as i64), _mm_cvtsi64_si128(odd as i64));
                    _mm256_cvtph_ps(bits)
                }
            }
            #[inline(always)]
            fn largest(self, x: &[f32; 256]) -> [u32; 8] {
                // SAFETY: features by `self`; there are 8 elements; 8 numbers are written.
                unsafe {
                    let magnitude = _mm256_set1_epi32(i32::MAX);
                    // No closures: they would be functions of their own, which a compiler may leave without the CPU's features.
                    let vectors = each!(8, J => {
                        let bits =
                            each!(4, I => _mm256_and_si256(_mm256_loadu_si256(x[32 * J + 8 * I..][..8].as_ptr().cast()), magnitude));
                        _mm256_max_epu32(_mm256_max_epu32(bits[0], bits[1]), _mm256_max_epu32(bits[2], bits[3]))
                    });
                    // The largest of a vector's halves; then lane j of all is of part j.
                    let lanes = four_rows(each!(4, J => {
                        let (a, b) = (vectors[J], vectors[J + 4]);
                        _mm256_max_epu32(_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b))
                    }));
                    let mut largest = [0; 8];
                    let all = _mm256_max_epu32(_mm256_max_epu32(lanes[0], lanes[1]), _mm256_max_epu32(lanes[2], lanes[3]));
                    _mm256_storeu_si256(largest.as_mut_ptr().cast(), all);
                    largest
                }
            }
            #[inline(always)]
            fn round(self, x: &[f32; 256], by: &[f32; 8], q: &mut [i8; 256]) -> [[i32; 8]; 2] {
                // SAFETY: features by `self`; there are 8 elements of x, 32 of q, 8 sums.
                unsafe {
                    let sums = each!(8, J => {
                        let by = _mm256_set1_ps(by[J]);
                        let rounded = each!(4, I => {
                            _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x[32 * J + 8 * I..][..8].as_ptr()), by))
                        });
                        // Packing leaves quads of elements in the order 0, 2, 4, 6, 1, 3, 5, 7.
                        let pairs = (_mm256_packs_epi32(rounded[0], rounded[1]), _mm256_packs_epi32(rounded[2], rounded[3]));
                        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
                        let bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(pairs.0, pairs.1), order);
                        _mm256_storeu_si256(q[32 * J..][..32].as_mut_ptr().cast(), bytes);
                        _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes), _mm256_set1_epi16(1))
                    });
                    // A half of each is of 16 elements.
                    let [a, b, c, d, e, f, g, h] = sums;
                    let first = self.join(self.join(a, b), self.join(c, d));
                    let last = self.join(self.join(e, f), self.join(g, h));
                    let mut sums = [[0; 8]; 2];
                    _mm256_storeu_si256(sums[0].as_mut_ptr().cast(), _mm256_permute2x128_si256::<0x20>(first, last));
                    _mm256_storeu_si256(sums[1].as_mut_ptr().cast(), _mm256_permute2x128_si256::<0x31>(first, last));
                    sums
                }
            }
        }
    };
}

ints!(Avx2, false, lanes: Two<Self> = Two, rows: Self = std::convert::identity, {
    fn add_quads(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)))
    }
    fn add_signed_quads(sum: __m256i, w: __m256i, magnitude: __m256i, x: __m256i) -> __m256i {
        let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w));
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
    fn add_products(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
    }
}, {
    fn quads(w: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        let pairs = _mm256_add_epi16(_mm256_maddubs_epi16(w[0], x[0]), _mm256_maddubs_epi16(w[1], x[1]));
        _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
    }
    fn signed_quads(w: __m256i, magnitude: __m256i, x: __m256i) -> __m256i {
        _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w)), _mm256_set1_epi16(1))
    }
});

ints!(Vnni, true, lanes: Dots = Vnni::dots, rows: Wide = Vnni::wide, {
    fn add_quads(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        _mm256_dpbusd_epi32(sum, w, x)
    }
    fn add_signed_quads(sum: __m256i, w: __m256i, magnitude: __m256i, x: __m256i) -> __m256i {
        _mm256_dpbusd_epi32(sum, magnitude, _mm256_sign_epi8(x, w))
    }
    fn add_products(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        _mm256_dpwssd_epi32(sum, a, b)
    }
}, {
    fn quads(w: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        _mm256_dpbusd_epi32(_mm256_dpbusd_epi32(_mm256_setzero_si256(), w[0], x[0]), w[1], x[1])
    }
    fn signed_quads(w: __m256i, magnitude: __m256i, x: __m256i) -> __m256i {
        _mm256_dpbusd_epi32(_mm256_setzero_si256(), magnitude, _mm256_sign_epi8(x, w))
    }
});
