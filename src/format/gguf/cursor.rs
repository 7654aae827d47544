//! Reading forwards through the bytes of a GGUF file, with every end checked.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use std::fmt::Display;
use std::path::Path;

/// A place in the file.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file: &'a Path,
}

impl<'a> Cursor<'a> {
    /// At the start of `bytes`; `file` is for messages.
    pub(super) fn new(bytes: &'a [u8], file: &'a Path) -> Self {
        Self { bytes, at: 0, file }
    }

    /// The same file at another place.
    pub(super) fn at(mut self, at: usize) -> Self {
        self.at = at;
        self
    }

    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn remaining(&self) -> u64 {
        self.bytes.len().saturating_sub(self.at) as u64
    }

    /// The next `n` bytes, which are `what`.
    pub(super) fn take(&mut self, n: u64, what: impl Display) -> Result<&'a [u8]> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| {
            let (at, remaining) = (self.at, self.remaining());
            Error::bad_file(self.file, format_args!("truncated: {what} at byte {at} needs {n} bytes, {remaining} remain"))
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: impl Display) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: impl Display) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: impl Display) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A length and as many bytes, unchecked as text.
    pub(super) fn string_bytes(&mut self, what: impl Display) -> Result<&'a [u8]> {
        let len = self.u64(&what)?;
        self.take(len, what)
    }

    /// A string of at most `limit` bytes.
    pub(super) fn string(&mut self, limit: u64, what: impl Display) -> Result<&'a str> {
        let bytes = self.string_bytes(&what)?;
        if bytes.len() as u64 > limit {
            let len = bytes.len();
            return Err(Error::bad_file(self.file, format_args!("{what} has {len} bytes, expected at most {limit}")));
        }
        std::str::from_utf8(bytes).map_err(|e| {
            let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(64)).unwrap_or_default());
            Error::bad_file(self.file, format_args!("{what} ({text:?}) is not UTF-8: {e}"))
        })
    }
}
