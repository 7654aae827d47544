//! Typed reading of `config.json` and of GGUF metadata, with errors that name the key.
#![forbid(unsafe_code)]

use super::names::{Names, Slot};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Tensor;
use crate::format::gguf::Metadata;
use crate::ops::elementwise::Activation;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// An object of `config.json`. A key that is `null` counts as missing.
pub struct Config<'a> {
    /// The file.
    pub path: PathBuf,
    /// Dotted name of this object inside the file, with a trailing dot; empty at the top.
    at: String,
    object: &'a serde_json::Map<String, Value>,
}

impl<'a> Config<'a> {
    /// The file at `path` holds `value`.
    pub fn new(path: &Path, value: &'a Value) -> Result<Self> {
        match value {
            Value::Object(object) => Ok(Config { path: path.to_owned(), at: String::new(), object }),
            _ => Err(Error::bad_file(path, "expected a JSON object at the top")),
        }
    }

    fn get<T>(&self, key: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        match self.object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(v) => Ok(Some(v)),
                None => {
                    let found: String = value.to_string().chars().take(60).collect();
                    Err(Error::bad_file(&self.path, format!("{}{key} is {found}; expected {expected}", self.at)))
                }
            },
        }
    }

    fn need<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::bad_file(&self.path, format!("{}{key} is missing", self.at)))
    }

    /// A text.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key, "a text", Value::as_str)
    }
    /// A whole number >= 0.
    pub fn usize(&self, key: &str) -> Result<Option<usize>> {
        self.get(key, "a whole number >= 0", |v| usize::try_from(v.as_u64()?).ok())
    }
    /// A number.
    pub fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a number", Value::as_f64)
    }
    /// A truth value.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "true or false", Value::as_bool)
    }
    /// A number for which `null` means that there is none, and a missing key `default`.
    pub fn f64_or_null(&self, key: &str, default: f64) -> Result<Option<f64>> {
        if self.object.contains_key(key) { self.f64(key) } else { Ok(Some(default)) }
    }
    /// The same of a whole number >= 0.
    pub fn usize_or_null(&self, key: &str, default: usize) -> Result<Option<usize>> {
        if self.object.contains_key(key) { self.usize(key) } else { Ok(Some(default)) }
    }
    /// Whether the object has no keys.
    pub fn is_empty(&self) -> bool {
        self.object.is_empty()
    }
    /// A list whose elements `read` takes.
    fn list<T>(&self, key: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<Vec<T>>> {
        self.get(key, expected, |v| v.as_array()?.iter().map(&read).collect())
    }
    /// A list of texts.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        self.list(key, "a list of texts", Value::as_str)
    }
    /// A list of numbers.
    pub fn f64s(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.list(key, "a list of numbers", Value::as_f64)
    }
    /// A list of whole numbers >= 0.
    pub fn usizes(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.list(key, "a list of whole numbers >= 0", |v| usize::try_from(v.as_u64()?).ok())
    }
    /// A nested object.
    pub fn object(&self, key: &str) -> Result<Option<Config<'a>>> {
        let object = self.get(key, "an object", Value::as_object)?;
        Ok(object.map(|object| Config { path: self.path.clone(), at: format!("{}{key}.", self.at), object }))
    }
    /// A whole number that must be there.
    pub fn need_usize(&self, key: &str) -> Result<usize> {
        self.need(key, self.usize(key)?)
    }
    /// A number that must be there.
    pub fn need_f64(&self, key: &str) -> Result<f64> {
        self.need(key, self.f64(key)?)
    }
    /// An activation by transformers' name.
    pub fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        let name = self.str(key)?.unwrap_or(default);
        Ok(match name {
            "silu" | "swish" => Activation::Silu,
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "gelu_fast" => Activation::GeluTanh, // the same formula
            "quick_gelu" => Activation::QuickGelu,
            "relu" => Activation::Relu,
            "relu2" => Activation::ReluSquared,
            "tanh" => Activation::Tanh,
            _ => return Err(self.unsupported(key, format_args!("\"{name}\""))),
        })
    }

    /// The error for a value that this version cannot serve.
    pub fn unsupported(&self, key: &str, value: impl Display) -> Error {
        Error::unsupported(format!("{}: {}{key} = {value} is not supported", self.path.display(), self.at))
    }

    /// The error for a value that cannot be: `what` says why.
    pub fn bad(&self, key: &str, what: impl Display) -> Error {
        Error::bad_file(&self.path, format!("{}{key} {what}", self.at))
    }

    /// Refuses an option whose value is not the one we implement.
    pub fn only(&self, key: &str, supported: bool) -> Result<()> {
        match self.bool(key)? {
            Some(value) if value != supported => Err(self.unsupported(key, value)),
            _ => Ok(()),
        }
    }

    /// Refuses checkpoints whose weights are packed by a quantisation method.
    pub fn refuse_quantized(&self) -> Result<()> {
        match self.object("quantization_config")? {
            None => Ok(()),
            Some(q) => {
                let method = q.str("quant_method")?.unwrap_or("unnamed");
                Err(self.unsupported("quantization_config.quant_method", format_args!("\"{method}\"")))
            }
        }
    }
}

/// GGUF metadata of one architecture: keys are given without its name ("block_count" for "llama.block_count").
pub struct Meta<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
    architecture: &'a str,
    tensors: &'a BTreeMap<String, Tensor>,
    /// Rows of the token embedding.
    pub vocab_size: usize,
}

impl<'a> Meta<'a> {
    /// The metadata of the file at `path`, whose `tensors` have these `names`.
    pub fn new(
        path: &'a Path,
        metadata: &'a Metadata,
        architecture: &'a str,
        tensors: &'a BTreeMap<String, Tensor>,
        names: &Names,
    ) -> Result<Self> {
        let embedding = names.stems(Slot::Embedding, 0).next().unwrap_or_default() + ".weight";
        let tensor = tensors.get(&embedding);
        let tensor = tensor.ok_or_else(|| Error::bad_file(path, format!("tensor {embedding} is missing")))?;
        let vocab_size = tensor.shape.first().copied().unwrap_or(0);
        let meta = Meta { path, metadata, architecture, tensors, vocab_size };
        match metadata.str_array("tokenizer.ggml.tokens")?.map(|tokens| tokens.len()) {
            Some(n) if n != vocab_size => {
                let message = format!("tokenizer.ggml.tokens has {n} entries but the embedding has {vocab_size} rows");
                Err(Error::bad_file(path, message))
            }
            _ => meta.refuse_unsupported().map(|()| meta),
        }
    }

    /// Refuses what llama.cpp has keys for in any architecture and no family here uses.
    fn refuse_unsupported(&self) -> Result<()> {
        if self.bool("attention.causal")? == Some(false) {
            return Err(self.unsupported("attention.causal", false));
        }
        for key in ["attention.max_alibi_bias", "rope.scaling.yarn_log_multiplier", "rope.scaling.alpha"] {
            if let Some(x) = self.f64(key)?.filter(|x| *x != 0.0) {
                return Err(self.unsupported(key, x));
            }
        }
        if let Some(scale) = self.f64("expert_weights_scale")?.filter(|scale| ![0.0, 1.0].contains(scale)) {
            return Err(self.unsupported("expert_weights_scale", scale));
        }
        // Of the gating functions 0 says nothing and 1 is softmax; one group of experts is none.
        for (key, most) in [("expert_gating_func", 1), ("expert_group_count", 1), ("expert_shared_count", 0)] {
            if let Some(n) = self.usize(key)?.filter(|n| *n > most) {
                return Err(self.unsupported(key, n));
            }
        }
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.path
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// A sentence about a key: file, full key, `what`.
    pub fn name(&self, key: &str, what: &str) -> String {
        format!("{}: metadata key {} {what}", self.path.display(), self.key(key))
    }

    fn need<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::new(ErrorKind::BadFile, self.name(key, "is missing")))
    }

    /// A text.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>> {
        self.metadata.get_str(&self.key(key))
    }
    /// A whole number.
    pub fn usize(&self, key: &str) -> Result<Option<usize>> {
        match self.metadata.get_u64(&self.key(key))? {
            None => Ok(None),
            Some(n) => usize::try_from(n)
                .map(Some)
                .map_err(|_| Error::new(ErrorKind::BadFile, self.name(key, &format!("is {n}, too large")))),
        }
    }
    /// A number.
    pub fn f64(&self, key: &str) -> Result<Option<f64>> {
        Ok(self.metadata.get_f32(&self.key(key))?.map(f64::from))
    }
    /// A truth value.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.metadata.get_bool(&self.key(key))
    }
    /// A list of truth values; `None` too where the key holds no list.
    pub fn flags(&self, key: &str) -> Result<Option<Vec<bool>>> {
        let key = self.key(key);
        if self.metadata.is_array(&key) { self.metadata.bool_array(&key) } else { Ok(None) }
    }
    /// Whether the file has the tensor `name`.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
    /// The error for a value that this version cannot serve.
    pub fn unsupported(&self, key: &str, value: impl Display) -> Error {
        Error::unsupported(self.name(key, &format!("= {value} is not supported")))
    }
    /// Refuses a number other than the one we implement.
    pub fn only(&self, key: &str, supported: usize) -> Result<()> {
        match self.usize(key)? {
            Some(n) if n != supported => {
                Err(Error::unsupported(self.name(key, &format!("is {n}; only {supported} is supported here"))))
            }
            _ => Ok(()),
        }
    }
    /// A whole number that must be there.
    pub fn need_usize(&self, key: &str) -> Result<usize> {
        self.need(key, self.usize(key)?)
    }
    /// A number that must be there.
    pub fn need_f64(&self, key: &str) -> Result<f64> {
        self.need(key, self.f64(key)?)
    }
}
