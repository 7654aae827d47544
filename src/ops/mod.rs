//! Linear, attention, RoPE, norms: agnostic of any model. An op takes a [`Ctx`] (kernels, pool, scratch), slices with their
//! shapes, and writes its output; parallel ops share out whole outputs, so no result depends on the number of threads.
#![forbid(unsafe_code)]

pub mod attention;
pub mod elementwise;
pub mod experts;
pub mod linear;
pub mod profile;
pub mod rope;

use crate::error::{Error, Result};
use crate::kernels::{Activations, Kernels, Tile};
use crate::threads::Pool;
use profile::{Op, Profile};

/// Up to this many tokens in one call of step take the few-token path, more take the prefill path. Within each path an
/// output's bits depend only on its own sequence; between the two the order of summation may differ, and on a matrix unit the rounding.
pub const FEW_TOKENS: usize = 16;

/// How many tokens a sequence feeds in this call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Up to [`FEW_TOKENS`]: matrix-vector kernels.
    Few,
    /// More: matrix-matrix products.
    Many,
}

impl Path {
    /// The path for `n_tokens` tokens fed in one call.
    pub fn for_tokens(n_tokens: usize) -> Self {
        if n_tokens <= FEW_TOKENS { Path::Few } else { Path::Many }
    }

    /// [`Ctx::few`] for a pass of `n_tokens` tokens, all on this path.
    pub fn few_of(self, n_tokens: usize) -> usize {
        if self == Path::Few { n_tokens } else { 0 }
    }
}

/// One thread's scratch; grown before a step and never inside an op.
#[derive(Default)]
pub struct Worker {
    /// A panel of weights as f32.
    panel: Vec<f32>,
    /// One attention task's.
    attention: attention::Scratch,
    /// One row: the input of a norm whose output takes its place.
    row: Vec<f32>,
    /// A few rows of a linear's input on their way to 8 bits.
    rows: Vec<f32>,
    /// A linear's weights and unfinished sums as tiles.
    tiles: Vec<Tile>,
    /// The first worker's: a linear's input in 8 bits, for all of them.
    quantised: Vec<Activations>,
    /// The same in blocks of inputs.
    blocks: Vec<f32>,
    /// The same as tiles.
    packed: Vec<Tile>,
}

impl Worker {
    /// Makes room for a row of so many elements.
    pub fn reserve(&mut self, row: usize) -> Result<()> {
        grow(&mut self.row, row, "row scratch")
    }
}

/// Lengthens `v` to at least `len`; fallible, never shrinks.
pub fn grow(v: &mut Vec<f32>, len: usize, what: &str) -> Result<()> {
    lengthen(v, len, 0.0, what)
}

fn lengthen<T: Clone>(v: &mut Vec<T>, len: usize, fill: T, what: &str) -> Result<()> {
    if let Some(more) = len.checked_sub(v.len()) {
        v.try_reserve_exact(more).map_err(|_| Error::out_of_memory(what, len.saturating_mul(size_of::<T>())))?;
        v.resize(len, fill);
    }
    Ok(())
}

/// What every op needs.
pub struct Ctx<'a> {
    /// The kernel table.
    pub kernels: &'static Kernels,
    /// The pool.
    pub pool: &'a Pool,
    /// A scratch for each of the pool's threads.
    pub workers: &'a mut [Worker],
    /// How many tokens, the first ones of the pass, take the few-token path; the others take the prefill path.
    pub few: usize,
    /// Where the time goes, if anybody asked.
    pub profile: Option<&'a mut Profile>,
}

impl Ctx<'_> {
    /// `op` is done, and went through so many bytes of weights, keys and values.
    #[inline]
    pub fn lap(&mut self, op: Op, bytes: usize) {
        if let Some(profile) = &mut self.profile {
            profile.lap(op, bytes);
        }
    }
}
