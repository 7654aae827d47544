//! Llama 1 to 3 and the many models of its shape: RMSNorm before each sub-layer, RoPE, grouped heads, a gated MLP.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::rope::Rope;
use super::{Bias, Family, Mlp, Names, NormPlace, Position, QkNorm, Slot, Spec};
use crate::error::Result;
use crate::kernels::Layout;
use crate::ops::elementwise::{Activation, NormKind};
use crate::ops::rope::Pairing;

pub(super) static FAMILY: Family = Family {
    name: "llama",
    model_types: &["llama"],
    gguf: &["llama"],
    from_config,
    from_metadata,
    names: Names {
        prefix: "model.",
        rows: &[
            (Slot::Embedding, "model.embed_tokens"),
            (Slot::OutputNorm, "model.norm"),
            (Slot::Head, "lm_head"),
            (Slot::AttentionNorm, "model.layers.{}.input_layernorm"),
            (Slot::Q, "model.layers.{}.self_attn.q_proj"),
            (Slot::K, "model.layers.{}.self_attn.k_proj"),
            (Slot::V, "model.layers.{}.self_attn.v_proj"),
            (Slot::O, "model.layers.{}.self_attn.o_proj"),
            (Slot::MlpNorm, "model.layers.{}.post_attention_layernorm"),
            (Slot::Gate, "model.layers.{}.mlp.gate_proj"),
            (Slot::Up, "model.layers.{}.mlp.up_proj"),
            (Slot::Down, "model.layers.{}.mlp.down_proj"),
        ],
        ignored: &[".rotary_emb.inv_freq"],
    },
    gguf_names: Names {
        prefix: "",
        rows: &[
            (Slot::Embedding, "token_embd"),
            (Slot::OutputNorm, "output_norm"),
            (Slot::Head, "output"),
            (Slot::RopeFactors, "rope_freqs"),
            (Slot::AttentionNorm, "blk.{}.attn_norm"),
            (Slot::Q, "blk.{}.attn_q"),
            (Slot::K, "blk.{}.attn_k"),
            (Slot::V, "blk.{}.attn_v"),
            (Slot::O, "blk.{}.attn_output"),
            (Slot::MlpNorm, "blk.{}.ffn_norm"),
            (Slot::Gate, "blk.{}.ffn_gate"),
            (Slot::Up, "blk.{}.ffn_up"),
            (Slot::Down, "blk.{}.ffn_down"),
        ],
        ignored: &[".attn_rot_embd.weight"],
    },
};

fn from_config(c: &Config<'_>) -> Result<Spec> {
    let (hidden_size, n_heads) = (c.need_usize("hidden_size")?, c.need_usize("num_attention_heads")?);
    let head_dim = c.usize("head_dim")?.unwrap_or(hidden_size / n_heads.max(1));
    let bias = |key| Ok(if c.bool(key)?.unwrap_or(false) { Bias::Yes } else { Bias::No });
    let attention_bias = bias("attention_bias")?;
    Ok(Spec {
        family: FAMILY.name,
        vocab_size: c.need_usize("vocab_size")?,
        context_length: c.usize("max_position_embeddings")?.unwrap_or(2048),
        n_layers: c.need_usize("num_hidden_layers")?,
        hidden_size,
        ffn_size: c.need_usize("intermediate_size")?,
        n_heads,
        n_kv_heads: c.usize("num_key_value_heads")?.unwrap_or(n_heads),
        head_dim,
        norm: NormKind::RmsNorm,
        norm_eps: c.f64("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        norm_place: NormPlace::Before,
        position: Position::Rope(Rope::from_config(c, head_dim)?),
        qk_norm: QkNorm::None,
        attention_scale: 1.0 / (head_dim as f32).sqrt(),
        mlp: Mlp::Gated,
        activation: c.activation("hidden_act", "silu")?,
        qkv_bias: attention_bias,
        o_bias: attention_bias,
        mlp_bias: bias("mlp_bias")?,
        fused_qkv: false,
        layout: Layout::OutIn,
        tied_head: Some(c.bool("tie_word_embeddings")?.unwrap_or(false)),
    })
}

fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    if let Some(n @ 1..) = m.usize("expert_count")? {
        return Err(crate::Error::unsupported(m.name("expert_count", &format!("= {n}: mixtures of experts are not supported"))));
    }
    let (hidden_size, n_heads) = (m.need_usize("embedding_length")?, m.need_usize("attention.head_count")?);
    let head_dim = m.usize("attention.key_length")?.unwrap_or(hidden_size / n_heads.max(1));
    Ok(Spec {
        family: FAMILY.name,
        vocab_size: m.vocab_size,
        context_length: m.need_usize("context_length")?,
        n_layers: m.need_usize("block_count")?,
        hidden_size,
        ffn_size: m.need_usize("feed_forward_length")?,
        n_heads,
        n_kv_heads: m.usize("attention.head_count_kv")?.unwrap_or(n_heads),
        head_dim,
        norm: NormKind::RmsNorm,
        norm_eps: m.need_f64("attention.layer_norm_rms_epsilon")? as f32,
        norm_place: NormPlace::Before,
        // llama.cpp's converter reorders the rows of q and k of this architecture, so that pairs stand side by side.
        position: Position::Rope(Rope::from_metadata(m, head_dim, Pairing::Interleaved)?),
        qk_norm: QkNorm::None,
        attention_scale: 1.0 / (head_dim as f32).sqrt(),
        mlp: Mlp::Gated,
        activation: Activation::Silu,
        qkv_bias: Bias::IfPresent,
        o_bias: Bias::IfPresent,
        mlp_bias: Bias::IfPresent,
        fused_qkv: false,
        layout: Layout::OutIn,
        tied_head: None,
    })
}
