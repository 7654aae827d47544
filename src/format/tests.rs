//! The promises in the module's table, each broken on purpose; and hostile files by the thousand.
#![forbid(unsafe_code)]

mod find;
mod gguf_files;
mod hostile;
mod npy_files;
mod oracle;
mod safetensors_files;

use super::*;
use std::path::Path;

/// The error's sentence contains each of `parts`.
#[track_caller]
fn refused<T>(result: Result<T>, parts: &[&str]) {
    match result {
        Ok(_) => panic!("accepted; expected an error with {parts:?}"),
        Err(error) => assert!(parts.iter().all(|part| error.message().contains(part)), "{error}\nexpected {parts:?}"),
    }
}

/// `n` float32s, 0, 1, 2…
fn floats(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

/// The folder of real models beside this crate, where there is one.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(name);
    if !path.exists() {
        eprintln!("skipped: there is no ../shared/{name}");
        return None;
    }
    Some(path)
}

#[test]
fn real_models_open() {
    let Some(dir) = shared("models/stories260k") else { return };
    for mode in [MapMode::Map, MapMode::Copy, MapMode::Guarded] {
        let hf = open(&dir.join("hf"), mode).unwrap();
        assert_eq!((hf.kind, hf.tensors.len()), (Kind::HuggingFace, 47));
        assert_eq!(hf.tensor("model.embed_tokens.weight").unwrap().shape, [512, 64]);
        assert_eq!(hf.config.unwrap()["model_type"], "llama");
        for (name, dtype) in [("stories260k-f32.gguf", DType::F32), ("stories260k-f16.gguf", DType::F16)] {
            let gguf = open(&dir.join(name), mode).unwrap();
            assert_eq!((gguf.kind, gguf.tensors.len(), &gguf.dir), (Kind::Gguf, 47, &dir));
            assert_eq!(gguf.tensor("blk.0.ffn_down.weight").unwrap().shape, [64, 172]);
            assert_eq!(gguf.tensor("token_embd.weight").unwrap().dtype, dtype);
            let metadata = gguf.metadata.as_ref().unwrap();
            assert_eq!(metadata.get_str("general.architecture").unwrap(), Some("llama"));
            assert_eq!(metadata.str_array("tokenizer.ggml.tokens").unwrap().unwrap().len(), 512);
            gguf.check().unwrap();
        }
    }
}

/// The two files of the same model hold the same numbers, where no order differs.
#[test]
fn real_models_agree() {
    let Some(dir) = shared("models/stories260k") else { return };
    let hf = open(&dir.join("hf"), MapMode::Map).unwrap();
    let gguf = open(&dir.join("stories260k-f32.gguf"), MapMode::Map).unwrap();
    let pairs =
        [("model.embed_tokens.weight", "token_embd.weight"), ("model.layers.3.mlp.up_proj.weight", "blk.3.ffn_up.weight")];
    for (a, b) in pairs {
        assert_eq!(&hf.tensor(a).unwrap().data[..], &gguf.tensor(b).unwrap().data[..], "{a}");
    }
}

#[test]
fn real_vocabularies_open() {
    let Some(dir) = shared("vocab") else { return };
    for (name, model, n_tokens) in [("gpt-2", "gpt2", 50257), ("llama-bpe", "gpt2", 128256), ("llama-spm", "llama", 32000)] {
        let gguf = open(&dir.join(format!("ggml-vocab-{name}.gguf")), MapMode::Map).unwrap();
        assert!(gguf.tensors.is_empty());
        let metadata = gguf.metadata.unwrap();
        assert_eq!(metadata.get_str("tokenizer.ggml.model").unwrap(), Some(model));
        assert_eq!(metadata.str_array("tokenizer.ggml.tokens").unwrap().unwrap().len(), n_tokens);
        assert_eq!(metadata.i32_array("tokenizer.ggml.token_type").unwrap().unwrap().len(), n_tokens);
    }
}
