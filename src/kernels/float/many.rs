//! `out[t, c] = Σ_k w[c, k] · x[t, k]` for the many tokens of a prompt, with matrices of either layout.
//!
//! **Order of summation**, for every output: the inputs in blocks of [`DEPTH`]; those of a block in order, by FMA into one sum that begins
//! with 0; the sums of the blocks in order.
//!
//! **Blocking.** One call has the outputs of one task, some hundred.
//!
//! ```text
//! for a block of inputs                 x: [blocks, tiles of T tokens, inputs of a block, T]
//!   for a strip of C vectors of outputs w[strip, block] → panel: [inputs of the block, C vectors] of f32, in L1 (AVX-512: L2)
//!     for a tile of tokens              x[block, tile] · panel in registers, added to out[tokens, strip]
//! ```
//!
//! So a weight is converted once a call, and transposed on the way where rows are outputs. x has been put into tiles once for all
//! tasks: it is read from end to end, where its rows, a power of two apart, would fall into few sets of the cache. Asked for ahead are the
//! weights of the next strip (or block), while this one's panel is filled; the next tile of x, evenly over a tile; the outputs of a tile
//! at its beginning, as they are added to at its end.

use super::Element;
use crate::format::{DType, Float};
use crate::kernels::columns::{Ahead, Sums, Tile};
use crate::kernels::prefetch::{self, LINE};
use crate::kernels::simd::{MAX_LANES, Simd};
use crate::kernels::{Layout, Matrix};
use crate::threads::ColumnsMut;
use half::{bf16, f16};
use std::ops::Range;

/// A product with `w`'s outputs from the given one on, of `x` from [`to_blocks`], with [`SCRATCH`] elements of
/// scratch. To call it: the CPU has its features, and `Kernels::matmul_many` has checked the sizes.
pub(in crate::kernels) type Multiply = unsafe fn(Matrix<'_>, usize, &[f32], &mut [f32], &mut ColumnsMut<'_>);

/// Inputs of a block. With AVX-512 a panel is 64 KiB: on a Zen 4 a loop of tiles ran as fast with it as with 24 KiB, which are in L1, and the
/// sums are added to the outputs less often.
pub(in crate::kernels) const DEPTH: usize = 256;

/// Tokens of a tile, at most: their sums are in registers.
const TOKENS: usize = 6;

/// The tiles of so many tokens, as even as can be: one of few tokens waits for its own sums.
#[inline(always)]
fn tiles(n_tokens: usize) -> impl Iterator<Item = Range<usize>> {
    let n = n_tokens.div_ceil(TOKENS);
    (0..n).map(move |i| i * n_tokens / n..(i + 1) * n_tokens / n)
}

/// Of `x: [n_tokens, n_in]` the blocks of inputs from number `first` on: `out: [blocks, tiles, DEPTH, tokens of the tile]`. The end of
/// the last block is left as it is.
pub(in crate::kernels) fn to_blocks(x: &[f32], n_in: usize, first: usize, out: &mut [f32]) {
    let n_tokens = x.len() / n_in;
    for (block, out) in (first..).zip(out.chunks_exact_mut((n_tokens * DEPTH).max(1))) {
        let inputs = block * DEPTH..n_in.min((block + 1) * DEPTH);
        for tile in tiles(n_tokens) {
            let out = &mut out[tile.start * DEPTH..tile.end * DEPTH];
            for (j, row) in x[tile.start * n_in..tile.end * n_in].chunks_exact(n_in).enumerate() {
                for (x, to) in row[inputs.clone()].iter().zip(out.chunks_exact_mut(tile.len())) {
                    to[j] = *x;
                }
            }
        }
    }
}

/// Elements of a panel, at most.
const PANEL: usize = 16 << 10;
/// f32 of a cache line.
const LINE_F32: usize = LINE / size_of::<f32>();
/// Elements of scratch: a panel, from the beginning of a cache line on.
pub(in crate::kernels) const SCRATCH: usize = PANEL + LINE_F32;

/// # Safety
/// `w` is a matrix of floats of the size that it says; it has the outputs `first..` that `out` has columns for; `x` holds its
/// `w.n_in` inputs for each of `out`'s rows, as [`to_blocks`] has them.
#[inline(always)]
pub(in crate::kernels) unsafe fn matmul<S: Simd>(
    s: S,
    w: Matrix<'_>,
    first: usize,
    x: &[f32],
    scratch: &mut [f32],
    out: &mut ColumnsMut<'_>,
) {
    // SAFETY: passed on.
    unsafe {
        if S::REGISTERS >= 32 {
            Call::<S, 4> { s, w, first, x }.run(scratch, out)
        } else {
            Call::<S, 2> { s, w, first, x }.run(scratch, out)
        }
    }
}

/// A product in strips of C vectors of outputs.
struct Call<'a, S, const C: usize> {
    s: S,
    w: Matrix<'a>,
    first: usize,
    x: &'a [f32],
}

impl<S: Simd, const C: usize> Call<'_, S, C> {
    /// Outputs of a strip.
    const WIDTH: usize = C * S::LANES;
    /// Elements of a panel.
    const PANEL: usize = DEPTH * Self::WIDTH;

    /// # Safety
    /// As for `matmul`.
    #[inline(always)]
    unsafe fn run(&self, scratch: &mut [f32], out: &mut ColumnsMut<'_>) {
        let (n_tokens, n_out, n_in) = (out.rows(), out.cols().len(), self.w.n_in);
        let aligned = scratch.as_ptr().align_offset(LINE).min(LINE_F32);
        let panel = &mut scratch[aligned..][..Self::PANEL];
        if n_in == 0 {
            (0..n_tokens).for_each(|t| out.row_mut(t).fill(0.0));
        }
        for k in (0..n_in).step_by(DEPTH) {
            for c in (0..n_out).step_by(Self::WIDTH) {
                let (inputs, outputs) = (k..n_in.min(k + DEPTH), c..n_out.min(c + Self::WIDTH));
                // SAFETY: passed on; inputs and outputs are inside.
                unsafe {
                    self.fill(&inputs, outputs.clone(), n_out, panel);
                    self.strip(&inputs, outputs, panel, out);
                }
            }
        }
    }

    /// Adds the products with a block of inputs to a strip of outputs, counted from `first`, whose panel is there.
    ///
    /// # Safety
    /// As for `matmul`; the inputs and outputs are inside.
    #[inline(always)]
    unsafe fn strip(&self, inputs: &Range<usize>, outputs: Range<usize>, panel: &[f32], out: &mut ColumnsMut<'_>) {
        let (c, n) = (outputs.start, outputs.len());
        for tokens in tiles(out.rows()) {
            // SAFETY: passed on; whole strips, then single vectors, of which the last may be in part.
            unsafe {
                if n == Self::WIDTH {
                    self.tokens::<C, false>(inputs, tokens, panel, c, S::LANES, out);
                    continue;
                }
                for v in (0..n).step_by(S::LANES) {
                    let (panel, c, last) = (&panel[v..], c + v, S::LANES.min(n - v));
                    if last == S::LANES {
                        self.tokens::<1, false>(inputs, tokens.clone(), panel, c, last, out);
                    } else {
                        self.tokens::<1, true>(inputs, tokens.clone(), panel, c, last, out);
                    }
                }
            }
        }
    }

    /// Adds the products of `tokens` with a panel to the outputs from `c` on: V vectors, of which the last has `last` outputs (all, unless
    /// PART).
    ///
    /// # Safety
    /// As for `strip`; the outputs are inside, and the panel is that of these outputs; there are 1 to TOKENS tokens.
    #[inline(always)]
    unsafe fn tokens<const V: usize, const PART: bool>(
        &self,
        inputs: &Range<usize>,
        tokens: Range<usize>,
        panel: &[f32],
        c: usize,
        last: usize,
        out: &mut ColumnsMut<'_>,
    ) {
        // SAFETY: passed on.
        unsafe {
            match tokens.len() {
                1 => self.tile::<V, 1, PART>(inputs, tokens.start, panel, c, last, out),
                2 => self.tile::<V, 2, PART>(inputs, tokens.start, panel, c, last, out),
                3 => self.tile::<V, 3, PART>(inputs, tokens.start, panel, c, last, out),
                4 => self.tile::<V, 4, PART>(inputs, tokens.start, panel, c, last, out),
                5 => self.tile::<V, 5, PART>(inputs, tokens.start, panel, c, last, out),
                _ => self.tile::<V, TOKENS, PART>(inputs, tokens.start, panel, c, last, out),
            }
        }
    }

    /// The same for the tokens `t..t + T`.
    ///
    /// # Safety
    /// As for `tokens`.
    #[inline(always)]
    unsafe fn tile<const V: usize, const T: usize, const PART: bool>(
        &self,
        inputs: &Range<usize>,
        t: usize,
        panel: &[f32],
        c: usize,
        last: usize,
        out: &mut ColumnsMut<'_>,
    ) {
        let (n_tokens, ld) = (out.rows(), out.ld());
        let x = (inputs.start / DEPTH * n_tokens + t) * DEPTH;
        // SAFETY: the panel has a row of WIDTH for each input, of which V vectors are read, `x` one of T;
        // the outputs and tokens are inside `out`.
        unsafe {
            let tile = Tile::<T> {
                w: panel.as_ptr().cast(),
                ld_w: Self::WIDTH * size_of::<f32>(),
                n: inputs.len(),
                x: std::array::from_fn(|j| self.x.as_ptr().add(x + j)),
                ld_x: T,
                y: std::array::from_fn(|j| out.as_mut_ptr().add((t + j) * ld + c)),
                last,
                sums: if inputs.start > 0 { Sums::Added } else { Sums::First },
            };
            for y in tile.y {
                for line in (0..=V * S::LANES).step_by(LINE_F32) {
                    prefetch::near(y.wrapping_add(line).cast());
                }
            }
            // The next tile lies behind this one.
            let mut next = Next { x: tile.x[0].wrapping_add(T * DEPTH).cast(), step: T * size_of::<f32>() };
            tile.multiply::<S, f32, _, V, PART>(self.s, &mut next);
        }
    }

    /// Where in the matrix the weight of an output, counted from `first`, and an input is, in bytes.
    #[inline(always)]
    fn offset(&self, (output, input): (usize, usize)) -> usize {
        let output = self.first + output;
        let element = match self.w.layout {
            Layout::OutIn => output * self.w.n_in + input,
            Layout::InOut => input * self.w.n_out + output,
        };
        element * self.w.dtype.block_bytes()
    }

    /// The weights of a strip of `outputs`, of `n_out`, for `inputs` to the panel. Those that come next are asked for meanwhile.
    ///
    /// # Safety
    /// As for `strip`.
    #[inline(always)]
    unsafe fn fill(&self, inputs: &Range<usize>, outputs: Range<usize>, n_out: usize, panel: &mut [f32]) {
        // SAFETY: passed on.
        unsafe {
            match (self.w.dtype, self.w.layout) {
                (DType::Float(Float::F32), Layout::OutIn) => self.rows::<f32>(inputs, outputs, n_out, panel),
                (DType::Float(Float::F16), Layout::OutIn) => self.rows::<f16>(inputs, outputs, n_out, panel),
                (DType::Float(Float::Bf16), Layout::OutIn) => self.rows::<bf16>(inputs, outputs, n_out, panel),
                (DType::Float(Float::F32), Layout::InOut) => self.columns::<f32>(inputs, outputs, n_out, panel),
                (DType::Float(Float::F16), Layout::InOut) => self.columns::<f16>(inputs, outputs, n_out, panel),
                (DType::Float(Float::Bf16), Layout::InOut) => self.columns::<bf16>(inputs, outputs, n_out, panel),
                (DType::Quant(quant), _) => panic!("a product in f32 with a matrix of {}", DType::from(quant).name()),
            }
        }
    }

    /// The weights from where a row of the matrix is an output: squares of them are transposed.
    ///
    /// # Safety
    /// As for `fill`; they are of type E.
    #[inline(always)]
    unsafe fn rows<E: Element>(&self, inputs: &Range<usize>, outputs: Range<usize>, n_out: usize, panel: &mut [f32]) {
        let (s, n_in, n) = (self.s, inputs.len(), outputs.len());
        assert!(n_in <= DEPTH && n <= Self::WIDTH && panel.len() == Self::PANEL);
        let next = if outputs.end < n_out { (outputs.end, inputs.start) } else { (0, inputs.end) };
        let ahead = self.offset(next).wrapping_sub(self.offset((outputs.start, inputs.start)));
        for c in (0..n).step_by(S::LANES) {
            // SAFETY: these are outputs of the matrix, which has `w.n_in` weights for each, and inputs of it; in the panel there is
            // room for DEPTH inputs of a whole strip.
            unsafe {
                // Past the end the last row stands in: its sums are not written.
                let row = |i: usize| outputs.start + (c + i).min(n - 1);
                let w = |i: usize| self.w.data.as_ptr().add(self.offset((row(i), inputs.start)));
                let mut rows = [w(0); MAX_LANES];
                for (i, row) in rows.iter_mut().enumerate().take(S::LANES) {
                    *row = w(i);
                }
                let to = panel.as_mut_ptr().add(c);
                let mut square = [s.splat(0.0); MAX_LANES];
                let mut k = 0;
                while k < n_in {
                    let left = n_in - k;
                    for i in 0..S::LANES {
                        let w = rows[i].add(k * E::SIZE);
                        if (k * E::SIZE).is_multiple_of(LINE) {
                            prefetch::near(w.wrapping_add(ahead));
                        }
                        square[i] = if left >= S::LANES { E::load(s, w) } else { E::load_first(s, w, left) };
                    }
                    s.transpose(&mut square);
                    if left >= S::LANES {
                        for (i, column) in square.iter().enumerate().take(S::LANES) {
                            s.store(to.add((k + i) * Self::WIDTH), *column);
                        }
                    } else {
                        // A copy of it, so that the vectors of whole squares are not in memory.
                        for (i, column) in { square }.iter().enumerate().take(left) {
                            s.store(to.add((k + i) * Self::WIDTH), *column);
                        }
                    }
                    k += S::LANES;
                }
            }
        }
    }

    /// The weights from where a column of the matrix is an output. A strip reads a cache line or a few of each row, which are pages apart. So
    /// the next block of inputs is asked for row by row, each from end to end: by the first strip its first lines, and so on.
    ///
    /// # Safety
    /// As for `fill`; they are of type E.
    #[inline(always)]
    unsafe fn columns<E: Element>(&self, inputs: &Range<usize>, outputs: Range<usize>, n_out: usize, panel: &mut [f32]) {
        let (s, n) = (self.s, outputs.len());
        assert!(inputs.len() <= DEPTH && n <= Self::WIDTH && panel.len() == Self::PANEL);
        let lines = (n_out * E::SIZE).div_ceil(LINE); // of a row
        let each = (Self::WIDTH * E::SIZE).div_ceil(LINE);
        let asked = outputs.start / Self::WIDTH * DEPTH * each;
        let (mut row, mut line) = (inputs.end + asked / lines, asked % lines);
        for (i, k) in inputs.clone().enumerate() {
            for _ in 0..each {
                prefetch::near(self.w.data.as_ptr().wrapping_add(self.offset((0, row)) + line * LINE));
                line += 1;
                if line == lines {
                    (row, line) = (row + 1, 0);
                }
            }
            // SAFETY: the matrix has a row of `w.n_out` weights for each input, and these outputs among them; in the panel there is
            // room for DEPTH inputs of a whole strip.
            unsafe {
                let w = self.w.data.as_ptr().add(self.offset((outputs.start, k)));
                for c in (0..n).step_by(S::LANES) {
                    let (w, left) = (w.add(c * E::SIZE), n - c);
                    let vector = if left >= S::LANES { E::load(s, w) } else { E::load_first(s, w, left) };
                    s.store(panel.as_mut_ptr().add(i * Self::WIDTH + c), vector);
                }
            }
        }
    }
}

/// Asks for what comes next of x, evenly over a tile's inputs.
struct Next {
    x: *const u8,
    step: usize,
}

impl Ahead for Next {
    #[inline(always)]
    fn row(&mut self, _: *const u8) {
        prefetch::near(self.x);
        self.x = self.x.wrapping_add(self.step);
    }
}
