//! DirkTensor's `vocab.txt`: a line `id<TAB>token` for each token, with the escapes `\\ \n \r \t`, and `Ġ` for a space.
#![forbid(unsafe_code)]

use super::vocab::{Piece, Rules, Vocab};
use crate::error::{Error, Result};
use std::path::Path;

/// Reads the file's text; `path` is for messages. Ids that no line names stand for nothing, ids beyond them for `<UNK>`.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vocab> {
    let mut vocab = Vocab::new(Rules { out_of_range: Some("<UNK>"), ..Rules::PLAIN });
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() {
            continue;
        }
        let wrong = |what: String| Error::bad_file(path, format!("line {}: {what}", number + 1));
        let (id, token) = line.split_once('\t').ok_or_else(|| wrong("expected `id<TAB>token`, found no tab".to_owned()))?;
        let id: u32 = id.parse().map_err(|_| wrong(format!("expected a token id, found {:?}", short(id))))?;
        let piece = Piece::Text(unescape(token).replace('Ġ', " ").into());
        let before = vocab.set(id, piece).map_err(|e| e.context(path.display()))?;
        if before != Piece::Nothing {
            return Err(wrong(format!("token id {id} is there twice")));
        }
    }
    if vocab.len() == 0 {
        return Err(Error::bad_file(path, "there is no token in it"));
    }
    Ok(vocab)
}

/// `text`, cut where it is too long for a message.
fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A backslash before anything else than `\`, `n`, `r` or `t` stands for itself.
fn unescape(token: &str) -> String {
    let mut out = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('\\') => out.push('\\'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_str(text: &str) -> Result<Vocab> {
        parse(Path::new("vocab.txt"), text)
    }

    #[test]
    fn lines_escapes_gaps_and_ids_out_of_range() {
        let vocab = parse_str("0\tHello\n1\tĠworld\r\n2\ta\\nb\\rc\\td\\\\n\\x\\\n5\tĊ\tĠĠ\n6\t\n").unwrap();
        let text = |id| vocab.token_text(id).unwrap();
        assert_eq!(text(0), "Hello");
        assert_eq!(text(1), " world");
        assert_eq!(text(2), "a\nb\rc\td\\n\\x\\");
        assert_eq!(text(3), "");
        assert_eq!(text(4), "");
        assert_eq!(text(5), "Ċ\t  ");
        assert_eq!(text(6), "");
        assert_eq!(text(7), "<UNK>");
        assert_eq!(text(u32::MAX), "<UNK>");
        assert_eq!(vocab.len(), 7);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, part) in [
            ("0\ta\nb", "line 2: expected `id<TAB>token`"),
            ("0\ta\n\nx\tb", "line 3: expected a token id, found \"x\""),
            ("-1\ta", "line 1: expected a token id"),
            ("0\ta\n0\tb", "line 2: token id 0 is there twice"),
            ("4294967295\ta", "4294967295 is too large"),
            ("4294967296\ta", "expected a token id"),
            ("", "no token"),
        ] {
            let error = parse_str(text).err().unwrap();
            assert!(error.message().contains(part) && error.message().contains("vocab.txt"), "{text:?}: {error}");
        }
    }
}
