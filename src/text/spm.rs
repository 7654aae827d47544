//! SentencePiece BPE as GGUF files of the `llama` kind carry it: pieces with scores, byte fallback, U+2581 for a space.
//!
//! Encoding cuts the text at the spellings of control and user-defined tokens (longest first), puts the space prefix before
//! each part, then joins neighbouring symbols, always the pair whose joined piece has the highest score, the leftmost of equals,
//! until no pair makes a piece. What is no piece then becomes its bytes' tokens.
#![forbid(unsafe_code)]

use super::vocab::{MAX_VOCAB, Piece, Rules, Start, Vocab, byte_token};
use crate::error::{Error, Result};
use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

/// What is written for a space inside pieces.
const SPACE: char = '\u{2581}';
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
        let failed = |_| Error::out_of_memory("the vocabulary", source.pieces.len().saturating_mul(40));
        encoder.pieces.try_reserve(source.pieces.len()).map_err(failed)?;
        let mut seen = HashMap::new();
        seen.try_reserve(source.pieces.len()).map_err(failed)?;
        for (id, ((piece, score), kind)) in (0u32..).zip(source.pieces.iter().zip(&source.scores).zip(&source.types)) {
            if let Some(other) = seen.insert(*piece, id) {
                return Err(Error::unsupported(format!("tokens {other} and {id} have the same piece {piece:?}")));
            }
            vocab.set(id, encoder.add(id, piece, *score, *kind)?)?;
        }
        encoder.whole.finish();
        Ok((encoder, vocab))
    }

    /// Takes one piece in; what it stands for in decoding.
    fn add(&mut self, id: u32, piece: &str, score: f32, kind: i32) -> Result<Piece> {
        match kind {
            6 => {
                let byte = byte_token(piece)
                    .ok_or_else(|| Error::unsupported(format!("byte token {id}: expected `<0xHH>`, found {piece:?}")))?;
                if let Some(place) = self.bytes.get_mut(usize::from(byte)) {
                    *place = Some(id);
                }
                Ok(Piece::Byte(byte))
            }
            2..=4 => {
                self.whole.add(piece, id);
                Ok(if kind == 4 { Piece::Text(piece.into()) } else { Piece::Special(piece.into()) })
            }
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
        let mut work = Work::default();
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
    fn encode_part(&self, part: &str, work: &mut Work, ids: &mut Vec<u32>) -> Result<()> {
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
        let mut rest = escaped.as_str();
        while !rest.is_empty() {
            let (word, after) = if self.words_apart { first_word(rest) } else { (rest, "") };
            self.encode_word(word, work, ids)?;
            rest = after;
        }
        Ok(())
    }

    /// Joins the characters of `word` and appends the ids.
    fn encode_word(&self, word: &str, work: &mut Work, ids: &mut Vec<u32>) -> Result<()> {
        work.begin(word)?;
        for left in 1..work.symbols.len() {
            self.offer(word, work, left - 1);
        }
        while let Some(join) = work.joins.pop() {
            if work.apply(&join) {
                let previous = work.symbols.get(join.left.0).and_then(|symbol| symbol.previous);
                if let Some(previous) = previous {
                    self.offer(word, work, previous);
                }
                self.offer(word, work, join.left.0);
            }
        }
        let failed = |_| Error::out_of_memory("the tokens", word.len().saturating_mul(4));
        ids.try_reserve(word.len()).map_err(failed)?;
        for symbol in work.symbols.iter().filter(|symbol| symbol.start < symbol.end) {
            self.emit(word.get(symbol.start..symbol.end).unwrap_or_default(), ids)?;
        }
        Ok(())
    }

    /// Puts the join of symbol `left` with its right neighbour into the queue, if it makes a piece.
    fn offer(&self, word: &str, work: &mut Work, left: usize) {
        let Some(first) = work.symbols.get(left) else { return };
        let Some(second) = first.next.and_then(|next| work.symbols.get(next)) else { return };
        let Some((_, score)) = word.get(first.start..second.end).and_then(|text| self.pieces.get(text)) else { return };
        work.joins.push(Join { score: Score(*score), left: Reverse(left), end: second.end });
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

/// What the tables built from `source` rely on.
fn check(source: &Source) -> Result<()> {
    let n = source.pieces.len();
    if n == 0 || n > MAX_VOCAB {
        return Err(Error::unsupported(format!("{n} tokens: expected 1 to {MAX_VOCAB}")));
    }
    for (what, found) in [("scores", source.scores.len()), ("token types", source.types.len())] {
        if found != n {
            return Err(Error::unsupported(format!("{found} {what} for {n} tokens")));
        }
    }
    if let Some(at) = source.scores.iter().position(|score| !score.is_finite()) {
        return Err(Error::unsupported(format!("the score of token {at} is not a finite number")));
    }
    if let Some((at, kind)) = source.types.iter().enumerate().find(|(_, kind)| !(1..=6).contains(*kind)) {
        return Err(Error::unsupported(format!("the type of token {at} is {kind}, expected 1 to 6")));
    }
    for (what, id) in [("begin", source.bos), ("end", source.eos), ("unknown", source.unknown)] {
        if let Some(id) = id.filter(|id| *id as usize >= n) {
            return Err(Error::unsupported(format!("the {what} token is {id}, outside the vocabulary of {n} tokens")));
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

/// A part of the word; joined symbols are the left one, grown, and the right one, emptied.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    start: usize,
    end: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// A join that was possible when it was queued.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Join {
    score: Score,
    left: Reverse<usize>,
    end: usize,
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

/// The symbols of one word and the joins among them; kept from word to word for its memory.
#[derive(Debug, Default)]
struct Work {
    symbols: Vec<Symbol>,
    joins: BinaryHeap<Join>,
}

impl Work {
    /// A symbol for each character of `word`.
    fn begin(&mut self, word: &str) -> Result<()> {
        self.symbols.clear();
        self.joins.clear();
        let count = word.chars().count();
        let size = count.saturating_mul(size_of::<Symbol>() + 2 * size_of::<Join>());
        self.symbols.try_reserve(count).map_err(|_| Error::out_of_memory("the text's symbols", size))?;
        // A join is queued for each pair at first and two for each join made: at most three for each symbol, and one is popped first.
        self.joins.try_reserve(count.saturating_mul(2)).map_err(|_| Error::out_of_memory("the text's symbols", size))?;
        for (at, (start, c)) in word.char_indices().enumerate() {
            let next = Some(at + 1).filter(|next| *next < count);
            self.symbols.push(Symbol { start, end: start + c.len_utf8(), previous: at.checked_sub(1), next });
        }
        Ok(())
    }

    /// Makes the join, unless one of its two symbols has changed since it was queued.
    fn apply(&mut self, join: &Join) -> bool {
        let left = join.left.0;
        let Some(first) = self.symbols.get(left).copied() else { return false };
        let Some(right) = first.next else { return false };
        let Some(second) = self.symbols.get(right).copied() else { return false };
        if first.start == first.end || second.end != join.end {
            return false;
        }
        if let Some(symbol) = self.symbols.get_mut(left) {
            (symbol.end, symbol.next) = (second.end, second.next);
        }
        if let Some(symbol) = self.symbols.get_mut(right) {
            symbol.start = symbol.end;
        }
        if let Some(symbol) = second.next.and_then(|next| self.symbols.get_mut(next)) {
            symbol.previous = Some(left);
        }
        true
    }
}

/// Tokens that are found by their spelling in the text.
#[derive(Debug, Default)]
struct Whole {
    tokens: HashMap<Box<str>, u32>,
    /// The lengths of the spellings that begin with each byte, longest first.
    lengths: HashMap<u8, Vec<usize>>,
}

impl Whole {
    fn add(&mut self, piece: &str, id: u32) {
        let spelling = piece.replace(SPACE, " ");
        if let Some(first) = spelling.bytes().next() {
            self.lengths.entry(first).or_default().push(spelling.len());
            self.tokens.insert(spelling.into(), id);
        }
    }

    /// To be called after the last token.
    fn finish(&mut self) {
        for lengths in self.lengths.values_mut() {
            lengths.sort_unstable_by_key(|length| Reverse(*length));
            lengths.dedup();
        }
    }

    /// The text before the first whole token, the token, and the text after it.
    fn next<'a>(&self, text: &'a str) -> (&'a str, Option<u32>, &'a str) {
        for (at, byte) in text.bytes().enumerate() {
            let Some(lengths) = self.lengths.get(&byte) else { continue };
            for &length in lengths {
                let Some(id) = text.get(at..at.saturating_add(length)).and_then(|part| self.tokens.get(part)) else { continue };
                let (before, rest) = text.split_at_checked(at).unwrap_or((text, ""));
                return (before, Some(*id), rest.get(length..).unwrap_or_default());
            }
        }
        (text, None, "")
    }
}
