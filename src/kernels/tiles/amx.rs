//! Intel AMX: eight tiles of 16 rows of 64 bytes.
//!
//! Two rows of two tiles of the output stay in tmm0 to tmm3 while the steps pass by, tmm4 and tmm5 are two tiles of the tokens, tmm6
//! and tmm7 two of the weights: four loads for four products. Tile contents live inside one `asm!` only, the configuration as long as
//! an [`Amx`].

use super::{Block, Products, Tile, Unit};
use crate::kernels::simd::avx512::transpose_rows;
use std::arch::asm;
use std::marker::PhantomData;

/// The tiles of this thread, configured; gives them back when dropped, so that no tile state stays behind in a thread of the host.
pub(in crate::kernels) struct Amx(PhantomData<*const ()>);

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles whole.
static WHOLE: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// One `asm!` that multiplies block by block: `$products` are pairs of a term of the tokens and one of the weights, by their
/// offset in bytes.
macro_rules! multiply {
    ($block:expr, [$($product:tt),*]) => {{
        let Block { a, a_step, b, b_step, steps, c, add, tokens } = $block;
        // SAFETY: the caller's word for the memory; an `Amx` is there, so the tiles are configured. All tiles are marked as changed.
        unsafe {
            if tokens > 16 {
                asm!(
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "test {add:e}, {add:e}", "jz 2f",
                    "tileloadd tmm0, [{c} + {row}]", "tileloadd tmm1, [{c} + {row} + 1024]",
                    "tileloadd tmm2, [{c} + {row} + 2048]", "tileloadd tmm3, [{c} + {row} + 3072]",
                    "2:",
                    $(multiply!(@two $product),)*
                    "add {a}, {a_step}", "add {b}, {b_step}", "dec {steps}", "jnz 2b",
                    "tilestored [{c} + {row}], tmm0", "tilestored [{c} + {row} + 1024], tmm1",
                    "tilestored [{c} + {row} + 2048], tmm2", "tilestored [{c} + {row} + 3072], tmm3",
                    a = inout(reg) a => _, b = inout(reg) b => _, steps = inout(reg) steps => _, c = in(reg) c,
                    a_step = in(reg) a_step * size_of::<Tile>(), b_step = in(reg) b_step * size_of::<Tile>(),
                    row = in(reg) 64usize, add = in(reg) u32::from(add),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _, options(nostack),
                );
            } else {
                asm!(
                    "tilezero tmm0", "tilezero tmm1",
                    "test {add:e}, {add:e}", "jz 2f",
                    "tileloadd tmm0, [{c} + {row}]", "tileloadd tmm1, [{c} + {row} + 1024]",
                    "2:",
                    $(multiply!(@one $product),)*
                    "add {a}, {a_step}", "add {b}, {b_step}", "dec {steps}", "jnz 2b",
                    "tilestored [{c} + {row}], tmm0", "tilestored [{c} + {row} + 1024], tmm1",
                    a = inout(reg) a => _, b = inout(reg) b => _, steps = inout(reg) steps => _, c = in(reg) c,
                    a_step = in(reg) a_step * size_of::<Tile>(), b_step = in(reg) b_step * size_of::<Tile>(),
                    row = in(reg) 64usize, add = in(reg) u32::from(add),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _, options(nostack),
                );
            }
        }
    }};
    // Tokens' term $i and weights' term $j, each a pair of tiles.
    (@two ($i:literal, $j:literal)) => {
        concat!(
            "tileloadd tmm6, [{b} + {row} + 2048 * ", $j, "]\n", "tileloadd tmm4, [{a} + {row} + 2048 * ", $i, "]\n",
            "tileloadd tmm7, [{b} + {row} + 2048 * ", $j, " + 1024]\n", "tileloadd tmm5, [{a} + {row} + 2048 * ", $i, " + 1024]\n",
            "tdpbf16ps tmm0, tmm4, tmm6\n", "tdpbf16ps tmm1, tmm4, tmm7\n",
            "tdpbf16ps tmm2, tmm5, tmm6\n", "tdpbf16ps tmm3, tmm5, tmm7",
        )
    };
    (@one ($i:literal, $j:literal)) => {
        concat!(
            "tileloadd tmm6, [{b} + {row} + 2048 * ", $j, "]\n", "tileloadd tmm4, [{a} + {row} + 2048 * ", $i, "]\n",
            "tileloadd tmm7, [{b} + {row} + 2048 * ", $j, " + 1024]\n",
            "tdpbf16ps tmm0, tmm4, tmm6\n", "tdpbf16ps tmm1, tmm4, tmm7",
        )
    };
}

impl Unit for Amx {
    const BF16_ONLY: bool = false;

    /// By the caller's word the CPU has AMX and AVX-512, and the system has given leave.
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: the caller's word; the configuration is a valid one.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &WHOLE, options(nostack, preserves_flags, readonly)) };
        Self(PhantomData)
    }

    #[inline(always)]
    unsafe fn multiply(&self, products: Products, block: Block) {
        match products {
            Products::One => multiply!(block, [(0, 0)]),
            Products::Three => multiply!(block, [(0, 0), (1, 0), (0, 1)]),
            Products::Six => multiply!(block, [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)]),
        }
    }

    #[inline(always)]
    unsafe fn transpose(&self, rows: [*const u8; 16], tile: &mut Tile) {
        // SAFETY: AVX-512 is there by the word of `new`'s caller, 64 bytes of each row by this one's.
        unsafe { transpose_rows(rows, tile.0.as_mut_ptr()) }
    }
}

impl Drop for Amx {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the tiles were configured in this thread: the value cannot leave it.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, nomem),
            )
        };
    }
}
