//! What several test files need: small files, arrays, and the instruction sets of this machine.
#![allow(dead_code)] // Each test file uses its own part of this one.

use engine::format::DType;
use engine::kernels::{Isa, Kernels};
use engine::{Cache, CacheOptions, LoadOptions, Model};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A path inside the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file of the folder `shared` beside the repository; where it is missing, says that `test` is skipped.
pub fn shared(path: &str, test: &str) -> Option<PathBuf> {
    let found = repository("../shared").join(path);
    if found.exists() {
        return Some(found);
    }
    println!("{test}: SKIPPED, there is no {}", found.display());
    None
}

/// The instruction sets that this CPU has.
pub fn isas() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|&isa| Kernels::select(Some(isa)).is_ok()).collect()
}

/// Loads with an instruction set (`None`: the best) and a number of threads.
pub fn load(path: &Path, isa: Option<Isa>, threads: usize) -> Arc<Model> {
    Model::load(path, LoadOptions { isa, threads, ..Default::default() }).unwrap_or_else(|e| panic!("{e}"))
}

/// An empty cache of the model's whole context.
pub fn new_cache(model: &Arc<Model>) -> Cache {
    model.new_cache(&CacheOptions::default()).unwrap()
}

/// The logits of every fed position: `[tokens, vocab_size]`.
pub fn step_all(cache: &mut Cache, tokens: &[u32]) -> Vec<f32> {
    let mut logits = vec![f32::NAN; tokens.len() * cache.model().vocab_size()];
    cache.step_all(tokens, &mut logits).unwrap();
    logits
}

/// The logits of the last fed position.
pub fn step(cache: &mut Cache, tokens: &[u32]) -> Vec<f32> {
    let mut logits = vec![f32::NAN; cache.model().vocab_size()];
    cache.step(tokens, Some(&mut logits)).unwrap();
    logits
}

/// The logits of every position of `tokens` fed to a new cache in calls of `sizes` tokens, again from the first size when they end.
pub fn chunked(model: &Arc<Model>, tokens: &[u32], sizes: &[usize]) -> Vec<f32> {
    let mut cache = new_cache(model);
    let (mut logits, mut rest) = (Vec::new(), tokens);
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at(size.min(rest.len()));
        logits.extend(step_all(&mut cache, now));
        rest = later;
    }
    logits
}

/// The index of the largest; the first of equals.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, &x) in logits.iter().enumerate() {
        if x > logits[best] {
            best = i;
        }
    }
    best as u32
}

/// The largest difference, divided by the largest magnitude in `want`; infinite where anything is not a number.
pub fn relative_difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0f32, |m, x| m.max(x.abs()));
    let mut worst = 0f32;
    for (a, b) in got.iter().zip(want) {
        let difference = (a - b).abs() / largest;
        worst = worst.max(if difference.is_nan() { f32::INFINITY } else { difference });
    }
    worst
}

/// The difference, divided by `want`, both in the L2 norm.
pub fn relative_l2(got: &[f32], want: &[f32]) -> f64 {
    let l2 = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    assert_eq!(got.len(), want.len());
    l2(&mut got.iter().zip(want).map(|(a, b)| a - b)) / l2(&mut want.iter().copied())
}

/// What it does to the logits of a golden case that long calls multiply on a matrix unit, which rounds what it multiplies, in the measure of
/// [`relative_l2`]: as much as where transformers does it. `None` where nothing is rounded by more than f32 rounds.
pub fn matrix_unit_noise(case: &str, model: &Model) -> Option<f64> {
    let text = std::fs::read_to_string(repository("tests/golden/bf16_noise.json")).unwrap();
    let noise = serde_json::from_str::<serde_json::Value>(&text).unwrap()[case].as_f64()?;
    let kernels = Kernels::select(Some(Isa::from_name(model.info().isa).unwrap())).unwrap();
    kernels.tile_terms(DType::BF16, false).map(|_| noise)
}

/// Bit for bit the same.
pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// A `.npy` file of f32 in C order: shape and elements.
pub fn read_npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{}", path.display());
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{}: {header}", path.display());
    let (open, close) = (header.find('(').unwrap(), header.find(')').unwrap());
    let shape: Vec<usize> = header[open + 1..close].split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let elements: Vec<f32> = bytes[start..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(shape.iter().product::<usize>(), elements.len(), "{}", path.display());
    (shape, elements)
}

/// A JSON array of token ids.
pub fn read_tokens(path: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The model of a golden case and its tokens.
pub fn golden(case: &str) -> (PathBuf, Vec<u32>) {
    let folder = repository("tests/golden").join(case);
    let model = if folder.join("model.gguf").exists() { "model.gguf" } else { "model" };
    (folder.join(model), read_tokens(&folder.join("tokens.json")))
}
