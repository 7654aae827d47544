//! Matrices in GGUF's block-quantised types, used as they lie in the file.
//!
//! | module | subject |
//! |---|---|
//! | `by_32`, `by_256` | the types: what is in a block, to f32, and to what the products take |
//! | `activations` | activations in 8 bits |
//! | `product` | the product of the two for one token, of some types for two: one body for all types and instruction sets |
//! | `few`, `many` | the same for a few tokens and for more, with the same bits |
//! | `numbers` | what scales rows side by side, for both |
//! | `row` | rows for the matrix units |
//! | `ints` | vectors of small integers of each instruction set |
//! | `pack` | from f32 to blocks, while loading or to a file |

/// `[e, e, …]` with `J` in them as the constants 0, 1 and so on, 2 to 8 of them. Not a closure: one would be a function of its own,
/// without the CPU's features.
macro_rules! each {
    (2, $J:ident => $e:expr) => {
        each!($J => $e, 0 1)
    };
    (3, $J:ident => $e:expr) => {
        each!($J => $e, 0 1 2)
    };
    (4, $J:ident => $e:expr) => {
        each!($J => $e, 0 1 2 3)
    };
    (8, $J:ident => $e:expr) => {
        each!($J => $e, 0 1 2 3 4 5 6 7)
    };
    ($J:ident => $e:expr, $($j:literal)*) => {
        [$({
            const $J: usize = $j;
            $e
        }),*]
    };
}

pub(super) mod activations;
mod by_256;
mod by_32;
mod few;
pub(super) mod ints;
pub(super) mod many;
pub(super) mod numbers;
pub(super) mod pack;
pub(super) mod product;
pub(super) mod row;
#[cfg(test)]
pub(super) mod tests;

use super::Unpack;
use super::attention::bytes;
use crate::format::{DType, Quant};
use crate::threads::ColumnsMut;
use activations::{Activations, BLOCK, MAX_FACTOR, Scaling};
use half::f16;
use ints::{Ints, Lanewise};
use numbers::{Numbers, Rows};
use product::Scales;

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

    /// What its blocks are as bytes.
    const BYTES: Bytes;

    /// Up to how many tokens `few` takes, which needs what follows up to `numbers`; 0 where it does not take the type.
    const FEW: usize = 0;
    /// The same with vectors of 16 rows.
    const FEW_WIDE: usize = if Self::FEW > 0 { few::MOST } else { 0 };
    /// Quarters whose elements lie in the same lines: 1, or 2 that follow each other.
    const QUARTERS: usize = 1;
    /// Whether the two vectors of [`Format::elements`] are the halves of the 32 elements that a line is of; else the first is of 32 elements, and the
    /// last of the next 32.
    const SPLIT: bool = false;
    /// Whether what [`Format::elements`] gives are the lower four bits of five, of which the last are in [`Numbers::fifth`].
    const FIVE_BITS: bool = false;
    /// How many lines there are, 1 to 3.
    const LINES: usize = 1;
    /// Whether the first of them is the same for all quarters.
    const SHARED: bool = false;
    /// Where the lines of 16 bytes are that hold the elements of half `h` of quarter `c` of the 256 in the blocks at 0: the first `LINES`.
    #[inline(always)]
    fn lines(_c: usize, _h: usize) -> [usize; 3] {
        [0; 3]
    }
    /// Elements of quarter `c` from its lines, those of both halves in a vector's halves, or from a quad of each of several rows' lines: byte by byte.
    #[inline(always)]
    fn elements<S: Lanewise>(_: S, _c: usize, [first, last, _]: [S::B; 3]) -> [S::B; 2] {
        [first, last]
    }
    /// Elements 64·c to 64·c + 64 of the 256 in the blocks at `p`, in the order that [`Format::read`] says. Few at once, so that no
    /// more than those in use are in registers.
    ///
    /// # Safety
    /// Blocks of 256 elements lie at `p`, and c < 4.
    #[inline(always)]
    unsafe fn quarter<S: Ints>(s: S, p: *const u8, c: usize) -> [S::B; 2] {
        let (first, last) = (Self::lines(c, 0), Self::lines(c, 1));
        // SAFETY: the lines are in the blocks.
        let lines = unsafe {
            each!(3, L => {
                let line = if L < Self::LINES { L } else { 0 };
                if last[line] == first[line] + 16 {
                    s.load(p.add(first[line]))
                } else {
                    s.load_two(p.add(first[line]), p.add(last[line]))
                }
            })
        };
        Self::elements(s, c, lines)
    }

    /// What scales the blocks of 256 elements at `rows`.
    ///
    /// # Safety
    /// They lie there.
    #[inline(always)]
    unsafe fn numbers<S: Lanewise>(_: S, _rows: Rows, _to: &mut Numbers) {}

    /// 256 elements of a row, to the function of `to` that is for this type.
    ///
    /// # Safety
    /// Blocks of 256 elements lie at `p`.
    unsafe fn read<S: Ints>(s: S, p: *const u8, to: &mut impl Sink<S>);
}

/// A type with blocks of 256 elements, parts of which are scaled by integers.
pub(super) trait SuperBlock: Format {
    /// What scales the block at `p`.
    ///
    /// # Safety
    /// It lies there.
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> Scales<S>;
}

/// A type with blocks of 32 elements.
pub(super) trait Blocks: Format {
    /// d and m of 8 blocks from `p` on, those at even places first.
    ///
    /// # Safety
    /// They lie there.
    unsafe fn scales<S: Ints>(s: S, p: *const u8) -> (S::F, Option<S::F>);
}

/// All of [`Format::quarter`].
///
/// # Safety
/// Blocks of 256 elements lie at `p`.
#[inline(always)]
unsafe fn quarters<S: Ints, F: Format>(s: S, p: *const u8) -> [S::B; 8] {
    // SAFETY: the caller's word.
    let [[a, b], [c, d], [e, f], [g, h]] = unsafe { each!(4, C => F::quarter(s, p, C)) };
    [a, b, c, d, e, f, g, h]
}

/// The integers of a type, as [`Format::read`] gives them.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    /// Whether they are signed; if not, they are below 64.
    signed: bool,
    /// The largest magnitude.
    largest: u8,
    /// Elements that share a scale.
    part: usize,
    /// The largest magnitude of an integer that scales a part; 1 if parts have none.
    scale: u8,
    /// Whether parts have a minimum, which is added to all elements.
    mins: bool,
    /// What is subtracted from every integer instead, [`many::OFFSET`]; or 0. The largest magnitude of what is left then.
    offset: u8,
}

impl Bytes {
    /// How many sums of two products with activations fit into 16 bits, less the offset where there is one.
    const fn fits(self) -> usize {
        let largest = if self.offset > 0 { many::OFFSET as usize } else { self.largest as usize };
        i16::MAX as usize / (2 * 127 * largest)
    }
    /// Into how many integers the products of 256 elements with all that scales them are summed, so that none passes 2^31.
    const fn sums(self) -> usize {
        let largest = if self.offset > 0 { self.offset } else { self.largest } as usize;
        let sum = BLOCK * 127 * largest * self.scale as usize * MAX_FACTOR as usize;
        assert!(sum < 2 << 31);
        if sum < 1 << 31 { 1 } else { 2 }
    }
}

/// Where the 256 elements of a row of type F at `p` go: in one of three ways, by what scales them and how their bytes are ordered.
///
/// # Safety
/// To call any of these: blocks of 256 elements lie at `p`.
pub(super) trait Sink<S: Ints> {
    /// Weights `d·scales[s]·(w − offset) − e·mins[s]`, in order.
    unsafe fn by_256<F: SuperBlock>(&mut self, s: S, p: *const u8);
    /// Weights `d[j]·w + m[j]`, j being the number of the 32 that an element is of. Quarters have of two 32s the first 16 elements of both,
    /// then the last 16 of both.
    unsafe fn by_64<F: Blocks>(&mut self, s: S, p: *const u8);
    /// Weights `d[j]·w`, in order.
    unsafe fn by_32<F: Blocks>(&mut self, s: S, p: *const u8);
}

/// A product kernel, with scratch of [`many::scratch_len`]. To call it: the CPU has its features, and the product has passed
/// [`Product::check`].
type Matmul = unsafe fn(&Product<'_>, &mut [f32], &mut ColumnsMut<'_>);
/// From f32 to 8 bits. To call it: the CPU has its features.
type Quantise = unsafe fn(&[f32], usize, Scaling, &mut ColumnsMut<'_, Activations>);

/// What is written in vectors of integers: products with a quantised [`Layout::OutIn`](super::Layout::OutIn) matrix, what makes the activations for
/// them, and attention to keys and values in 8 bits.
#[derive(Clone, Copy)]
pub(super) struct Products {
    pub quantise: Quantise,
    pub matmul: Quants<Matmul>,
    pub bytes: bytes::Functions,
}

/// What to multiply: `out[t, c] = Σ_k w[first + c, k] · x[t, k]`.
pub(super) struct Product<'a> {
    /// `n_out * n_in` elements.
    pub w: &'a [u8],
    pub n_out: usize,
    pub n_in: usize,
    /// The first output computed.
    pub first: usize,
    /// `[n_in.div_ceil(BLOCK), out.rows()]`
    pub x: &'a [Activations],
}

/// Bytes of 256 elements.
const fn group_bytes<F: Format>() -> usize {
    let dtype = DType::Quant(F::TYPE);
    BLOCK / dtype.block_elements() * dtype.block_bytes()
}

impl Product<'_> {
    /// Bytes of a row of `w`.
    const fn row_bytes<F: Format>(&self) -> usize {
        let dtype = DType::Quant(F::TYPE);
        self.n_in / dtype.block_elements() * dtype.block_bytes()
    }
    /// Panics unless the sizes agree with each other and with `out`: every kernel relies on it.
    pub fn check(&self, quant: Quant, out: &ColumnsMut<'_>) {
        let row = DType::Quant(quant).bytes(self.n_in);
        assert_eq!(row.and_then(|row| row.checked_mul(self.n_out)), Some(self.w.len()));
        assert!(self.first.checked_add(out.cols().len()).is_some_and(|end| end <= self.n_out));
        assert_eq!(out.rows().checked_mul(self.n_in.div_ceil(BLOCK)), Some(self.x.len()));
    }
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
/// Plain Rust.
pub(super) const PRODUCTS: Products = Products {
    quantise: |x, n_in, scaling, out| activations::quantise(ints::plain::Plain, x, n_in, scaling, out),
    matmul: for_each_format!(plain),
    bytes: bytes::Functions {
        put_key: bytes::put_key,
        put_value: bytes::put_value,
        to_words: bytes::to_words,
        // SAFETY: passed on.
        multiply_keys: |p, out| unsafe { bytes::multiply_keys(ints::plain::Plain, p, out) },
        // SAFETY: passed on.
        multiply_values: |p, out| unsafe { bytes::multiply_values(ints::plain::Plain, p, out) },
    },
};

unsafe fn plain<F: Format>(p: &Product<'_>, scratch: &mut [f32], out: &mut ColumnsMut<'_>) {
    // SAFETY: passed on.
    unsafe { matmul::<_, F>(ints::plain::Plain, p, scratch, out) }
}

/// Tokens that are too few to unpack weights for, where `few` does not take the type: see benches/LOG.md.
const FEW_OF_ROWS: usize = 2;

/// The product for any number of tokens.
///
/// # Safety
/// `p` has passed [`Product::check`] for `F` and `out`.
#[inline(always)]
pub(super) unsafe fn matmul<S: Ints, F: Format>(s: S, p: &Product<'_>, scratch: &mut [f32], out: &mut ColumnsMut<'_>) {
    let tokens = out.rows();
    // SAFETY: passed on.
    unsafe {
        if const { F::FEW > 0 } {
            // What a branch on a constant leaves out is not compiled.
            if (2..=few::most::<S::Rows, F>()).contains(&tokens) {
                return few::matmul::<S::Rows, F>(s.rows(), p, out);
            }
        }
        match tokens {
            0..=FEW_OF_ROWS => product::matmul::<S, F>(s, p, out),
            _ => many::matmul::<S, F>(s, p, scratch, out),
        }
    }
}
