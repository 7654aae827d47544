//! Types with a floating-point scale to every 32 elements.
//!
//! | type | bytes of a block | element |
//! |---|---|---|
//! | Q4_0 | f16 d, 16 × 2 nibbles | d·(q − 8) |
//! | Q4_1 | f16 d, f16 m, 16 × 2 nibbles | d·q + m |
//! | Q5_0 | f16 d, 32 high bits, 16 × 2 nibbles | d·(q − 16) |
//! | Q5_1 | f16 d, f16 m, 32 high bits, 16 × 2 nibbles | d·q + m |
//! | Q8_0 | f16 d, 32 × i8 | d·q |
//! | IQ4_NL | f16 d, 16 × 2 nibbles | d·[`IQ4`]\[q\] |
//! | MXFP4 | exponent e, 16 × 2 nibbles | 2^(e − 128)·[`MXFP4`]\[q\] |
//!
//! Byte i of the nibbles holds element i below and element i + 16 above; bit i of the high bits belongs to element i.

use super::activations::split;
use super::ints::{Ints, Lanewise, half_power};
use super::numbers::{Numbers, Rows};
use super::{Blocks, Bytes, Format, Sink, f16_at};
use crate::format::Quant;

/// The values of IQ4_NL and IQ4_XS.
pub(super) const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice the values of the 4-bit float E2M1.
pub(super) const MXFP4: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// `out[i]` and `out[i + 16]` from the nibbles of byte i.
#[inline(always)]
fn nibbles(qs: &[u8], out: &mut [f32], f: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(16);
    for ((q, low), high) in qs.iter().zip(low).zip(high) {
        *low = f(q & 15);
        *high = f(q >> 4);
    }
}

/// The same with a fifth bit to each.
#[inline(always)]
fn five_bits(bits: &[u8], qs: &[u8], out: &mut [f32], f: impl Fn(u8) -> f32) {
    let bits = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
    let (low, high) = out.split_at_mut(16);
    for (i, ((q, low), high)) in qs.iter().zip(low).zip(high).enumerate() {
        *low = f(q & 15 | ((bits >> i & 1) as u8) << 4);
        *high = f(q >> 4 | ((bits >> (i + 16) & 1) as u8) << 4);
    }
}

/// The nibbles of bytes: the lower ones, then the upper.
#[inline(always)]
pub(super) fn both_nibbles<S: Lanewise>(s: S, bytes: S::B) -> [S::B; 2] {
    [s.right::<0>(bytes, 15), s.right::<4>(bytes, 15)]
}

/// What `table` has for them.
#[inline(always)]
pub(super) fn look_up<S: Lanewise>(s: S, table: &[i8; 16], bytes: S::B) -> [S::B; 2] {
    let [first, last] = both_nibbles(s, bytes);
    [s.lookup(table, first), s.lookup(table, last)]
}

/// The nibbles of two blocks, as [`Sink::by_64`] orders them: those of the first at `p`, of the other `stride` bytes further on.
///
/// # Safety
/// They lie there.
#[inline(always)]
unsafe fn nibbles_of_two<S: Ints>(s: S, p: *const u8, stride: usize) -> [S::B; 2] {
    // SAFETY: the caller's word.
    both_nibbles(s, unsafe { s.load_two(p, p.add(stride)) })
}

/// The same with fifth bits, those of the first block at `bits`.
///
/// # Safety
/// As for [`nibbles_of_two`].
#[inline(always)]
unsafe fn five_bits_of_two<S: Ints>(s: S, p: *const u8, bits: *const u8, stride: usize) -> [S::B; 2] {
    // SAFETY: the caller's word.
    let (low, high) = unsafe { (nibbles_of_two(s, p, stride), s.load_bits(bits, bits.add(stride))) };
    [s.or(low[0], high[0]), s.or(low[1], high[1])]
}

/// Of 32 bits the upper 16 below, and the lower ones above; the others are 0.
const UPPER_DOWN: [u8; 16] = [2, 3, 128, 128, 6, 7, 128, 128, 10, 11, 128, 128, 14, 15, 128, 128];
const LOWER_UP: [u8; 16] = [128, 128, 0, 1, 128, 128, 4, 5, 128, 128, 8, 9, 128, 128, 12, 13];

/// Where the m of an element d·q + m is.
enum Min {
    /// There is none.
    None,
    /// It is d times this.
    Times(f32),
    /// In the block, after d.
    Own,
}

/// The numbers of a type whose blocks, of `stride` bytes, begin with binary16 numbers, behind which fifth bits are.
///
/// # Safety
/// Eight blocks lie at each of `rows`, of at least 16 bytes.
#[inline(always)]
unsafe fn numbers<S: Lanewise, F: Format>(s: S, rows: Rows, to: &mut Numbers, stride: usize, min: Min) {
    for j in 0..8 {
        // SAFETY: of the blocks the caller's word; `to` has as many rows.
        unsafe {
            let [first, second, ..] = rows.lines(s, j * stride);
            let [d, own] = s.both_halves(first);
            if F::FIVE_BITS {
                let fifth = match min {
                    Min::Own => second,
                    // Half of them in each.
                    _ => s.or(s.pick(first, &UPPER_DOWN), s.pick(second, &LOWER_UP)),
                };
                s.store(to.fifth[j].as_mut_ptr().cast(), fifth);
            }
            s.store_f(to.d[split(j)].as_mut_ptr(), d);
            match min {
                Min::None => {}
                Min::Times(by) => s.store_f(to.m[split(j)].as_mut_ptr(), s.mul(d, s.splat_f(by))),
                Min::Own => s.store_f(to.m[split(j)].as_mut_ptr(), own),
            }
        }
    }
}

pub(in crate::kernels) struct Q4_0;
impl Format for Q4_0 {
    const TYPE: Quant = Quant::Q4_0;
    const BYTES: Bytes = Bytes { signed: false, largest: 15, part: 32, scale: 1, mins: true, offset: 0 };
    const FEW: usize = 4;
    const SPLIT: bool = true;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        nibbles(&block[2..], out, |q| d * (f32::from(q) - 8.0));
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [18 * (2 * c + h) + 2, 0, 0]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(s: S, _: usize, lines: [S::B; 3]) -> [S::B; 2] {
        both_nibbles(s, lines[0])
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        // SAFETY: passed on.
        unsafe { numbers::<_, Self>(s, rows, to, 18, Min::Times(-8.0)) }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_64::<Self>(s, p) }
    }
}
impl Blocks for Q4_0 {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> (S::F, Option<S::F>) {
        // SAFETY: the caller's word.
        unsafe {
            let d = s.load_halves(p, 18);
            (d, Some(s.mul(d, s.splat_f(-8.0))))
        }
    }
}

pub(in crate::kernels) struct Q4_1;
impl Format for Q4_1 {
    const TYPE: Quant = Quant::Q4_1;
    const BYTES: Bytes = Bytes { signed: false, largest: 15, part: 32, scale: 1, mins: true, offset: 0 };
    const FEW: usize = 4;
    const SPLIT: bool = true;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        nibbles(&block[4..], out, |q| d * f32::from(q) + m);
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [20 * (2 * c + h) + 4, 0, 0]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(s: S, _: usize, lines: [S::B; 3]) -> [S::B; 2] {
        both_nibbles(s, lines[0])
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        // SAFETY: passed on.
        unsafe { numbers::<_, Self>(s, rows, to, 20, Min::Own) }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_64::<Self>(s, p) }
    }
}
impl Blocks for Q4_1 {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> (S::F, Option<S::F>) {
        // SAFETY: the caller's word.
        unsafe { (s.load_halves(p, 20), Some(s.load_halves(p.add(2), 20))) }
    }
}

pub(in crate::kernels) struct Q5_0;
impl Format for Q5_0 {
    const TYPE: Quant = Quant::Q5_0;
    const BYTES: Bytes = Bytes { signed: false, largest: 31, part: 32, scale: 1, mins: true, offset: 0 };
    const FEW: usize = 4;
    // 12 and 16 tokens take 1.03 and 1.05 times as long as in panels.
    const FEW_WIDE: usize = 10;
    const SPLIT: bool = true;
    const FIVE_BITS: bool = true;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        five_bits(&block[2..6], &block[6..], out, |q| d * (f32::from(q) - 16.0));
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [22 * (2 * c + h) + 6, 0, 0]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(s: S, _: usize, lines: [S::B; 3]) -> [S::B; 2] {
        both_nibbles(s, lines[0])
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        // SAFETY: passed on.
        unsafe { numbers::<_, Self>(s, rows, to, 22, Min::Times(-16.0)) }
    }
    #[inline(always)]
    unsafe fn quarter<S: Ints>(s: S, p: *const u8, c: usize) -> [S::B; 2] {
        // SAFETY: the caller's word.
        unsafe {
            let p = p.add(44 * c);
            five_bits_of_two(s, p.add(6), p.add(2), 22)
        }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_64::<Self>(s, p) }
    }
}
impl Blocks for Q5_0 {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> (S::F, Option<S::F>) {
        // SAFETY: the caller's word.
        unsafe {
            let d = s.load_halves(p, 22);
            (d, Some(s.mul(d, s.splat_f(-16.0))))
        }
    }
}

pub(in crate::kernels) struct Q5_1;
impl Format for Q5_1 {
    const TYPE: Quant = Quant::Q5_1;
    const BYTES: Bytes = Bytes { signed: false, largest: 31, part: 32, scale: 1, mins: true, offset: 0 };
    const FEW: usize = 4;
    // 12 and 16 tokens take 1.03 and 1.05 times as long as in panels.
    const FEW_WIDE: usize = 10;
    const SPLIT: bool = true;
    const FIVE_BITS: bool = true;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        five_bits(&block[4..8], &block[8..], out, |q| d * f32::from(q) + m);
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [24 * (2 * c + h) + 8, 0, 0]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(s: S, _: usize, lines: [S::B; 3]) -> [S::B; 2] {
        both_nibbles(s, lines[0])
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        // SAFETY: passed on.
        unsafe { numbers::<_, Self>(s, rows, to, 24, Min::Own) }
    }
    #[inline(always)]
    unsafe fn quarter<S: Ints>(s: S, p: *const u8, c: usize) -> [S::B; 2] {
        // SAFETY: the caller's word.
        unsafe {
            let p = p.add(48 * c);
            five_bits_of_two(s, p.add(8), p.add(4), 24)
        }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_64::<Self>(s, p) }
    }
}
impl Blocks for Q5_1 {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> (S::F, Option<S::F>) {
        // SAFETY: the caller's word.
        unsafe { (s.load_halves(p, 24), Some(s.load_halves(p.add(2), 24))) }
    }
}

pub(in crate::kernels) struct Q8_0;
impl Format for Q8_0 {
    const TYPE: Quant = Quant::Q8_0;
    const BYTES: Bytes = Bytes { signed: true, largest: 128, part: 32, scale: 1, mins: false, offset: 0 };
    const FEW: usize = 4;
    const LINES: usize = 2;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        for (y, q) in out.iter_mut().zip(&block[2..]) {
            *y = d * f32::from(*q as i8);
        }
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [68 * c + 2 + 16 * h, 68 * c + 36 + 16 * h, 0]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(_: S, _: usize, lines: [S::B; 3]) -> [S::B; 2] {
        [lines[0], lines[1]]
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        // SAFETY: passed on.
        unsafe { numbers::<_, Self>(s, rows, to, 34, Min::None) }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_32::<Self>(s, p) }
    }
}
impl Blocks for Q8_0 {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> (S::F, Option<S::F>) {
        // SAFETY: the caller's word.
        unsafe { (s.load_halves(p, 34), None) }
    }
}

pub(in crate::kernels) struct Iq4Nl;
impl Format for Iq4Nl {
    const TYPE: Quant = Quant::Iq4Nl;
    const BYTES: Bytes = Bytes { signed: true, largest: 127, part: 32, scale: 1, mins: false, offset: 0 };
    const FEW: usize = 4;
    const SPLIT: bool = true;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        nibbles(&block[2..], out, |q| d * f32::from(IQ4[usize::from(q)]));
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [18 * (2 * c + h) + 2, 0, 0]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(s: S, _: usize, lines: [S::B; 3]) -> [S::B; 2] {
        look_up(s, &IQ4, lines[0])
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        // SAFETY: passed on.
        unsafe { numbers::<_, Self>(s, rows, to, 18, Min::None) }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_64::<Self>(s, p) }
    }
}
impl Blocks for Iq4Nl {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> (S::F, Option<S::F>) {
        // SAFETY: the caller's word.
        unsafe { (s.load_halves(p, 18), None) }
    }
}

pub(in crate::kernels) struct Mxfp4;
impl Format for Mxfp4 {
    const TYPE: Quant = Quant::Mxfp4;
    const BYTES: Bytes = Bytes { signed: true, largest: 12, part: 32, scale: 1, mins: false, offset: 0 };
    const FEW: usize = 4;
    const SPLIT: bool = true;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let d = half_power(block[0]);
        nibbles(&block[1..], out, |q| d * f32::from(MXFP4[usize::from(q)]));
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [17 * (2 * c + h) + 1, 0, 0]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(s: S, _: usize, lines: [S::B; 3]) -> [S::B; 2] {
        look_up(s, &MXFP4, lines[0])
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        for j in 0..8 {
            // SAFETY: of the blocks the caller's word; `to` has as many rows.
            unsafe { s.store_f(to.d[split(j)].as_mut_ptr(), s.half_powers(rows.lines(s, 17 * j)[0])) };
        }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_64::<Self>(s, p) }
    }
}
impl Blocks for Mxfp4 {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> (S::F, Option<S::F>) {
        // SAFETY: the caller's word.
        unsafe {
            let mut exponents = [0u32; 8];
            for j in 0..8 {
                exponents[split(j)] = u32::from(*p.add(17 * j)).to_le();
            }
            (s.half_powers(s.load(exponents.as_ptr().cast())), None)
        }
    }
}
