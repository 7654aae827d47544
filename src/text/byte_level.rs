//! GPT-2's alphabet: a printable character for every byte, in which byte-level vocabularies are written.
#![forbid(unsafe_code)]

/// The characters' bytes, indexed by code point: the printable ones of Latin-1 stand for themselves, the other 68 bytes are
/// written as U+0100 and following, in their order.
pub(super) struct Alphabet([Option<u8>; 256 + 68]);

impl Alphabet {
    pub(super) fn new() -> Self {
        let mut bytes = [None; 256 + 68];
        let mut next = 256;
        for byte in 0..=255u8 {
            let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let at = if printable { usize::from(byte) } else { next };
            next += usize::from(!printable);
            if let Some(place) = bytes.get_mut(at) {
                *place = Some(byte);
            }
        }
        Self(bytes)
    }

    /// The character that `byte` is written as.
    pub(super) fn char(&self, byte: u8) -> char {
        let found = self.0.iter().zip('\0'..).find(|(place, _)| **place == Some(byte));
        found.map_or(char::REPLACEMENT_CHARACTER, |(_, c)| c) // every byte is there
    }

    /// The bytes that `token` is written for. A token with any other character in it is text as it stands.
    pub(super) fn bytes(&self, token: &str) -> Box<[u8]> {
        let bytes: Option<Vec<u8>> = token.chars().map(|c| self.0.get(c as usize).copied().flatten()).collect();
        bytes.unwrap_or_else(|| token.as_bytes().to_vec()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let alphabet = Alphabet::new();
        let mut bytes: Vec<u8> = alphabet.0.iter().flatten().copied().collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(&*alphabet.bytes("ĠHelloĊ"), b" Hello\n");
        assert_eq!(&*alphabet.bytes("ðŁĺĢ"), "😀".as_bytes());
        assert_eq!(&*alphabet.bytes("Ġ日"), "Ġ日".as_bytes());
        assert_eq!(&*alphabet.bytes("a b"), b"a b");
        assert_eq!(['a', 'Ġ', 'Ċ', 'ÿ'], [b'a', b' ', b'\n', 0xff].map(|byte| alphabet.char(byte)));
    }
}
