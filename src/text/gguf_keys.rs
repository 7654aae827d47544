//! Which keys of a GGUF file make a tokenizer.
#![forbid(unsafe_code)]

use super::pre_tokenizers::{self, Rule};
use super::{bpe, spm};
use crate::error::{Error, Result};
use crate::format::gguf::Metadata;
use std::path::Path;

const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";

/// What to do with a pre-tokeniser (`tokenizer.ggml.pre`) that is not known by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownPre {
    /// An error with the name: other words than the model learnt would make its answers worse without anyone noticing.
    #[default]
    Refuse,
    /// Go on with the one called `default`.
    UseDefault,
}

/// A tokenizer as the file has it.
pub(super) struct Found<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) bos: Option<u32>,
    /// The tokens at which generation ends.
    pub(super) ends: Vec<u32>,
}

/// The kinds of vocabulary.
pub(super) enum Kind<'a> {
    Spm(spm::Source<'a>),
    Bpe(bpe::Source<'a>),
}

/// Reads the keys.
pub(super) fn read<'a>(path: &Path, metadata: &'a Metadata, unknown: UnknownPre) -> Result<Found<'a>> {
    refuse_normalizers(path, metadata)?;
    let tokens = metadata.str_array(TOKENS)?.ok_or_else(|| metadata.missing(TOKENS))?;
    let types = metadata.i32_array(TYPES)?.ok_or_else(|| metadata.missing(TYPES))?;
    match metadata.get_str(MODEL)? {
        Some("llama") => read_spm(path, metadata, tokens, types),
        Some("gpt2") => read_bpe(path, metadata, tokens, types, rule(path, metadata, unknown)?),
        Some("gemma4") => {
            let rule = pre_tokenizers::by_name(pre_tokenizers::GEMMA4).ok_or_else(|| metadata.missing(PRE))?;
            read_bpe(path, metadata, tokens, types, rule)
        }
        Some(other) => {
            let sentence = "is not supported: expected \"llama\" (SentencePiece) or \"gpt2\" and \"gemma4\" (BPE)";
            Err(Error::unsupported(format!("{}: {MODEL} {other:?} {sentence}", path.display())))
        }
        None => Err(metadata.missing(MODEL)),
    }
}

fn read_spm<'a>(path: &Path, metadata: &'a Metadata, pieces: Vec<&'a str>, types: Vec<i32>) -> Result<Found<'a>> {
    // Files that do not say mean the ids that SentencePiece gives out by default, if the tokens there are of that kind.
    let usual = |id: u32, kind: i32| Some(id).filter(|id| types.get(*id as usize) == Some(&kind));
    let ids = Ids::read(path, metadata, pieces.len())?;
    let (bos, eos) = (ids.bos.or_else(|| usual(1, 3)), ids.eos.or_else(|| usual(2, 3)));
    // Phi-3's tokens take the white space after them; only the model's name tells.
    let name = metadata.get_str("general.name")?.unwrap_or_default().to_lowercase();
    let strips_right: Option<fn(&str) -> bool> =
        if name.contains("phi-3") || name.contains("phi3") { Some(|token| !PHI3_PLAIN.contains(&token)) } else { None };
    let source = spm::Source {
        bos,
        eos,
        unknown: id(path, metadata, "tokenizer.ggml.unknown_token_id", pieces.len())?.or_else(|| usual(0, 2)),
        add_bos: metadata.get_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(true),
        add_eos: metadata.get_bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
        add_space_prefix: metadata.get_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true),
        strips_right,
        scores: metadata.f32_array(SCORES)?.ok_or_else(|| metadata.missing(SCORES))?,
        pieces,
        types,
    };
    let ends = ids.ends(eos, &source.pieces, &source.types);
    Ok(Found { kind: Kind::Spm(source), bos, ends })
}

/// Phi-3's tokens that leave the white space after them alone.
const PHI3_PLAIN: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

fn read_bpe<'a>(
    path: &Path,
    metadata: &'a Metadata,
    tokens: Vec<&'a str>,
    types: Vec<i32>,
    rule: &'static Rule,
) -> Result<Found<'a>> {
    let ids = Ids::read(path, metadata, tokens.len())?;
    let add_bos = metadata.get_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(rule.adds_bos);
    let add_eos = metadata.get_bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let source = bpe::Source {
        before: ids.bos.filter(|_| add_bos),
        after: ids.eos.filter(|_| add_eos),
        merges: metadata.str_array(MERGES)?.ok_or_else(|| metadata.missing(MERGES))?,
        rule,
        tokens,
        types,
    };
    let ends = ids.ends(ids.eos, &source.tokens, &source.types);
    Ok(Found { kind: Kind::Bpe(source), bos: ids.bos, ends })
}

/// The pre-tokeniser. Files from before there were names mean the default one.
fn rule(path: &Path, metadata: &Metadata, unknown: UnknownPre) -> Result<&'static Rule> {
    let name = metadata.get_str(PRE)?.unwrap_or(pre_tokenizers::DEFAULT);
    let default = || pre_tokenizers::by_name(pre_tokenizers::DEFAULT).filter(|_| unknown == UnknownPre::UseDefault);
    pre_tokenizers::by_name(name).or_else(default).ok_or_else(|| {
        let name: String = name.chars().take(60).collect();
        Error::unsupported(format!("{}: the pre-tokeniser {name:?} ({PRE}) is not known", path.display()))
    })
}

/// The tokens that begin and end a text.
struct Ids {
    bos: Option<u32>,
    eos: Option<u32>,
    /// Of a turn, and of a message.
    other_ends: [Option<u32>; 2],
}

impl Ids {
    fn read(path: &Path, metadata: &Metadata, n_tokens: usize) -> Result<Self> {
        let id = |key: &str| id(path, metadata, key, n_tokens);
        Ok(Self {
            bos: id("tokenizer.ggml.bos_token_id")?,
            eos: id("tokenizer.ggml.eos_token_id")?,
            other_ends: [id("tokenizer.ggml.eot_token_id")?, id("tokenizer.ggml.eom_token_id")?],
        })
    }

    /// `eos`, those that other keys name, and those that are known by their spelling: chat models' files often name only one.
    fn ends(&self, eos: Option<u32>, tokens: &[&str], types: &[i32]) -> Vec<u32> {
        let mut ends: Vec<u32> = [eos].into_iter().chain(self.other_ends).flatten().collect();
        let marks = (0u32..).zip(tokens.iter().zip(types)).filter(|(_, (_, kind))| matches!(kind, 2..=4));
        ends.extend(marks.filter(|(_, (token, _))| ENDS.contains(token)).map(|(id, _)| id));
        // In gpt-oss's format `<|end|>` ends a message inside an answer.
        if tokens.contains(&"<|return|>") && tokens.contains(&"<|call|>") {
            ends.retain(|id| tokens.get(*id as usize) != Some(&"<|end|>"));
        }
        ends
    }
}

/// Spellings of tokens that end a text or a turn.
const ENDS: [&str; 15] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<turn|>",
    "<end_of_utterance>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];

/// The token id under `key`, which is in the vocabulary.
fn id(path: &Path, metadata: &Metadata, key: &str, n_tokens: usize) -> Result<Option<u32>> {
    let Some(id) = metadata.get_u64(key)? else { return Ok(None) };
    let outside = || format!("{key} is {id}, outside the vocabulary of {n_tokens} tokens");
    let small = u32::try_from(id).ok().filter(|id| (*id as usize) < n_tokens);
    small.map(Some).ok_or_else(|| Error::bad_file(path, outside()))
}

fn refuse_normalizers(path: &Path, metadata: &Metadata) -> Result<()> {
    let unsupported = |what: &str| Err(Error::unsupported(format!("{}: {what}", path.display())));
    if metadata.get_bool("tokenizer.ggml.remove_extra_whitespaces")? == Some(true) {
        return unsupported("tokenizer.ggml.remove_extra_whitespaces is not supported");
    }
    if metadata.contains("tokenizer.ggml.precompiled_charsmap") {
        return unsupported("tokenizer.ggml.precompiled_charsmap (a text normalizer) is not supported");
    }
    Ok(())
}
