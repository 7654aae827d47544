//! Elements of a row as bytes, with what scales them as f32: what tiles of a matrix unit are made of.

// Loops by number: what iterators are made of is functions of their own, which a compiler may leave without the CPU's features.
#![allow(clippy::needless_range_loop)]

use super::activations::{BLOCK, split, split_16};
use super::ints::Ints;
use super::product::MAX_BYTES;
use super::{Blocks, Format, Sink, SuperBlock, group_bytes, quarters};

/// Elements that share a scale; types with longer parts have them several times.
pub(in crate::kernels) const PART: usize = 16;

/// 256 elements of a row: `d·w + m`, with d and m of the part; every NaN of them is `f32::NAN`.
///
/// Where `d·w + m` is rounded once it is what [`Format::unpack`] gives, to the bit but for the sign of a zero: the product of a binary16
/// number (11 bits) with the integer that scales a part (7) and that of an element (6 where there are both) has no more than 24 bits, so
/// it is exact in f32, and a constant that is subtracted from the integers is so here. Only where d is infinite, an infinity may be
/// NaN here.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::kernels) struct Row {
    /// Signed, or below 64.
    pub w: [u8; BLOCK],
    pub d: [f32; BLOCK / PART],
    pub m: [f32; BLOCK / PART],
}

impl Row {
    /// Nothing but zeros.
    pub const ZERO: Row = Row { w: [0; BLOCK], d: [0.0; BLOCK / PART], m: [0.0; BLOCK / PART] };

    /// 32 elements each with numbers of `values`, in which those at even places come first.
    #[inline(always)]
    fn by_32s(values: [f32; 8]) -> [f32; BLOCK / PART] {
        std::array::from_fn(|part| number(values[split(part / 2)]))
    }
}

/// `x`; one and the same NaN for all.
#[inline(always)]
fn number(x: f32) -> f32 {
    if x.is_nan() { f32::NAN } else { x }
}

/// A kernel that makes a row from blocks of up to 256 elements, and zeros where there are fewer. To call it: the CPU has its features.
pub(in crate::kernels) type Read = unsafe fn(&[u8], &mut Row);

/// The body of a [`Read`].
#[inline(always)]
pub(in crate::kernels) fn read<S: Ints, F: Format>(s: S, blocks: &[u8], to: &mut Row) {
    let whole = group_bytes::<F>();
    if blocks.len() >= whole {
        // SAFETY: there are blocks of 256 elements.
        unsafe { F::read(s, blocks.as_ptr(), to) }
    } else {
        // Filled up with blocks of scale 0.
        let mut filled = [0; MAX_BYTES];
        filled[..blocks.len()].copy_from_slice(blocks);
        // SAFETY: MAX_BYTES are enough for 256 elements of any type.
        unsafe { F::read(s, filled.as_ptr(), to) }
    }
}

/// The bytes of the elements at `p`, of types whose quarters have them in order.
///
/// # Safety
/// Blocks of 256 elements lie at `p`.
#[inline(always)]
pub(super) unsafe fn store<S: Ints, F: Format>(s: S, p: *const u8, out: &mut [u8; BLOCK]) {
    // SAFETY: the caller's word; there is room for 256 bytes.
    unsafe {
        let w = quarters::<S, F>(s, p);
        for j in 0..8 {
            s.store(out.as_mut_ptr().add(32 * j), w[j]);
        }
    }
}

/// The same of types with quarters as [`Sink::by_64`] reads them.
///
/// # Safety
/// Blocks of 256 elements lie at `p`.
#[inline(always)]
pub(super) unsafe fn store_in_order<S: Ints, F: Blocks>(s: S, p: *const u8, out: &mut [u8; BLOCK]) {
    // SAFETY: the caller's word.
    let w = unsafe { quarters::<S, F>(s, p) };
    let mut halves = [0; 32];
    for j in 0..4 {
        for half in 0..2 {
            // SAFETY: there is room for 32 bytes.
            unsafe { s.store(halves.as_mut_ptr(), w[2 * j + half]) };
            let to = &mut out[64 * j + 16 * half..];
            to[..16].copy_from_slice(&halves[..16]);
            to[32..48].copy_from_slice(&halves[16..]);
        }
    }
}

impl<S: Ints> Sink<S> for Row {
    #[inline(always)]
    unsafe fn by_256<F: SuperBlock>(&mut self, s: S, p: *const u8) {
        let (mut scales, mut mins) = ([0; 16], [0; 16]);
        // SAFETY: the block is the caller's word; there is room for 16 numbers in each.
        let by = unsafe {
            store::<S, F>(s, p, &mut self.w);
            let by = F::scales(s, p);
            s.store_w(scales.as_mut_ptr(), by.scales);
            if let Some(by) = by.mins {
                s.store_w(mins.as_mut_ptr(), by);
            }
            by
        };
        // Those of parts of 16 at even places, then those at odd ones; of parts of 32 twice all of them.
        self.d = std::array::from_fn(|part| number(by.d * f32::from(scales[split_16(part)])));
        self.m = match by.mins {
            Some(_) => std::array::from_fn(|part| number(-(by.e * f32::from(mins[split_16(part)])))),
            None if F::BYTES.offset > 0 => std::array::from_fn(|part| number(-(self.d[part] * f32::from(F::BYTES.offset)))),
            None => [-0.0; 16], // which leaves the sign of a zero as it is
        };
    }

    #[inline(always)]
    unsafe fn by_64<F: Blocks>(&mut self, s: S, p: *const u8) {
        // SAFETY: the caller's word.
        let (d, m) = unsafe {
            store_in_order::<S, F>(s, p, &mut self.w);
            F::scales(s, p)
        };
        let mut numbers = [0.0; 8];
        // SAFETY: there is room for 8 numbers.
        unsafe { s.store_f(numbers.as_mut_ptr(), d) };
        self.d = Row::by_32s(numbers);
        self.m = [-0.0; 16];
        if let Some(m) = m {
            // SAFETY: there is room for 8 numbers.
            unsafe { s.store_f(numbers.as_mut_ptr(), m) };
            self.m = Row::by_32s(numbers);
        }
    }

    #[inline(always)]
    unsafe fn by_32<F: Blocks>(&mut self, s: S, p: *const u8) {
        let mut numbers = [0.0; 8];
        // SAFETY: the blocks are the caller's word; there is room for 8 numbers.
        unsafe {
            store::<S, F>(s, p, &mut self.w);
            s.store_f(numbers.as_mut_ptr(), F::scales(s, p).0);
        }
        self.d = Row::by_32s(numbers);
        self.m = [-0.0; 16];
    }
}
