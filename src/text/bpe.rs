//! BPE as GGUF files of the `gpt2` kind carry it: tokens in GPT-2's alphabet of bytes, and merges in their order.
//!
//! Encoding cuts the text at the spellings of control and user-defined tokens, the rest into words by the pre-tokeniser, and joins
//! the bytes of each word, always the pair whose merge is listed first, the leftmost of equals, until no pair has a merge. A few
//! vocabularies are written as text instead, with U+2581 for a space and tokens `<0xHH>` for bytes: there characters are joined.
#![forbid(unsafe_code)]

use super::byte_level::Alphabet;
use super::join::Work;
use super::pre_tokenizers::{Rule, TokensFirst};
use super::split::Splitter;
use super::vocab::{MAX_VOCAB, Piece, Rules, SPACE, Vocab, byte_token};
use super::whole::{self, Whole};
use crate::error::{Error, ErrorKind, Result};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

/// What a vocabulary file says of the tokenizer; `tokens` and `types` are by token id.
#[derive(Clone, Debug)]
pub(super) struct Source<'a> {
    pub(super) tokens: Vec<&'a str>,
    /// 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub(super) types: Vec<i32>,
    /// `left right`, the first to be made first.
    pub(super) merges: Vec<&'a str>,
    pub(super) rule: &'static Rule,
    /// What goes before and after a text that asks for it.
    pub(super) before: Option<u32>,
    pub(super) after: Option<u32>,
}

/// The encoder.
#[derive(Debug)]
pub(super) struct Encoder {
    splitter: Splitter,
    /// Tokens that are found by their spelling before anything is split.
    whole: Whole,
    /// The symbol of each byte.
    bytes: [u32; 256],
    /// The symbol of each character, where the vocabulary is written as text.
    characters: Option<HashMap<char, u32>>,
    /// Rank and result of joining two symbols.
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// Tokens by their bytes that need no merges where they are a word.
    words: HashMap<Box<[u8]>, u32>,
    /// Symbols below this are tokens; others are spellings that only merges name.
    n_tokens: u32,
    before: Option<u32>,
    after: Option<u32>,
}

/// Joins: the merge that is listed first is made first.
type Rank = Reverse<u32>;

impl Encoder {
    /// Checks `source` and builds both halves of the tokenizer.
    pub(super) fn new(source: &Source) -> Result<(Self, Vocab)> {
        check(source)?;
        let alphabet = Alphabet::new();
        let mut symbols = Symbols::new(source)?;
        let (vocab, whole) = tokens(source, &alphabet)?;
        let mut bytes = [0; 256];
        for (byte, place) in (0..=255u8).zip(&mut bytes) {
            let spelling = if source.rule.is_text { format!("<0x{byte:02X}>") } else { alphabet.char(byte).to_string() };
            *place = symbols.id(&spelling);
        }
        let merges = merges(source, &mut symbols)?;
        let encoder = Self {
            splitter: Splitter::new(source.rule.passes)?,
            whole,
            bytes,
            characters: source.rule.is_text.then(|| symbols.characters()),
            merges,
            words: words(source, &alphabet)?,
            n_tokens: symbols.n_tokens,
            before: source.before,
            after: source.after,
        };
        Ok((encoder, vocab))
    }

    /// The ids of `text`; the literal spelling of a control or user-defined token is that token. A byte that no token stands for
    /// is left out, as the `tokenizers` package and llama.cpp do: it happens to bytes that are not in UTF-8, and control characters.
    pub(super) fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        if add_special {
            ids.extend(self.before);
        }
        let mut work = Work::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (part, token, after) = self.whole.next(rest);
            if self.characters.is_some() {
                self.encode_part(&escaped(part)?, &mut work, &mut ids)?;
            } else {
                self.encode_part(part, &mut work, &mut ids)?;
            }
            ids.extend(token);
            rest = after;
        }
        if add_special {
            ids.extend(self.after);
        }
        Ok(ids)
    }

    /// A text between two whole tokens.
    fn encode_part(&self, part: &str, work: &mut Work<Rank>, ids: &mut Vec<u32>) -> Result<()> {
        // Where in `ids` a word was encoded before: texts repeat themselves.
        let mut known: HashMap<&str, Range<usize>> = HashMap::new();
        self.splitter.split(part, &mut |word| {
            if let Some(before) = known.get(word) {
                reserve(ids, before.len())?;
                ids.extend_from_within(before.clone());
                return Ok(());
            }
            let from = ids.len();
            self.encode_word(word, work, ids)?;
            if known.len() < KNOWN_WORDS {
                known.insert(word, from..ids.len());
            }
            Ok(())
        })
    }

    /// Joins the bytes or characters of `word` and appends the ids.
    fn encode_word(&self, word: &str, work: &mut Work<Rank>, ids: &mut Vec<u32>) -> Result<()> {
        if let Some(id) = self.words.get(word.as_bytes()) {
            ids.push(*id);
            return Ok(());
        }
        match &self.characters {
            None => work.begin(word.len(), word.bytes().map(|byte| (1, self.symbol(byte))))?,
            Some(known) => {
                let symbol = |c: char| (c.len_utf8(), known.get(&c).copied().unwrap_or(u32::MAX));
                work.begin(word.chars().count(), word.chars().map(symbol))?;
            }
        }
        work.run(|first, second| {
            let (rank, joined) = self.merges.get(&(first.id, second.id))?;
            Some((Reverse(*rank), *joined))
        });
        reserve(ids, word.len())?;
        for symbol in work.symbols() {
            if symbol.id < self.n_tokens {
                ids.push(symbol.id);
                continue;
            }
            let bytes = word.as_bytes().get(symbol.start as usize..symbol.end as usize).unwrap_or_default();
            ids.extend(bytes.iter().map(|byte| self.symbol(*byte)).filter(|id| *id < self.n_tokens));
        }
        Ok(())
    }

    fn symbol(&self, byte: u8) -> u32 {
        self.bytes.get(usize::from(byte)).copied().unwrap_or(u32::MAX)
    }
}

/// `text` as vocabularies of text have it.
fn escaped(text: &str) -> Result<String> {
    let mut escaped = String::new();
    let size = text.len().saturating_mul(SPACE.len_utf8());
    escaped.try_reserve(size).map_err(|_| Error::out_of_memory("the text", size))?;
    escaped.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
    Ok(escaped)
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
    let n = source.tokens.len();
    if n == 0 || n > MAX_VOCAB {
        return Err(bad(format!("{n} tokens: expected 1 to {MAX_VOCAB}")));
    }
    if source.types.len() != n {
        return Err(bad(format!("{} token types for {n} tokens", source.types.len())));
    }
    if source.merges.len() > 4 * MAX_VOCAB {
        return Err(bad(format!("{} merges: expected at most {}", source.merges.len(), 4 * MAX_VOCAB)));
    }
    if let Some((at, kind)) = source.types.iter().enumerate().find(|(_, kind)| !(1..=6).contains(*kind)) {
        return Err(bad(format!("the type of token {at} is {kind}, expected 1 to 6")));
    }
    for (what, id) in [("begin", source.before), ("end", source.after)] {
        if let Some(id) = id.filter(|id| *id as usize >= n) {
            return Err(bad(format!("the {what} token is {id}, outside the vocabulary of {n} tokens")));
        }
    }
    Ok(())
}

/// Spellings by number: the tokens, then what merges and bytes name beside them.
struct Symbols<'a> {
    ids: HashMap<Cow<'a, str>, u32>,
    n_tokens: u32,
    next: u32,
}

impl<'a> Symbols<'a> {
    fn new(source: &Source<'a>) -> Result<Self> {
        let mut ids: HashMap<Cow<'a, str>, u32> = HashMap::new();
        let n = source.tokens.len();
        ids.try_reserve(n).map_err(|_| Error::out_of_memory("the vocabulary", n.saturating_mul(40)))?;
        for (id, &token) in (0u32..).zip(&source.tokens) {
            // Some files have empty tokens where ids are unused.
            if !token.is_empty()
                && let Some(other) = ids.insert(token.into(), id)
            {
                return Err(bad(format!("tokens {other} and {id} are both {token:?}")));
            }
        }
        Ok(Self { ids, n_tokens: n as u32, next: n as u32 })
    }

    /// The number of a spelling; a new one where there is none.
    fn id(&mut self, spelling: &str) -> u32 {
        if let Some(id) = self.ids.get(spelling) {
            return *id;
        }
        // No overflow: `check` bounds the merges, each of which has three spellings.
        let id = self.next;
        self.next += 1;
        self.ids.insert(spelling.to_owned().into(), id);
        id
    }

    /// Those of one character.
    fn characters(&self) -> HashMap<char, u32> {
        let one = |spelling: &str| spelling.chars().next().filter(|c| c.len_utf8() == spelling.len());
        self.ids.iter().filter_map(|(spelling, id)| Some((one(spelling)?, *id))).collect()
    }
}

/// Rank and result of every merge by its two symbols. A merge may name what is no token: then it makes no token either.
fn merges<'a>(source: &Source<'a>, symbols: &mut Symbols<'a>) -> Result<HashMap<(u32, u32), (u32, u32)>> {
    let mut merges = HashMap::new();
    let mut joined = String::new();
    let n = source.merges.len();
    merges.try_reserve(n).map_err(|_| Error::out_of_memory("the merges", n.saturating_mul(24)))?;
    for (rank, &merge) in (0u32..).zip(&source.merges) {
        let parts = merge.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty());
        let (left, right) = parts.ok_or_else(|| bad(format!("merge {rank}: expected `left right`, found {merge:?}")))?;
        let pair = (symbols.id(left), symbols.id(right));
        joined.clear();
        joined.extend([left, right]);
        merges.entry(pair).or_insert((rank, symbols.id(&joined)));
    }
    Ok(merges)
}

/// What every token stands for, and those that are found by their spelling.
fn tokens(source: &Source, alphabet: &Alphabet) -> Result<(Vocab, Whole)> {
    let is_text = source.rule.is_text;
    let mut vocab = Vocab::new(Rules { space: is_text.then_some(SPACE), ..Rules::PLAIN });
    let mut whole = whole::Builder::default();
    for (id, (&token, &kind)) in (0u32..).zip(source.tokens.iter().zip(&source.types)) {
        let piece = match kind {
            2 | 3 => Piece::Special(token.into()),
            // Written as it reads, not in the alphabet.
            4 => Piece::Bytes(token.as_bytes().into()),
            6 => {
                let byte =
                    byte_token(token).ok_or_else(|| bad(format!("byte token {id}: expected `<0xHH>`, found {token:?}")))?;
                if is_text { Piece::Byte(byte) } else { Piece::Bytes([byte].into()) }
            }
            _ if is_text => Piece::Text(token.into()),
            _ => Piece::Bytes(alphabet.bytes(token)),
        };
        vocab.set(id, piece)?;
        if (2..=4).contains(&kind) {
            whole.add(token, id, false)?;
        }
    }
    Ok((vocab, whole.build()?))
}

/// The tokens that need no merges, by their bytes.
fn words(source: &Source, alphabet: &Alphabet) -> Result<HashMap<Box<[u8]>, u32>> {
    let mut words = HashMap::new();
    let wanted = |token: &str| match source.rule.tokens_first {
        TokensFirst::None => false,
        TokensFirst::LineEnds => token.bytes().all(|byte| byte == b'\n'),
        TokensFirst::All => true,
    };
    let tokens = (0u32..).zip(source.tokens.iter().zip(&source.types));
    for (id, (token, _)) in tokens.filter(|(_, (token, kind))| matches!(kind, 1 | 5) && wanted(token)) {
        words.try_reserve(1).map_err(|_| Error::out_of_memory("the vocabulary", words.len().saturating_mul(80)))?;
        words.insert(if source.rule.is_text { token.as_bytes().into() } else { alphabet.bytes(token) }, id);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::super::pre_tokenizers::by_name;
    use super::*;

    const TYPES: &[i32] = &[1, 1, 1, 1, 1, 1, 1, 1, 3, 4];

    fn source() -> Source<'static> {
        Source {
            tokens: vec!["a", "b", "c", "ab", "bc", "\u{120}", "\u{120}a", "abcb", "<s>", "日"],
            types: TYPES.to_vec(),
            merges: vec!["b c", "a b", "\u{120} a", "a bc", "abc b"],
            rule: by_name("gpt-2").unwrap(),
            before: Some(8),
            after: None,
        }
    }

    fn ids(source: &Source, text: &str) -> Vec<u32> {
        Encoder::new(source).unwrap().0.encode(text, false).unwrap()
    }

    #[test]
    fn the_first_merge_first_and_the_leftmost_of_equals() {
        let mut source = source();
        assert_eq!(ids(&source, "bab"), [1, 3]);
        assert_eq!(ids(&source, "bcbc a a"), [4, 4, 6, 6]);
        // "a bc" makes "abc", which is no token, but on the way to one.
        assert_eq!(ids(&source, "abcb"), [7]);
        assert_eq!(ids(&source, "abc"), [0, 1, 2]);
        assert_eq!(ids(&source, "a<s>b日 日x"), [0, 8, 1, 9, 5, 9]);
        source.tokens[7] = "aaa";
        source.merges = vec!["a a", "aa a"];
        assert_eq!(ids(&source, "aaa"), [7]);
        assert_eq!(ids(&source, "aaaa"), [0, 0, 0, 0]);
        let (encoder, _) = Encoder::new(&source).unwrap();
        assert_eq!(encoder.encode("", true).unwrap(), [8]);
    }

    #[test]
    fn a_word_that_is_a_token_where_the_rule_says_so() {
        let mut source = source();
        source.merges.clear();
        assert_eq!(ids(&source, "abcb"), [0, 1, 2, 1]);
        source.rule = by_name("llama-bpe").unwrap();
        assert_eq!(ids(&source, "abcb ab a"), [7, 5, 0, 1, 6]);
    }

    #[test]
    fn vocabularies_of_text_join_characters() {
        let source = Source {
            tokens: vec!["<0xC3>", "<0xA9>", "a", "\u{2581}", "\u{2581}a", "日", "日a", "\n", "\n\n", "<s>"],
            types: vec![6, 6, 1, 1, 1, 1, 1, 1, 1, 3],
            merges: vec!["\u{2581} a", "日 a"],
            rule: by_name("gemma4").unwrap(),
            before: Some(9),
            after: None,
        };
        assert_eq!(ids(&source, "日a aé\n\n\na\n\n"), [6, 4, 0, 1, 7, 7, 7, 2, 8]);
        let (_, vocab) = Encoder::new(&source).unwrap();
        assert_eq!([4, 6, 8].map(|id| vocab.token_text(id).unwrap()), [" a", "日a", "\n\n"]);
    }

    #[test]
    fn what_is_wrong_with_a_vocabulary_is_said() {
        let refuse = |change: &dyn Fn(&mut Source), part: &str| {
            let mut source = source();
            change(&mut source);
            let error = Encoder::new(&source).map(|_| ()).unwrap_err();
            assert!(error.message().contains(part), "{error}");
        };
        refuse(&|s| s.types.truncate(3), "3 token types for 10 tokens");
        refuse(&|s| s.types[4] = 7, "type of token 4 is 7");
        refuse(&|s| s.tokens[4] = "ab", "tokens 3 and 4 are both \"ab\"");
        refuse(&|s| s.merges[1] = "ab", "merge 1: expected `left right`, found \"ab\"");
        refuse(&|s| s.merges[1] = " ab", "merge 1");
        refuse(&|s| s.types[4] = 6, "byte token 4: expected `<0xHH>`");
        refuse(&|s| s.before = Some(10), "the begin token is 10");
        refuse(&|s| s.tokens.clear(), "0 tokens");
        let mut empty = source();
        (empty.tokens[3], empty.tokens[4]) = ("", "");
        assert_eq!(ids(&empty, "ab"), [0, 1]);
    }
}
