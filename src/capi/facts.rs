//! What is told about a model before and after it is loaded: memory, metadata.

use super::engine_model;
use super::guard::{OutBuffer, guard, guard_or, handle, null};
use super::model::{load_options, required_path};
use super::options::{Sized_, engine_load_options, read, write};
use super::status::engine_status;
use crate::error::{Error, ErrorKind};
use crate::model::Model;
use std::ffi::{CStr, c_char};

/// Memory that a model and its caches will take, in bytes. Set struct_size and call engine_estimate_memory().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct engine_memory_estimate {
    /// sizeof(engine_memory_estimate), set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Weights that stay in the mapped files: the system may drop their pages and read them again.
    pub weights_mapped: u64,
    /// Weights in memory of the process: converted ones, norms and biases, and everything with ENGINE_MAPPING_COPY.
    pub weights_packed: u64,
    /// What each cache (ENGINE_KV_F32; half of it for the 16-bit types) grows by for 1000 tokens.
    pub cache_per_1000_tokens: u64,
    /// What each cache needs at most beside that, however long it gets, for layers that see only a window of the last tokens.
    pub cache_windows: u64,
}

// SAFETY: repr(C), a u32 first, integers only.
unsafe impl Sized_ for engine_memory_estimate {
    const NAME: &'static str = "engine_memory_estimate";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// Tells what engine_load_model() with the same path and options would take, and caches of that model, from the files' headers
/// alone. The activations of a step, a few megabytes a cache, are not counted. *estimate: struct_size is set by the caller.
///
/// Errors: as engine_load_model(), as far as the headers tell.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_estimate_memory(
    path: *const c_char,
    options: *const engine_load_options,
    estimate: *mut engine_memory_estimate,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let (path, options) = (required_path(path)?, load_options(read(options)?.as_ref())?);
        if estimate.is_null() {
            return Err(null("estimate"));
        }
        let told = Model::estimate(path, &options)?;
        let value = engine_memory_estimate {
            struct_size: 0,
            reserved: 0,
            weights_mapped: told.weights_mapped,
            weights_packed: told.weights_packed,
            cache_per_1000_tokens: told.cache_per_1000_tokens,
            cache_windows: told.cache_windows,
        };
        write(value, estimate, "estimate")
    })
}

/// The value of one key of a GGUF file's metadata, or of a directory's config.json, as text: a text as it is, a number or a truth
/// value as JSON has it, a list as JSON. key: NUL-terminated, such as "general.name" or "llama.rope.freq_base"; a key inside an object
/// of config.json has the object's name and a dot before it, such as "rope_parameters.rope_theta".
///
/// text, text_len as for engine_model_detokenize().
///
/// Errors: ENGINE_ERR_NOT_FOUND if there is no such key; ENGINE_ERR_BUFFER_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_model_metadata(
    model: *const engine_model,
    key: *const c_char,
    text: *mut c_char,
    text_len: *mut usize,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let model = handle(model, "model")?;
        let out = OutBuffer::<u8>::new(text.cast(), text_len, "text", "text_len")?;
        if key.is_null() {
            return Err(null("key"));
        }
        let key = CStr::from_ptr(key).to_string_lossy();
        let value = model.model.metadata(&key)?;
        let missing = || Error::new(ErrorKind::NotFound, format!("the model's files have no key \"{key}\""));
        out.write(value.ok_or_else(missing)?.as_bytes())
    })
}

/// How many keys engine_model_metadata() knows. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_model_metadata_count(model: *const engine_model) -> usize {
    // SAFETY: NULL or a live handle.
    let model = unsafe { model.as_ref() };
    guard_or(0, || model.map_or(0, |model| model.model.metadata_keys().len()))
}

/// The key with the number `index`, from 0, in alphabetic order.
///
/// text, text_len as for engine_model_detokenize().
///
/// Errors: ENGINE_ERR_BAD_ARGUMENT if index is not less than engine_model_metadata_count(); ENGINE_ERR_BUFFER_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_model_metadata_key(
    model: *const engine_model,
    index: usize,
    text: *mut c_char,
    text_len: *mut usize,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let model = handle(model, "model")?;
        let out = OutBuffer::<u8>::new(text.cast(), text_len, "text", "text_len")?;
        let keys = model.model.metadata_keys();
        let beyond = || Error::bad_argument(format!("index is {index}; there are {} keys", keys.len()));
        out.write(keys.get(index).ok_or_else(beyond)?.as_bytes())
    })
}
