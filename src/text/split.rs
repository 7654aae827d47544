//! Cutting a text into the words within which byte-pair encoding joins: passes of patterns, each over the pieces of the one before.
//!
//! The patterns are as the models' own tokenizers have them, but for `\s+(?!\S)`, a look ahead that no linear-time automaton
//! has: [`Pass::Words`] does its work after the match. Time grows with the length of the text, whatever is in it.
#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind, Result};
use regex_automata::Input;
use regex_automata::meta::Regex;

/// One pass. What matches is a piece of its own, and so is what lies between matches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pass {
    /// This pattern.
    Each(&'static str),
    /// This pattern, else a run of white space, which leaves its last character to what follows it: `…|\s+(?!\S)|\s+`.
    Words(&'static str),
    /// The same with a run's white space in halves: `…|\s{512}(?!\S)|\s{256}(?!\S)|…|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}`.
    WordsHalves(&'static str),
    /// Runs of digits, in groups of three from the right: the pattern of what is passed over, if any, and that of a run.
    Thousands(Option<&'static str>, &'static str),
    /// Groups of three decimal digits from the right, where what is left over stays with what is before it.
    ThousandsAttached,
}

/// What becomes of a match of the second pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Second {
    /// White space, of which the last character may belong to what follows.
    Blank,
    BlankHalves,
    /// Digits, in groups of three from the right.
    Digits,
    DigitsAttached,
}

/// The passes, ready for use.
#[derive(Debug)]
pub(super) struct Splitter(Vec<(Regex, Second)>);

impl Splitter {
    pub(super) fn new(passes: &[Pass]) -> Result<Self> {
        // A pattern that matches nothing, where there is only one.
        const NONE: &str = r"[^\s\S]";
        let compile = |pass: &Pass| {
            let (first, second, action) = match *pass {
                Pass::Each(pattern) => (pattern, NONE, Second::Blank),
                Pass::Words(pattern) => (pattern, r"\s+", Second::Blank),
                Pass::WordsHalves(pattern) => (pattern, r"\s+", Second::BlankHalves),
                Pass::Thousands(passed_over, run) => (passed_over.unwrap_or(NONE), run, Second::Digits),
                Pass::ThousandsAttached => (NONE, r"\d+", Second::DigitsAttached),
            };
            // Of two patterns that match at one place, the first counts.
            let regex = Regex::new_many(&[first, second]);
            let failed = |e| Error::new(ErrorKind::Internal, format!("the pre-tokeniser's pattern {first:?}: {e}"));
            Ok((regex.map_err(failed)?, action))
        };
        passes.iter().map(compile).collect::<Result<_>>().map(Self)
    }

    /// Calls `take` with each word of `text`; put together, they are `text`.
    pub(super) fn split<'t>(&self, text: &'t str, take: &mut impl FnMut(&'t str) -> Result<()>) -> Result<()> {
        split(&self.0, text, take)
    }
}

fn split<'t>(passes: &[(Regex, Second)], text: &'t str, take: &mut impl FnMut(&'t str) -> Result<()>) -> Result<()> {
    let Some(((regex, second), later)) = passes.split_first() else {
        return if text.is_empty() { Ok(()) } else { take(text) };
    };
    // Everything before `done` has been taken.
    let mut done = 0;
    let mut cut = |to: usize| -> Result<()> {
        let piece = text.get(done..to).unwrap_or_default();
        done = to.max(done);
        if piece.is_empty() { Ok(()) } else { split(later, piece, take) }
    };
    let mut at = 0;
    while let Some(found) = regex.search(&Input::new(text).range(at..)) {
        let (start, mut end) = (found.start(), found.end());
        if end <= at {
            break; // no pattern matches an empty text
        }
        match (found.pattern().as_usize(), second) {
            (0, Second::Digits) => {}
            (0, _) => {
                cut(start)?;
                cut(end)?;
            }
            (_, Second::Blank) => {
                cut(start)?;
                end = before_last(text, start, end);
                cut(end)?;
            }
            (_, Second::BlankHalves) => {
                cut(start)?;
                end = before_last(text, start, end);
                cut_halves(text, start, end, &mut cut)?;
            }
            (_, Second::Digits | Second::DigitsAttached) => cut_thousands(text, start, end, *second, &mut cut)?,
        }
        at = end;
    }
    cut(text.len())
}

/// Where a run of white space is cut: its last character goes with what follows, if anything follows and it is not alone.
fn before_last(text: &str, start: usize, end: usize) -> usize {
    let last = text.get(start..end).and_then(|run| run.chars().next_back()).map_or(0, char::len_utf8);
    let cut = end.saturating_sub(last);
    if end == text.len() || cut <= start { end } else { cut }
}

/// Cuts white space into pieces of 512 characters, then 256 and so on, as long as there are so many.
fn cut_halves(text: &str, start: usize, end: usize, cut: &mut impl FnMut(usize) -> Result<()>) -> Result<()> {
    let run = text.get(start..end).unwrap_or_default();
    let mut left = run.chars().count();
    let mut ends = run.char_indices().map(|(at, c)| start + at + c.len_utf8());
    while left > 0 {
        let size = [512, 256, 128, 64, 32, 16, 8, 4, 2].into_iter().find(|size| *size <= left).unwrap_or(1);
        cut(ends.nth(size - 1).unwrap_or(end))?;
        left -= size;
    }
    Ok(())
}

fn cut_thousands(text: &str, start: usize, end: usize, how: Second, cut: &mut impl FnMut(usize) -> Result<()>) -> Result<()> {
    let run = text.get(start..end).unwrap_or_default();
    let count = run.chars().count();
    for (number, (at, _)) in run.char_indices().enumerate() {
        if (count - number).is_multiple_of(3) || (number == 0 && how == Second::Digits) {
            cut(start + at)?;
        }
    }
    if how == Second::Digits { cut(end) } else { Ok(()) }
}
