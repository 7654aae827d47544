//! What is at a path: told from the directory's entries and the first bytes of a file, never from the extension alone.
#![forbid(unsafe_code)]

use super::mmap::{Mapping, read_file};
use super::{Checkpoint, Kind, MapMode, gguf, npy, safetensors};
use crate::error::{Error, ErrorKind, Result};
use gguf::split::{self, Split};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CONFIG: &str = "config.json";
const MAX_CONFIG: usize = 16 << 20;
const SAFETENSORS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Opens what is at `path`: a Hugging Face directory (`config.json` and safetensors), a directory of `.npy` files, a GGUF file
/// (or a directory with one), or one safetensors file beside its `config.json`.
pub fn open(path: &Path, mode: MapMode) -> Result<Checkpoint> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, "open", &e))?;
    if metadata.is_dir() { open_dir(path, mode) } else { open_file(path, path, mode) }
}

fn open_dir(dir: &Path, mode: MapMode) -> Result<Checkpoint> {
    let listing = Listing::read(dir)?;
    let safetensors = listing.with_extension("safetensors");
    if listing.has(SAFETENSORS) {
        return open_safetensors(dir, dir, &[SAFETENSORS], mode);
    }
    if listing.has(INDEX) {
        return open_sharded(dir, mode);
    }
    match safetensors[..] {
        [] => {}
        [one] => return open_safetensors(dir, dir, &[one], mode),
        _ => {
            let message = format!("{} .safetensors files but neither {SAFETENSORS} nor {INDEX}", safetensors.len());
            return Err(Error::bad_file(dir, message));
        }
    }
    let npy = listing.with_extension("npy");
    if !npy.is_empty() {
        return open_npy(dir, &npy, listing.has(CONFIG), mode);
    }
    let gguf = listing.with_extension("gguf");
    match gguf[..] {
        [] => Err(listing.no_model(dir)),
        [one] => open_gguf(dir, &dir.join(one), mode),
        [first, ..] if are_parts(&gguf) => open_gguf(dir, &dir.join(first), mode),
        [first, ..] => Err(Error::bad_file(dir, format_args!("several GGUF files ({first}, …): give the path of one of them"))),
    }
}

/// Opens one file, told by its content; `path` is what the caller gave.
fn open_file(path: &Path, file: &Path, mode: MapMode) -> Result<Checkpoint> {
    match Content::of(file)? {
        Content::Gguf => open_gguf(path, file, mode),
        Content::Safetensors => {
            let name = file.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| Error::unsupported(format!("{}: the file's name is not UTF-8", file.display())))?;
            open_safetensors(path, parent(file), &[name], mode)
        }
        Content::Other(what) => {
            let message = format!("{}: expected a GGUF or safetensors file or a model directory, found {what}", file.display());
            Err(Error::unsupported(message))
        }
    }
}

/// A GGUF file, and the other parts if it is one of several.
fn open_gguf(path: &Path, file: &Path, mode: MapMode) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::empty(Kind::Gguf, path, parent(file));
    let parsed = checkpoint.add_gguf(file, mode)?;
    let Some(split) = Split::of(&parsed, file)? else {
        checkpoint.metadata = Some(parsed.metadata);
        checkpoint.tensors = parsed.tensors;
        return Ok(checkpoint);
    };
    let name = split::Name::of(file, split)?;
    let mut given = Some(parsed);
    for no in 0..split.count {
        let part = name.path(file, no);
        let parsed = match given.take_if(|_| no + 1 == name.no) {
            Some(parsed) => parsed,
            None => checkpoint.add_gguf(&part, mode).map_err(|e| match e.kind() {
                ErrorKind::NotFound => e.context(format_args!("part {} of {} is missing", no + 1, split.count)),
                _ => e,
            })?,
        };
        split.expect(Split::of(&parsed, &part)?, no, &part)?;
        for (name, tensor) in parsed.tensors {
            checkpoint.refuse_second(&name, &part)?;
            checkpoint.tensors.insert(name, tensor);
        }
        // The first part's is that of the model.
        checkpoint.metadata.get_or_insert(parsed.metadata);
    }
    split.expect_tensors(checkpoint.tensors.len(), file)?;
    Ok(checkpoint)
}

/// Whether `names`, sorted, are the parts of one model.
fn are_parts(names: &[&str]) -> bool {
    let parts: Option<Vec<split::Name<'_>>> = names.iter().map(|name| split::Name::parse(name)).collect();
    parts.is_some_and(|parts| parts.iter().all(|part| (part.stem, part.count) == (parts[0].stem, parts[0].count)))
}

fn open_npy(dir: &Path, names: &[&str], has_config: bool, mode: MapMode) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::empty(Kind::Npy, dir, dir);
    if has_config {
        checkpoint.config = Some(read_config(dir)?);
    }
    for name in names {
        let (file, mapping) = checkpoint.add(&dir.join(name), mode)?;
        let stem = name.strip_suffix(".npy").unwrap_or(name);
        checkpoint.tensors.insert(stem.to_string(), npy::parse(&file, &mapping)?);
    }
    Ok(checkpoint)
}

fn open_sharded(dir: &Path, mode: MapMode) -> Result<Checkpoint> {
    let index_path = dir.join(INDEX);
    let index = safetensors::Index::read(&index_path)?;
    let shards: Vec<&str> = index.shards().into_iter().collect();
    let checkpoint = open_safetensors(dir, dir, &shards, mode)?;
    for (name, shard) in &index.weight_map {
        // A tensor of a type we skip has no file recorded; that it is somewhere is enough.
        let found = match checkpoint.tensors.get(name) {
            Some(tensor) => tensor.file.file_name().is_some_and(|file| file == shard.as_str()),
            None => checkpoint.skipped.contains_key(name),
        };
        if !found {
            return Err(Error::bad_file(&index_path, format_args!("tensor {name:?} is not in shard {shard:?}")));
        }
    }
    Ok(checkpoint)
}

/// The safetensors files `names` in `dir` and the configuration beside them.
fn open_safetensors(path: &Path, dir: &Path, names: &[&str], mode: MapMode) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::empty(Kind::HuggingFace, path, dir);
    checkpoint.config = Some(read_config(dir)?);
    for name in names {
        let (file, mapping) = checkpoint.add(&dir.join(name), mode)?;
        let parsed = safetensors::parse(&file, &mapping)?;
        for (name, tensor) in parsed.tensors {
            checkpoint.refuse_second(&name, &file)?;
            checkpoint.tensors.insert(name, tensor);
        }
        for (name, dtype) in parsed.skipped {
            checkpoint.refuse_second(&name, &file)?;
            checkpoint.skipped.insert(name, dtype);
        }
    }
    Ok(checkpoint)
}

fn read_config(dir: &Path) -> Result<serde_json::Value> {
    let path = dir.join(CONFIG);
    let bytes = read_file(&path, MAX_CONFIG).map_err(|e| match e.kind() {
        ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, format!("{}: needed beside safetensors, not found", path.display()))
        }
        _ => e,
    })?;
    let config: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|e| Error::bad_file(&path, format_args!("not valid JSON: {e}")))?;
    if config.is_object() { Ok(config) } else { Err(Error::bad_file(&path, "expected a JSON object")) }
}

impl Checkpoint {
    fn empty(kind: Kind, path: &Path, dir: &Path) -> Self {
        Checkpoint {
            kind,
            path: path.to_path_buf(),
            dir: dir.to_path_buf(),
            config: None,
            metadata: None,
            tensors: BTreeMap::new(),
            skipped: BTreeMap::new(),
            files: Vec::new(),
        }
    }

    fn add(&mut self, file: &Path, mode: MapMode) -> Result<(Arc<PathBuf>, Arc<Mapping>)> {
        let mapping = Arc::new(Mapping::open(file, mode)?);
        if let Some(pointer) = git_lfs_pointer(&mapping) {
            return Err(Error::bad_file(file, pointer));
        }
        self.files.push(mapping.clone());
        Ok((Arc::new(file.to_path_buf()), mapping))
    }

    fn add_gguf(&mut self, file: &Path, mode: MapMode) -> Result<gguf::Parsed> {
        let (file, mapping) = self.add(file, mode)?;
        gguf::parse(&file, &mapping)
    }

    fn refuse_second(&self, name: &str, file: &Path) -> Result<()> {
        if self.tensors.contains_key(name) || self.skipped.contains_key(name) {
            return Err(Error::bad_file(file, format_args!("tensor {name:?} is in another file too")));
        }
        Ok(())
    }
}

/// The directory of a file; `.` for a bare name.
fn parent(file: &Path) -> &Path {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The entries of a directory whose names are UTF-8, sorted.
struct Listing(Vec<String>);

impl Listing {
    fn read(dir: &Path) -> Result<Self> {
        let io = |e| Error::io(dir, "list", &e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(io)? {
            if let Ok(name) = entry.map_err(io)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(Self(names))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|n| n == name)
    }

    /// Hidden files are left out: macOS leaves `._name` beside files it has touched.
    fn with_extension(&self, extension: &str) -> Vec<&str> {
        let matches = |name: &&str| !name.starts_with('.') && name.rsplit_once('.').is_some_and(|(_, e)| e == extension);
        self.0.iter().map(String::as_str).filter(matches).collect()
    }

    /// The error for a directory in which there is nothing that we read.
    fn no_model(&self, dir: &Path) -> Error {
        let foreign = ["bin", "pt", "pth", "ckpt", "h5", "msgpack", "onnx"];
        if let Some(file) = foreign.iter().find_map(|e| self.with_extension(e).first().copied()) {
            let message = format!("{file} is not a format that is read: convert the model to safetensors or GGUF");
            return Error::unsupported(format!("{}: {message}", dir.display()));
        }
        let found = match self.0.len() {
            0 => "an empty directory".to_string(),
            n => {
                let some: Vec<&str> = self.0.iter().take(6).map(String::as_str).collect();
                let entries = if n == 1 { "entry" } else { "entries" };
                format!("{n} {entries}: {}{}", some.join(", "), if n > some.len() { ", …" } else { "" })
            }
        };
        let looked_for = format!("no model here: looked for {SAFETENSORS}, {INDEX}, *.safetensors, *.npy and *.gguf");
        Error::new(ErrorKind::NotFound, format!("{}: {looked_for}; found {found}", dir.display()))
    }
}

/// What the first bytes of a file say.
enum Content {
    Gguf,
    Safetensors,
    /// Something that is not read: what, for the message.
    Other(Cow<'static, str>),
}

impl Content {
    fn of(file: &Path) -> Result<Self> {
        // Opened like any file that is mapped later: only regular files, and without waiting.
        let (file_handle, _) = super::mmap::open_regular(file)?;
        let mut head = Vec::new();
        file_handle.take(512).read_to_end(&mut head).map_err(|e| Error::io(file, "read", &e))?;
        Ok(Self::from_head(&head))
    }

    fn from_head(head: &[u8]) -> Self {
        const OTHERS: &[(&[u8], &str)] = &[
            (b"\x93NUMPY", "one .npy file: give the path of its directory"),
            (b"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint: convert it to safetensors"),
            (b"\x80\x02", "a Python pickle: convert it to safetensors"),
            (b"lmgg", "a file of a format older than GGUF: convert it to GGUF"),
            (b"fmgg", "a file of a format older than GGUF: convert it to GGUF"),
            (b"tjgg", "a file of a format older than GGUF: convert it to GGUF"),
            (b"\x89HDF", "an HDF5 file: convert it to safetensors"),
            (b"", "an empty file"),
        ];
        if head.starts_with(gguf::MAGIC) {
            return Content::Gguf;
        }
        if head.get(8) == Some(&b'{') {
            return Content::Safetensors;
        }
        if git_lfs_pointer(head).is_some() {
            return Content::Other("a Git LFS pointer: fetch the file itself with `git lfs pull`".into());
        }
        let known = OTHERS.iter().find(|(magic, _)| if magic.is_empty() { head.is_empty() } else { head.starts_with(magic) });
        match known {
            Some((_, what)) => Content::Other((*what).into()),
            None if std::str::from_utf8(head).is_ok() => Content::Other("a text file".into()),
            None => {
                let first = head.get(..4).unwrap_or(head).escape_ascii();
                Content::Other(format!("a file that begins with \"{first}\" (GGUF files begin with \"GGUF\")").into())
            }
        }
    }
}

/// Repositories cloned without Git LFS hold small text files in place of the weights.
fn git_lfs_pointer(bytes: &[u8]) -> Option<&'static str> {
    bytes.starts_with(b"version https://git-lfs").then_some("a Git LFS pointer: fetch the file itself with `git lfs pull`")
}
