//! Files to named tensor views. Nothing here knows what a model is: a [`Checkpoint`] is a set of tensors, mapped where
//! they lie, plus the configuration or metadata that came with them.

pub mod gguf;
pub mod mmap;
pub mod npy;
pub mod safetensors;

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Element type of a tensor as it lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE binary32, little-endian.
    F32,
    /// IEEE binary16, little-endian.
    F16,
    /// The upper half of a binary32, little-endian.
    Bf16,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
        }
    }
}

/// A range of a mapped (or copied) file, or memory of our own; cheap to clone, keeps the mapping alive.
#[derive(Clone)]
pub struct Bytes {
    source: Arc<mmap::Mapping>,
    range: Range<usize>,
}

impl Bytes {
    /// The bytes `range` of `source`; `None` if that is not inside.
    pub fn new(source: Arc<mmap::Mapping>, range: Range<usize>) -> Option<Self> {
        source.get(range.clone())?;
        Some(Self { source, range })
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.source[self.range.clone()]
    }
}

/// A tensor: `shape` row-major, outermost dimension first (GGUF's order is turned round on reading), and its bytes.
/// `data.len()` is exactly the product of the shape times the element size: the parsers have checked it.
#[derive(Clone)]
pub struct Tensor {
    /// Element type.
    pub dtype: DType,
    /// Row-major, outermost first.
    pub shape: Vec<usize>,
    /// The elements; no alignment is promised.
    pub data: Bytes,
    /// The file it came from, for messages.
    pub file: Arc<PathBuf>,
}

/// What kind of thing was found at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `config.json` and safetensors.
    HuggingFace,
    /// A directory of `.npy` files.
    Npy,
    /// One GGUF file.
    Gguf,
}

/// How weights are brought into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapMode {
    /// Map the file; a file that is truncated while in use ends the process (SIGBUS), as with any mapping.
    #[default]
    Map,
    /// Read the file into memory of our own.
    Copy,
    /// Map, and turn a truncated file into [`crate::ErrorKind::Io`] through a SIGBUS handler of ours.
    Guarded,
}

/// Everything read from a path, before anyone asks which model it is.
pub struct Checkpoint {
    /// What was found.
    pub kind: Kind,
    /// The path as given.
    pub path: PathBuf,
    /// `config.json`, where there is one.
    pub config: Option<serde_json::Value>,
    /// GGUF metadata, for [`Kind::Gguf`].
    pub metadata: Option<gguf::Metadata>,
    /// By name as in the file (npy: the file's stem).
    pub tensors: BTreeMap<String, Tensor>,
}

/// Opens what is at `path`: a directory (Hugging Face or `.npy`) or a GGUF file, told by its content.
pub fn open(path: &Path, mode: MapMode) -> Result<Checkpoint> {
    let _ = mode;
    Err(Error::unsupported(format!("{}: not implemented", path.display())))
}
