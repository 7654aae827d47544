//! Quantising a file: what loads afterwards, and that a failure leaves nothing behind.

mod common;

use common::{golden, new_cache, repository, shared, step_all};
use engine::{CacheOptions, ErrorKind, KvType, LoadOptions, Model, QuantizeOptions, Recipe, Weights, quantize};
use std::path::{Path, PathBuf};
use std::process::Command;

fn input() -> PathBuf {
    golden("llama-gguf-f16").0
}

fn run(input: &Path, output: &Path, recipe: Recipe) -> engine::Result<()> {
    quantize(input, output, recipe, QuantizeOptions::default())
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn logits(path: &Path, weights: Weights, tokens: &[u32]) -> Vec<f32> {
    let model = Model::load(path, LoadOptions { weights, ..Default::default() }).unwrap();
    step_all(&mut new_cache(&model), tokens)
}

/// The blocks, and so the logits, are the same whether a file is quantised first or while it loads.
#[test]
fn a_file_and_loading_give_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    for case in ["llama-gguf-f16", "gpt2-gguf", "qwen3-moe-gguf", "mixtral-gguf", "falcon-gguf", "gemma2-gguf", "phi3-gguf-short"]
    {
        let (path, tokens) = golden(case);
        for recipe in Recipe::ALL {
            let file = dir.path().join("q.gguf");
            run(&path, &file, recipe).unwrap();
            let (from_file, loaded) = (logits(&file, Weights::Keep, &tokens), logits(&path, Weights::Quantise(recipe), &tokens));
            let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(bits(&from_file) == bits(&loaded), "{case}, {recipe:?}");
            assert!(from_file.iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn an_estimate_counts_quantised_weights() {
    for case in ["llama-gguf-f16", "gpt2-hub", "mixtral-4", "qwen3-moe-gguf", "falcon-4", "gpt2-gguf"] {
        let path = golden(case).0;
        for recipe in Recipe::ALL {
            let options = || LoadOptions { weights: Weights::Quantise(recipe), ..Default::default() };
            let told = Model::estimate(&path, &options()).unwrap();
            let model = Model::load(&path, options()).unwrap();
            assert_eq!(told.weights_mapped + told.weights_packed, model.info().weight_bytes, "{case}, {recipe:?}");
        }
    }
}

/// GPT-2's matrices lie the other way round in Hugging Face's files: quantised, they are turned.
#[test]
fn transposed_matrices_are_turned() {
    let (path, tokens) = golden("gpt2-hub");
    let exact = logits(&path, Weights::F32, &tokens);
    let quantised = logits(&path, Weights::Quantise(Recipe::Q8_0), &tokens);
    let difference: f32 = exact.iter().zip(&quantised).map(|(a, b)| (a - b).powi(2)).sum();
    let size: f32 = exact.iter().map(|a| a.powi(2)).sum();
    // Weights and activations are each rounded by at most 1/254 of their block's largest; a wrong matrix makes this about 1.
    assert!(difference / size < 1e-3, "{}", difference / size);
}

#[test]
fn a_file_is_quantised_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("model.gguf"), dir.path().join("other.gguf"));
    std::fs::copy(input(), &path).unwrap();
    run(&path, &other, Recipe::Q8_0).unwrap();
    run(&path, &path, Recipe::Q8_0).unwrap();
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&other).unwrap());
    assert_eq!(names(dir.path()).len(), 2);
    // And what is quantised can be quantised again.
    run(&path, &path, Recipe::Q4_0).unwrap();
    Model::load(&path, LoadOptions::default()).unwrap();
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file.gguf"), dir.path().join("link.gguf"));
    std::fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    run(&input(), &link, Recipe::Q8_0).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    Model::load(&file, LoadOptions::default()).unwrap();
}

#[test]
fn progress_grows_and_cancels() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("q.gguf");
    let mut fractions = Vec::new();
    let mut progress = |fraction| {
        fractions.push(fraction);
        true
    };
    quantize(&input(), &output, Recipe::Q8_0, QuantizeOptions { threads: 2, progress: Some(&mut progress) }).unwrap();
    assert!(fractions.is_sorted() && fractions.last() == Some(&1.0));
    std::fs::write(&output, "old").unwrap();
    for last in 1..fractions.len() {
        let mut calls = 0;
        let mut progress = |_| {
            calls += 1;
            calls < last
        };
        let options = QuantizeOptions { threads: 1, progress: Some(&mut progress) };
        let error = quantize(&input(), &output, Recipe::Q8_0, options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(std::fs::read_to_string(&output).unwrap(), "old");
        assert_eq!(names(dir.path()), ["q.gguf"]);
    }
}

#[test]
fn places_that_cannot_be_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let error = |output: &Path| run(&input(), output, Recipe::Q8_0).unwrap_err();
    assert_eq!(error(&dir.path().join("no/such/dir.gguf")).kind(), ErrorKind::NotFound);
    assert_eq!(error(dir.path()).kind(), ErrorKind::BadArgument);
    assert_eq!(error(Path::new("/")).kind(), ErrorKind::BadArgument);
    if cfg!(target_os = "linux") {
        assert_eq!(error(Path::new("/dev/full")).kind(), ErrorKind::BadArgument);
        assert_eq!(error(Path::new("/proc/model.gguf")).kind(), ErrorKind::NotFound);
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn what_is_no_gguf_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("q.gguf");
    let error = run(&golden("llama-mha").0, &output, Recipe::Q8_0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("GGUF"), "{error}");
    assert_eq!(run(&repository("tests/golden/no-such"), &output, Recipe::Q8_0).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(names(dir.path()).is_empty());
}

/// Set in a process that is to find its disk full, or its files limited: the directory to write to.
const FULL: &str = "ENGINE_TEST_FULL_DISK";

/// A disk smaller than the file, in a mount of our own, and a limit on files, whose signal would end the process.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing() {
    if let Some(dir) = std::env::var_os(FULL) {
        let error = run(&input(), &Path::new(&dir).join("q.gguf"), Recipe::Q8_0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(names(Path::new(&dir)).is_empty());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let again = |before: &str| {
        let program = std::env::current_exe().unwrap();
        let script = format!("{before} && exec \"$0\" --exact a_full_disk_leaves_nothing");
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", &script]).arg(program).env(FULL, dir.path());
        command.output()
    };
    if !again("exit 7").is_ok_and(|output| output.status.code() == Some(7)) {
        eprintln!("a_full_disk_leaves_nothing: SKIPPED, there is no unshare, or no leave to use it");
        return;
    }
    for before in [format!("mount -t tmpfs -o size=16k none '{}'", dir.path().display()), "ulimit -f 20".into()] {
        let output = again(&before).unwrap();
        assert!(output.status.success(), "{before}: {}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    }
}

/// Perplexity of the small trained model over its own text, as a table; 8 bits, of weights or of keys and values, are within half a percent of f32.
#[test]
fn perplexity_of_stories() {
    let Some(folder) = shared("models/stories260k", "perplexity_of_stories") else { return };
    let text = std::fs::read_to_string(folder.join("expected.txt")).unwrap();
    let file = folder.join("stories260k-f32.gguf");
    let perplexity = |weights, kv_type| {
        let model = Model::load(&file, LoadOptions { weights, ..Default::default() }).unwrap();
        let tokens = model.tokenizer().unwrap().encode(&text, true).unwrap();
        let all = step_all(&mut model.new_cache(&CacheOptions { kv_type, ..Default::default() }).unwrap(), &tokens);
        let loss = all.chunks(model.vocab_size()).zip(&tokens[1..]).map(|(logits, &next)| {
            let max = logits.iter().fold(f32::MIN, |m, x| m.max(*x));
            let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
            sum.ln() - f64::from(logits[next as usize] - max)
        });
        (loss.sum::<f64>() / (tokens.len() - 1) as f64).exp()
    };
    let exact = perplexity(Weights::F32, KvType::F32);
    let of_bytes = perplexity(Weights::F32, KvType::Q8_0);
    assert!((of_bytes / exact - 1.0).abs() < 0.005, "keys and values in 8 bits: {of_bytes}, f32 {exact}");
    for recipe in Recipe::ALL {
        let quantised = perplexity(Weights::Quantise(recipe), KvType::F32);
        println!("{recipe:?}: {quantised:.4}, f32 {exact:.4}: {:+.3} %", 100.0 * (quantised / exact - 1.0));
        if recipe == Recipe::Q8_0 {
            assert!((quantised / exact - 1.0).abs() < 0.005, "{quantised}, f32 {exact}");
        }
    }
}
