//! What stands between C and the core: panics become statuses, pointers become references and slices.

use super::status::{ENGINE_OK, engine_status, fail};
use crate::error::{Error, ErrorKind, Result};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// How many guarded calls this thread is inside of.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Where the last panic inside a guarded call was.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs the body of a fallible function: an error becomes its status and this thread's message, a panic
/// `ENGINE_ERR_INTERNAL`. What a panic may leave half done is locked in [`super::engine_cache`] and
/// [`super::engine_decoder`], which are poisoned by it; a model is never written to.
pub(super) fn guard(body: impl FnOnce() -> Result<()>) -> engine_status {
    match catch(body).flatten() {
        Ok(()) => ENGINE_OK,
        Err(error) => fail(&error),
    }
}

/// Runs the body of a function that cannot fail; `otherwise` stands in for a panic.
pub(super) fn guard_or<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch(body).unwrap_or(otherwise)
}

fn catch<T>(body: impl FnOnce() -> T) -> Result<T> {
    silence_panics();
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(internal)
}

fn internal(payload: Box<dyn Any + Send>) -> Error {
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "panic",
    };
    // Empty for a panic that was passed on from another thread.
    let place = PLACE.take();
    let error = Error::new(ErrorKind::Internal, format!("internal error: {message} at {place}").trim_end_matches(" at "));
    // Dropping an unknown payload could panic again, outside of any guard.
    if !payload.is::<&str>() && !payload.is::<String>() {
        std::mem::forget(payload);
    }
    error
}

/// A library does not write to its host's stderr, which is what Rust's panic hook does. Ours is silent inside guarded calls and
/// on the library's own threads (named "engine…"), and passes everything else to the hook it found: a C program's copy of the library has a
/// standard library of its own, where there is nothing else, but a Rust program that calls the C ABI keeps its reports.
fn silence_panics() {
    static ONCE: Once = Once::new();
    // `set_hook` may not be called while this thread unwinds (a host's destructor that calls us); a later call will do it.
    if ONCE.is_completed() || std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = DEPTH.get() > 0 || std::thread::current().name().is_some_and(|name| name.starts_with("engine"));
            if !ours {
                previous(info);
            } else if let Some(place) = info.location() {
                PLACE.replace(place.to_string());
            }
        }));
    });
}

pub(super) fn null(name: &str) -> Error {
    Error::bad_argument(format!("{name} is NULL"))
}

/// The handle at `pointer`.
///
/// # Safety
/// `pointer` is NULL or a live handle of this library, as the header asks.
pub(super) unsafe fn handle<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: the caller's promise. A shared reference is right also for a mutable handle: what changes is behind a lock.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// Frees a handle; NULL is fine.
///
/// # Safety
/// `pointer` is NULL or a handle made by [`OutHandle::set`] that nothing uses any more.
pub(super) unsafe fn free<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: `OutHandle::set` made it with `Box::into_raw`, and the caller gives it up.
        guard_or((), || drop(unsafe { Box::from_raw(pointer) }));
    }
}

/// Where a new handle goes; NULL there from the start, so that a failure leaves no stale pointer.
pub(super) struct OutHandle<T>(*mut *mut T);

impl<T> OutHandle<T> {
    /// # Safety
    /// `pointer` is NULL or may be written.
    pub(super) unsafe fn new(pointer: *mut *mut T, name: &str) -> Result<Self> {
        if pointer.is_null() {
            return Err(null(name));
        }
        // SAFETY: the caller's promise, and it is not NULL.
        unsafe { pointer.write(std::ptr::null_mut()) };
        Ok(Self(pointer))
    }

    pub(super) fn set(self, value: T) {
        // SAFETY: `new` was promised that it may be written.
        unsafe { self.0.write(Box::into_raw(Box::new(value))) };
    }
}

/// `len` elements at `pointer`; with length 0 the pointer is not looked at.
///
/// # Safety
/// `pointer` is valid for reading `len` elements during `'a`, unless NULL or `len` is 0.
pub(super) unsafe fn slice<'a, T>(pointer: *const T, len: usize, name: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check_array(pointer, len, name)?;
    // SAFETY: not NULL, aligned and of a possible size (checked above); that the elements are there is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// `len` floats at `pointer` to be written. C hands over memory that it never wrote; nothing below reads an element before
/// writing it.
///
/// # Safety
/// `pointer` is valid for writing `len` elements during `'a` and nothing else points there, unless NULL or `len` is 0.
pub(super) unsafe fn floats_out<'a>(pointer: *mut f32, len: usize, name: &str) -> Result<&'a mut [f32]> {
    if len == 0 {
        return Ok(&mut []);
    }
    check_array(pointer, len, name)?;
    // SAFETY: not NULL, aligned and of a possible size (checked above); that the memory is there is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, len) })
}

fn check_array<T>(pointer: *const T, len: usize, name: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(null(name));
    }
    if !pointer.is_aligned() {
        return Err(Error::bad_argument(format!("{name}: address {pointer:p} is not a multiple of {}", align_of::<T>())));
    }
    match len.checked_mul(size_of::<T>()) {
        Some(bytes) if bytes <= isize::MAX as usize => Ok(()),
        _ => Err(Error::bad_argument(format!("{name}: {len} elements are more than memory can hold"))),
    }
}

/// A caller's buffer and its length: capacity in, length out.
pub(super) struct OutBuffer<'n, T> {
    data: *mut T,
    len: *mut usize,
    name: &'n str,
}

impl<'n, T: Copy> OutBuffer<'n, T> {
    /// `len`, whose name is `len_name`, may not be NULL; `data` may if the capacity is 0.
    ///
    /// # Safety
    /// `len` is NULL or may be read and written; `data` may be written for `*len` elements, unless NULL.
    pub(super) unsafe fn new(data: *mut T, len: *mut usize, name: &'n str, len_name: &str) -> Result<Self> {
        if len.is_null() {
            return Err(null(len_name));
        }
        // SAFETY: the caller's promise, and it is not NULL.
        if data.is_null() && unsafe { len.read() } > 0 {
            return Err(null(name));
        }
        Ok(Self { data, len, name })
    }

    /// Copies `from` there if it fits; says how long it is either way.
    pub(super) fn write(self, from: &[T]) -> Result<()> {
        // SAFETY: `new` was promised that `len` may be read and written.
        let capacity = unsafe { self.len.replace(from.len()) };
        if from.len() > capacity {
            let Self { name, .. } = self;
            let message = format!("{name}: {} elements are needed, there is room for {capacity}", from.len());
            return Err(Error::new(ErrorKind::BufferTooSmall, message));
        }
        if !from.is_empty() {
            // SAFETY: `data` may be written for `capacity` elements, which are enough; `from` is memory of our own.
            unsafe { self.data.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::*;
    use super::*;
    use std::ffi::CStr;

    fn last_message() -> String {
        // SAFETY: the message is NUL-terminated.
        unsafe { CStr::from_ptr(engine_last_error_message()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn panic_becomes_internal_with_its_place() {
        let line = line!() + 1;
        assert_eq!(guard(|| panic!("broken {}", 7)), ENGINE_ERR_INTERNAL);
        let expected = format!("internal error: broken 7 at {}:{line}:", file!());
        assert!(last_message().starts_with(&expected), "{} / {expected}", last_message());
        assert_eq!(guard(|| std::panic::panic_any(5_u8)), ENGINE_ERR_INTERNAL);
        assert_eq!(guard_or(3, || panic!()), 3);
    }

    #[test]
    fn arrays_are_checked_before_they_are_formed() {
        let words = [1_u32, 2, 3];
        // SAFETY: valid for three elements; the other calls must fail before they look at memory.
        unsafe {
            assert_eq!(slice(words.as_ptr(), 3, "w").unwrap(), words);
            assert!(slice::<u32>(std::ptr::null(), 0, "w").unwrap().is_empty());
            assert_eq!(slice::<u32>(std::ptr::null(), 1, "w").unwrap_err().message(), "w is NULL");
            assert!(slice(words.as_ptr(), usize::MAX / 4, "w").is_err());
            assert!(slice(words.as_ptr(), usize::MAX, "w").is_err());
            assert!(slice(words.as_ptr().cast::<u8>().add(1).cast::<u32>(), 1, "w").is_err());
        }
    }

    #[test]
    fn buffer_is_untouched_when_too_small() {
        let (mut data, mut len) = ([9_u8; 4], 2_usize);
        // SAFETY: `data` has room for the 2 and 4 elements that `len` says.
        unsafe {
            let e = OutBuffer::new(data.as_mut_ptr(), &mut len, "text", "text_len").unwrap().write(b"abc").unwrap_err();
            assert_eq!((e.kind(), len, data), (ErrorKind::BufferTooSmall, 3, [9; 4]));
            len = 4;
            OutBuffer::new(data.as_mut_ptr(), &mut len, "text", "text_len").unwrap().write(b"abc").unwrap();
            assert_eq!((len, &data), (3, b"abc\x09"));
            len = 0;
            OutBuffer::<u8>::new(std::ptr::null_mut(), &mut len, "text", "text_len").unwrap().write(b"").unwrap();
        }
    }
}
