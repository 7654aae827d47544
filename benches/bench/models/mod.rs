//! The section `models`: whole models at real shapes.
//!
//! - start: process start to the first token of a prompt of 4, with the file in the page cache; the load within it; memory.
//! - prefill/N: N tokens in one step, the logits of the last; operations are those of the layers' matrices.
//! - decode/D: steps of one token in a cache of D tokens; the bytes are those of the weights, keys and values that a step reads. Keys and values
//!   are f32; decode-kv-f16/D and decode-kv-q8_0/D: in 16 and in 8 bits.
//! - batch/B: B sequences, a token of each in one `step_batch`.
//! - profile/STEP: where the time of such a step goes, op by op.

pub mod gguf;
mod profile;
pub mod shapes;
pub mod start;
mod steps;

use crate::machine::Limits;
use crate::report::Report;
use engine::{KvType, LoadOptions, Model, Recipe};
use shapes::{GPT2, LLAMA2_7B, OLMO2_1B, Shape, TINYLLAMA, Weights};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use steps::{CACHES, Steps};

const Q8_0: Weights = Weights::Quantised(Recipe::Q8_0);
const Q4_K_M: Weights = Weights::Quantised(Recipe::Q4KM);
const Q4_0: Weights = Weights::Quantised(Recipe::Q4_0);

/// Every model, the smallest files first.
pub const MODELS: [(Shape, Weights); 9] = [
    (GPT2, Q8_0),
    (GPT2, Weights::F32),
    (TINYLLAMA, Q4_0),
    (TINYLLAMA, Q4_K_M),
    (TINYLLAMA, Q8_0),
    (TINYLLAMA, Weights::Bf16),
    (OLMO2_1B, Weights::Bf16),
    (OLMO2_1B, Weights::F32),
    (LLAMA2_7B, Q4_K_M),
];

/// One model of the table, and which of its rows are wanted.
pub struct Subject<'a> {
    name: String,
    shape: &'a Shape,
    weights: Weights,
    path: &'a Path,
    limits: Limits,
}

pub fn run(report: &mut Report<'_>) -> Result<(), String> {
    let quick = report.options.quick;
    let prefills: &[usize] = if quick { &[128] } else { &[128, 512, 2048] };
    let depths: &[usize] = if quick { &[0, 512] } else { &[0, 512, 2048, 4096] };
    let batches: &[usize] = if quick { &[1, 4] } else { &[1, 2, 4, 8, 16] };
    for (shape, weights) in &MODELS {
        let name = format!("models/{}-{}", shape.name, weights.name());
        let wants_start = report.wants(&format!("{name}/start"));
        let wanted = |row: &str, sizes: &[usize]| -> Vec<usize> {
            sizes.iter().copied().filter(|size| report.wants(&format!("{name}/{row}/{size}"))).collect()
        };
        let (prefills, batches) = (wanted("prefill", prefills), wanted("batch", batches));
        // Without tokens in it, all caches are alike.
        let decodes = CACHES.map(|(kv_type, row)| wanted(row, if kv_type == KvType::F32 { depths } else { &depths[1..] }));
        let profiled = profile::wanted(report, &name);
        let steps = Steps { prefills, decodes, batches };
        if !wants_start && profiled.is_empty() && steps.is_empty() {
            continue;
        }
        measure(report, &name, (shape, *weights), wants_start, &steps, &profiled).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

fn measure(
    report: &mut Report<'_>,
    name: &str,
    (shape, weights): (&Shape, Weights),
    wants_start: bool,
    steps: &Steps,
    profiled: &[profile::Step],
) -> Result<(), String> {
    let options = report.options;
    let path = gguf::file(&options.dir, shape, weights).map_err(|e| e.to_string())?;
    let bytes = warm(&path).map_err(|e| e.to_string())?;
    let limits = Limits::now(options.threads, options.quick);
    report.heading(&format!("{name}: {:.0} MB; {}", bytes as f64 / 1e6, limits.line(weights.dtype())));
    let subject = Subject { name: name.into(), shape, weights, path: &path, limits };
    if wants_start {
        start::measure(report, &subject)?;
    }
    if !steps.is_empty() {
        let model = subject.load(options.threads, false)?;
        steps.measure(report, &subject, &model).map_err(|e| e.to_string())?;
    }
    if !profiled.is_empty() {
        let model = subject.load(options.threads, true)?;
        profile::profiles(report, &subject, &model, profiled).map_err(|e| e.to_string())?;
    }
    Ok(())
}

impl Subject<'_> {
    fn load(&self, threads: usize, profile: bool) -> Result<Arc<Model>, String> {
        Model::load(self.path, LoadOptions { threads, profile, ..Default::default() }).map_err(|e| e.to_string())
    }

    /// Seconds for operations, as a part of what the machine can do.
    fn of_peak(&self, operations: f64, seconds: f64) -> f64 {
        operations / seconds / self.limits.arithmetic(self.weights.dtype()).1
    }
}

/// Reads a file once, so that it lies in the page cache; its size.
fn warm(path: &Path) -> std::io::Result<usize> {
    let mut file = std::fs::File::open(path)?;
    let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(bytes),
            n => bytes += n,
        }
    }
}
