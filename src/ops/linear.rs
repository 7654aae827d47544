//! y = x · Wᵀ + b.
//!
//! Quantised matrices are multiplied with the input rounded to 8 bits, with the same bits on both paths. Where the CPU has a matrix
//! unit, the prefill path multiplies all but f32 matrices on it, with both sides rounded to bf16; where it has fast dot products of bf16,
//! bf16 matrices by these. What it multiplies in f32 goes through our own kernel or BLAS, whichever is faster on the CPU.
#![forbid(unsafe_code)]

mod input;
#[cfg(test)]
mod tests;

use super::elementwise::Source;
use super::profile::Op;
use super::{Ctx, Path, Worker};
use crate::blas;
use crate::format::{DType, Tensor};
use crate::kernels::{Activations, Kernels, Layout, Matrix, bytes_of};
use crate::threads::ColumnsMut;
use input::Input;
pub use input::Needs;
use std::ops::Range;

/// Outputs that one task computes on the few-token path: 64 rows of 2048 f32 are 512 KB, long enough for the memory streams,
/// short enough to share out evenly.
const FEW_CHUNK: usize = 64;

/// Tokens with which quantised weights come from memory faster the more of them a task has: 64 rows of 4 bits are no more than 70 KB, in four streams.
/// Their products need no scratch.
const FEW_STREAMS: usize = 2;

/// The most outputs that one task computes of one token with an [`Layout::InOut`] matrix: the longer the pieces of its rows, the
/// better can the CPU's prefetch follow them. The sums, 6 KB, stay in L1.
const WIDE_CHUNK: usize = 1536;

/// The most outputs that one task computes on the prefill path; with BLAS always as many, so that it sees the same calls whatever the
/// number of threads.
const MANY_CHUNK: usize = 256;

/// Outputs of a task on the prefill path without BLAS, and of one or two tokens with quantised weights: whole tiles, and whole strips of vectors.
const EVEN_CHUNKS: [usize; 4] = [MANY_CHUNK, 192, 128, 64];

/// A projection: one matrix of the file, and its bias.
pub struct Linear {
    weight: Tensor,
    layout: Layout,
    n_out: usize,
    n_in: usize,
    bias: Option<Vec<f32>>,
    /// Whether an f32 matrix may be multiplied as sums of bf16 numbers.
    split: bool,
}

impl Linear {
    /// `weight` is `[n_out, n_in]`, or `[n_in, n_out]` with [`Layout::InOut`]; the caller has checked its shape and the
    /// bias's length.
    pub fn new(weight: Tensor, layout: Layout, bias: Option<Vec<f32>>) -> Self {
        let (n_out, n_in) = match layout {
            Layout::OutIn => (weight.shape[0], weight.shape[1]),
            Layout::InOut => (weight.shape[1], weight.shape[0]),
        };
        Self { weight, layout, n_out, n_in, bias, split: false }
    }
    /// The same; its products may be made of sums of three bf16 numbers on a matrix unit, if it is f32.
    pub fn split(self, split: bool) -> Self {
        Self { split, ..self }
    }
    /// Outputs.
    pub fn n_out(&self) -> usize {
        self.n_out
    }
    /// Inputs.
    pub fn n_in(&self) -> usize {
        self.n_in
    }
    /// Bytes of the matrix and its bias.
    pub fn weight_bytes(&self) -> usize {
        self.weight.data.len() + self.bias.as_ref().map_or(0, |bias| size_of_val(bias.as_slice()))
    }
    /// Bytes of one row of the matrix.
    pub fn row_bytes(&self) -> usize {
        self.weight.data.len() / self.n_out.max(1)
    }
    /// Number of parameters.
    pub fn n_params(&self) -> usize {
        self.n_out * self.n_in + self.bias.as_ref().map_or(0, Vec::len)
    }
    /// The matrix, for the kernels.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix { dtype: self.weight.dtype, layout: self.layout, n_out: self.n_out, n_in: self.n_in, data: &self.weight.data }
    }
    /// Row `row` of an [`Layout::OutIn`] matrix as f32: an embedding.
    pub fn row(&self, ctx: &Ctx<'_>, row: usize, out: &mut [f32]) {
        assert!(self.layout == Layout::OutIn && row < self.n_out && out.len() == self.n_in);
        ctx.kernels.unpack(self.weight.dtype, &self.weight.data, row * self.n_in, out);
    }
    /// By which kernel it is multiplied.
    fn way(&self, kernels: &Kernels, path: Path) -> Way {
        match self.weight.dtype {
            _ if path == Path::Many && kernels.tile_terms(self.weight.dtype, self.split).is_some() => Way::Tiles,
            DType::Quant(_) => Way::Quantised,
            DType::Float(_) if path == Path::Few => Way::Few,
            // BLAS reads f32 where it lies; what would have to be converted for it first, our own kernel converts on the way.
            DType::Float(_) if blas::best_with(kernels) && (self.sgemm_in_place() || kernels.block_inputs().is_none()) => {
                Way::Sgemm
            }
            DType::Float(_) => kernels.block_inputs().map_or(Way::Few, |_| Way::Blocks),
        }
    }
    /// In how many bf16 terms it takes its input, where it is multiplied on a matrix unit.
    fn tile_terms(&self, kernels: &Kernels) -> Option<usize> {
        kernels.tile_terms(self.weight.dtype, self.split)
    }
    /// Elements of a worker's panel that BLAS needs for this matrix.
    fn panel_len(&self) -> usize {
        if self.sgemm_in_place() { 0 } else { MANY_CHUNK.min(self.n_out) * self.n_in }
    }
    /// Blocks of 8-bit activations that [`linear`] needs for each token.
    fn quantised_len(&self) -> usize {
        if self.is_quantised() { self.n_in.div_ceil(Activations::BLOCK) } else { 0 }
    }
    fn is_quantised(&self) -> bool {
        matches!(self.weight.dtype, DType::Quant(_))
    }
    /// Whether BLAS can read the matrix where it lies.
    fn sgemm_in_place(&self) -> bool {
        self.weight.dtype == DType::F32 && self.weight.data.as_ptr().addr().is_multiple_of(align_of::<f32>())
    }
}

/// By which kernel a matrix is multiplied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The matrix unit's, with the input as tiles.
    Tiles,
    /// The quantised types', with the input in 8 bits.
    Quantised,
    /// The floats' for many tokens, with the input in blocks.
    Blocks,
    /// BLAS's.
    Sgemm,
    /// The floats' for few tokens.
    Few,
}

/// Several projections of the same `x: [n_tokens, n_in]`, their outputs side by side in `y: [n_tokens, Σ n_out]`, in one
/// parallel region (and one before it, where the rows of the input are made or converted). `op` is what it does in the model. Tokens of
/// both paths share the weights that a task reads.
pub fn linear(ctx: &mut Ctx<'_>, op: Op, parts: &[Linear], x: Source<'_>, n_tokens: usize, y: &mut [f32]) {
    let n_in = parts.first().map_or(0, Linear::n_in);
    let n_out = parts.iter().map(Linear::n_out).sum();
    assert!(parts.iter().all(|p| p.n_in == n_in));
    let y = &mut y[..n_tokens * n_out];
    let (kernels, threads, few) = (ctx.kernels, ctx.pool.threads(), ctx.few.min(n_tokens));
    let input = Input::new(ctx, parts, x, few..n_tokens, n_in);
    let way = |part: &Linear| part.way(kernels, Path::Many);
    let chunk = if few == 0 && parts.iter().any(|part| way(part) == Way::Sgemm) {
        MANY_CHUNK
    } else if few == 0 && parts.iter().all(|part| matches!(way(part), Way::Tiles | Way::Blocks))
        || n_tokens <= FEW_STREAMS && parts.iter().all(Linear::is_quantised)
    {
        even_chunk(n_out, threads)
    } else if (few, n_tokens) == (1, 1) && parts.iter().all(|part| part.layout == Layout::InOut) {
        wide_chunk(n_out, threads)
    } else {
        FEW_CHUNK
    };
    ctx.pool.for_each_columns(ctx.workers, y, n_tokens, n_out, chunk, |worker, mut columns| {
        let mut start = 0; // first column of the part
        for part in parts {
            let Range { start: from, end: to } = columns.cols();
            let cols = from.max(start)..to.min(start + part.n_out);
            if cols.start < cols.end {
                let first = cols.start - start;
                let mut out = columns.sub(cols);
                part.multiply(kernels, first, &input, worker, &mut out);
                part.add_bias(first, &mut out);
            }
            start += part.n_out;
        }
    });
    input.done(ctx);
    ctx.lap(op, parts.iter().map(Linear::weight_bytes).sum());
}

/// Outputs of one task with [`Layout::InOut`] matrices and one token: as many tasks for each of `threads`.
fn wide_chunk(n_out: usize, threads: usize) -> usize {
    let tasks = n_out.div_ceil(WIDE_CHUNK).next_multiple_of(threads.max(1)).max(1);
    n_out.div_ceil(tasks).next_multiple_of(FEW_CHUNK)
}

/// Outputs of one task, of [`EVEN_CHUNKS`]: as many as leave the thread that has most of them with the fewest.
fn even_chunk(n_out: usize, threads: usize) -> usize {
    let most = |chunk: &usize| n_out.div_ceil(*chunk).div_ceil(threads.max(1)) * chunk;
    EVEN_CHUNKS.into_iter().min_by_key(most).unwrap_or(MANY_CHUNK)
}

impl Linear {
    /// The outputs `first..` of all tokens, by the kernels for the matrix and the paths.
    fn multiply(&self, kernels: &Kernels, first: usize, input: &Input<'_>, worker: &mut Worker, out: &mut ColumnsMut<'_>) {
        let Worker { panel, tiles, .. } = worker;
        let many = match self.way(kernels, Path::Many) {
            // The same for both.
            Way::Quantised => return kernels.matmul_quantised(self.matrix(), first, input.quantised(), panel, out),
            way => way,
        };
        let few = 0..input.many.start;
        if !few.is_empty() {
            let out = &mut out.sub_rows(few);
            match self.way(kernels, Path::Few) {
                Way::Quantised => kernels.matmul_quantised(self.matrix(), first, input.quantised(), panel, out),
                _ => kernels.matmul(self.matrix(), first, input.rows(0..out.rows()), out),
            }
        }
        if !input.many.is_empty() {
            let out = &mut out.sub_rows(input.many.clone());
            match many {
                Way::Tiles => kernels.matmul_tiles(self.matrix(), first, input.packed(), tiles, out),
                Way::Blocks => kernels.matmul_many(self.matrix(), first, input.blocks(), panel, out),
                Way::Sgemm if self.sgemm(kernels, first, input.rows(input.many.clone()), panel, out) => (),
                _ => kernels.matmul(self.matrix(), first, input.rows(input.many.clone()), out),
            }
        }
    }

    /// The outputs `first..` by BLAS; weights that it cannot read in place go through `panel`. False if BLAS cannot.
    fn sgemm(&self, kernels: &Kernels, first: usize, x: &[f32], panel: &mut [f32], out: &mut ColumnsMut<'_>) -> bool {
        let matrix = self.matrix();
        if self.sgemm_in_place() {
            return blas::sgemm(matrix, first, x, out);
        }
        let n = out.cols().len();
        let panel = &mut panel[..n * self.n_in];
        match self.layout {
            Layout::OutIn => kernels.unpack(matrix.dtype, matrix.data, first * self.n_in, panel),
            Layout::InOut => {
                for (k, row) in panel.chunks_exact_mut(n).enumerate() {
                    kernels.unpack(matrix.dtype, matrix.data, k * self.n_out + first, row);
                }
            }
        }
        let unpacked = Matrix { dtype: DType::F32, n_out: n, data: bytes_of(panel), ..matrix };
        blas::sgemm(unpacked, 0, x, out)
    }

    fn add_bias(&self, first: usize, out: &mut ColumnsMut<'_>) {
        if let Some(bias) = &self.bias {
            let bias = &bias[first..first + out.cols().len()];
            for t in 0..out.rows() {
                out.row_mut(t).iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
    }
}
