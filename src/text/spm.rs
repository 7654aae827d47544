//! SentencePiece BPE as GGUF files of the `llama` kind carry it: pieces with scores, byte fallback, U+2581 for a space.
//!
//! Encoding cuts the text at the spellings of control and user-defined tokens (longest first), puts the space prefix before
//! each part, then joins neighbouring symbols, always the pair whose joined piece has the highest score, the leftmost of equals,
//! until no pair makes a piece. What is no piece then becomes its bytes' tokens.
#![forbid(unsafe_code)]

use super::join::Work;
use super::vocab::{MAX_VOCAB, Piece, Rules, SPACE, Start, Vocab, byte_token};
use super::whole::{self, Whole};
use crate::error::{Error, ErrorKind, Result};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;

const SPACE_STR: &str = "\u{2581}";

/// What a vocabulary file says of the tokenizer; `pieces`, `scores` and `types` are by token id.
#[derive(Clone, Debug)]
pub(super) struct Source<'a> {
    pub(super) pieces: Vec<&'a str>,
    pub(super) scores: Vec<f32>,
    /// SentencePiece's types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub(super) types: Vec<i32>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    pub(super) add_space_prefix: bool,
    /// Which tokens that are found by their spelling take the white space after them.
    pub(super) strips_right: Option<fn(&str) -> bool>,
}

/// The encoder.
#[derive(Debug)]
pub(super) struct Encoder {
    /// Pieces that joining makes, with their scores.
    pieces: HashMap<Box<str>, (u32, f32)>,
    /// Tokens that are found by their spelling before anything is joined.
    whole: Whole,
    /// The token of each byte.
    bytes: [Option<u32>; 256],
    unknown: Option<u32>,
    /// What goes before and after a text that asks for it.
    before: Option<u32>,
    after: Option<u32>,
    add_space_prefix: bool,
    /// No piece has a space inside or at its end, so that words can be encoded one by one.
    words_apart: bool,
}

impl Encoder {
    /// Checks `source` and builds both halves of the tokenizer.
    pub(super) fn new(source: &Source) -> Result<(Self, Vocab)> {
        check(source)?;
        let start = if source.add_space_prefix { Start::Strip(' ', 1) } else { Start::Keep };
        let mut vocab = Vocab::new(Rules { space: Some(SPACE), start, ..Rules::PLAIN });
        let mut encoder = Self {
            pieces: HashMap::new(),
            whole: Whole::default(),
            bytes: [None; 256],
            unknown: source.unknown,
            before: source.bos.filter(|_| source.add_bos),
            after: source.eos.filter(|_| source.add_eos),
            add_space_prefix: source.add_space_prefix,
            words_apart: true,
        };
        let mut whole = whole::Builder::default();
        let failed = |_| Error::out_of_memory("the vocabulary", source.pieces.len().saturating_mul(40));
        encoder.pieces.try_reserve(source.pieces.len()).map_err(failed)?;
        let mut seen = HashMap::new();
        seen.try_reserve(source.pieces.len()).map_err(failed)?;
        for (id, ((piece, score), kind)) in (0u32..).zip(source.pieces.iter().zip(&source.scores).zip(&source.types)) {
            if let Some(other) = seen.insert(*piece, id) {
                return Err(bad(format!("tokens {other} and {id} have the same piece {piece:?}")));
            }
            vocab.set(id, encoder.add(id, piece, *score, *kind)?)?;
            if (2..=4).contains(kind) {
                let strips_right = source.strips_right.is_some_and(|strips| strips(piece));
                whole.add(&piece.replace(SPACE, " "), id, strips_right)?;
            }
        }
        encoder.whole = whole.build()?;
        Ok((encoder, vocab))
    }

    /// Takes one piece in; what it stands for in decoding.
    fn add(&mut self, id: u32, piece: &str, score: f32, kind: i32) -> Result<Piece> {
        match kind {
            6 => {
                let byte =
                    byte_token(piece).ok_or_else(|| bad(format!("byte token {id}: expected `<0xHH>`, found {piece:?}")))?;
                match self.bytes.get_mut(usize::from(byte)).and_then(|place| place.replace(id)) {
                    Some(other) => Err(bad(format!("byte token {id}, {piece:?}, is the same byte as token {other}"))),
                    None => Ok(Piece::Byte(byte)),
                }
            }
            4 => Ok(Piece::Text(piece.into())),
            2 | 3 => Ok(Piece::Special(piece.into())),
            _ => {
                self.pieces.insert(piece.into(), (id, score));
                self.words_apart &= !piece.trim_start_matches(SPACE).contains(SPACE);
                Ok(Piece::Text(piece.into()))
            }
        }
    }

    /// The ids of `text`; the literal spelling of a control or user-defined token is that token.
    pub(super) fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        if add_special {
            ids.extend(self.before);
        }
        let mut work = Work::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (part, token, after) = self.whole.next(rest);
            self.encode_part(part, &mut work, &mut ids)?;
            ids.extend(token);
            rest = after;
        }
        if add_special {
            ids.extend(self.after);
        }
        Ok(ids)
    }

    /// A text between two whole tokens.
    fn encode_part(&self, part: &str, work: &mut Work<Score>, ids: &mut Vec<u32>) -> Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let mut escaped = String::new();
        let size = part.len().saturating_add(1).saturating_mul(SPACE.len_utf8());
        escaped.try_reserve(size).map_err(|_| Error::out_of_memory("the text", size))?;
        if self.add_space_prefix {
            escaped.push(SPACE);
        }
        escaped.extend(part.chars().map(|c| if c == ' ' { SPACE } else { c }));
        // Where in `ids` a word was encoded before: texts repeat themselves.
        let mut known: HashMap<&str, Range<usize>> = HashMap::new();
        let mut rest = escaped.as_str();
        while !rest.is_empty() {
            let (word, after) = if self.words_apart { first_word(rest) } else { (rest, "") };
            let from = ids.len();
            match known.get(word) {
                Some(before) => {
                    reserve(ids, before.len())?;
                    ids.extend_from_within(before.clone());
                }
                None => {
                    self.encode_word(word, work, ids)?;
                    if known.len() < KNOWN_WORDS {
                        known.insert(word, from..ids.len());
                    }
                }
            }
            rest = after;
        }
        Ok(())
    }

    /// Joins the characters of `word` and appends the ids.
    fn encode_word(&self, word: &str, work: &mut Work<Score>, ids: &mut Vec<u32>) -> Result<()> {
        work.begin(word.chars().count(), word.chars().map(|c| (c.len_utf8(), 0)))?;
        work.run(|first, second| {
            let (id, score) = self.pieces.get(word.get(first.start as usize..second.end as usize)?)?;
            Some((Score(*score), *id))
        });
        reserve(ids, word.len())?;
        for symbol in work.symbols() {
            self.emit(word.get(symbol.start as usize..symbol.end as usize).unwrap_or_default(), ids)?;
        }
        Ok(())
    }

    /// The id of a symbol that nothing joins any more, or those of its bytes.
    fn emit(&self, symbol: &str, ids: &mut Vec<u32>) -> Result<()> {
        if let Some((id, _)) = self.pieces.get(symbol) {
            ids.push(*id);
            return Ok(());
        }
        let bytes: Option<Vec<u32>> = symbol.bytes().map(|b| self.bytes.get(usize::from(b)).copied().flatten()).collect();
        match (bytes, self.unknown) {
            (Some(bytes), _) => ids.extend(bytes),
            (None, Some(unknown)) => ids.push(unknown),
            (None, None) => {
                let sentence =
                    format!("{symbol:?} has no piece in this vocabulary, which has no byte tokens and no unknown token");
                return Err(Error::unsupported(sentence));
            }
        }
        Ok(())
    }
}

/// Words that are looked up rather than encoded again; a bound on the memory for them.
const KNOWN_WORDS: usize = 1 << 14;

fn reserve(ids: &mut Vec<u32>, more: usize) -> Result<()> {
    ids.try_reserve(more).map_err(|_| Error::out_of_memory("the tokens", more.saturating_mul(4)))
}

fn bad(message: String) -> Error {
    Error::new(ErrorKind::BadFile, message)
}

/// What the tables built from `source` rely on.
fn check(source: &Source) -> Result<()> {
    let n = source.pieces.len();
    if n == 0 || n > MAX_VOCAB {
        return Err(bad(format!("{n} tokens: expected 1 to {MAX_VOCAB}")));
    }
    for (what, found) in [("scores", source.scores.len()), ("token types", source.types.len())] {
        if found != n {
            return Err(bad(format!("{found} {what} for {n} tokens")));
        }
    }
    if let Some(at) = source.scores.iter().position(|score| !score.is_finite()) {
        return Err(bad(format!("the score of token {at} is not a finite number")));
    }
    if let Some((at, kind)) = source.types.iter().enumerate().find(|(_, kind)| !(1..=6).contains(*kind)) {
        return Err(bad(format!("the type of token {at} is {kind}, expected 1 to 6")));
    }
    for (what, id) in [("begin", source.bos), ("end", source.eos), ("unknown", source.unknown)] {
        if let Some(id) = id.filter(|id| *id as usize >= n) {
            return Err(bad(format!("the {what} token is {id}, outside the vocabulary of {n} tokens")));
        }
    }
    Ok(())
}

/// Spaces and the characters up to the next space, and the rest.
fn first_word(text: &str) -> (&str, &str) {
    let spaces = text.len() - text.trim_start_matches(SPACE).len();
    let end = text.get(spaces..).and_then(|rest| rest.find(SPACE_STR)).map_or(text.len(), |at| spaces + at);
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// A finite score.
#[derive(Clone, Copy, Debug)]
struct Score(f32);

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        // 0 and -0 are equal scores; total_cmp would tell them apart.
        self.0.partial_cmp(&other.0).unwrap_or_else(|| self.0.total_cmp(&other.0))
    }
}
impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Score {}

#[cfg(test)]
mod tests {
    use super::*;

    /// 256 byte tokens after `<unk>`, `<s>`, `</s>`, then `pieces` with falling scores.
    fn source<'a>(bytes: &'a [String], pieces: &[&'a str]) -> Source<'a> {
        let mut all = vec!["<unk>", "<s>", "</s>"];
        all.extend(bytes.iter().map(String::as_str));
        let mut types = vec![2, 3, 3];
        types.resize(all.len(), 6);
        all.extend(pieces);
        types.resize(all.len(), 1);
        let scores = (0..all.len()).map(|id| -(id as f32)).collect();
        let (bos, eos, unknown) = (Some(1), Some(2), Some(0));
        Source {
            pieces: all,
            scores,
            types,
            bos,
            eos,
            unknown,
            add_bos: true,
            add_eos: false,
            add_space_prefix: true,
            strips_right: None,
        }
    }

    fn byte_tokens() -> Vec<String> {
        (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect()
    }

    /// The spellings of the tokens of `text`.
    fn spelled(source: &Source, text: &str) -> String {
        let (encoder, _) = Encoder::new(source).unwrap();
        let ids = encoder.encode(text, false).unwrap();
        ids.iter().map(|id| source.pieces[*id as usize]).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_best_pair_first_and_the_leftmost_of_equals() {
        let bytes = byte_tokens();
        let source = source(&bytes, &["bc", "ab", "aa", "abc", "a", "b", "c", "\u{2581}"]);
        assert_eq!(spelled(&source, "abcbc"), "\u{2581} abc bc");
        assert_eq!(spelled(&source, "aab"), "\u{2581} a ab");
        assert_eq!(spelled(&source, "aaaaa"), "\u{2581} aa aa a");
        assert_eq!(spelled(&source, "abd"), "\u{2581} ab <0x64>");
        assert_eq!(spelled(&source, "é"), "\u{2581} <0xC3> <0xA9>");
        assert_eq!(spelled(&source, ""), "");
        assert_eq!(spelled(&source, " "), "\u{2581} \u{2581}");
    }

    #[test]
    fn words_apart_or_not_is_the_same() {
        let bytes = byte_tokens();
        let mut source = source(&bytes, &["\u{2581}a", "ab", "\u{2581}\u{2581}", "a", "b", "\u{2581}"]);
        let (mut encoder, _) = Encoder::new(&source).unwrap();
        assert!(encoder.words_apart);
        let texts = ["ab  ab a   b", "   ", "a b\u{2581}a b ", "b b b  b"];
        let apart: Vec<_> = texts.iter().map(|text| encoder.encode(text, false).unwrap()).collect();
        encoder.words_apart = false;
        let together: Vec<_> = texts.iter().map(|text| encoder.encode(text, false).unwrap()).collect();
        assert_eq!(apart, together);
        source.pieces[261] = "b\u{2581}a";
        assert!(!Encoder::new(&source).unwrap().0.words_apart);
        assert_eq!(spelled(&source, "b a"), "\u{2581} b\u{2581}a");
    }

    #[test]
    fn whole_tokens_are_found_by_their_spelling() {
        let bytes = byte_tokens();
        let mut source = source(&bytes, &["\u{2581}", "a", "<s", "<user>", "<user>>", "\u{2581}\u{2581}\u{2581}"]);
        for at in 262..source.types.len() {
            source.types[at] = 4;
        }
        assert_eq!(spelled(&source, "a<s>a"), "\u{2581} a <s> \u{2581} a");
        assert_eq!(spelled(&source, "<user>>a<user><unk>"), "<user>> \u{2581} a <user> <unk>");
        assert_eq!(spelled(&source, "a   "), "\u{2581} a \u{2581}\u{2581}\u{2581}");
        source.add_space_prefix = false;
        assert_eq!(spelled(&source, "a<s>a a"), "a <s> a \u{2581} a");
        source.add_eos = true;
        let (encoder, _) = Encoder::new(&source).unwrap();
        assert_eq!(encoder.encode("a", true).unwrap(), [1, 260, 2]);
        assert_eq!(encoder.encode("", true).unwrap(), [1, 2]);
    }

    #[test]
    fn without_byte_tokens_there_is_the_unknown_token() {
        let mut source = source(&[], &["\u{2581}", "a"]);
        assert_eq!(spelled(&source, "aé日"), "\u{2581} a <unk> <unk>");
        source.unknown = None;
        let error = Encoder::new(&source).unwrap().0.encode("é", false).unwrap_err();
        assert!(error.message().contains('é'), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_vocabulary_is_said() {
        let bytes = byte_tokens();
        let good = source(&bytes, &["\u{2581}", "a"]);
        let refuse = |change: &dyn Fn(&mut Source), part: &str| {
            let mut source = good.clone();
            change(&mut source);
            let error = Encoder::new(&source).map(|_| ()).unwrap_err();
            assert!(error.message().contains(part), "{error}");
        };
        refuse(&|s| s.scores.truncate(5), "5 scores for 261 tokens");
        refuse(&|s| s.types.push(1), "262 token types for 261 tokens");
        refuse(&|s| s.scores[7] = f32::NAN, "score of token 7");
        refuse(&|s| s.types[7] = 0, "type of token 7 is 0");
        refuse(&|s| s.pieces[260] = "\u{2581}", "tokens 259 and 260 have the same piece");
        refuse(&|s| s.pieces[7] = "<0x-1>", "byte token 7: expected `<0xHH>`");
        refuse(&|s| s.pieces[7] = "<0xff>", "byte token");
        refuse(&|s| s.bos = Some(261), "the begin token is 261");
        refuse(&|s| *s = Source { pieces: vec![], scores: vec![], types: vec![], ..s.clone() }, "0 tokens");
    }

    /// The merges of a tokenizer.json that was converted from a SentencePiece model are that model's joins.
    #[test]
    fn encodes_as_the_converted_tokenizer_does() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text/llama2");
        let read = |file: &str| -> serde_json::Value { serde_json::from_slice(&std::fs::read(dir.join(file)).unwrap()).unwrap() };
        let spec = read("tokenizer.json");
        let vocab = spec["model"]["vocab"].as_object().unwrap();
        let mut pieces = vec![""; vocab.len()];
        for (piece, id) in vocab {
            pieces[id.as_u64().unwrap() as usize] = piece;
        }
        let bytes = byte_tokens();
        let source = source(&bytes, &pieces[259..]);
        assert_eq!(source.pieces, pieces);
        let (encoder, _) = Encoder::new(&source).unwrap();
        for case in read("cases.json")["encode"].as_array().unwrap() {
            let text = case[0].as_str().unwrap();
            let expected: Vec<u32> = case[1].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            assert_eq!(encoder.encode(text, false).unwrap(), expected, "{text:?}");
        }
    }
}
