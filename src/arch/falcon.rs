//! Falcon: LayerNorm, one matrix for q, k and v, few key/value heads, attention and MLP side by side (in the larger models each
//! with its own norm).
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::GGUF;
use super::rope::Rope;
use super::{Bias, Family, FusedQkv, Mlp, Names, Residual, Slot, Spec};
use crate::error::Result;
use crate::ops::elementwise::{Activation, NormKind};
use crate::ops::rope::Pairing;

pub(super) static FAMILY: Family = Family {
    name: "falcon",
    model_types: &["falcon", "RefinedWeb", "RefinedWebModel"],
    gguf: &["falcon"],
    from_config,
    from_metadata,
    names: Names {
        prefix: "transformer.",
        rows: &[&[
            (Slot::Embedding, "transformer.word_embeddings"),
            (Slot::OutputNorm, "transformer.ln_f"),
            (Slot::Head, "lm_head"),
            (Slot::AttentionNorm, "transformer.h.{}.ln_attn"),
            (Slot::AttentionNorm, "transformer.h.{}.input_layernorm"),
            (Slot::Qkv, "transformer.h.{}.self_attention.query_key_value"),
            (Slot::O, "transformer.h.{}.self_attention.dense"),
            (Slot::MlpNorm, "transformer.h.{}.ln_mlp"),
            (Slot::MlpNorm, "transformer.h.{}.post_attention_layernorm"),
            (Slot::Up, "transformer.h.{}.mlp.dense_h_to_4h"),
            (Slot::Down, "transformer.h.{}.mlp.dense_4h_to_h"),
        ]],
        ignored: &[".rotary_emb.inv_freq"],
    },
    gguf_names: Names {
        prefix: "",
        rows: &[
            &[
                // Where there are two norms, attn_norm is the MLP's.
                (Slot::AttentionNorm, "blk.{}.attn_norm_2"),
                (Slot::MlpNorm, "blk.{}.attn_norm"),
            ],
            GGUF,
        ],
        ignored: &[],
    },
};

fn from_config(c: &Config<'_>) -> Result<Spec> {
    c.only("alibi", false)?;
    let hidden_size = c.usize("n_embed")?.map_or_else(|| c.need_usize("hidden_size"), Ok)?;
    let n_heads = c.usize("num_attention_heads")?.map_or_else(|| c.need_usize("n_head"), Ok)?;
    let n_layers = c.usize("num_hidden_layers")?.map_or_else(|| c.need_usize("n_layer"), Ok)?;
    let head_dim = hidden_size / n_heads.max(1);
    let plain = Spec::plain(FAMILY.name, n_layers, hidden_size, n_heads, head_dim).map_err(|e| e.context(c.path.display()))?;
    let flag = |key, default| Ok(c.bool(key)?.unwrap_or(default));
    // The first files of the 40B model have another name instead of the key.
    let older_large = c.str("model_type")? == Some("RefinedWeb");
    let bias = if flag("bias", false)? { Bias::Yes } else { Bias::No };
    let (by_group, multi_query) = (flag("new_decoder_architecture", older_large)?, flag("multi_query", true)?);
    let n_kv_heads = match (by_group, multi_query) {
        (true, _) => c.usize("num_kv_heads")?.or(c.usize("n_head_kv")?).unwrap_or(n_heads),
        (false, true) => 1,
        (false, false) => n_heads,
    };
    let parallel = flag("parallel_attn", true)?;
    let two_norms = by_group && c.usize("num_ln_in_parallel_attn")?.unwrap_or(2) == 2;
    if by_group && !parallel {
        return Err(c.unsupported("parallel_attn", "false with new_decoder_architecture"));
    }
    Ok(Spec {
        vocab_size: c.need_usize("vocab_size")?,
        context_length: c.usize("max_position_embeddings")?.unwrap_or(2048),
        ffn_size: c.usize("ffn_hidden_size")?.unwrap_or(hidden_size.saturating_mul(4)),
        n_kv_heads,
        norm: NormKind::LayerNorm,
        norm_bias: true,
        norm_eps: c.f64("layer_norm_epsilon")?.unwrap_or(1e-5) as f32,
        residual: residual(parallel, two_norms),
        ropes: vec![Rope::from_config(c, head_dim)?],
        mlp: Mlp::Plain,
        activation: c.activation("activation", "gelu")?,
        qkv_bias: bias,
        o_bias: bias,
        mlp_bias: bias,
        fused_qkv: FusedQkv::ByKvHead,
        tied_head: Some(c.bool("tie_word_embeddings")?.unwrap_or(true)),
        ..plain
    })
}

fn residual(parallel: bool, two_norms: bool) -> Residual {
    match (parallel, two_norms) {
        (false, _) => Residual::Sequential,
        (true, false) => Residual::ParallelSharedNorm,
        (true, true) => Residual::Parallel,
    }
}

/// llama.cpp's converter puts the rows of q, k and v in turn; the files are of models with attention and MLP side by side.
fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    let spec = Spec::from_metadata(FAMILY.name, m, Pairing::HalfSplit, NormKind::LayerNorm)?;
    let residual = residual(true, m.has_tensor("blk.0.attn_norm_2.weight"));
    Ok(Spec { residual, mlp: Mlp::Plain, activation: Activation::Gelu, ..spec })
}
