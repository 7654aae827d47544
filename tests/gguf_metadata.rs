//! GGUF metadata that contradicts itself or the tensors is refused by the key or the tensor; the list of what loading promises of any
//! file is in `engine::format`.

mod common;

use common::repository;
use engine::{Error, ErrorKind, LoadOptions, Model};

/// A golden file, to be changed.
struct File(Vec<u8>);

impl File {
    fn of(case: &str) -> Self {
        File(std::fs::read(repository("tests/golden").join(case).join("model.gguf")).unwrap())
    }

    /// Where the value of `key` begins; its type, a u32, is before it.
    fn value(&self, key: &str) -> usize {
        let entry = [&(key.len() as u64).to_le_bytes()[..], key.as_bytes()].concat();
        let at = self.0.windows(entry.len()).position(|bytes| bytes == entry);
        at.unwrap_or_else(|| panic!("no key {key}")) + entry.len() + 4
    }

    fn set(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let at = self.value(key);
        let value = value.as_ref();
        self.0[at..at + value.len()].copy_from_slice(value);
        self
    }

    fn number(self, key: &str, value: u32) -> Self {
        self.set(key, value.to_le_bytes())
    }

    /// Makes the key's value one of another type of the same size.
    fn retyped(mut self, key: &str, value_type: u32) -> Self {
        let at = self.value(key) - 4;
        self.0[at..at + 4].copy_from_slice(&value_type.to_le_bytes());
        self
    }

    fn error(self) -> Error {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, self.0).unwrap();
        let load = || {
            let model = Model::load(&path, LoadOptions { threads: 1, ..LoadOptions::default() })?;
            model.tokenizer().map(|_| ())
        };
        load().expect_err("the file should have been refused")
    }

    fn refused(self, kind: ErrorKind, words: &[&str]) {
        let error = self.error();
        assert_eq!(error.kind(), kind, "{error}");
        for word in words.iter().chain(&["model.gguf"]) {
            assert!(error.message().contains(word), "no {word:?} in {error}");
        }
    }
}

const F32: u32 = 6;
const I32: u32 = 5;

#[test]
fn heads_fit_the_width_and_each_other() {
    let file = || File::of("llama-gguf-f16");
    file().number("llama.attention.head_count", 0).refused(ErrorKind::BadFile, &["heads is 0"]);
    file().number("llama.attention.head_count", 5).refused(ErrorKind::BadFile, &["5 heads"]);
    file().number("llama.attention.head_count_kv", 4).refused(ErrorKind::BadFile, &["6 heads cannot share 4"]);
    file().number("llama.attention.head_count_kv", 0).refused(ErrorKind::BadFile, &["key/value heads is 0"]);
    file().number("llama.embedding_length", 8).refused(ErrorKind::BadFile, &["token_embd.weight"]);
    file().number("llama.feed_forward_length", 8).refused(ErrorKind::BadFile, &["blk.0.ffn_"]);
}

#[test]
fn layers_are_capped_and_all_there() {
    let file = || File::of("llama-gguf-f16");
    file().number("llama.block_count", u32::MAX).refused(ErrorKind::BadFile, &["number of layers is 4294967295"]);
    file().number("llama.block_count", 4096).refused(ErrorKind::BadFile, &["blk.2.", "missing"]);
    file().number("llama.block_count", 1).refused(ErrorKind::Unsupported, &["blk.1.", "no place"]);
    file().number("llama.context_length", 0).refused(ErrorKind::BadFile, &["context length is 0"]);
}

#[test]
fn experts_are_as_many_as_the_tensors_have() {
    let file = || File::of("mixtral-gguf");
    file().number("llama.expert_used_count", 0).refused(ErrorKind::BadFile, &["0 of"]);
    file().number("llama.expert_used_count", 1000).refused(ErrorKind::BadFile, &["1000 of"]);
    file().number("llama.expert_count", 1 << 30).refused(ErrorKind::BadFile, &["experts"]);
    file().number("llama.expert_count", 3).refused(ErrorKind::BadFile, &["ffn_gate_inp.weight"]);
    file().number("llama.expert_count", 0).refused(ErrorKind::BadFile, &["blk.0.ffn_", "missing"]);
}

#[test]
fn values_have_the_type_that_is_asked_for() {
    for key in ["llama.block_count", "llama.embedding_length", "llama.attention.head_count", "llama.context_length"] {
        File::of("llama-gguf-f16").retyped(key, F32).refused(ErrorKind::BadFile, &[key, "integer", "f32"]);
        File::of("llama-gguf-f16").retyped(key, I32).number(key, -1i32 as u32).refused(ErrorKind::BadFile, &[key, "-1"]);
    }
    let key = "llama.attention.layer_norm_rms_epsilon";
    File::of("llama-gguf-f16").retyped(key, I32).refused(ErrorKind::BadFile, &[key, "floating-point"]);
    File::of("llama-gguf-f16").set(key, f32::NAN.to_le_bytes()).refused(ErrorKind::BadFile, &["epsilon", "NaN"]);
    File::of("gemma2-gguf")
        .set("gemma2.attn_logit_softcapping", (-3f32).to_le_bytes())
        .refused(ErrorKind::BadFile, &["cap", "-3"]);
}

#[test]
fn the_vocabulary_has_a_row_for_each_token() {
    // The name of the embedding and of a matrix with other rows, of the same length, exchanged.
    let mut file = File::of("llama-gguf-f16");
    let position = |bytes: &[u8], name: &str| bytes.windows(name.len()).position(|b| b == name.as_bytes()).unwrap();
    let (embedding, up) = (position(&file.0, "token_embd.weight"), position(&file.0, "blk.0.ffn_up.weight"));
    assert_ne!(embedding, up);
    // Its dimensions follow the name: their number, then the row's length and the number of rows.
    let rows = embedding + "token_embd.weight".len() + 4 + 8;
    let n = u64::from_le_bytes(file.0[rows..rows + 8].try_into().unwrap());
    file.0[rows..rows + 8].copy_from_slice(&(n - 1).to_le_bytes());
    file.refused(ErrorKind::BadFile, &["tokenizer.ggml.tokens", &n.to_string(), &(n - 1).to_string()]);
}
