//! The section `kernels`: the parts of a step by themselves, on every instruction set of this CPU.
//!
//! - fork-join: the time from a call of the pool to its end when there is nothing to do.
//! - TYPE/N_OUTxN_IN/M: the product of M tokens with a matrix in memory, as the library runs it, and by the other instruction
//!   sets and on the other path (few tokens, or prefill), and by BLAS: were one of those faster, the library's choice would be wrong.
//!   (With AVX-512 BLAS is the choice for f32; OPENBLAS_CORETYPE=Haswell in the environment shows our own kernel in its place.)
//! - attention/TYPE/HEADSxKV_HEADSxHEAD_DIM/DEPTH+M: M tokens behind DEPTH others.
//! - vector/NAME: norms, activations and sums of a row in cache.

pub mod attention;
mod fork_join;
mod products;
mod vectors;

use crate::report::Report;
use engine::kernels::{Isa, Kernels};
use engine::threads::Pool;

pub fn run(report: &mut Report<'_>) -> Result<(), String> {
    let pool = Pool::new(report.options.threads).map_err(|e| e.to_string())?;
    fork_join::run(report, &pool);
    products::run(report, &pool)?;
    attention::run(report, &pool)?;
    vectors::run(report)
}

/// The tables of this CPU, the plainest first; the plainest is what the others are checked against, and is not timed in big
/// products.
fn tables() -> impl Iterator<Item = &'static Kernels> {
    Isa::ALL.into_iter().filter_map(|isa| Kernels::select(Some(isa)).ok())
}
