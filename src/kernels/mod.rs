//! The inner loops: op first, instruction set inside. A [`Kernels`] is a table of functions, chosen once when a model is
//! loaded; the scalar functions are the truth that the others are tested against.

use crate::error::{Error, Result};
use crate::format::DType;
use crate::threads::ColumnsMut;

/// Instruction set of a kernel table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust; the oracle.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL, DQ.
    Avx512,
}

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

/// The table.
pub struct Kernels {
    isa: Isa,
}

impl Kernels {
    /// The table for `isa`, or the best that this CPU has; an instruction set that the CPU lacks is an error. With
    /// `None`, the environment variable `ENGINE_ISA` is looked at first.
    pub fn select(isa: Option<Isa>) -> Result<&'static Kernels> {
        let _ = isa;
        static SCALAR: Kernels = Kernels { isa: Isa::Scalar };
        let _ = Error::unsupported("");
        Ok(&SCALAR)
    }
    /// Which instruction set this table is for.
    pub fn isa(&self) -> Isa {
        self.isa
    }
    /// The few-token product: `out[t, c] = Σ_k w[c, k] · x[t, k]` for the outputs `first..first + out.cols().len()` of `w`
    /// (written to `out`'s columns in order) and every row `t` of `x: [out.rows(), n_in]`. An output's bits depend only on
    /// its weights and its row of `x`: not on the number of rows, nor on how the outputs are cut into calls.
    pub fn matmul(&self, w: Matrix<'_>, first: usize, x: &[f32], out: &mut ColumnsMut<'_>) {
        let _ = (w, first, x, out);
    }
    /// Elements `first..first + out.len()` of `data` (an array of `dtype`) as f32.
    pub fn unpack(&self, dtype: DType, data: &[u8], first: usize, out: &mut [f32]) {
        let _ = (dtype, data, first, out);
    }
    /// `src` rounded to nearest even into `dst`, an array of `dtype`.
    pub fn pack(&self, dtype: DType, src: &[f32], dst: &mut [u8]) {
        let _ = (dtype, src, dst);
    }
    /// `y = x / sqrt(mean(x²) + eps) · weight`.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
        let _ = (x, weight, eps, y);
    }
    /// `y = (x − mean) / sqrt(var + eps) · weight + bias`.
    pub fn layer_norm(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
        let _ = (x, weight, bias, eps, y);
    }
    /// `y += x`.
    pub fn add(&self, y: &mut [f32], x: &[f32]) {
        let _ = (y, x);
    }
    /// `y = silu(y)`, x·sigmoid(x).
    pub fn silu(&self, y: &mut [f32]) {
        let _ = y;
    }
    /// `y = gelu(y)` by erf.
    pub fn gelu(&self, y: &mut [f32]) {
        let _ = y;
    }
    /// `y = gelu(y)` by the tanh form.
    pub fn gelu_tanh(&self, y: &mut [f32]) {
        let _ = y;
    }
    /// `y *= x`.
    pub fn mul(&self, y: &mut [f32], x: &[f32]) {
        let _ = (y, x);
    }
    /// One query over `n` consecutive cached positions, with online softmax. `q: [head_dim]` is already scaled; `k` and `v`
    /// are arrays of `kv`, `[n, head_dim]`; `scores` is scratch of at least `n`; `state` and `acc: [head_dim]` are carried
    /// from block to block. Afterwards `acc / state.sum` is the attention output.
    #[allow(clippy::too_many_arguments)]
    pub fn attend(
        &self,
        kv: DType,
        q: &[f32],
        k: &[u8],
        v: &[u8],
        n: usize,
        scores: &mut [f32],
        state: &mut Softmax,
        acc: &mut [f32],
    ) {
        let _ = (kv, q, k, v, n, scores, state, acc);
    }
}

/// The running maximum and sum of an online softmax.
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    /// Largest score so far.
    pub max: f32,
    /// Σ exp(score − max).
    pub sum: f32,
}

impl Softmax {
    /// Before the first score.
    pub const EMPTY: Softmax = Softmax { max: f32::NEG_INFINITY, sum: 0.0 };
}
