//! Status codes, the calling thread's last error, the version.

use crate::error::{Error, ErrorKind};
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char};

/// What a fallible function returns: ENGINE_OK or one of the ENGINE_ERR_ constants. The values never change; a later version
/// may add some, so treat an unknown one as a failure.
pub type engine_status = i32;

/// Done.
pub const ENGINE_OK: engine_status = 0;
/// An argument is outside what the function takes: NULL, an unknown option, a token id that the model does not have…
pub const ENGINE_ERR_BAD_ARGUMENT: engine_status = 1;
/// The caller's buffer is too small; its length argument now holds the size that is needed.
pub const ENGINE_ERR_BUFFER_TOO_SMALL: engine_status = 2;
/// The file, or the thing asked for, does not exist.
pub const ENGINE_ERR_NOT_FOUND: engine_status = 3;
/// The operating system could not read or map a file.
pub const ENGINE_ERR_IO: engine_status = 4;
/// A file breaks its own format.
pub const ENGINE_ERR_BAD_FILE: engine_status = 5;
/// A valid file or request that this version, or this CPU, cannot serve.
pub const ENGINE_ERR_UNSUPPORTED: engine_status = 6;
/// Memory could not be had.
pub const ENGINE_ERR_OUT_OF_MEMORY: engine_status = 7;
/// The tokens do not fit into the cache; nothing was changed.
pub const ENGINE_ERR_CONTEXT_FULL: engine_status = 8;
/// The progress callback or engine_cache_cancel asked to stop; nothing was changed.
pub const ENGINE_ERR_CANCELLED: engine_status = 9;
/// An earlier ENGINE_ERR_INTERNAL left this object unusable: all that can be done with it is to free it.
pub const ENGINE_ERR_POISONED: engine_status = 10;
/// A defect of this library, caught: please report the message.
pub const ENGINE_ERR_INTERNAL: engine_status = 11;

impl From<ErrorKind> for Status {
    fn from(kind: ErrorKind) -> Self {
        Self(match kind {
            ErrorKind::BadArgument => ENGINE_ERR_BAD_ARGUMENT,
            ErrorKind::BufferTooSmall => ENGINE_ERR_BUFFER_TOO_SMALL,
            ErrorKind::NotFound => ENGINE_ERR_NOT_FOUND,
            ErrorKind::Io => ENGINE_ERR_IO,
            ErrorKind::BadFile => ENGINE_ERR_BAD_FILE,
            ErrorKind::Unsupported => ENGINE_ERR_UNSUPPORTED,
            ErrorKind::OutOfMemory => ENGINE_ERR_OUT_OF_MEMORY,
            ErrorKind::ContextFull => ENGINE_ERR_CONTEXT_FULL,
            ErrorKind::Cancelled => ENGINE_ERR_CANCELLED,
            ErrorKind::Poisoned => ENGINE_ERR_POISONED,
            ErrorKind::Internal => ENGINE_ERR_INTERNAL,
        })
    }
}

/// A status on its way out.
pub(super) struct Status(pub(super) engine_status);

/// ENGINE_VERSION_MAJOR of the header that a program was compiled with; engine_version() is the library it runs with.
pub const ENGINE_VERSION_MAJOR: i32 = 0;
/// See ENGINE_VERSION_MAJOR.
pub const ENGINE_VERSION_MINOR: i32 = 1;
/// See ENGINE_VERSION_MAJOR.
pub const ENGINE_VERSION_PATCH: i32 = 0;

/// Bytes kept of a message, the final NUL included. A fixed buffer: reporting that memory is out must not need memory.
const CAPACITY: usize = 2048;

thread_local! {
    static MESSAGE: UnsafeCell<[u8; CAPACITY]> = const { UnsafeCell::new([0; CAPACITY]) };
}

/// Keeps `error`'s sentence as this thread's last message and gives its status.
pub(super) fn fail(error: &Error) -> engine_status {
    // The buffer has no destructor, so it can be reached as long as the thread runs.
    MESSAGE.with(|buffer| {
        // SAFETY: the buffer is this thread's own, and no reference to it outlives a call of this closure: C only ever
        // gets its address.
        let buffer = unsafe { &mut *buffer.get() };
        let message = error.message();
        let len = message.floor_char_boundary(CAPACITY - 1);
        buffer[..len].copy_from_slice(&message.as_bytes()[..len]);
        // A NUL byte inside (a file's text can have one) would hide the rest of the sentence.
        buffer[..len].iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'?');
        buffer[len] = 0;
    });
    Status::from(error.kind()).0
}

/// The sentence of the calling thread's last failed call, in English, for a person: it names the file, the tensor, the key or
/// the argument, what was expected and what was found. NUL-terminated UTF-8, at most 2047 bytes; "" if no call has failed on
/// this thread; never NULL. A call that succeeds leaves it as it is. Valid until this thread's next call into the library
/// (this function excepted), or until the thread ends.
#[unsafe(no_mangle)]
pub extern "C" fn engine_last_error_message() -> *const c_char {
    MESSAGE.with(|buffer| buffer.get().cast())
}

/// The name of `status` as it is written in this header, such as "ENGINE_ERR_IO"; "unknown status" for any other number.
/// Never NULL; static.
#[unsafe(no_mangle)]
pub extern "C" fn engine_status_name(status: engine_status) -> *const c_char {
    let name: &CStr = match status {
        ENGINE_OK => c"ENGINE_OK",
        ENGINE_ERR_BAD_ARGUMENT => c"ENGINE_ERR_BAD_ARGUMENT",
        ENGINE_ERR_BUFFER_TOO_SMALL => c"ENGINE_ERR_BUFFER_TOO_SMALL",
        ENGINE_ERR_NOT_FOUND => c"ENGINE_ERR_NOT_FOUND",
        ENGINE_ERR_IO => c"ENGINE_ERR_IO",
        ENGINE_ERR_BAD_FILE => c"ENGINE_ERR_BAD_FILE",
        ENGINE_ERR_UNSUPPORTED => c"ENGINE_ERR_UNSUPPORTED",
        ENGINE_ERR_OUT_OF_MEMORY => c"ENGINE_ERR_OUT_OF_MEMORY",
        ENGINE_ERR_CONTEXT_FULL => c"ENGINE_ERR_CONTEXT_FULL",
        ENGINE_ERR_CANCELLED => c"ENGINE_ERR_CANCELLED",
        ENGINE_ERR_POISONED => c"ENGINE_ERR_POISONED",
        ENGINE_ERR_INTERNAL => c"ENGINE_ERR_INTERNAL",
        _ => c"unknown status",
    };
    name.as_ptr()
}

/// The version of the library that is running, "major.minor.patch", such as "0.1.0". Never NULL; static.
#[unsafe(no_mangle)]
pub extern "C" fn engine_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pointer: *const c_char) -> String {
        // SAFETY: the two functions under test return NUL-terminated strings.
        unsafe { CStr::from_ptr(pointer) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn version_macros_are_the_crates() {
        let macros = format!("{ENGINE_VERSION_MAJOR}.{ENGINE_VERSION_MINOR}.{ENGINE_VERSION_PATCH}");
        assert_eq!(macros, env!("CARGO_PKG_VERSION"));
        assert_eq!(text(engine_version()), macros);
    }

    #[test]
    fn message_is_the_threads_own_and_whole_characters() {
        std::thread::spawn(|| {
            assert_eq!(text(engine_last_error_message()), "");
            assert_eq!(fail(&Error::new(ErrorKind::Io, "a\0b")), ENGINE_ERR_IO);
            assert_eq!(text(engine_last_error_message()), "a?b");
            // 'é' takes two bytes, so 2047 falls inside one.
            fail(&Error::new(ErrorKind::Io, "é".repeat(2000)));
            assert_eq!(text(engine_last_error_message()), "é".repeat(1023));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn every_status_has_its_name() {
        assert_eq!(text(engine_status_name(ENGINE_OK)), "ENGINE_OK");
        let names: std::collections::BTreeSet<String> = (0..12).map(|s| text(engine_status_name(s))).collect();
        assert_eq!(names.len(), 12);
        assert_eq!(text(engine_status_name(12)), "unknown status");
        assert_eq!(text(engine_status_name(-1)), "unknown status");
    }
}
