//! AMX tiles and dot products in plain Rust, for tests: the same bits as the instructions give.

use super::{Block, Products, Tile, Unit};

pub(in crate::kernels) struct Emulated(());

impl Unit for Emulated {
    const BF16_ONLY: bool = false;

    unsafe fn new() -> Self {
        Self(())
    }

    unsafe fn multiply(&self, products: Products, block: Block) {
        let Block { a, a_step, b, b_step, steps, c, add, tokens } = block;
        let terms: &[(usize, usize)] = match products {
            Products::One => &[(0, 0)],
            Products::Three => &[(0, 0), (1, 0), (0, 1)],
            Products::Six => &[(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)],
        };
        for i in 0..tokens.div_ceil(16) {
            for j in 0..2 {
                // SAFETY: the caller's word.
                let c = unsafe { &mut *c.add(2 * i + j) };
                if !add {
                    *c = Tile::ZERO;
                }
                for step in 0..steps {
                    for (x, w) in terms {
                        // SAFETY: the caller's word.
                        unsafe { tdpbf16ps(c, &*a.add(step * a_step + 2 * x + i), &*b.add(step * b_step + 2 * w + j)) };
                    }
                }
            }
        }
    }

    unsafe fn transpose(&self, rows: [*const u8; 16], tile: &mut Tile) {
        // SAFETY: passed on.
        unsafe { transpose(rows, tile) }
    }
}

/// [`dots`](super::dots).
pub(in crate::kernels) struct Dots(());

impl Unit for Dots {
    const BF16_ONLY: bool = true;

    unsafe fn new() -> Self {
        Self(())
    }

    unsafe fn multiply(&self, _: Products, block: Block) {
        let Block { a, a_step, b, b_step, steps, c, add, tokens } = block;
        for (token, output) in (0..tokens).flat_map(|token| (0..32).map(move |output| (token, output))) {
            // SAFETY: the caller's word.
            unsafe {
                let c = &mut (*c.add(token / 16 * 2 + output / 16)).0[token % 16 * 16 + output % 16];
                let mut sum = if add { f32::from_bits(*c) } else { 0.0 };
                for (step, k) in (0..steps).flat_map(|step| (0..16).map(move |k| (step, k))) {
                    let x = (*a.add(step * a_step + token / 16)).0[token % 16 * 16 + k];
                    let w = (*b.add(step * b_step + output / 16)).0[k * 16 + output % 16];
                    // As Intel's manual describes vdpbf16ps.
                    sum = flush(flush(odd(x)).mul_add(flush(odd(w)), sum));
                    sum = flush(flush(even(x)).mul_add(flush(even(w)), sum));
                }
                *c = sum.to_bits();
            }
        }
    }

    unsafe fn transpose(&self, rows: [*const u8; 16], tile: &mut Tile) {
        // SAFETY: passed on.
        unsafe { transpose(rows, tile) }
    }
}

/// # Safety
/// As for [`Unit::transpose`].
unsafe fn transpose(rows: [*const u8; 16], tile: &mut Tile) {
    for (i, x) in tile.0.iter_mut().enumerate() {
        // SAFETY: the caller's word.
        *x = unsafe { rows[i % 16].cast::<u32>().add(i / 16).read_unaligned() };
    }
}

/// Denormals are zeros.
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}
fn even(x: u32) -> f32 {
    f32::from_bits(x << 16)
}
fn odd(x: u32) -> f32 {
    f32::from_bits(x & 0xffff_0000)
}

/// As Intel's manual describes it: denormals are zeros, in and out.
pub(super) fn tdpbf16ps(c: &mut Tile, a: &Tile, b: &Tile) {
    let (even, odd) = (|x| flush(even(x)), |x| flush(odd(x)));
    for m in 0..16 {
        for n in 0..16 {
            let mut sums = [0f32; 2];
            for k in 0..16 {
                let (a, b) = (a.0[16 * m + k], b.0[16 * k + n]);
                sums[0] = flush(even(a).mul_add(even(b), sums[0]));
                sums[1] = flush(odd(a).mul_add(odd(b), sums[1]));
            }
            let c = &mut c.0[16 * m + n];
            *c = flush(flush(f32::from_bits(*c)) + flush(sums[0] + sums[1])).to_bits();
        }
    }
}
