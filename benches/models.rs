//! Whole models at real shapes, beside what the machine can do in the same minute.
//!
//!     cargo bench --bench models -- [NAME...] [--quick] [--threads N] [--json FILE] [--dir DIR] [--list]
//!
//! NAME selects models whose name contains it ("gpt2", "bf16"). The models are written once to target/bench-models (17 GB for
//! all of them), or to DIR. What the columns mean:
//!
//! - load: seconds to load with the file in the page cache. anon MB: memory beyond mapped file pages that loading took, and
//!   that a cache of 512 tokens and its scratch took besides.
//! - prefill: 512 tokens in one step, its logits for the last; 2 · weights · tokens operations, against the peak of f32
//!   multiply-adds.
//! - decode: 64 steps of one token from an empty cache, the median; the bytes of the weights that a step reads, against the
//!   bandwidth with 8 streams per thread.

#[path = "common/machine.rs"]
mod machine;
#[path = "common/shapes.rs"]
mod shapes;

use engine::kernels::Kernels;
use engine::{CacheOptions, LoadOptions, Model, Result};
use serde_json::{Value, json};
use shapes::{Shape, Type};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

const PREFILL: usize = 512;
const DECODE: usize = 64;

struct Options {
    names: Vec<String>,
    quick: bool,
    list: bool,
    threads: usize,
    json: Option<PathBuf>,
    dir: PathBuf,
}

fn main() {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("models: {message}");
            std::process::exit(2);
        }
    };
    if let Err(message) = run(&options) {
        eprintln!("models: {message}");
        std::process::exit(1);
    }
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-models");
    let mut options = Options { names: Vec::new(), quick: false, list: false, threads: 0, json: None, dir };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--bench" => (), // cargo says this
            "--quick" => options.quick = true,
            "--list" => options.list = true,
            "--threads" => options.threads = value()?.parse().map_err(|e| format!("--threads: {e}"))?,
            "--json" => options.json = Some(value()?.into()),
            "--dir" => options.dir = value()?.into(),
            name if !name.starts_with('-') => options.names.push(name.into()),
            other => {
                return Err(format!("{other} is unknown: [NAME...] [--quick] [--threads N] [--json FILE] [--dir DIR] [--list]"));
            }
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<(), String> {
    let isa = Kernels::select(None).map_err(|e| e.to_string())?.isa();
    let threads = if options.threads == 0 { engine::threads::available_cores() } else { options.threads };
    let memory = machine::Memory::new(if options.quick { 256 << 20 } else { 1 << 30 });
    let runs = if options.quick { 2 } else { 5 };

    println!("{} threads, {}\n\nthreads  GB/s, 1 stream  GB/s, 8 streams  GFLOP/s", threads, isa.name());
    let mut limits = Vec::new();
    for n in thread_counts(threads) {
        let (one, eight) = (memory.bandwidth(n, 1, runs) / 1e9, memory.bandwidth(n, 8, runs) / 1e9);
        let peak = machine::fma_peak(isa, n, runs) / 1e9;
        println!("{n:7}  {one:14.1}  {eight:15.1}  {peak:7.0}");
        limits.push(json!({"threads": n, "gb_s_1_stream": one, "gb_s_8_streams": eight, "gflop_s": peak}));
    }
    drop(memory);

    println!(
        "\n{:20} {:>7} {:>11} | {:>8} {:>8} {:>5} | {:>8} {:>6} {:>5} {:>7}",
        "model", "load s", "anon MB", "prefill", "GFLOP/s", "peak", "decode", "GB/s", "limit", "GFLOP/s"
    );
    let mut results = Vec::new();
    for shape in shapes::all() {
        for dtype in [Type::F32, Type::Bf16] {
            let name = format!("{}-{}", shape.name, dtype.name());
            if !options.names.is_empty() && !options.names.iter().any(|n| name.contains(n.as_str())) {
                continue;
            }
            if options.list {
                println!("{name}");
                continue;
            }
            let dir = shape.directory(&options.dir, dtype).map_err(|e| format!("{name}: {e}"))?;
            warm(&dir.join("model.safetensors")).map_err(|e| format!("{name}: {e}"))?;
            let result = measure(&dir, &shape, dtype, threads, options.quick).map_err(|e| format!("{name}: {e}"))?;
            print_row(&name, &result);
            results.push(json!({"model": name, "result": result}));
        }
    }
    if let Some(path) = &options.json {
        let all = json!({"threads": threads, "isa": isa.name(), "limits": limits, "models": results});
        std::fs::write(path, format!("{all:#}\n")).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// One model: load, prefill, decode, and the machine's limits just before.
fn measure(dir: &Path, shape: &Shape, dtype: Type, threads: usize, quick: bool) -> Result<Value> {
    let options = || LoadOptions { threads, ..Default::default() };
    let before = anonymous_mb();
    drop(Model::load(dir, options())?);
    let start = Instant::now();
    let model = Model::load(dir, options())?;
    let load_s = start.elapsed().as_secs_f64();
    let loaded = anonymous_mb();

    let mut logits = vec![0.0; model.vocab_size()];
    let tokens: Vec<u32> = (0..PREFILL as u64).map(|i| (i * 7919 % model.vocab_size() as u64) as u32).collect();
    let (mut prefill, mut stepped) = (Vec::new(), loaded);
    for _ in 0..if quick { 1 } else { 5 } {
        let mut cache = model.new_cache(&CacheOptions::default())?;
        let start = Instant::now();
        cache.step(&tokens, Some(&mut logits))?;
        prefill.push(start.elapsed().as_secs_f64());
        stepped = stepped.max(anonymous_mb());
    }
    let mut decode = Vec::new();
    for _ in 0..if quick { 1 } else { 3 } {
        let mut cache = model.new_cache(&CacheOptions::default())?;
        for token in tokens.iter().cycle().take(DECODE) {
            let start = Instant::now();
            cache.step(&[*token], Some(&mut logits))?;
            decode.push(start.elapsed().as_secs_f64());
        }
    }
    drop(model);

    let memory = machine::Memory::new(256 << 20);
    let isa = Kernels::select(None)?.isa();
    let (bandwidth, peak) = (memory.bandwidth(threads, 8, 3), machine::fma_peak(isa, threads, 2));
    let weights = shape.read_per_step() as f64;
    let (prefill, decode) = (PREFILL as f64 / median(prefill), 1.0 / median(decode));
    let read = weights * dtype.size() as f64 * decode;
    Ok(json!({
        "load_s": load_s,
        "anonymous_mb_load": loaded - before,
        "anonymous_mb_steps": stepped - loaded,
        "prefill_tokens_s": prefill,
        "prefill_gflop_s": 2.0 * weights * prefill / 1e9,
        "prefill_of_peak": 2.0 * weights * prefill / peak,
        "decode_tokens_s": decode,
        "decode_gflop_s": 2.0 * weights * decode / 1e9,
        "decode_gb_s": read / 1e9,
        "decode_of_bandwidth": read / bandwidth,
        "bandwidth_gb_s": bandwidth / 1e9,
        "peak_gflop_s": peak / 1e9,
    }))
}

fn print_row(name: &str, result: &Value) {
    let n = |key: &str| result[key].as_f64().unwrap_or(f64::NAN);
    println!(
        "{name:20} {:7.3} {:5.0}+{:<5.0} | {:8.1} {:8.1} {:4.0}% | {:8.2} {:6.1} {:4.0}% {:7.1}",
        n("load_s"),
        n("anonymous_mb_load"),
        n("anonymous_mb_steps"),
        n("prefill_tokens_s"),
        n("prefill_gflop_s"),
        100.0 * n("prefill_of_peak"),
        n("decode_tokens_s"),
        n("decode_gb_s"),
        100.0 * n("decode_of_bandwidth"),
        n("decode_gflop_s"),
    );
}

/// 1, 2, 4, … and `most`.
fn thread_counts(most: usize) -> Vec<usize> {
    std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n < most).chain([most]).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Reads a file once, so that it lies in the page cache.
fn warm(path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Resident memory that is not a file's pages, in MB; 0 where the system does not say.
fn anonymous_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kb = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse::<f64>().ok());
    kb.unwrap_or(0.0) / 1000.0
}
