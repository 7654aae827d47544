//! The inner loops: op first, instruction set inside. A [`Kernels`] is a table of functions, chosen once when a model is
//! loaded; the scalar functions are the truth that the others are tested against.
//!
//! | module | subject |
//! |---|---|
//! | `isa` | which instruction sets there are and which of them this CPU has |
//! | `quant` | GGUF's block-quantised types to f32, and products with them |
//! | `float` | products with f32, f16 and bf16 matrices for few tokens and for many, and conversion between these types |
//! | `vector` | norms, activations, exp: from f32 to f32 |
//! | `simd` | a vector of each instruction set: what the kernels are written in |
//! | `table` | for each instruction set, the kernels compiled with its features |
//! | `columns` | the innermost part of products whose outputs are columns |
//! | `attention` | products with a block of the cache, softmax in parts |
//! | `prefetch` | cache lines asked for ahead |
//! | `tiles` | the prefill path's products on a matrix unit |
//!
//! Lengths are checked here, once, on entry; they are the callers' invariants, so a wrong one is a panic. The functions
//! behind the table rely on these checks.

mod attention;
mod columns;
mod float;
mod isa;
mod prefetch;
mod quant;
mod simd;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod tiles;
mod vector;

use crate::error::Result;
use crate::format::{DType, Float};
use crate::threads::ColumnsMut;
pub use attention::bytes::{self, ByteProduct};
pub use attention::{BLOCK, BlockProduct};
use float::many;
use float::{Floats, Matmul, Pack, Product};
pub use isa::Isa;
use quant::Quants;
pub use quant::activations::{Activations, Scaling};
pub use quant::pack::{LARGEST, pack as pack_quant, packs, unfit};
pub use tiles::{Packed, Tile};

/// How a weight matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[n_out, n_in]`: a row is an output (PyTorch's Linear, GGUF).
    OutIn,
    /// `[n_in, n_out]`: a column is an output (GPT-2's Conv1D).
    InOut,
}

/// A weight matrix where it lies; `data` may have any alignment.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// Element type.
    pub dtype: DType,
    /// Orientation.
    pub layout: Layout,
    /// Outputs.
    pub n_out: usize,
    /// Inputs.
    pub n_in: usize,
    /// `n_out * n_in` elements.
    pub data: &'a [u8],
}

/// The maximum and the sum of a part of a softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Softmax {
    /// Largest score.
    pub max: f32,
    /// Σ exp(score − max).
    pub sum: f32,
}

impl Softmax {
    /// Before the first score.
    pub const EMPTY: Softmax = Softmax { max: f32::NEG_INFINITY, sum: 0.0 };
}

/// An array of an element type to f32. To call it: the CPU has its features, and there are as many elements on both sides.
type Unpack = unsafe fn(&[u8], &mut [f32]);
type LayerNorm = unsafe fn(&[f32], &[f32], Option<&[f32]>, f32, &mut [f32]);

/// The table. Its functions are `unsafe` to call because they need the CPU features of `isa`; only [`Kernels::select`]
/// hands a table out, after the CPU was seen to have them.
pub struct Kernels {
    isa: Isa,
    /// See [`Product::ahead`].
    ahead: usize,
    /// Whether many tokens of f32 are faster by BLAS, if there is a good one, than by `many`.
    blas: bool,
    /// Products with an [`Layout::OutIn`] matrix.
    out_in: Floats<Matmul>,
    /// Products with an [`Layout::InOut`] matrix.
    in_out: Floats<Matmul>,
    /// Products of many tokens with a matrix of either layout, where there are vectors for them.
    many: Option<many::Multiply>,
    /// Products with a block of the cache.
    multiply_block: Floats<attention::Multiply>,
    unpack: Floats<Unpack>,
    unpack_quant: Quants<Unpack>,
    products: quant::Products,
    pack: Floats<Pack>,
    rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    layer_norm: LayerNorm,
    add: unsafe fn(&mut [f32], &[f32]),
    mul: unsafe fn(&mut [f32], &[f32]),
    scale: unsafe fn(&mut [f32], f32),
    /// `y = a·y + b·x`, the arguments in this order.
    blend: unsafe fn(&mut [f32], f32, &[f32], f32),
    silu: unsafe fn(&mut [f32]),
    gelu: unsafe fn(&mut [f32]),
    gelu_tanh: unsafe fn(&mut [f32]),
    relu: unsafe fn(&mut [f32]),
    relu_squared: unsafe fn(&mut [f32]),
    quick_gelu: unsafe fn(&mut [f32]),
    /// Each `y` becomes `cap · tanh(y / cap)`.
    softcap: unsafe fn(&mut [f32], f32),
    /// The largest element; `-inf` for none.
    max: unsafe fn(&[f32]) -> f32,
    /// Each `y`, at most `shift`, becomes `exp(y - shift)`; their sum.
    exp_sum: unsafe fn(&mut [f32], f32) -> f32,
    /// Of a matrix unit, where there is one.
    tiles: Option<tiles::Functions>,
}

impl Kernels {
    /// The table for `isa`, or the best that this CPU has; an instruction set that the CPU lacks is an error. With
    /// `None`, the environment variable `ENGINE_ISA` is looked at first.
    pub fn select(isa: Option<Isa>) -> Result<&'static Kernels> {
        Ok(table::of(Isa::resolve(isa)?))
    }

    /// Whether products of many tokens with f32 matrices are expected to be faster by BLAS, if that has kernels for [`Kernels::isa`].
    pub fn prefers_blas(&self) -> bool {
        self.blas
    }

    /// Which instruction set this table is for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The few-token product: `out[t, c] = Σ_k w[c, k] · x[t, k]` for the outputs `first..first + out.cols().len()` of `w`
    /// (written to `out`'s columns in order) and every row `t` of `x: [out.rows(), n_in]`. An output's bits depend only on
    /// its weights and its row of `x`: not on the number of rows, nor on how the outputs are cut into calls.
    pub fn matmul(&self, w: Matrix<'_>, first: usize, x: &[f32], out: &mut ColumnsMut<'_>) {
        let Matrix { dtype, layout, n_out, n_in, data } = w;
        let DType::Float(dtype) = dtype else { panic!("a product in f32 with a matrix of {}", dtype.name()) };
        let product = Product { w: data, n_out, n_in, first, x, ahead: self.ahead };
        product.check(dtype, out);
        let kernel = match layout {
            Layout::OutIn => self.out_in.of(dtype),
            Layout::InOut => self.in_out.of(dtype),
        };
        // SAFETY: `select` saw the features; `check` saw that weights, x and out have the sizes the product says.
        unsafe { kernel(&product, out) }
    }

    /// Inputs of a block of what [`Kernels::matmul_many`] takes, where it can be called.
    pub fn block_inputs(&self) -> Option<usize> {
        self.many.map(|_| many::DEPTH)
    }

    /// Of `x: [n_tokens, n_in]` the blocks from number `first` on into `out: [blocks, n_tokens · Kernels::block_inputs]`; the end of a block
    /// that has fewer inputs is left as it is.
    pub fn to_blocks(&self, x: &[f32], n_in: usize, first: usize, out: &mut [f32]) {
        assert!(n_in > 0 && x.len().is_multiple_of(n_in));
        many::to_blocks(x, n_in, first, out);
    }

    /// The product of many tokens with a matrix of floats in either layout: as [`Kernels::matmul`], with `x` from
    /// [`Kernels::to_blocks`], all of them, and `scratch` of at least [`Kernels::MANY_SCRATCH`] elements. An output's bits depend on its weights and its row of `x` only; they are
    /// not those of the few-token product, whose sums have another order.
    pub fn matmul_many(&self, w: Matrix<'_>, first: usize, x: &[f32], scratch: &mut [f32], out: &mut ColumnsMut<'_>) {
        let (DType::Float(dtype), Some(multiply)) = (w.dtype, self.many) else {
            panic!("{} has no products of many tokens with a matrix of {}", self.isa.name(), w.dtype.name())
        };
        let elements = w.n_out.checked_mul(w.n_in);
        assert_eq!(elements.and_then(|n| n.checked_mul(dtype.size())), Some(w.data.len()));
        assert!(first.checked_add(out.cols().len()).is_some_and(|end| end <= w.n_out));
        assert_eq!(w.n_in.next_multiple_of(many::DEPTH).checked_mul(out.rows()), Some(x.len()));
        assert!(scratch.len() >= Self::MANY_SCRATCH);
        // SAFETY: `select` saw the features; the sizes were checked.
        unsafe { multiply(w, first, x, scratch, out) }
    }

    /// Scratch for [`Kernels::matmul_many`].
    pub const MANY_SCRATCH: usize = many::SCRATCH;

    /// Activations in the form that this table's [`Kernels::matmul_quantised`] takes: those of some tokens, `x: [out.cols(), n_in]`, into the columns
    /// `out` of `[blocks of 256 inputs, n_tokens]`.
    pub fn quantise(&self, x: &[f32], n_in: usize, scaling: Scaling, out: &mut ColumnsMut<'_, Activations>) {
        assert!(out.rows() == n_in.div_ceil(Activations::BLOCK) && out.cols().len().checked_mul(n_in) == Some(x.len()));
        // SAFETY: `select` saw the features.
        unsafe { (self.products.quantise)(x, n_in, scaling, out) }
    }

    /// The product with a quantised [`Layout::OutIn`] matrix: as [`Kernels::matmul`], with `x: [n_in.div_ceil(Activations::BLOCK),
    /// out.rows()]` from [`Kernels::quantise`] and `scratch` of at least [`Kernels::scratch_len`] elements. An output's bits depend on its
    /// weights and its token only, and are the same on every instruction set.
    pub fn matmul_quantised(
        &self,
        w: Matrix<'_>,
        first: usize,
        x: &[Activations],
        scratch: &mut [f32],
        out: &mut ColumnsMut<'_>,
    ) {
        let Matrix { dtype: DType::Quant(quant), layout: Layout::OutIn, n_out, n_in, data } = w else {
            panic!("a quantised product with a matrix of {}, {:?}", w.dtype.name(), w.layout)
        };
        let product = quant::Product { w: data, n_out, n_in, first, x };
        product.check(quant, out);
        // SAFETY: `select` saw the features; `check` saw that weights, x and out have the sizes the product says.
        unsafe { self.products.matmul.of(quant)(&product, scratch, out) }
    }

    /// Scratch for [`Kernels::matmul_quantised`].
    pub fn scratch_len(n_out: usize, n_tokens: usize) -> usize {
        quant::many::scratch_len(n_out, n_tokens)
    }

    /// Elements `first..first + out.len()` of `data` (an array of `dtype`) as f32: whole blocks.
    pub fn unpack(&self, dtype: DType, data: &[u8], first: usize, out: &mut [f32]) {
        let (Some(start), Some(len)) = (dtype.bytes(first), dtype.bytes(out.len())) else {
            panic!("{} elements from {first} are not whole blocks of {}", out.len(), dtype.name());
        };
        let data = &data[start..][..len];
        let unpack = match dtype {
            DType::Float(float) => self.unpack.of(float),
            DType::Quant(quant) => self.unpack_quant.of(quant),
        };
        // SAFETY: `select` saw the features; data has as many elements as out.
        unsafe { unpack(data, out) }
    }

    /// `src` rounded to nearest even into `dst`, an array of `dtype`.
    pub fn pack(&self, dtype: Float, src: &[f32], dst: &mut [u8]) {
        assert_eq!(dst.len(), src.len() * dtype.size());
        // SAFETY: `select` saw the features; dst has as many elements as src.
        unsafe { self.pack.of(dtype)(src, dst) }
    }

    /// `y = x / sqrt(mean(x²) + eps) · weight`.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
        assert!(x.len() == y.len() && weight.len() == y.len());
        // SAFETY: `select` saw the features; the lengths are equal.
        unsafe { (self.rms_norm)(x, weight, eps, y) }
    }

    /// `y = (x − mean) / sqrt(var + eps) · weight + bias`.
    pub fn layer_norm(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
        assert!(x.len() == y.len() && weight.len() == y.len() && bias.is_none_or(|b| b.len() == y.len()));
        // SAFETY: `select` saw the features; the lengths are equal.
        unsafe { (self.layer_norm)(x, weight, bias, eps, y) }
    }

    /// `y += x`.
    pub fn add(&self, y: &mut [f32], x: &[f32]) {
        assert_eq!(x.len(), y.len());
        // SAFETY: `select` saw the features; the lengths are equal.
        unsafe { (self.add)(y, x) }
    }

    /// `y *= x`.
    pub fn mul(&self, y: &mut [f32], x: &[f32]) {
        assert_eq!(x.len(), y.len());
        // SAFETY: `select` saw the features; the lengths are equal.
        unsafe { (self.mul)(y, x) }
    }

    /// `y = a·y + b·x`.
    pub fn blend(&self, y: &mut [f32], a: f32, x: &[f32], b: f32) {
        assert_eq!(x.len(), y.len());
        // SAFETY: `select` saw the features; the lengths are equal.
        unsafe { (self.blend)(y, a, x, b) }
    }

    /// `y = silu(y)`, x·sigmoid(x).
    pub fn silu(&self, y: &mut [f32]) {
        // SAFETY: `select` saw the features.
        unsafe { (self.silu)(y) }
    }

    /// `y = exp(y − shift)`; their sum.
    pub fn exp_sum(&self, y: &mut [f32], shift: f32) -> f32 {
        // SAFETY: `select` saw the features.
        unsafe { (self.exp_sum)(y, shift) }
    }

    /// `y = gelu(y)` by erf.
    pub fn gelu(&self, y: &mut [f32]) {
        // SAFETY: `select` saw the features.
        unsafe { (self.gelu)(y) }
    }

    /// `y = gelu(y)` by the tanh form.
    pub fn gelu_tanh(&self, y: &mut [f32]) {
        // SAFETY: `select` saw the features.
        unsafe { (self.gelu_tanh)(y) }
    }

    /// `y = max(y, 0)`; NaN stays NaN.
    pub fn relu(&self, y: &mut [f32]) {
        // SAFETY: `select` saw the features.
        unsafe { (self.relu)(y) }
    }

    /// `y = max(y, 0)²`; NaN stays NaN.
    pub fn relu_squared(&self, y: &mut [f32]) {
        // SAFETY: `select` saw the features.
        unsafe { (self.relu_squared)(y) }
    }

    /// `y = y·sigmoid(1.702·y)`.
    pub fn quick_gelu(&self, y: &mut [f32]) {
        // SAFETY: `select` saw the features.
        unsafe { (self.quick_gelu)(y) }
    }

    /// `y *= factor`.
    pub fn scale(&self, y: &mut [f32], factor: f32) {
        // SAFETY: `select` saw the features.
        unsafe { (self.scale)(y, factor) }
    }

    /// `y = cap · tanh(y / cap)`.
    pub fn softcap(&self, y: &mut [f32], cap: f32) {
        // SAFETY: `select` saw the features.
        unsafe { (self.softcap)(y, cap) }
    }
}

/// The bytes of an f32 slice, as a [`Matrix`] wants them.
pub fn bytes_of(x: &[f32]) -> &[u8] {
    // SAFETY: an f32 is four initialised bytes of any value, and u8 has no alignment.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) }
}
