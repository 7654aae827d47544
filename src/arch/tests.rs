//! What the families read from configs as they lie on the hub, and from those that lack a key.
#![forbid(unsafe_code)]

use super::rope::Scaling;
use super::{Residual, Spec, identify};
use crate::error::{ErrorKind, Result};
use crate::format::testing::{Gguf, TempDir};
use crate::format::{self, Checkpoint, Kind, MapMode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The spec of a config with `keys`, and with sizes where they are not given.
fn read(model_type: &str, keys: Value) -> Result<Spec> {
    let mut config = json!({
        "model_type": model_type, "vocab_size": 1000, "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 8,
        "num_attention_heads": 16, "max_position_embeddings": 32768,
    });
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let path = PathBuf::from("model");
    let config = Some(config);
    let (tensors, skipped, files) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let source = Checkpoint { kind: Kind::HuggingFace, dir: path.clone(), path, config, metadata: None, tensors, skipped, files };
    identify(&source).map(|(spec, _)| spec)
}

fn spec(model_type: &str, keys: Value) -> Spec {
    read(model_type, keys).unwrap_or_else(|e| panic!("{model_type}: {e}"))
}

fn windows(spec: &Spec) -> Vec<Option<usize>> {
    spec.layers.iter().map(|layer| layer.window).collect()
}

#[test]
fn a_missing_window_is_4096_and_null_is_none() {
    let every = |n: usize, full: usize| -> Vec<_> { (1..=n).map(|i| (i % full != 0).then_some(4096)).collect() };
    for (family, expected) in [
        ("mistral", every(8, 100)),
        ("gemma2", every(8, 2)),
        ("gemma3_text", every(8, 6)),
        ("olmo3", every(8, 4)),
        ("cohere2", every(8, 4)),
        ("mixtral", vec![None; 8]),
        ("phi3", vec![None; 8]),
        ("qwen3", vec![None; 8]),
    ] {
        assert_eq!(windows(&spec(family, json!({}))), expected, "{family}");
        assert_eq!(windows(&spec(family, json!({"sliding_window": null}))), [None; 8], "{family}");
    }
    let qwen = json!({"use_sliding_window": true, "max_window_layers": 7});
    assert_eq!(windows(&spec("qwen2", qwen.clone()))[6..], [None, Some(4096)]);
    assert_eq!(windows(&spec("qwen3_moe", qwen)), [Some(4096); 8]);
}

#[test]
fn a_window_as_long_as_the_context_is_none() {
    let phi = |window: usize| windows(&spec("phi3", json!({"sliding_window": window})))[0];
    assert_eq!((phi(262_144), phi(32_768), phi(32_767)), (None, None, Some(32_767)));
}

#[test]
fn missing_keys_mean_what_transformers_takes_them_for() {
    let gemma2 = spec("gemma2", json!({}));
    assert_eq!((gemma2.attention_softcap, gemma2.logit_softcap), (Some(50.0), Some(30.0)));
    let none = spec("gemma2", json!({"attn_logit_softcapping": null, "final_logit_softcapping": null}));
    assert_eq!((none.attention_softcap, none.logit_softcap), (None, None));
    assert_eq!(spec("gemma3_text", json!({})).logit_softcap, None);

    let theta = |family, keys| spec(family, keys).ropes[0].theta;
    assert_eq!(theta("cohere", json!({})), 500_000.0);
    assert_eq!(theta("cohere2", json!({})), 10_000.0);
    assert_eq!(theta("mixtral", json!({})), 1e6);
    assert_eq!(theta("gpt_neox", json!({"rotary_emb_base": 5000})), 5000.0);
    assert_eq!(theta("gpt_neox", json!({"rotary_emb_base": 5000, "rope_parameters": {"rope_theta": 7000.0}})), 7000.0);

    for (family, eps) in [("mixtral", 1e-5), ("olmoe", 1e-5), ("olmo2", 1e-5), ("phi3", 1e-5), ("qwen2", 1e-6), ("llama", 1e-6)] {
        assert_eq!(spec(family, json!({})).norm_eps, eps, "{family}");
    }
    for (family, head_dim) in [("qwen3", 128), ("qwen3_moe", 64), ("gemma", 256), ("llama", 64)] {
        assert_eq!(spec(family, json!({})).head_dim, head_dim, "{family}");
    }
}

/// Of two objects transformers takes `rope_scaling`, if it has any key.
#[test]
fn rope_scaling_comes_before_rope_parameters() {
    let both = json!({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "default"}});
    assert_eq!(spec("llama", both).ropes[0].scaling, Scaling::Linear { factor: 2.0 });
    let empty = json!({"rope_scaling": {}, "rope_parameters": {"rope_type": "default", "rope_theta": 77.0}});
    assert_eq!(spec("llama", empty).ropes[0].theta, 77.0);
}

#[test]
fn a_part_of_a_head_is_refused_where_all_of_it_turns() {
    let nested = json!({"rope_parameters": {"full_attention": {"rope_type": "default", "partial_rotary_factor": 0.5}}});
    for family in ["gemma3_text", "olmo3"] {
        let error = read(family, nested.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.message().contains("rope_parameters.full_attention.partial_rotary_factor = 0.5"), "{error}");
    }
}

#[test]
fn angles_that_are_no_numbers_are_refused() {
    for settings in [
        json!({"rope_type": "linear", "factor": 1e-310}),
        json!({"rope_theta": 5e-324}),
        json!({"rope_type": "yarn", "factor": 2.0, "attention_factor": 1e300}),
    ] {
        let error = read("llama", json!({"rope_parameters": settings})).unwrap_err();
        assert!(error.kind() == ErrorKind::BadFile && error.message().contains("rope"), "{error}");
    }
}

#[test]
fn the_first_falcon_files() {
    let keys = |n_head_kv: Value| json!({"n_head": 16, "n_layer": 2, "n_head_kv": n_head_kv, "parallel_attn": true});
    let large = spec("RefinedWeb", keys(json!(8)));
    assert_eq!((large.n_kv_heads, large.residual), (8, Residual::Parallel));
    let small = spec("RefinedWebModel", keys(Value::Null));
    assert_eq!((small.n_kv_heads, small.residual), (1, Residual::ParallelSharedNorm));
}

#[test]
fn command_r_runs_as_far_as_its_files_say() {
    let context = |keys| spec("cohere", keys).context_length;
    assert_eq!(context(json!({"max_position_embeddings": 8192, "model_max_length": 131_072})), 131_072);
    assert_eq!(context(json!({"max_position_embeddings": 8192})), 8192);
}

/// A GGUF file of `architecture` with sizes and `keys`: name, type and bytes of each.
fn gguf(architecture: &str, keys: &[(&str, u32, &[u8])]) -> Result<Spec> {
    let mut file = Gguf::new().entry("general.architecture", 8, &format::testing::gguf_string(architecture));
    let key = |name: &str| format!("{architecture}.{name}");
    for (name, value) in [
        ("embedding_length", 64u32),
        ("block_count", 4),
        ("attention.head_count", 4),
        ("context_length", 32_768),
        ("feed_forward_length", 64),
    ] {
        file = file.entry(&key(name), 4, &value.to_le_bytes());
    }
    file = file.entry(&key("attention.layer_norm_rms_epsilon"), 6, &1e-6f32.to_le_bytes());
    for (name, kind, value) in keys {
        file = file.entry(&key(name), *kind, value);
    }
    let file = file.tensor("token_embd.weight", &[64, 2], 0, &[0; 64 * 2 * 4]);
    let dir = TempDir::new();
    let path = dir.write("model.gguf", &file.build());
    identify(&format::open(&path, MapMode::Map)?).map(|(spec, _)| spec)
}

#[test]
fn gemma_2_files_from_before_its_keys() {
    let first = gguf("gemma2", &[]).unwrap();
    assert_eq!((first.attention_softcap, first.logit_softcap), (Some(50.0), Some(30.0)));
    assert_eq!(windows(&first), [Some(4096), None, Some(4096), None]);
    let later = gguf("gemma2", &[("attention.sliding_window", 4, &512u32.to_le_bytes())]).unwrap();
    assert_eq!(windows(&later), [Some(512), None, Some(512), None]);
    assert_eq!(windows(&gguf("gemma3", &[]).unwrap()), [None; 4]);
}

#[test]
fn metadata_that_no_family_here_uses_is_refused_by_name() {
    let (one, two) = (1u32.to_le_bytes(), 2u32.to_le_bytes());
    let (some, none) = (0.5f32.to_le_bytes(), 0f32.to_le_bytes());
    let refused: [(&str, u32, &[u8]); 6] = [
        ("attention.causal", 7, &[0]),
        ("attention.max_alibi_bias", 6, &some),
        ("rope.scaling.yarn_log_multiplier", 6, &some),
        ("expert_weights_scale", 6, &some),
        ("expert_gating_func", 4, &two),
        ("expert_shared_count", 4, &one),
    ];
    for key in refused {
        let error = gguf("llama", &[key]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.message().contains(&format!("llama.{} =", key.0)), "{error}");
    }
    let taken: [(&str, u32, &[u8]); 4] = [
        ("attention.causal", 7, &[1]),
        ("attention.max_alibi_bias", 6, &none),
        ("expert_weights_scale", 6, &none),
        ("expert_gating_func", 4, &one),
    ];
    gguf("llama", &taken).unwrap();
}
