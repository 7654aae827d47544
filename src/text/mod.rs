//! Token ids to text and back.
//!
//! | file | subject |
//! |---|---|
//! | `hf` | `tokenizer.json`: encoding by the `tokenizers` crate, decoding by the table below |
//! | `gguf_keys` | which keys of GGUF metadata make a tokenizer |
//! | `spm` | SentencePiece BPE |
//! | `bpe` | byte-level BPE; `pre_tokenizers`: its ways to cut a text into words, by name; `split`: how they are cut |
//! | `join`, `whole` | what both share: joining symbols, and tokens that are found by their spelling |
//! | `vocab_txt` | DirkTensor's `vocab.txt`, which only decodes |
//! | `vocab`, `decoder` | what every token stands for, and text from tokens one by one: the same for all kinds |
//! | `files` | the small files of a model directory, and which tokens begin and end a text |
#![forbid(unsafe_code)]

mod bpe;
mod byte_level;
mod decoder;
mod files;
mod gguf_keys;
#[cfg(feature = "tokenizers")]
mod hf;
#[cfg(feature = "tokenizers")]
mod hf_audit;
mod join;
mod pre_tokenizers;
mod split;
mod spm;
mod vocab;
mod vocab_txt;
mod whole;

pub use decoder::Decoder;
pub use gguf_keys::UnknownPre;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Kind, gguf};
use files::{MAX_TOKENIZER_BYTES, NamedTokens};
use std::path::{Path, PathBuf};
use vocab::Vocab;

/// A model's tokenizer. It can be used from any number of threads at once.
pub struct Tokenizer {
    vocab: Vocab,
    encoder: Encoder,
    bos: Option<u32>,
    ends: Vec<u32>,
}

/// The half that turns text into ids.
enum Encoder {
    #[cfg(feature = "tokenizers")]
    Hf(Box<hf::Encoder>),
    Spm(Box<spm::Encoder>),
    Bpe(Box<bpe::Encoder>),
    /// The file has what decoding needs and no more.
    None(PathBuf),
}

impl Tokenizer {
    /// From a model directory: `tokenizer.json`, else `vocab.json` with `merges.txt`, else DirkTensor's `vocab.txt`, which only
    /// decodes. Generation ends at the tokens that `generation_config.json`, `config.json` and `tokenizer_config.json` name.
    pub fn from_dir(dir: &Path, kind: Kind) -> Result<Self> {
        let _ = kind; // every kind of directory may hold every kind of tokenizer
        let named = NamedTokens::read(dir)?;
        if let Some(tokenizer) = Self::from_json(dir, &named)? {
            return Ok(tokenizer);
        }
        let path = dir.join("vocab.txt");
        let Some(text) = files::read_text(&path, MAX_TOKENIZER_BYTES)? else {
            let sentence = "no tokenizer: looked for tokenizer.json, vocab.json with merges.txt, and vocab.txt";
            return Err(Error::new(ErrorKind::NotFound, format!("{}: {sentence}", dir.display())));
        };
        let vocab = vocab_txt::parse(&path, &text)?;
        Ok(Self { vocab, encoder: Encoder::None(path), bos: named.bos_id, ends: named.end_ids })
    }

    /// Through the `tokenizers` crate; `None` if the directory has no such file.
    #[cfg(feature = "tokenizers")]
    fn from_json(dir: &Path, named: &NamedTokens) -> Result<Option<Self>> {
        let (vocab, merges) = (dir.join("vocab.json"), dir.join("merges.txt"));
        let found = match hf::load(&dir.join("tokenizer.json"))? {
            None if vocab.exists() && merges.exists() => {
                let special: Vec<&str> = [&named.bos, &named.end].into_iter().flatten().map(String::as_str).collect();
                Some(hf::load_gpt2(&vocab, &merges, &special)?)
            }
            found => found,
        };
        let Some((encoder, vocab)) = found else { return Ok(None) };
        let id_of = |name: &Option<String>| name.as_ref().and_then(|name| encoder.id_of(name));
        let bos = id_of(&named.bos).or(named.bos_id);
        let ends = named.end_ids.iter().copied().chain(id_of(&named.end)).collect();
        Ok(Some(Self { vocab, encoder: Encoder::Hf(Box::new(encoder)), bos, ends }))
    }

    /// Without the crate such a directory has no text, which is said rather than passed over.
    #[cfg(not(feature = "tokenizers"))]
    fn from_json(dir: &Path, _: &NamedTokens) -> Result<Option<Self>> {
        for file in ["tokenizer.json", "vocab.json"] {
            let path = dir.join(file);
            if path.exists() {
                let sentence = "this build has no support for it (cargo feature `tokenizers`)";
                return Err(Error::unsupported(format!("{}: {sentence}", path.display())));
            }
        }
        Ok(None)
    }

    /// From GGUF metadata: `tokenizer.ggml.model` "llama" (SentencePiece BPE) or "gpt2" (byte-level BPE); `path` is for messages.
    pub fn from_gguf(path: &Path, metadata: &gguf::Metadata, unknown: UnknownPre) -> Result<Self> {
        let in_file = |e: Error| e.context(path.display());
        let found = gguf_keys::read(path, metadata, unknown)?;
        let (encoder, vocab) = match &found.kind {
            gguf_keys::Kind::Spm(source) => {
                let (encoder, vocab) = spm::Encoder::new(source).map_err(in_file)?;
                (Encoder::Spm(Box::new(encoder)), vocab)
            }
            gguf_keys::Kind::Bpe(source) => {
                let (encoder, vocab) = bpe::Encoder::new(source).map_err(in_file)?;
                (Encoder::Bpe(Box::new(encoder)), vocab)
            }
        };
        Ok(Self { vocab, encoder, bos: found.bos, ends: found.ends })
    }

    /// Ids of `text`. Special tokens that the model puts around a text (BOS…) are added with `add_special`. Where the text
    /// has the literal spelling of a special token, it is that token, as in transformers.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        match &self.encoder {
            #[cfg(feature = "tokenizers")]
            Encoder::Hf(encoder) => encoder.encode(text, add_special),
            Encoder::Spm(encoder) => encoder.encode(text, add_special),
            Encoder::Bpe(encoder) => encoder.encode(text, add_special),
            Encoder::None(path) => {
                let sentence = "this file can only turn tokens into text; turning text into tokens needs a tokenizer.json";
                Err(Error::unsupported(format!("{}: {sentence}", path.display())))
            }
        }
    }

    /// Text of `tokens`; special tokens are left out. An id outside the vocabulary is an error (in `vocab.txt`: `<UNK>`).
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let mut decoder = self.decoder();
        let mut text = String::new();
        for &token in tokens {
            decoder.push_to(&self.vocab, token, &mut text)?;
        }
        decoder.finish_to(&self.vocab, &mut text);
        Ok(text)
    }

    /// The text that one token stands for inside a text (leading space kept; special tokens as they are written; bytes that
    /// are only part of a character as U+FFFD).
    pub fn token_text(&self, token: u32) -> Result<String> {
        self.vocab.token_text(token)
    }

    /// Whether generation should stop at `token` (EOS and its like).
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// The id that begins a text, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// One more than the largest token id. A model's output head may have more rows than that.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// For a model whose output head has `rows` rows, more than there are tokens: the ids of the padding have no text then,
    /// rather than being outside the vocabulary (in `vocab.txt` they stay `<UNK>`).
    pub fn with_rows(mut self, rows: usize) -> Result<Self> {
        self.vocab.extend_to(rows)?;
        Ok(self)
    }

    /// A decoder for text that arrives token by token.
    pub fn decoder(&self) -> Decoder {
        Decoder::default()
    }
}
