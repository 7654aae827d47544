//! What the tests of several modules need: folders that clean up after themselves, and small files of each format.
#![forbid(unsafe_code)]

use super::mmap::Mapping;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder of its own, removed when dropped.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("engine-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bytes as a parser takes them: the name for messages, and the "file".
pub(crate) fn in_memory(bytes: &[u8]) -> (Arc<PathBuf>, Arc<Mapping>) {
    (Arc::new(PathBuf::from("in-memory")), Arc::new(Mapping::Owned(bytes.to_vec())))
}

/// A safetensors file: any header, and any data after it.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A `.npy` file as NumPy writes version 1.0: the header padded with spaces to a multiple of 64, then the data.
pub(crate) fn npy(dict: &str, data: &[u8]) -> Vec<u8> {
    let padded = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let header = format!("{dict:<width$}\n", width = padded - 1);
    [b"\x93NUMPY\x01\x00", &(padded as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// The dictionary that NumPy writes for float32 in C order.
pub(crate) fn npy_dict(shape: &str) -> String {
    format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}")
}

/// A string as GGUF writes it.
pub(crate) fn gguf_string(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
}

/// An array's value as GGUF writes it: element type, count, elements.
pub(crate) fn gguf_array(element: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&element.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

/// A GGUF file in the making, valid or not.
pub(crate) struct Gguf {
    pub version: u32,
    pub alignment: usize,
    pub n_tensors: u64,
    pub n_keys: u64,
    pub entries: Vec<u8>,
    pub infos: Vec<u8>,
    pub data: Vec<u8>,
}

impl Gguf {
    pub(crate) fn new() -> Self {
        let (entries, infos, data) = Default::default();
        Self { version: 3, alignment: 32, n_tensors: 0, n_keys: 0, entries, infos, data }
    }

    /// A key with a value of type `value_type` (the format's number).
    pub(crate) fn entry(mut self, key: &str, value_type: u32, value: &[u8]) -> Self {
        self.n_keys += 1;
        self.entries.extend([&gguf_string(key)[..], &value_type.to_le_bytes(), value].concat());
        self
    }

    /// A tensor's description with any offset; `dims` innermost first, `tensor_type` the format's number.
    pub(crate) fn info(mut self, name: &str, dims: &[u64], tensor_type: u32, offset: u64) -> Self {
        self.n_tensors += 1;
        self.infos.extend(gguf_string(name));
        self.infos.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| self.infos.extend(dim.to_le_bytes()));
        self.infos.extend(tensor_type.to_le_bytes());
        self.infos.extend(offset.to_le_bytes());
        self
    }

    /// Bytes at the next aligned place of the data.
    pub(crate) fn data(mut self, bytes: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        self.data.extend(bytes);
        self
    }

    /// A tensor at the next aligned place.
    pub(crate) fn tensor(self, name: &str, dims: &[u64], tensor_type: u32, bytes: &[u8]) -> Self {
        let offset = self.data.len().next_multiple_of(self.alignment) as u64;
        self.info(name, dims, tensor_type, offset).data(bytes)
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let (version, n_tensors, n_keys) = (self.version, self.n_tensors, self.n_keys);
        let counts = [n_tensors.to_le_bytes(), n_keys.to_le_bytes()].concat();
        let mut file = [b"GGUF", &version.to_le_bytes()[..], &counts, &self.entries, &self.infos].concat();
        file.resize(file.len().next_multiple_of(self.alignment), 0);
        file.extend(&self.data);
        file
    }
}
