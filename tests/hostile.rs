//! Every key of a config.json or of GGUF metadata with values that it should never have: no panic, no large allocation, no long
//! wait; an error is one of a few kinds and names the file. What loads all the same also steps.

mod common;

use common::{golden, repository};
use engine::{CacheOptions, ErrorKind, LoadOptions, Model};
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The largest allocation so far.
struct Largest;
static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is the system's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Largest = Largest;

/// One test at a time: they measure.
static ALONE: Mutex<()> = Mutex::new(());

const MOST_BYTES: usize = 64 << 20;
const LONGEST: Duration = Duration::from_millis(100);

/// Loads and, where that is possible, steps; what went wrong that never may.
fn attempt(path: &Path, tokens: &[u32]) -> Result<(), String> {
    let mut took = Duration::MAX;
    let mut outcome = Ok(());
    LARGEST.store(0, Ordering::Relaxed);
    // The best of three: this machine may be busy with something else.
    for _ in 0..3 {
        let start = Instant::now();
        let loaded = catch_unwind(|| Model::load(path, LoadOptions { threads: 1, ..LoadOptions::default() }));
        took = took.min(start.elapsed());
        outcome = match loaded {
            Err(_) => Err("the load panicked".into()),
            Ok(Err(error)) => match error.kind() {
                ErrorKind::BadFile | ErrorKind::Unsupported if error.message().contains(&*path.to_string_lossy()) => Ok(()),
                kind => Err(format!("{kind:?}: {error}")),
            },
            Ok(Ok(model)) => catch_unwind(AssertUnwindSafe(|| {
                let max_tokens = model.context_length().min(tokens.len());
                let tokens: Vec<u32> = tokens.iter().map(|t| t % model.vocab_size() as u32).take(max_tokens).collect();
                let mut cache =
                    model.new_cache(&CacheOptions { max_tokens, ..CacheOptions::default() }).map_err(|e| e.to_string())?;
                let (first, rest) = tokens.split_at(tokens.len().min(2));
                cache.step(first, None).and_then(|()| cache.step(rest, None)).map_err(|e| format!("the step failed: {e}"))
            }))
            .unwrap_or_else(|_| Err("the step panicked".into())),
        };
        if outcome.is_err() || took < LONGEST {
            break;
        }
    }
    outcome?;
    let largest = LARGEST.load(Ordering::Relaxed);
    match (largest > MOST_BYTES, took > LONGEST) {
        (true, _) => Err(format!("an allocation of {largest} bytes")),
        (_, true) => Err(format!("it took {took:?}")),
        _ => Ok(()),
    }
}

/// Options that some family reads, whatever the case's own config has.
const KEYS: &[&str] = &[
    "head_dim",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "sliding_window",
    "layer_types",
    "use_sliding_window",
    "max_window_layers",
    "sliding_window_pattern",
    "clip_qkv",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "rope_local_base_freq",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "no_rope_layers",
    "no_rope_layer_interval",
    "embedding_multiplier",
    "residual_multiplier",
    "attention_multiplier",
    "logits_scaling",
    "logit_scale",
    "rotary_pct",
    "rotary_emb_base",
    "num_kv_heads",
    "ffn_hidden_size",
    "n_inner",
    "num_experts",
    "num_local_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "mlp_only_layers",
    "decoder_sparse_step",
    "quantization_config",
    "num_ln_in_parallel_attn",
    "tie_word_embeddings",
];

fn values(key: &str) -> Vec<Value> {
    let mut values = vec![
        json!(null),
        json!(true),
        json!("text"),
        json!([]),
        json!({}),
        json!([null]),
        json!(-1),
        json!(0),
        json!(1),
        json!(3),
        json!(1_u64 << 29),
        json!(u64::MAX),
        json!(0.5),
        json!(-0.5),
        json!(5e-324),
        json!(1e39),
    ];
    match key {
        "mlp_only_layers" | "no_rope_layers" => values.push(json!(vec![1; 200_000])),
        "layer_types" => values.push(json!(vec!["full_attention"; 100_000])),
        "rope_scaling" | "rope_parameters" => {
            for kind in ["linear", "llama3", "yarn", "longrope", "default"] {
                for number in [0.0, -1.0, 1e-320, 1e300] {
                    values.push(json!({
                        "rope_type": kind, "factor": number, "low_freq_factor": number, "high_freq_factor": 2.0 * number,
                        "original_max_position_embeddings": number, "short_factor": [number], "long_factor": [number],
                        "rope_theta": number, "beta_fast": number, "attention_factor": number,
                    }));
                }
            }
        }
        _ => (),
    }
    values
}

/// Keys that no load reads.
const UNREAD: &[&str] = &[
    "_token_id",
    "dropout",
    "pdrop",
    "initializer",
    "use_cache",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "architectures",
    "summary_",
    "router_aux",
    "output_router",
    "cache_impl",
];

/// A case of each family with a config.json.
fn families() -> BTreeMap<String, String> {
    let mut cases = BTreeMap::new();
    for entry in std::fs::read_dir(repository("tests/golden")).unwrap() {
        let folder = entry.unwrap().path();
        if let Ok(text) = std::fs::read(folder.join("model/config.json")) {
            let config: Value = serde_json::from_slice(&text).unwrap();
            let case = folder.file_name().unwrap().to_str().unwrap().to_owned();
            cases.insert(config["model_type"].as_str().unwrap().to_owned(), case);
        }
    }
    assert!(cases.len() > 20, "{cases:?}");
    cases
}

fn report(wrong: Vec<String>) {
    drop(std::panic::take_hook());
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}

#[test]
fn configs() {
    let _alone = ALONE.lock();
    std::panic::set_hook(Box::new(|_| ()));
    let mut wrong = Vec::new();
    for case in families().values() {
        let (path, tokens) = golden(case);
        let dir = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_name() != "config.json" {
                std::os::unix::fs::symlink(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
        }
        let config: Value = serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap();
        let keys = config.as_object().unwrap().keys().map(String::as_str).filter(|key| !UNREAD.iter().any(|u| key.contains(u)));
        let keys: Vec<&str> = keys.chain(KEYS.iter().copied().filter(|key| config.get(key).is_none())).collect();
        for (key, value) in keys.into_iter().flat_map(|key| values(key).into_iter().map(move |value| (key, value))) {
            let mut config = config.clone();
            config[key] = value.clone();
            std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
            if let Err(what) = attempt(dir.path(), &tokens[..40]) {
                let value: String = value.to_string().chars().take(200).collect();
                wrong.push(format!("{case}: {key} = {value}: {what}"));
            }
        }
    }
    report(wrong);
}

/// A value of each type of GGUF metadata, as its type and bytes.
fn gguf_values() -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = Vec::new();
    let mut push = |kind: u32, bytes: &[u8]| values.push([&kind.to_le_bytes(), bytes].concat());
    for byte in [0u8, 1, 255] {
        push(0, &[byte]);
        push(7, &[byte]);
        push(1, &[byte]);
    }
    for n in [0, 1, 3, 1 << 29, u32::MAX] {
        push(4, &n.to_le_bytes());
        push(5, &n.to_le_bytes());
    }
    for x in [0.0, 1.0, -1.0, 1e-45, f32::MAX, f32::NAN, f32::INFINITY] {
        push(6, &x.to_le_bytes());
    }
    for n in [0, u64::MAX, 1 << 40] {
        push(10, &n.to_le_bytes());
        push(11, &n.to_le_bytes());
    }
    push(12, &f64::MAX.to_le_bytes());
    push(8, &[&4u64.to_le_bytes()[..], b"text"].concat());
    for (kind, size) in [(7u32, 1), (4, 4), (6, 4)] {
        for n in [0, 1, 2, 1000] {
            push(9, &[&kind.to_le_bytes()[..], &(n as u64).to_le_bytes(), &vec![0; n * size]].concat());
        }
    }
    values
}

/// A GGUF file in parts: each key with the place of its type and value, the end of the header, the place of the data.
struct Parts {
    entries: Vec<(String, std::ops::Range<usize>)>,
    header_end: usize,
    data: usize,
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Where the value of type `kind` at `at` ends.
fn value_end(bytes: &[u8], kind: usize, at: usize) -> usize {
    match kind {
        0 | 1 | 7 => at + 1,
        2 | 3 => at + 2,
        4..=6 => at + 4,
        8 => at + 8 + u64_at(bytes, at),
        9 => (0..u64_at(bytes, at + 4)).fold(at + 12, |end, _| value_end(bytes, u32_at(bytes, at), end)),
        _ => at + 8,
    }
}

fn parts(bytes: &[u8]) -> Parts {
    let (n_tensors, n_entries) = (u64_at(bytes, 8), u64_at(bytes, 16));
    let (mut at, mut entries) = (24, Vec::new());
    for _ in 0..n_entries {
        let value = at + 8 + u64_at(bytes, at);
        let key = String::from_utf8(bytes[at + 8..value].to_vec()).unwrap();
        at = value_end(bytes, u32_at(bytes, value), value + 4);
        entries.push((key, value..at));
    }
    for _ in 0..n_tensors {
        at += 8 + u64_at(bytes, at);
        at += 4 + 8 * u32_at(bytes, at) + 12;
    }
    Parts { entries, header_end: at, data: at.next_multiple_of(32) }
}

#[test]
fn metadata() {
    let _alone = ALONE.lock();
    std::panic::set_hook(Box::new(|_| ()));
    // One file of each architecture.
    let mut cases = BTreeMap::new();
    for entry in std::fs::read_dir(repository("tests/golden")).unwrap() {
        let path = entry.unwrap().path().join("model.gguf");
        if let Ok(bytes) = std::fs::read(&path) {
            let parts = parts(&bytes);
            let architecture = parts.entries.iter().find(|(key, _)| key == "general.architecture").unwrap().1.clone();
            cases.insert(bytes[architecture].to_vec(), path);
        }
    }
    assert!(cases.len() > 15, "{}", cases.len());
    let dir = tempfile::tempdir().unwrap();
    let (changed, values, mut wrong) = (dir.path().join("model.gguf"), gguf_values(), Vec::new());
    for path in cases.into_values() {
        let bytes = std::fs::read(&path).unwrap();
        let Parts { entries, header_end, data } = parts(&bytes);
        for (key, place) in entries.iter().filter(|(key, _)| !key.starts_with("tokenizer.") && !key.starts_with("general.")) {
            for value in &values {
                let mut file = [&bytes[..place.start], value, &bytes[place.end..header_end]].concat();
                file.resize(file.len().next_multiple_of(32), 0);
                file.extend(&bytes[data..]);
                std::fs::write(&changed, file).unwrap();
                if let Err(what) = attempt(&changed, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]) {
                    let value = &value[..value.len().min(24)];
                    wrong.push(format!("{}: {key} = {value:?}: {what}", path.display()));
                }
            }
        }
    }
    report(wrong);
}
