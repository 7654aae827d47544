//! Files to named tensor views. Nothing here knows what a model is: a [`Checkpoint`] is a set of tensors, mapped where
//! they lie, plus the configuration or metadata that came with them.
//!
//! # What the parsers promise of every file that they accept
//!
//! Any file at all gives either an error or tensors of which this holds; `tests` in this folder tries every truncation and
//! every flipped bit of small files, and asks the `safetensors` crate about its format. Each line names the test that breaks
//! it on purpose.
//!
//! | promise | test (in `tests`) |
//! |---|---|
//! | a regular file that is not empty | `mmap::tests::only_regular_files_with_content_open` |
//! | the magic, version and byte order are ones we read | `gguf_versions`, `npy_versions` |
//! | a header's length is bounded and inside the file | `safetensors_header_length`, `npy_header_length` |
//! | a count can be in the bytes that remain, before anything is allocated for it | `gguf_counts`, `gguf_array_counts` |
//! | names and keys are UTF-8, bounded, and come once | `gguf_names`, `safetensors_duplicates` |
//! | arrays, JSON and literals nest to a bounded depth | `gguf_nesting`, `json_nesting` |
//! | GGUF dimensions: 1 to 4, none 0, less than 2^48 elements | `gguf_dimensions` |
//! | other formats' dimensions: at most 8, their product in range | `npy_shapes`, `safetensors_shapes` |
//! | a tensor's bytes are its shape times its type's size, exactly | `safetensors_sizes`, `npy_sizes`, `gguf_blocks` |
//! | a tensor's bytes are inside the file, aligned as the file says | `gguf_ranges`, `gguf_alignment`, `safetensors_ranges` |
//! | no byte is of two tensors; in safetensors every byte is of one | `gguf_ranges`, `safetensors_ranges` |
//! | a type we do not read is refused by name, or listed by name as skipped | `gguf_types`, `npy_types`, `safetensors_skips` |
//! | a metadata value is given as the type asked for, or refused with both types named | `gguf_metadata_types` |
//! | a shard is a plain file name in the index's directory, and holds what the index says | `shard_names`, `shard_contents` |
//! | all parts of a split GGUF model are there, are what their names say, and share no tensor | `gguf_parts` |
//!
//! What the layers above promise of a model that loads, whatever its files say:
//!
//! | promise | test (in the repository's `tests`) |
//! |---|---|
//! | heads fit the width, key/value heads divide heads, every size is capped before it is multiplied | `gguf_metadata.rs`, `refusals.rs` |
//! | layers and experts are capped, and all of their tensors there, of the right shape | `gguf_metadata.rs`, `refusals.rs` |
//! | no tensor is left over | `refusals.rs` |
//! | the vocabulary has a row for each token, each token comes once, ids are below their number | `gguf_metadata.rs`, `text.rs` |
//! | a byte token is `<0xHH>` and nothing else | `text::vocab::tests` |
//! | any truncation and any flipped bit of a header costs less than 100 ms and the file's size and 16 MiB | `hostile_gguf.rs` |
#![deny(unsafe_code)]

mod dtype;
mod find;
pub mod gguf;
pub mod mmap;
mod npy;
mod safetensors;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod whole;

pub use dtype::{DType, Float, Quant};
pub use find::open;
pub use mmap::read_file;

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::Arc;

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
/// `data.len()` is exactly what the product of the shape takes in elements of `dtype`, and the innermost dimension is whole
/// blocks of it: the parsers have checked it.
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

impl Tensor {
    /// Part `i` of the first dimension, with one dimension less; `None` if there is none, or if it is not whole blocks.
    pub fn slice_first(&self, i: usize) -> Option<Tensor> {
        let (&n, shape) = self.shape.split_first()?;
        if i >= n {
            return None;
        }
        // No overflow: the part is inside the tensor, whose bytes are in memory.
        let bytes = self.dtype.bytes(shape.iter().product())?;
        let start = self.data.range.start + i * bytes;
        let data = Bytes::new(self.data.source.clone(), start..start + bytes)?;
        Some(Tensor { dtype: self.dtype, shape: shape.to_vec(), data, file: self.file.clone() })
    }
}

/// What kind of thing was found at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `config.json` and safetensors.
    HuggingFace,
    /// A directory of `.npy` files.
    Npy,
    /// A GGUF file, or all parts of one that is split.
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
    /// The directory that holds the files that go with the weights (`tokenizer.json`, `vocab.txt`, `generation_config.json`).
    pub dir: PathBuf,
    /// `config.json`, where there is one; an object.
    pub config: Option<serde_json::Value>,
    /// GGUF metadata, for [`Kind::Gguf`].
    pub metadata: Option<gguf::Metadata>,
    /// By name as in the file (npy: the file's stem).
    pub tensors: BTreeMap<String, Tensor>,
    /// safetensors' tensors of types that are not read (masks, position ids, foreign quantisation): name to type.
    pub skipped: BTreeMap<String, String>,
    /// The files that the tensors lie in.
    pub files: Vec<Arc<mmap::Mapping>>,
}

impl Checkpoint {
    /// What the files call the model; empty where they do not.
    pub fn name(&self) -> Result<String> {
        let name = match &self.metadata {
            Some(metadata) => metadata.get_str("general.name")?,
            None => self.config.as_ref().and_then(|config| config.get("_name_or_path")?.as_str()),
        };
        Ok(name.unwrap_or_default().to_owned())
    }

    /// The name of the type that most bytes of the tensors have.
    pub fn file_type(&self) -> &'static str {
        let mut bytes = BTreeMap::new();
        for tensor in self.tensors.values() {
            *bytes.entry(tensor.dtype.name()).or_insert(0) += tensor.data.len();
        }
        bytes.into_iter().max_by_key(|(_, n)| *n).map_or("", |(name, _)| name)
    }

    /// The tensor `name`, or an error that says that it is not there, or of what type it is.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| match self.skipped.get(name) {
            Some(dtype) => {
                let message = format!("tensor {name:?} has type {dtype}, expected F32, F16 or BF16");
                Error::unsupported(format!("{}: {message}", self.path.display()))
            }
            None => Error::bad_file(&self.path, format_args!("there is no tensor {name:?}")),
        })
    }

    /// [`crate::ErrorKind::Io`] if a file mapped with [`MapMode::Guarded`] was truncated since it was opened.
    pub fn check(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| file.check())
    }
}

/// Bytes of a tensor of `shape` with elements of `bits` bits; `None` if that is no whole number or no `usize`.
fn byte_len(shape: &[usize], bits: usize) -> Option<usize> {
    let elements = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim))?;
    let bits = elements.checked_mul(bits)?;
    (bits % 8 == 0).then_some(bits / 8)
}
