//! A file that appears whole or not at all: written beside its place under another name, and renamed when all of it is on the disk.
#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind, Result};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A file in the making. Unless it is committed, nothing of it is left.
pub struct WholeFile {
    file: File,
    /// Where it is now; `None` once it is at its place.
    temporary: Option<PathBuf>,
    /// Where it belongs.
    path: PathBuf,
}

impl WholeFile {
    /// A file of `len` bytes that is to be at `path`, in place of a regular file that may be there.
    pub fn create(path: &Path, len: u64) -> Result<Self> {
        if let Some(limit) = size_limit().filter(|&limit| limit < len) {
            let message = format!("{}: needs {len} bytes, and this process may write no more than {limit}", path.display());
            return Err(Error::new(ErrorKind::Io, message));
        }
        // What a link points at is replaced, not the link.
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(_) => path.to_path_buf(),
        };
        if fs::metadata(&path).is_ok_and(|there| !there.is_file()) {
            return Err(Error::bad_argument(format!("{}: is there and is no regular file", path.display())));
        }
        let name = path.file_name().ok_or_else(|| Error::bad_argument(format!("{}: not the name of a file", path.display())))?;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..100 {
            let mut temporary = std::ffi::OsString::from(".");
            temporary.push(name);
            temporary.push(format!(".{}-{}.part", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
            let temporary = path.with_file_name(temporary);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => return Ok(Self { file, temporary: Some(temporary), path }),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io(&path, "create a file beside it", &e)),
            }
        }
        Err(Error::new(ErrorKind::Io, format!("{}: cannot create a file beside it: a hundred are left there", path.display())))
    }

    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io(&self.path, "write", &e))
    }

    /// Puts the file at its place, once its bytes are on the disk.
    pub fn commit(mut self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(&self.path, "write", &e))?;
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path).map_err(|e| Error::io(&self.path, "put the new file in its place", &e))?;
        }
        self.temporary = None;
        sync_dir(&self.path)
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

/// The new name is on the disk too.
#[cfg(unix)]
fn sync_dir(file: &Path) -> Result<()> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| Error::io(dir, "write the directory", &e))
}

#[cfg(not(unix))]
fn sync_dir(_: &Path) -> Result<()> {
    Ok(())
}

/// The most bytes that this process may write to a file, where there is such a limit: going over it is a signal that ends the process.
fn size_limit() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max file size"))?;
    line.split_whitespace().next()?.parse().ok()
}
