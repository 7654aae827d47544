//! Activations and weights into tiles of bf16.
//!
//! A tile of tokens has a token's 32 inputs in each row. A tile of weights has an output in each column, and in row k the inputs 2k and
//! 2k + 1: it is 16 rows of a matrix that lies row by output, transposed by pairs.

use super::{Product, SIDE, STEP, Tile, Unit};
use crate::format::{DType, Quant};
use crate::kernels::Layout;
use crate::kernels::quant::row::{PART, Row};
use crate::kernels::simd::Simd;

/// Steps that are converted at a time: the inputs of the longest blocks of quantised types.
pub const GROUP: usize = 8;
const GROUP_INPUTS: usize = GROUP * STEP;

/// Inputs of a step in bf16, as they lie in memory.
type Halves = [u16; STEP];

/// `x`, at most a step of inputs, as bf16 terms: each the rest of those before, rounded. Zeros where `x` ends.
#[inline(always)]
fn split<S: Simd, const T: usize>(s: S, x: &[f32], out: &mut [Halves; T]) {
    for at in (0..STEP).step_by(S::LANES) {
        let mut rest = s.get(x.get(at..).unwrap_or_default(), 0.0);
        for term in &mut *out {
            let half = s.f32_to_bf16(rest);
            // SAFETY: a vector of halves fits, for S::LANES divides STEP.
            unsafe { s.store_half(term[at..].as_mut_ptr().cast(), half) };
            rest = s.sub(rest, s.bf16_to_f32(half));
        }
    }
}

/// Rows of `x: [n, n_in]` into `out: [n.div_ceil(SIDE), steps, terms, 2]`.
#[inline(always)]
pub(in crate::kernels) fn pack_rows<S: Simd>(s: S, x: &[f32], n_in: usize, terms: usize, out: &mut [Tile]) {
    match terms {
        1 => pack_terms::<S, 1>(s, x, n_in, out),
        2 => pack_terms::<S, 2>(s, x, n_in, out),
        _ => pack_terms::<S, 3>(s, x, n_in, out),
    }
}

#[inline(always)]
fn pack_terms<S: Simd, const T: usize>(s: S, x: &[f32], n_in: usize, out: &mut [Tile]) {
    let mut terms = [[0; STEP]; T];
    for (x, block) in x.chunks(SIDE * n_in).zip(out.chunks_exact_mut(n_in.div_ceil(STEP) * T * 2)) {
        for row in 0..SIDE {
            // A token that is not there has no inputs: its row becomes zeros.
            let x = x.chunks_exact(n_in).nth(row).unwrap_or_default();
            for (step, tiles) in block.chunks_exact_mut(2 * T).enumerate() {
                split::<S, T>(s, x.get(step * STEP..).unwrap_or_default(), &mut terms);
                for (pair, term) in tiles.chunks_exact_mut(2).zip(&terms) {
                    let row_of = &mut pair[row / 16].0[row % 16 * 16..][..16];
                    row_of.iter_mut().zip(term.as_chunks::<2>().0).for_each(|(to, [even, odd])| *to = dword(*even, *odd));
                }
            }
        }
    }
}

/// Two inputs as tiles hold them.
#[inline(always)]
fn dword(even: u16, odd: u16) -> u32 {
    u32::from(odd) << 16 | u32::from(even)
}

/// The weights of outputs `first..first + n` (`n` ≤ SIDE) and the steps `steps` (a multiple of [`GROUP`] the first) into
/// `out: [steps, T, 2]`; outputs and inputs that are not there become zeros.
///
/// # Safety
/// `unit` was made by its word.
#[inline(always)]
pub unsafe fn pack_weights<S: Simd, U: Unit, const T: usize>(
    s: S,
    unit: &U,
    p: &Product<'_>,
    (first, n): (usize, usize),
    steps: std::ops::Range<usize>,
    out: &mut [Tile],
) {
    let mut rows = [Row::ZERO; 16];
    for (group, tiles) in out[..steps.len() * T * 2].chunks_mut(GROUP * T * 2).enumerate() {
        let k = (steps.start + group * GROUP) * STEP;
        if p.w.layout == Layout::InOut {
            columns::<S, T>(s, p, (first, n), k, tiles);
            continue;
        }
        for j in 0..2 {
            let outputs = (first + 16 * j, n.saturating_sub(16 * j).min(16));
            // SAFETY: passed on.
            unsafe {
                match p.w.dtype {
                    DType::Quant(quant) => columns_of_blocks(s, unit, p, quant, outputs, k, tiles, j, &mut rows),
                    DType::BF16 => {
                        let done = columns_in_place(unit, p, outputs, k, tiles, j);
                        columns_of_rows::<S, U, T>(s, unit, p, outputs, k + done * STEP, &mut tiles[done * T * 2..], j);
                    }
                    _ => columns_of_rows::<S, U, T>(s, unit, p, outputs, k, tiles, j),
                }
            }
        }
    }
}

/// From a quantised matrix: `n` ≤ 16 outputs from `first` on, from input `k` on, into the j-th tiles of `tiles: [steps, 1, 2]`; `rows`
/// is scratch.
///
/// Lanes are outputs from the start: 16 rows of bytes are transposed, as are their scales, so that a dword has four inputs of its
/// output. They become f32, are scaled, rounded, and are two dwords of the tile in the lane where they were.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // what, from where, and to where
unsafe fn columns_of_blocks<S: Simd, U: Unit>(
    s: S,
    unit: &U,
    p: &Product<'_>,
    quant: Quant,
    (first, n): (usize, usize),
    k: usize,
    tiles: &mut [Tile],
    j: usize,
    rows: &mut [Row; 16],
) {
    let (dtype, len, read) = (DType::Quant(quant), GROUP_INPUTS.min(p.w.n_in - k), p.rows.of(quant));
    let bytes = |elements: usize| elements / dtype.block_elements() * dtype.block_bytes();
    for (i, row) in rows.iter_mut().enumerate() {
        if i < n {
            let blocks = &p.w.data[bytes((first + i) * p.w.n_in + k)..][..bytes(len)];
            // SAFETY: the unit is there, so the CPU has the features of its table.
            unsafe { read(blocks, row) };
        } else {
            *row = Row::ZERO;
        }
    }
    let [mut d, mut m] = [Tile::ZERO; 2]; // a row for each part
    let mut quads = [Tile::ZERO; GROUP_INPUTS / 64]; // of four inputs
    // SAFETY: 64 bytes lie at each of these.
    unsafe {
        unit.transpose(std::array::from_fn(|i| rows[i].d.as_ptr().cast()), &mut d);
        unit.transpose(std::array::from_fn(|i| rows[i].m.as_ptr().cast()), &mut m);
        for (line, quads) in quads.iter_mut().enumerate() {
            unit.transpose(std::array::from_fn(|i| rows[i].w[64 * line..].as_ptr().cast()), quads);
        }
    }
    for (step, pair) in tiles.chunks_exact_mut(2).enumerate() {
        for half in 0..STEP / PART {
            let part = step * STEP / PART + half;
            for lanes in (0..16).step_by(S::LANES) {
                // SAFETY: a row of a tile has 16 dwords, of which S::LANES from `lanes` on.
                unsafe {
                    let (d, m) = (s.load(d.row(part).add(lanes).cast()), s.load(m.row(part).add(lanes).cast()));
                    for quad in 0..PART / 4 {
                        let [a, b, c, e] = s.load_bytes(quads[part / 4].row(part % 4 * 4 + quad).add(lanes).cast());
                        let to = &mut pair[j].0[(8 * half + 2 * quad) * 16 + lanes..];
                        s.store_bf16_pairs(to.as_mut_ptr(), s.fma(d, a, m), s.fma(d, b, m));
                        s.store_bf16_pairs(to[16..].as_mut_ptr(), s.fma(d, c, m), s.fma(d, e, m));
                    }
                }
            }
        }
    }
}

/// From a matrix of bf16 whose rows are outputs, the whole steps: no more than transposed. As [`columns_of_rows`], for one term; returns the
/// number of steps.
#[inline(always)]
unsafe fn columns_in_place<U: Unit>(
    unit: &U,
    p: &Product<'_>,
    (first, n): (usize, usize),
    k: usize,
    tiles: &mut [Tile],
    j: usize,
) -> usize {
    const NO_ROW: [u8; 2 * STEP] = [0; 2 * STEP];
    let steps = ((p.w.n_in - k) / STEP).min(tiles.len() / 2);
    for (step, pair) in tiles.chunks_exact_mut(2).take(steps).enumerate() {
        let row = |i| &p.w.data[2 * ((first + i) * p.w.n_in + k + step * STEP)..][..2 * STEP];
        let rows = std::array::from_fn(|i| if i < n { row(i).as_ptr() } else { NO_ROW.as_ptr() });
        // SAFETY: each is a step of bf16, 64 bytes.
        unsafe { unit.transpose(rows, &mut pair[j]) };
    }
    steps
}

/// From a matrix whose rows are outputs: `n` ≤ 16 of them from `first` on, from input `k` on, into the j-th tiles of `tiles: [steps, T, 2]`.
#[inline(always)]
unsafe fn columns_of_rows<S: Simd, U: Unit, const T: usize>(
    s: S,
    unit: &U,
    p: &Product<'_>,
    (first, n): (usize, usize),
    k: usize,
    tiles: &mut [Tile],
    j: usize,
) {
    if tiles.is_empty() {
        return;
    }
    let len = GROUP_INPUTS.min(p.w.n_in - k);
    let mut row = [0.0; GROUP_INPUTS];
    let mut halves = [[[[0; STEP]; T]; GROUP]; 16];
    for (i, halves) in halves.iter_mut().enumerate().take(n) {
        p.kernels.unpack(p.w.dtype, p.w.data, (first + i) * p.w.n_in + k, &mut row[..len]);
        for (x, terms) in row[..len].chunks(STEP).zip(halves) {
            split::<S, T>(s, x, terms);
        }
    }
    for (step, tiles) in tiles.chunks_exact_mut(2 * T).enumerate() {
        for (term, pair) in tiles.chunks_exact_mut(2).enumerate() {
            let rows = std::array::from_fn(|i| halves[i][step][term].as_ptr().cast());
            // SAFETY: a step's halves are 64 bytes.
            unsafe { unit.transpose(rows, &mut pair[j]) };
        }
    }
}

/// From a matrix whose columns are outputs: a pair of its rows is a row of tiles.
#[inline(always)]
fn columns<S: Simd, const T: usize>(s: S, p: &Product<'_>, (first, n): (usize, usize), k: usize, tiles: &mut [Tile]) {
    let mut row = [0.0; SIDE];
    let mut pair = [[[0; SIDE]; T]; 2];
    for (step, tiles) in tiles.chunks_exact_mut(2 * T).enumerate() {
        for r in 0..16 {
            for (odd, terms) in pair.iter_mut().enumerate() {
                let k = k + step * STEP + 2 * r + odd;
                let row = if k < p.w.n_in { &mut row[..n] } else { &mut [] };
                if !row.is_empty() {
                    p.kernels.unpack(p.w.dtype, p.w.data, k * p.w.n_out + first, row);
                }
                split::<S, T>(s, row, terms);
            }
            for (i, tile) in tiles.iter_mut().enumerate() {
                let (even, odd) = (&pair[0][i / 2][i % 2 * 16..], &pair[1][i / 2][i % 2 * 16..]);
                let row = &mut tile.0[16 * r..][..16];
                row.iter_mut().zip(even).zip(odd).for_each(|((to, even), odd)| *to = dword(*even, *odd));
            }
        }
    }
}
