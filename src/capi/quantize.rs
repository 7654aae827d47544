//! `engine_quantize`: a GGUF file to a smaller one.

use super::guard::{guard, null};
use super::model::required_path;
use super::options::{Sized_, VERSION, engine_progress_callback, read, recipe, unknown};
use super::status::engine_status;
use crate::error::{Error, Result};
use crate::quantize::{QuantizeOptions, quantize};
use std::ffi::{c_char, c_void};

/// How to quantise a file. Make one with engine_quantize_options_init(), then set what should differ from the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct engine_quantize_options {
    /// sizeof(engine_quantize_options); engine_quantize_options_init() sets it.
    pub struct_size: u32,
    /// Threads, the caller's counted in. 0: one for each physical core that this process may use.
    pub threads: u32,
    /// 0: this version has no flags.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// NULL, or what to call while writing.
    pub progress: engine_progress_callback,
    /// Handed to `progress` as it is.
    pub user_data: *mut c_void,
}

// SAFETY: repr(C), a u32 first; the integers and pointers take any bytes, and so does the callback: it is called only as the caller says.
unsafe impl Sized_ for engine_quantize_options {
    const NAME: &'static str = "engine_quantize_options";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// Writes a GGUF model with its matrices quantised; metadata and tokenizer stay byte for byte, but for general.file_type and
/// general.quantization_version. Norms, biases, position tables and routers stay as they are, and so does a matrix that has its
/// type already. The types and so the sizes are those that llama.cpp gives the tensors, and llama.cpp loads the file.
///
/// input: a GGUF file (or the first of its parts, which become one file) of floats or of any quantised types that are read:
/// quantising again loses a little each time. output: appears whole or not at all, in place of a file of that name, which may be the
/// input. Both NUL-terminated. weights: ENGINE_WEIGHTS_Q8_0 and the quantised ones after it. options: NULL means defaults.
///
/// A Hugging Face directory is ENGINE_ERR_UNSUPPORTED here: engine_load_options.weights quantises those while loading.
///
/// Errors: as engine_load_model() for the input; ENGINE_ERR_BAD_FILE for an element that is not a finite number or is beyond 65504,
/// naming the tensor; ENGINE_ERR_IO, also for a full disk; ENGINE_ERR_CANCELLED. Nothing is left of the output then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_quantize(
    input: *const c_char,
    output: *const c_char,
    weights: i32,
    options: *const engine_quantize_options,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe { run(input, output, weights, options) })
}

/// # Safety
/// The paths are NULL or NUL-terminated; `options` as for [`read`].
unsafe fn run(input: *const c_char, output: *const c_char, weights: i32, options: *const engine_quantize_options) -> Result<()> {
    for (path, name) in [(input, "input"), (output, "output")] {
        if path.is_null() {
            return Err(null(name));
        }
    }
    // SAFETY: the caller's promise.
    let (input, output, options) = unsafe { (required_path(input)?, required_path(output)?, read(options)?) };
    let recipe = match recipe(weights) {
        Some(recipe) => recipe,
        None => {
            let expected = "expected ENGINE_WEIGHTS_Q8_0 (3) or one of the quantised types after it";
            return Err(Error::bad_argument(format!(
                "weights: {weights} is nothing that version {VERSION} quantises to: {expected}"
            )));
        }
    };
    let mut call;
    let mut told = QuantizeOptions::default();
    if let Some(options) = options {
        if (options.flags, options.reserved) != (0, 0) {
            return unknown("flags", format_args!("{:#x}", options.flags | options.reserved));
        }
        told.threads = options.threads as usize;
        if let Some(progress) = options.progress {
            // SAFETY: the header asks for a function that may be called with this user_data while the call runs.
            call = move |fraction| unsafe { progress(options.user_data, fraction) };
            told.progress = Some(&mut call);
        }
    }
    quantize(input, output, recipe, told)
}
