//! Tokens that are found by their spelling before anything else is done with a text: control and user-defined ones.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use aho_corasick::{AhoCorasick, MatchKind};

/// Bytes of all spellings together: far above any real vocabulary, a bound on the automaton that a file can make us build.
const MAX_BYTES: usize = 4 << 20;

/// The spellings as one automaton: at each place the leftmost token is found, of several there the longest.
#[derive(Debug, Default)]
pub(super) struct Whole {
    automaton: Option<AhoCorasick>,
    tokens: Vec<Token>,
}

/// One such token.
#[derive(Clone, Copy, Debug)]
struct Token {
    id: u32,
    /// It takes the white space that follows it.
    strips_right: bool,
}

/// The spellings while they are collected.
#[derive(Debug, Default)]
pub(super) struct Builder {
    spellings: Vec<Box<str>>,
    tokens: Vec<Token>,
    bytes: usize,
}

impl Builder {
    pub(super) fn add(&mut self, spelling: &str, id: u32, strips_right: bool) -> Result<()> {
        if spelling.is_empty() {
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(spelling.len());
        if self.bytes > MAX_BYTES {
            let sentence = format!("the control and user-defined tokens have more than {MAX_BYTES} bytes together");
            return Err(Error::unsupported(sentence));
        }
        self.spellings.push(spelling.into());
        self.tokens.push(Token { id, strips_right });
        Ok(())
    }

    pub(super) fn build(self) -> Result<Whole> {
        if self.spellings.is_empty() {
            return Ok(Whole::default());
        }
        let spellings = self.spellings.iter().map(|spelling| spelling.as_bytes());
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(spellings);
        let automaton = automaton.map_err(|e| Error::unsupported(format!("the control and user-defined tokens: {e}")))?;
        Ok(Whole { automaton: Some(automaton), tokens: self.tokens })
    }
}

impl Whole {
    /// The text before the first whole token, the token, and the text after it.
    pub(super) fn next<'a>(&self, text: &'a str) -> (&'a str, Option<u32>, &'a str) {
        let found = self.automaton.as_ref().and_then(|automaton| automaton.find(text));
        let Some((found, token)) = found.and_then(|found| Some((found, self.tokens.get(found.pattern().as_usize())?))) else {
            return (text, None, "");
        };
        // Spellings are whole characters, so both ends are between characters.
        let before = text.get(..found.start()).unwrap_or_default();
        let after = text.get(found.end()..).unwrap_or_default();
        (before, Some(token.id), if token.strips_right { after.trim_start() } else { after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leftmost_and_of_those_the_longest() {
        let mut builder = Builder::default();
        for (id, (spelling, strips)) in [("<a>", false), ("<a>>", false), ("a><b", false), ("é", true)].into_iter().enumerate() {
            builder.add(spelling, id as u32, strips).unwrap();
        }
        let whole = builder.build().unwrap();
        assert_eq!(whole.next("x <a>>y"), ("x ", Some(1), "y"));
        assert_eq!(whole.next("<a><b"), ("", Some(0), "<b"));
        assert_eq!(whole.next("è é \n x"), ("è ", Some(3), "x"));
        assert_eq!(whole.next("è"), ("è", None, ""));
        assert_eq!(Builder::default().build().unwrap().next("a"), ("a", None, ""));
    }

    #[test]
    fn what_a_file_can_make_us_build_is_bounded() {
        let mut builder = Builder::default();
        let error = builder.add(&"a".repeat(MAX_BYTES + 1), 0, false).unwrap_err();
        assert!(error.message().contains("4194304"), "{error}");
    }
}
