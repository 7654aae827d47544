//! Files in memory: mapped where they lie, read into memory of our own, or mapped under a guard against truncation.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
mod guard;

use super::MapMode;
use crate::error::{Error, Result};
use std::fmt::Display;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// The bytes of a whole file, or memory of our own.
pub enum Mapping {
    /// A mapped file.
    File(MappedFile),
    /// Memory of our own: a file that was read, or converted weights.
    Owned(Vec<u8>),
}

/// A mapped file; made by [`Mapping::open`].
pub struct MappedFile {
    // Declared first, so dropped first: the guard must forget the addresses before they are given back.
    #[cfg(target_os = "linux")]
    guard: Option<guard::Guarded>,
    map: memmap2::Mmap,
    path: PathBuf,
}

impl Mapping {
    /// Maps or reads the regular file at `path`. Anything else (a directory, a device, a pipe, an empty file) is an error.
    pub fn open(path: &Path, mode: MapMode) -> Result<Self> {
        let (mut file, len) = open_regular(path)?;
        if len == 0 {
            return Err(Error::bad_file(path, "the file is empty"));
        }
        match mode {
            MapMode::Copy => Ok(Mapping::Owned(read_exactly(&mut file, path, len)?)),
            MapMode::Map | MapMode::Guarded => Ok(Mapping::File(MappedFile::new(&file, path, len, mode)?)),
        }
    }

    /// Whether these are pages of a file rather than memory of our own.
    pub fn is_mapped(&self) -> bool {
        matches!(self, Mapping::File(_))
    }

    /// [`crate::ErrorKind::Io`] if a guarded file has lost pages since it was opened: what was read from it since is zeros.
    /// One atomic load; in the other modes always `Ok`.
    pub fn check(&self) -> Result<()> {
        match self {
            Mapping::File(file) => file.check(),
            Mapping::Owned(_) => Ok(()),
        }
    }
}

impl MappedFile {
    fn new(file: &File, path: &Path, len: usize, mode: MapMode) -> Result<Self> {
        // SAFETY: the map is read-only and private to this value. That the file does not shrink under it cannot be
        // established by us: it is the documented hazard of `MapMode::Map`, and what `Guarded` and `Copy` are for.
        let map = unsafe { memmap2::MmapOptions::new().len(len).map(file) };
        let map = map.map_err(|e| Error::io(path, "map", &e))?;
        // Where the file is not in the page cache yet, and its file system can, it comes into that in large pages, and stays in them for later mappings:
        // they are read faster from end to end, and faulted in 512 at a time. Where not, all is as without.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        #[cfg(not(target_os = "linux"))]
        if mode == MapMode::Guarded {
            return Err(Error::unsupported(format!("{}: guarded mapping is only available on Linux", path.display())));
        }
        Ok(Self {
            #[cfg(target_os = "linux")]
            guard: if mode == MapMode::Guarded { Some(guard::Guarded::new(&map, path)?) } else { None },
            map,
            path: path.to_path_buf(),
        })
    }

    fn check(&self) -> Result<()> {
        #[cfg(target_os = "linux")]
        if self.guard.as_ref().is_some_and(guard::Guarded::damaged) {
            let message = format!("{}: the file was truncated or became unreadable while in use", self.path.display());
            return Err(Error::new(crate::ErrorKind::Io, message));
        }
        Ok(())
    }
}

impl Deref for Mapping {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Mapping::File(file) => &file.map,
            Mapping::Owned(v) => v,
        }
    }
}

/// The whole of a small regular file (a configuration, a vocabulary), of at most `limit` bytes.
pub fn read_file(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let (mut file, len) = open_regular(path)?;
    if len > limit {
        return Err(Error::bad_file(path, format_args!("the file has {len} bytes, expected at most {limit}")));
    }
    read_exactly(&mut file, path, len)
}

/// Opens a regular file and tells its length. Never waits, as a plain open of a pipe would.
pub(super) fn open_regular(path: &Path) -> Result<(File, usize)> {
    // Looked at before opening, since opening some devices has effects, and again after it, since the name may have moved.
    regular_len(path, &std::fs::metadata(path).map_err(|e| Error::io(path, "open", &e))?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path).map_err(|e| Error::io(path, "open", &e))?;
    let len = regular_len(path, &file.metadata().map_err(|e| Error::io(path, "open", &e))?)?;
    Ok((file, len))
}

fn regular_len(path: &Path, metadata: &Metadata) -> Result<usize> {
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a directory" } else { "a device, pipe or socket" };
        return Err(Error::bad_file(path, format_args!("expected a regular file, found {what}")));
    }
    let too_large = |_| Error::unsupported(format!("{}: {} bytes are too many to map", path.display(), metadata.len()));
    usize::try_from(metadata.len()).map_err(too_large)
}

fn read_exactly(file: &mut File, path: &Path, len: usize) -> Result<Vec<u8>> {
    let mut bytes = room(len, path.display())?;
    file.take(len as u64).read_to_end(&mut bytes).map_err(|e| Error::io(path, "read", &e))?;
    if bytes.len() != len {
        let message = format!("{}: read {} bytes where {len} were expected", path.display(), bytes.len());
        return Err(Error::new(crate::ErrorKind::Io, message));
    }
    Ok(bytes)
}

/// Room for `len` bytes of weights, which `what` is: an empty vector whose memory is in large pages, as far as the system has them for those who ask.
/// What is read from end to end, step by step, comes faster from these than from a file's pages.
pub fn room(len: usize, what: impl Display) -> Result<Vec<u8>> {
    let mut bytes: Vec<u8> = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Error::out_of_memory(what, len))?;
    #[cfg(target_os = "linux")]
    {
        const LARGE: usize = 2 << 20; // with small pages of 4 KB
        let memory = bytes.spare_capacity_mut();
        let before = memory.as_ptr().addr().next_multiple_of(LARGE) - memory.as_ptr().addr();
        let n = memory.len().saturating_sub(before) / LARGE * LARGE;
        if n > 0 {
            // SAFETY: these are whole pages of the vector's memory; the advice changes neither their addresses nor what is in them. Where it is
            // refused everything is as it was.
            unsafe { libc::madvise(memory[before..].as_mut_ptr().cast(), n, libc::MADV_HUGEPAGE) };
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::format::testing::TempDir;

    const MODES: [MapMode; 3] = [MapMode::Map, MapMode::Copy, MapMode::Guarded];

    #[test]
    fn every_mode_gives_the_bytes() {
        let dir = TempDir::new();
        let content: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        let path = dir.write("file", &content);
        for mode in MODES {
            let mapping = Mapping::open(&path, mode).unwrap();
            assert_eq!(&mapping[..], &content[..], "{mode:?}");
            assert_eq!(mapping.is_mapped(), mode != MapMode::Copy);
            mapping.check().unwrap();
        }
    }

    /// Where the system has large pages, they are asked for: `hg` in what it says of the memory.
    #[cfg(target_os = "linux")]
    #[test]
    fn every_mode_asks_for_large_pages() {
        if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return println!("SKIPPED: this system has no large pages");
        }
        let dir = TempDir::new();
        let path = dir.write("file", &vec![1; 8 << 20]);
        for mode in MODES {
            let mapping = Mapping::open(&path, mode).unwrap();
            let (middle, mut inside) = (mapping[4 << 20..].as_ptr().addr(), false);
            let asked = std::fs::read_to_string("/proc/self/smaps").unwrap().lines().any(|line| {
                let range = line.split(' ').next().and_then(|range| range.split_once('-'));
                let range = range.and_then(|(a, b)| Some(usize::from_str_radix(a, 16).ok()?..usize::from_str_radix(b, 16).ok()?));
                inside = range.map_or(inside, |range| range.contains(&middle));
                inside && line.starts_with("VmFlags:") && line.split(' ').any(|flag| flag == "hg")
            });
            assert!(asked, "{mode:?}");
        }
    }

    #[test]
    fn a_copy_does_not_change_with_the_file() {
        let dir = TempDir::new();
        let path = dir.write("file", b"before");
        let mapping = Mapping::open(&path, MapMode::Copy).unwrap();
        std::fs::write(&path, b"").unwrap();
        assert_eq!(&mapping[..], b"before");
    }

    #[test]
    fn only_regular_files_with_content_open() {
        let dir = TempDir::new();
        let fifo = dir.path().join("fifo");
        let name = std::ffi::CString::new(fifo.to_str().unwrap()).unwrap();
        // SAFETY: `name` is a NUL-terminated string that outlives the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let cases = [
            (dir.path().to_path_buf(), ErrorKind::BadFile, "a directory"),
            (PathBuf::from("/dev/null"), ErrorKind::BadFile, "a device"),
            (fifo, ErrorKind::BadFile, "a device, pipe"),
            (dir.write("empty", b""), ErrorKind::BadFile, "the file is empty"),
            (dir.path().join("missing"), ErrorKind::NotFound, "cannot open"),
        ];
        for (path, kind, message) in cases {
            for mode in MODES {
                let error = Mapping::open(&path, mode).err().unwrap();
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.message().contains(message) && error.message().contains(path.to_str().unwrap()), "{error}");
            }
        }
    }

    #[test]
    fn small_files_have_a_limit() {
        let dir = TempDir::new();
        let path = dir.write("file", b"12345");
        assert_eq!(read_file(&path, 5).unwrap(), b"12345");
        assert_eq!(read_file(&path, 4).unwrap_err().kind(), ErrorKind::BadFile);
        assert_eq!(read_file(&dir.write("empty", b""), 4).unwrap(), b"");
    }
}
