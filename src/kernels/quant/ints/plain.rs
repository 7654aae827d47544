//! Plain Rust, for any CPU; the truth about what each operation does.

use super::super::many::lanes::Two;
use super::{Ints, Lanewise, half_power};
use half::f16;

#[derive(Clone, Copy)]
pub(in crate::kernels) struct Plain;

type B = [u8; 32];
type W = [i16; 16];
type I = [i32; 8];
type F = [f32; 8];

#[inline(always)]
fn zip<const N: usize, T: Copy>(a: [T; N], b: [T; N], f: impl Fn(T, T) -> T) -> [T; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn pairs(w: [i16; 32], x: B) -> W {
    std::array::from_fn(|i| w[2 * i] * i16::from(x[2 * i] as i8) + w[2 * i + 1] * i16::from(x[2 * i + 1] as i8))
}

#[inline(always)]
fn two_and_two(a: W) -> I {
    std::array::from_fn(|i| i32::from(a[2 * i]) + i32::from(a[2 * i + 1]))
}

#[inline(always)]
fn total(a: &[i32]) -> i32 {
    a.iter().fold(0, |sum, a| sum.wrapping_add(*a))
}

// Operations on all bytes are not inlined always: the code of `few`, which has many of each, would grow so long that dev builds take minutes.
impl Lanewise for Plain {
    type B = B;
    type W = W;
    type I = I;
    type F = F;
    const ROWS: usize = 8;
    const DOTS: bool = false;

    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> B {
        // SAFETY: the caller's word.
        unsafe { p.cast::<B>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8, a: B) {
        // SAFETY: the caller's word.
        unsafe { p.cast::<B>().write_unaligned(a) }
    }
    #[inline]
    unsafe fn load_rows(self, first: *const u8, stride: usize) -> [B; 4] {
        // SAFETY: the caller's word.
        let rows: [_; 8] = std::array::from_fn(|r| unsafe { first.add(r * stride).cast::<[u8; 16]>().read_unaligned() });
        std::array::from_fn(|i| std::array::from_fn(|at| rows[at / 4][4 * i + at % 4]))
    }
    #[inline]
    unsafe fn splat_quad(self, p: *const u8) -> B {
        // SAFETY: the caller's word.
        let quad = unsafe { p.cast::<[u8; 4]>().read_unaligned() };
        std::array::from_fn(|i| quad[i % 4])
    }
    #[inline]
    fn pick(self, a: B, indices: &[u8; 16]) -> B {
        std::array::from_fn(|i| if indices[i % 16] < 16 { a[i / 16 * 16 + usize::from(indices[i % 16])] } else { 0 })
    }
    #[inline]
    fn add_fifth<const QUAD: usize>(self, a: B, bits: B) -> B {
        let fifth = |i: usize| bits[i / 4 * 4 + QUAD / 2] >> (QUAD % 2 * 4 + i % 4) & 1;
        std::array::from_fn(|i| a[i] + 16 * fifth(i))
    }
    #[inline]
    fn down(self, a: B, n: usize) -> B {
        a.map(|a| a >> n)
    }
    #[inline]
    fn or(self, a: B, b: B) -> B {
        zip(a, b, |a, b| a | b)
    }
    #[inline]
    fn right<const N: i32>(self, a: B, mask: u8) -> B {
        a.map(|a| (a >> N) & mask)
    }
    #[inline]
    fn left<const N: i32>(self, a: B, mask: u8) -> B {
        a.map(|a| (a << N) & mask)
    }
    #[inline]
    fn lookup(self, table: &[i8; 16], indices: B) -> B {
        indices.map(|i| table[usize::from(i & 15)] as u8)
    }
    #[inline]
    fn magnitude(self, a: B) -> B {
        a.map(|a| (a as i8).unsigned_abs())
    }
    #[inline]
    fn pairs(self, w: B, x: B) -> W {
        pairs(w.map(i16::from), x)
    }
    #[inline]
    fn signed_pairs(self, w: B, _: B, x: B) -> W {
        pairs(w.map(|w| i16::from(w as i8)), x)
    }
    #[inline]
    fn add_quads(self, sum: I, w: B, x: B) -> I {
        zip(sum, two_and_two(self.pairs(w, x)), |a, b| a + b)
    }
    #[inline]
    fn add_signed_quads(self, sum: I, w: B, magnitude: B, x: B) -> I {
        zip(sum, self.signed_quads(w, magnitude, x), |a, b| a + b)
    }
    #[inline(always)]
    fn splat_w(self, x: i16) -> W {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn splat_pair(self, p: *const i16) -> W {
        // SAFETY: the caller's word.
        let pair = unsafe { p.cast::<[i16; 2]>().read_unaligned() };
        std::array::from_fn(|i| pair[i % 2])
    }
    #[inline(always)]
    unsafe fn load_byte_pairs(self, p: *const i8) -> W {
        // SAFETY: the caller's word.
        unsafe { p.cast::<[i8; 16]>().read_unaligned() }.map(i16::from)
    }
    #[inline(always)]
    unsafe fn store_w(self, p: *mut i16, a: W) {
        // SAFETY: the caller's word.
        unsafe { p.cast::<W>().write_unaligned(a) }
    }
    #[inline(always)]
    fn add_w(self, a: W, b: W) -> W {
        zip(a, b, i16::wrapping_add)
    }
    #[inline(always)]
    unsafe fn load_w(self, p: *const i16) -> W {
        // SAFETY: the caller's word.
        unsafe { p.cast::<W>().read_unaligned() }
    }
    #[inline]
    fn mul_w(self, a: W, b: W) -> W {
        zip(a, b, |a, b| a * b)
    }
    #[inline]
    fn words(self, a: B) -> W {
        std::array::from_fn(|i| i16::from_le_bytes([a[2 * i], a[2 * i + 1]]))
    }
    #[inline(always)]
    fn upper(self, a: W) -> W {
        a.map(|a| a >> 8)
    }
    #[inline(always)]
    fn add_i(self, a: I, b: I) -> I {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn mul_lanes(self, a: I, b: I) -> I {
        zip(a, b, i32::wrapping_mul)
    }
    #[inline(always)]
    fn firsts(self, a: W, by: i16) -> I {
        std::array::from_fn(|i| i32::from(a[2 * i]) * i32::from(by))
    }
    #[inline]
    fn both_halves(self, a: B) -> [F; 2] {
        [0, 2].map(|at| std::array::from_fn(|i| f16::from_le_bytes([a[4 * i + at], a[4 * i + at + 1]]).to_f32_const()))
    }
    #[inline]
    fn half_powers(self, a: B) -> F {
        std::array::from_fn(|i| half_power(a[4 * i]))
    }
    #[inline]
    fn add_products(self, sum: I, a: W, b: W) -> I {
        let product = |i| i32::from(a[i]) * i32::from(b[i]);
        std::array::from_fn(|i| sum[i].wrapping_add(product(2 * i)).wrapping_add(product(2 * i + 1)))
    }
    #[inline(always)]
    fn zero(self) -> I {
        [0; 8]
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> I {
        [x; 8]
    }
    #[inline(always)]
    fn to_f32(self, a: I) -> F {
        a.map(|a| a as f32)
    }
    #[inline(always)]
    fn splat_f(self, x: f32) -> F {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load_f(self, p: *const f32) -> F {
        // SAFETY: the caller's word.
        unsafe { p.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_f(self, p: *mut f32, a: F) {
        // SAFETY: the caller's word.
        unsafe { p.cast::<F>().write_unaligned(a) }
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a * b)
    }
}

impl Ints for Plain {
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

    #[inline(always)]
    unsafe fn load_nibbles(self, p: *const u8) -> B {
        // SAFETY: the caller's word.
        let bytes = unsafe { p.cast::<[u8; 16]>().read_unaligned() };
        std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
    }
    #[inline(always)]
    unsafe fn load_two(self, p: *const u8, q: *const u8) -> B {
        // SAFETY: the caller's word.
        let (p, q) = unsafe { (p.cast::<[u8; 16]>().read_unaligned(), q.cast::<[u8; 16]>().read_unaligned()) };
        std::array::from_fn(|i| if i < 16 { p[i] } else { q[i - 16] })
    }
    #[inline(always)]
    unsafe fn load_bits(self, p: *const u8, q: *const u8) -> [B; 2] {
        // SAFETY: the caller's word.
        let bits =
            unsafe { [p.cast::<[u8; 4]>().read_unaligned(), q.cast::<[u8; 4]>().read_unaligned()] }.map(u32::from_le_bytes);
        let bit = |from: usize, i: usize| ((bits[i / 16] >> (from + i % 16) & 1) as u8) << 4;
        [std::array::from_fn(|i| bit(0, i)), std::array::from_fn(|i| bit(16, i))]
    }
    #[inline(always)]
    fn digits(self, a: B, powers: &[u8; 32]) -> B {
        zip(a, *powers, |a, power| ((u16::from(a.wrapping_mul(power)) * 3) >> 8) as u8)
    }
    #[inline(always)]
    fn quads(self, w: [B; 2], x: [B; 2]) -> I {
        two_and_two(zip(self.pairs(w[0], x[0]), self.pairs(w[1], x[1]), |a, b| a + b))
    }
    #[inline(always)]
    fn signed_quads(self, w: B, magnitude: B, x: B) -> I {
        two_and_two(self.signed_pairs(w, magnitude, x))
    }
    #[inline(always)]
    unsafe fn store_twice<const HALF: i32>(self, p: *mut i16, a: W) {
        // SAFETY: the caller's word.
        unsafe { p.cast::<[i16; 16]>().write_unaligned(std::array::from_fn(|i| a[8 * HALF as usize + i / 2])) }
    }
    #[inline(always)]
    unsafe fn load_w_twice(self, p: *const i16) -> W {
        // SAFETY: the caller's word.
        let half = unsafe { p.cast::<[i16; 8]>().read_unaligned() };
        std::array::from_fn(|i| half[i % 8])
    }
    #[inline(always)]
    fn widen_twice(self, bytes: u64) -> W {
        let bytes = bytes.to_le_bytes();
        std::array::from_fn(|i| i16::from(bytes[i % 8]))
    }
    #[inline(always)]
    fn widen_split(self, bytes: [u64; 2]) -> W {
        let bytes = bytes.map(u64::to_le_bytes);
        std::array::from_fn(|i| {
            let place = i % 8 * 2 + i / 8;
            i16::from(bytes[place / 8][place % 8] as i8)
        })
    }
    #[inline(always)]
    fn sub_w(self, a: W, b: W) -> W {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn spread<const J: usize>(self, a: W) -> W {
        std::array::from_fn(|i| a[i / 8 * 8 + J])
    }
    #[inline(always)]
    fn sub_i(self, a: I, b: I) -> I {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn mul_i(self, a: I, by: i32) -> I {
        a.map(|a| a.wrapping_mul(by))
    }
    #[inline(always)]
    fn halves_of_256(self, a: I) -> [I; 2] {
        let half = |h| std::array::from_fn(|i| if i / 2 % 2 == h { a[i] } else { 0 });
        [half(0), half(1)]
    }
    #[inline(always)]
    fn join(self, a: I, b: I) -> I {
        std::array::from_fn(|i| total(&[a, b][i % 4 / 2][i / 4 * 4 + i % 2 * 2..][..2]))
    }
    #[inline(always)]
    fn sums_of_vectors(self, a: [I; 8]) -> I {
        std::array::from_fn(|i| total(&a[i % 4 * 2 + i / 4]))
    }
    #[inline(always)]
    fn rows_i(self, rows: [I; 4]) -> I {
        std::array::from_fn(|i| total(&rows[i % 4]))
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u8) -> f32 {
        // SAFETY: the caller's word.
        f16::from_le_bytes(unsafe { p.cast::<[u8; 2]>().read_unaligned() }).to_f32_const()
    }
    #[inline(always)]
    unsafe fn load_halves(self, p: *const u8, stride: usize) -> F {
        // SAFETY: the caller's word.
        std::array::from_fn(|i| unsafe { self.load_half(p.add((i % 4 * 2 + i / 4) * stride)) })
    }
    #[inline(always)]
    fn set_four(self, a: [f32; 4]) -> F {
        std::array::from_fn(|i| a[i % 4])
    }
    #[inline(always)]
    fn rows_f(self, rows: [F; 4]) -> F {
        std::array::from_fn(|i| {
            let [a, b, c, d, e, f, g, h] = rows[i % 4];
            (((a + b) + c) + d) + (((e + f) + g) + h)
        })
    }
}
