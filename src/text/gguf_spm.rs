//! Which keys of a GGUF file make a SentencePiece tokenizer.
#![forbid(unsafe_code)]

use super::spm::Source;
use crate::error::{Error, Result};
use crate::format::gguf::Metadata;
use std::path::Path;

/// The vocabulary and the tokens at which generation ends.
pub(super) fn read<'a>(path: &Path, metadata: &'a Metadata) -> Result<(Source<'a>, Vec<u32>)> {
    refuse_other_kinds(path, metadata)?;
    let required = |key: &str| metadata.missing(key);
    let pieces = metadata.str_array(TOKENS)?.ok_or_else(|| required(TOKENS))?;
    let scores = metadata.f32_array(SCORES)?.ok_or_else(|| required(SCORES))?;
    let types = metadata.i32_array(TYPES)?.ok_or_else(|| required(TYPES))?;
    // Files that do not say mean the ids that SentencePiece gives out by default, if the tokens there are of that kind.
    let usual = |id: u32, kind: i32| Some(id).filter(|id| types.get(*id as usize) == Some(&kind));
    let id = |key: &str| -> Result<Option<u32>> {
        let Some(id) = metadata.get_u64(key)? else { return Ok(None) };
        let outside = || format!("{key} is {id}, outside the vocabulary of {} tokens", pieces.len());
        let small = u32::try_from(id).ok().filter(|id| (*id as usize) < pieces.len());
        small.map(Some).ok_or_else(|| Error::bad_file(path, outside()))
    };
    let flag = |key: &str, usual: bool| metadata.get_bool(key).map(|flag| flag.unwrap_or(usual));
    let eos = id("tokenizer.ggml.eos_token_id")?.or_else(|| usual(2, 3));
    let other_ends = [id("tokenizer.ggml.eot_token_id")?, id("tokenizer.ggml.eom_token_id")?];
    let source = Source {
        bos: id("tokenizer.ggml.bos_token_id")?.or_else(|| usual(1, 3)),
        eos,
        unknown: id("tokenizer.ggml.unknown_token_id")?.or_else(|| usual(0, 2)),
        add_bos: flag("tokenizer.ggml.add_bos_token", true)?,
        add_eos: flag("tokenizer.ggml.add_eos_token", false)?,
        add_space_prefix: flag("tokenizer.ggml.add_space_prefix", true)?,
        pieces,
        scores,
        types,
    };
    Ok((source, [eos].into_iter().chain(other_ends).flatten().collect()))
}

const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";

fn refuse_other_kinds(path: &Path, metadata: &Metadata) -> Result<()> {
    const MODEL: &str = "tokenizer.ggml.model";
    let unsupported = |what: String| Err(Error::unsupported(format!("{}: {what}", path.display())));
    match metadata.get_str(MODEL)? {
        Some("llama") => {}
        Some(other) => return unsupported(format!("{MODEL} {other:?} is not supported yet: expected \"llama\" (SentencePiece)")),
        None => return Err(metadata.missing(MODEL)),
    }
    if metadata.get_bool("tokenizer.ggml.remove_extra_whitespaces")? == Some(true) {
        return unsupported("tokenizer.ggml.remove_extra_whitespaces is not supported".to_owned());
    }
    if metadata.contains("tokenizer.ggml.precompiled_charsmap") {
        return unsupported("tokenizer.ggml.precompiled_charsmap (a text normalizer) is not supported".to_owned());
    }
    Ok(())
}
