//! Errors: a kind that the caller can branch on and a sentence that names the file, the tensor or key, what was expected
//! and what was found.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;

/// What kind of failure it was; the C ABI's status codes are these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// An argument is outside what the function takes.
    BadArgument,
    /// The caller's buffer is too small; the needed size was reported.
    BufferTooSmall,
    /// The file, or the thing asked for, does not exist.
    NotFound,
    /// The operating system could not read or map a file.
    Io,
    /// A file breaks its own format.
    BadFile,
    /// A valid file or request that this version cannot serve.
    Unsupported,
    /// Memory could not be had.
    OutOfMemory,
    /// The tokens do not fit into the cache; nothing was changed.
    ContextFull,
    /// A callback or another thread asked to stop; nothing was changed.
    Cancelled,
    /// An earlier failure left this object unusable.
    Poisoned,
    /// A defect of this library.
    Internal,
}

/// A failure: its kind and a sentence for a person.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with its sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
    /// [`ErrorKind::BadArgument`].
    pub fn bad_argument(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadArgument, message)
    }
    /// [`ErrorKind::BadFile`]; `path` goes first in the sentence.
    pub fn bad_file(path: &Path, message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::BadFile, format!("{}: {message}", path.display()))
    }
    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }
    /// An operating system error on `path`: [`ErrorKind::NotFound`] if it says so, [`ErrorKind::OutOfMemory`] likewise,
    /// else [`ErrorKind::Io`].
    pub fn io(path: &Path, doing: &str, source: &std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("{}: cannot {doing}: {source}", path.display()))
    }
    /// [`ErrorKind::OutOfMemory`]: `what` of `bytes` bytes could not be allocated.
    pub fn out_of_memory(what: impl fmt::Display, bytes: usize) -> Self {
        Self::new(ErrorKind::OutOfMemory, format!("out of memory: {what} needs {bytes} bytes"))
    }
    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }
    /// The same error with `context: ` put before its sentence.
    #[must_use]
    pub fn context(self, context: impl fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{context}: {}", self.message) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// An empty vector with room for `len` elements, or [`ErrorKind::OutOfMemory`]: for every length that a file or a caller sets.
pub fn try_with_capacity<T>(len: usize, what: &str) -> Result<Vec<T>> {
    let mut v = Vec::new();
    v.try_reserve_exact(len).map_err(|_| Error::out_of_memory(what, len.saturating_mul(size_of::<T>())))?;
    Ok(v)
}

/// A vector of `len` copies of `value`, or [`ErrorKind::OutOfMemory`], likewise.
pub fn try_vec<T: Clone>(value: T, len: usize, what: &str) -> Result<Vec<T>> {
    let mut v = try_with_capacity(len, what)?;
    v.resize(len, value);
    Ok(v)
}
