//! OLMo-2: as Llama, but with the norms behind the sub-layers and RMSNorm over whole queries and keys.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::rope::{Rope, Scaling};
use super::{Bias, Family, Mlp, Names, NormPlace, Position, QkNorm, Slot, Spec};
use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::kernels::Layout;
use crate::ops::elementwise::{Activation, NormKind};
use crate::ops::rope::Pairing;

pub(super) static FAMILY: Family = Family {
    name: "olmo2",
    model_types: &["olmo2"],
    gguf: &["olmo2"],
    from_config,
    from_metadata,
    names: Names {
        prefix: "model.",
        rows: &[
            (Slot::Embedding, "model.embed_tokens"),
            (Slot::OutputNorm, "model.norm"),
            (Slot::Head, "lm_head"),
            (Slot::Q, "model.layers.{}.self_attn.q_proj"),
            (Slot::K, "model.layers.{}.self_attn.k_proj"),
            (Slot::V, "model.layers.{}.self_attn.v_proj"),
            (Slot::QNorm, "model.layers.{}.self_attn.q_norm"),
            (Slot::KNorm, "model.layers.{}.self_attn.k_norm"),
            (Slot::O, "model.layers.{}.self_attn.o_proj"),
            (Slot::AttentionNorm, "model.layers.{}.post_attention_layernorm"),
            (Slot::Gate, "model.layers.{}.mlp.gate_proj"),
            (Slot::Up, "model.layers.{}.mlp.up_proj"),
            (Slot::Down, "model.layers.{}.mlp.down_proj"),
            (Slot::MlpNorm, "model.layers.{}.post_feedforward_layernorm"),
        ],
        ignored: &[".rotary_emb.inv_freq"],
    },
    gguf_names: Names {
        prefix: "",
        rows: &[
            (Slot::Embedding, "token_embd"),
            (Slot::OutputNorm, "output_norm"),
            (Slot::Head, "output"),
            (Slot::Q, "blk.{}.attn_q"),
            (Slot::K, "blk.{}.attn_k"),
            (Slot::V, "blk.{}.attn_v"),
            (Slot::QNorm, "blk.{}.attn_q_norm"),
            (Slot::KNorm, "blk.{}.attn_k_norm"),
            (Slot::O, "blk.{}.attn_output"),
            (Slot::AttentionNorm, "blk.{}.post_attention_norm"),
            (Slot::Gate, "blk.{}.ffn_gate"),
            (Slot::Up, "blk.{}.ffn_up"),
            (Slot::Down, "blk.{}.ffn_down"),
            (Slot::MlpNorm, "blk.{}.post_ffw_norm"),
        ],
        ignored: &[],
    },
};

/// What sets the three sources of a [`Spec`] apart.
struct Sizes {
    vocab_size: usize,
    context_length: usize,
    n_layers: usize,
    hidden_size: usize,
    ffn_size: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    eps: f64,
}

fn spec(s: Sizes, rope: Rope, activation: Activation, bias: Bias, tied_head: Option<bool>) -> Spec {
    Spec {
        family: FAMILY.name,
        vocab_size: s.vocab_size,
        context_length: s.context_length,
        n_layers: s.n_layers,
        hidden_size: s.hidden_size,
        ffn_size: s.ffn_size,
        n_heads: s.n_heads,
        n_kv_heads: s.n_kv_heads,
        head_dim: s.head_dim,
        norm: NormKind::RmsNorm,
        norm_eps: s.eps as f32,
        norm_place: NormPlace::After,
        position: Position::Rope(rope),
        qk_norm: QkNorm::Whole,
        attention_scale: 1.0 / (s.head_dim as f32).sqrt(),
        mlp: Mlp::Gated,
        activation,
        qkv_bias: bias,
        o_bias: bias,
        mlp_bias: Bias::No,
        fused_qkv: false,
        layout: Layout::OutIn,
        tied_head,
    }
}

fn from_config(c: &Config<'_>) -> Result<Spec> {
    let (hidden_size, n_heads) = (c.need_usize("hidden_size")?, c.need_usize("num_attention_heads")?);
    let head_dim = c.usize("head_dim")?.unwrap_or(hidden_size / n_heads.max(1));
    let sizes = Sizes {
        vocab_size: c.need_usize("vocab_size")?,
        context_length: c.usize("max_position_embeddings")?.unwrap_or(2048),
        n_layers: c.need_usize("num_hidden_layers")?,
        hidden_size,
        ffn_size: c.need_usize("intermediate_size")?,
        n_heads,
        n_kv_heads: c.usize("num_key_value_heads")?.unwrap_or(n_heads),
        head_dim,
        eps: c.f64("rms_norm_eps")?.unwrap_or(1e-5),
    };
    let bias = if c.bool("attention_bias")?.unwrap_or(false) { Bias::Yes } else { Bias::No };
    let tied_head = c.bool("tie_word_embeddings")?.unwrap_or(false);
    Ok(spec(sizes, Rope::from_config(c, head_dim)?, c.activation("hidden_act", "silu")?, bias, Some(tied_head)))
}

fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    let (hidden_size, n_heads) = (m.need_usize("embedding_length")?, m.need_usize("attention.head_count")?);
    let head_dim = m.usize("attention.key_length")?.unwrap_or(hidden_size / n_heads.max(1));
    let sizes = Sizes {
        vocab_size: m.vocab_size,
        context_length: m.need_usize("context_length")?,
        n_layers: m.need_usize("block_count")?,
        hidden_size,
        ffn_size: m.need_usize("feed_forward_length")?,
        n_heads,
        n_kv_heads: m.usize("attention.head_count_kv")?.unwrap_or(n_heads),
        head_dim,
        eps: m.need_f64("attention.layer_norm_rms_epsilon")?,
    };
    Ok(spec(sizes, Rope::from_metadata(m, head_dim, Pairing::HalfSplit)?, Activation::Silu, Bias::IfPresent, None))
}

/// OLMo-2 from the tensors alone: a directory of `.npy` files without a config.json, as DirkTensor has it. What no shape
/// tells is OLMo-2-0425-1B's: head_dim 128, RoPE theta 500000, eps 1e-6, 4096 positions.
pub(super) fn infer(checkpoint: &Checkpoint) -> Result<Spec> {
    let names = &FAMILY.names;
    let shape = |slot: Slot| -> Result<[usize; 2]> {
        let name = names.stem(slot, 0).unwrap_or_default() + ".weight";
        let tensor = checkpoint.tensors.get(&name).ok_or_else(|| {
            let message = format!("there is no config.json and no tensor {name}: only OLMo-2 can be told from its tensors alone");
            Error::bad_file(&checkpoint.path, message)
        })?;
        <[usize; 2]>::try_from(tensor.shape.as_slice()).map_err(|_| {
            Error::bad_file(&checkpoint.path, format!("tensor {name} has {} dimensions; expected 2", tensor.shape.len()))
        })
    };
    const HEAD_DIM: usize = 128;
    let ([vocab_size, hidden_size], [ffn_size, _]) = (shape(Slot::Embedding)?, shape(Slot::Up)?);
    let ([q_size, _], [kv_size, _]) = (shape(Slot::Q)?, shape(Slot::K)?);
    for (what, size) in [("q_proj", q_size), ("k_proj", kv_size)] {
        if size == 0 || size % HEAD_DIM != 0 {
            let message = format!("{what} has {size} rows, not a multiple of {HEAD_DIM}: say the shape in a config.json");
            return Err(Error::bad_file(&checkpoint.path, message));
        }
    }
    let n_layers = (0..).take_while(|&i| {
        let stem = names.stem(Slot::Q, i).unwrap_or_default();
        checkpoint.tensors.contains_key(&(stem + ".weight"))
    });
    let sizes = Sizes {
        vocab_size,
        context_length: 4096,
        n_layers: n_layers.count(),
        hidden_size,
        ffn_size,
        n_heads: q_size / HEAD_DIM,
        n_kv_heads: kv_size / HEAD_DIM,
        head_dim: HEAD_DIM,
        eps: 1e-6,
    };
    let rope = Rope { theta: 500_000.0, rotary_dim: HEAD_DIM, pairing: Pairing::HalfSplit, scaling: Scaling::None };
    Ok(spec(sizes, rope, Activation::Silu, Bias::No, None))
}
