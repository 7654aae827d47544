//! Matrices in GGUF's block-quantised types, used as they lie in the file. `by_32` and `by_256` describe the blocks.

mod by_256;
mod by_32;
#[cfg(test)]
mod tests;

use super::Unpack;
use crate::format::{DType, Quant};
use half::f16;

/// A thing for each quantised type.
#[derive(Clone, Copy)]
pub(super) struct Quants<T>(pub [T; Quant::ALL.len()]);

impl<T: Copy> Quants<T> {
    pub fn of(&self, quant: Quant) -> T {
        self.0[quant as usize]
    }
}

/// A block-quantised type.
pub(super) trait Format: 'static {
    const TYPE: Quant;
    /// One block as f32, each operation rounded as the `gguf` package does it: the truth about the layout.
    fn unpack(block: &[u8], out: &mut [f32]);
}

/// Whole blocks to f32; `data` holds as many elements as `out`.
#[inline(always)]
pub(super) fn unpack<F: Format>(data: &[u8], out: &mut [f32]) {
    let dtype = DType::Quant(F::TYPE);
    for (block, out) in data.chunks_exact(dtype.block_bytes()).zip(out.chunks_exact_mut(dtype.block_elements())) {
        F::unpack(block, out);
    }
}

/// The binary16 number at `at`. By the `const` conversion: the others ask the CPU whether it has F16C but not the system whether
/// AVX registers may be used.
#[inline(always)]
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32_const()
}

/// `$f::<F>` for each format F, in the order of [`Quant::ALL`].
macro_rules! for_each_format {
    ($f:ident) => {{
        use crate::kernels::quant::formats::*;
        crate::kernels::quant::Quants([
            $f::<Q4_0>,
            $f::<Q4_1>,
            $f::<Q5_0>,
            $f::<Q5_1>,
            $f::<Q8_0>,
            $f::<Q2K>,
            $f::<Q3K>,
            $f::<Q4K>,
            $f::<Q5K>,
            $f::<Q6K>,
            $f::<Iq4Nl>,
            $f::<Iq4Xs>,
            $f::<Mxfp4>,
            $f::<Tq1_0>,
            $f::<Tq2_0>,
        ])
    }};
}
pub(super) use for_each_format;

/// The formats, by the names that [`Quant`] has for them.
pub(super) mod formats {
    pub(in crate::kernels) use super::by_32::{Iq4Nl, Mxfp4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
    pub(in crate::kernels) use super::by_256::{Iq4Xs, Q2K, Q3K, Q4K, Q5K, Q6K, Tq1_0, Tq2_0};
}

/// Plain Rust.
pub(super) const UNPACK: Quants<Unpack> = for_each_format!(unpack);
