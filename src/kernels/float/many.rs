//! `out[t, c] = Σ_k w[c, k] · x[t, k]` for the many tokens of a prompt, with matrices of either layout.
//!
//! **Order of summation**, for every output: the inputs in blocks of [`depth`]; those of a block in order, by FMA into one sum that begins
//! with 0; the sums of the blocks in order.
//!
//! **Blocking.** One call has the outputs of one task, some hundred.
//!
//! ```text
//! for a block of inputs                 x: [blocks, tokens, inputs of a block]
//!   for a group of strips of C vectors  w[group, block] → panels: [strips, inputs of the block, C vectors] of f32, in L2
//!     for a strip of outputs            its panel, in L1
//!       for T tokens                    x[block, tokens] · panel in registers, added to out[tokens, strip]
//! ```
//!
//! So a weight is converted once a call, and transposed on the way where rows are outputs. x has been copied into blocks once for all
//! tasks: where its rows lie, a power of two apart, a block of them would fall into few sets of the cache, and what the next tile needs
//! would not lie behind this one's. Asked for ahead are the weights of the next group, evenly over the tiles; the next tokens of x, evenly
//! over a tile; the outputs of a tile at its beginning, as they are added to at its end.

use super::Element;
use crate::format::{DType, Float};
use crate::kernels::columns::{Ahead, Sums, Tile};
use crate::kernels::simd::{MAX_LANES, Simd};
use crate::kernels::{Layout, Matrix};
use crate::threads::ColumnsMut;
use half::{bf16, f16};
use std::ops::Range;

/// A product with `w`'s outputs from the given one on, of `x: [blocks, out.rows(), inputs of a block]`, with [`SCRATCH`] elements of
/// scratch. To call it: the CPU has its features, and `Kernels::matmul_many` has checked the sizes.
pub(in crate::kernels) type Multiply = unsafe fn(Matrix<'_>, usize, &[f32], &mut [f32], &mut ColumnsMut<'_>);

/// The kernel of a table.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Many {
    /// Inputs of a block of `x`.
    pub inputs: usize,
    pub multiply: Multiply,
}

/// Inputs of a block, by the number of vector registers: panels of 16 KiB with 16, of 24 KiB with 32.
pub(in crate::kernels) const fn depth(registers: usize) -> usize {
    if registers >= 32 { 96 } else { 256 }
}

/// Tokens whose sums are in registers.
const TOKENS: usize = 6;
/// Elements of the panels of a group: 64 KiB.
const PANELS: usize = 16 << 10;
/// Elements of a cache line.
const LINE: usize = 16;
/// Elements of scratch: the panels, from the beginning of a cache line on.
pub(in crate::kernels) const SCRATCH: usize = PANELS + LINE;

/// # Safety
/// `w` is a matrix of floats of the size that it says; it has the outputs `first..` that `out` has columns for; `x` holds its
/// `w.n_in` inputs for each of `out`'s rows, in blocks.
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
    /// Inputs of a block.
    const DEPTH: usize = depth(S::REGISTERS);
    /// Outputs of a strip.
    const WIDTH: usize = C * S::LANES;
    /// Elements of a panel.
    const PANEL: usize = Self::DEPTH * Self::WIDTH;
    /// Outputs of a group: a strip, but of a matrix whose columns are outputs as many as there is room for, as of each of its rows, which
    /// are pages apart, a strip reads a cache line or a few.
    #[inline(always)]
    fn group_len(&self) -> usize {
        match self.w.layout {
            Layout::OutIn => Self::WIDTH,
            Layout::InOut => PANELS / Self::PANEL * Self::WIDTH,
        }
    }

    /// # Safety
    /// As for `matmul`.
    #[inline(always)]
    unsafe fn run(&self, scratch: &mut [f32], out: &mut ColumnsMut<'_>) {
        let (n_tokens, n_out, n_in) = (out.rows(), out.cols().len(), self.w.n_in);
        let aligned = scratch.as_ptr().align_offset(size_of::<[f32; LINE]>()).min(LINE);
        let panels = &mut scratch[aligned..][..PANELS];
        if n_in == 0 {
            (0..n_tokens).for_each(|t| out.row_mut(t).fill(0.0));
        }
        for k in (0..n_in).step_by(Self::DEPTH) {
            for c in (0..n_out).step_by(self.group_len()) {
                let (inputs, outputs) = (k..n_in.min(k + Self::DEPTH), c..n_out.min(c + self.group_len()));
                // SAFETY: passed on; inputs and outputs are inside.
                unsafe { self.group(&inputs, outputs, panels, out) };
            }
        }
    }

    /// Adds the products with a block of inputs to `outputs`, at most a group of them, counted from `first`.
    ///
    /// # Safety
    /// As for `matmul`; the inputs and outputs are inside.
    #[inline(always)]
    unsafe fn group(&self, inputs: &Range<usize>, outputs: Range<usize>, panels: &mut [f32], out: &mut ColumnsMut<'_>) {
        let (n_tokens, n_out) = (out.rows(), out.cols().len());
        // What comes next is asked for bit by bit.
        let next = if outputs.end < n_out {
            (outputs.end..n_out.min(outputs.end + self.group_len()), inputs.clone())
        } else {
            (0..n_out.min(self.group_len()), inputs.end..inputs.end + Self::DEPTH)
        };
        let next = (self.first + next.0.start..self.first + next.0.end, next.1);
        let tiles = n_tokens.div_ceil(TOKENS);
        let parts = outputs.len().div_ceil(Self::WIDTH) * tiles;
        // SAFETY: passed on.
        unsafe { self.fill(inputs, outputs.clone(), panels) };
        for (strip, c) in outputs.clone().step_by(Self::WIDTH).enumerate() {
            let panel = &panels[strip * Self::PANEL..][..Self::PANEL];
            let n = Self::WIDTH.min(outputs.end - c);
            let mut t = 0;
            for i in 0..tiles {
                self.w.ask(self.s, next.0.clone(), next.1.clone(), strip * tiles + i, parts);
                // As even as can be: a tile of few tokens waits for its own sums.
                let tokens = t..t + (n_tokens - t).div_ceil(tiles - i);
                t = tokens.end;
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
    }

    /// Adds the products of `tokens` with a panel to the outputs from `c` on: V vectors, of which the last has `last` outputs (all, unless
    /// PART).
    ///
    /// # Safety
    /// As for `group`; the outputs are inside, and the panel is that of these outputs; there are 1 to TOKENS tokens.
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
        let x = (inputs.start / Self::DEPTH * n_tokens + t) * Self::DEPTH;
        // SAFETY: the panel has a row of WIDTH for each input, of which V vectors are read, `x` one of DEPTH for each token of a block;
        // the outputs and tokens are inside `out`.
        unsafe {
            let tile = Tile::<T> {
                w: panel.as_ptr().cast(),
                ld_w: Self::WIDTH * size_of::<f32>(),
                n: inputs.len(),
                x: std::array::from_fn(|j| self.x.as_ptr().add(x + j * Self::DEPTH)),
                y: std::array::from_fn(|j| out.as_mut_ptr().add((t + j) * ld + c)),
                last,
                sums: if inputs.start > 0 { Sums::Added } else { Sums::First },
            };
            for y in tile.y {
                for line in (0..=V * S::LANES).step_by(LINE) {
                    self.s.prefetch(y.wrapping_add(line).cast());
                }
            }
            // Those of the next tokens, which lie behind these.
            let mut next = Next { x: tile.x[T - 1].wrapping_add(Self::DEPTH).cast(), step: T * size_of::<f32>() };
            tile.multiply::<S, f32, _, V, PART>(self.s, &mut next);
        }
    }

    /// The weights of `outputs` for `inputs` to panels.
    ///
    /// # Safety
    /// As for `group`.
    #[inline(always)]
    unsafe fn fill(&self, inputs: &Range<usize>, outputs: Range<usize>, panels: &mut [f32]) {
        // SAFETY: passed on.
        unsafe {
            match (self.w.dtype, self.w.layout) {
                (DType::Float(Float::F32), Layout::OutIn) => self.rows::<f32>(inputs, outputs, panels),
                (DType::Float(Float::F16), Layout::OutIn) => self.rows::<f16>(inputs, outputs, panels),
                (DType::Float(Float::Bf16), Layout::OutIn) => self.rows::<bf16>(inputs, outputs, panels),
                (DType::Float(Float::F32), Layout::InOut) => self.columns::<f32>(inputs, outputs, panels),
                (DType::Float(Float::F16), Layout::InOut) => self.columns::<f16>(inputs, outputs, panels),
                (DType::Float(Float::Bf16), Layout::InOut) => self.columns::<bf16>(inputs, outputs, panels),
                (DType::Quant(quant), _) => panic!("a product in f32 with a matrix of {}", DType::from(quant).name()),
            }
        }
    }

    /// Where in the panels the weights of output `c` begin, which is the first one of a vector.
    #[inline(always)]
    fn place(c: usize) -> usize {
        c / Self::WIDTH * Self::PANEL + c % Self::WIDTH
    }

    /// The weights from where a row of the matrix is an output: squares of them are transposed.
    ///
    /// # Safety
    /// As for `fill`; they are of type E.
    #[inline(always)]
    unsafe fn rows<E: Element>(&self, inputs: &Range<usize>, outputs: Range<usize>, panels: &mut [f32]) {
        let (s, n_in, n) = (self.s, inputs.len(), outputs.len());
        assert!(n_in <= Self::DEPTH && n <= self.group_len() && panels.len() == PANELS);
        for c in (0..n).step_by(S::LANES) {
            // SAFETY: these are outputs of the matrix, which has `w.n_in` weights for each, and inputs of it; in the panels there is
            // room for DEPTH inputs of whole strips.
            unsafe {
                // Past the end the last row stands in: its sums are not written.
                let row = |i: usize| self.first + outputs.start + (c + i).min(n - 1);
                let w = |i: usize| self.w.data.as_ptr().add((row(i) * self.w.n_in + inputs.start) * E::SIZE);
                let mut rows = [w(0); MAX_LANES];
                for (i, row) in rows.iter_mut().enumerate().take(S::LANES) {
                    *row = w(i);
                }
                let to = panels.as_mut_ptr().add(Self::place(c));
                let mut square = [s.splat(0.0); MAX_LANES];
                let mut k = 0;
                while k < n_in {
                    let left = n_in - k;
                    for i in 0..S::LANES {
                        let w = rows[i].add(k * E::SIZE);
                        square[i] = if left >= S::LANES { E::load(s, w) } else { E::load_first(s, w, left) };
                    }
                    s.transpose(&mut square);
                    for (i, column) in square.iter().enumerate().take(S::LANES.min(left)) {
                        s.store(to.add((k + i) * Self::WIDTH), *column);
                    }
                    k += S::LANES;
                }
            }
        }
    }

    /// The weights from where a column of the matrix is an output.
    ///
    /// # Safety
    /// As for `fill`; they are of type E.
    #[inline(always)]
    unsafe fn columns<E: Element>(&self, inputs: &Range<usize>, outputs: Range<usize>, panels: &mut [f32]) {
        let (s, n) = (self.s, outputs.len());
        assert!(inputs.len() <= Self::DEPTH && n <= self.group_len() && panels.len() == PANELS);
        for (i, k) in inputs.clone().enumerate() {
            // SAFETY: the matrix has a row of `w.n_out` weights for each input, and these outputs among them; in the panels there is
            // room for DEPTH inputs of whole strips.
            unsafe {
                let w = self.w.data.as_ptr().add((k * self.w.n_out + self.first + outputs.start) * E::SIZE);
                for c in (0..n).step_by(S::LANES) {
                    let (w, left) = (w.add(c * E::SIZE), n - c);
                    let vector = if left >= S::LANES { E::load(s, w) } else { E::load_first(s, w, left) };
                    s.store(panels.as_mut_ptr().add(Self::place(c) + i * Self::WIDTH), vector);
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
    fn row<S: Simd>(&mut self, s: S, _: *const u8) {
        s.prefetch(self.x);
        self.x = self.x.wrapping_add(self.step);
    }
}
