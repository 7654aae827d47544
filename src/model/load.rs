//! A checkpoint's tensors into the slots of a model: every tensor is checked against the shape that the spec asks for, and one
//! that no slot takes is an error.
#![forbid(unsafe_code)]

use super::{Block, FeedForward, Info, Layer, Model};
use crate::arch::{self, Bias, Experts, Mlp, Names, NormPlace, NormWeight, QkNorm, Residual, Slot, Spec};
use crate::error::{Error, ErrorKind, Result, try_vec, try_with_capacity};
use crate::format::mmap::{Mapping, room};
use crate::format::{self, Bytes, Checkpoint, DType, MapMode, Tensor};
use crate::kernels::{Isa, Kernels, Layout, Matrix};
use crate::ops::elementwise::Norm;
use crate::ops::linear::{Linear, Needs};
use crate::ops::rope::RopeTable;
use crate::quantize::convert::Convert;
use crate::quantize::mixture::{self, Facts, Recipe, Role};
use crate::text::UnknownPre;
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
    /// Quantised. Routers and position tables stay as they are.
    Quantise(Recipe),
}

/// How the prefill path multiplies with f32 weights on a CPU with a matrix unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matmul {
    /// In f32, as on any other CPU.
    #[default]
    Exact,
    /// As sums of three bf16 numbers each, with an error of f32's own size.
    Split,
}

/// The types in which a model's matrices are held.
pub(super) struct Types<'a> {
    pub weights: Weights,
    pub spec: &'a Spec,
    /// Whether the embedding is the head too.
    pub tied: bool,
}

impl Types<'_> {
    /// That of the matrix in `slot`, whose rows have `n_in` elements and which is `dtype` in the file.
    pub fn of(&self, slot: Slot, layer: usize, n_in: usize, dtype: DType) -> DType {
        let recipe = match self.weights {
            Weights::Keep => return dtype,
            Weights::F32 => return DType::F32,
            Weights::Bf16 => return DType::BF16,
            Weights::Quantise(recipe) => recipe,
        };
        let role = match slot {
            Slot::Router | Slot::PositionEmbedding => return dtype,
            Slot::Head => Role::Head,
            Slot::Embedding if self.tied => Role::Head,
            Slot::V | Slot::Qkv => Role::Value,
            Slot::K => Role::Key,
            Slot::O => Role::AttentionOutput,
            Slot::Down | Slot::ExpertDown => Role::Down,
            _ => Role::Other,
        };
        let Spec { family, n_heads, n_kv_heads, experts, .. } = self.spec;
        let n_layers = self.spec.n_layers();
        let facts = Facts::new(family, n_layers, *n_heads, *n_kv_heads, experts.map_or(0, |e| e.n_experts));
        mixture::dtype(recipe, facts, role, (layer, n_layers), n_in)
    }
}

/// Called with the fraction loaded, 0 to 1; `false` cancels the load.
pub type Progress<'a> = &'a mut dyn FnMut(f32) -> bool;

/// How to load a model. `Default` is what most programs want.
#[derive(Default)]
pub struct LoadOptions<'a> {
    /// Threads, the caller's counted in; 0: physical cores this process may use.
    pub threads: usize,
    /// Whether each worker thread stays on a core of its own ([`Pool::pinned`]).
    pub pin_threads: bool,
    /// Instruction set; `None`: the best this CPU has (or the environment's `ENGINE_ISA`).
    pub isa: Option<Isa>,
    /// Conversion of the weights.
    pub weights: Weights,
    /// How f32 weights are multiplied.
    pub matmul: Matmul,
    /// How files are brought into memory.
    pub mapping: MapMode,
    /// What to do about a GGUF file's pre-tokenizer that this version does not know.
    pub unknown_pre_tokenizer: UnknownPre,
    /// Whether caches note where the time goes: [`Cache::profile`](super::Cache::profile).
    pub profile: bool,
    /// Progress callback.
    pub progress: Option<Progress<'a>>,
}

/// See [`Model::load`].
pub(super) fn load(path: &Path, options: LoadOptions<'_>) -> Result<Arc<Model>> {
    let kernels = Kernels::select(options.isa)?;
    let pool = if options.pin_threads { Pool::pinned(options.threads)? } else { Pool::new(options.threads)? };
    let mut source = format::open(path, options.mapping)?;
    let (spec, names) = arch::identify(&source)?;
    let (name, file_type) = (source.name()?, source.file_type());
    let total = source.tensors.len();
    let mut loader = Loader { source: &mut source, spec: &spec, names, kernels, pool: &pool, options, total, tied: false };
    loader.tied = spec.is_tied(loader.has_slot(Slot::Head, 0));

    let embedding = loader.linear(Slot::Embedding, 0, spec.vocab_size, spec.hidden_size, Bias::No)?;
    let positions = match spec.learned_positions {
        true => {
            let (rows, width) = (spec.context_length, spec.hidden_size);
            Some(loader.linear(Slot::PositionEmbedding, 0, rows, width, Bias::No)?)
        }
        false => None,
    };
    let (ropes, long_ropes) = loader.ropes()?;
    let mut layers = try_with_capacity(spec.n_layers(), "the list of layers")?;
    for i in 0..spec.n_layers() {
        layers.push(loader.layer(i)?);
    }
    let output_norm = loader.norm(Slot::OutputNorm, 0, spec.hidden_size)?;
    let head = loader.head()?;
    loader.nothing_left()?;

    let linears = || layers.iter().flat_map(Layer::linears).chain([&embedding]).chain(&positions).chain(&head);
    let norms = layers.iter().flat_map(Layer::norms).chain([&output_norm]);
    let norm_params: usize = norms.map(|n| n.weight.len() + n.bias.as_ref().map_or(0, Vec::len)).sum();
    let info = Info {
        architecture: spec.family,
        name,
        file_type,
        n_params: (linears().map(Linear::n_params).sum::<usize>() + norm_params) as u64,
        weight_bytes: (linears().map(Linear::weight_bytes).sum::<usize>() + norm_params * size_of::<f32>()) as u64,
        n_layers: spec.n_layers(),
        hidden_size: spec.hidden_size,
        n_heads: spec.n_heads,
        n_kv_heads: spec.n_kv_heads,
        head_dim: spec.head_dim,
        threads: pool.threads(),
        isa: kernels.isa().name(),
    };
    let unknown_pre_tokenizer = loader.options.unknown_pre_tokenizer;
    let profiled = loader.options.profile;
    let linear_needs = Needs::of(kernels, linears());
    let tokenizer = OnceCell::new();
    Ok(Arc::new(Model {
        spec,
        kernels,
        pool,
        embedding,
        positions,
        ropes,
        long_ropes,
        layers,
        output_norm,
        head,
        info,
        profiled,
        linear_needs,
        source,
        unknown_pre_tokenizer,
        tokenizer,
    }))
}

/// The state of one load.
struct Loader<'a, 'o> {
    source: &'a mut Checkpoint,
    spec: &'a Spec,
    names: &'static Names,
    kernels: &'static Kernels,
    pool: &'a Pool,
    options: LoadOptions<'o>,
    /// Whether the embedding is the head too.
    tied: bool,
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

    /// Whether the checkpoint has the tensor `name`, with or without the family's prefix; also one of a type that is not read.
    fn has(&self, name: &str) -> bool {
        let (tensors, skipped) = (&self.source.tensors, &self.source.skipped);
        let short = name.strip_prefix(self.names.prefix).unwrap_or(name);
        [name, short].into_iter().any(|name| tensors.contains_key(name) || skipped.contains_key(name))
    }

    /// The name of `slot`'s tensor without its ending: of several that the family may use, the one that is there. A family whose
    /// spec asks for a slot names it.
    fn stem(&self, slot: Slot, layer: usize) -> Result<String> {
        let mut stems = self.names.stems(slot, layer);
        let is_there = |stem: &String| self.has(&(stem.replace("{e}", "0") + ".weight"));
        let first = self.names.stems(slot, layer).next();
        stems
            .find(is_there)
            .or(first)
            .ok_or_else(|| self.error(ErrorKind::Internal, format!("family {} does not name {slot:?}", self.spec.family)))
    }

    /// Whether the family has a tensor for `slot`, and the checkpoint too.
    fn has_slot(&self, slot: Slot, layer: usize) -> bool {
        self.names.stems(slot, layer).any(|stem| self.has(&(stem + ".weight")))
    }

    /// A vector `[n]` as f32.
    fn vector(&self, name: &str, tensor: Tensor, n: usize) -> Result<Vec<f32>> {
        self.check_shape(name, &tensor, &[n])?;
        self.unpacked(name, &tensor, n)
    }

    /// All `n` elements as f32.
    fn unpacked(&self, name: &str, tensor: &Tensor, n: usize) -> Result<Vec<f32>> {
        let mut out = try_vec(0.0, n, name)?;
        self.kernels.unpack(tensor.dtype, &tensor.data, 0, &mut out);
        Ok(out)
    }

    fn norm(&mut self, slot: Slot, layer: usize, n: usize) -> Result<Norm> {
        self.norm_of(slot, layer, &[n], self.spec.norm_bias)
    }

    /// A norm whose weights have `shape`.
    fn norm_of(&mut self, slot: Slot, layer: usize, shape: &[usize], has_bias: bool) -> Result<Norm> {
        let (kind, eps) = (self.spec.norm, self.spec.norm_eps);
        let n = shape.iter().product();
        if self.spec.norm_weight == NormWeight::None {
            return Ok(Norm { kind, weight: try_vec(1.0, n, "a norm")?, bias: None, eps });
        }
        let stem = self.stem(slot, layer)?;
        let name = format!("{stem}.weight");
        let tensor = self.need(&name)?;
        self.check_shape(&name, &tensor, shape)?;
        let mut weight = self.unpacked(&name, &tensor, n)?;
        if self.spec.norm_weight == NormWeight::PlusOne {
            weight.iter_mut().for_each(|w| *w += 1.0);
        }
        let bias = match has_bias {
            false => None,
            true => {
                let name = format!("{stem}.bias");
                let bias = self.need(&name)?;
                Some(self.vector(&name, bias, n)?)
            }
        };
        Ok(Norm { kind, weight, bias, eps })
    }

    fn norm_if(&mut self, there: bool, slot: Slot, layer: usize) -> Result<Option<Norm>> {
        if there { self.norm(slot, layer, self.spec.hidden_size).map(Some) } else { Ok(None) }
    }

    fn linear(&mut self, slot: Slot, layer: usize, n_out: usize, n_in: usize, bias: Bias) -> Result<Linear> {
        let stem = self.stem(slot, layer)?;
        self.linear_named(&stem, (slot, layer), n_out, n_in, bias)
    }

    fn linear_named(&mut self, stem: &str, place: (Slot, usize), n_out: usize, n_in: usize, bias: Bias) -> Result<Linear> {
        let name = format!("{stem}.weight");
        let weight = self.need(&name)?;
        let layout = self.spec.layout_of(place.0);
        match layout {
            Layout::OutIn => self.check_shape(&name, &weight, &[n_out, n_in])?,
            Layout::InOut => self.check_shape(&name, &weight, &[n_in, n_out])?,
        }
        let (weight, layout) = self.convert(&name, place, weight, layout)?;
        if let (Layout::InOut, DType::Quant(_)) = (layout, weight.dtype) {
            let message = format!("tensor {name} is of type {} with a column to an output", weight.dtype.name());
            return Err(self.error(ErrorKind::Unsupported, message));
        }
        let name = format!("{stem}.bias");
        let bias = match bias {
            Bias::No => None,
            Bias::Yes => Some(self.need(&name)?),
            Bias::IfPresent => self.take(&name)?,
        };
        let bias = bias.map(|tensor| self.vector(&name, tensor, n_out)).transpose()?;
        Ok(self.projection(weight, layout, bias))
    }

    fn projection(&self, weight: Tensor, layout: Layout, bias: Option<Vec<f32>>) -> Linear {
        Linear::new(weight, layout, bias).split(self.options.matmul == Matmul::Split)
    }

    /// The tensor in the element type that the options ask for. Blocks run along the inputs, so a quantised one is
    /// [`Layout::OutIn`].
    fn convert(&self, name: &str, (slot, layer): (Slot, usize), tensor: Tensor, layout: Layout) -> Result<(Tensor, Layout)> {
        let (Some(&first), Some(&last)) = (tensor.shape.first(), tensor.shape.last()) else { return Ok((tensor, layout)) };
        let n_in = if layout == Layout::OutIn { last } else { first };
        let types = Types { weights: self.options.weights, spec: self.spec, tied: self.tied };
        let dtype = types.of(slot, layer, n_in, tensor.dtype);
        if dtype == tensor.dtype {
            return Ok((tensor, layout));
        }
        let elements: usize = tensor.shape.iter().product();
        let wrong_size = || self.error(ErrorKind::Internal, format!("tensor {name}: converted to the wrong size"));
        // To a float, the elements stay where they are whatever the layout.
        let (from, n_in, to, shape) = match (dtype, layout) {
            (DType::Quant(_), Layout::InOut) => (Layout::InOut, n_in, Layout::OutIn, vec![last, first]),
            _ => (Layout::OutIn, last, layout, tensor.shape.clone()),
        };
        let source = Matrix { dtype: tensor.dtype, layout: from, n_out: elements / n_in, n_in, data: &tensor.data };
        let len = dtype.bytes(elements).ok_or_else(wrong_size)?;
        let mut data = room(len, name)?;
        data.resize(len, 0);
        let convert = Convert { kernels: self.kernels, pool: self.pool, file: &tensor.file, name };
        convert.rows(source, 0, dtype, &mut data)?;
        let all = 0..data.len();
        let data = Bytes::new(Arc::new(Mapping::Owned(data)), all).ok_or_else(wrong_size)?;
        Ok((Tensor { dtype, shape, data, ..tensor }, to))
    }

    fn layer(&mut self, i: usize) -> Result<Layer> {
        let spec = self.spec;
        let (hidden, q, kv) = (spec.hidden_size, spec.q_size(), spec.kv_size());
        let (before, behind) = (spec.norm_place != NormPlace::After, spec.norm_place != NormPlace::Before);
        Ok(Layer {
            attention_norm: self.norm_if(before, Slot::AttentionNorm, i)?,
            qkv: self.qkv(i)?,
            qk_norm: match spec.qk_norm {
                QkNorm::None => None,
                QkNorm::Whole => Some((self.norm_of(Slot::QNorm, i, &[q], false)?, self.norm_of(Slot::KNorm, i, &[kv], false)?)),
                QkNorm::PerHead => {
                    let shape = [spec.head_dim];
                    Some((self.norm_of(Slot::QNorm, i, &shape, false)?, self.norm_of(Slot::KNorm, i, &shape, false)?))
                }
                QkNorm::EachHead => {
                    let shapes = [[spec.n_heads, spec.head_dim], [spec.n_kv_heads, spec.head_dim]];
                    Some((self.norm_of(Slot::QNorm, i, &shapes[0], false)?, self.norm_of(Slot::KNorm, i, &shapes[1], false)?))
                }
            },
            o: self.linear(Slot::O, i, hidden, q, spec.o_bias)?,
            attention_post_norm: self.norm_if(behind, Slot::AttentionPostNorm, i)?,
            mlp_norm: self.norm_if(before && spec.residual != Residual::ParallelSharedNorm, Slot::MlpNorm, i)?,
            mlp: match (spec.layers.get(i).is_some_and(|layer| layer.sparse), spec.experts) {
                (true, Some(experts)) => self.experts(i, experts)?,
                _ => FeedForward::Dense(self.block(i)?),
            },
            mlp_post_norm: self.norm_if(behind, Slot::MlpPostNorm, i)?,
        })
    }

    /// One matrix, where the file has one, or three.
    fn qkv(&mut self, i: usize) -> Result<Vec<Linear>> {
        let (hidden, q, kv, bias) = (self.spec.hidden_size, self.spec.q_size(), self.spec.kv_size(), self.spec.qkv_bias);
        if self.has_slot(Slot::Qkv, i) || self.names.stems(Slot::Q, i).next().is_none() {
            return Ok(vec![self.linear(Slot::Qkv, i, q + 2 * kv, hidden, bias)?]);
        }
        Ok(vec![
            self.linear(Slot::Q, i, q, hidden, bias)?,
            self.linear(Slot::K, i, kv, hidden, bias)?,
            self.linear(Slot::V, i, kv, hidden, bias)?,
        ])
    }

    /// The feed-forward block of a layer that has one.
    fn block(&mut self, i: usize) -> Result<Block> {
        let Spec { hidden_size: hidden, ffn_size: ffn, mlp_bias: bias, .. } = *self.spec;
        let up = match self.spec.mlp {
            Mlp::Plain => vec![self.linear(Slot::Up, i, ffn, hidden, bias)?],
            Mlp::Gated if self.has_slot(Slot::GateUp, i) => vec![self.linear(Slot::GateUp, i, 2 * ffn, hidden, bias)?],
            Mlp::Gated => {
                vec![self.linear(Slot::Gate, i, ffn, hidden, bias)?, self.linear(Slot::Up, i, ffn, hidden, bias)?]
            }
        };
        Ok(Block { up, down: self.linear(Slot::Down, i, hidden, ffn, bias)? })
    }

    /// The router and the blocks of a layer that has many.
    fn experts(&mut self, i: usize, experts: Experts) -> Result<FeedForward> {
        let (hidden, ffn) = (self.spec.hidden_size, experts.ffn_size);
        let router = self.linear(Slot::Router, i, experts.n_experts, hidden, Bias::No)?;
        let gates = match self.spec.mlp {
            Mlp::Gated => self.of_experts(Slot::ExpertGate, i, experts.n_experts, ffn, hidden)?.into_iter().map(Some).collect(),
            Mlp::Plain => Vec::new(),
        };
        let ups = self.of_experts(Slot::ExpertUp, i, experts.n_experts, ffn, hidden)?;
        let downs = self.of_experts(Slot::ExpertDown, i, experts.n_experts, hidden, ffn)?;
        let gates = gates.into_iter().chain(std::iter::repeat_with(|| None));
        let blocks =
            gates.zip(ups).zip(downs).map(|((gate, up), down)| Block { up: gate.into_iter().chain([up]).collect(), down });
        Ok(FeedForward::Experts { router, blocks: blocks.collect() })
    }

    /// One projection of every expert: a tensor each, or one `[n_experts, n_out, n_in]` of which each is a part.
    fn of_experts(&mut self, slot: Slot, layer: usize, n_experts: usize, n_out: usize, n_in: usize) -> Result<Vec<Linear>> {
        let stem = self.stem(slot, layer)?;
        if stem.contains("{e}") {
            let name = |e: usize| stem.replace("{e}", &e.to_string());
            let place = (slot, layer);
            return (0..n_experts).map(|e| self.linear_named(&name(e), place, n_out, n_in, Bias::No)).collect();
        }
        let name = format!("{stem}.weight");
        let all = self.need(&name)?;
        self.check_shape(&name, &all, &[n_experts, n_out, n_in])?;
        let (all, layout) = self.convert(&name, (slot, layer), all, self.spec.layout_of(slot))?;
        let part = |e: usize| {
            let weight = all.slice_first(e).ok_or_else(|| self.error(ErrorKind::Internal, format!("{name} has no part {e}")))?;
            Ok(self.projection(weight, layout, None))
        };
        (0..n_experts).map(part).collect()
    }

    /// The RoPE tables: those of all sequences, or of short ones and (with the length from which they count) of long ones.
    #[allow(clippy::type_complexity)]
    fn ropes(&mut self) -> Result<(Vec<RopeTable>, Option<(usize, Vec<RopeTable>)>)> {
        let spec = self.spec;
        let short_context = spec.ropes.iter().find_map(|rope| rope.short_context());
        let factors = self.rope_factors(if short_context.is_some() { Slot::RopeShortFactors } else { Slot::RopeFactors })?;
        let long_factors = self.rope_factors(Slot::RopeLongFactors)?;
        let tables = |long: bool, factors: &Option<Vec<f32>>| -> Result<Vec<RopeTable>> {
            let table = |rope: &arch::rope::Rope| {
                let mut frequencies = rope.frequencies(long);
                let factors = factors.iter().flatten();
                frequencies.iter_mut().zip(factors).for_each(|(f, factor)| *f /= f64::from(*factor));
                RopeTable::new(frequencies, rope.magnitude(), rope.pairing, spec.context_length)
            };
            spec.ropes.iter().map(table).collect()
        };
        let long = match short_context {
            Some(context) if context < spec.context_length => Some((context, tables(true, &long_factors)?)),
            _ => None,
        };
        Ok((tables(false, &factors)?, long))
    }

    /// The factors that a GGUF file may carry.
    fn rope_factors(&mut self, slot: Slot) -> Result<Option<Vec<f32>>> {
        let Some(name) = self.names.stems(slot, 0).next().map(|stem| stem + ".weight") else { return Ok(None) };
        let (Some(tensor), Some(rope)) = (self.take(&name)?, self.spec.ropes.first()) else { return Ok(None) };
        let factors = self.vector(&name, tensor, rope.rotary_dim / 2)?;
        match factors.iter().find(|f| !(f.is_finite() && **f > 0.0)) {
            Some(bad) => Err(self.error(ErrorKind::BadFile, format!("tensor {name} holds {bad}; expected finite numbers > 0"))),
            None => Ok(Some(factors)),
        }
    }

    /// The output head; `None` if it is the embedding, a copy of which the file may have.
    fn head(&mut self) -> Result<Option<Linear>> {
        if !self.tied {
            let (vocab, hidden) = (self.spec.vocab_size, self.spec.hidden_size);
            return self.linear(Slot::Head, 0, vocab, hidden, Bias::No).map(Some);
        }
        if self.has_slot(Slot::Head, 0) {
            let name = self.stem(Slot::Head, 0)? + ".weight";
            self.take(&name)?;
        }
        Ok(None)
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
