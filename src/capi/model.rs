//! `engine_model`: loading, facts, text.

use super::guard::{OutBuffer, OutHandle, free, guard, guard_or, handle, null, slice};
use super::options::{Sized_, engine_load_options, read, write};
use super::status::engine_status;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Info, LoadOptions, Model};
use crate::text::Tokenizer;
use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::sync::Arc;

/// A loaded model. Nothing changes it: any number of threads may use one at once.
pub struct engine_model {
    pub(super) model: Arc<Model>,
    info: Info,
    architecture: CString,
    isa: CString,
    name: CString,
    file_type: CString,
}

/// Facts about a model, for a person. Set struct_size and call engine_model_get_info().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct engine_model_info {
    /// sizeof(engine_model_info), set by the caller.
    pub struct_size: u32,
    /// Threads that work on a step, the caller's counted in.
    pub threads: u32,
    /// Number of parameters.
    pub n_params: u64,
    /// Bytes of weights, in memory or mapped.
    pub weight_bytes: u64,
    /// Decoder layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// The family, such as "llama", "gpt2", "olmo2"; lives as long as the model.
    pub architecture: *const c_char,
    /// The instruction set in use, such as "scalar", "avx2", "avx512"; lives as long as the model.
    pub isa: *const c_char,
    /// What the files call the model, "" if they do not; lives as long as the model.
    pub name: *const c_char,
    /// The type that most of the weights have in the files, such as "F32", "BF16", "Q4_K"; lives as long as the model.
    pub file_type: *const c_char,
}

// SAFETY: repr(C), a u32 first, integers and raw pointers only.
unsafe impl Sized_ for engine_model_info {
    const NAME: &'static str = "engine_model_info";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, name);
}

impl engine_model {
    fn new(model: Arc<Model>) -> Self {
        let info = model.info().clone();
        let text = |text: &str| CString::new(text.replace('\0', "?")).unwrap_or_default();
        let (architecture, isa) = (text(info.architecture), text(info.isa));
        let (name, file_type) = (text(&info.name), text(info.file_type));
        Self { model, info, architecture, isa, name, file_type }
    }

    fn tokenizer(&self) -> Result<&Tokenizer> {
        self.model.tokenizer()
    }
}

/// Handles are used from any thread.
const fn shared_between_threads<T: Send + Sync>() {}
const _: () = shared_between_threads::<Model>();

#[cfg(unix)]
fn native_path(path: &CStr) -> Result<&Path> {
    use std::os::unix::ffi::OsStrExt;
    Ok(Path::new(std::ffi::OsStr::from_bytes(path.to_bytes())))
}

#[cfg(not(unix))]
fn native_path(path: &CStr) -> Result<&Path> {
    path.to_str().map(Path::new).map_err(|_| Error::bad_argument("path is not UTF-8"))
}

/// # Safety
/// `path` is NULL or NUL-terminated; `options` as for [`read`].
unsafe fn load(path: *const c_char, options: *const engine_load_options) -> Result<engine_model> {
    // SAFETY: the caller's promise.
    let (path, options) = unsafe { (required_path(path)?, read(options)?) };
    let mut call;
    let mut load = load_options(options.as_ref())?;
    let Some(options) = options else {
        return Ok(engine_model::new(Model::load(path, load)?));
    };
    if let Some(progress) = options.progress {
        // SAFETY: the header asks for a function that may be called with this user_data while the load runs.
        call = move |fraction| unsafe { progress(options.user_data, fraction) };
        load.progress = Some(&mut call);
    }
    Ok(engine_model::new(Model::load(path, load)?))
}

/// # Safety
/// `path` is NULL or NUL-terminated.
pub(super) unsafe fn required_path<'a>(path: *const c_char) -> Result<&'a Path> {
    if path.is_null() {
        return Err(null("path"));
    }
    // SAFETY: not NULL, and the caller's promise.
    let path = unsafe { CStr::from_ptr(path) };
    if path.is_empty() {
        return Err(Error::bad_argument("path is empty"));
    }
    native_path(path)
}

/// The core's options, without the progress callback.
pub(super) fn load_options<'o>(options: Option<&engine_load_options>) -> Result<LoadOptions<'o>> {
    let Some(options) = options else { return Ok(LoadOptions::default()) };
    Ok(LoadOptions {
        threads: options.threads as usize,
        isa: options.isa()?,
        weights: options.weights()?,
        mapping: options.mapping()?,
        unknown_pre_tokenizer: options.unknown_pre_tokenizer()?,
        pin_threads: options.pin_threads()?,
        profile: options.profile()?,
        matmul: options.matmul()?,
        progress: None,
    })
}

/// Loads a model.
///
/// path: a Hugging Face directory (config.json and safetensors), a directory of .npy files, or a GGUF file, NUL-terminated;
/// which of them it is, is told from what is there. options: NULL means defaults. *model: the new model, to be freed
/// with engine_model_free(); NULL after a failure.
///
/// Errors: ENGINE_ERR_NOT_FOUND, ENGINE_ERR_IO, ENGINE_ERR_BAD_FILE, ENGINE_ERR_UNSUPPORTED (an architecture, a tensor type or
/// a setting that this version does not have, named in the message), ENGINE_ERR_OUT_OF_MEMORY, ENGINE_ERR_CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_load_model(
    path: *const c_char,
    options: *const engine_load_options,
    model: *mut *mut engine_model,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let out = OutHandle::new(model, "model")?;
        out.set(load(path, options)?);
        Ok(())
    })
}

/// Gives the model up; NULL is fine. Its caches and decoders stay usable: the memory goes with the last of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_model_free(model: *mut engine_model) {
    // SAFETY: NULL or a live handle, which the caller gives up.
    unsafe { free(model) }
}

/// Rows of the output head: the number of floats of one position's logits, and one more than the largest token id. It can be
/// more than the tokenizer has tokens. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_model_vocab_size(model: *const engine_model) -> usize {
    // SAFETY: NULL or a live handle.
    guard_or(0, || unsafe { model.as_ref() }.map_or(0, |model| model.model.vocab_size()))
}

/// Most tokens that one sequence of this model may have. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_model_context_length(model: *const engine_model) -> usize {
    // SAFETY: NULL or a live handle.
    guard_or(0, || unsafe { model.as_ref() }.map_or(0, |model| model.model.context_length()))
}

/// Writes facts about the model into *info, whose struct_size the caller has set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_model_get_info(model: *const engine_model, info: *mut engine_model_info) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let model = handle(model, "model")?;
        let facts = &model.info;
        let value = engine_model_info {
            struct_size: 0,
            threads: u32::try_from(facts.threads).unwrap_or(u32::MAX),
            n_params: facts.n_params,
            weight_bytes: facts.weight_bytes,
            n_layers: facts.n_layers,
            hidden_size: facts.hidden_size,
            n_heads: facts.n_heads,
            n_kv_heads: facts.n_kv_heads,
            head_dim: facts.head_dim,
            architecture: model.architecture.as_ptr(),
            isa: model.isa.as_ptr(),
            name: model.name.as_ptr(),
            file_type: model.file_type.as_ptr(),
        };
        write(value, info, "info")
    })
}

/// Token ids of a text, by the model's own tokenizer.
///
/// text, text_len: UTF-8 bytes, no NUL needed. add_special: also add the special tokens that the model puts around a text
/// (a beginning-of-text token for most), as its tokenizer says. tokens: uint32_t[*n_tokens]; *n_tokens: the capacity on
/// entry, the number of tokens on return, also with ENGINE_ERR_BUFFER_TOO_SMALL, when tokens is left as it was. So a call with
/// *n_tokens = 0 and tokens = NULL asks for the size; text_len + 8 is enough for most tokenizers.
///
/// Errors: ENGINE_ERR_BUFFER_TOO_SMALL; ENGINE_ERR_BAD_ARGUMENT for text that is not UTF-8; the reason why there is no
/// tokenizer, where the model has none that can encode.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_model_tokenize(
    model: *const engine_model,
    text: *const c_char,
    text_len: usize,
    add_special: bool,
    tokens: *mut u32,
    n_tokens: *mut usize,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let model = handle(model, "model")?;
        let out = OutBuffer::new(tokens, n_tokens, "tokens", "n_tokens")?;
        let text = std::str::from_utf8(slice(text.cast(), text_len, "text")?).map_err(not_utf8)?;
        out.write(&model.tokenizer()?.encode(text, add_special)?)
    })
}

fn not_utf8(error: std::str::Utf8Error) -> Error {
    Error::bad_argument(format!("text is not UTF-8: {error}"))
}

/// Text of token ids, by the model's own tokenizer; special tokens are left out.
///
/// tokens: uint32_t[n_tokens]. text: char[*text_len], written without a final NUL; *text_len: the capacity in bytes on entry,
/// the length on return, also with ENGINE_ERR_BUFFER_TOO_SMALL, when text is left as it was. The text is UTF-8; bytes that are
/// no character become U+FFFD. For text that arrives token by token see engine_new_decoder().
///
/// Errors: ENGINE_ERR_BUFFER_TOO_SMALL; ENGINE_ERR_BAD_ARGUMENT for an id that the model does not have; the reason why there
/// is no tokenizer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_model_detokenize(
    model: *const engine_model,
    tokens: *const u32,
    n_tokens: usize,
    text: *mut c_char,
    text_len: *mut usize,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let model = handle(model, "model")?;
        let out = OutBuffer::<u8>::new(text.cast(), text_len, "text", "text_len")?;
        let tokens = slice(tokens, n_tokens, "tokens")?;
        out.write(model.tokenizer()?.decode(tokens)?.as_bytes())
    })
}

/// The text that one token stands for inside a text: a leading space is kept, a special token is as it is written, such as
/// "</s>". For lists of candidates; a token may be a part of a character, so put no text together from these.
///
/// text, text_len and errors as for engine_model_detokenize().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_model_token_text(
    model: *const engine_model,
    token: u32,
    text: *mut c_char,
    text_len: *mut usize,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let model = handle(model, "model")?;
        let out = OutBuffer::<u8>::new(text.cast(), text_len, "text", "text_len")?;
        out.write(model.tokenizer()?.token_text(token)?.as_bytes())
    })
}

/// Whether generation should stop at `token`: an end-of-text token or its like. False for NULL, for a model without a tokenizer and
/// for an id that the model does not have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_model_is_end(model: *const engine_model, token: u32) -> bool {
    // SAFETY: NULL or a live handle.
    let model = unsafe { model.as_ref() };
    guard_or(false, || model.and_then(|model| model.tokenizer().ok()).is_some_and(|tokenizer| tokenizer.is_end(token)))
}

/// The token that begins a text: what to feed when there is no prompt. ENGINE_ERR_NOT_FOUND if the model has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_model_bos(model: *const engine_model, token: *mut u32) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let model = handle(model, "model")?;
        let out = token.as_mut().ok_or_else(|| null("token"))?;
        *out = model.tokenizer()?.bos().ok_or_else(|| Error::new(ErrorKind::NotFound, "no token begins a text of this model"))?;
        Ok(())
    })
}
