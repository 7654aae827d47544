//! RustyGradients' loading of safetensors: checkpoints of the same sizes, GPT-2's tensors in f32.

use super::heading;
use crate::random::Random;
use crate::report::Report;
use crate::timing::{Times, seconds};
use crate::weights;
use engine::format::{DType, MapMode};
use engine::{LoadOptions, Model};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A GPT-2 of 12 layers whose vocabulary makes up the size: MB, width, rows of the vocabulary, the published seconds.
const CHECKPOINTS: [(usize, usize, usize, f64); 2] = [(193, 512, 19_467, 0.22), (656, 768, 101_723, 0.64)];
const LAYERS: usize = 12;
const POSITIONS: usize = 1024;

pub fn run(report: &mut Report<'_>) -> Result<(), String> {
    let mut headed = false;
    for (mb, width, vocab, published) in CHECKPOINTS {
        let name = format!("predecessors/rustygradients/load-{mb}mb");
        if !report.wants(&name) {
            continue;
        }
        heading(
            report,
            &mut headed,
            "loading f32 safetensors from the page cache: mapped (no byte is copied), and copied into memory",
        );
        let dir = directory(&report.options.dir, mb, width, vocab).map_err(|e| e.to_string())?;
        let bytes = std::fs::metadata(dir.join("model.safetensors")).map_err(|e| e.to_string())?.len() as f64;
        let load = |mapping| {
            let options = || LoadOptions { mapping, threads: report.options.threads, ..Default::default() };
            drop(Model::load(&dir, options()).map_err(|e| e.to_string())?);
            Times::of(report.options.pick(7, 3), Duration::from_secs(20), || {
                let mut loaded = None;
                let seconds = seconds(|| loaded = Some(Model::load(&dir, options())));
                loaded.transpose().map_err(|e| e.to_string()).map(|_| seconds)
            })
        };
        let (mapped, copied) = (load(MapMode::Map)?, load(MapMode::Copy)?);
        let line = format!(
            "{:.1} MB: mapped {:.4} s, copied {:.3} s, published {published} s ({} runs)",
            bytes / 1e6,
            mapped.median(),
            copied.median(),
            copied.runs()
        );
        let figures = json!({
            "bytes": bytes, "mapped_s": mapped.median(), "copied_s": copied.median(), "published_s": published, "runs": copied.runs(),
            "spread": copied.spread(),
        });
        report.row(&name, &line, figures);
    }
    Ok(())
}

fn directory(root: &Path, mb: usize, width: usize, vocab: usize) -> io::Result<PathBuf> {
    let dir = root.join(format!("gpt2-safetensors-{mb}mb"));
    let weights = dir.join("model.safetensors");
    if !weights.exists() {
        eprintln!("writing {}", dir.display());
        std::fs::create_dir_all(&dir)?;
        let config = json!({
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": vocab, "n_positions": POSITIONS, "n_ctx": POSITIONS,
            "n_embd": width, "n_layer": LAYERS, "n_head": width / 64, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
            "tie_word_embeddings": true,
        });
        std::fs::write(dir.join("config.json"), config.to_string())?;
        let part = dir.join("model.part");
        write(BufWriter::with_capacity(1 << 20, File::create(&part)?), &tensors(width, vocab))?;
        std::fs::rename(part, weights)?;
    }
    Ok(dir)
}

/// Names and shapes.
fn tensors(d: usize, vocab: usize) -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![("wte.weight".to_string(), vec![vocab, d]), ("wpe.weight".into(), vec![POSITIONS, d])];
    for l in 0..LAYERS {
        for (name, shape) in [
            ("ln_1.weight", vec![d]),
            ("ln_1.bias", vec![d]),
            ("attn.c_attn.weight", vec![d, 3 * d]),
            ("attn.c_attn.bias", vec![3 * d]),
            ("attn.c_proj.weight", vec![d, d]),
            ("attn.c_proj.bias", vec![d]),
            ("ln_2.weight", vec![d]),
            ("ln_2.bias", vec![d]),
            ("mlp.c_fc.weight", vec![d, 4 * d]),
            ("mlp.c_fc.bias", vec![4 * d]),
            ("mlp.c_proj.weight", vec![4 * d, d]),
            ("mlp.c_proj.bias", vec![d]),
        ] {
            tensors.push((format!("h.{l}.{name}"), shape));
        }
    }
    tensors.extend([("ln_f.weight".into(), vec![d]), ("ln_f.bias".into(), vec![d])]);
    tensors
}

fn write(mut out: impl Write, tensors: &[(String, Vec<usize>)]) -> io::Result<()> {
    let len = |shape: &[usize]| size_of::<f32>() * shape.iter().product::<usize>();
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += len(shape);
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(64) - header.len()));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let mut random = Random::new(12);
    let pool = weights::pool(&mut random, DType::F32, 0.0);
    for (_, shape) in tensors {
        weights::each_part(&mut random, DType::F32, &pool, len(shape), |part| out.write_all(part))?;
    }
    out.flush()
}
