//! Memory told before loading is what loading and stepping then take.

mod common;

use common::{golden, new_cache, repository, step};
use engine::format::MapMode;
use engine::{LoadOptions, Model, Weights};

#[test]
fn estimates_are_what_models_take() {
    for case in
        ["gpt2-hub", "llama-mha", "llama-gqa-sharded", "gemma3-5", "mixtral-4", "llama-gguf-f16", "olmo2-npy", "gpt2-gguf"]
    {
        let (path, tokens) = golden(case);
        for (weights, mapping) in [(Weights::Keep, MapMode::Map), (Weights::Keep, MapMode::Copy), (Weights::Bf16, MapMode::Map)] {
            let options = || LoadOptions { weights, mapping, threads: 1, ..LoadOptions::default() };
            let told = Model::estimate(&path, &options()).unwrap();
            let model = Model::load(&path, options()).unwrap();
            let total = told.weights_mapped + told.weights_packed;
            assert_eq!(total, model.info().weight_bytes, "{case}, {weights:?}, {mapping:?}");
            // What is converted is no longer mapped; one of these files is bf16 already.
            let mapped = mapping == MapMode::Map && (weights == Weights::Keep || case == "gemma3-5");
            assert_eq!(told.weights_mapped > 0, mapped, "{case}, {weights:?}, {mapping:?}");
            let mut cache = new_cache(&model);
            for part in tokens.chunks(16) {
                step(&mut cache, part);
            }
            let blocks = tokens.len().next_multiple_of(64) as u64;
            let most = told.cache_per_1000_tokens * blocks / 1000 + told.cache_windows;
            let held = cache.kv_bytes() as u64;
            assert!(held <= most, "{case}: {held} bytes, told {most}");
            assert!(told.cache_windows > 0 || held == most, "{case}: {held} bytes, told {most}");
        }
    }
}

#[test]
fn an_estimate_refuses_what_loading_refuses() {
    let error = |path: &str| Model::estimate(repository(path), &LoadOptions::default()).unwrap_err();
    assert!(error("tests/golden/no-such-model").message().contains("no-such-model"));
    assert!(error("src").message().contains("src"));
}
