//! Rotary position embedding: pair (a, b) at position p becomes (a·cos − b·sin, a·sin + b·cos) of the angle p · frequency.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::threads::ColumnsMut;
use once_cell::sync::OnceCell;

/// Which two elements of a head make a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Element i with element i + rotary_dim / 2 (Hugging Face, GPT-NeoX).
    HalfSplit,
    /// Element 2i with element 2i + 1 (the original Llama; GGUF files of `llama`, whose converter reorders q and k so).
    Interleaved,
}

/// Positions of one piece of the table; a piece is built when a sequence first reaches it.
const PIECE: usize = 1024;

/// Pieces of one group: so the list of them, too, grows with the positions in use, whatever context length a file claims.
const GROUP: usize = 1024;

/// Tables of cos and sin, shared by all sequences of a model.
pub struct RopeTable {
    /// Angle per position of each pair.
    frequencies: Vec<f64>,
    /// What cos and sin are multiplied by.
    magnitude: f64,
    pairing: Pairing,
    /// Groups of [`GROUP`] pieces, each `[PIECE, 2, n_pairs]`: a position's cos, then its sin.
    groups: Vec<OnceCell<Vec<OnceCell<Vec<f32>>>>>,
}

impl RopeTable {
    /// A table for `context_length` positions, still empty.
    pub fn new(frequencies: Vec<f64>, magnitude: f64, pairing: Pairing, context_length: usize) -> Result<Self> {
        Ok(Self { frequencies, magnitude, pairing, groups: empty_cells(context_length.div_ceil(PIECE * GROUP))? })
    }

    /// Builds what positions `0..len` need.
    pub fn prepare(&self, len: usize) -> Result<()> {
        let n = len.div_ceil(PIECE);
        for (i, group) in self.groups.iter().take(n.div_ceil(GROUP)).enumerate() {
            let pieces = group.get_or_try_init(|| empty_cells(GROUP))?;
            for (piece, i) in pieces.iter().zip(i * GROUP..n) {
                piece.get_or_try_init(|| self.build(i * PIECE))?;
            }
        }
        Ok(())
    }

    fn build(&self, first: usize) -> Result<Vec<f32>> {
        let mut table = Vec::new();
        super::grow(&mut table, PIECE * 2 * self.frequencies.len(), "the RoPE table")?;
        for (i, row) in table.chunks_exact_mut(2 * self.frequencies.len()).enumerate() {
            let (cos, sin) = row.split_at_mut(self.frequencies.len());
            for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(&self.frequencies) {
                // The angle in f64: in f32 a position of 100,000 would be off by 0.004 already.
                let (s, c) = ((first + i) as f64 * frequency).sin_cos();
                (*cos, *sin) = ((c * self.magnitude) as f32, (s * self.magnitude) as f32);
            }
        }
        Ok(table)
    }

    /// cos and sin of a prepared position, `[n_pairs]` each.
    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let n = self.frequencies.len();
        let piece = position / PIECE;
        let group = self.groups[piece / GROUP].get();
        let piece = group.and_then(|pieces| pieces[piece % GROUP].get()).expect("the step has prepared its positions");
        piece[position % PIECE * 2 * n..][..2 * n].split_at(n)
    }

    fn rotate(&self, head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let rotary = &mut head[..2 * self.frequencies.len()];
        match self.pairing {
            Pairing::HalfSplit => {
                let (first, second) = rotary.split_at_mut(cos.len());
                for (((a, b), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
                }
            }
            Pairing::Interleaved => {
                for ((pair, c), s) in rotary.chunks_exact_mut(2).zip(cos).zip(sin) {
                    let (a, b) = (pair[0], pair[1]);
                    (pair[0], pair[1]) = (a * c - b * s, a * s + b * c);
                }
            }
        }
    }
}

fn empty_cells<T>(n: usize) -> Result<Vec<OnceCell<T>>> {
    let mut cells = Vec::new();
    cells.try_reserve_exact(n).map_err(|_| Error::out_of_memory("the RoPE table", n.saturating_mul(size_of::<OnceCell<T>>())))?;
    cells.resize_with(n, OnceCell::new);
    Ok(cells)
}

/// Turns the heads that fill the first `heads` elements of each row of `x`, the rows being positions `first..`.
pub fn rope(table: &RopeTable, x: &mut ColumnsMut<'_>, heads: usize, head_dim: usize, first: usize) {
    for t in 0..x.rows() {
        let (cos, sin) = table.at(first + t);
        x.row_mut(t)[..heads].chunks_exact_mut(head_dim).for_each(|head| table.rotate(head, cos, sin));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_keeps_length_and_turns_by_the_angle() {
        for pairing in [Pairing::HalfSplit, Pairing::Interleaved] {
            let table = RopeTable::new(vec![1.0, 0.25], 1.0, pairing, 3000).unwrap();
            table.prepare(2049).unwrap();
            let (cos, sin) = table.at(2048);
            let mut head = [1.0, 2.0, 3.0, 4.0, 9.0]; // the fifth element does not turn
            table.rotate(&mut head, cos, sin);
            let pairs = if pairing == Pairing::HalfSplit { [(0, 2), (1, 3)] } else { [(0, 1), (2, 3)] };
            for ((a, b), frequency) in pairs.into_iter().zip([1.0f64, 0.25]) {
                let (x, y) = (a as f64 + 1.0, b as f64 + 1.0);
                let (s, c) = (2048.0 * frequency).sin_cos();
                assert!((f64::from(head[a]) - (x * c - y * s)).abs() < 1e-6);
                assert!((f64::from(head[b]) - (x * s + y * c)).abs() < 1e-6);
            }
            assert_eq!(head[4], 9.0);
        }
    }
}
