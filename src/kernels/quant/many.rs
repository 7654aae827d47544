//! The product of a quantised matrix with the activations of many tokens, by integer products.
//!
//! **Order of summation**, for every output and on every instruction set: one f32 sum. A row is taken a part at a time: 32
//! elements, or 16 where a type scales each 16. The integer sum of a part's products is exact; as f32 it is multiplied with the
//! scales of weights and activations and added; so then is, of types with minimums, the part's minimum times the sum of its activations.
//! No operation is fused. So a result has the same bits on every instruction set, whatever else is computed beside it. (The
//! products of few tokens, in `product`, are the same but for the order in which they are added.)
//!
//! **Layout.** Lanes are rows: 256 elements of 16 rows are unpacked to a [`Panel`] of bytes,
//!
//! ```text
//! w[k / 4] = | row 0: k..k+4 | row 1: k..k+4 | … | row 15: k..k+4 |        4 KB, which stay in the nearest cache
//! ```
//!
//! and every token's four activations k..k+4, in all lanes, meet them. So the products of one output meet in one lane, and are summed in
//! 16 bits as long as they fit; what follows (to 32 bits, to f32, scales) is done once a part for eight outputs.
//!
//! **Blocking.** 256 elements of all the tokens lie side by side (less than 256 KB for 512 tokens, which stay in L2) while the rows of
//! a task pass by; sums between blocks of 256 are kept in scratch.

// Loops by number: what iterators are made of is functions of their own, which a compiler may leave without the CPU's features.
#![allow(clippy::needless_range_loop)]

use super::activations::{Activations, BLOCK, split};
use super::ints::Ints;
use super::product::{MAX_BYTES, Scales};
use super::{Bytes, Format, Product, Sink};
use crate::format::DType;
use crate::threads::ColumnsMut;

/// Rows of a panel: two vectors of lanes.
const ROWS: usize = 16;
/// Tokens whose sums are in registers at once.
const TOKENS: usize = 3;
/// Bytes that are multiplied together: those of one lane.
const QUAD: usize = 4;
/// Parts of 256 elements, at most.
const MAX_PARTS: usize = BLOCK / 16;
/// The constant that is subtracted from the bytes of types with a [`Bytes::offset`]: theirs are scaled up to it.
pub(super) const OFFSET: i16 = 32;

/// Elements of scratch for a call with so many outputs and tokens.
pub(in crate::kernels) fn scratch_len(n_out: usize, n_tokens: usize) -> usize {
    n_out.next_multiple_of(ROWS) * n_tokens
}

/// 256 elements of 16 rows.
#[repr(C, align(64))]
struct Panel {
    /// As drawn above.
    w: [[[u8; QUAD]; ROWS]; BLOCK / QUAD],
    /// Of each part, its scale and its minimum.
    d: [[f32; ROWS]; MAX_PARTS],
    m: [[f32; ROWS]; MAX_PARTS],
}

/// 256 elements of one row.
#[repr(C, align(64))]
struct Row {
    w: [u8; BLOCK],
    d: [f32; MAX_PARTS],
    m: [f32; MAX_PARTS],
    bytes: Bytes,
}

/// The quads of 8 rows that are `from` bytes apart, as the lanes of vectors that are `to` bytes apart.
///
/// # Safety
/// There are 32 bytes of each row at `rows`, and room for 8 vectors at `panel`.
#[inline(always)]
unsafe fn interleave<S: Ints>(s: S, rows: *const u8, from: usize, panel: *mut u8, to: usize) {
    // SAFETY: the caller's word.
    unsafe {
        let vectors = s.transposed(each!(8, R => s.load(rows.add(R * from))));
        for i in 0..8 {
            s.store(panel.add(i * to), vectors[i]);
        }
    }
}

impl Panel {
    /// From the 16 rows.
    #[inline(always)]
    fn fill<S: Ints>(&mut self, s: S, rows: &[Row; ROWS]) {
        const FROM: usize = size_of::<Row>();
        const TO: usize = ROWS * QUAD;
        for half in 0..2 {
            let rows = &rows[8 * half];
            for j in 0..BLOCK / 32 {
                let (w, panel) = (rows.w[32 * j..].as_ptr(), self.w[8 * j].as_mut_ptr());
                // SAFETY: 8 rows follow each other from here on; so do 8 vectors, of which these are the halves.
                unsafe { interleave(s, w, FROM, panel.cast::<u8>().add(32 * half), TO) };
            }
            for part in (0..BLOCK / rows.bytes.part).step_by(8) {
                for (of_rows, of_panel) in [(&rows.d, &mut self.d), (&rows.m, &mut self.m)] {
                    let (numbers, panel) = (of_rows[part..].as_ptr(), of_panel[part].as_mut_ptr());
                    // SAFETY: as above; a number is as long as a quad.
                    unsafe { interleave(s, numbers.cast(), FROM, panel.cast::<u8>().add(32 * half), TO) };
                }
            }
        }
    }
}

impl Row {
    /// Puts number i of `values` to its place, where those at even places come first.
    fn join(values: [f32; 8], out: &mut [f32; MAX_PARTS]) {
        for j in 0..8 {
            out[j] = values[split(j)];
        }
    }
}

impl<S: Ints> Sink<S> for Row {
    #[inline(always)]
    fn by_256<const SIGNED: bool>(&mut self, s: S, w: [S::B; 8], by: Scales<S>) {
        let (mut scales, mut mins) = ([0; 16], [0; 16]);
        // SAFETY: the arrays have the 16 numbers and 256 bytes that are written.
        unsafe {
            s.store_w(scales.as_mut_ptr(), by.scales);
            if let Some(by) = by.mins {
                s.store_w(mins.as_mut_ptr(), by);
            }
            for j in 0..8 {
                s.store(self.w.as_mut_ptr().add(32 * j), w[j]);
            }
        }
        let parts = BLOCK / self.bytes.part;
        for part in 0..parts {
            // Those of 16 elements: at even places, then at odd ones. Of 32: twice all of them.
            let at = if parts == MAX_PARTS { part / 2 + part % 2 * 8 } else { part };
            self.d[part] = by.d * f32::from(scales[at]);
            self.m[part] = -(by.e * f32::from(mins[at]));
        }
        if let Some(times) = (OFFSET as u8).checked_div(self.bytes.offset) {
            self.w.iter_mut().for_each(|w| *w *= times);
            self.d.iter_mut().for_each(|d| *d /= f32::from(times)); // a power of two
        }
    }

    #[inline(always)]
    fn by_64<const SIGNED: bool>(&mut self, s: S, w: [[S::B; 2]; 4], d: S::F, m: Option<S::F>) {
        let (mut halves, mut numbers) = ([0; 32], [0.0; 8]);
        for j in 0..4 {
            for half in 0..2 {
                // SAFETY: there is room for 32 bytes.
                unsafe { s.store(halves.as_mut_ptr(), w[j][half]) };
                let to = &mut self.w[64 * j + 16 * half..];
                to[..16].copy_from_slice(&halves[..16]);
                to[32..48].copy_from_slice(&halves[16..]);
            }
        }
        // SAFETY: there is room for 8 numbers.
        unsafe { s.store_f(numbers.as_mut_ptr(), d) };
        Row::join(numbers, &mut self.d);
        if let Some(m) = m {
            // SAFETY: there is room for 8 numbers.
            unsafe { s.store_f(numbers.as_mut_ptr(), m) };
            Row::join(numbers, &mut self.m);
        }
    }

    #[inline(always)]
    fn by_32(&mut self, s: S, w: [S::B; 8], d: S::F) {
        let mut numbers = [0.0; 8];
        // SAFETY: there is room for 256 bytes and 8 numbers.
        unsafe {
            for j in 0..8 {
                s.store(self.w.as_mut_ptr().add(32 * j), w[j]);
            }
            s.store_f(numbers.as_mut_ptr(), d);
        }
        Row::join(numbers, &mut self.d);
    }
}

/// `p.x` is `[n_in.div_ceil(BLOCK), out.rows()]`, from `activations::quantise_column`; `scratch` is of [`scratch_len`].
///
/// # Safety
/// `p` has passed `Product::check` for `F` and `out`.
#[inline(always)]
pub(in crate::kernels) unsafe fn matmul<S: Ints, F: Format>(
    s: S,
    p: &Product<'_>,
    scratch: &mut [f32],
    out: &mut ColumnsMut<'_>,
) {
    let (cols, tokens) = (out.cols().len(), out.rows());
    let sums = &mut scratch[..scratch_len(cols, tokens)];
    sums.fill(0.0);
    let mut panel = Panel { w: [[[0; QUAD]; ROWS]; BLOCK / QUAD], d: [[0.0; ROWS]; MAX_PARTS], m: [[0.0; ROWS]; MAX_PARTS] };
    let mut rows = [const { Row { w: [0; BLOCK], d: [0.0; MAX_PARTS], m: [0.0; MAX_PARTS], bytes: F::BYTES } }; ROWS];
    for block in 0..p.n_in.div_ceil(BLOCK) {
        let x = &p.x[block * tokens..][..tokens];
        for (group, sums) in sums.chunks_exact_mut(ROWS * tokens).enumerate() {
            for r in 0..ROWS {
                // SAFETY: `check` saw that the rows from first on are rows of w, and this one is below cols; past the end the
                // last one stands in.
                unsafe { unpack::<S, F>(s, p, (group * ROWS + r).min(cols - 1), block, &mut rows[r]) };
            }
            panel.fill(s, &rows);
            let mut t = 0;
            while t < tokens {
                let (x, sums) = (&x[t..], &mut sums[t * ROWS..]);
                // SAFETY: there are as many tokens, with ROWS sums each.
                t += unsafe {
                    match tokens - t {
                        1 => add::<S, F, 1>(s, &panel, x, sums),
                        2 => add::<S, F, 2>(s, &panel, x, sums),
                        _ => add::<S, F, TOKENS>(s, &panel, x, sums),
                    }
                };
            }
        }
    }
    for (group, sums) in sums.chunks_exact(ROWS * tokens).enumerate() {
        for t in 0..tokens {
            let row = &mut out.row_mut(t)[group * ROWS..];
            let n = row.len().min(ROWS);
            row[..n].copy_from_slice(&sums[t * ROWS..][..n]);
        }
    }
}

/// Block `block` of row `p.first + row`.
///
/// # Safety
/// As for `matmul`; `p.first + row` is a row of `p.w`, `block` is a block of it.
#[inline(always)]
unsafe fn unpack<S: Ints, F: Format>(s: S, p: &Product<'_>, row: usize, block: usize, to: &mut Row) {
    let dtype = DType::Quant(F::TYPE);
    let group_bytes = BLOCK / dtype.block_elements() * dtype.block_bytes();
    let row_bytes = p.n_in / dtype.block_elements() * dtype.block_bytes();
    // SAFETY: the row's bytes are in w, as `check` saw; of its last block, what is there is copied and the rest is blocks of scale 0.
    unsafe {
        let w = p.w.as_ptr().add((p.first + row) * row_bytes + block * group_bytes);
        let rest = row_bytes - block * group_bytes;
        if rest >= group_bytes {
            F::read(s, w, to);
        } else {
            let mut filled = [0; MAX_BYTES];
            std::ptr::copy_nonoverlapping(w, filled.as_mut_ptr(), rest);
            F::read(s, filled.as_ptr(), to);
        }
    }
}

/// Adds the products of `panel` with the first T tokens of `x` to `sums: [T, ROWS]`; returns T.
///
/// # Safety
/// There are T tokens and their sums.
#[inline(always)]
unsafe fn add<S: Ints, F: Format, const T: usize>(s: S, panel: &Panel, x: &[Activations], sums: &mut [f32]) -> usize {
    let Bytes { part: part_len, signed, offset, mins, .. } = F::BYTES;
    let quads = part_len / QUAD;
    let (one, fits) = (s.splat_w(1), F::BYTES.fits());
    debug_assert!(x.len() >= T && sums.len() >= T * ROWS);
    // SAFETY: of x and sums the caller's word; quads and parts are those of a block.
    unsafe {
        let x = x.as_ptr();
        let y = sums.as_mut_ptr();
        let mut sum = [[s.splat_f(0.0); 2]; T];
        for t in 0..T {
            sum[t] = [s.load_f(y.add(t * ROWS)), s.load_f(y.add(t * ROWS + 8))];
        }
        for part in 0..BLOCK / part_len {
            let mut total = [[s.zero(); 2]; T];
            if signed {
                for k in part * quads..(part + 1) * quads {
                    let w: *const u8 = (&raw const panel.w[k]).cast();
                    let w = [s.load(w), s.load(w.add(32))];
                    let magnitude = [s.magnitude(w[0]), s.magnitude(w[1])];
                    for t in 0..T {
                        let q = s.splat_quad((&raw const (*x.add(t)).q).cast::<u8>().add(QUAD * k));
                        total[t] = [
                            s.add_signed_quads(total[t][0], w[0], magnitude[0], q),
                            s.add_signed_quads(total[t][1], w[1], magnitude[1], q),
                        ];
                    }
                }
            } else {
                let mut pairs = [[s.splat_w(0); 2]; T];
                if offset > 0 {
                    for t in 0..T {
                        pairs[t] = [s.splat_pair((&raw const (*x.add(t)).offsets[part]).cast()); 2];
                    }
                }
                for i in 0..quads {
                    let k = part * quads + i;
                    let w: *const u8 = (&raw const panel.w[k]).cast();
                    let w = [s.load(w), s.load(w.add(32))];
                    for t in 0..T {
                        let q = s.splat_quad((&raw const (*x.add(t)).q).cast::<u8>().add(QUAD * k));
                        pairs[t] = [s.add_w(pairs[t][0], s.pairs(w[0], q)), s.add_w(pairs[t][1], s.pairs(w[1], q))];
                    }
                    if (i + 1) % fits == 0 || i + 1 == quads {
                        for t in 0..T {
                            total[t] =
                                [s.add_products(total[t][0], pairs[t][0], one), s.add_products(total[t][1], pairs[t][1], one)];
                            pairs[t] = [s.splat_w(0); 2];
                        }
                    }
                }
            }
            let d: *const f32 = (&raw const panel.d[part]).cast();
            let d = [s.load_f(d), s.load_f(d.add(8))];
            let m: *const f32 = (&raw const panel.m[part]).cast();
            let m = [s.load_f(m), s.load_f(m.add(8))];
            for t in 0..T {
                let x = x.add(t);
                let scale = s.splat_f((*x).scales[split(part * part_len / 32)]);
                for v in 0..2 {
                    sum[t][v] = s.add(sum[t][v], s.mul(s.to_f32(total[t][v]), s.mul(d[v], scale)));
                }
                if mins {
                    let of_x = if part_len == 32 {
                        (*x).sums[split(part)]
                    } else {
                        (*x).scales[split(part / 2)] * f32::from((*x).sums_16[part / 2 + part % 2 * 8])
                    };
                    let of_x = s.splat_f(of_x);
                    for v in 0..2 {
                        sum[t][v] = s.add(sum[t][v], s.mul(m[v], of_x));
                    }
                }
            }
        }
        for t in 0..T {
            s.store_f(y.add(t * ROWS), sum[t][0]);
            s.store_f(y.add(t * ROWS + 8), sum[t][1]);
        }
    }
    T
}
