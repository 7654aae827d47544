//! Writing GGUF version 3: everything before the tensors' bytes, which then follow in the order of the list, each at a multiple of
//! the alignment.
#![forbid(unsafe_code)]

use super::{Metadata, alignment, types};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{DType, Tensor};
use std::path::Path;

/// A tensor to be written.
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Outermost dimension first.
    pub shape: &'a [usize],
    /// Its type in the new file.
    pub dtype: DType,
}

impl Entry<'_> {
    /// Bytes of the tensor; `None` if its rows are no whole blocks, or no `usize` holds it.
    pub fn bytes(&self) -> Option<usize> {
        let row = self.dtype.bytes(*self.shape.last()?)?;
        self.shape.iter().rev().skip(1).try_fold(row, |n, &dim| n.checked_mul(dim))
    }
}

/// A file's beginning and size.
pub struct Plan {
    /// Everything before the first tensor's bytes.
    pub head: Vec<u8>,
    /// What each tensor's bytes are filled up to a multiple of, with zeros.
    pub alignment: usize,
    /// Of the whole file.
    pub bytes: u64,
}

/// The beginning of a file with the metadata of another: byte for byte and in its order, but for the keys that `set` gives a
/// number (at their place, or at the end) and those that begin with `without`.
pub fn plan(metadata: &Metadata, set: &[(&str, u32)], without: &str, tensors: &[Entry<'_>]) -> Result<Plan> {
    let entries: Vec<(&str, &[u8])> = metadata.raw()?.into_iter().filter(|(key, _)| !key.starts_with(without)).collect();
    let new = set.iter().filter(|(key, _)| entries.iter().all(|entry| entry.0 != *key));
    let n_keys = entries.len() + new.clone().count();
    // The cast is exact: at most 65536.
    let alignment = alignment(metadata, metadata.file())? as usize;

    let mut head = Vec::new();
    head.extend_from_slice(super::MAGIC);
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((n_keys as u64).to_le_bytes());
    for (key, raw) in &entries {
        match set.iter().find(|(other, _)| other == key) {
            Some((_, value)) => push_number(&mut head, key, *value),
            None => head.extend_from_slice(raw),
        }
    }
    new.for_each(|(key, value)| push_number(&mut head, key, *value));

    let mut offset = 0usize;
    for tensor in tensors {
        push_tensor(&mut head, tensor, offset, metadata.file())?;
        let end = tensor.bytes().and_then(|bytes| offset.checked_add(bytes)?.checked_next_multiple_of(alignment));
        offset = end.ok_or_else(|| too_large(tensor, metadata.file()))?;
    }
    head.resize(head.len().next_multiple_of(alignment), 0);
    let bytes = head.len() as u64 + offset as u64;
    Ok(Plan { head, alignment, bytes })
}

fn too_large(tensor: &Entry<'_>, file: &Path) -> Error {
    let Entry { name, shape, dtype } = tensor;
    let message = format!("{}: tensor {name:?} of shape {shape:?} cannot be {}", file.display(), dtype.name());
    Error::new(ErrorKind::Unsupported, message)
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A key with a u32.
fn push_number(out: &mut Vec<u8>, key: &str, value: u32) {
    const U32: u32 = 4;
    push_string(out, key);
    out.extend(U32.to_le_bytes());
    out.extend(value.to_le_bytes());
}

fn push_tensor(out: &mut Vec<u8>, tensor: &Entry<'_>, offset: usize, file: &Path) -> Result<()> {
    push_string(out, tensor.name);
    out.extend((tensor.shape.len() as u32).to_le_bytes());
    tensor.shape.iter().rev().for_each(|&dim| out.extend((dim as u64).to_le_bytes()));
    out.extend(types::id_of(tensor.dtype).ok_or_else(|| too_large(tensor, file))?.to_le_bytes());
    out.extend((offset as u64).to_le_bytes());
    Ok(())
}

/// `tensors` in the order in which they lie in the files.
pub fn in_file_order<'a>(tensors: impl Iterator<Item = (&'a String, &'a Tensor)>) -> Vec<(&'a str, &'a Tensor)> {
    let mut tensors: Vec<_> = tensors.map(|(name, tensor)| (name.as_str(), tensor)).collect();
    tensors.sort_by(|(_, a), (_, b)| (&a.file, a.data.range.start).cmp(&(&b.file, b.data.range.start)));
    tensors
}
