//! Tokenizers against what the Python `tokenizers` package does (tests/golden/text, see make_text.py there).

use engine::format::Kind;
use engine::text::{Tokenizer, UnknownPre};
use engine::{Error, ErrorKind};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text").join(name)
}

fn load(dir: &Path) -> Result<Tokenizer, Error> {
    Tokenizer::from_dir(dir, Kind::HuggingFace)
}

/// The text as it comes token by token.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut decoder = tokenizer.decoder();
    let mut text = String::new();
    for &id in ids {
        text += &decoder.push(tokenizer, id).unwrap();
    }
    text + &decoder.finish(tokenizer).unwrap()
}

/// A folder of this test's own, emptied.
fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("text").join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// `xorshift64*`: enough to make token sequences.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

#[cfg(feature = "tokenizers")]
mod json {
    use super::*;

    const ALL: [&str; 17] = [
        "gpt2",
        "gpt2-files",
        "llama3",
        "tekken",
        "olmo2",
        "neox",
        "qwen",
        "smollm",
        "falcon",
        "cohere",
        "llama2",
        "llama2-new",
        "mistral",
        "phi3",
        "gemma",
        "gemma3",
        "metaspace",
    ];

    fn ids(value: &Value) -> Vec<u32> {
        value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    }

    fn cases(name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(golden(name).join("cases.json")).unwrap()).unwrap()
    }

    #[test]
    fn texts_become_the_ids_of_the_reference() {
        for name in ALL {
            let tokenizer = load(&golden(name)).unwrap();
            for case in cases(name)["encode"].as_array().unwrap() {
                let text = case[0].as_str().unwrap();
                let expected = ids(&case[1]);
                assert_eq!(tokenizer.encode(text, false).unwrap(), expected, "{name}: {text:?}");
                let around = [ids(&case[2]), expected.clone(), ids(&case[3])].concat();
                assert_eq!(tokenizer.encode(text, true).unwrap(), around, "{name}: {text:?}");
                let back = case[4].as_str().unwrap_or(text);
                assert_eq!(tokenizer.decode(&expected).unwrap(), back, "{name}: {text:?}");
                assert_eq!(streamed(&tokenizer, &expected), back, "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn any_ids_become_the_text_of_the_reference() {
        for name in ALL {
            let tokenizer = load(&golden(name)).unwrap();
            for case in cases(name)["decode"].as_array().unwrap() {
                let (ids, expected) = (ids(&case[0]), case[1].as_str().unwrap());
                assert_eq!(tokenizer.decode(&ids).unwrap(), expected, "{name}: {ids:?}");
                assert_eq!(streamed(&tokenizer, &ids), expected, "{name}: {ids:?}");
            }
        }
    }

    #[test]
    fn streaming_gives_what_decoding_gives() {
        let mut random = Random(7);
        for name in ALL {
            let tokenizer = load(&golden(name)).unwrap();
            for _ in 0..2000 {
                let length = random.below(20);
                let ids: Vec<u32> = (0..length).map(|_| random.below(tokenizer.vocab_size()) as u32).collect();
                assert_eq!(streamed(&tokenizer, &ids), tokenizer.decode(&ids).unwrap(), "{name}: {ids:?}");
            }
        }
    }

    #[test]
    fn the_text_of_one_token() {
        let text = |name: &str, token: &str| {
            let tokenizer = load(&golden(name)).unwrap();
            let spec: Value = serde_json::from_slice(&std::fs::read(golden(name).join("tokenizer.json")).unwrap()).unwrap();
            let id = spec["model"]["vocab"][token].as_u64().or_else(|| {
                spec["added_tokens"].as_array().unwrap().iter().find(|t| t["content"] == token).and_then(|t| t["id"].as_u64())
            });
            tokenizer.token_text(id.unwrap() as u32).unwrap()
        };
        assert_eq!(text("gpt2", "Ġthe"), " the");
        assert_eq!(text("gpt2", "Ċ"), "\n");
        assert_eq!(text("gpt2", "Ã"), "\u{fffd}");
        assert_eq!(text("gpt2", "<|im_end|>"), "<|im_end|>");
        assert_eq!(text("gpt2", "日本"), "日本");
        assert_eq!(text("llama2", "▁the"), " the");
        assert_eq!(text("llama2", "<0x0A>"), "\n");
        assert_eq!(text("llama2", "<0xC3>"), "\u{fffd}");
        assert_eq!(text("llama2", "<s>"), "<s>");
    }

    #[test]
    fn ids_outside_the_vocabulary_are_an_error() {
        let tokenizer = load(&golden("llama2")).unwrap();
        let size = tokenizer.vocab_size();
        for id in [size as u32, u32::MAX] {
            for error in [tokenizer.decode(&[1, id]).err(), tokenizer.token_text(id).err()] {
                let error = error.unwrap();
                assert_eq!(error.kind(), ErrorKind::BadArgument);
                assert!(error.message().contains(&id.to_string()) && error.message().contains(&size.to_string()), "{error}");
            }
        }
    }

    #[test]
    fn long_texts_take_time_in_proportion() {
        // A quadratic step over 100,000 characters would take minutes.
        let start = std::time::Instant::now();
        for name in ALL {
            let tokenizer = load(&golden(name)).unwrap();
            let texts = ["a".repeat(100_000), " ".repeat(100_000), "\n".repeat(100_000) + "x", "é\u{301}".repeat(50_000)];
            for text in texts {
                let ids = tokenizer.encode(&text, true).unwrap();
                let back = tokenizer.decode(&ids).unwrap();
                // These two take a space at the beginning of the text for the one that they would put there.
                assert!(back == text || ["metaspace", "llama2-new", "mistral"].contains(&name), "{name}: {:?}…", &text[..2]);
            }
        }
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    }

    #[test]
    fn end_tokens_are_those_that_the_files_name() {
        let dir = scratch("ends");
        std::fs::copy(golden("llama3").join("tokenizer.json"), dir.join("tokenizer.json")).unwrap();
        let ends = |tokenizer: &Tokenizer| (0..600).filter(|id| tokenizer.is_end(*id)).collect::<Vec<u32>>();
        let tokenizer = load(&dir).unwrap();
        assert_eq!((ends(&tokenizer), tokenizer.bos()), (vec![], None));

        std::fs::write(dir.join("config.json"), r#"{"eos_token_id": 7, "bos_token_id": 5}"#).unwrap();
        let tokenizer = load(&dir).unwrap();
        assert_eq!((ends(&tokenizer), tokenizer.bos()), (vec![7], Some(5)));

        std::fs::write(dir.join("generation_config.json"), r#"{"eos_token_id": [9, 11], "bos_token_id": null}"#).unwrap();
        let tokenizer = load(&dir).unwrap();
        assert_eq!((ends(&tokenizer), tokenizer.bos()), (vec![7, 9, 11], Some(5)));

        let config = r#"{"eos_token": {"content": "</s>"}, "bos_token": "<s>"}"#;
        std::fs::write(dir.join("tokenizer_config.json"), config).unwrap();
        let tokenizer = load(&dir).unwrap();
        let [bos, eos] = ["<s>", "</s>"].map(|token| tokenizer.encode(token, false).unwrap()[0]);
        assert_eq!((ends(&tokenizer), tokenizer.bos()), (vec![7, 9, 11, eos], Some(bos)));

        std::fs::write(dir.join("tokenizer_config.json"), r#"{"eos_token": null, "bos_token": null}"#).unwrap();
        assert_eq!(load(&dir).unwrap().bos(), None);

        for (file, text, part) in [
            ("config.json", r#"{"eos_token_id": "x"}"#, "eos_token_id"),
            ("config.json", r#"{"eos_token_id": [1, 4294967296]}"#, "4294967296"),
            ("generation_config.json", "{", "not valid JSON"),
            ("tokenizer_config.json", r#"{"bos_token": 5}"#, "bos_token"),
        ] {
            let before = std::fs::read(dir.join(file)).unwrap();
            std::fs::write(dir.join(file), text).unwrap();
            let error = load(&dir).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::BadFile);
            assert!(error.message().contains(file) && error.message().contains(part), "{error}");
            std::fs::write(dir.join(file), before).unwrap();
        }
    }

    /// Damaged copies: an error that names the file, or a tokenizer that still does no harm.
    #[test]
    fn a_damaged_tokenizer_json_is_an_error_or_harmless() {
        let dir = scratch("damaged");
        let path = dir.join("tokenizer.json");
        let mut random = Random(3);
        for name in ["gpt2", "llama2"] {
            let whole = std::fs::read(golden(name).join("tokenizer.json")).unwrap();
            for round in 0..60 {
                let mut bytes = whole.clone();
                if round % 2 == 0 {
                    bytes.truncate(random.below(bytes.len()));
                } else {
                    for _ in 0..3 {
                        let at = random.below(bytes.len());
                        bytes[at] ^= 1 << random.below(8);
                    }
                }
                std::fs::write(&path, &bytes).unwrap();
                match load(&dir) {
                    Err(error) => assert!(error.message().contains("tokenizer.json"), "{error}"),
                    Ok(tokenizer) => {
                        let ids = tokenizer.encode("Four score <s> é😀 and", true).unwrap_or_default();
                        let _ = tokenizer.decode(&ids);
                    }
                }
            }
        }
    }

    #[test]
    fn what_no_tokenizer_has_is_refused() {
        let dir = scratch("hostile");
        let path = dir.join("tokenizer.json");
        let whole: Value = serde_json::from_slice(&std::fs::read(golden("llama2").join("tokenizer.json")).unwrap()).unwrap();
        let refuse = |pointer: &str, value: Value, part: &str| {
            let mut spec = whole.clone();
            *spec.pointer_mut(pointer).unwrap() = value;
            std::fs::write(&path, spec.to_string()).unwrap();
            let error = load(&dir).err().unwrap_or_else(|| panic!("{pointer} was taken"));
            assert!(error.message().contains("tokenizer.json") && error.message().contains(part), "{error}");
        };
        refuse("/model/vocab/er", 4_294_967_295u32.into(), "4294967295");
        refuse("/model/vocab/er", 5.into(), "twice");
        refuse("/decoder", serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": true}), "WordPiece");
        refuse("/decoder/decoders/3/stop", 1.into(), "decoder [Replace, ByteFallback, Fuse, Strip]");
        refuse("/post_processor/single", serde_json::json!([{"Sequence": {"id": "B", "type_id": 0}}]), "post-processor");
        let twice = serde_json::json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]);
        refuse("/post_processor/single", twice, "post-processor");
        refuse("/post_processor/special_tokens", serde_json::json!({}), "<s>");
        let growing = serde_json::json!({"type": "Replace", "pattern": {"String": "a"}, "content": "b".repeat(1000)});
        refuse("/normalizer/normalizers/1", growing, "normalizer");
    }

    #[test]
    fn the_missing_and_the_too_large() {
        let dir = scratch("missing");
        let error = load(&dir).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains("tokenizer.json") && error.message().contains("vocab.txt"), "{error}");

        std::fs::create_dir(dir.join("tokenizer.json")).unwrap();
        assert!(load(&dir).err().unwrap().message().contains("not a regular file"));
        std::fs::remove_dir(dir.join("tokenizer.json")).unwrap();

        let file = std::fs::File::create(dir.join("tokenizer.json")).unwrap();
        file.set_len(1 << 40).unwrap(); // a hole: no bytes on the disk
        assert!(load(&dir).err().unwrap().message().contains("at most"));
    }
}

#[test]
fn vocab_txt_decodes_and_says_that_it_cannot_encode() {
    let dir = scratch("vocab-txt");
    std::fs::write(dir.join("vocab.txt"), "0\tFour\n1\tĠscore\n2\t\\n\\t\\\\\n5\t<|pad|>\n").unwrap();
    for kind in [Kind::Npy, Kind::HuggingFace] {
        let tokenizer = Tokenizer::from_dir(&dir, kind).unwrap();
        assert_eq!(tokenizer.vocab_size(), 6);
        assert_eq!(tokenizer.decode(&[0, 1, 2, 3, 5, 6]).unwrap(), "Four score\n\t\\<|pad|><UNK>");
        assert_eq!(streamed(&tokenizer, &[1, 1, 7, 4]), " score score<UNK>");
        assert_eq!(tokenizer.token_text(1).unwrap(), " score");
        assert_eq!(tokenizer.token_text(100_000).unwrap(), "<UNK>");
        let error = tokenizer.encode("Four", false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("vocab.txt"), "{error}");
    }
}

/// Tokenizers from the metadata of small GGUF files.
mod metadata {
    use super::*;
    use engine::format::{self, MapMode};
    use std::collections::BTreeMap;

    /// A value as the file has it: its type and its bytes.
    type Entry = (u32, Vec<u8>);

    fn text(text: &str) -> Entry {
        (8, [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat())
    }

    fn id(id: u32) -> Entry {
        (4, id.to_le_bytes().into())
    }

    fn flag(flag: bool) -> Entry {
        (7, vec![flag.into()])
    }

    fn list(element: u32, values: impl IntoIterator<Item = Vec<u8>>) -> Entry {
        let values: Vec<Vec<u8>> = values.into_iter().collect();
        (9, [&element.to_le_bytes()[..], &(values.len() as u64).to_le_bytes(), &values.concat()].concat())
    }

    fn texts(values: &[&str]) -> Entry {
        list(8, values.iter().map(|value| text(value).1))
    }

    fn types(values: &[i32]) -> Entry {
        list(5, values.iter().map(|value| value.to_le_bytes().into()))
    }

    /// Keys after `tokenizer.ggml.`, unless they have a dot.
    struct File(BTreeMap<&'static str, Entry>);

    impl File {
        fn byte_level() -> Self {
            Self(BTreeMap::from([
                ("general.architecture", text("llama")),
                ("model", text("gpt2")),
                ("pre", text("gpt-2")),
                ("tokens", texts(&["a", "b", "Ġ", "ab", "<s>", "<|im_end|>", "日本"])),
                ("token_type", types(&[1, 1, 1, 1, 3, 3, 4])),
                ("merges", texts(&["a b"])),
                ("bos_token_id", id(4)),
                ("eos_token_id", id(4)),
            ]))
        }

        fn sentencepiece() -> Self {
            let pieces = ["<unk>", "<s>", "</s>", "<|end|>", "\u{2581}", "a", "\u{2581}a"];
            Self(BTreeMap::from([
                ("general.architecture", text("llama")),
                ("model", text("llama")),
                ("tokens", texts(&pieces)),
                ("token_type", types(&[2, 3, 3, 3, 1, 1, 1])),
                ("scores", list(6, (0..pieces.len()).map(|at| (-(at as f32)).to_le_bytes().into()))),
            ]))
        }

        fn with(mut self, key: &'static str, value: Entry) -> Self {
            self.0.insert(key, value);
            self
        }

        fn without(mut self, key: &str) -> Self {
            self.0.remove(key);
            self
        }

        fn bytes(&self) -> Vec<u8> {
            let mut bytes = b"GGUF".to_vec();
            bytes.extend(3u32.to_le_bytes());
            bytes.extend(0u64.to_le_bytes());
            bytes.extend((self.0.len() as u64).to_le_bytes());
            for (key, (kind, value)) in &self.0 {
                let key = if key.contains('.') { (*key).to_owned() } else { format!("tokenizer.ggml.{key}") };
                bytes.extend(text(&key).1);
                bytes.extend(kind.to_le_bytes());
                bytes.extend(value);
            }
            bytes
        }

        fn load_as(&self, unknown: UnknownPre) -> Result<Tokenizer, Error> {
            load_bytes(&self.bytes(), unknown)
        }

        fn load(&self) -> Result<Tokenizer, Error> {
            self.load_as(UnknownPre::Refuse)
        }

        fn refuse(&self, kind: ErrorKind, part: &str) {
            let error = self.load().err().unwrap_or_else(|| panic!("{part}: was taken"));
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.message().contains(part) && error.message().contains(".gguf"), "{error}");
        }
    }

    fn load_bytes(bytes: &[u8], unknown: UnknownPre) -> Result<Tokenizer, Error> {
        let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let checkpoint = format::open(file.path(), MapMode::Copy)?;
        Tokenizer::from_gguf(file.path(), checkpoint.metadata.as_ref().unwrap(), unknown)
    }

    /// Every byte changed: an error, or a tokenizer that still does no harm.
    #[test]
    fn damaged_metadata_is_an_error_or_harmless() {
        for whole in [File::byte_level().bytes(), File::sentencepiece().bytes()] {
            for at in 0..whole.len() {
                for change in [1, 0x80] {
                    let mut bytes = whole.clone();
                    bytes[at] ^= change;
                    if let Ok(tokenizer) = load_bytes(&bytes, UnknownPre::Refuse) {
                        let ids = tokenizer.encode("ab a<s>日本é <|end|>\n", true).unwrap_or_default();
                        let _ = tokenizer.decode(&ids);
                    }
                }
            }
        }
    }

    #[test]
    fn byte_level_tokens_of_every_type() {
        let tokenizer = File::byte_level().load().unwrap();
        let ids = tokenizer.encode("ab a<s>日本b<|im_end|>", false).unwrap();
        assert_eq!(ids, [3, 2, 0, 4, 6, 1, 5]);
        assert_eq!(tokenizer.decode(&ids).unwrap(), "ab a日本b");
        assert_eq!(streamed(&tokenizer, &ids), "ab a日本b");
        assert_eq!([4, 6].map(|id| tokenizer.token_text(id).unwrap()), ["<s>", "日本"]);
        // What no token stands for is left out.
        assert_eq!(tokenizer.encode("aéb", false).unwrap(), [0, 1]);
        assert_eq!(tokenizer.bos(), Some(4));
        let ends: Vec<u32> = (0..7).filter(|id| tokenizer.is_end(*id)).collect();
        assert_eq!(ends, [4, 5]);
    }

    #[test]
    fn begin_and_end_are_added_where_the_file_or_the_pre_tokeniser_says() {
        let around = |file: File| file.load().unwrap().encode("a", true).unwrap();
        assert_eq!(around(File::byte_level()), [0]);
        assert_eq!(around(File::byte_level().with("add_bos_token", flag(true))), [4, 0]);
        assert_eq!(around(File::byte_level().with("add_eos_token", flag(true)).with("eos_token_id", id(5))), [0, 5]);
        assert_eq!(around(File::byte_level().with("pre", text("llama-bpe"))), [4, 0]);
        assert_eq!(around(File::byte_level().with("pre", text("llama-bpe")).with("add_bos_token", flag(false))), [0]);
        assert_eq!(around(File::byte_level().with("pre", text("llama-bpe")).without("bos_token_id")), [0]);
        assert_eq!(around(File::sentencepiece()), [1, 6]);
        assert_eq!(around(File::sentencepiece().with("add_bos_token", flag(false))), [6]);
    }

    #[test]
    fn an_unknown_pre_tokeniser_is_refused_unless_asked_otherwise() {
        let unknown = File::byte_level().with("pre", text("somebody-elses"));
        unknown.refuse(ErrorKind::Unsupported, "\"somebody-elses\"");
        assert_eq!(unknown.load_as(UnknownPre::UseDefault).unwrap().encode("ab", false).unwrap(), [3]);
        assert!(File::byte_level().without("pre").load().is_ok());
        File::byte_level().with("pre", id(7)).refuse(ErrorKind::BadFile, "tokenizer.ggml.pre");
    }

    #[test]
    fn sentencepiece_without_a_prefix_and_tokens_that_take_white_space() {
        let ids = |file: File, text: &str| file.load().unwrap().encode(text, false).unwrap();
        assert_eq!(ids(File::sentencepiece(), "<|end|>\n a"), [3, 4, 0, 6]);
        assert_eq!(ids(File::sentencepiece().with("general.name", text("Phi-3 mini")), "<|end|>\n a"), [3, 6]);
        assert_eq!(ids(File::sentencepiece().with("general.name", text("Phi3")), "<s> a"), [1, 4, 6]);
        let gemma = || File::sentencepiece().with("add_space_prefix", flag(false));
        assert_eq!(ids(gemma(), "a a"), [5, 6]);
        assert_eq!(gemma().load().unwrap().decode(&[6, 5]).unwrap(), " aa");
        assert!(File::sentencepiece().load().unwrap().is_end(3));
    }

    #[test]
    fn hostile_metadata_is_refused() {
        for file in [File::byte_level, File::sentencepiece] {
            file().with("bos_token_id", id(7)).refuse(ErrorKind::BadFile, "tokenizer.ggml.bos_token_id is 7");
            file().with("eot_token_id", id(u32::MAX)).refuse(ErrorKind::BadFile, "tokenizer.ggml.eot_token_id is 4294967295");
            file().with("token_type", types(&[1, 1])).refuse(ErrorKind::BadFile, "2 token types for 7 tokens");
            file().with("token_type", types(&[1, 1, 1, 1, 1, 1, 9])).refuse(ErrorKind::BadFile, "type of token 6 is 9");
            file()
                .with("token_type", types(&[1, 1, 1, 1, 1, 1, 6]))
                .refuse(ErrorKind::BadFile, "byte token 6: expected `<0xHH>`");
            file().with("tokens", texts(&["a", "b", "a", "c", "d", "e", "f"])).refuse(ErrorKind::BadFile, "tokens 0 and 2");
            file().with("tokens", texts(&[])).refuse(ErrorKind::BadFile, "token");
            file().with("tokens", types(&[1])).refuse(ErrorKind::BadFile, "tokenizer.ggml.tokens");
            file().with("model", text("t5")).refuse(ErrorKind::Unsupported, "\"t5\"");
            for key in ["model", "tokens", "token_type"] {
                file().without(key).refuse(ErrorKind::BadFile, key);
            }
        }
        File::sentencepiece().without("scores").refuse(ErrorKind::BadFile, "tokenizer.ggml.scores");
        File::byte_level().without("merges").refuse(ErrorKind::BadFile, "tokenizer.ggml.merges");
        File::byte_level().with("merges", texts(&["a b", "ab"])).refuse(ErrorKind::BadFile, "merge 1");
        // Merges that name what is no token make none.
        let odd = File::byte_level().with("merges", texts(&["a b", "x y", "a zzz", "ab Ġ"])).load().unwrap();
        assert_eq!(odd.encode("abxyab a", false).unwrap(), [3, 3, 2, 0]);
    }
}

/// Needs files that are not in the repository.
mod shared {
    use super::*;
    use engine::format::{self, MapMode};
    use std::time::Instant;

    /// A file beside the repository; says so where it is missing.
    fn path(name: &str) -> Option<PathBuf> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(name);
        if !path.exists() {
            eprintln!("skipped: there is no {}", path.display());
            return None;
        }
        Some(path)
    }

    fn gguf(path: &Path) -> Result<Tokenizer, Error> {
        let checkpoint = format::open(path, MapMode::Map).unwrap();
        Tokenizer::from_gguf(path, checkpoint.metadata.as_ref().unwrap(), UnknownPre::Refuse)
    }

    fn llama2() -> Option<(Tokenizer, PathBuf)> {
        let path = path("vocab/ggml-vocab-llama-spm.gguf")?;
        Some((gguf(&path).unwrap(), path))
    }

    fn beside(path: &Path, suffix: &str) -> String {
        std::fs::read_to_string(format!("{}{suffix}", path.display())).unwrap()
    }

    /// Every vocabulary there that has texts and their ids beside it, as llama.cpp keeps them.
    #[test]
    fn texts_become_the_expected_ids() {
        let Some(folder) = path("vocab") else { return };
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|ext| ext != "gguf") {
                continue;
            }
            let tokenizer = gguf(&path).unwrap();
            let (input, output) = (beside(&path, ".inp"), beside(&path, ".out"));
            let texts: Vec<&str> = input.split_terminator("\n__ggml_vocab_test__\n").collect();
            let lines: Vec<&str> = output.lines().collect();
            assert_eq!(texts.len(), lines.len());
            for (text, line) in texts.iter().zip(lines) {
                let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
                assert_eq!(tokenizer.encode(text, false).unwrap(), expected, "{}: {text:?}", path.display());
                assert_eq!(tokenizer.decode(&expected).unwrap(), *text, "{}", path.display());
                assert_eq!(streamed(&tokenizer, &expected), *text, "{}", path.display());
            }
            seen += 1;
        }
        assert!(seen > 0);
    }

    #[test]
    fn special_tokens_are_those_of_the_file() {
        let Some((llama2, _)) = llama2() else { return };
        assert_eq!((llama2.vocab_size(), llama2.bos()), (32000, Some(1)));
        assert!(llama2.is_end(2) && !llama2.is_end(1));
        assert_eq!(llama2.encode("", true).unwrap(), [1]);
        assert_eq!(llama2.token_text(278).unwrap(), " the");
        assert_eq!(llama2.token_text(13).unwrap(), "\n");

        let Some(path) = path("vocab/ggml-vocab-llama-bpe.gguf") else { return };
        let llama3 = gguf(&path).unwrap();
        assert_eq!((llama3.vocab_size(), llama3.bos()), (128_256, Some(128_000)));
        assert!(llama3.is_end(128_001) && llama3.is_end(128_009) && !llama3.is_end(128_000));
        let ids = llama3.encode("<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", true).unwrap();
        assert_eq!(ids, [128_000, 128_006, 882, 128_007, 271, 13_347, 128_009]);
        assert_eq!(llama3.decode(&ids).unwrap(), "user\n\nHi");
        assert_eq!(llama3.token_text(128_009).unwrap(), "<|eot_id|>");
    }

    #[test]
    fn a_megabyte_takes_no_time_to_speak_of() {
        for name in ["llama-spm", "llama-bpe", "gpt-2"] {
            let Some(path) = path(&format!("vocab/ggml-vocab-{name}.gguf")) else { return };
            let tokenizer = gguf(&path).unwrap();
            let text = beside(&path, ".inp");
            let long = |part: &str| part.repeat(1_000_000 / part.len());
            for text in [long(&text), long("a"), long(" "), long("日"), long("\n"), long("!"), long("1"), long("<")] {
                let start = Instant::now();
                let ids = tokenizer.encode(&text, false).unwrap();
                let encoded = start.elapsed();
                assert_eq!(tokenizer.decode(&ids).unwrap(), text);
                println!("{name}: {} bytes: encoded in {encoded:?}, decoded in {:?}", text.len(), start.elapsed() - encoded);
                assert!(encoded.as_secs() < 10, "{encoded:?}"); // quadratic would be hours
            }
        }
    }

    /// The same model as GGUF and as tokenizer.json.
    #[cfg(feature = "tokenizers")]
    #[test]
    fn stories260k_is_the_same_in_both_formats() {
        let (Some(dir), Some(file)) = (path("models/stories260k/hf"), path("models/stories260k/stories260k-f16.gguf")) else {
            return;
        };
        let (json, gguf) = (load(&dir).unwrap(), gguf(&file).unwrap());
        assert_eq!(json.vocab_size(), gguf.vocab_size());
        assert_eq!((json.bos(), gguf.bos()), (Some(1), Some(1)));
        let mut random = Random(11);
        let mut texts: Vec<String> = Vec::new();
        let cases: Value = serde_json::from_slice(&std::fs::read(golden("llama2/cases.json")).unwrap()).unwrap();
        texts.extend(cases["encode"].as_array().unwrap().iter().map(|case| case[0].as_str().unwrap().to_owned()));
        let words = [
            "Once", "upon", " ", "  ", "a", "time", ",", "Lily", "the", "é", "日", "\n", "<s>", "</s>", "<unk>", "ked", "▁",
            "very",
        ];
        for _ in 0..3000 {
            texts.push((0..random.below(25)).map(|_| words[random.below(words.len())]).collect());
            texts.push((0..random.below(25)).map(|_| char::from(97 + random.below(26) as u8)).collect());
        }
        for text in &texts {
            for special in [false, true] {
                let ids = json.encode(text, special).unwrap();
                assert_eq!(gguf.encode(text, special).unwrap(), ids, "{text:?}");
                assert_eq!(gguf.decode(&ids).unwrap(), json.decode(&ids).unwrap(), "{text:?}");
            }
        }
        for _ in 0..3000 {
            let ids: Vec<u32> = (0..random.below(20)).map(|_| random.below(512) as u32).collect();
            assert_eq!(gguf.decode(&ids).unwrap(), json.decode(&ids).unwrap(), "{ids:?}");
            assert_eq!(streamed(&gguf, &ids), json.decode(&ids).unwrap(), "{ids:?}");
        }
        for id in 0..512 {
            assert_eq!(gguf.token_text(id).unwrap(), json.token_text(id).unwrap());
            assert_eq!(gguf.is_end(id), json.is_end(id));
        }
    }
}
