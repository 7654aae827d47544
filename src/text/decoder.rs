//! Text from tokens that arrive one by one.
#![forbid(unsafe_code)]

use super::Tokenizer;
use super::vocab::{Piece, Start, Vocab};
use crate::error::Result;

/// Streaming detokeniser: what [`push`](Self::push) and [`finish`](Self::finish) return, put together, is what
/// [`Tokenizer::decode`] gives for the same tokens, and every piece is whole UTF-8 characters.
///
/// Text is held back only where later tokens can still change it: an unfinished character, and, in vocabularies with byte
/// fallback, a run of byte tokens, which is text only if the whole run is valid UTF-8.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// Whether a token with text has been seen.
    started: bool,
    /// How far the beginning has been stripped, where the rules strip it.
    stripping: Stripping,
    /// The unfinished character at the end of [`Piece::Bytes`].
    unfinished: Vec<u8>,
    /// The present run of [`Piece::Byte`].
    run: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stripping {
    /// So many characters have been taken off; more may be.
    Taken(usize),
    /// The text has begun.
    Over,
}

impl Default for Stripping {
    fn default() -> Self {
        Self::Taken(0)
    }
}

impl Decoder {
    /// The text that `token` completes; may be empty. After an error the decoder is as it was.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<String> {
        let mut out = String::new();
        self.push_to(&tokenizer.vocab, token, &mut out)?;
        Ok(out)
    }

    /// What is still held back, with U+FFFD for bytes that never became a character. The decoder is as new afterwards.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        let mut out = String::new();
        self.finish_to(&tokenizer.vocab, &mut out);
        Ok(out)
    }

    /// Appends the text that `token` completes to `out`.
    pub(super) fn push_to(&mut self, vocab: &Vocab, token: u32, out: &mut String) -> Result<()> {
        let piece = vocab.get(token)?;
        if matches!(piece, Some(Piece::Nothing | Piece::Special(_))) {
            return Ok(());
        }
        let from = out.len();
        let first = !std::mem::replace(&mut self.started, true);
        if !matches!(piece, Some(Piece::Byte(_))) {
            self.end_run(out);
        }
        if !first {
            out.push_str(vocab.rules.between);
        }
        match piece {
            Some(Piece::Text(text)) => vocab.push_text(text, first && vocab.rules.start == Start::DropSpaces, out),
            Some(Piece::Bytes(bytes)) => self.push_bytes(bytes, out),
            Some(Piece::Byte(byte)) => self.run.push(*byte),
            None => out.push_str(vocab.rules.out_of_range.unwrap_or_default()),
            Some(Piece::Nothing | Piece::Special(_)) => {}
        }
        self.strip_start(vocab, from, out);
        Ok(())
    }

    /// Appends what is still held back to `out` and begins anew.
    pub(super) fn finish_to(&mut self, vocab: &Vocab, out: &mut String) {
        let from = out.len();
        self.end_run(out);
        out.push_str(&String::from_utf8_lossy(&self.unfinished));
        self.strip_start(vocab, from, out);
        *self = Self::default();
    }

    /// Adds `bytes` to the unfinished character and moves what is complete to `out`. A cut character at the end stays: its
    /// bytes are read again with those that follow, so that the cut leaves no trace.
    fn push_bytes(&mut self, bytes: &[u8], out: &mut String) {
        self.unfinished.extend_from_slice(bytes);
        let mut rest = self.unfinished.as_slice();
        while let Err(error) = std::str::from_utf8(rest) {
            let (valid, broken) = rest.split_at_checked(error.valid_up_to()).unwrap_or((rest, &[]));
            out.push_str(&String::from_utf8_lossy(valid));
            let Some(skip) = error.error_len() else {
                self.unfinished = broken.to_vec();
                return;
            };
            out.push(char::REPLACEMENT_CHARACTER);
            rest = broken.get(skip..).unwrap_or_default();
        }
        out.push_str(&String::from_utf8_lossy(rest));
        self.unfinished.clear();
    }

    /// Ends the run of byte tokens: text if all of it is UTF-8, else one U+FFFD for each byte.
    fn end_run(&mut self, out: &mut String) {
        match std::str::from_utf8(&self.run) {
            Ok(text) => out.push_str(text),
            Err(_) => out.extend(self.run.iter().map(|_| char::REPLACEMENT_CHARACTER)),
        }
        self.run.clear();
    }

    /// Applies [`Start::Strip`] to what was appended to `out` after `from`.
    fn strip_start(&mut self, vocab: &Vocab, from: usize, out: &mut String) {
        let (Stripping::Taken(mut taken), Start::Strip(unwanted, limit)) = (self.stripping, vocab.rules.start) else { return };
        let new = out.get(from..).unwrap_or_default();
        let cut = new.chars().take(limit.saturating_sub(taken)).take_while(|&c| c == unwanted).count();
        taken += cut;
        let over = taken >= limit || new.chars().nth(cut).is_some();
        self.stripping = if over { Stripping::Over } else { Stripping::Taken(taken) };
        out.replace_range(from..from + cut * unwanted.len_utf8(), "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::vocab::Rules;

    fn text(vocab: &Vocab, tokens: &[u32]) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut parts = Vec::new();
        for &token in tokens {
            let mut out = String::new();
            decoder.push_to(vocab, token, &mut out).unwrap();
            parts.push(out);
        }
        let mut out = String::new();
        decoder.finish_to(vocab, &mut out);
        parts.push(out);
        parts
    }

    /// Every sequence of up to five of the bytes that matter for UTF-8, cut into tokens of one byte, against the standard
    /// library's reading of the whole.
    #[test]
    fn bytes_one_by_one_read_as_the_whole_does() {
        let bytes = [b'a', 0x80, 0xbf, 0xc3, 0xe0, 0xa0, 0xed, 0xf0, 0x90, 0xf4, 0xff];
        let mut vocab = Vocab::new(Rules::PLAIN);
        for (id, byte) in bytes.iter().enumerate() {
            vocab.set(id as u32, Piece::Bytes([*byte].into())).unwrap();
        }
        let n = bytes.len() as u32;
        for length in 0..=5 {
            for code in 0..n.pow(length) {
                let tokens: Vec<u32> = (0..length).map(|i| code / n.pow(i) % n).collect();
                let whole: Vec<u8> = tokens.iter().map(|&t| bytes[t as usize]).collect();
                assert_eq!(text(&vocab, &tokens).concat(), String::from_utf8_lossy(&whole), "{whole:x?}");
            }
        }
    }

    #[test]
    fn a_character_comes_out_when_its_last_byte_is_there() {
        let mut vocab = Vocab::new(Rules::PLAIN);
        for (id, byte) in "é😀".bytes().enumerate() {
            vocab.set(id as u32, Piece::Bytes([byte].into())).unwrap();
        }
        assert_eq!(text(&vocab, &[0, 1, 2, 3, 4, 5, 2]), ["", "é", "", "", "", "😀", "", "\u{fffd}"]);
    }

    fn fallback_vocab(start: Start) -> Vocab {
        let mut vocab = Vocab::new(Rules { space: Some('▁'), start, ..Rules::PLAIN });
        for byte in 0..=255u8 {
            vocab.set(u32::from(byte), Piece::Byte(byte)).unwrap();
        }
        vocab.set(256, Piece::Text("▁▁a▁b".into())).unwrap();
        vocab.set(257, Piece::Special("<s>".into())).unwrap();
        vocab.set(258, Piece::Text("▁".into())).unwrap();
        vocab
    }

    #[test]
    fn a_run_of_byte_tokens_is_text_or_nothing_is() {
        let vocab = fallback_vocab(Start::Keep);
        let run: Vec<u32> = "é😀".bytes().map(u32::from).collect();
        assert_eq!(text(&vocab, &run).concat(), "é😀");
        assert_eq!(text(&vocab, &[&run[..], &[257], &run[..]].concat()).concat(), "é😀é😀");
        assert_eq!(text(&vocab, &[&run[..], &[256]].concat()).concat(), "é😀  a b");
        assert_eq!(text(&vocab, &[&run[..5], &[256]].concat()).concat(), "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}  a b");
    }

    #[test]
    fn only_the_beginning_is_stripped() {
        let vocab = fallback_vocab(Start::Strip(' ', 1));
        assert_eq!(text(&vocab, &[257, 256, 256]), ["", " a b", "  a b", ""]);
        assert_eq!(text(&vocab, &[258, 256]).concat(), "  a b");
        assert_eq!(text(&vocab, &[32, 256]).concat(), "  a b");
        let vocab = fallback_vocab(Start::Strip(' ', 3));
        assert_eq!(text(&vocab, &[258, 258, 256, 258]).concat(), " a b ");
        assert_eq!(text(&vocab, &[65, 258, 256]).concat(), "A   a b");
        let vocab = fallback_vocab(Start::DropSpaces);
        assert_eq!(text(&vocab, &[257, 256, 256]).concat(), "ab  a b");
    }

    #[test]
    fn a_bad_id_leaves_the_decoder_as_it_was() {
        let vocab = fallback_vocab(Start::Keep);
        let mut decoder = Decoder::default();
        let mut out = String::new();
        decoder.push_to(&vocab, 0xc3, &mut out).unwrap();
        let error = decoder.push_to(&vocab, 259, &mut out).unwrap_err();
        assert!(error.message().contains("259"), "{error}");
        decoder.push_to(&vocab, 0xa9, &mut out).unwrap();
        decoder.finish_to(&vocab, &mut out);
        assert_eq!(out, "é");
    }
}
