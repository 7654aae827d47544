//! The C ABI: the only `extern "C"` functions. Each checks its arguments, makes one call into the safe Rust API and turns
//! the outcome into a status. The contract (ownership, threads, NULL, errors, units) is `include/engine.h`, which
//! `tests/header.rs` generates from this module: its opening chapter is in `cbindgen.toml`, every declaration's text is the
//! doc comment here.
//!
//! | file | subject |
//! |---|---|
//! | `status` | status codes, the thread's last error, the version |
//! | `guard` | panics into statuses; pointers into references and slices |
//! | `options` | sized option structs |
//! | `model` | `engine_model`: loading, facts, text |
//! | `facts` | memory estimates, metadata |
//! | `cache` | `engine_cache`: steps |
//! | `batch` | steps of many caches at once |
//! | `profile` | where the time of steps went |
//! | `decoder` | `engine_decoder`: streaming text |
//! | `quantize` | `engine_quantize`: files to smaller ones |
//!
//! What every `unsafe` block here rests on is the same: the C caller keeps the header's chapter "Pointers" (a pointer is NULL
//! or valid for what the declaration says, a handle is one of ours and not yet freed). NULL, lengths and alignment are checked;
//! what a callee cannot see is the caller's promise.
// C names are the Rust names: what is read here is what the header says. The safety contract of all functions is the header.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

mod batch;
mod cache;
mod decoder;
mod facts;
mod guard;
mod model;
mod options;
mod profile;
mod quantize;
mod status;

pub use batch::*;
pub use cache::*;
pub use decoder::*;
pub use facts::*;
pub use model::*;
pub use options::*;
pub use profile::*;
pub use quantize::*;
pub use status::*;
