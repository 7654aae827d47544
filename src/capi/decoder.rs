//! `engine_decoder`: text that arrives token by token.

use super::guard::{OutBuffer, OutHandle, free, guard, handle};
use super::model::engine_model;
use super::status::engine_status;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Model;
use crate::text::{Decoder, Tokenizer};
use std::ffi::c_char;
use std::sync::{Arc, Mutex, TryLockError};

/// Turns tokens into text one by one, in whole characters. One thread at a time may use it.
pub struct engine_decoder {
    model: Arc<Model>,
    decoder: Mutex<Decoder>,
}

impl engine_decoder {
    /// Lets `advance` work on a copy and keeps that only if the text it gave could be delivered: a caller whose buffer was
    /// too small can make the same call again.
    fn deliver(&self, out: OutBuffer<'_, u8>, advance: impl FnOnce(&mut Decoder, &Tokenizer) -> Result<String>) -> Result<()> {
        let mut decoder = self.decoder.try_lock().map_err(|error| match error {
            TryLockError::Poisoned(_) => Error::new(ErrorKind::Poisoned, "decoder: an internal error left it unusable"),
            TryLockError::WouldBlock => Error::bad_argument("decoder: another thread is using it"),
        })?;
        let mut next = decoder.clone();
        out.write(advance(&mut next, self.model.tokenizer()?)?.as_bytes())?;
        *decoder = next;
        Ok(())
    }
}

/// A decoder for a text that begins here. *decoder: the new decoder, to be freed with engine_decoder_free(); NULL after a
/// failure. It keeps the model alive.
///
/// Errors: the reason why there is no tokenizer, where the model has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_new_decoder(model: *const engine_model, decoder: *mut *mut engine_decoder) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let out = OutHandle::new(decoder, "decoder")?;
        let model = handle(model, "model")?.model.clone();
        let decoder = Mutex::new(model.tokenizer()?.decoder());
        out.set(engine_decoder { model, decoder });
        Ok(())
    })
}

/// Frees the decoder; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_decoder_free(decoder: *mut engine_decoder) {
    // SAFETY: NULL or a live handle, which the caller gives up.
    unsafe { free(decoder) }
}

/// The text that one more token completes: whole UTF-8 characters, perhaps none (*text_len = 0). All pieces put together are what
/// engine_model_detokenize() gives.
///
/// text: char[*text_len], written without a final NUL; *text_len: the capacity in bytes on entry, the length on return, also
/// with ENGINE_ERR_BUFFER_TOO_SMALL, when nothing has changed: make the same call again with a larger buffer.
///
/// Errors: ENGINE_ERR_BUFFER_TOO_SMALL; ENGINE_ERR_BAD_ARGUMENT for an id that the model does not have; ENGINE_ERR_POISONED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_decoder_push(
    decoder: *mut engine_decoder,
    token: u32,
    text: *mut c_char,
    text_len: *mut usize,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let decoder = handle(decoder, "decoder")?;
        let out = OutBuffer::new(text.cast(), text_len, "text", "text_len")?;
        decoder.deliver(out, |next, tokenizer| next.push(tokenizer, token))
    })
}

/// Ends the text: what is still held back, with U+FFFD for bytes that never became a character. The decoder is as new
/// afterwards. text, text_len and errors as for engine_decoder_push().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn engine_decoder_finish(
    decoder: *mut engine_decoder,
    text: *mut c_char,
    text_len: *mut usize,
) -> engine_status {
    // SAFETY: the pointers are as the header asks.
    guard(|| unsafe {
        let decoder = handle(decoder, "decoder")?;
        let out = OutBuffer::new(text.cast(), text_len, "text", "text_len")?;
        decoder.deliver(out, |next, tokenizer| next.finish(tokenizer))
    })
}
