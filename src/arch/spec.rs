//! [`Spec`]: a decoder-only transformer as data, and what most families read alike from their config or metadata.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::Slot;
use super::rope::Rope;
use crate::error::{Error, ErrorKind, Result, try_vec};
use crate::kernels::Layout;
use crate::ops::elementwise::{Activation, NormKind};
use crate::ops::rope::Pairing;

/// Where a sub-layer's norms sit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlace {
    /// h + f(norm(h)), as GPT-2 and Llama do.
    Before,
    /// h + norm(f(h)), as OLMo-2 does.
    After,
    /// h + norm(f(norm(h))), as Gemma 2 does.
    Both,
}

/// What a norm's weights in the file mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormWeight {
    /// The factors.
    Plain,
    /// The factors less one (Gemma).
    PlusOne,
    /// There are none (OLMo).
    None,
}

/// What the feed-forward block reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// The residual stream with the attention's output: h += attention(…); h += mlp(…).
    Sequential,
    /// The same stream as the attention, by a norm of its own: h += attention(norm₁(h)) + mlp(norm₂(h)).
    Parallel,
    /// The same, through the attention's norm: h += attention(norm(h)) + mlp(norm(h)).
    ParallelSharedNorm,
}

/// Norm on queries and keys, before RoPE; of the kind of all norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// Over the whole projected vector, all heads together (OLMo-2).
    Whole,
    /// Over each head, with the same weights for all heads (Qwen3).
    PerHead,
    /// Over each head, with weights `[n_heads, head_dim]` (Cohere).
    EachHead,
}

/// The feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// down(act(gate(x)) · up(x)).
    Gated,
    /// down(act(up(x))).
    Plain,
}

/// A mixture of experts: a router gives each token weights for `n_experts` feed-forward blocks, of which the `n_used` largest run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// Blocks of a layer.
    pub n_experts: usize,
    /// Blocks that a token passes through.
    pub n_used: usize,
    /// Width inside one block.
    pub ffn_size: usize,
    /// The weights are softmax over all experts; whether those of the chosen are divided by their sum.
    pub normalize: bool,
}

/// Whether a projection has a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// It has none; one in the file is an error.
    No,
    /// It has one; a missing one is an error.
    Yes,
    /// The file decides (GGUF metadata does not say).
    IfPresent,
}

/// The rows of a matrix that holds q, k and v together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FusedQkv {
    /// All of q, then k, then v.
    InTurn,
    /// By key/value head: the queries that share it, its k, its v (GPT-NeoX, Falcon).
    ByKvHead,
}

/// What may differ from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerKind {
    /// Most positions that a token sees, its own counted in; `None`: all.
    pub window: Option<usize>,
    /// Index in [`Spec::ropes`]; `None`: positions do not enter here.
    pub rope: Option<usize>,
    /// Scores are q·k times this.
    pub attention_scale: f32,
    /// The feed-forward block is a mixture of [`Spec::experts`].
    pub sparse: bool,
}

/// A decoder-only transformer, as data.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Family name.
    pub family: &'static str,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Most positions.
    pub context_length: usize,
    /// The decoder layers.
    pub layers: Vec<LayerKind>,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the (dense) feed-forward block.
    pub ffn_size: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Kind of every norm.
    pub norm: NormKind,
    /// What the norms' weights mean.
    pub norm_weight: NormWeight,
    /// The norms have a bias.
    pub norm_bias: bool,
    /// Their epsilon.
    pub norm_eps: f32,
    /// Where a sub-layer's norms sit.
    pub norm_place: NormPlace,
    /// What the feed-forward block reads.
    pub residual: Residual,
    /// What a sub-layer's output is multiplied by before it is added.
    pub residual_scale: f32,
    /// A learned table of positions is added to the embedding.
    pub learned_positions: bool,
    /// Rotary embeddings of queries and keys, which the layers refer to.
    pub ropes: Vec<Rope>,
    /// Norm on queries and keys.
    pub qk_norm: QkNorm,
    /// Queries, keys and values are clamped to ± this, behind their norms.
    pub qkv_clip: Option<f32>,
    /// Attention scores s become c·tanh(s / c).
    pub attention_softcap: Option<f32>,
    /// The feed-forward block's shape.
    pub mlp: Mlp,
    /// The mixtures of experts of the layers that have one.
    pub experts: Option<Experts>,
    /// The feed-forward block's activation.
    pub activation: Activation,
    /// Bias of q, k and v.
    pub qkv_bias: Bias,
    /// Bias of the attention's output projection.
    pub o_bias: Bias,
    /// Bias of the feed-forward projections.
    pub mlp_bias: Bias,
    /// How q, k and v lie where the file has them as one matrix.
    pub fused_qkv: FusedQkv,
    /// How the layers' projections lie in the file; see [`Spec::layout_of`].
    pub layout: Layout,
    /// What the embedding is multiplied by.
    pub embedding_scale: f32,
    /// What the logits are multiplied by.
    pub logit_scale: f32,
    /// Logits l then become c·tanh(l / c).
    pub logit_softcap: Option<f32>,
    /// The head is the embedding: `Some` says so, `None` lets the file decide (a missing head is tied).
    pub tied_head: Option<bool>,
}

/// Most layers; checked before a list of them is made.
const MAX_LAYERS: usize = 4096;

impl Spec {
    /// What a `config.json` in the manner of Llama says: RMSNorm before each sub-layer, a gated MLP, RoPE in every layer over
    /// the whole head. Each family changes what it does otherwise.
    pub(super) fn from_config(family: &'static str, c: &Config<'_>) -> Result<Spec> {
        let head_dim = head_dim(c)?;
        Spec::from_config_with(family, c, head_dim, Rope::from_config(c, head_dim)?)
    }

    /// The same with heads and RoPE that the family reads otherwise.
    pub(super) fn from_config_with(family: &'static str, c: &Config<'_>, head_dim: usize, rope: Rope) -> Result<Spec> {
        let (hidden_size, n_heads) = (c.need_usize("hidden_size")?, c.need_usize("num_attention_heads")?);
        let bias = |key| Ok(if c.bool(key)?.unwrap_or(false) { Bias::Yes } else { Bias::No });
        let attention_bias = bias("attention_bias")?;
        let n_layers = c.need_usize("num_hidden_layers")?;
        let plain = Spec::plain(family, n_layers, hidden_size, n_heads, head_dim).map_err(|e| e.context(c.path.display()))?;
        Ok(Spec {
            vocab_size: c.need_usize("vocab_size")?,
            context_length: c.usize("max_position_embeddings")?.unwrap_or(2048),
            ffn_size: c.need_usize("intermediate_size")?,
            n_kv_heads: c.usize("num_key_value_heads")?.unwrap_or(n_heads),
            norm_eps: c.f64("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            ropes: vec![rope],
            activation: c.activation("hidden_act", "silu")?,
            qkv_bias: attention_bias,
            o_bias: attention_bias,
            mlp_bias: bias("mlp_bias")?,
            tied_head: Some(c.bool("tie_word_embeddings")?.unwrap_or(false)),
            ..plain
        })
    }

    /// The same of GGUF metadata.
    pub(super) fn from_metadata(family: &'static str, m: &Meta<'_>, pairing: Pairing, norm: NormKind) -> Result<Spec> {
        let (hidden_size, n_heads) = (m.need_usize("embedding_length")?, m.need_usize("attention.head_count")?);
        let head_dim = m.usize("attention.key_length")?.unwrap_or(hidden_size / n_heads.max(1));
        m.only("attention.value_length", head_dim)?;
        let eps = match norm {
            NormKind::RmsNorm => "attention.layer_norm_rms_epsilon",
            NormKind::LayerNorm => "attention.layer_norm_epsilon",
        };
        let plain = Spec::plain(family, m.need_usize("block_count")?, hidden_size, n_heads, head_dim)
            .map_err(|e| e.context(m.path().display()))?;
        Ok(Spec {
            vocab_size: m.vocab_size,
            context_length: m.need_usize("context_length")?,
            ffn_size: m.need_usize("feed_forward_length")?,
            n_kv_heads: m.usize("attention.head_count_kv")?.unwrap_or(n_heads),
            norm,
            norm_bias: norm == NormKind::LayerNorm,
            norm_eps: m.need_f64(eps)? as f32,
            ropes: vec![Rope::from_metadata(m, head_dim, pairing)?],
            qkv_bias: Bias::IfPresent,
            o_bias: Bias::IfPresent,
            mlp_bias: Bias::IfPresent,
            tied_head: None,
            ..plain
        })
    }

    /// RMSNorm before each sub-layer, a gated MLP, the layers as Llama's; the sizes and RoPE are the caller's to fill in.
    pub(super) fn plain(
        family: &'static str,
        n_layers: usize,
        hidden_size: usize,
        n_heads: usize,
        head_dim: usize,
    ) -> Result<Spec> {
        if n_layers == 0 || n_layers > MAX_LAYERS {
            return Err(bad(format!("number of layers is {n_layers}; expected 1 to {MAX_LAYERS}")));
        }
        let attention_scale = 1.0 / (head_dim as f32).sqrt();
        let layer = LayerKind { window: None, rope: Some(0), attention_scale, sparse: false };
        Ok(Spec {
            family,
            vocab_size: 0,
            context_length: 0,
            layers: try_vec(layer, n_layers, "the list of layers")?,
            hidden_size,
            ffn_size: 0,
            n_heads,
            n_kv_heads: n_heads,
            head_dim,
            norm: NormKind::RmsNorm,
            norm_weight: NormWeight::Plain,
            norm_bias: false,
            norm_eps: 0.0,
            norm_place: NormPlace::Before,
            residual: Residual::Sequential,
            residual_scale: 1.0,
            learned_positions: false,
            ropes: Vec::new(),
            qk_norm: QkNorm::None,
            qkv_clip: None,
            attention_softcap: None,
            mlp: Mlp::Gated,
            experts: None,
            activation: Activation::Silu,
            qkv_bias: Bias::No,
            o_bias: Bias::No,
            mlp_bias: Bias::No,
            fused_qkv: FusedQkv::InTurn,
            layout: Layout::OutIn,
            embedding_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: None,
            tied_head: None,
        })
    }

    /// A model whose positions are a learned table; for families that do not read like Llama.
    pub(super) fn with_learned_positions(
        family: &'static str,
        n_layers: usize,
        hidden_size: usize,
        n_heads: usize,
    ) -> Result<Spec> {
        let mut spec = Spec::plain(family, n_layers, hidden_size, n_heads, hidden_size / n_heads.max(1))?;
        spec.each_layer(|_, layer| layer.rope = None);
        Ok(Spec { learned_positions: true, ..spec })
    }

    /// Changes every layer: `change(index, layer)`.
    pub(super) fn each_layer(&mut self, mut change: impl FnMut(usize, &mut LayerKind)) {
        self.layers.iter_mut().enumerate().for_each(|(i, layer)| change(i, layer));
    }

    /// The same scale of the scores in every layer.
    pub(super) fn set_attention_scale(&mut self, scale: f64) {
        self.each_layer(|_, layer| layer.attention_scale = scale as f32);
    }

    /// Mixtures of experts in the layers that `sparse` picks.
    pub(super) fn set_experts(&mut self, experts: Experts, sparse: impl Fn(usize) -> bool) {
        self.experts = Some(experts);
        self.each_layer(|i, layer| layer.sparse = sparse(i));
    }

    /// One RoPE for the layers that see everything, another for those with a window.
    pub(super) fn set_ropes(&mut self, full: Rope, sliding: Rope) {
        self.ropes = vec![full, sliding];
        self.each_layer(|_, layer| layer.rope = Some(usize::from(layer.window.is_some())));
    }

    /// A window that no sequence can outgrow is none.
    pub(super) fn drop_idle_windows(&mut self) {
        let context_length = self.context_length;
        self.each_layer(|_, layer| layer.window = layer.window.filter(|window| *window < context_length));
    }

    /// Windows of `window` tokens in the layers that `slides` picks, or that `layer_types` names where the config has it.
    pub(super) fn set_windows(&mut self, c: &Config<'_>, window: Option<usize>, slides: impl Fn(usize) -> bool) -> Result<()> {
        let types = c.strings("layer_types")?;
        if let Some(types) = &types {
            if types.len() != self.layers.len() {
                return Err(c.bad("layer_types", format_args!("has {} entries; expected {}", types.len(), self.layers.len())));
            }
            if let Some(other) = types.iter().find(|t| !matches!(**t, "full_attention" | "sliding_attention")) {
                return Err(c.unsupported("layer_types", format_args!("\"{other}\"")));
            }
        }
        let slides = |i: usize| types.as_ref().map_or_else(|| slides(i), |types| types.get(i) == Some(&"sliding_attention"));
        if types.is_some() && window.is_none() && (0..self.layers.len()).any(slides) {
            return Err(c.bad("sliding_window", "is missing, but layer_types has sliding_attention"));
        }
        self.each_layer(|i, layer| layer.window = window.filter(|_| slides(i)));
        Ok(())
    }

    /// The same from GGUF metadata: every layer whose number (from 0) leaves a remainder below `pattern` − 1 slides; a key may
    /// give another pattern, or a list. `default`: the window where the file does not say one.
    pub(super) fn set_windows_of(&mut self, m: &Meta<'_>, pattern: usize, default: Option<usize>) -> Result<()> {
        const PATTERN: &str = "attention.sliding_window_pattern";
        let Some(window) = m.usize("attention.sliding_window")?.or(default).filter(|&n| n > 0) else { return Ok(()) };
        if let Some(list) = m.flags(PATTERN)? {
            if list.len() < self.layers.len() {
                let message = format!("has {} entries; expected {}", list.len(), self.layers.len());
                return Err(Error::new(ErrorKind::BadFile, m.name(PATTERN, &message)));
            }
            self.each_layer(|i, layer| layer.window = list.get(i).is_some_and(|&slides| slides).then_some(window));
            return Ok(());
        }
        let pattern = m.usize(PATTERN)?.unwrap_or(pattern);
        let slides = |i: usize| pattern == 1 || (pattern > 1 && i % pattern < pattern - 1);
        self.each_layer(|i, layer| layer.window = slides(i).then_some(window));
        Ok(())
    }

    /// Whether the head is the embedding, in a checkpoint that has a tensor for the head or not. A tied model's file may hold the
    /// embedding a second time.
    pub fn is_tied(&self, has_head: bool) -> bool {
        self.tied_head.unwrap_or(!has_head)
    }

    /// How the matrix of `slot` lies in the file: [`Spec::layout`] is that of the layers' projections, experts and routers excepted.
    pub fn layout_of(&self, slot: Slot) -> Layout {
        match slot {
            Slot::Q | Slot::K | Slot::V | Slot::Qkv | Slot::O => self.layout,
            Slot::Gate | Slot::Up | Slot::GateUp | Slot::Down => self.layout,
            _ => Layout::OutIn,
        }
    }

    /// Decoder layers.
    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }
    /// Elements of all query heads.
    pub fn q_size(&self) -> usize {
        self.n_heads * self.head_dim
    }
    /// Elements of all key (or value) heads.
    pub fn kv_size(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Cross-checks the hyper-parameters; the caps keep every product of two of them far inside `usize`.
    pub(super) fn check(&self) -> Result<()> {
        let caps = [
            ("hidden size", self.hidden_size, 1 << 20),
            ("feed-forward size", self.ffn_size, 1 << 22),
            ("number of heads", self.n_heads, 1 << 14),
            ("number of key/value heads", self.n_kv_heads, 1 << 14),
            ("head dimension", self.head_dim, 1 << 14),
            ("vocabulary size", self.vocab_size, 1 << 26),
            ("context length", self.context_length, 1 << 30),
        ];
        for (what, value, cap) in caps {
            if value == 0 || value > cap {
                return Err(bad(format!("{what} is {value}; expected 1 to {cap}")));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(bad(format!("{} heads cannot share {} key/value heads", self.n_heads, self.n_kv_heads)));
        }
        if self.q_size() > 1 << 22 {
            return Err(bad(format!("{} heads of {} elements are too wide", self.n_heads, self.head_dim)));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(bad(format!("norm epsilon is {}; expected a finite number >= 0", self.norm_eps)));
        }
        self.check_factors()?;
        for layer in &self.layers {
            if layer.window == Some(0) {
                return Err(bad("a sliding window of 0 tokens; expected 1 or more".into()));
            }
        }
        if let Some(Experts { n_experts, n_used, ffn_size, .. }) = self.experts {
            if n_experts == 0 || n_experts > 1 << 16 || n_used == 0 || n_used > n_experts {
                return Err(bad(format!("{n_used} of {n_experts} experts; expected 1 to the number of experts, at most 65536")));
            }
            if ffn_size == 0 || ffn_size > 1 << 22 {
                return Err(bad(format!("feed-forward size of an expert is {ffn_size}; expected 1 to {}", 1 << 22)));
            }
        }
        self.ropes.iter().try_for_each(|rope| rope.check(self.head_dim))
    }

    fn check_factors(&self) -> Result<()> {
        let factors = [
            ("attention scale", self.layers.iter().map(|l| l.attention_scale).find(|s| !s.is_finite())),
            ("residual multiplier", Some(self.residual_scale)),
            ("embedding multiplier", Some(self.embedding_scale)),
            ("logit scale", Some(self.logit_scale)),
        ];
        for (what, value) in factors {
            if let Some(value) = value.filter(|v| !v.is_finite()) {
                return Err(bad(format!("{what} is {value}; expected a finite number")));
            }
        }
        let caps =
            [("attention soft cap", self.attention_softcap), ("logit soft cap", self.logit_softcap), ("qkv clip", self.qkv_clip)];
        for (what, value) in caps {
            if let Some(value) = value.filter(|v| !(v.is_finite() && *v > 0.0)) {
                return Err(bad(format!("{what} is {value}; expected a finite number > 0")));
            }
        }
        Ok(())
    }
}

/// `sliding_window` of the families that have one of 4096 tokens where the key is missing, and none where it is `null`.
pub(super) fn window(c: &Config<'_>) -> Result<Option<usize>> {
    c.usize_or_null("sliding_window", 4096)
}

/// Elements of a head: `head_dim`, or the hidden size shared out.
pub(super) fn head_dim(c: &Config<'_>) -> Result<usize> {
    let shared = c.need_usize("hidden_size")? / c.need_usize("num_attention_heads")?.max(1);
    Ok(c.usize("head_dim")?.unwrap_or(shared))
}

/// [`crate::ErrorKind::BadFile`] without a path; `identify` puts it in front.
pub(super) fn bad(message: String) -> Error {
    Error::new(ErrorKind::BadFile, message)
}
