//! `out[t, c] = Σ_k w[c, k] · x[t, k]` by tiles.
//!
//! **Blocking.** A call computes the outputs of one task, some hundred. Block by block of inputs, it converts the weights of 32 outputs
//! into a panel of tiles (each weight once a call) and multiplies it with all the tokens, 32 at a time, asking for the weights of the
//! next panel meanwhile; a block of inputs is so short that the tokens' tiles stay in L2 while the panels pass by. Sums that are not
//! finished wait in scratch, where reading them back changes no bit: the order of summation is the same for any blocking.

use super::pack::{GROUP, pack_weights};
use super::{Block, Product, Products, SIDE, STEP, Tile, Unit};
use crate::kernels::Layout;
use crate::kernels::prefetch::{self, LINE};
use crate::kernels::simd::Simd;
use crate::threads::ColumnsMut;
use std::ops::Range;

/// Tiles of a weight panel: 64 KiB, which with what the unit reads beside it is in L2 for sure.
pub const PANEL: usize = 64;
/// Tiles of tokens that are used again and again while panels pass by: 1 MiB, half of the L2 of CPUs with AMX. Of K = 2048 and 512
/// tokens in blocks of 512, 1024 and 2048 inputs, 1024 were the fastest there: 0.88, 1.02 and 0.69 TFLOP/s.
const TOKENS: usize = 1024;

/// Steps of a block of inputs.
pub fn block_steps(n_tokens: usize, terms: usize, x_terms: usize) -> usize {
    let in_l2 = TOKENS / (n_tokens.div_ceil(SIDE) * 2 * x_terms).max(1);
    let in_panel = PANEL / (2 * terms);
    (in_l2.min(in_panel) / GROUP * GROUP).max(GROUP)
}

/// Tiles of scratch for `n_tokens` tokens and `n_out` outputs: a panel, and four for each 32 × 32 sums.
pub fn scratch(n_tokens: usize, n_out: usize) -> usize {
    PANEL + n_tokens.div_ceil(SIDE) * n_out.div_ceil(SIDE) * 4
}

/// # Safety
/// The unit may be used; `Kernels::matmul_tiles` has checked the sizes.
#[inline(always)]
pub(in crate::kernels) unsafe fn multiply<S: Simd, U: Unit>(
    s: S,
    p: &Product<'_>,
    scratch: &mut [Tile],
    out: &mut ColumnsMut<'_>,
) {
    // SAFETY: passed on.
    unsafe {
        if const { U::BF16_ONLY } {
            assert!(p.products == Products::One);
            return sweep::<S, U, 1>(s, p, scratch, out);
        }
        match p.products.terms() {
            1 => sweep::<S, U, 1>(s, p, scratch, out),
            2 => sweep::<S, U, 2>(s, p, scratch, out),
            _ => sweep::<S, U, 3>(s, p, scratch, out),
        }
    }
}

/// # Safety
/// As for `multiply`; T is the number of terms.
#[inline(always)]
unsafe fn sweep<S: Simd, U: Unit, const T: usize>(s: S, p: &Product<'_>, scratch: &mut [Tile], out: &mut ColumnsMut<'_>) {
    let (n_tokens, cols) = (out.rows(), out.cols());
    let (steps, blocks) = (p.w.n_in.div_ceil(STEP), n_tokens.div_ceil(SIDE));
    let of_block = block_steps(n_tokens, T, p.x.terms);
    let (panel, sums) = scratch.split_at_mut(PANEL);
    if steps == 0 {
        (0..n_tokens).for_each(|t| out.row_mut(t).fill(0.0));
        return;
    }
    // SAFETY: the caller's word.
    let unit = unsafe { U::new() };
    for from in (0..steps).step_by(of_block) {
        let to = steps.min(from + of_block);
        // The weights after those of the outputs from `at` on.
        let next = |at: usize| {
            if at + SIDE < cols.len() { (at + SIDE, from * STEP..to * STEP) } else { (0, to * STEP..(to + of_block) * STEP) }
        };
        for (i, at) in (0..cols.len()).step_by(SIDE).enumerate() {
            let n = SIDE.min(cols.len() - at);
            // SAFETY: the unit was made just now.
            unsafe { pack_weights::<S, U, T>(s, &unit, p, (p.first + at, n), from..to, panel) };
            for (t, c) in sums[i * blocks * 4..][..blocks * 4].chunks_exact_mut(4).enumerate() {
                let tokens = SIDE.min(n_tokens - t * SIDE);
                let block = Block {
                    a: p.x.tiles[(t * steps + from) * p.x.terms * 2..].as_ptr(),
                    a_step: p.x.terms * 2,
                    b: panel.as_ptr(),
                    b_step: T * 2,
                    steps: to - from,
                    c: c.as_mut_ptr(),
                    add: from > 0,
                    tokens,
                };
                ask(p, next(at), cols.len(), t, blocks);
                // SAFETY: the tokens' tiles are [blocks, steps, x.terms, 2] (checked), of which t and from..to are inside; the
                // panel was filled with [to - from, T, 2]; c is four tiles, and ours.
                unsafe { unit.multiply(p.products, block) };
                if to == steps {
                    write(c, t * SIDE, tokens, &mut out.sub(cols.start + at..cols.start + at + n));
                }
            }
        }
    }
}

/// Asks for a panel's weights while the one before it is multiplied: part `part` of `parts` of those of the SIDE outputs from `at` on,
/// where the call has `n_out`, and of these inputs.
#[inline(always)]
fn ask(p: &Product<'_>, (at, inputs): (usize, Range<usize>), n_out: usize, part: usize, parts: usize) {
    let (first, n) = (p.first + at, SIDE.min(n_out - at));
    let inputs = inputs.start..inputs.end.min(p.w.n_in);
    let bytes = |elements: usize| elements / p.w.dtype.block_elements() * p.w.dtype.block_bytes();
    // Rows of the matrix, the element at which the first begins, and how many there are of each.
    let (rows, start, stride, len) = match p.w.layout {
        Layout::OutIn => (n, first * p.w.n_in + inputs.start, p.w.n_in, inputs.len()),
        Layout::InOut => (inputs.len(), inputs.start * p.w.n_out + first, p.w.n_out, n),
    };
    for row in rows * part / parts..rows * (part + 1) / parts {
        let from = p.w.data.as_ptr().wrapping_add(bytes(start + row * stride));
        for line in (0..bytes(len)).step_by(LINE) {
            prefetch::near(from.wrapping_add(line));
        }
    }
}

/// The sums `c: [2, 2]` tiles to `tokens` rows of `out` from `first` on.
#[inline(always)]
fn write(c: &[Tile], first: usize, tokens: usize, out: &mut ColumnsMut<'_>) {
    for t in 0..tokens {
        let row = out.row_mut(first + t);
        for (row, tile) in row.chunks_mut(16).zip(&c[t / 16 * 2..]) {
            let sums = &tile.0[t % 16 * 16..][..16];
            row.iter_mut().zip(sums).for_each(|(y, sum)| *y = f32::from_bits(*sum));
        }
    }
}
