//! `tokenizer.json` (and GPT-2's older `vocab.json` with `merges.txt`) through the `tokenizers` crate, which encodes. Decoding
//! is ours: the file's decoder is turned into a table of pieces and [`Rules`], which also serve text that comes token by token.
#![forbid(unsafe_code)]

use super::byte_level::Alphabet;
use super::files::{self, MAX_TOKENIZER_BYTES};
use super::hf_audit;
use super::vocab::{MAX_VOCAB, Piece, Rules, Start, Vocab, byte_token};
use crate::error::{Error, ErrorKind, Result};
use serde_json::Value;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Crate};

/// The crate's tokenizer, which turns text into ids.
pub(super) struct Encoder {
    tokenizer: Crate,
    path: PathBuf,
}

impl Encoder {
    /// The ids of `text`. The literal spelling of an added token is that token, as in transformers.
    pub(super) fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encode = || self.tokenizer.encode_fast(text, add_special).map(|encoding| encoding.get_ids().to_vec());
        guarded(&self.path, "encode the text", encode)
    }

    pub(super) fn id_of(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }
}

/// What the crate does with a hostile file is not ours to know: its errors, and a panic too, become errors with the file's name.
fn guarded<T>(path: &Path, doing: &str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::bad_file(path, format!("cannot {doing}: {error}"))),
        Err(_) => Err(Error::bad_file(path, format!("cannot {doing}: the tokenizers library failed on it"))),
    }
}

/// Reads `tokenizer.json`; `None` if there is none.
pub(super) fn load(path: &Path) -> Result<Option<(Encoder, Vocab)>> {
    let Some(bytes) = files::read(path, MAX_TOKENIZER_BYTES)? else { return Ok(None) };
    let tokenizer = guarded(path, "read the tokenizer", || Crate::from_bytes(bytes))?;
    build(tokenizer, path).map(Some)
}

/// Reads GPT-2's layout: `vocab.json` and `merges.txt`. `special` are its special tokens beside `<|endoftext|>`.
pub(super) fn load_gpt2(vocab: &Path, merges: &Path, special: &[&str]) -> Result<(Encoder, Vocab)> {
    for path in [vocab, merges] {
        files::size(path, MAX_TOKENIZER_BYTES)?;
    }
    let (Some(vocab_name), Some(merges_name)) = (vocab.to_str(), merges.to_str()) else {
        return Err(Error::unsupported(format!("{}: this layout needs a path that is UTF-8", vocab.display())));
    };
    let tokenizer = guarded(vocab, "read the vocabulary and merges.txt", || {
        let mut tokenizer = Crate::new(BPE::from_file(vocab_name, merges_name).build()?);
        let bytes = ByteLevel::new(false, false, true);
        tokenizer.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
        let special: Vec<AddedToken> = ["<|endoftext|>"]
            .iter()
            .chain(special)
            .filter(|token| tokenizer.token_to_id(token).is_some())
            .map(|&token| AddedToken::from(token, true))
            .collect();
        tokenizer.add_special_tokens(&special);
        Ok(tokenizer)
    })?;
    build(tokenizer, vocab)
}

fn build(mut tokenizer: Crate, path: &Path) -> Result<(Encoder, Vocab)> {
    let bad = |e: Error| e.context(path.display());
    // What belongs to training and batches must not touch a text.
    guarded(path, "clear the truncation", || tokenizer.with_truncation(None).map(|_| ()))?;
    tokenizer.with_padding(None);
    if let ModelWrapper::BPE(bpe) = tokenizer.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        tokenizer.with_model(bpe);
    }
    hf_audit::normalizer(&json(serde_json::to_value(tokenizer.get_normalizer()))?).map_err(bad)?;
    hf_audit::post_processor(&json(serde_json::to_value(tokenizer.get_post_processor()))?).map_err(bad)?;
    let shape = Shape::of(&json(serde_json::to_value(tokenizer.get_decoder()))?).map_err(bad)?;
    let vocab = shape.vocab(&tokenizer).map_err(bad)?;
    Ok((Encoder { tokenizer, path: path.to_owned() }, vocab))
}

/// A part of the tokenizer as its file writes it: the crate keeps most fields of its parts to itself.
fn json(part: serde_json::Result<Value>) -> Result<Value> {
    part.map_err(|e| Error::new(ErrorKind::Internal, format!("part of a tokenizer.json: {e}")))
}

/// How the file's decoder turns tokens into text.
struct Shape {
    byte_level: bool,
    byte_fallback: bool,
    rules: Rules,
}

impl Shape {
    fn of(decoder: &Value) -> Result<Self> {
        let mut steps = Vec::new();
        flatten(decoder, &mut steps);
        Self::from_steps(&steps).ok_or_else(|| {
            let names: Vec<&str> = steps.iter().map(|step| kind(step)).collect();
            Error::unsupported(format!("the decoder [{}] is not supported", names.join(", ")))
        })
    }

    /// The decoders that byte-level and SentencePiece-style vocabularies come with; `None` for any other.
    fn from_steps(steps: &[&Value]) -> Option<Self> {
        let kinds: Vec<&str> = steps.iter().map(|step| kind(step)).collect();
        let plain = Self { byte_level: false, byte_fallback: false, rules: Rules::PLAIN };
        match kinds.as_slice() {
            [] => Some(Self { rules: Rules { between: " ", ..Rules::PLAIN }, ..plain }),
            ["ByteLevel"] | ["ByteLevel", "Fuse"] => Some(Self { byte_level: true, ..plain }),
            ["Fuse"] => Some(plain),
            ["Metaspace"] => {
                let space = one_char(steps.first()?.get("replacement")?)?;
                let keep = steps.first()?.get("prepend_scheme")?.as_str()? == "never";
                let start = if keep { Start::Keep } else { Start::DropSpaces };
                Some(Self { rules: Rules { space: Some(space), start, ..Rules::PLAIN }, ..plain })
            }
            ["Replace", rest @ ..] => {
                let replace = steps.first()?;
                let space = one_char(replace.get("pattern")?.get("String")?)?;
                if replace.get("content")?.as_str()? != " " {
                    return None;
                }
                let (byte_fallback, rest) = match rest {
                    ["ByteFallback", rest @ ..] => (true, rest),
                    rest => (false, rest),
                };
                let start = match rest {
                    [] | ["Fuse"] => Start::Keep,
                    ["Fuse", "Strip"] => strip(steps.last()?)?,
                    _ => return None,
                };
                Some(Self { byte_fallback, rules: Rules { space: Some(space), start, ..Rules::PLAIN }, ..plain })
            }
            _ => None,
        }
    }

    /// The table of what each id stands for.
    fn vocab(&self, tokenizer: &Crate) -> Result<Vocab> {
        let added = tokenizer.get_added_tokens_decoder();
        let special: HashSet<&str> = added.values().filter(|t| t.special).map(|t| t.content.as_str()).collect();
        let alphabet = Alphabet::new();
        let piece = |token: &str| match byte_token(token) {
            _ if special.contains(token) => Piece::Special(token.into()),
            _ if self.byte_level => Piece::Bytes(alphabet.bytes(token)),
            Some(byte) if self.byte_fallback => Piece::Byte(byte),
            _ => Piece::Text(token.into()),
        };
        let tokens = tokenizer.get_vocab(false);
        if tokens.len() > MAX_VOCAB {
            return Err(Error::unsupported(format!("{} tokens: at most {MAX_VOCAB} are supported", tokens.len())));
        }
        let mut vocab = Vocab::new(self.rules);
        for (token, id) in &tokens {
            if vocab.set(*id, piece(token))? != Piece::Nothing {
                return Err(Error::new(ErrorKind::BadFile, format!("token id {id} is there twice, once as {token:?}")));
            }
        }
        for (id, token) in &added {
            vocab.set(*id, piece(&token.content))?;
        }
        Ok(vocab)
    }
}

/// The steps of a decoder that may be a sequence of sequences.
fn flatten<'a>(decoder: &'a Value, steps: &mut Vec<&'a Value>) {
    match decoder.get("decoders").and_then(Value::as_array) {
        Some(list) => list.iter().for_each(|step| flatten(step, steps)),
        None if decoder.is_null() => {}
        None => steps.push(decoder),
    }
}

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or("?")
}

fn one_char(value: &Value) -> Option<char> {
    let mut chars = value.as_str()?.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// A `Strip` decoder that strips the beginning only.
fn strip(step: &Value) -> Option<Start> {
    let at_end = step.get("stop")?.as_u64()?;
    let at_start = usize::try_from(step.get("start")?.as_u64()?).ok()?;
    if at_end == 0 { Some(Start::Strip(one_char(step.get("content")?)?, at_start)) } else { None }
}
