//! The decoding half of every tokenizer: what each token id stands for, and the rules by which texts of tokens become one text.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// No vocabulary comes near this; it bounds what an id in a file can make us allocate.
pub(super) const MAX_VOCAB: usize = 1 << 22;

/// What is written for a space inside pieces of SentencePiece and its like.
pub(super) const SPACE: char = '\u{2581}';

/// What one token id stands for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Piece {
    /// An id that the vocabulary leaves out.
    #[default]
    Nothing,
    /// A token that marks something and is no text (BOS, EOS…), as it is spelled.
    Special(Box<str>),
    /// Whole characters; [`Rules::space`] stands for a space in it.
    Text(Box<str>),
    /// Any bytes: characters may begin in one token and end in the next. Bytes of no character become U+FFFD as in
    /// [`String::from_utf8_lossy`]. Byte-level vocabularies consist of these and of `Special`.
    Bytes(Box<[u8]>),
    /// One byte of a character that has no piece of its own. A run of them is UTF-8 as a whole, or each is a U+FFFD.
    Byte(u8),
}

/// What decoding takes off the beginning of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Start {
    /// Nothing.
    Keep,
    /// Up to so many of this character.
    Strip(char, usize),
    /// Every [`Rules::space`] of the first token.
    DropSpaces,
}

/// How the pieces of a token sequence become text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rules {
    /// The character that is written for a space inside [`Piece::Text`].
    pub space: Option<char>,
    /// What is taken off the beginning.
    pub start: Start,
    /// What goes between two tokens.
    pub between: &'static str,
    /// The text of an id outside the vocabulary; `None`: such an id is an error.
    pub out_of_range: Option<&'static str>,
}

impl Rules {
    /// Pieces are put together as they are.
    pub(super) const PLAIN: Self = Self { space: None, start: Start::Keep, between: "", out_of_range: None };
}

/// Every piece by its id, and the rules.
pub(super) struct Vocab {
    pieces: Vec<Piece>,
    pub(super) rules: Rules,
}

impl Vocab {
    pub(super) fn new(rules: Rules) -> Self {
        Self { pieces: Vec::new(), rules }
    }

    /// Makes `id` stand for `piece` and returns what it stood for before.
    pub(super) fn set(&mut self, id: u32, piece: Piece) -> Result<Piece> {
        let at = id as usize;
        if at >= MAX_VOCAB {
            return Err(Error::unsupported(format!("token id {id} is too large: ids up to {} are supported", MAX_VOCAB - 1)));
        }
        if at >= self.pieces.len() {
            let more = at + 1 - self.pieces.len();
            let failed = |_| Error::out_of_memory("the vocabulary", more.saturating_mul(size_of::<Piece>()));
            self.pieces.try_reserve(more).map_err(failed)?;
            self.pieces.resize(at + 1, Piece::Nothing);
        }
        match self.pieces.get_mut(at) {
            Some(place) => Ok(std::mem::replace(place, piece)),
            None => Ok(Piece::Nothing), // not reachable: the vector was just made long enough
        }
    }

    /// Makes ids below `len` that have no token stand for nothing. An absurd `len` changes nothing: its ids stay errors.
    pub(super) fn extend_to(&mut self, len: usize) -> Result<()> {
        match len.checked_sub(1).and_then(|last| u32::try_from(last).ok()) {
            Some(last) if self.rules.out_of_range.is_none() && (self.len()..MAX_VOCAB).contains(&(last as usize)) => {
                self.set(last, Piece::Nothing).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// One more than the largest id.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// What `id` stands for; `None` is an id outside the vocabulary whose text [`Rules::out_of_range`] gives.
    pub(super) fn get(&self, id: u32) -> Result<Option<&Piece>> {
        match self.pieces.get(id as usize) {
            None if self.rules.out_of_range.is_none() => {
                Err(Error::bad_argument(format!("token id {id} is outside the vocabulary of {} tokens", self.pieces.len())))
            }
            piece => Ok(piece),
        }
    }

    /// A [`Piece::Text`] as it reads, with real spaces.
    pub(super) fn push_text(&self, piece: &str, drop_spaces: bool, out: &mut String) {
        let Some(space) = self.rules.space else { return out.push_str(piece) };
        for c in piece.chars() {
            match c {
                c if c != space => out.push(c),
                _ if drop_spaces => {}
                _ => out.push(' '),
            }
        }
    }

    /// The text of one token in the middle of others.
    pub(super) fn token_text(&self, id: u32) -> Result<String> {
        Ok(match self.get(id)? {
            None => self.rules.out_of_range.unwrap_or_default().to_owned(),
            Some(Piece::Nothing) => String::new(),
            Some(Piece::Special(text)) => text.to_string(),
            Some(Piece::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Some(Piece::Byte(byte)) if byte.is_ascii() => char::from(*byte).to_string(),
            Some(Piece::Byte(_)) => char::REPLACEMENT_CHARACTER.to_string(),
            Some(Piece::Text(piece)) => {
                let mut text = String::with_capacity(piece.len());
                self.push_text(piece, false, &mut text);
                text
            }
        })
    }
}

/// The byte of a byte token's spelling, `<0xHH>` with exactly two hexadecimal digits.
pub(super) fn byte_token(spelling: &str) -> Option<u8> {
    let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if is_byte { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_token_has_exactly_two_hexadecimal_digits() {
        assert_eq!(byte_token("<0x00>"), Some(0));
        assert_eq!(byte_token("<0xfF>"), Some(255));
        for wrong in ["<0x-1>", "<0x+1>", "<0x1>", "<0x100>", "<0xGG>", "0x41", "<0x41", "<0x4\u{e9}>", ""] {
            assert_eq!(byte_token(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ids_of_padding_have_no_text() {
        let mut vocab = Vocab::new(Rules::PLAIN);
        vocab.set(1, Piece::Text("a".into())).unwrap();
        for len in [0, 1, 2, MAX_VOCAB + 1, usize::MAX] {
            vocab.extend_to(len).unwrap();
            assert_eq!(vocab.len(), 2);
        }
        vocab.extend_to(5).unwrap();
        assert_eq!((vocab.token_text(1).unwrap(), vocab.token_text(4).unwrap()), ("a".to_owned(), String::new()));
        assert!(vocab.token_text(5).is_err());
    }

    #[test]
    fn a_huge_id_is_refused_before_anything_is_allocated() {
        let mut vocab = Vocab::new(Rules::PLAIN);
        let error = vocab.set(u32::MAX, Piece::Nothing).unwrap_err();
        assert!(error.message().contains("4294967295"), "{error}");
        assert_eq!(vocab.len(), 0);
    }
}
