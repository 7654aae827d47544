//! Layers that see only a window of the last tokens: forks and truncation across its edge give the same bits, what is out of sight
//! is let go, and what was let go cannot be asked for. And mixtures of experts read the weights of the chosen alone.

mod common;

use common::{chunked, golden, load, new_cache, repository, same_bits, step, step_all};
use engine::{Cache, CacheOptions, ErrorKind, LoadOptions, Model};
use safetensors::SafeTensors;
use serde_json::Value;
use std::sync::Arc;

/// Windows of 20 tokens in all layers, or in some; the prompts have 150 to 207 tokens: several windows, and several blocks of 64.
const WINDOWED: &[&str] = &[
    "mistral-window-5",
    "gemma2-4",
    "gemma3-5",
    "olmo3-4",
    "phi3-window-4",
    "qwen2-window-5",
    "smollm3-window-5",
    "mixtral-window-5",
];
const WINDOW: usize = 20;

fn cache(model: &Arc<Model>, rewind_tokens: usize) -> Cache {
    model.new_cache(&CacheOptions { rewind_tokens, ..CacheOptions::default() }).unwrap()
}

/// The copy of a golden model whose config.json has other `keys`.
fn changed(case: &str, keys: &[(&str, Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(repository("tests/golden").join(case).join("model")).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    keys.iter().for_each(|(key, value)| config[key] = value.clone());
    std::fs::write(&path, config.to_string()).unwrap();
    dir
}

/// Mistral with windows in every layer, and room for 40,000 tokens.
fn long() -> Arc<Model> {
    let dir = changed("mistral-window-4", &[("max_position_embeddings", 40_000.into())]);
    load(dir.path(), None, 2)
}

fn some_tokens(model: &Model, n: usize) -> Vec<u32> {
    (0..n).map(|i| (i * i % 8191 % model.vocab_size()) as u32).collect()
}

#[test]
fn forks_across_the_edge() {
    for case in WINDOWED {
        let (path, tokens) = golden(case);
        let model = load(&path, None, 2);
        let vocab = model.vocab_size();
        let want = chunked(&model, &tokens, &[1]);
        for at in [WINDOW - 1, WINDOW, 63, 64, 65, 64 + WINDOW, 128] {
            let mut original = cache(&model, 1);
            step_all(&mut original, &tokens[..at.min(16)]);
            tokens[at.min(16)..at].chunks(16).for_each(|t| drop(step_all(&mut original, t)));
            let mut fork = original.fork().unwrap();
            // The original goes on and lets blocks go; the fork still sees its own past.
            for (t, &token) in tokens.iter().enumerate().skip(at) {
                assert!(same_bits(&step(&mut original, &[token]), &want[t * vocab..][..vocab]), "{case}, forked at {at}, {t}");
            }
            for (t, &token) in tokens.iter().enumerate().skip(at) {
                assert!(same_bits(&step(&mut fork, &[token]), &want[t * vocab..][..vocab]), "{case}, the fork from {at}, {t}");
            }
        }
    }
}

#[test]
fn truncation_goes_back_as_far_as_was_asked_for() {
    for case in WINDOWED {
        let (path, tokens) = golden(case);
        let model = load(&path, None, 2);
        let vocab = model.vocab_size();
        let want = chunked(&model, &tokens, &[1]);
        for rewind in [1, 17, 64, 100] {
            let mut cache = cache(&model, rewind);
            for end in [90, 128, tokens.len()] {
                tokens[cache.len()..end].chunks(16).for_each(|t| drop(step_all(&mut cache, t)));
                let back = end - rewind.min(end);
                cache.truncate(back).unwrap_or_else(|e| panic!("{case}, {rewind} back from {end}: {e}"));
                for t in back..end {
                    let got = step(&mut cache, &tokens[t..=t]);
                    assert!(same_bits(&got, &want[t * vocab..][..vocab]), "{case}, {rewind} back from {end}, token {t}");
                }
            }
        }
    }
}

#[test]
fn what_was_let_go_cannot_be_asked_for() {
    let model = long();
    let tokens = some_tokens(&model, 1000);
    let mut cache = cache(&model, 1);
    step(&mut cache, &tokens);
    let before = cache.fork().unwrap();
    let error = cache.truncate(100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadArgument);
    let words: Vec<&str> = error.message().split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    assert!(words.contains(&"100") && words.contains(&"rewind_tokens"), "{error}");
    let least = words.iter().skip_while(|w| **w != "least").find_map(|w| w.parse::<usize>().ok()).unwrap();
    assert!(least < 1000 && cache.truncate(least - 1).is_err(), "{error}");
    assert_eq!(cache.len(), 1000, "nothing has changed");
    assert!(same_bits(&step(&mut cache, &tokens[..1]), &step(&mut before.fork().unwrap(), &tokens[..1])));
    // The least itself is possible, and so is starting again.
    cache.truncate(least).unwrap();
    step(&mut cache, &tokens[least..]);
    cache.truncate(0).unwrap();
    assert!(same_bits(&step(&mut cache, &tokens[..9]), &step(&mut new_cache(&model), &tokens[..9])));
}

/// 2 layers, 2 (k, v) × 2 kv heads × 8 elements × 4 bytes: a block of 64 tokens has 32 KiB. Behind a step there are the blocks
/// that hold the window and what truncation may take back (84 positions: at most 3 blocks), and one spare. While a step of any
/// length runs, [`engine::model::MAX_CHUNK`] tokens more.
#[test]
fn memory_is_bounded_by_the_window() {
    let model = long();
    let info = model.info();
    let block = info.n_layers * 2 * info.n_kv_heads * info.head_dim * 4 * 64;
    let tokens = some_tokens(&model, 32_768);
    let mut windowed = new_cache(&model);
    for part in tokens.chunks(4096) {
        step(&mut windowed, part);
        assert!(windowed.kv_bytes() <= 4 * block, "{} bytes at {} tokens", windowed.kv_bytes(), windowed.len());
    }
    for token in &tokens[..200] {
        step(&mut windowed, &[*token]);
        assert!(windowed.kv_bytes() <= 4 * block, "{} bytes at {} tokens", windowed.kv_bytes(), windowed.len());
    }
    // The same model without its window keeps everything.
    let dir = changed("mistral-window-4", &[("max_position_embeddings", 40_000.into()), ("sliding_window", Value::Null)]);
    let mut whole = new_cache(&load(dir.path(), None, 2));
    step(&mut whole, &tokens[..4096]);
    assert_eq!(whole.kv_bytes(), 64 * block);
}

/// A step that is cancelled after it has let go of blocks of its own leaves those that were there before it.
#[test]
fn a_cancelled_step_keeps_the_window() {
    let model = long();
    let tokens = some_tokens(&model, 38_000);
    let mut cache = new_cache(&model);
    step(&mut cache, &tokens[..300]);
    let reference = cache.fork().unwrap();
    let canceller = cache.canceller();
    let mut cancelled = false;
    for wait in 1..200 {
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(wait));
                canceller.cancel();
            });
            cache.step(&tokens[300..], None)
        });
        match result {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
            Ok(()) => break, // this machine is faster than so many milliseconds
        }
        cancelled = true;
        assert_eq!(cache.len(), 300);
        let back = |cache: &Cache| {
            let mut fork = cache.fork().unwrap();
            fork.truncate(300 - 64).unwrap();
            step_all(&mut fork, &tokens[300 - 64..][..10])
        };
        assert!(same_bits(&back(&cache), &back(&reference)), "after {wait} ms");
        if wait > 20 {
            break;
        }
    }
    assert!(cancelled, "no step was slow enough to be cancelled");
}

/// Weights of experts that no token is sent to are not touched: here they are not numbers.
#[test]
fn experts_that_are_not_chosen_are_not_read() {
    let dir = changed("mixtral-4", &[]);
    let path = dir.path().join("model.safetensors");
    let (bytes, (_, tokens)) = (std::fs::read(&path).unwrap(), golden("mixtral-4"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut spoiled = 0;
    let tensors = file.iter().map(|(name, view)| {
        let mut data = view.data().to_vec();
        if name.contains(".experts.1.") {
            data.chunks_exact_mut(4).for_each(|x| x.copy_from_slice(&f32::NAN.to_le_bytes()));
            spoiled += 1;
        }
        (
            name.to_owned(),
            safetensors::tensor::TensorView::new(view.dtype(), view.shape().to_vec(), Box::leak(data.into_boxed_slice()))
                .unwrap(),
        )
    });
    let tensors: Vec<_> = tensors.collect();
    assert!(spoiled >= 3, "no experts were found");
    std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let spoiled = Model::load(dir.path(), LoadOptions { threads: 2, ..LoadOptions::default() }).unwrap();
    let whole = load(&golden("mixtral-4").0, None, 2);
    let finite = tokens.iter().filter(|&&token| {
        let (got, want) = (step(&mut new_cache(&spoiled), &[token]), step(&mut new_cache(&whole), &[token]));
        let finite = got.iter().all(|x| x.is_finite());
        assert!(!finite || same_bits(&got, &want));
        finite
    });
    let (finite, all) = (finite.count(), tokens.len());
    assert!(finite > 0 && finite < all, "{finite} of {all} tokens pass by the expert");
}
