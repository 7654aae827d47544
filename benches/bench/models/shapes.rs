//! The shapes of real models, and the weights that the benchmark gives them.

use engine::Recipe;
use engine::format::{DType, Quant};
use engine::quantize::mixture::{self, Facts, Role};

/// The kind of a decoder, as far as its tensors and keys differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Gpt2,
    Llama,
    Olmo2,
}

/// The numbers of a model.
#[derive(Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    pub family: Family,
    pub vocab: usize,
    pub hidden: usize,
    pub layers: usize,
    pub ffn: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// That of the real model, but for RoPE models at least 8192, so that a cache of 4096 tokens can be stepped.
    pub context: usize,
}

pub const GPT2: Shape = Shape {
    name: "gpt2-124m",
    family: Family::Gpt2,
    vocab: 50257,
    hidden: 768,
    layers: 12,
    ffn: 3072,
    heads: 12,
    kv_heads: 12,
    context: 1024,
};
pub const OLMO2_1B: Shape = Shape {
    name: "olmo2-1b",
    family: Family::Olmo2,
    vocab: 100352,
    hidden: 2048,
    layers: 16,
    ffn: 8192,
    heads: 16,
    kv_heads: 16,
    context: 8192,
};
pub const TINYLLAMA: Shape = Shape {
    name: "tinyllama-1.1b",
    family: Family::Llama,
    vocab: 32000,
    hidden: 2048,
    layers: 22,
    ffn: 5632,
    heads: 32,
    kv_heads: 4,
    context: 8192,
};
pub const LLAMA2_7B: Shape = Shape {
    name: "llama2-7b",
    family: Family::Llama,
    vocab: 32000,
    hidden: 4096,
    layers: 32,
    ffn: 11008,
    heads: 32,
    kv_heads: 32,
    context: 8192,
};

/// The types of a file's matrices.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    F32,
    Bf16,
    Quantised(Recipe),
}

impl Weights {
    pub fn name(self) -> &'static str {
        match self {
            Weights::F32 => "f32",
            Weights::Bf16 => "bf16",
            Weights::Quantised(Recipe::Q4KM) => "q4_k_m",
            Weights::Quantised(Recipe::Q4_0) => "q4_0",
            Weights::Quantised(Recipe::Q8_0) => "q8_0",
            Weights::Quantised(recipe) => DType::Quant(recipe.quant()).name(),
        }
    }
    /// The type of most of them.
    pub fn dtype(self) -> DType {
        match self {
            Weights::F32 => DType::F32,
            Weights::Bf16 => DType::BF16,
            Weights::Quantised(recipe) => recipe.quant().into(),
        }
    }
    /// `general.file_type`.
    pub fn file_type(self) -> u32 {
        match self {
            Weights::F32 => 0,
            Weights::Bf16 => 32,
            Weights::Quantised(recipe) => recipe.file_type(),
        }
    }
    fn of(self, shape: &Shape, role: Role, place: (usize, usize), columns: usize) -> DType {
        match self {
            Weights::Quantised(recipe) => {
                let facts = Facts::new(shape.architecture(), shape.layers, shape.heads, shape.kv_heads, 0);
                mixture::dtype(recipe, facts, role, place, columns)
            }
            floats => floats.dtype(),
        }
    }
}

/// What fills a tensor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// Around 0, deviation 0.02.
    Weight,
    /// The same around 1.
    Norm,
}

/// A tensor of a file.
pub struct TensorOf {
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    pub dtype: DType,
    pub fill: Fill,
}

impl Shape {
    pub fn architecture(&self) -> &'static str {
        match self.family {
            Family::Gpt2 => "gpt2",
            Family::Llama => "llama",
            Family::Olmo2 => "olmo2",
        }
    }
    fn kv(&self) -> usize {
        self.hidden / self.heads * self.kv_heads
    }
    /// Elements of the layers' matrices, which every token is multiplied with; those of the head are besides.
    pub fn layer_weights(&self) -> usize {
        let gated = if self.family == Family::Gpt2 { 2 } else { 3 };
        self.layers * self.hidden * (2 * self.hidden + 2 * self.kv() + gated * self.ffn)
    }

    /// The tensors of the model's GGUF file, in the order in which converters write them.
    pub fn tensors(&self, weights: Weights) -> Vec<TensorOf> {
        let mut list = Vec::new();
        let mut matrix = |name: String, rows: usize, columns: usize, role: Role, layer: usize| {
            let place = if matches!(role, Role::Value | Role::Down) { (layer, self.layers) } else { (0, 0) };
            let dtype = weights.of(self, role, place, columns);
            list.push(TensorOf { name, shape: vec![rows, columns], dtype, fill: Fill::Weight });
        };
        let (d, kv, ffn) = (self.hidden, self.kv(), self.ffn);
        let tied = self.family == Family::Gpt2;
        matrix("token_embd.weight".into(), self.vocab, d, if tied { Role::Head } else { Role::Other }, 0);
        for l in 0..self.layers {
            let mut block = |name: &str, rows, columns, role| matrix(format!("blk.{l}.{name}.weight"), rows, columns, role, l);
            if tied {
                block("attn_qkv", 3 * d, d, Role::Value);
            } else {
                block("attn_q", d, d, Role::Other);
                block("attn_k", kv, d, Role::Key);
                block("attn_v", kv, d, Role::Value);
                block("ffn_gate", ffn, d, Role::Other);
            }
            block("attn_output", d, d, Role::AttentionOutput);
            block("ffn_up", ffn, d, Role::Other);
            block("ffn_down", d, ffn, Role::Down);
        }
        if !tied {
            matrix("output.weight".into(), self.vocab, d, Role::Head, 0);
        }
        self.vectors(&mut list);
        list
    }

    /// Norms, biases, positions: always f32.
    fn vectors(&self, list: &mut Vec<TensorOf>) {
        let mut vector = |name: String, shape: Vec<usize>, fill| list.push(TensorOf { name, shape, dtype: DType::F32, fill });
        let (d, kv, ffn) = (self.hidden, self.kv(), self.ffn);
        vector("output_norm.weight".into(), vec![d], Fill::Norm);
        if self.family == Family::Gpt2 {
            vector("position_embd.weight".into(), vec![self.context, d], Fill::Weight);
            vector("output_norm.bias".into(), vec![d], Fill::Weight);
        }
        let norms: &[(&str, usize)] = match self.family {
            Family::Gpt2 | Family::Llama => &[("attn_norm", d), ("ffn_norm", d)],
            Family::Olmo2 => &[("attn_q_norm", d), ("attn_k_norm", kv), ("post_attention_norm", d), ("post_ffw_norm", d)],
        };
        let with_bias = [("attn_qkv", 3 * d), ("attn_output", d), ("ffn_up", ffn), ("ffn_down", d)];
        for l in 0..self.layers {
            for (name, n) in norms {
                vector(format!("blk.{l}.{name}.weight"), vec![*n], Fill::Norm);
            }
            if self.family == Family::Gpt2 {
                for (name, n) in norms.iter().copied().chain(with_bias) {
                    vector(format!("blk.{l}.{name}.bias"), vec![n], Fill::Weight);
                }
            }
        }
    }
}

/// A number of GGUF's for one of our types.
pub fn gguf_type(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 30,
        DType::Quant(Quant::Q4_0) => 2,
        DType::Quant(Quant::Q8_0) => 8,
        DType::Quant(Quant::Q4K) => 12,
        DType::Quant(Quant::Q6K) => 14,
        other => unreachable!("no file of the benchmark has {}", other.name()),
    }
}
