//! Vectors of small integers: what the quantised products are written in. [`Ints`] have 256 bits whatever the instruction set has; products with a few
//! tokens are written in what these share with wider ones, [`Lanewise`], and those with several, beside the unpacking, in [`Lanes`]. As with
//! `Simd`, a value of a type that implements one is the proof that the CPU has its features, and everything down to the
//! intrinsics is inlined into the one function that has them. Every operation gives the same bits on every instruction set.

/// Functions that are intrinsics on registers.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! on_registers {
    ($(fn $name:ident $(<const $n:ident: $kind:ty>)? ($($arg:ident: $type:ty),*) -> $ret:ty $body:block)*) => {
        $(#[inline(always)]
        fn $name $(<const $n: $kind>)? (self, $($arg: $type),*) -> $ret {
            // SAFETY: `self` proves that the CPU has the features; nothing here touches memory but a table passed by reference.
            unsafe { $body }
        })*
    };
}

#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(in crate::kernels) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(in crate::kernels) mod neon;
pub(in crate::kernels) mod plain;

use super::activations;
use super::by_256::{load_u32, packed_scales_and_mins};
use super::many::lanes::Lanes;

/// For [`Lanewise::add_fifth`]: in each lane of 32 bits, four times the byte that a quad's bits are in; and in each byte the bit that is its.
const fn byte_of_quad(quad: usize) -> [u8; 16] {
    let (mut bytes, mut i) = ([0; 16], 0);
    while i < 16 {
        bytes[i] = (i / 4 * 4 + quad / 2) as u8;
        i += 1;
    }
    bytes
}
const fn bits_of_quad(quad: usize) -> u32 {
    0x0804_0201 << (quad % 2 * 4)
}

/// 2^(e − 128), as a denormal where it must be; e = 255 is no NaN here, as in llama.cpp.
#[inline(always)]
pub(super) fn half_power(e: u8) -> f32 {
    f32::from_bits(match e {
        0 | 1 => (LEAST_HALF_POWER as u32) << e,
        e => u32::from(e - 1) << 23,
    })
}

/// The bits of 2^−128, a denormal.
const LEAST_HALF_POWER: i32 = 1 << 21;

/// Operations that are done lane by lane and so at any width, a lane of 32 bits to a row.
pub(in crate::kernels) trait Lanewise: Copy {
    /// 4 bytes of each row.
    type B: Copy;
    /// A pair of i16.
    type W: Copy;
    /// An i32.
    type I: Copy;
    /// An f32.
    type F: Copy;
    /// Lanes of 32 bits.
    const ROWS: usize;
    /// Vector i has bytes 4i to 4i + 3 of each row, the first of which lies at `first`.
    /// # Safety
    /// 16 bytes of each lie `stride` bytes after those of the one before.
    unsafe fn load_rows(self, first: *const u8, stride: usize) -> [Self::B; 4];
    /// # Safety
    /// 4 bytes of each row lie at `p`.
    unsafe fn load(self, p: *const u8) -> Self::B;
    /// # Safety
    /// There is room at `p` for 4 bytes of each row.
    unsafe fn store(self, p: *mut u8, a: Self::B);
    /// 4 bytes, again and again.
    /// # Safety
    /// 4 bytes lie at `p`.
    unsafe fn splat_quad(self, p: *const u8) -> Self::B;
    /// Bytes `indices` of each 16, 0 where one is 128. (Others that are not below 16 there must be none.)
    fn pick(self, a: Self::B, indices: &[u8; 16]) -> Self::B;
    /// Each byte `n` bits further down; nothing in particular above.
    fn down(self, a: Self::B, n: usize) -> Self::B;
    fn or(self, a: Self::B, b: Self::B) -> Self::B;
    /// `(a >> N) & mask` in each byte, for masks without the upper N bits.
    fn right<const N: i32>(self, a: Self::B, mask: u8) -> Self::B;
    /// `(a << N) & mask` in each byte, for masks without the lower N bits.
    fn left<const N: i32>(self, a: Self::B, mask: u8) -> Self::B;
    /// To byte k of each lane 16 is added if bit 4·QUAD + k of that lane of `bits` is set.
    fn add_fifth<const QUAD: usize>(self, a: Self::B, bits: Self::B) -> Self::B;
    /// `table[i]` for each byte i of `indices`, all below 16.
    fn lookup(self, table: &[i8; 16], indices: Self::B) -> Self::B;
    /// The magnitude of signed bytes, as unsigned ones: 128 for −128.
    fn magnitude(self, a: Self::B) -> Self::B;
    /// `w[2i]·x[2i] + w[2i+1]·x[2i+1]` for unsigned w up to 127 and signed x: at most 2·127·127, which is in range.
    fn pairs(self, w: Self::B, x: Self::B) -> Self::W;
    /// Whether sums of four products are as quick as those of two.
    const DOTS: bool;
    /// The same for signed w and x from −127 on; `magnitude` is that of w. At most 2·128·127 = 32512, which is in range.
    fn signed_pairs(self, w: Self::B, magnitude: Self::B, x: Self::B) -> Self::W;
    /// The [`Lanewise::pairs`], two and two added, and `sum`.
    fn add_quads(self, sum: Self::I, w: Self::B, x: Self::B) -> Self::I;
    /// The [`Lanewise::signed_pairs`], two and two added, and `sum`, which began with [`Lanewise::signed_sum`].
    fn add_signed_quads(self, sum: Self::I, w: Self::B, magnitude: Self::B, x: Self::B) -> Self::I;
    /// What a sum of signed quads begins with: 0, or where w is taken 128 larger `bias`, which is −128 times the sum of all x that it will meet.
    #[inline(always)]
    fn signed_sum(self, _bias: i32) -> Self::I {
        self.zero()
    }
    fn splat_w(self, x: i16) -> Self::W;
    /// 2 i16, again and again.
    /// # Safety
    /// 2 i16 lie at `p`.
    unsafe fn splat_pair(self, p: *const i16) -> Self::W;
    /// A pair of signed bytes of each row.
    /// # Safety
    /// They lie at `p`.
    unsafe fn load_byte_pairs(self, p: *const i8) -> Self::W;
    /// # Safety
    /// There is room at `p` for a pair of each row.
    unsafe fn store_w(self, p: *mut i16, a: Self::W);
    /// Modulo 2^16.
    fn add_w(self, a: Self::W, b: Self::W) -> Self::W;
    /// # Safety
    /// A pair of each row lies at `p`. (As bytes: x86 and AArch64 are little-endian.)
    #[inline(always)]
    unsafe fn load_w(self, p: *const i16) -> Self::W {
        // SAFETY: the caller's word.
        self.words(unsafe { self.load(p.cast()) })
    }
    /// Products that are in range.
    fn mul_w(self, a: Self::W, b: Self::W) -> Self::W;
    /// The bytes as lanes: the same bits.
    fn words(self, a: Self::B) -> Self::W;
    /// The upper byte of each lane, which is signed.
    fn upper(self, a: Self::W) -> Self::W;
    /// `sum[i] + a[2i]·b[2i] + a[2i+1]·b[2i+1]`, modulo 2^32.
    fn add_products(self, sum: Self::I, a: Self::W, b: Self::W) -> Self::I;
    fn zero(self) -> Self::I;
    fn splat_i(self, x: i32) -> Self::I;
    /// Modulo 2^32, as all sums of lanes.
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn mul_lanes(self, a: Self::I, b: Self::I) -> Self::I;
    /// The first of each pair of `a`, times `by`, which is not negative.
    fn firsts(self, a: Self::W, by: i16) -> Self::I;
    /// Rounded to nearest even.
    fn to_f32(self, a: Self::I) -> Self::F;
    fn splat_f(self, x: f32) -> Self::F;
    /// # Safety
    /// An f32 of each row lies at `p`, at any alignment.
    unsafe fn load_f(self, p: *const f32) -> Self::F;
    /// # Safety
    /// There is room at `p` for an f32 of each row.
    unsafe fn store_f(self, p: *mut f32, a: Self::F);
    /// The binary16 numbers in the first two bytes of every four, and in the last two.
    fn both_halves(self, a: Self::B) -> [Self::F; 2];
    /// [`half_power`] of the first byte of every four.
    fn half_powers(self, a: Self::B) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
}

/// One instruction set's vectors of 256 bits: 32 bytes, 16 lanes of i16, 8 of i32 or of f32. "Halves" are the first and the last 16 bytes of one.
pub(in crate::kernels) trait Ints: Lanewise {
    /// What products with several tokens are made of.
    type Lanes: Lanes;
    fn lanes(self) -> Self::Lanes;
    /// What those with a few are made of.
    type Rows: Lanewise;
    fn rows(self) -> Self::Rows;

    /// 16 bytes into each half.
    /// # Safety
    /// 16 bytes lie at `p` and at `q`.
    unsafe fn load_two(self, p: *const u8, q: *const u8) -> Self::B;
    /// The lower four bits of 16 bytes, then the upper four.
    /// # Safety
    /// 16 bytes lie at `p`.
    unsafe fn load_nibbles(self, p: *const u8) -> Self::B;
    /// For 32 bits, from the least significant of the first byte on, 16 where one is set, else 0: those of the first 16 bits at `p`
    /// and at `q`, a half of the vector each, then those of the last.
    /// # Safety
    /// 4 bytes lie at `p` and at `q`.
    unsafe fn load_bits(self, p: *const u8, q: *const u8) -> [Self::B; 2];
    /// For each byte b the integer part of 3·(b·power mod 256) / 256.
    fn digits(self, a: Self::B, powers: &[u8; 32]) -> Self::B;
    /// The [`Lanewise::pairs`] of both w with their x, for w up to 63: all of four elements added.
    fn quads(self, w: [Self::B; 2], x: [Self::B; 2]) -> Self::I;
    /// The [`Lanewise::signed_pairs`], two and two added.
    fn signed_quads(self, w: Self::B, magnitude: Self::B, x: Self::B) -> Self::I;
    /// The lanes of the first half (HALF = 0) or the last (1), each twice.
    /// # Safety
    /// There is room for 16 i16 at `p`.
    unsafe fn store_twice<const HALF: i32>(self, p: *mut i16, a: Self::W);
    /// 8 i16 into both halves.
    /// # Safety
    /// 8 i16 lie at `p`.
    unsafe fn load_w_twice(self, p: *const i16) -> Self::W;
    /// 8 unsigned bytes, from the least significant on, into both halves.
    fn widen_twice(self, bytes: u64) -> Self::W;
    /// The scales and the minimums of a block of Q4_K or Q5_K, which are [`packed_scales_and_mins`]: each as [`Ints::widen_twice`].
    /// # Safety
    /// The first 16 bytes of the block lie at `p`.
    #[inline(always)]
    unsafe fn load_six_bits(self, p: *const u8) -> [Self::W; 2] {
        // SAFETY: the caller's word.
        let (scales, mins) = packed_scales_and_mins(unsafe { [load_u32(p.add(4)), load_u32(p.add(8)), load_u32(p.add(12))] });
        [self.widen_twice(scales), self.widen_twice(mins)]
    }
    /// 16 signed bytes: those at even places into the first half, those at odd ones into the second.
    fn widen_split(self, bytes: [u64; 2]) -> Self::W;
    fn sub_w(self, a: Self::W, b: Self::W) -> Self::W;
    /// Lane J of each half, in all lanes of that half.
    fn spread<const J: usize>(self, a: Self::W) -> Self::W;
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn mul_i(self, a: Self::I, by: i32) -> Self::I;
    /// Lanes 0, 1, 4, 5 of `a`, and lanes 2, 3, 6, 7, zeros in the place of the others: those of [`Ints::add_products`] with what belongs to 16
    /// parts, even ones first, that are of the first half of them and of the second.
    fn halves_of_256(self, a: Self::I) -> [Self::I; 2];
    /// The sums of two neighbours, of each half: twice two of `a`, twice two of `b`.
    fn join(self, a: Self::I, b: Self::I) -> Self::I;
    /// The sums of eight vectors, those at even places first.
    fn sums_of_vectors(self, a: [Self::I; 8]) -> Self::I;
    /// In lane r the sum of vector r; nothing in particular in the last four lanes.
    fn rows_i(self, rows: [Self::I; 4]) -> Self::I;
    /// `a`, computed before what the source has next: left to itself, a compiler may begin with much, of which registers then overflow.
    #[inline(always)]
    fn here(self, a: Self::I) -> Self::I {
        a
    }
    /// A binary16 number.
    /// # Safety
    /// 2 bytes lie at `p`.
    unsafe fn load_half(self, p: *const u8) -> f32;
    /// 8 binary16 numbers, each `stride` bytes after the one before: those at even places into the first half.
    /// # Safety
    /// They lie there.
    unsafe fn load_halves(self, p: *const u8, stride: usize) -> Self::F;
    /// The four in the first lanes.
    fn set_four(self, a: [f32; 4]) -> Self::F;
    /// In lane r, (((a + b) + c) + d) + (((e + f) + g) + h) for a to h in vector r; nothing in particular in the last four lanes.
    fn rows_f(self, rows: [Self::F; 4]) -> Self::F;
    /// [`activations::largest`].
    #[inline(always)]
    fn largest(self, x: &[f32; 256]) -> [u32; 8] {
        activations::largest(x)
    }
    /// [`activations::round`].
    #[inline(always)]
    fn round(self, x: &[f32; 256], by: &[f32; 8], q: &mut [i8; 256]) -> [[i32; 8]; 2] {
        activations::round(x, by, q)
    }
}
