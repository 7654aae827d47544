//! safetensors files and the index that ties shards together.
//!
//! A file is the header's length (u64), the header (JSON: name → dtype, shape, byte range), and the tensors' bytes, which
//! the ranges cover from the first to the last without a hole or an overlap.
#![forbid(unsafe_code)]

use super::mmap::{Mapping, read_file};
use super::{Bytes, DType, Tensor, byte_len};
use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAX_HEADER: u64 = 100_000_000;
const MAX_DIMS: usize = 8;
const MAX_INDEX: usize = 64 << 20;
const METADATA: &str = "__metadata__";

/// The content of one file.
pub(super) struct Parsed {
    /// Tensors of the types we read.
    pub tensors: BTreeMap<String, Tensor>,
    /// Tensors of other types: name to type. Models carry masks and position ids that nothing needs.
    pub skipped: BTreeMap<String, String>,
}

/// The tensors in the bytes of one file; `file` is its path.
pub(super) fn parse(file: &Arc<PathBuf>, mapping: &Arc<Mapping>) -> Result<Parsed> {
    let bad = |message: String| Error::bad_file(file, message);
    let (header, data_start) = header(mapping).map_err(bad)?;
    let UniqueMap(entries) = serde_json::from_str::<UniqueMap<Entry>>(header).map_err(|e| bad(format!("header: {e}")))?;
    let mut parsed = Parsed { tensors: BTreeMap::new(), skipped: BTreeMap::new() };
    for (name, info) in in_file_order(entries, mapping.len() - data_start).map_err(bad)? {
        let Some(&(_, bits, dtype)) = DTYPES.iter().find(|(dtype, ..)| *dtype == info.dtype) else {
            return Err(Error::unsupported(format!("{}: tensor {name:?} has unknown type {:?}", file.display(), info.dtype)));
        };
        let (start, end) = info.data_offsets;
        if byte_len(&info.shape.0, bits) != Some(end - start) {
            let found = end - start;
            return Err(bad(format!("tensor {name:?}: {found} bytes do not hold shape {:?} of {}", info.shape.0, info.dtype)));
        }
        let Some(dtype) = dtype else {
            parsed.skipped.insert(name, info.dtype);
            continue;
        };
        let data = Bytes::new(mapping.clone(), data_start + start..data_start + end);
        let data = data.ok_or_else(|| bad(format!("tensor {name:?} lies outside the file")))?;
        parsed.tensors.insert(name, Tensor { dtype, shape: info.shape.0, data, file: file.clone() });
    }
    Ok(parsed)
}

/// The header's text and where the data starts.
fn header(bytes: &[u8]) -> Result<(&str, usize), String> {
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(format!("the file has {} bytes, too few for a safetensors header", bytes.len()));
    };
    let len = u64::from_le_bytes(*len);
    if len > MAX_HEADER {
        return Err(format!("the header has {len} bytes, expected at most {MAX_HEADER}: not a safetensors file"));
    }
    let header = usize::try_from(len).ok().and_then(|len| rest.get(..len));
    let header = header.ok_or_else(|| format!("truncated: the header has {len} bytes, but {} follow", rest.len()))?;
    if header.first() != Some(&b'{') {
        return Err("the header does not start with '{': not a safetensors file".into());
    }
    let text = std::str::from_utf8(header).map_err(|e| format!("the header is not UTF-8: {e}"))?;
    Ok((text, 8 + header.len()))
}

/// Every type of the format: its name, the bits of an element, and ours where we read it.
const DTYPES: &[(&str, usize, Option<DType>)] = &[
    ("F32", 32, Some(DType::F32)),
    ("F16", 16, Some(DType::F16)),
    ("BF16", 16, Some(DType::BF16)),
    ("BOOL", 8, None),
    ("F4", 4, None),
    ("F6_E2M3", 6, None),
    ("F6_E3M2", 6, None),
    ("U8", 8, None),
    ("I8", 8, None),
    ("F8_E5M2", 8, None),
    ("F8_E4M3", 8, None),
    ("F8_E8M0", 8, None),
    ("F8_E4M3FNUZ", 8, None),
    ("F8_E5M2FNUZ", 8, None),
    ("I16", 16, None),
    ("U16", 16, None),
    ("I32", 32, None),
    ("U32", 32, None),
    ("I64", 64, None),
    ("U64", 64, None),
    ("F64", 64, None),
    ("C64", 64, None),
];

/// The tensors by their place in the file, once it is sure that their ranges cover its `data_len` bytes exactly.
fn in_file_order(entries: BTreeMap<String, Entry>, data_len: usize) -> Result<Vec<(String, TensorInfo)>, String> {
    let mut tensors: Vec<(String, TensorInfo)> = Vec::new();
    for (name, entry) in entries {
        if let Entry::Tensor(info) = entry {
            tensors.push((name, info));
        }
    }
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let mut covered = 0;
    for (name, info) in &tensors {
        let (start, end) = info.data_offsets;
        if start != covered || end < start {
            return Err(format!("tensor {name:?} has bytes {start}..{end}, expected them to start at {covered}"));
        }
        covered = end;
    }
    if covered != data_len {
        let truncated = if data_len < covered { ": truncated?" } else { "" };
        return Err(format!("the tensors have {covered} bytes, but {data_len} follow the header{truncated}"));
    }
    Ok(tensors)
}

/// A value of the header: a tensor, or the free text under `__metadata__`.
enum Entry {
    Tensor(TensorInfo),
    Metadata,
}

#[derive(Deserialize)]
struct TensorInfo {
    dtype: String,
    shape: Shape,
    data_offsets: (usize, usize),
}

/// Sizes, not too many: bounded before they are stored.
struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Dims;
        impl<'de> Visitor<'de> for Dims {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_DIMS} sizes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut dims = Vec::new();
                while let Some(dim) = seq.next_element()? {
                    if dims.len() == MAX_DIMS {
                        return Err(A::Error::invalid_length(MAX_DIMS + 1, &self));
                    }
                    dims.push(dim);
                }
                Ok(Shape(dims))
            }
        }
        deserializer.deserialize_seq(Dims)
    }
}

/// A JSON object in which no key comes twice. (serde_json's own map keeps the last silently, and two readers that keep
/// different ones would see two models in one file.)
struct UniqueMap<V>(BTreeMap<String, V>);

/// How a value is read, given its key.
trait Keyed<'de>: Sized {
    fn read<A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Self, A::Error>;
}

impl<'de> Keyed<'de> for Entry {
    fn read<A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Self, A::Error> {
        if key != METADATA {
            return map.next_value().map(Entry::Tensor);
        }
        map.next_value::<UniqueMap<String>>().map(|_| Entry::Metadata)
    }
}

impl<'de> Keyed<'de> for String {
    fn read<A: MapAccess<'de>>(_key: &str, map: &mut A) -> Result<Self, A::Error> {
        map.next_value()
    }
}

impl<'de, V: Keyed<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Keyed<'de>> Visitor<'de> for Entries<V> {
            type Value = UniqueMap<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueMap<V>, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = V::read(&key, &mut map)?;
                    if entries.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("{key:?} is there twice")));
                    }
                    entries.insert(key, value);
                }
                Ok(UniqueMap(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// `model.safetensors.index.json`: which shard each tensor is in.
pub(super) struct Index {
    /// Tensor to the shard's file name, which is a plain name in the index's own directory.
    pub weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads the index at `path`.
    pub(super) fn read(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct File {
            weight_map: UniqueMap<String>,
        }
        let bytes = read_file(path, MAX_INDEX)?;
        let file: File = serde_json::from_slice(&bytes).map_err(|e| Error::bad_file(path, e))?;
        let weight_map = file.weight_map.0;
        for shard in weight_map.values() {
            let plain = !shard.is_empty() && !shard.starts_with('.') && !shard.contains(['/', '\\', '\0']);
            if !plain {
                return Err(Error::bad_file(path, format_args!("shard {shard:?} is not a plain file name")));
            }
        }
        if weight_map.is_empty() {
            return Err(Error::bad_file(path, "weight_map is empty"));
        }
        Ok(Self { weight_map })
    }

    /// The shards' file names, each once.
    pub(super) fn shards(&self) -> std::collections::BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}
