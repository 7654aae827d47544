//! NEON, which every 64-bit ARM CPU has: a vector is two of 128 bits.

use super::super::many::lanes::Two;
use super::{Ints, Lanewise, bits_of_quad, byte_of_quad};
use std::arch::aarch64::*;

/// Proof that the CPU has NEON.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Neon(());

impl Neon {
    /// Needs what it proves.
    #[target_feature(enable = "neon")]
    pub fn new() -> Self {
        Self(())
    }
}

type B = uint8x16x2_t;
type W = int16x8x2_t;
type I = int32x4x2_t;
type F = float32x4x2_t;

/// Both halves of vectors through the same operation.
macro_rules! halves {
    ($type:ident, $a:ident => $e:expr) => {
        $type(
            {
                let $a = $a.0;
                $e
            },
            {
                let $a = $a.1;
                $e
            },
        )
    };
    ($type:ident, $a:ident, $b:ident => $e:expr) => {
        $type(
            {
                let ($a, $b) = ($a.0, $b.0);
                $e
            },
            {
                let ($a, $b) = ($a.1, $b.1);
                $e
            },
        )
    };
}

/// `w[2i]·x[2i] + w[2i+1]·x[2i+1]`, all signed.
#[inline]
#[target_feature(enable = "neon")]
fn pairs(w: uint8x16_t, x: uint8x16_t) -> int16x8_t {
    let (w, x) = (vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(x));
    vpaddq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x))
}

/// Vector i has bytes 4i to 4i + 3 of each.
#[inline]
#[target_feature(enable = "neon")]
fn four_rows(a: uint8x16_t, b: uint8x16_t, c: uint8x16_t, d: uint8x16_t) -> [uint8x16_t; 4] {
    let (a, b, c, d) = (vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b), vreinterpretq_u32_u8(c), vreinterpretq_u32_u8(d));
    // Rows a and c, b and d zipped, then the two: the order of quads is a, b, c, d.
    let (ac, bd) = ((vzip1q_u32(a, c), vzip2q_u32(a, c)), (vzip1q_u32(b, d), vzip2q_u32(b, d)));
    [
        vreinterpretq_u8_u32(vzip1q_u32(ac.0, bd.0)),
        vreinterpretq_u8_u32(vzip2q_u32(ac.0, bd.0)),
        vreinterpretq_u8_u32(vzip1q_u32(ac.1, bd.1)),
        vreinterpretq_u8_u32(vzip2q_u32(ac.1, bd.1)),
    ]
}

/// The sums of the lanes of each.
#[inline]
#[target_feature(enable = "neon")]
fn four_i(a: int32x4_t, b: int32x4_t, c: int32x4_t, d: int32x4_t) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
}

/// The sums of the lanes of each, in order.
#[inline]
#[target_feature(enable = "neon")]
fn four_f(rows: [float32x4_t; 4]) -> float32x4_t {
    let [a, b, c, d] = rows.map(|row| vreinterpretq_u8_f32(row));
    let [first, second, third, fourth] = four_rows(a, b, c, d).map(|lane| vreinterpretq_f32_u8(lane));
    vaddq_f32(vaddq_f32(vaddq_f32(first, second), third), fourth)
}

impl Lanewise for Neon {
    type B = B;
    type W = W;
    type I = I;
    type F = F;
    const ROWS: usize = 8;
    const DOTS: bool = false;

    on_registers! {
        fn pick(a: B, indices: &[u8; 16]) -> B {
            let indices = vld1q_u8(indices.as_ptr());
            halves!(uint8x16x2_t, a => vqtbl1q_u8(a, indices))
        }
        fn add_fifth<const QUAD: usize>(a: B, bits: B) -> B {
            let of_quad = vld1q_u8(const { &byte_of_quad(QUAD) }.as_ptr());
            let mask = vreinterpretq_u8_u32(vdupq_n_u32(bits_of_quad(QUAD)));
            halves!(uint8x16x2_t, a, bits => {
                vorrq_u8(a, vandq_u8(vtstq_u8(vqtbl1q_u8(bits, of_quad), mask), vdupq_n_u8(16)))
            })
        }
        fn down(a: B, n: usize) -> B { halves!(uint8x16x2_t, a => vshlq_u8(a, vdupq_n_s8(-(n as i8)))) }
        fn or(a: B, b: B) -> B { halves!(uint8x16x2_t, a, b => vorrq_u8(a, b)) }
        fn right<const N: i32>(a: B, mask: u8) -> B {
            halves!(uint8x16x2_t, a => vandq_u8(vshlq_u8(a, vdupq_n_s8(-N as i8)), vdupq_n_u8(mask)))
        }
        fn left<const N: i32>(a: B, mask: u8) -> B {
            halves!(uint8x16x2_t, a => vandq_u8(vshlq_u8(a, vdupq_n_s8(N as i8)), vdupq_n_u8(mask)))
        }
        fn lookup(table: &[i8; 16], indices: B) -> B {
            let table = vreinterpretq_u8_s8(vld1q_s8(table.as_ptr()));
            halves!(uint8x16x2_t, indices => vqtbl1q_u8(table, indices))
        }
        fn magnitude(a: B) -> B { halves!(uint8x16x2_t, a => vreinterpretq_u8_s8(vabsq_s8(vreinterpretq_s8_u8(a)))) }
        // Unsigned bytes are below 128, so their signed products are the same.
        fn pairs(w: B, x: B) -> W { halves!(int16x8x2_t, w, x => pairs(w, x)) }
        fn signed_pairs(w: B, _magnitude: B, x: B) -> W { halves!(int16x8x2_t, w, x => pairs(w, x)) }
        fn add_quads(sum: I, w: B, x: B) -> I {
            int32x4x2_t(vpadalq_s16(sum.0, pairs(w.0, x.0)), vpadalq_s16(sum.1, pairs(w.1, x.1)))
        }
        fn add_signed_quads(sum: I, w: B, _magnitude: B, x: B) -> I {
            int32x4x2_t(vpadalq_s16(sum.0, pairs(w.0, x.0)), vpadalq_s16(sum.1, pairs(w.1, x.1)))
        }
        fn splat_w(x: i16) -> W { int16x8x2_t(vdupq_n_s16(x), vdupq_n_s16(x)) }
        fn add_w(a: W, b: W) -> W { halves!(int16x8x2_t, a, b => vaddq_s16(a, b)) }
        fn mul_w(a: W, b: W) -> W { halves!(int16x8x2_t, a, b => vmulq_s16(a, b)) }
        fn add_products(sum: I, a: W, b: W) -> I {
            let products = halves!(int32x4x2_t, a, b => {
                vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b))
            });
            halves!(int32x4x2_t, sum, products => vaddq_s32(sum, products))
        }
        fn zero() -> I { int32x4x2_t(vdupq_n_s32(0), vdupq_n_s32(0)) }
        fn splat_i(x: i32) -> I { int32x4x2_t(vdupq_n_s32(x), vdupq_n_s32(x)) }
        fn words(a: B) -> W { halves!(int16x8x2_t, a => vreinterpretq_s16_u8(a)) }
        fn upper(a: W) -> W { halves!(int16x8x2_t, a => vshrq_n_s16::<8>(a)) }
        fn add_i(a: I, b: I) -> I { halves!(int32x4x2_t, a, b => vaddq_s32(a, b)) }
        fn mul_lanes(a: I, b: I) -> I { halves!(int32x4x2_t, a, b => vmulq_s32(a, b)) }
        fn firsts(a: W, by: i16) -> I {
            halves!(int32x4x2_t, a => vmulq_n_s32(vshrq_n_s32::<16>(vshlq_n_s32::<16>(vreinterpretq_s32_s16(a))), by.into()))
        }
        fn half_powers(a: B) -> F {
            halves!(float32x4x2_t, a => {
                let e = vandq_u32(vreinterpretq_u32_u8(a), vdupq_n_u32(0xff));
                let normal = vshlq_n_u32::<23>(vsubq_u32(e, vdupq_n_u32(1)));
                let denormal = vshlq_u32(vdupq_n_u32(super::LEAST_HALF_POWER as u32), vreinterpretq_s32_u32(e));
                vreinterpretq_f32_u32(vbslq_u32(vcgtq_u32(e, vdupq_n_u32(1)), normal, denormal))
            })
        }
        fn to_f32(a: I) -> F { halves!(float32x4x2_t, a => vcvtq_f32_s32(a)) }
        fn splat_f(x: f32) -> F { float32x4x2_t(vdupq_n_f32(x), vdupq_n_f32(x)) }
        fn add(a: F, b: F) -> F { halves!(float32x4x2_t, a, b => vaddq_f32(a, b)) }
        fn sub(a: F, b: F) -> F { halves!(float32x4x2_t, a, b => vsubq_f32(a, b)) }
        fn mul(a: F, b: F) -> F { halves!(float32x4x2_t, a, b => vmulq_f32(a, b)) }
    }

    #[inline(always)]
    fn both_halves(self, a: B) -> [F; 2] {
        // SAFETY: features by `self`; the conversion is part of the base instruction set.
        unsafe {
            let (a, b) = (vreinterpretq_u16_u8(a.0), vreinterpretq_u16_u8(a.1));
            let wide = |halves: uint16x8_t| {
                let (first, last): (float32x4_t, float32x4_t);
                std::arch::asm!("fcvtl {a:v}.4s, {h:v}.4h", "fcvtl2 {b:v}.4s, {h:v}.8h", h = in(vreg) halves, a = out(vreg) first, b = lateout(vreg) last,
                    options(pure, nomem, nostack, preserves_flags));
                float32x4x2_t(first, last)
            };
            [wide(vuzp1q_u16(a, b)), wide(vuzp2q_u16(a, b))]
        }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> B {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { uint8x16x2_t(vld1q_u8(p), vld1q_u8(p.add(16))) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8, a: B) {
        // SAFETY: features by `self`, memory by the caller.
        unsafe {
            vst1q_u8(p, a.0);
            vst1q_u8(p.add(16), a.1);
        }
    }
    #[inline(always)]
    unsafe fn load_rows(self, first: *const u8, stride: usize) -> [B; 4] {
        // SAFETY: features by `self`, memory by the caller.
        unsafe {
            let [a, b, c, d, e, f, g, h] = each!(8, R => vld1q_u8(first.add(R * stride)));
            let (first, last) = (four_rows(a, b, c, d), four_rows(e, f, g, h));
            each!(4, I => uint8x16x2_t(first[I], last[I]))
        }
    }
    #[inline(always)]
    unsafe fn splat_quad(self, p: *const u8) -> B {
        // SAFETY: features by `self`, memory by the caller.
        let quad = unsafe { vreinterpretq_u8_u32(vdupq_n_u32(p.cast::<u32>().read_unaligned())) };
        uint8x16x2_t(quad, quad)
    }
    #[inline(always)]
    unsafe fn splat_pair(self, p: *const i16) -> W {
        // SAFETY: features by `self`, memory by the caller.
        let pair = unsafe { vreinterpretq_s16_u32(vdupq_n_u32(p.cast::<u32>().read_unaligned())) };
        int16x8x2_t(pair, pair)
    }
    #[inline(always)]
    unsafe fn load_byte_pairs(self, p: *const i8) -> W {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { int16x8x2_t(vmovl_s8(vld1_s8(p)), vmovl_s8(vld1_s8(p.add(8)))) }
    }
    #[inline(always)]
    unsafe fn store_w(self, p: *mut i16, a: W) {
        // SAFETY: features by `self`, memory by the caller.
        unsafe {
            vst1q_s16(p, a.0);
            vst1q_s16(p.add(8), a.1);
        }
    }
    #[inline(always)]
    unsafe fn store_f(self, p: *mut f32, a: F) {
        // SAFETY: features by `self`, memory by the caller.
        unsafe {
            vst1q_f32(p, a.0);
            vst1q_f32(p.add(4), a.1);
        }
    }
    #[inline(always)]
    unsafe fn load_f(self, p: *const f32) -> F {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { float32x4x2_t(vld1q_f32(p), vld1q_f32(p.add(4))) }
    }
}

impl Ints for Neon {
    type Lanes = Two<Self>;
    #[inline(always)]
    fn lanes(self) -> Two<Self> {
        Two(self)
    }
    type Rows = Self;
    #[inline(always)]
    fn rows(self) -> Self {
        self
    }

    on_registers! {
        fn digits(a: B, powers: &[u8; 32]) -> B {
            let powers = uint8x16x2_t(vld1q_u8(powers.as_ptr()), vld1q_u8(powers.as_ptr().add(16)));
            // 1 for those above 85, whose 3-fold passes 256, and 1 more for those above 170.
            halves!(uint8x16x2_t, a, powers => {
                let b = vmulq_u8(a, powers);
                vsubq_u8(vsubq_u8(vdupq_n_u8(0), vcgtq_u8(b, vdupq_n_u8(85))), vcgtq_u8(b, vdupq_n_u8(170)))
            })
        }
        fn quads(w: [B; 2], x: [B; 2]) -> I {
            let ([a, b], [x, y]) = (w, x);
            let (a, b) = (halves!(int16x8x2_t, a, x => pairs(a, x)), halves!(int16x8x2_t, b, y => pairs(b, y)));
            halves!(int32x4x2_t, a, b => vpaddlq_s16(vaddq_s16(a, b)))
        }
        fn signed_quads(w: B, _magnitude: B, x: B) -> I { halves!(int32x4x2_t, w, x => vpaddlq_s16(pairs(w, x))) }
        fn widen_twice(bytes: u64) -> W {
            let half = vreinterpretq_s16_u16(vmovl_u8(vcreate_u8(bytes)));
            int16x8x2_t(half, half)
        }
        fn widen_split(bytes: [u64; 2]) -> W {
            let bytes = vcombine_s8(vcreate_s8(bytes[0]), vcreate_s8(bytes[1]));
            let (even, odd) = (vuzp1q_s8(bytes, bytes), vuzp2q_s8(bytes, bytes));
            int16x8x2_t(vmovl_s8(vget_low_s8(even)), vmovl_s8(vget_low_s8(odd)))
        }
        fn sub_w(a: W, b: W) -> W { halves!(int16x8x2_t, a, b => vsubq_s16(a, b)) }
        fn spread<const J: usize>(a: W) -> W {
            let lane = vreinterpretq_u8_u16(vdupq_n_u16(2 * J as u16 | (2 * J as u16 + 1) << 8));
            halves!(int16x8x2_t, a => vreinterpretq_s16_u8(vqtbl1q_u8(vreinterpretq_u8_s16(a), lane)))
        }
        fn sub_i(a: I, b: I) -> I { halves!(int32x4x2_t, a, b => vsubq_s32(a, b)) }
        fn mul_i(a: I, by: i32) -> I { halves!(int32x4x2_t, a => vmulq_n_s32(a, by)) }
        fn halves_of_256(a: I) -> [I; 2] {
            let (low, high) = (vcombine_s32(vget_low_s32(a.0), vdup_n_s32(0)), vcombine_s32(vget_low_s32(a.1), vdup_n_s32(0)));
            let first = int32x4x2_t(low, high);
            [first, int32x4x2_t(vsubq_s32(a.0, low), vsubq_s32(a.1, high))]
        }
        fn join(a: I, b: I) -> I { halves!(int32x4x2_t, a, b => vpaddq_s32(a, b)) }
        fn sums_of_vectors(a: [I; 8]) -> I {
            let [a, b, c, d, e, f, g, h] = each!(8, J => vaddq_s32(a[J].0, a[J].1));
            int32x4x2_t(four_i(a, c, e, g), four_i(b, d, f, h))
        }
        fn rows_i(rows: [I; 4]) -> I {
            let [a, b, c, d] = rows;
            let sums = vaddq_s32(four_i(a.0, b.0, c.0, d.0), four_i(a.1, b.1, c.1, d.1));
            int32x4x2_t(sums, sums)
        }
        fn set_four(a: [f32; 4]) -> F {
            let four = vld1q_f32(a.as_ptr());
            float32x4x2_t(four, four)
        }
        fn rows_f(rows: [F; 4]) -> F {
            let [a, b, c, d] = rows;
            let (first, last) = (four_f([a.0, b.0, c.0, d.0]), four_f([a.1, b.1, c.1, d.1]));
            let sums = vaddq_f32(first, last);
            float32x4x2_t(sums, sums)
        }
    }

    #[inline(always)]
    unsafe fn store_twice<const HALF: i32>(self, p: *mut i16, a: W) {
        let half = if HALF == 0 { a.0 } else { a.1 };
        // SAFETY: features by `self`, memory by the caller.
        unsafe { vst2q_s16(p, int16x8x2_t(half, half)) }
    }
    #[inline(always)]
    unsafe fn load_two(self, p: *const u8, q: *const u8) -> B {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { uint8x16x2_t(vld1q_u8(p), vld1q_u8(q)) }
    }
    #[inline(always)]
    unsafe fn load_nibbles(self, p: *const u8) -> B {
        // SAFETY: features by `self`, memory by the caller.
        unsafe {
            let bytes = vld1q_u8(p);
            uint8x16x2_t(vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes))
        }
    }
    #[inline(always)]
    unsafe fn load_bits(self, p: *const u8, q: *const u8) -> [B; 2] {
        // Each byte's own bit is singled out.
        // SAFETY: features by `self`, memory by the caller.
        unsafe {
            let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            let sixteen = vdupq_n_u8(16);
            let both = |p: *const u8| vcombine_u8(vdup_n_u8(*p), vdup_n_u8(*p.add(1)));
            let (a, b, c, d) = (both(p), both(q), both(p.add(2)), both(q.add(2)));
            let first = uint8x16x2_t(vandq_u8(vtstq_u8(a, bit), sixteen), vandq_u8(vtstq_u8(b, bit), sixteen));
            let last = uint8x16x2_t(vandq_u8(vtstq_u8(c, bit), sixteen), vandq_u8(vtstq_u8(d, bit), sixteen));
            [first, last]
        }
    }
    #[inline(always)]
    unsafe fn load_w_twice(self, p: *const i16) -> W {
        // SAFETY: features by `self`, memory by the caller.
        unsafe { int16x8x2_t(vld1q_s16(p), vld1q_s16(p)) }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u8) -> f32 {
        let wide: f32;
        // SAFETY: features by `self`, memory by the caller; the conversion is part of the base instruction set.
        unsafe {
            let bits = p.cast::<u16>().read_unaligned();
            std::arch::asm!("fmov {v:s}, {bits:w}", "fcvt {v:s}, {v:h}", bits = in(reg) u32::from(bits), v = out(vreg) wide,
                options(pure, nomem, nostack, preserves_flags));
        }
        wide
    }
    #[inline(always)]
    unsafe fn load_halves(self, p: *const u8, stride: usize) -> F {
        // SAFETY: features by `self`, memory by the caller; the conversion is part of the base instruction set.
        unsafe {
            let at = |i: usize| u64::from(p.add(i * stride).cast::<u16>().read_unaligned());
            let even = at(0) | at(2) << 16 | at(4) << 32 | at(6) << 48;
            let odd = at(1) | at(3) << 16 | at(5) << 32 | at(7) << 48;
            let (first, last): (float32x4_t, float32x4_t);
            std::arch::asm!("fmov {v:d}, {bits}", "fcvtl {v:v}.4s, {v:v}.4h", bits = in(reg) even, v = out(vreg) first,
                options(pure, nomem, nostack, preserves_flags));
            std::arch::asm!("fmov {v:d}, {bits}", "fcvtl {v:v}.4s, {v:v}.4h", bits = in(reg) odd, v = out(vreg) last,
                options(pure, nomem, nostack, preserves_flags));
            float32x4x2_t(first, last)
        }
    }
}
