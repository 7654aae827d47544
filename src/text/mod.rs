//! Token ids to text and back.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::format::{Kind, gguf};
use std::path::Path;

/// A model's tokenizer.
pub struct Tokenizer {}

impl Tokenizer {
    /// From a model directory (`tokenizer.json`, or DirkTensor's `vocab.txt`, which only decodes).
    pub fn from_dir(dir: &Path, kind: Kind) -> Result<Self> {
        let _ = kind;
        Err(Error::unsupported(format!("{}: no tokenizer", dir.display())))
    }
    /// From GGUF metadata; `path` is for messages.
    pub fn from_gguf(path: &Path, metadata: &gguf::Metadata) -> Result<Self> {
        let _ = metadata;
        Err(Error::unsupported(format!("{}: no tokenizer", path.display())))
    }
    /// Ids of `text`. Special tokens that the model puts around a text (BOS…) are added with `add_special`.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let _ = (text, add_special);
        Ok(Vec::new())
    }
    /// Text of `tokens`; special tokens are left out.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let _ = tokens;
        Ok(String::new())
    }
    /// The text that one token stands for inside a text (leading space kept; special tokens as they are written).
    pub fn token_text(&self, token: u32) -> Result<String> {
        let _ = token;
        Ok(String::new())
    }
    /// Whether generation should stop at `token` (EOS and its like).
    pub fn is_end(&self, token: u32) -> bool {
        let _ = token;
        false
    }
    /// The id that begins a text, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        None
    }
    /// A decoder for text that arrives token by token.
    pub fn decoder(&self) -> Decoder {
        Decoder {}
    }
}

/// Streaming detokeniser: what it has returned so far, put together, is what [`Tokenizer::decode`] gives for the same tokens
/// (up to text still held back), and every piece is whole UTF-8 characters.
pub struct Decoder {}

impl Decoder {
    /// The text that `token` completes; may be empty.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<String> {
        let _ = (tokenizer, token);
        Ok(String::new())
    }
    /// What is still held back, with U+FFFD for bytes that never became a character. The decoder is as new afterwards.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        let _ = tokenizer;
        Ok(String::new())
    }
}
