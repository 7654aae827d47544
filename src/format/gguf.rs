//! GGUF v2 and v3, little-endian: typed metadata, then the list of tensors, then their bytes.
#![forbid(unsafe_code)]

mod cursor;
mod metadata;
pub(super) mod split;
mod types;
pub mod write;

pub use metadata::Metadata;

use super::mmap::Mapping;
use super::{Bytes, Tensor};
use crate::error::{Error, Result};
use cursor::Cursor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::TensorType;

pub(super) const MAGIC: &[u8] = b"GGUF";
/// Far above any model (the largest have a few thousand tensors and a few hundred keys): a bound on what a file of
/// nothing but tiny entries can make us allocate.
const MAX_ENTRIES: u64 = 1 << 17;
/// ggml's own limit is 64 bytes.
const MAX_NAME: u64 = 256;
/// Elements of a tensor.
const MAX_ELEMENTS: u64 = 1 << 48;
/// Bytes of the smallest tensor description: name length, dimension count, one dimension, type, offset.
const MIN_TENSOR_INFO: u64 = 8 + 4 + 8 + 4 + 8;

/// The content of one file.
pub(super) struct Parsed {
    pub metadata: Metadata,
    pub tensors: BTreeMap<String, Tensor>,
}

/// The metadata and tensors in the bytes of one file; `file` is its path.
pub(super) fn parse(file: &Arc<PathBuf>, mapping: &Arc<Mapping>) -> Result<Parsed> {
    let bytes: &[u8] = mapping;
    let mut cursor = Cursor::new(bytes, file);
    let (n_tensors, n_keys) = preamble(&mut cursor)?;
    let entries = metadata::read_entries(&mut cursor, n_keys)?;
    let whole = Bytes::new(mapping.clone(), 0..bytes.len());
    let whole = whole.ok_or_else(|| Error::bad_file(file, "the file is empty"))?;
    let metadata = Metadata::new(entries, whole, file.clone());
    let alignment = alignment(&metadata, file)?;
    let infos = read_infos(&mut cursor, n_tensors, alignment)?;
    let data_start = (cursor.position() as u64).next_multiple_of(alignment);
    let tensors = place(infos, data_start, file, mapping)?;
    Ok(Parsed { metadata, tensors })
}

/// Magic and version; the numbers of tensors and of metadata keys.
fn preamble(cursor: &mut Cursor<'_>) -> Result<(u64, u64)> {
    let file = cursor.file();
    if cursor.take(4, "the magic")? != MAGIC {
        return Err(Error::bad_file(file, "not a GGUF file: it does not start with \"GGUF\""));
    }
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => {}
        1 => return Err(Error::unsupported(format!("{}: GGUF version 1; expected 2 or 3", file.display()))),
        v if matches!(v.swap_bytes(), 1..=3) => {
            let message = format!("{}: a big-endian GGUF file; only little-endian ones are read", file.display());
            return Err(Error::unsupported(message));
        }
        v => return Err(Error::unsupported(format!("{}: GGUF version {v}; expected 2 or 3", file.display()))),
    }
    let n_tensors = cursor.u64("the number of tensors")?;
    let n_keys = cursor.u64("the number of metadata keys")?;
    for (count, what, least) in [(n_tensors, "tensors", MIN_TENSOR_INFO), (n_keys, "metadata keys", metadata::MIN_ENTRY)] {
        if count > MAX_ENTRIES || count > cursor.remaining() / least {
            return Err(Error::bad_file(file, format_args!("{count} {what} cannot be in a file of this size")));
        }
    }
    Ok((n_tensors, n_keys))
}

fn alignment(metadata: &Metadata, file: &Path) -> Result<u64> {
    let alignment = metadata.get_u64("general.alignment")?.unwrap_or(32);
    if alignment.is_power_of_two() && (8..=65_536).contains(&alignment) {
        return Ok(alignment);
    }
    Err(Error::bad_file(file, format_args!("general.alignment is {alignment}, expected a power of two in 8..=65536")))
}

/// One tensor's description.
struct Info {
    name: String,
    /// Outermost first.
    shape: Vec<usize>,
    tensor_type: &'static TensorType,
    /// From the start of the data.
    offset: u64,
    bytes: u64,
}

fn read_infos(cursor: &mut Cursor<'_>, count: u64, alignment: u64) -> Result<Vec<Info>> {
    let mut infos = Vec::new();
    for _ in 0..count {
        let name = cursor.string(MAX_NAME, "a tensor's name")?.to_string();
        let info = read_info(cursor, name)?;
        if info.offset % alignment != 0 {
            let Info { name, offset, .. } = info;
            return Err(Error::bad_file(
                cursor.file(),
                format_args!("tensor {name:?}: offset {offset} is not a multiple of the alignment {alignment}"),
            ));
        }
        infos.push(info);
    }
    Ok(infos)
}

fn read_info(cursor: &mut Cursor<'_>, name: String) -> Result<Info> {
    let file = cursor.file();
    let bad = |message: String| Error::bad_file(file, format_args!("tensor {name:?}: {message}"));
    let n_dims = cursor.u32("a tensor's dimension count")?;
    if !(1..=4).contains(&n_dims) {
        return Err(bad(format!("expected 1 to 4 dimensions, found {n_dims}")));
    }
    let (mut shape, mut elements) = (Vec::new(), 1u64);
    for _ in 0..n_dims {
        let dim = cursor.u64("a tensor's dimension")?;
        elements = match elements.checked_mul(dim) {
            Some(n) if (1..MAX_ELEMENTS).contains(&n) => n,
            _ => return Err(bad(format!("dimension {dim} is zero, or makes more than 2^48 elements"))),
        };
        shape.push(usize::try_from(dim).map_err(|_| bad(format!("dimension {dim} is too large")))?);
    }
    let id = cursor.u32("a tensor's type")?;
    let offset = cursor.u64("a tensor's offset")?;
    let tensor_type = types::by_id(id).ok_or_else(|| bad(format!("unknown type {id}")))?;
    // The first dimension in the file is the row, which consists of whole blocks.
    let row = shape.first().map_or(0, |&row| row as u64);
    if row % tensor_type.block_elements != 0 {
        let TensorType { name: type_name, block_elements, .. } = tensor_type;
        return Err(bad(format!("rows of {row} are not whole blocks of {block_elements} ({type_name})")));
    }
    // No overflow: fewer than 2^48 blocks of fewer than 2^16 bytes.
    let bytes = elements / tensor_type.block_elements * tensor_type.block_bytes;
    shape.reverse();
    Ok(Info { name, shape, tensor_type, offset, bytes })
}

/// Gives each tensor its bytes: inside the file, and no byte to two tensors.
fn place(mut infos: Vec<Info>, data_start: u64, file: &Arc<PathBuf>, mapping: &Arc<Mapping>) -> Result<BTreeMap<String, Tensor>> {
    infos.sort_by_key(|info| info.offset);
    let available = (mapping.len() as u64).saturating_sub(data_start);
    let mut tensors = BTreeMap::new();
    let (mut free_from, mut before) = (0, String::new());
    for Info { name, shape, tensor_type, offset, bytes } in infos {
        let end = offset.checked_add(bytes).filter(|&end| end <= available).ok_or_else(|| {
            let message = format!("tensor {name:?}: {bytes} bytes at {offset} of the data, which has {available}: truncated?");
            Error::bad_file(file, message)
        })?;
        if offset < free_from {
            return Err(Error::bad_file(file, format_args!("tensors {before:?} and {name:?} overlap")));
        }
        (free_from, before) = (end, name.clone());
        let Some(dtype) = tensor_type.dtype else {
            let message = format!("tensor {name:?} has type {}, which is not supported", tensor_type.name);
            return Err(Error::unsupported(format!("{}: {message}", file.display())));
        };
        // No overflow, and the casts are exact: both are at most the file's length, a usize.
        let data = Bytes::new(mapping.clone(), (data_start + offset) as usize..(data_start + end) as usize);
        let data = data.ok_or_else(|| Error::bad_file(file, format_args!("tensor {name:?} lies outside the file")))?;
        if tensors.insert(name, Tensor { dtype, shape, data, file: file.clone() }).is_some() {
            return Err(Error::bad_file(file, format_args!("two tensors are named {before:?}")));
        }
    }
    Ok(tensors)
}
