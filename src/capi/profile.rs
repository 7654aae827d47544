//! Where the time of steps went.

use super::cache::{engine_cache, locked};
use super::guard::{guard, handle};
use super::options::{Sized_, write};
use super::status::engine_status;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Op, Profile, Taken};
use std::ffi::{CStr, c_char};

/// What one op of the steps has taken. Set struct_size and call engine_cache_profile().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct engine_op_profile {
    /// sizeof(engine_op_profile), set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Such as "qkv", "attention", "gate_up"; lives for ever.
    pub name: *const c_char,
    /// How often it ran.
    pub calls: u64,
    /// How long it took, in all calls together.
    pub nanoseconds: u64,
    /// Bytes of weights, keys and values that it had to read or write, in all calls together, each counted once in a call. Activations
    /// are not counted.
    pub bytes: u64,
}

// SAFETY: repr(C), a u32 first, integers and raw pointers only.
unsafe impl Sized_ for engine_op_profile {
    const NAME: &'static str = "engine_op_profile";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// The number `index` of what can be told: first all passes through the model, then op by op.
fn entry(profile: &Profile, index: usize) -> Result<(&'static CStr, Taken)> {
    let Some(i) = index.checked_sub(1) else { return Ok((c"pass", profile.passes())) };
    let beyond = || Error::new(ErrorKind::NotFound, format!("index is {index}; there are {} entries", 1 + Op::ALL.len()));
    Op::ALL.get(i).map(|op| (op.c_name(), profile.of(*op))).ok_or_else(beyond)
}

/// Where the time went, in all steps since the cache was made or engine_cache_reset_profile() was called, of a model that was loaded
/// with engine_load_options.profile = 1. *op: struct_size is set by the caller.
///
/// Entry 0 is "pass": the passes through the model (a step of more than 512 tokens takes several) and what they took altogether. The
/// entries from 1 are the ops, in the order in which a layer runs them; those that a model does not have never run. Their times and
/// bytes add up to entry 0's. An index behind the last gives ENGINE_ERR_NOT_FOUND, so that
///
/// ```c
/// engine_op_profile op = {sizeof op};
/// for (size_t i = 0; engine_cache_profile(cache, i, &op) == ENGINE_OK; i++)
///     printf("%-16s %8.3f ms\n", op.name, op.nanoseconds / 1e6);
/// ```
///
/// lists them. Steps that shared a pass in engine_step_batch() are counted in the first of those requests' cache.
///
/// Errors: ENGINE_ERR_NOT_FOUND; ENGINE_ERR_BAD_ARGUMENT if the model was loaded without; ENGINE_ERR_POISONED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_cache_profile(
    cache: *const engine_cache,
    index: usize,
    op: *mut engine_op_profile,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let cache = handle(cache, "cache")?.cache.try_read().map_err(locked)?;
        let off = || Error::bad_argument("cache: its model was loaded without engine_load_options.profile");
        let (name, taken) = entry(cache.profile().ok_or_else(off)?, index)?;
        let value = engine_op_profile {
            struct_size: 0,
            reserved: 0,
            name: name.as_ptr(),
            calls: taken.calls,
            nanoseconds: u64::try_from(taken.time.as_nanos()).unwrap_or(u64::MAX),
            bytes: taken.bytes,
        };
        write(value, op, "op")
    })
}

/// Begins anew what engine_cache_profile() tells.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_cache_reset_profile(cache: *mut engine_cache) -> engine_status {
    // SAFETY: NULL or a live handle.
    guard(|| unsafe {
        handle(cache, "cache")?.cache.try_write().map_err(locked)?.reset_profile();
        Ok(())
    })
}
