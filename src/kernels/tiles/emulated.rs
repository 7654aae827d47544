//! AMX tiles in plain Rust, for tests: the same bits as the instruction gives.

use super::{Block, Products, Tile, Unit};

pub(in crate::kernels) struct Emulated(());

impl Unit for Emulated {
    unsafe fn new() -> Self {
        Self(())
    }

    unsafe fn multiply(&self, products: Products, block: Block) {
        let Block { a, a_step, b, b_step, steps, c, add, two } = block;
        let terms: &[(usize, usize)] = match products {
            Products::One => &[(0, 0)],
            Products::Three => &[(0, 0), (1, 0), (0, 1)],
            Products::Six => &[(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)],
        };
        for i in 0..1 + usize::from(two) {
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
        for (i, x) in tile.0.iter_mut().enumerate() {
            // SAFETY: the caller's word.
            *x = unsafe { rows[i % 16].cast::<u32>().add(i / 16).read_unaligned() };
        }
    }
}

/// As Intel's manual describes it: denormals are zeros, in and out.
fn tdpbf16ps(c: &mut Tile, a: &Tile, b: &Tile) {
    let flush = |x: f32| if x.is_subnormal() { 0f32.copysign(x) } else { x };
    let even = |x: u32| flush(f32::from_bits(x << 16));
    let odd = |x: u32| flush(f32::from_bits(x & 0xffff_0000));
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
