//! The pre-tokenisers that GGUF files name in `tokenizer.ggml.pre`.
//!
//! The patterns are those of the models' own tokenizers. Where llama.cpp has another form that its regular expressions can
//! express (upper and lower case of ASCII letters only for `tekken` and `gpt-4o`), the model's own is here.
#![forbid(unsafe_code)]

use super::split::Pass::{self, Each, Thousands, ThousandsAttached, Words, WordsHalves};

/// What a name stands for.
#[derive(Debug)]
pub(super) struct Rule {
    names: &'static [&'static str],
    pub(super) passes: &'static [Pass],
    /// Which words that are tokens are those tokens, whatever the merges say.
    pub(super) tokens_first: TokensFirst,
    /// The vocabulary is written as text, not in GPT-2's alphabet of bytes.
    pub(super) is_text: bool,
    /// A text begins with BOS where the file does not say.
    pub(super) adds_bos: bool,
}

/// See [`Rule`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum TokensFirst {
    None,
    /// Those of line ends alone.
    LineEnds,
    All,
}

/// The rule of a name.
pub(super) fn by_name(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.names.contains(&name))
}

/// The one that old files without a name mean.
pub(super) const DEFAULT: &str = "default";
/// The one of the kind of vocabulary called `gemma4`.
pub(super) const GEMMA4: &str = "gemma4";

macro_rules! contractions {
    () => {
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    };
}
/// Words of GPT-4 and those that came after: contractions, letters, digits by the pattern given, signs, line ends.
macro_rules! words {
    ($digits:literal) => {
        concat!(contractions!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|", $digits, r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+")
    };
}
/// The characters of a word's beginning, and of its end, where upper case begins a word.
macro_rules! upper {
    () => {
        r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
    };
}
macro_rules! lower {
    () => {
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    };
}
/// Words of which upper case begins a new one, with what may follow them, and digits.
macro_rules! cased_words {
    ($suffix:expr, $digits:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?",
            upper!(),
            "*",
            lower!(),
            "+",
            $suffix,
            r"|[^\r\n\p{L}\p{N}]?",
            upper!(),
            "+",
            lower!(),
            "*",
            $suffix,
            "|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"
        )
    };
}
/// ASCII's signs before ASCII's letters, other words with their marks, signs, line ends.
macro_rules! marked_words {
    ($line_ends:literal) => {
        concat!(
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"##,
            $line_ends
        )
    };
}

const GPT2: Pass = Words(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+");
const LLAMA3: Pass = Words(words!(r"\p{N}{1,3}"));
const QWEN2: Pass = Words(words!(r"\p{N}"));
const GPT4O: Pass = Words(cased_words!(concat!(contractions!(), "?"), r"\p{N}{1,3}"));
const BLOOM: Pass = Each(r" ?[^(\s|.,!?\u{2026}\u{3002}\u{FF0C}\u{3001}\u{964}\u{6D4}\u{60C})]+");
const LINE_ENDS: Pass = Each(r"[\r\n]");
const DEEPSEEK_CJK: Pass = Each(r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+");
const HAN_KANA: Pass = Each(r"[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+");
/// DeepSeek's letters: those with upper and lower case, of the Unicode of its day.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[",
    r"A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}\u{370}-\u{373}",
    r"\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}\u{3A3}-\u{3F5}\u{3F7}-\u{481}",
    r"\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}",
    r"\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}",
    r"\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}",
    r"\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}",
    r"\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}\u{2126}",
    r"\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}\u{2183}\u{2184}",
    r"\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}\u{A680}-\u{A69B}",
    r"\u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}",
    r"\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}",
    r"\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}",
    r"]+"
);
const KIMI: &str = concat!(
    r"\p{Han}+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
    contractions!(),
    "?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
    contractions!(),
    "?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
);
const YOUTU: &str = concat!(
    r"[\u{AC00}-\u{D7A3}\u{3131}-\u{318E}]+",
    r"|[\u{FF01}\u{2026}\u{201C}\u{201D}\u{2018}\u{2019}\u{2014}\u{FF1A}\u{FF1B}\u{FF0C}\u{3001}-\u{303F}\u{FE30}-\u{FE4F}]+",
    r"|[\u{3105}-\u{312F}]+|[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+"
);
/// Scripts that are written without spaces.
const AFMOE_SCRIPTS: &str = concat!(
    r"[\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{8C48}-\u{FAFF}\u{3040}-\u{309F}\u{30A0}-\u{30FF}\u{FF65}-\u{FF9F}",
    r"\u{2F00}-\u{2FDF}\u{E40}-\u{E7F}\u{E80}-\u{EFF}\u{1780}-\u{17FF}\u{1000}-\u{109F}\u{AA60}-\u{AA7F}",
    r"\u{A9E0}-\u{A9FF}\u{AC00}-\u{D7AF}\u{1100}-\u{11FF}]+"
);

/// A rule that leaves words to the merges and BOS to the file.
const fn rule(names: &'static [&'static str], passes: &'static [Pass]) -> Rule {
    Rule { names, passes, tokens_first: TokensFirst::None, is_text: false, adds_bos: false }
}

/// A rule under which a word that is a token is that token.
const fn whole_words(names: &'static [&'static str], passes: &'static [Pass]) -> Rule {
    Rule { tokens_first: TokensFirst::All, ..rule(names, passes) }
}

static RULES: &[Rule] = &[
    rule(&[DEFAULT], &[Each(r"[\p{P}\$\+<=>\^~\|]+"), GPT2, Each(r"\p{N}+"), Each("[0-9][0-9][0-9]")]),
    rule(
        &[
            "gpt-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
        ],
        &[GPT2],
    ),
    rule(
        &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[Each(r"\p{N}"), GPT2],
    ),
    rule(&["falcon"], &[Each(r"[\p{P}\$\+<=>\^~\|`]+"), GPT2, Each("[0-9][0-9][0-9]")]),
    Rule {
        adds_bos: true,
        ..whole_words(
            &["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
            &[LLAMA3],
        )
    },
    rule(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3]),
    whole_words(&["glm4", "glm5"], &[LLAMA3]),
    rule(&["jais-2"], &[WordsHalves(words!(r"\p{N}{1,3}"))]),
    whole_words(&["minicpm5"], &[Each(r"\p{N}{1,3}"), Words(words!(r"\p{N}+"))]),
    rule(&["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"], &[QWEN2]),
    rule(&["laguna"], &[Each(r"[^\n]+|\n+"), QWEN2]),
    rule(
        &["qwen35"],
        &[Words(concat!(contractions!(), r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"))],
    ),
    rule(&["ufakzeka"], &[Words(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+")]),
    rule(
        &["bailingmoe", "bailingmoe2", "llada-moe"],
        &[Words(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]")],
    ),
    rule(
        &["seed-coder"],
        &[Words(concat!(contractions!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+"))],
    ),
    rule(
        &["exaone-moe"],
        &[Words(concat!(
            contractions!(),
            r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]"
        ))],
    ),
    Rule { adds_bos: true, ..whole_words(&["tekken"], &[Words(cased_words!("", r"\p{N}"))]) },
    rule(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O]),
    whole_words(&["granite-embed-multi-97m"], &[GPT4O]),
    rule(&["tiny_aya", "cohere2moe"], &[Thousands(Some(r"\d+[\w--\d]"), r"\d+"), GPT4O]),
    whole_words(&["youtu"], &[Each(YOUTU), Words(cased_words!(concat!(contractions!(), "?"), r"\p{N}"))]),
    rule(&["kimi-k2"], &[Words(KIMI)]),
    rule(
        &["deepseek-llm"],
        &[
            LINE_ENDS,
            Each(DEEPSEEK_LETTERS),
            Each(r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+"),
            Each(r"\s+$"),
            DEEPSEEK_CJK,
            Each(r"\p{N}+"),
        ],
    ),
    rule(&["deepseek-coder"], &[LINE_ENDS, Each(r"\s?\p{L}+"), Each(r"\s?\p{P}+"), DEEPSEEK_CJK, Each(r"\p{N}")]),
    rule(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        &[Each(r"\p{N}{1,3}"), HAN_KANA, Words(marked_words!(r"[\r\n]*|\s*[\r\n]+"))],
    ),
    rule(&["spark2_5"], &[Each(r"\p{N}{1,3}"), HAN_KANA, Words(marked_words!(r"|[\r\n]")), Each(r"\p{N}")]),
    rule(&["afmoe"], &[Thousands(None, r"\p{N}+"), Each(AFMOE_SCRIPTS), Words(marked_words!(r"[\r\n]*|\s*[\r\n]+"))]),
    Rule {
        tokens_first: TokensFirst::LineEnds,
        is_text: true,
        adds_bos: true,
        ..rule(&[GEMMA4, "granite-embed-multi-311m"], &[Each(r"[^\n]+|\n+")])
    },
    Rule { is_text: true, ..rule(&["sarvam-moe"], &[Each(r"[^\n]+|\n+")]) },
    rule(&["superbpe"], &[Each(r"\p{N}+"), ThousandsAttached]),
    rule(&["bloom", "gpt3-finnish", "poro-chat"], &[BLOOM]),
    rule(&["viking"], &[BLOOM, Each(r"\p{N}")]),
    Rule {
        adds_bos: true,
        ..rule(
            &["chameleon"],
            &[
                Each("<sentinel:[0-9]+>"),
                Each("IMGIMG[A-I]{1,4}Z"),
                Each(r"[\t\n]|    |  "),
                Each(r"\p{N}"),
                Each(r"[\p{P}!-/:-@\[-`{-~]"),
                GPT2,
            ],
        )
    },
];

#[cfg(test)]
mod tests {
    use super::super::split::Splitter;
    use super::*;
    use serde_json::Value;

    fn pieces<'t>(splitter: &Splitter, text: &'t str) -> Vec<&'t str> {
        let mut pieces = Vec::new();
        splitter
            .split(text, &mut |piece| {
                pieces.push(piece);
                Ok(())
            })
            .unwrap();
        pieces
    }

    /// What Python's `regex` does with the patterns as they are written elsewhere (tests/golden/make_text.py).
    #[test]
    fn every_name_splits_as_its_pattern_does() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text/pre-tokenizers.json");
        let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let texts: Vec<&str> = golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        let mut seen = Vec::new();
        for rule in golden["rules"].as_array().unwrap() {
            for name in rule["names"].as_array().unwrap() {
                let name = name.as_str().unwrap();
                seen.push(name);
                let splitter = Splitter::new(by_name(name).unwrap().passes).unwrap();
                for (text, lengths) in texts.iter().zip(rule["lengths"].as_array().unwrap()) {
                    let pieces = pieces(&splitter, text);
                    assert_eq!(pieces.concat(), *text);
                    let found: Vec<usize> = pieces.iter().map(|piece| piece.chars().count()).collect();
                    let lengths: Vec<usize> = lengths.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
                    assert_eq!(found, lengths, "{name}: {text:?}: {pieces:?}");
                }
            }
        }
        let mut names: Vec<&str> = RULES.iter().flat_map(|rule| rule.names).copied().collect();
        names.sort_unstable();
        seen.sort_unstable();
        assert_eq!(names, seen);
    }

    /// A quadratic step over these would take hours.
    #[test]
    fn no_text_takes_long() {
        let start = std::time::Instant::now();
        let parts = ["a", "A", " ", "\n", " \n", "1", "'", "!", "é\u{301}", "日", "ªB", "\u{200d}", "/", " a", "\u{fffd}"];
        for rule in RULES {
            let splitter = Splitter::new(rule.passes).unwrap();
            for part in parts {
                let text = part.repeat(100_000 / part.len());
                let mut length = 0;
                splitter
                    .split(&text, &mut |piece| {
                        length += piece.len();
                        Ok(())
                    })
                    .unwrap();
                assert_eq!(length, text.len());
            }
        }
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    }
}
