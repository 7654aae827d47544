//! Types whose blocks of 256 elements have one floating-point scale, and small integers to scale parts of 32 or 16 elements.
//!
//! | type | bytes of a block | element of part s |
//! |---|---|---|
//! | Q2_K | 16 × (scale 4 bits, min 4 bits), 64 × 2 bits, f16 d, f16 e | d·scale\[s\]·q − e·min\[s\] (16 parts) |
//! | Q3_K | 32 high bits, 64 × 2 bits, 16 scales of 6 bits, f16 d | d·(scale\[s\] − 32)·(q − 4) (16 parts) |
//! | Q4_K | f16 d, f16 e, 8 × (scale, min) of 6 bits, 128 × 2 nibbles | d·scale\[s\]·q − e·min\[s\] (8 parts) |
//! | Q5_K | the same, 32 × 8 high bits before the nibbles | the same |
//! | Q6_K | 128 × 2 nibbles, 64 × 4 × 2 high bits, 16 × i8 scale, f16 d | d·scale\[s\]·(q − 32) (16 parts) |
//! | IQ4_XS | f16 d, u16 and 4 bytes: 8 scales of 6 bits, 128 × 2 nibbles | d·(scale\[s\] − 32)·IQ4\[q\] (8 parts) |
//! | TQ1_0 | 48 × 5 and 4 × 4 ternary digits, f16 d | d·(q − 1) |
//! | TQ2_0 | 64 × 4 × 2 bits, f16 d | d·(q − 1) |
//!
//! Bits lie so that one vector of bytes gives several vectors of consecutive elements: 32 bytes of nibbles are 32 elements
//! below and the next 32 above, 32 bytes of 2-bit fields are 4 × 32 elements; each `unpack` says it in code.

use super::activations::split_16;
use super::by_32::{IQ4, both_nibbles, look_up};
use super::ints::{Ints, Lanewise};
use super::numbers::{Numbers, Rows};
use super::product::Scales;
use super::{Bytes, Format, Sink, SuperBlock, f16_at};
use crate::format::Quant;

/// The 8 scales and 8 mins of Q4_K and Q5_K in their 12 bytes: the first four have their 6 bits in bytes 0..4 and 4..8, the
/// others their lower 4 in 8..12 and their upper 2 above the first four's.
#[inline(always)]
fn scales_and_mins(bytes: &[u8]) -> [(u8, u8); 8] {
    std::array::from_fn(|j| match j {
        0..4 => (bytes[j] & 63, bytes[j + 4] & 63),
        _ => (bytes[j + 4] & 15 | bytes[j - 4] >> 6 << 4, bytes[j + 4] >> 4 | bytes[j] >> 6 << 4),
    })
}

/// The 16 scales of Q3_K, 0..64, in their 12 bytes: nibbles, then the upper two bits.
#[inline(always)]
fn q3_scales(bytes: &[u8]) -> [u8; 16] {
    std::array::from_fn(|s| bytes[s % 8] >> (s / 8 * 4) & 15 | (bytes[8 + s % 4] >> (s / 4 * 2) & 3) << 4)
}

/// The scales and mins of [`scales_and_mins`], a byte each.
#[inline(always)]
pub(super) fn packed_scales_and_mins([a, b, c]: [u32; 3]) -> (u64, u64) {
    const SIX: u32 = 0x3f3f_3f3f;
    const FOUR: u32 = 0x0f0f_0f0f;
    const TWO: u32 = 0x3030_3030;
    let join = |first: u32, last: u32| u64::from(first) | u64::from(last) << 32;
    (join(a & SIX, c & FOUR | a >> 2 & TWO), join(b & SIX, c >> 4 & FOUR | b >> 2 & TWO))
}

/// The scales of [`q3_scales`], a byte each.
#[inline(always)]
fn packed_q3_scales([a, b, c]: [u32; 3]) -> [u64; 2] {
    const FOUR: u32 = 0x0f0f_0f0f;
    const TWO: u32 = 0x3030_3030;
    let join = |first: u32, last: u32| u64::from(first) | u64::from(last) << 32;
    [join(a & FOUR | c << 4 & TWO, b & FOUR | c << 2 & TWO), join(a >> 4 & FOUR | c & TWO, b >> 4 & FOUR | c >> 2 & TWO)]
}

/// The 8 scales of IQ4_XS, 0..64, a byte each: nibbles from the least significant of `low` on, and pairs of bits likewise.
#[inline(always)]
fn iq4_scales(high: u16, low: u32) -> u64 {
    let low = u64::from(low);
    let low = (low | low << 16) & 0x0000_ffff_0000_ffff;
    let low = (low | low << 8) & 0x00ff_00ff_00ff_00ff;
    let low = (low | low << 4) & LOW_NIBBLES;
    let high = u64::from(high);
    let high = (high | high << 24) & 0x0000_00ff_0000_00ff;
    let high = (high | high << 12) & 0x000f_000f_000f_000f;
    let high = (high | high << 6) & 0x0303_0303_0303_0303;
    low | high << 4
}

const LOW_NIBBLES: u64 = 0x0f0f_0f0f_0f0f_0f0f;

/// # Safety
/// 8 bytes lie at `p`.
#[inline(always)]
unsafe fn load_u64(p: *const u8) -> u64 {
    // SAFETY: the caller's word.
    u64::from_le(unsafe { p.cast::<u64>().read_unaligned() })
}

/// # Safety
/// 4 bytes lie at `p`.
#[inline(always)]
pub(super) unsafe fn load_u32(p: *const u8) -> u32 {
    // SAFETY: the caller's word.
    u32::from_le(unsafe { p.cast::<u32>().read_unaligned() })
}

/// Elements of 2 bits: the lowest ones of bytes and the next for quarters at even places, the others for those at odd ones.
#[inline(always)]
fn two_bits<S: Lanewise>(s: S, bytes: S::B, c: usize) -> [S::B; 2] {
    match c % 2 {
        0 => [s.right::<0>(bytes, 3), s.right::<2>(bytes, 3)],
        _ => [s.right::<4>(bytes, 3), s.right::<6>(bytes, 3)],
    }
}

/// The scales of a block of Q4_K or Q5_K.
///
/// # Safety
/// The block's first 16 bytes lie at `p`.
#[inline(always)]
unsafe fn eight_scales<S: Ints>(s: S, p: *const u8) -> Scales<S> {
    // SAFETY: the caller's word.
    unsafe {
        let [scales, mins] = s.load_six_bits(p);
        Scales { d: s.load_half(p), scales, e: s.load_half(p.add(2)), mins: Some(mins) }
    }
}

/// [`Ints::pick`]'s indices for byte J of every four, twice: as the lower bytes of 16 bits, or as the upper ones.
const fn twice<const J: usize>(upper: bool) -> [u8; 16] {
    let mut indices = [u8::MAX; 16];
    let mut i = 0;
    while i < 8 {
        indices[2 * i + upper as usize] = (i / 2 * 4 + J) as u8;
        i += 1;
    }
    indices
}

/// The same for bytes J and K of every four.
const fn two<const J: usize, const K: usize>() -> [u8; 16] {
    let mut indices = [u8::MAX; 16];
    let mut i = 0;
    while i < 8 {
        indices[2 * i] = (i / 2 * 4 + [J, K][i % 2]) as u8;
        i += 1;
    }
    indices
}

/// The numbers of Q4_K and Q5_K: [`packed_scales_and_mins`] in lanes.
///
/// # Safety
/// The first 16 bytes of blocks lie at `rows`.
#[inline(always)]
unsafe fn eight_numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
    // SAFETY: of the blocks the caller's word; `to` has as many rows.
    unsafe {
        let [halves, a, b, c] = rows.lines(s, 0);
        let scales = [s.right::<0>(a, 63), s.or(s.right::<0>(c, 15), s.right::<2>(a, 0x30))];
        let mins = [s.right::<0>(b, 63), s.or(s.right::<4>(c, 15), s.right::<2>(b, 0x30))];
        each!(2, I => {
            each!(4, J => {
                let twice = s.pick(scales[I], &const { twice::<J>(false) });
                s.store_w(to.scales[4 * I + J].as_mut_ptr().cast(), s.words(twice));
            });
            s.store_w(to.mins[2 * I].as_mut_ptr().cast(), s.words(s.pick(mins[I], &const { two::<0, 1>() })));
            s.store_w(to.mins[2 * I + 1].as_mut_ptr().cast(), s.words(s.pick(mins[I], &const { two::<2, 3>() })));
        });
        let [d, e] = s.both_halves(halves);
        s.store_f(to.d[0].as_mut_ptr(), d);
        s.store_f(to.d[1].as_mut_ptr(), e);
    }
}

pub(in crate::kernels) struct Q2K;
impl Format for Q2K {
    const TYPE: Quant = Quant::Q2K;
    const BYTES: Bytes = Bytes { signed: false, largest: 3, part: 16, scale: 15, mins: true, offset: 0 };
    const FEW: usize = 8;
    const QUARTERS: usize = 2;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let (scales, qs) = (&block[..16], &block[16..80]);
        let (d, e) = (f16_at(block, 80), f16_at(block, 82));
        for (s, out) in out.chunks_exact_mut(16).enumerate() {
            let (d, m) = (d * f32::from(scales[s] & 15), e * f32::from(scales[s] >> 4));
            // Part s is half s % 2 of 32 elements, which are bits 2 · (s / 2 % 4) of half s / 8 of the bytes.
            let qs = &qs[s / 8 * 32 + s % 2 * 16..][..16];
            for (y, q) in out.iter_mut().zip(qs) {
                *y = d * f32::from(q >> (s / 2 % 4 * 2) & 3) - m;
            }
        }
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [16 + c / 2 * 32 + 16 * h, 0, 0]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(s: S, c: usize, lines: [S::B; 3]) -> [S::B; 2] {
        two_bits(s, lines[0], c)
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        // SAFETY: of the blocks the caller's word; `to` has as many rows.
        unsafe {
            let bytes = rows.lines(s, 0);
            each!(4, I => {
                let [scales, mins] = both_nibbles(s, bytes[I]);
                each!(4, J => {
                    let twice = s.pick(scales, &const { twice::<J>(false) });
                    s.store_w(to.scales[split_16(4 * I + J)].as_mut_ptr().cast(), s.words(twice));
                });
                s.store_w(to.mins[I].as_mut_ptr().cast(), s.words(s.pick(mins, &const { two::<0, 2>() })));
                s.store_w(to.mins[I + 4].as_mut_ptr().cast(), s.words(s.pick(mins, &const { two::<1, 3>() })));
            });
            let [d, e] = s.both_halves(rows.lines(s, 68)[3]);
            s.store_f(to.d[0].as_mut_ptr(), d);
            s.store_f(to.d[1].as_mut_ptr(), e);
        }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_256::<Self>(s, p) }
    }
}
impl SuperBlock for Q2K {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> Scales<S> {
        // SAFETY: the caller's word.
        unsafe {
            let (a, b) = (load_u64(p), load_u64(p.add(8)));
            Scales {
                d: s.load_half(p.add(80)),
                scales: s.widen_split([a & LOW_NIBBLES, b & LOW_NIBBLES]),
                e: s.load_half(p.add(82)),
                mins: Some(s.widen_split([a >> 4 & LOW_NIBBLES, b >> 4 & LOW_NIBBLES])),
            }
        }
    }
}

pub(in crate::kernels) struct Q3K;
impl Format for Q3K {
    const TYPE: Quant = Quant::Q3K;
    // Elements are taken 8 times as large, and d as much smaller, so that there is one offset for all types.
    const BYTES: Bytes = Bytes { signed: false, largest: 56, part: 16, scale: 32, mins: false, offset: 32 };
    const FEW: usize = 4;
    const QUARTERS: usize = 2;
    const LINES: usize = 2;
    const SHARED: bool = true;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let (high, qs, scales, d) = (&block[..32], &block[32..96], q3_scales(&block[96..108]), f16_at(block, 108));
        for (s, out) in out.chunks_exact_mut(16).enumerate() {
            let d = d * (f32::from(scales[s]) - 32.0);
            let (high, qs) = (&high[s % 2 * 16..][..16], &qs[s / 8 * 32 + s % 2 * 16..][..16]);
            for ((y, q), high) in out.iter_mut().zip(qs).zip(high) {
                let q = q >> (s / 2 % 4 * 2) & 3 | (high >> (s / 2) & 1) << 2;
                *y = d * (f32::from(q) - 4.0);
            }
        }
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [16 * h, 32 + c / 2 * 32 + 16 * h, 0]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(s: S, c: usize, [high, low, _]: [S::B; 3]) -> [S::B; 2] {
        let low = match c % 2 {
            0 => [s.left::<3>(low, 24), s.left::<1>(low, 24)],
            _ => [s.right::<1>(low, 24), s.right::<3>(low, 24)],
        };
        let high = s.down(high, 2 * c);
        [s.or(low[0], s.left::<5>(high, 32)), s.or(low[1], s.left::<4>(high, 32))]
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        // SAFETY: of the blocks the caller's word; `to` has as many rows.
        unsafe {
            // `packed_q3_scales` in lanes.
            let [_, a, b, c] = rows.lines(s, 92);
            let scales = [
                s.or(s.right::<0>(a, 15), s.left::<4>(c, 48)),
                s.or(s.right::<0>(b, 15), s.left::<2>(c, 48)),
                s.or(s.right::<4>(a, 15), s.right::<0>(c, 48)),
                s.or(s.right::<4>(b, 15), s.right::<2>(c, 48)),
            ];
            each!(4, I => {
                each!(4, J => {
                    let twice = s.add_w(s.words(s.pick(scales[I], &const { twice::<J>(false) })), s.splat_w(-32));
                    s.store_w(to.scales[split_16(4 * I + J)].as_mut_ptr().cast(), twice);
                });
            });
            let [_, d] = s.both_halves(rows.lines(s, 94)[3]);
            s.store_f(to.d[0].as_mut_ptr(), s.mul(d, s.splat_f(1.0 / 8.0)));
        }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_256::<Self>(s, p) }
    }
}
impl SuperBlock for Q3K {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> Scales<S> {
        // SAFETY: the caller's word.
        unsafe {
            let scales = packed_q3_scales([load_u32(p.add(96)), load_u32(p.add(100)), load_u32(p.add(104))]);
            let scales = s.sub_w(s.widen_split(scales), s.splat_w(32));
            Scales { d: s.load_half(p.add(108)) / 8.0, scales, e: 0.0, mins: None }
        }
    }
}

pub(in crate::kernels) struct Q4K;
impl Format for Q4K {
    const TYPE: Quant = Quant::Q4K;
    const BYTES: Bytes = Bytes { signed: false, largest: 15, part: 32, scale: 63, mins: true, offset: 0 };
    const FEW: usize = 8;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let (d, e, scales, qs) = (f16_at(block, 0), f16_at(block, 2), scales_and_mins(&block[4..16]), &block[16..]);
        for (s, out) in out.chunks_exact_mut(32).enumerate() {
            let (d, m) = (d * f32::from(scales[s].0), e * f32::from(scales[s].1));
            for (y, q) in out.iter_mut().zip(&qs[s / 2 * 32..]) {
                *y = d * f32::from(q >> (s % 2 * 4) & 15) - m;
            }
        }
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [16 + 32 * c + 16 * h, 0, 0]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(s: S, _: usize, lines: [S::B; 3]) -> [S::B; 2] {
        both_nibbles(s, lines[0])
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        // SAFETY: passed on.
        unsafe { eight_numbers(s, rows, to) }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_256::<Self>(s, p) }
    }
}
impl SuperBlock for Q4K {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> Scales<S> {
        // SAFETY: the caller's word.
        unsafe { eight_scales(s, p) }
    }
}

pub(in crate::kernels) struct Q5K;
impl Format for Q5K {
    const TYPE: Quant = Quant::Q5K;
    const BYTES: Bytes = Bytes { signed: false, largest: 31, part: 32, scale: 63, mins: true, offset: 0 };
    const FEW: usize = 4;
    const LINES: usize = 2;
    const SHARED: bool = true;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let (d, e, scales) = (f16_at(block, 0), f16_at(block, 2), scales_and_mins(&block[4..16]));
        let (high, qs) = (&block[16..48], &block[48..]);
        for (s, out) in out.chunks_exact_mut(32).enumerate() {
            let (d, m) = (d * f32::from(scales[s].0), e * f32::from(scales[s].1));
            for ((y, q), high) in out.iter_mut().zip(&qs[s / 2 * 32..]).zip(high) {
                *y = d * f32::from(q >> (s % 2 * 4) & 15 | (high >> s & 1) << 4) - m;
            }
        }
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [16 + 16 * h, 48 + 32 * c + 16 * h, 0]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(s: S, c: usize, lines: [S::B; 3]) -> [S::B; 2] {
        let (high, low) = (s.down(lines[0], 2 * c), both_nibbles(s, lines[1]));
        [s.or(low[0], s.left::<4>(high, 16)), s.or(low[1], s.left::<3>(high, 16))]
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        // SAFETY: passed on.
        unsafe { eight_numbers(s, rows, to) }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_256::<Self>(s, p) }
    }
}
impl SuperBlock for Q5K {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> Scales<S> {
        // SAFETY: the caller's word.
        unsafe { eight_scales(s, p) }
    }
}

pub(in crate::kernels) struct Q6K;
impl Format for Q6K {
    const TYPE: Quant = Quant::Q6K;
    const BYTES: Bytes = Bytes { signed: false, largest: 63, part: 16, scale: 128, mins: false, offset: 32 };
    const FEW: usize = 4;
    const FEW_WIDE: usize = 8;
    const QUARTERS: usize = 2;
    const LINES: usize = 3;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], f16_at(block, 208));
        for (v, out) in out.chunks_exact_mut(32).enumerate() {
            // Each half of the block: 4 vectors of 32 from 64 bytes of nibbles and 32 bytes of pairs.
            let (half, v4) = (v / 4, v % 4);
            let (low, high) = (&low[half * 64 + v4 % 2 * 32..][..32], &high[half * 32..][..32]);
            for (i, (y, (low, high))) in out.iter_mut().zip(low.iter().zip(high)).enumerate() {
                let q = low >> (v4 / 2 * 4) & 15 | (high >> (v4 * 2) & 3) << 4;
                *y = d * f32::from(scales[2 * v + i / 16] as i8) * (f32::from(q) - 32.0);
            }
        }
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [c / 2 * 64 + 16 * h, c / 2 * 64 + 32 + 16 * h, 128 + c / 2 * 32 + 16 * h]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(s: S, c: usize, lines: [S::B; 3]) -> [S::B; 2] {
        let [a, b, high] = lines;
        match c % 2 {
            0 => [s.or(s.right::<0>(a, 15), s.left::<4>(high, 48)), s.or(s.right::<0>(b, 15), s.left::<2>(high, 48))],
            _ => [s.or(s.right::<4>(a, 15), s.right::<0>(high, 48)), s.or(s.right::<4>(b, 15), s.right::<2>(high, 48))],
        }
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        // SAFETY: of the blocks the caller's word; `to` has as many rows.
        unsafe {
            let scales = rows.lines(s, 192);
            each!(4, I => {
                each!(4, J => {
                    let twice = s.upper(s.words(s.pick(scales[I], &const { twice::<J>(true) })));
                    s.store_w(to.scales[split_16(4 * I + J)].as_mut_ptr().cast(), twice);
                });
            });
            let [_, d] = s.both_halves(rows.lines(s, 194)[3]);
            s.store_f(to.d[0].as_mut_ptr(), d);
        }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_256::<Self>(s, p) }
    }
}
impl SuperBlock for Q6K {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> Scales<S> {
        // SAFETY: the caller's word.
        unsafe {
            let scales = s.widen_split([load_u64(p.add(192)), load_u64(p.add(200))]);
            Scales { d: s.load_half(p.add(208)), scales, e: 0.0, mins: None }
        }
    }
}

pub(in crate::kernels) struct Iq4Xs;
impl Format for Iq4Xs {
    const TYPE: Quant = Quant::Iq4Xs;
    const BYTES: Bytes = Bytes { signed: true, largest: 127, part: 32, scale: 32, mins: false, offset: 0 };
    const FEW: usize = 4;
    const SPLIT: bool = true;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let (d, high, low, qs) = (f16_at(block, 0), u16::from_le_bytes([block[2], block[3]]), &block[4..8], &block[8..]);
        for (s, out) in out.chunks_exact_mut(32).enumerate() {
            let scale = low[s / 2] >> (s % 2 * 4) & 15 | ((high >> (2 * s) & 3) as u8) << 4;
            let d = d * (f32::from(scale) - 32.0);
            let (below, above) = out.split_at_mut(16);
            for ((q, below), above) in qs[s * 16..][..16].iter().zip(below).zip(above) {
                *below = d * f32::from(IQ4[usize::from(q & 15)]);
                *above = d * f32::from(IQ4[usize::from(q >> 4)]);
            }
        }
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [8 + 16 * (2 * c + h), 0, 0]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(s: S, _: usize, lines: [S::B; 3]) -> [S::B; 2] {
        look_up(s, &IQ4, lines[0])
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        // SAFETY: of the blocks the caller's word; `to` has as many rows.
        unsafe {
            let [first, low, ..] = rows.lines(s, 0);
            // Of scale j the lower 4 bits are nibble j of `low`; the upper 2 are in a nibble of bytes 2 and 3 of `first` with those of another.
            let (low, high) = (both_nibbles(s, low), both_nibbles(s, first));
            let high = each!(2, I => [s.left::<4>(high[I], 0x30), s.left::<2>(high[I], 0x30)]);
            each!(8, J => {
                let low = s.pick(low[J % 2], &const { twice::<{ J / 2 }>(false) });
                let high = s.pick(high[J / 2 % 2][J % 2], &const { twice::<{ 2 + J / 4 }>(false) });
                let scale = s.add_w(s.words(s.or(low, high)), s.splat_w(-32));
                s.store_w(to.scales[J].as_mut_ptr().cast(), scale);
            });
            s.store_f(to.d[0].as_mut_ptr(), s.both_halves(first)[0]);
        }
    }
    // Not that of the lines above: the elements are in order.
    #[inline(always)]
    unsafe fn quarter<S: Ints>(s: S, p: *const u8, c: usize) -> [S::B; 2] {
        // SAFETY: the caller's word.
        unsafe {
            let w = |at: usize| s.lookup(&IQ4, s.load_nibbles(p.add(8 + 16 * at)));
            [w(2 * c), w(2 * c + 1)]
        }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_256::<Self>(s, p) }
    }
}
impl SuperBlock for Iq4Xs {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> Scales<S> {
        // SAFETY: the caller's word.
        unsafe {
            let high = u16::from_le(p.add(2).cast::<u16>().read_unaligned());
            let scales = s.sub_w(s.widen_twice(iq4_scales(high, load_u32(p.add(4)))), s.splat_w(32));
            Scales { d: s.load_half(p), scales, e: 0.0, mins: None }
        }
    }
}

/// The digit of place `3^n` (n = 0 is the first) of a byte that holds five digits as the fraction `Σ digit[n]·3^(4−n) / 243`,
/// rounded up to 1/256.
#[inline(always)]
fn digit(byte: u8, n: usize) -> u8 {
    ((u16::from(byte.wrapping_mul(POWERS_OF_3[n])) * 3) >> 8) as u8
}

const POWERS_OF_3: [u8; 5] = [1, 3, 9, 27, 81];

/// By what the byte of each element is multiplied, for its digit to come first: of 32 elements each.
const PLACES: [[u8; 32]; 8] = {
    let mut powers = [[0; 32]; 8];
    let mut i = 0;
    while i < 256 {
        powers[i / 32][i % 32] = POWERS_OF_3[ternary_place(i).1];
        i += 1;
    }
    powers
};

/// The byte and the place of the digit of element `i`: digit n of 32 bytes, for each n, then of 16 bytes; four digits of the last 4.
#[inline(always)]
const fn ternary_place(i: usize) -> (usize, usize) {
    match i {
        0..160 => (i % 32, i / 32),
        160..240 => (32 + i % 16, (i - 160) / 16),
        _ => (48 + i % 4, (i - 240) / 4),
    }
}

pub(in crate::kernels) struct Tq1_0;
impl Format for Tq1_0 {
    const TYPE: Quant = Quant::Tq1_0;
    const BYTES: Bytes = Bytes { signed: false, largest: 3, part: 32, scale: 1, mins: true, offset: 0 };
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 52);
        for (i, y) in out.iter_mut().enumerate() {
            let (byte, n) = ternary_place(i);
            *y = d * (f32::from(digit(block[byte], n)) - 1.0);
        }
    }
    #[inline(always)]
    unsafe fn quarter<S: Ints>(s: S, p: *const u8, c: usize) -> [S::B; 2] {
        // SAFETY: the caller's word: bytes 0 to 52 are digits.
        unsafe {
            let four = [p.add(48).cast::<[u8; 4]>().read_unaligned(); 4];
            let bytes = match c {
                0 | 1 => [s.load(p); 2],
                2 => [s.load(p), s.load_two(p.add(32), p.add(32))],
                _ => [s.load_two(p.add(32), p.add(32)), s.load_two(p.add(32), four.as_ptr().cast())],
            };
            each!(2, V => s.digits(bytes[V], &PLACES[2 * c + V]))
        }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_256::<Self>(s, p) }
    }
}
impl SuperBlock for Tq1_0 {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> Scales<S> {
        // SAFETY: the caller's word.
        unsafe {
            let (d, one) = (s.load_half(p.add(52)), s.splat_w(1));
            Scales { d, scales: one, e: d, mins: Some(one) }
        }
    }
}

pub(in crate::kernels) struct Tq2_0;
impl Format for Tq2_0 {
    const TYPE: Quant = Quant::Tq2_0;
    const BYTES: Bytes = Bytes { signed: false, largest: 3, part: 32, scale: 1, mins: true, offset: 0 };
    const FEW: usize = 8;
    const QUARTERS: usize = 2;
    #[inline(always)]
    fn unpack(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 64);
        for (v, out) in out.chunks_exact_mut(32).enumerate() {
            for (y, q) in out.iter_mut().zip(&block[v / 4 * 32..]) {
                *y = d * (f32::from(q >> (v % 4 * 2) & 3) - 1.0);
            }
        }
    }
    #[inline(always)]
    fn lines(c: usize, h: usize) -> [usize; 3] {
        [c / 2 * 32 + 16 * h, 0, 0]
    }
    #[inline(always)]
    fn elements<S: Lanewise>(s: S, c: usize, lines: [S::B; 3]) -> [S::B; 2] {
        two_bits(s, lines[0], c)
    }
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(s: S, rows: Rows, to: &mut Numbers) {
        // SAFETY: of the blocks the caller's word; `to` has as many rows.
        unsafe {
            each!(8, J => s.store_w(to.scales[J].as_mut_ptr().cast(), s.splat_w(1)));
            each!(4, J => s.store_w(to.mins[J].as_mut_ptr().cast(), s.splat_w(1)));
            let [_, d] = s.both_halves(rows.lines(s, 50)[3]);
            s.store_f(to.d[0].as_mut_ptr(), d);
            s.store_f(to.d[1].as_mut_ptr(), d);
        }
    }
    #[inline(always)]
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>) {
        // SAFETY: the caller's word.
        unsafe { to.by_256::<Self>(s, p) }
    }
}
impl SuperBlock for Tq2_0 {
    #[inline(always)]
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> Scales<S> {
        // SAFETY: the caller's word.
        unsafe {
            let (d, one) = (s.load_half(p.add(64)), s.splat_w(1));
            Scales { d, scales: one, e: d, mins: Some(one) }
        }
    }
}
