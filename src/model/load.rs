//! A checkpoint's tensors into the slots of a model: every tensor is checked against the shape that the spec asks for, and one
//! that no slot takes is an error.
#![forbid(unsafe_code)]

use super::{Info, Layer, Model};
use crate::arch::{self, Bias, Mlp, Names, Position, QkNorm, Slot, Spec};
use crate::error::{Error, ErrorKind, Result, try_vec};
use crate::format::{self, Bytes, Checkpoint, DType, MapMode, Tensor, mmap::Mapping};
use crate::kernels::{Isa, Kernels, Layout};
use crate::ops::elementwise::{Norm, NormKind};
use crate::ops::linear::Linear;
use crate::ops::rope::RopeTable;
use crate::threads::Pool;
use once_cell::sync::OnceCell;
use std::path::Path;
use std::sync::Arc;

/// What to do with the weight matrices while loading; norms and biases are always held as f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// Used as they lie in the file.
    #[default]
    Keep,
    /// Converted to f32.
    F32,
    /// Converted to bf16.
    Bf16,
}

/// Called with the fraction loaded, 0 to 1; `false` cancels the load.
pub type Progress<'a> = &'a mut dyn FnMut(f32) -> bool;

/// How to load a model. `Default` is what most programs want.
#[derive(Default)]
pub struct LoadOptions<'a> {
    /// Threads, the caller's counted in; 0: physical cores this process may use.
    pub threads: usize,
    /// Instruction set; `None`: the best this CPU has (or the environment's `ENGINE_ISA`).
    pub isa: Option<Isa>,
    /// Conversion of the weights.
    pub weights: Weights,
    /// How files are brought into memory.
    pub mapping: MapMode,
    /// Progress callback.
    pub progress: Option<Progress<'a>>,
}

/// See [`Model::load`].
pub(super) fn load(path: &Path, options: LoadOptions<'_>) -> Result<Arc<Model>> {
    let kernels = Kernels::select(options.isa)?;
    let pool = Pool::new(options.threads)?;
    let mut source = format::open(path, options.mapping)?;
    let (spec, names) = arch::identify(&source)?;
    let total = source.tensors.len();
    let mut loader = Loader { source: &mut source, spec: &spec, names, kernels, options, total };

    let embedding = loader.linear_at(Slot::Embedding, 0, spec.vocab_size, spec.hidden_size, Layout::OutIn, Bias::No)?;
    let positions = match &spec.position {
        Position::Learned => {
            Some(loader.linear_at(Slot::PositionEmbedding, 0, spec.context_length, spec.hidden_size, Layout::OutIn, Bias::No)?)
        }
        Position::Rope(_) => None,
    };
    let rope = loader.rope()?;
    let mut layers = Vec::new();
    layers.try_reserve_exact(spec.n_layers).map_err(|_| Error::out_of_memory("the list of layers", spec.n_layers))?;
    for i in 0..spec.n_layers {
        layers.push(loader.layer(i)?);
    }
    let output_norm = loader.norm(Slot::OutputNorm, 0, spec.hidden_size)?;
    let head = loader.head()?;
    loader.nothing_left()?;

    let linears = || {
        let inner = layers.iter().flat_map(|l| l.qkv.iter().chain([&l.o]).chain(&l.up).chain([&l.down]));
        inner.chain([&embedding]).chain(&positions).chain(&head)
    };
    let norms = layers
        .iter()
        .flat_map(|l| [&l.attention_norm, &l.mlp_norm].into_iter().chain(l.qk_norm.iter().flat_map(|(q, k)| [q, k])))
        .chain([&output_norm]);
    let norm_params: usize = norms.map(|n| n.weight.len() + n.bias.as_ref().map_or(0, Vec::len)).sum();
    let info = Info {
        architecture: spec.family,
        n_params: (linears().map(Linear::n_params).sum::<usize>() + norm_params) as u64,
        weight_bytes: (linears().map(Linear::weight_bytes).sum::<usize>() + norm_params * size_of::<f32>()) as u64,
        n_layers: spec.n_layers,
        hidden_size: spec.hidden_size,
        n_heads: spec.n_heads,
        n_kv_heads: spec.n_kv_heads,
        head_dim: spec.head_dim,
        threads: pool.threads(),
        isa: kernels.isa().name(),
    };
    let panel_len = linears().map(Linear::panel_len).max().unwrap_or(0);
    let tokenizer = OnceCell::new();
    Ok(Arc::new(Model {
        spec,
        kernels,
        pool,
        embedding,
        positions,
        rope,
        layers,
        output_norm,
        head,
        info,
        panel_len,
        source,
        tokenizer,
    }))
}

/// The state of one load.
struct Loader<'a, 'o> {
    source: &'a mut Checkpoint,
    spec: &'a Spec,
    names: &'static Names,
    kernels: &'static Kernels,
    options: LoadOptions<'o>,
    /// Tensors in the checkpoint.
    total: usize,
}

impl Loader<'_, '_> {
    fn error(&self, kind: ErrorKind, message: String) -> Error {
        Error::new(kind, format!("{}: {message}", self.source.path.display()))
    }

    /// Takes the tensor `name` out of the checkpoint, with or without the family's prefix.
    fn take(&mut self, name: &str) -> Result<Option<Tensor>> {
        let short = name.strip_prefix(self.names.prefix).unwrap_or(name);
        let tensors = &mut self.source.tensors;
        let tensor = tensors.remove(name).or_else(|| tensors.remove(short));
        if tensor.is_none()
            && let Some(dtype) = self.source.skipped.get(name).or_else(|| self.source.skipped.get(short))
        {
            return Err(
                self.error(ErrorKind::Unsupported, format!("tensor {name} has element type {dtype}, which is not supported"))
            );
        }
        let left = self.source.tensors.len();
        if let Some(progress) = &mut self.options.progress
            && !progress((self.total - left) as f32 / self.total as f32)
        {
            return Err(self.error(ErrorKind::Cancelled, "loading was cancelled".into()));
        }
        Ok(tensor)
    }

    fn need(&mut self, name: &str) -> Result<Tensor> {
        self.take(name)?.ok_or_else(|| self.error(ErrorKind::BadFile, format!("tensor {name} is missing")))
    }

    fn check_shape(&self, name: &str, tensor: &Tensor, shape: &[usize]) -> Result<()> {
        if tensor.shape == shape {
            return Ok(());
        }
        Err(Error::bad_file(&tensor.file, format!("tensor {name} has shape {:?}; expected {shape:?}", tensor.shape)))
    }

    /// The name of `slot`'s tensor; a family whose spec asks for a slot names it.
    fn name(&self, slot: Slot, layer: usize, ending: &str) -> Result<String> {
        let stem = self.names.stem(slot, layer);
        let stem =
            stem.ok_or_else(|| self.error(ErrorKind::Internal, format!("family {} does not name {slot:?}", self.spec.family)))?;
        Ok(stem + ending)
    }

    /// A vector `[n]` as f32.
    fn vector(&self, name: &str, tensor: Tensor, n: usize) -> Result<Vec<f32>> {
        self.check_shape(name, &tensor, &[n])?;
        let mut out = try_vec(0.0, n, name)?;
        self.kernels.unpack(tensor.dtype, &tensor.data, 0, &mut out);
        Ok(out)
    }

    fn norm(&mut self, slot: Slot, layer: usize, n: usize) -> Result<Norm> {
        let name = self.name(slot, layer, ".weight")?;
        let weight = self.need(&name)?;
        let weight = self.vector(&name, weight, n)?;
        let bias = match self.spec.norm {
            NormKind::RmsNorm => None,
            NormKind::LayerNorm => {
                let name = self.name(slot, layer, ".bias")?;
                let bias = self.need(&name)?;
                Some(self.vector(&name, bias, n)?)
            }
        };
        Ok(Norm { kind: self.spec.norm, weight, bias, eps: self.spec.norm_eps })
    }

    /// A projection of a layer.
    fn linear(&mut self, slot: Slot, layer: usize, n_out: usize, n_in: usize, bias: Bias) -> Result<Linear> {
        self.linear_at(slot, layer, n_out, n_in, self.spec.layout, bias)
    }

    fn linear_at(&mut self, slot: Slot, layer: usize, n_out: usize, n_in: usize, layout: Layout, bias: Bias) -> Result<Linear> {
        let name = self.name(slot, layer, ".weight")?;
        let weight = self.need(&name)?;
        match layout {
            Layout::OutIn => self.check_shape(&name, &weight, &[n_out, n_in])?,
            Layout::InOut => self.check_shape(&name, &weight, &[n_in, n_out])?,
        }
        let weight = self.convert(&name, weight)?;
        let name = self.name(slot, layer, ".bias")?;
        let bias = match bias {
            Bias::No => None,
            Bias::Yes => Some(self.need(&name)?),
            Bias::IfPresent => self.take(&name)?,
        };
        let bias = bias.map(|tensor| self.vector(&name, tensor, n_out)).transpose()?;
        Ok(Linear::new(weight, layout, bias))
    }

    /// The tensor in the element type that the options ask for.
    fn convert(&self, name: &str, tensor: Tensor) -> Result<Tensor> {
        let dtype = match self.options.weights {
            Weights::Keep => return Ok(tensor),
            Weights::F32 => DType::F32,
            Weights::Bf16 => DType::Bf16,
        };
        if dtype == tensor.dtype {
            return Ok(tensor);
        }
        let n: usize = tensor.shape.iter().product();
        let mut data = try_vec(0u8, n * dtype.size(), name)?;
        let mut row = [0.0; 4096];
        for (i, out) in data.chunks_mut(row.len() * dtype.size()).enumerate() {
            let row = &mut row[..out.len() / dtype.size()];
            self.kernels.unpack(tensor.dtype, &tensor.data, i * 4096, row);
            self.kernels.pack(dtype, row, out);
        }
        let all = 0..data.len();
        match Bytes::new(Arc::new(Mapping::Owned(data)), all) {
            Some(data) => Ok(Tensor { dtype, data, ..tensor }),
            None => Err(self.error(ErrorKind::Internal, format!("tensor {name}: converted to the wrong size"))),
        }
    }

    fn layer(&mut self, i: usize) -> Result<Layer> {
        let spec = self.spec;
        let (hidden, ffn, q, kv) = (spec.hidden_size, spec.ffn_size, spec.q_size(), spec.kv_size());
        let qkv = if spec.fused_qkv {
            vec![self.linear(Slot::Qkv, i, q + 2 * kv, hidden, spec.qkv_bias)?]
        } else {
            vec![
                self.linear(Slot::Q, i, q, hidden, spec.qkv_bias)?,
                self.linear(Slot::K, i, kv, hidden, spec.qkv_bias)?,
                self.linear(Slot::V, i, kv, hidden, spec.qkv_bias)?,
            ]
        };
        let mut up = Vec::with_capacity(2);
        if spec.mlp == Mlp::Gated {
            up.push(self.linear(Slot::Gate, i, ffn, hidden, spec.mlp_bias)?);
        }
        up.push(self.linear(Slot::Up, i, ffn, hidden, spec.mlp_bias)?);
        Ok(Layer {
            attention_norm: self.norm(Slot::AttentionNorm, i, hidden)?,
            qkv,
            qk_norm: match spec.qk_norm {
                QkNorm::None => None,
                QkNorm::Whole => Some((self.norm(Slot::QNorm, i, q)?, self.norm(Slot::KNorm, i, kv)?)),
            },
            o: self.linear(Slot::O, i, hidden, q, spec.o_bias)?,
            mlp_norm: self.norm(Slot::MlpNorm, i, hidden)?,
            up,
            down: self.linear(Slot::Down, i, hidden, ffn, spec.mlp_bias)?,
        })
    }

    /// The RoPE table, with the factors that a GGUF file may carry.
    fn rope(&mut self) -> Result<Option<RopeTable>> {
        let Position::Rope(rope) = &self.spec.position else { return Ok(None) };
        let mut frequencies = rope.frequencies();
        if self.names.stem(Slot::RopeFactors, 0).is_some() {
            let name = self.name(Slot::RopeFactors, 0, ".weight")?;
            if let Some(tensor) = self.take(&name)? {
                let factors = self.vector(&name, tensor, frequencies.len())?;
                if let Some(bad) = factors.iter().find(|f| !(f.is_finite() && **f > 0.0)) {
                    return Err(self.error(ErrorKind::BadFile, format!("tensor {name} holds {bad}; expected finite numbers > 0")));
                }
                frequencies.iter_mut().zip(factors).for_each(|(f, factor)| *f /= f64::from(factor));
            }
        }
        Ok(Some(RopeTable::new(frequencies, rope.magnitude(), rope.pairing, self.spec.context_length)?))
    }

    /// The output head; `None` if it is the embedding. A tied model's file may hold the embedding a second time.
    fn head(&mut self) -> Result<Option<Linear>> {
        let name = self.name(Slot::Head, 0, ".weight")?;
        let present = self.source.tensors.contains_key(&name);
        match self.spec.tied_head {
            Some(true) => self.take(&name).map(|_| None),
            None if !present => Ok(None),
            _ => {
                let (vocab, hidden) = (self.spec.vocab_size, self.spec.hidden_size);
                self.linear_at(Slot::Head, 0, vocab, hidden, Layout::OutIn, Bias::No).map(Some)
            }
        }
    }

    /// Every tensor has found its slot.
    fn nothing_left(&self) -> Result<()> {
        let mut left = self.source.tensors.keys().filter(|name| !self.names.is_ignored(name));
        match left.next() {
            None => Ok(()),
            Some(name) => {
                let message = format!("tensor {name} has no place in a {} model of this configuration", self.spec.family);
                let more = left.count();
                let more = if more > 0 { format!(" ({more} more like it)") } else { String::new() };
                Err(self.error(ErrorKind::Unsupported, message + &more))
            }
        }
    }
}
