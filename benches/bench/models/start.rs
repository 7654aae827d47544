//! From the start of a process to its first token, in processes of their own.

use super::Subject;
use crate::options::Options;
use crate::report::Report;
use crate::timing::Times;
use engine::{CacheOptions, LoadOptions, Model};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The prompt, whose tokens every model has.
const PROMPT: [u32; 4] = [1, 300, 400, 500];

/// What the other process does: loads, steps, and says what it took in one line of JSON.
pub fn child(path: &Path, options: &Options) -> Result<(), String> {
    let run = || -> engine::Result<Value> {
        let start = Instant::now();
        let model = Model::load(path, LoadOptions { threads: options.threads, ..Default::default() })?;
        let load_s = start.elapsed().as_secs_f64();
        let loaded = resident();
        let mut cache = model.new_cache(&CacheOptions::default())?;
        let mut logits = vec![0.0; model.vocab_size()];
        cache.step(&PROMPT, Some(&mut logits))?;
        Ok(json!({"load_s": load_s, "loaded_mb": loaded, "stepped_mb": resident()}))
    };
    println!("{}", run().map_err(|e| e.to_string())?);
    Ok(())
}

/// Resident memory in MB: of the process's own, and pages of files. 0 where the system does not say.
fn resident() -> [f64; 2] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kb = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse::<f64>().ok());
    ["RssAnon:", "RssFile:"].map(|key| kb(key).unwrap_or(0.0) / 1000.0)
}

pub fn measure(report: &mut Report<'_>, subject: &Subject<'_>) -> Result<(), String> {
    let runs = report.options.pick(7, 3);
    let (mut load, mut last) = (Times::default(), Value::Null);
    let first = Times::of(runs, Duration::from_secs(60), || {
        let (seconds, told) = once(subject.path, report.options.threads)?;
        load.push(told["load_s"].as_f64().unwrap_or(f64::NAN));
        last = told;
        Ok::<_, String>(seconds)
    })?;
    let mb = |key: &str, i: usize| last[key][i].as_f64().unwrap_or(f64::NAN);
    let line = format!(
        "start      {:8.1} ms to the first token of 4, of them {:.1} loading; {:.0} MB of its own + {:.0} mapped ({} runs)",
        1e3 * first.median(),
        1e3 * load.median(),
        mb("stepped_mb", 0),
        mb("stepped_mb", 1),
        first.runs()
    );
    let figures = json!({
        "first_token_s": first.median(), "spread": first.spread(), "load_s": load.median(), "runs": first.runs(),
        "loaded_mb": {"own": mb("loaded_mb", 0), "mapped": mb("loaded_mb", 1)},
        "stepped_mb": {"own": mb("stepped_mb", 0), "mapped": mb("stepped_mb", 1)},
    });
    report.row(&format!("{}/start", subject.name), &line, figures);
    Ok(())
}

/// Seconds until the other process has said what it has to say, and that.
fn once(path: &Path, threads: usize) -> Result<(f64, Value), String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let start = Instant::now();
    let mut child = Command::new(program)
        .arg("--start")
        .arg(path)
        .args(["--threads", &threads.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line).map_err(|e| e.to_string())?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let status = child.wait().map_err(|e| e.to_string())?;
    let told = serde_json::from_str(&line).map_err(|e| format!("the other process, {status}: {e}"))?;
    Ok((seconds, told))
}
