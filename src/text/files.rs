//! The small files beside a tokenizer, and the tokens that they name.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The largest tokenizer known has 35 MB.
pub(super) const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// The size of a regular file of at most `limit` bytes; `None` if there is none.
pub(super) fn size(path: &Path, limit: u64) -> Result<Option<u64>> {
    let meta = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        meta => meta.map_err(|e| Error::io(path, "look at the file", &e))?,
    };
    if !meta.is_file() {
        return Err(Error::bad_file(path, "this is not a regular file"));
    }
    if meta.len() > limit {
        return Err(Error::bad_file(path, format!("the file has {} bytes, expected at most {limit}", meta.len())));
    }
    Ok(Some(meta.len()))
}

/// The whole of such a file.
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(size) = size(path, limit)? else { return Ok(None) };
    let file = File::open(path).map_err(|e| Error::io(path, "open the file", &e))?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| Error::out_of_memory(path.display(), size))?;
    file.take(limit).read_to_end(&mut bytes).map_err(|e| Error::io(path, "read the file", &e))?;
    Ok(Some(bytes))
}

/// The same as UTF-8 text.
pub(super) fn read_text(path: &Path, limit: u64) -> Result<Option<String>> {
    let Some(bytes) = read(path, limit)? else { return Ok(None) };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(e) => Err(Error::bad_file(path, format!("expected UTF-8 text: {}", e.utf8_error()))),
    }
}

fn read_json(path: &Path) -> Result<Value> {
    match read(path, MAX_CONFIG_BYTES)? {
        None => Ok(Value::Null),
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| Error::bad_file(path, format!("not valid JSON: {e}"))),
    }
}

/// The tokens that begin and end a text, as the configuration files of a model directory name them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct NamedTokens {
    /// Ids of `eos_token_id` in `generation_config.json` and `config.json`.
    pub(super) end_ids: Vec<u32>,
    /// `eos_token` of `tokenizer_config.json`.
    pub(super) end: Option<String>,
    /// `bos_token` of `tokenizer_config.json`.
    pub(super) bos: Option<String>,
    /// `bos_token_id` of the other two; counts where `tokenizer_config.json` does not say.
    pub(super) bos_id: Option<u32>,
}

impl NamedTokens {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut named = Self::default();
        let mut bos_ids = Vec::new();
        for file in ["generation_config.json", "config.json"] {
            let path = dir.join(file);
            let config = read_json(&path)?;
            ids(&path, &config, "eos_token_id", &mut named.end_ids)?;
            ids(&path, &config, "bos_token_id", &mut bos_ids)?;
        }
        let path = dir.join("tokenizer_config.json");
        let config = read_json(&path)?;
        named.end = name(&path, &config, "eos_token")?;
        named.bos = name(&path, &config, "bos_token")?;
        // `"bos_token": null` says that there is none.
        if config.get("bos_token").is_none() {
            named.bos_id = bos_ids.first().copied();
        }
        Ok(named)
    }
}

/// Adds the ids under `key`: a number, a list, or null. Negative numbers stand for none in some files.
fn ids(path: &Path, config: &Value, key: &str, out: &mut Vec<u32>) -> Result<()> {
    let wrong = |found: &Value| {
        let found: String = found.to_string().chars().take(60).collect();
        Error::bad_file(path, format!("`{key}`: expected a token id or a list of them, found {found}"))
    };
    let values = match config.get(key) {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    for value in values {
        if value.as_i64().is_some_and(|n| n < 0) {
            continue;
        }
        let id = value.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| wrong(value))?;
        out.push(id);
    }
    Ok(())
}

/// The token under `key`: a string, an object with `content`, or null.
fn name(path: &Path, config: &Value, key: &str) -> Result<Option<String>> {
    let value = match config.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.get("content").unwrap_or(value),
    };
    match value.as_str() {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(Error::bad_file(path, format!("`{key}`: expected the spelling of a token, found something else"))),
    }
}
