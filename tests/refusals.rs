//! What cannot be run is refused by name: a configuration's option and value, a tensor's name and shape.

use engine::{Error, ErrorKind, LoadOptions, Model};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case).join("model")
}

/// A copy of a golden model, to be changed.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(case: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(golden(case)).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
        }
        Copy(dir)
    }

    /// Sets (or, with `null`, removes) keys of config.json.
    fn config(self, changes: Value) -> Self {
        let path = self.0.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for (key, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => config.as_object_mut().unwrap().remove(key),
                value => config.as_object_mut().unwrap().insert(key.clone(), value.clone()),
            };
        }
        std::fs::write(path, config.to_string()).unwrap();
        self
    }

    fn error(self) -> Error {
        Model::load(self.0.path(), LoadOptions::default()).err().expect("the load should have been refused")
    }
}

/// Loading `case` with `changes` fails as `kind` says, and the sentence holds every one of `words`.
fn refused(case: &str, changes: Value, kind: ErrorKind, words: &[&str]) {
    let error = Copy::of(case).config(changes.clone()).error();
    assert_eq!(error.kind(), kind, "{case} {changes}: {error}");
    for word in words {
        assert!(error.message().contains(word), "{case} {changes}: no {word:?} in {error}");
    }
}

#[test]
fn unsupported_options_are_named_with_their_values() {
    let unsupported = |case, changes, words: &[&str]| refused(case, changes, ErrorKind::Unsupported, words);
    unsupported("llama-mha", json!({"model_type": "mamba"}), &["config.json", "model_type", "mamba", "llama", "gpt2", "olmo2"]);
    unsupported("llama-mha", json!({"hidden_act": "xielu"}), &["config.json", "hidden_act", "xielu"]);
    unsupported("llama-mha", json!({"quantization_config": {"quant_method": "gptq"}}), &["quant_method", "gptq"]);
    unsupported("llama-mha", json!({"rope_parameters": {"rope_type": "ntk"}}), &["rope_parameters.rope_type", "ntk"]);
    unsupported("llama-mha", json!({"rope_parameters": null, "rope_scaling": {"type": "dynamic"}}), &["rope_scaling", "dynamic"]);
    unsupported("llama-mha", json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor", "0.5"]);
    unsupported("gpt2-hub", json!({"add_cross_attention": true}), &["add_cross_attention", "true"]);
    unsupported("gemma-4", json!({"use_bidirectional_attention": true}), &["use_bidirectional_attention", "true"]);
    unsupported("gemma3-4", json!({"attn_logit_softcapping": 50.0}), &["attn_logit_softcapping", "50"]);
    unsupported("falcon-4", json!({"alibi": true}), &["alibi", "true"]);
    let layers = json!({"layer_types": ["full_attention", "chunked_attention"]});
    unsupported("qwen3-4", layers, &["layer_types", "chunked_attention"]);
    unsupported("gpt2-hub", json!({"activation_function": "tanhexp"}), &["activation_function", "tanhexp"]);
}

#[test]
fn broken_configurations_name_the_key() {
    let bad = |changes, words: &[&str]| refused("llama-bias", changes, ErrorKind::BadFile, words);
    bad(json!({"hidden_size": null}), &["config.json", "hidden_size", "missing"]);
    bad(json!({"hidden_size": "wide"}), &["hidden_size", "wide", "whole number"]);
    bad(json!({"num_hidden_layers": -1}), &["num_hidden_layers", "-1"]);
    bad(json!({"num_hidden_layers": 0}), &["number of layers is 0"]);
    bad(json!({"num_attention_heads": 0}), &["heads"]);
    bad(json!({"num_key_value_heads": 2}), &["3 heads", "2 key/value heads"]);
    bad(json!({"head_dim": 15}), &["even", "15"]);
    bad(json!({"rms_norm_eps": -1.0}), &["epsilon", "-1"]);
    bad(json!({"rope_parameters": {"rope_theta": 0.0}}), &["theta"]);
    bad(json!({"rope_parameters": {"rope_type": "linear"}}), &["rope_parameters.factor", "missing"]);
    bad(json!({"vocab_size": 4_000_000_000_000_u64}), &["vocabulary size"]);
}

#[test]
fn broken_options_of_families_name_the_key() {
    let bad = |case, changes, words: &[&str]| refused(case, changes, ErrorKind::BadFile, words);
    bad("mistral-window-4", json!({"sliding_window": 0}), &["window of 0"]);
    bad("mistral-window-4", json!({"sliding_window": "wide"}), &["sliding_window", "wide"]);
    bad("qwen3-4", json!({"layer_types": ["full_attention"]}), &["layer_types", "1 entries", "expected 2"]);
    bad("qwen3-4", json!({"layer_types": ["sliding_attention", "full_attention"]}), &["sliding_window", "missing"]);
    bad("olmo-4", json!({"clip_qkv": -1.0}), &["clip", "-1"]);
    bad("gemma2-4", json!({"attn_logit_softcapping": 0.0}), &["attention soft cap is 0"]);
    bad("granite-4", json!({"logits_scaling": 0.0}), &["logit scale is inf"]);
    bad("smollm3-4", json!({"no_rope_layers": [1]}), &["no_rope_layers", "1 entries"]);
    bad("smollm3-interval", json!({"no_rope_layer_interval": 0}), &["no_rope_layer_interval", "0"]);
    bad("phi3-longrope-4", json!({"partial_rotary_factor": 1.5}), &["partial_rotary_factor", "1.5"]);
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let bad = |changes, words: &[&str]| refused("llama-bias", changes, ErrorKind::BadFile, words);
    bad(json!({"vocab_size": 62}), &["model.embed_tokens.weight", "[61, 30]", "[62, 30]"]);
    bad(json!({"intermediate_size": 29}), &["model.layers.0.mlp.gate_proj.weight", "[29, 30]"]);
    bad(json!({"num_hidden_layers": 3}), &["model.layers.2.", "missing"]);
    // A model without these biases, or with a layer less, has no place for them.
    refused("llama-bias", json!({"mlp_bias": false}), ErrorKind::Unsupported, &["mlp.", ".bias", "no place"]);
    refused("llama-bias", json!({"num_hidden_layers": 1}), ErrorKind::Unsupported, &["model.layers.1.", "more like it"]);
    refused("llama-mha", json!({"attention_bias": true}), ErrorKind::BadFile, &["self_attn.q_proj.bias", "missing"]);
}

#[test]
fn experts_that_do_not_fit_are_named() {
    let bad = |case, changes, words: &[&str]| refused(case, changes, ErrorKind::BadFile, words);
    for n in [4, 6] {
        let (found, expected) = ("[5, 24]", format!("[{n}, 24]"));
        bad("mixtral-4", json!({"num_local_experts": n}), &["layers.0.block_sparse_moe.gate.weight", found, &expected]);
    }
    bad("mixtral-4", json!({"num_experts_per_tok": 0}), &["0 of 5 experts"]);
    bad("mixtral-4", json!({"num_experts_per_tok": 6}), &["6 of 5 experts"]);
    bad("mixtral-4", json!({"num_local_experts": 70_000}), &["of 70000 experts"]);
    bad("qwen3-moe-4", json!({"moe_intermediate_size": 12}), &["mlp.experts.0.gate_proj.weight", "[11, 24]", "[12, 24]"]);
    bad("qwen3-moe-4", json!({"decoder_sparse_step": 0}), &["decoder_sparse_step", "0"]);
    bad("qwen3-moe-4", json!({"mlp_only_layers": [0]}), &["layers.0.mlp.gate_proj.weight", "missing"]);
}

/// An expert that has another number in the file.
#[test]
fn missing_experts_are_named() {
    let copy = Copy::of("mixtral-4");
    let path = copy.0.path().join("model.safetensors");
    let (mut bytes, from) = (std::fs::read(&path).unwrap(), b"experts.3.w2.weight");
    let at = bytes.windows(from.len()).position(|w| w == from).expect("the tensor is there");
    bytes[at + "experts.".len()] = b'9';
    std::fs::write(path, bytes).unwrap();
    let error = copy.error();
    assert_eq!(error.kind(), ErrorKind::BadFile, "{error}");
    assert!(error.message().contains("experts.3.w2.weight is missing"), "{error}");
}

#[test]
fn paths_that_hold_no_model_say_what_was_found() {
    let empty = tempfile::tempdir().unwrap();
    let text = empty.path().join("notes.txt");
    for (path, kind) in [
        (empty.path().to_owned(), ErrorKind::NotFound),
        (empty.path().join("nothing"), ErrorKind::NotFound),
        (PathBuf::from("/dev/null"), ErrorKind::BadFile),
        (PathBuf::new(), ErrorKind::NotFound),
    ] {
        let error = Model::load(&path, LoadOptions::default()).err().expect("no model is there");
        assert_eq!(error.kind(), kind, "{}: {error}", path.display());
        assert!(error.message().contains(&*path.to_string_lossy()), "{error}");
    }
    std::fs::write(&text, "not a model").unwrap();
    let error = Model::load(&text, LoadOptions::default()).err().expect("no model is there");
    assert!(error.message().contains("notes.txt"), "{error}");
}

#[test]
fn a_cancelled_load_says_so() {
    let mut calls = 0;
    let mut progress = |fraction: f32| {
        calls += 1;
        assert!((0.0..=1.0).contains(&fraction));
        calls < 3
    };
    let options = LoadOptions { progress: Some(&mut progress), ..LoadOptions::default() };
    let error = Model::load(golden("llama-mha"), options).err().expect("cancelled");
    assert_eq!((error.kind(), calls), (ErrorKind::Cancelled, 3));
}
