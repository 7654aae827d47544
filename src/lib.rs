//! `engine` runs decoder-only language models on the CPU: a C ABI (`include/engine.h`) and, below, the safe Rust API
//! it is made of. The data flows one way, and a layer uses only the layers below it:
//!
//! ```text
//! files ──format──▶ tensors ──arch──▶ Spec + slots ──model──▶ Model ──┐
//!                                                                     ├─ forward ─▶ logits ─▶ token ─▶ text
//! tokens ───────────────────────────────────────────▶ Cache (KV, scratch) ┘
//! ```
//!
//! | layer | subject |
//! |---|---|
//! | `capi` | the only `extern "C"`: checks arguments, catches panics, keeps the last error |
//! | [`text`] | token ids to text and back |
//! | [`quantize()`] | a GGUF file to a smaller one; the choice of types, which loading uses too |
//! | [`model`] | [`Model`], [`Cache`], loading, the one decoder forward |
//! | [`arch`] | what a model is: a [`arch::Spec`] and the names of its tensors, a file per family |
//! | [`ops`] | linear, attention, RoPE, norms, activations: agnostic of any model |
//! | [`kernels`] | the inner loops, by instruction set |
//! | [`blas`] | the only call of `cblas_sgemm` |
//! | [`threads`] | the pool |
//! | [`format`] | files to named tensor views |
//! | [`error`] | [`Error`] |

pub mod arch;
pub mod blas;
pub mod capi;
pub mod error;
pub mod format;
pub mod kernels;
pub mod model;
pub mod ops;
pub mod quantize;
pub mod text;
pub mod threads;

pub use error::{Error, ErrorKind, Result};
pub use model::{Cache, CacheOptions, KvType, LoadOptions, Matmul, Model, Weights};
pub use quantize::{QuantizeOptions, Recipe, quantize};
