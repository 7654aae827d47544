//! Files in memory.
use std::ops::Deref;

/// The bytes of a whole file: mapped, copied or our own.
pub enum Mapping {
    /// Memory of our own.
    Owned(Vec<u8>),
}

impl Deref for Mapping {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Mapping::Owned(v) => v,
        }
    }
}
