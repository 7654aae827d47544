//! Quantising: which type each tensor gets (`mixture`), converting it (`convert`), and doing so to a file. `model` uses the first two
//! while it loads.
#![forbid(unsafe_code)]

pub mod convert;
pub mod mixture;
#[cfg(test)]
mod tests;

pub use mixture::Recipe;

use crate::error::{Error, ErrorKind, Result, try_vec};
use crate::format::gguf::Metadata;
use crate::format::gguf::write::{Entry, in_file_order, plan};
use crate::format::whole::WholeFile;
use crate::format::{self, DType, MapMode, Tensor};
use crate::kernels::{Kernels, Layout, Matrix};
use crate::threads::Pool;
use convert::Convert;
use mixture::{Facts, Role};
use std::path::Path;

/// Bytes that are converted and written at a time.
const SLAB: usize = 8 << 20;

/// The version of the block types that `general.quantization_version` names; it has not changed since 2023.
const QUANTIZATION_VERSION: u32 = 2;

/// How to quantise a file. `Default` is what most programs want.
#[derive(Default)]
pub struct QuantizeOptions<'a> {
    /// Threads, the caller's counted in; 0: physical cores this process may use.
    pub threads: usize,
    /// Called with the fraction done, 0 to 1; `false` cancels.
    pub progress: Option<&'a mut dyn FnMut(f32) -> bool>,
}

/// Writes the GGUF model at `input` (floats, or quantised to any type that is read) to `output` with its matrices quantised, the
/// metadata and the tokenizer as they are. The output appears whole or not at all, and may be the input; a split input becomes one file.
pub fn quantize<'a>(input: &'a Path, output: &Path, recipe: Recipe, options: QuantizeOptions<'a>) -> Result<()> {
    let source = format::open(input, MapMode::Map)?;
    let Some(metadata) = &source.metadata else {
        let message = "only GGUF files are quantised to a file: convert it with llama.cpp's convert_hf_to_gguf.py first, or \
                       quantise while loading";
        return Err(Error::unsupported(format!("{}: {message}", input.display())));
    };
    let tensors = in_file_order(source.tensors.iter());
    let dtypes = dtypes(metadata, recipe, &tensors)?;
    let entries: Vec<Entry<'_>> =
        tensors.iter().zip(&dtypes).map(|((name, tensor), dtype)| Entry { name, shape: &tensor.shape, dtype: *dtype }).collect();
    let set = [("general.quantization_version", QUANTIZATION_VERSION), ("general.file_type", recipe.file_type())];
    let plan = plan(metadata, &set, "split.", &entries)?;

    let mut job = Job {
        kernels: Kernels::select(None)?,
        pool: Pool::new(options.threads)?,
        file: WholeFile::create(output, plan.bytes)?,
        written: 0,
        total: plan.bytes,
        input,
        progress: options.progress,
    };
    job.write(&plan.head)?;
    for (entry, (_, tensor)) in entries.iter().zip(&tensors) {
        job.tensor(entry, tensor)?;
        let padding = job.written.next_multiple_of(plan.alignment as u64) - job.written;
        job.write(&vec![0; padding as usize])?;
    }
    job.file.commit()
}

/// The state of one run.
struct Job<'a> {
    kernels: &'static Kernels,
    pool: Pool,
    file: WholeFile,
    written: u64,
    total: u64,
    input: &'a Path,
    progress: Option<&'a mut dyn FnMut(f32) -> bool>,
}

impl Job<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write(bytes)?;
        self.written += bytes.len() as u64;
        let done = self.written as f32 / self.total as f32;
        if self.progress.as_mut().is_none_or(|progress| progress(done)) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Cancelled, format!("{}: quantising was cancelled", self.input.display())))
    }

    fn tensor(&mut self, entry: &Entry<'_>, tensor: &Tensor) -> Result<()> {
        if entry.dtype == tensor.dtype {
            return tensor.data.chunks(SLAB).try_for_each(|slab| self.write(slab));
        }
        let n_in = entry.shape.last().copied().unwrap_or(0);
        let n_out = entry.shape.iter().rev().skip(1).product();
        let source = Matrix { dtype: tensor.dtype, layout: Layout::OutIn, n_out, n_in, data: &tensor.data };
        // No zero and no overflow: the plan has the size of the whole.
        let row_bytes = entry.dtype.bytes(n_in).unwrap_or(0).max(1);
        let rows = (SLAB / row_bytes).clamp(1, n_out);
        let mut slab = try_vec(0u8, rows * row_bytes, entry.name)?;
        for first in (0..n_out).step_by(rows) {
            let out = &mut slab[..rows.min(n_out - first) * row_bytes];
            let convert = Convert { kernels: self.kernels, pool: &self.pool, file: &tensor.file, name: entry.name };
            convert.rows(source, first, entry.dtype, out)?;
            self.write(&slab[..rows.min(n_out - first) * row_bytes])?;
        }
        Ok(())
    }
}

/// The type of each tensor in the new file.
fn dtypes(metadata: &Metadata, recipe: Recipe, tensors: &[(&str, &Tensor)]) -> Result<Vec<DType>> {
    let architecture = metadata.get_str("general.architecture")?.unwrap_or_default();
    // In some models the heads differ from layer to layer, which no rule asks for.
    let count = |key: &str| metadata.get_u64(&format!("{architecture}.{key}")).ok().flatten().unwrap_or(0) as usize;
    let n_layers = count("block_count");
    let n_heads = count("attention.head_count");
    let n_kv_heads = if count("attention.head_count_kv") == 0 { n_heads } else { count("attention.head_count_kv") };
    let facts = Facts::new(architecture, n_layers, n_heads, n_kv_heads, count("expert_count"));
    let tied = tensors.iter().all(|(name, _)| *name != "output.weight");
    let n_values = tensors.iter().filter(|(name, _)| role(name, tied) == Role::Value).count();

    let mut dtypes: Vec<DType> = tensors.iter().map(|(_, tensor)| tensor.dtype).collect();
    let (mut values, mut downs) = (0, 0);
    // The rules count in the order of the layers.
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&t| (layer(tensors[t].0), tensors[t].0));
    for t in order {
        let (name, tensor) = tensors[t];
        if !is_quantised(name, &tensor.shape) {
            continue;
        }
        let role = role(name, tied);
        let place = match role {
            Role::Value => (values, n_values),
            Role::Down if facts.n_experts > 1 => (layer(name).unwrap_or(0), n_layers),
            Role::Down => (downs, n_layers),
            _ => (0, 0),
        };
        values += usize::from(role == Role::Value);
        downs += usize::from(role == Role::Down);
        dtypes[t] = mixture::dtype(recipe, facts, role, place, tensor.shape.last().copied().unwrap_or(0));
    }
    Ok(dtypes)
}

/// The layer in a tensor's name.
fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

fn role(name: &str, tied: bool) -> Role {
    let has = |part: &str| name.contains(part);
    match name {
        "output.weight" => Role::Head,
        "token_embd.weight" | "per_layer_token_embd.weight" if tied => Role::Head,
        _ if has("attn_qkv.weight") || has("attn_kv_b.weight") || has("attn_v.weight") => Role::Value,
        _ if has("attn_k.weight") => Role::Key,
        _ if has("attn_output.weight") => Role::AttentionOutput,
        _ if has("ffn_down") => Role::Down,
        _ => Role::Other,
    }
}

/// Parts of names of matrices that stay as they are: small ones and ones that a model is sensitive to, as llama.cpp has them.
#[rustfmt::skip]
const KEPT: &[&str] = &[
    "_norm.weight", "ffn_gate_inp.weight", "altup", "laurel", "per_layer_model_proj", "position_embd", "token_types",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight",
    "time_mix_w0", "time_mix_w1", "time_mix_w2", "time_mix_v0", "time_mix_v1", "time_mix_v2", "time_mix_a0", "time_mix_a1",
    "time_mix_a2", "time_mix_g1", "time_mix_g2", "time_mix_decay_w", "time_mix_lerp_fused.weight", "attn_rel_b.weight",
];

/// Whether a tensor is a matrix (not a vector, whatever its dimensions of 1) that is worth it.
fn is_quantised(name: &str, shape: &[usize]) -> bool {
    let is_matrix = shape.iter().rev().skip(1).any(|&dim| dim > 1);
    is_matrix && name.ends_with("weight") && !KEPT.iter().any(|part| name.contains(part))
}
