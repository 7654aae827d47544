//! Model directories with the shapes of real models and random weights, written once.

use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Element type of the weights.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Type {
    F32,
    Bf16,
}

impl Type {
    pub fn size(self) -> usize {
        if self == Type::F32 { 4 } else { 2 }
    }
    pub fn name(self) -> &'static str {
        if self == Type::F32 { "f32" } else { "bf16" }
    }
}

/// What fills a tensor.
#[derive(Clone, Copy)]
enum Fill {
    /// Normal, deviation 0.02.
    Weight,
    /// The same around 1.
    Norm,
}

/// A model to write.
pub struct Shape {
    pub name: &'static str,
    config: Value,
    tensors: Vec<(String, Vec<usize>, Fill)>,
    /// Elements that a step reads only a row of: embeddings that are not the output head too.
    looked_up: usize,
}

impl Shape {
    /// Weights that one step multiplies with.
    pub fn read_per_step(&self) -> usize {
        self.tensors.iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum::<usize>() - self.looked_up
    }

    /// The model's directory under `root`, written if it is not there.
    pub fn directory(&self, root: &Path, dtype: Type) -> io::Result<PathBuf> {
        let dir = root.join(format!("{}-{}", self.name, dtype.name()));
        let weights = dir.join("model.safetensors");
        if !weights.exists() {
            eprintln!("writing {}", dir.display());
            std::fs::create_dir_all(&dir)?;
            std::fs::write(dir.join("config.json"), self.config.to_string())?;
            let part = dir.join("model.part");
            self.write(BufWriter::with_capacity(1 << 20, File::create(&part)?), dtype)?;
            std::fs::rename(part, weights)?;
        }
        Ok(dir)
    }

    fn write(&self, mut out: impl Write, dtype: Type) -> io::Result<()> {
        let (mut header, mut end) = (Map::new(), 0);
        for (name, shape, _) in &self.tensors {
            let start = end;
            end += shape.iter().product::<usize>() * dtype.size();
            let name_of_type = if dtype == Type::F32 { "F32" } else { "BF16" };
            header.insert(name.clone(), json!({"dtype": name_of_type, "shape": shape, "data_offsets": [start, end]}));
        }
        let mut header = Value::Object(header).to_string();
        header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(64) - header.len()));
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;

        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let normals: Vec<f32> = (0..1 << 16).map(|_| random.normal() * 0.02).collect();
        let mut bytes = Vec::new();
        for (_, shape, fill) in &self.tensors {
            let around = if matches!(fill, Fill::Norm) { 1.0 } else { 0.0 };
            let mut left = shape.iter().product::<usize>();
            while left > 0 {
                let n = left.min(1 << 16);
                bytes.clear();
                for _ in 0..n {
                    let bits = (normals[random.bits() as usize >> 48] + around).to_bits();
                    match dtype {
                        Type::F32 => bytes.extend_from_slice(&bits.to_le_bytes()),
                        Type::Bf16 => bytes.extend_from_slice(&((bits + 0x8000) >> 16).to_le_bytes()[..2]),
                    }
                }
                out.write_all(&bytes)?;
                left -= n;
            }
        }
        out.flush()
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// Sum of twelve uniform numbers less six: deviation 1, and never tiny enough to be a denormal.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.bits() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0
    }
}

/// The models that the benchmark knows.
pub fn all() -> Vec<Shape> {
    vec![gpt2(), olmo2_1b(), tinyllama()]
}

fn gpt2() -> Shape {
    let (d, layers, vocab, positions) = (768, 12, 50257, 1024);
    let mut tensors = vec![
        ("wte.weight".to_string(), vec![vocab, d], Fill::Weight),
        ("wpe.weight".to_string(), vec![positions, d], Fill::Weight),
    ];
    for l in 0..layers {
        for (name, shape, fill) in [
            ("ln_1.weight", vec![d], Fill::Norm),
            ("ln_1.bias", vec![d], Fill::Weight),
            ("attn.c_attn.weight", vec![d, 3 * d], Fill::Weight),
            ("attn.c_attn.bias", vec![3 * d], Fill::Weight),
            ("attn.c_proj.weight", vec![d, d], Fill::Weight),
            ("attn.c_proj.bias", vec![d], Fill::Weight),
            ("ln_2.weight", vec![d], Fill::Norm),
            ("ln_2.bias", vec![d], Fill::Weight),
            ("mlp.c_fc.weight", vec![d, 4 * d], Fill::Weight),
            ("mlp.c_fc.bias", vec![4 * d], Fill::Weight),
            ("mlp.c_proj.weight", vec![4 * d, d], Fill::Weight),
            ("mlp.c_proj.bias", vec![d], Fill::Weight),
        ] {
            tensors.push((format!("h.{l}.{name}"), shape, fill));
        }
    }
    tensors.push(("ln_f.weight".into(), vec![d], Fill::Norm));
    tensors.push(("ln_f.bias".into(), vec![d], Fill::Weight));
    let config = json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": vocab, "n_positions": positions, "n_ctx": positions,
        "n_embd": d, "n_layer": layers, "n_head": 12, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
        "tie_word_embeddings": true,
    });
    // The head is wte itself.
    Shape { name: "gpt2-124m", config, tensors, looked_up: positions * d }
}

/// The parts that Llama and OLMo-2 share; `norms` are a layer's norm weights.
fn llama_like(
    d: usize,
    layers: usize,
    kv: usize,
    ff: usize,
    vocab: usize,
    norms: &[(&str, usize)],
) -> Vec<(String, Vec<usize>, Fill)> {
    let mut tensors = vec![("model.embed_tokens.weight".to_string(), vec![vocab, d], Fill::Weight)];
    for l in 0..layers {
        for (name, rows, cols) in [
            ("self_attn.q_proj", d, d),
            ("self_attn.k_proj", kv, d),
            ("self_attn.v_proj", kv, d),
            ("self_attn.o_proj", d, d),
            ("mlp.gate_proj", ff, d),
            ("mlp.up_proj", ff, d),
            ("mlp.down_proj", d, ff),
        ] {
            tensors.push((format!("model.layers.{l}.{name}.weight"), vec![rows, cols], Fill::Weight));
        }
        for (name, len) in norms {
            tensors.push((format!("model.layers.{l}.{name}.weight"), vec![*len], Fill::Norm));
        }
    }
    tensors.push(("model.norm.weight".into(), vec![d], Fill::Norm));
    tensors.push(("lm_head.weight".into(), vec![vocab, d], Fill::Weight));
    tensors
}

fn olmo2_1b() -> Shape {
    let (d, layers, ff, vocab) = (2048, 16, 8192, 100352);
    let norms =
        [("self_attn.q_norm", d), ("self_attn.k_norm", d), ("post_attention_layernorm", d), ("post_feedforward_layernorm", d)];
    let config = json!({
        "architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "vocab_size": vocab, "hidden_size": d, "intermediate_size": ff,
        "num_hidden_layers": layers, "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6, "rope_theta": 500000.0, "hidden_act": "silu", "attention_bias": false, "tie_word_embeddings": false,
    });
    Shape { name: "olmo2-1b", config, tensors: llama_like(d, layers, d, ff, vocab, &norms), looked_up: vocab * d }
}

fn tinyllama() -> Shape {
    let (d, layers, kv, ff, vocab) = (2048, 22, 256, 5632, 32000);
    let norms = [("input_layernorm", d), ("post_attention_layernorm", d)];
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": d, "intermediate_size": ff,
        "num_hidden_layers": layers, "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "attention_bias": false, "tie_word_embeddings": false,
    });
    Shape { name: "tinyllama-1.1b", config, tensors: llama_like(d, layers, kv, ff, vocab, &norms), looked_up: vocab * d }
}
