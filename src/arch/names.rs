//! Which tensor goes where: a family's names are table rows {slot, name in the file}.
#![forbid(unsafe_code)]

/// A place for a tensor in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// `[vocab_size, hidden_size]`.
    Embedding,
    /// `[context_length, hidden_size]`.
    PositionEmbedding,
    /// `[hidden_size]`, before the head.
    OutputNorm,
    /// `[vocab_size, hidden_size]`.
    Head,
    /// `[rotary_dim / 2]`: what each rotary frequency is divided by (GGUF).
    RopeFactors,
    /// The same for sequences up to the original context length (GGUF, LongRoPE).
    RopeShortFactors,
    /// The same for longer ones.
    RopeLongFactors,
    /// Norm before the attention, `[hidden_size]`.
    AttentionNorm,
    /// Norm behind the attention, `[hidden_size]`.
    AttentionPostNorm,
    /// q, k and v as one matrix, `[(n_heads + 2 n_kv_heads) * head_dim, hidden_size]`.
    Qkv,
    /// `[n_heads * head_dim, hidden_size]`.
    Q,
    /// `[n_kv_heads * head_dim, hidden_size]`.
    K,
    /// `[n_kv_heads * head_dim, hidden_size]`.
    V,
    /// Norm of the queries.
    QNorm,
    /// Norm of the keys.
    KNorm,
    /// `[hidden_size, n_heads * head_dim]`.
    O,
    /// Norm before the feed-forward block, `[hidden_size]`.
    MlpNorm,
    /// Norm behind the feed-forward block, `[hidden_size]`.
    MlpPostNorm,
    /// `[ffn_size, hidden_size]`, the part that is activated in a gated block.
    Gate,
    /// `[ffn_size, hidden_size]`.
    Up,
    /// Gate, then up, as one matrix, `[2 ffn_size, hidden_size]`.
    GateUp,
    /// `[hidden_size, ffn_size]`.
    Down,
    /// `[n_experts, hidden_size]`.
    Router,
    /// Of one expert, `[ffn_size, hidden_size]`; or of all, `[n_experts, ffn_size, hidden_size]`.
    ExpertGate,
    /// As [`Slot::ExpertGate`].
    ExpertUp,
    /// Of one expert, `[hidden_size, ffn_size]`; or of all, `[n_experts, hidden_size, ffn_size]`.
    ExpertDown,
}

/// A slot and the name of its tensor without `.weight` / `.bias`; `{}` stands for the layer, `{e}` for the expert (without it,
/// the tensor holds all experts).
pub type Row = (Slot, &'static str);

/// The tensors of a family in one kind of file.
pub struct Names {
    /// A leading part that some writers leave out ("model.").
    pub prefix: &'static str,
    /// The family's own rows, then those that it shares with others; a slot's first name that the file has counts.
    pub rows: &'static [&'static [Row]],
    /// Endings of tensors that may be there and are not needed (masks, frequency tables).
    pub ignored: &'static [&'static str],
}

impl Names {
    /// The names of `slot` (in layer `layer`), without `.weight` / `.bias`: none if this family has no such slot, several
    /// where writers differ.
    pub fn stems(&self, slot: Slot, layer: usize) -> impl Iterator<Item = String> {
        let rows = self.rows.iter().copied().flatten().filter(move |row| row.0 == slot);
        rows.map(move |row| row.1.replace("{}", &layer.to_string()))
    }

    /// Whether a tensor that no slot took is no error.
    pub fn is_ignored(&self, name: &str) -> bool {
        self.ignored.iter().any(|ending| name.ends_with(ending))
    }
}

/// Hugging Face's names, as Llama and most models after it have them. Norms that are not where Llama's are, are the family's.
pub const HF: &[Row] = &[
    (Slot::Embedding, "model.embed_tokens"),
    (Slot::OutputNorm, "model.norm"),
    (Slot::Head, "lm_head"),
    (Slot::AttentionNorm, "model.layers.{}.input_layernorm"),
    (Slot::Q, "model.layers.{}.self_attn.q_proj"),
    (Slot::K, "model.layers.{}.self_attn.k_proj"),
    (Slot::V, "model.layers.{}.self_attn.v_proj"),
    (Slot::QNorm, "model.layers.{}.self_attn.q_norm"),
    (Slot::KNorm, "model.layers.{}.self_attn.k_norm"),
    (Slot::O, "model.layers.{}.self_attn.o_proj"),
    (Slot::MlpNorm, "model.layers.{}.post_attention_layernorm"),
    (Slot::Gate, "model.layers.{}.mlp.gate_proj"),
    (Slot::Up, "model.layers.{}.mlp.up_proj"),
    (Slot::Down, "model.layers.{}.mlp.down_proj"),
    (Slot::Router, "model.layers.{}.mlp.gate"),
    (Slot::ExpertGate, "model.layers.{}.mlp.experts.{e}.gate_proj"),
    (Slot::ExpertUp, "model.layers.{}.mlp.experts.{e}.up_proj"),
    (Slot::ExpertDown, "model.layers.{}.mlp.experts.{e}.down_proj"),
];

/// The names of [`HF`] for a family without rows of its own.
pub const HF_NAMES: Names = Names { prefix: "model.", rows: &[HF], ignored: &[".rotary_emb.inv_freq"] };

/// llama.cpp's names, the same for all architectures but for a few rows.
pub const GGUF: &[Row] = &[
    (Slot::Embedding, "token_embd"),
    (Slot::PositionEmbedding, "position_embd"),
    (Slot::OutputNorm, "output_norm"),
    (Slot::Head, "output"),
    (Slot::RopeFactors, "rope_freqs"),
    (Slot::RopeShortFactors, "rope_factors_short"),
    (Slot::RopeLongFactors, "rope_factors_long"),
    (Slot::AttentionNorm, "blk.{}.attn_norm"),
    (Slot::AttentionPostNorm, "blk.{}.post_attention_norm"),
    (Slot::Qkv, "blk.{}.attn_qkv"),
    (Slot::Q, "blk.{}.attn_q"),
    (Slot::K, "blk.{}.attn_k"),
    (Slot::V, "blk.{}.attn_v"),
    (Slot::QNorm, "blk.{}.attn_q_norm"),
    (Slot::KNorm, "blk.{}.attn_k_norm"),
    (Slot::O, "blk.{}.attn_output"),
    (Slot::MlpNorm, "blk.{}.ffn_norm"),
    (Slot::MlpPostNorm, "blk.{}.post_ffw_norm"),
    (Slot::Gate, "blk.{}.ffn_gate"),
    (Slot::Up, "blk.{}.ffn_up"),
    (Slot::Down, "blk.{}.ffn_down"),
    (Slot::Router, "blk.{}.ffn_gate_inp"),
    (Slot::ExpertGate, "blk.{}.ffn_gate_exps"),
    (Slot::ExpertUp, "blk.{}.ffn_up_exps"),
    (Slot::ExpertDown, "blk.{}.ffn_down_exps"),
    // Before the experts were stacked, each had its own tensors.
    (Slot::ExpertGate, "blk.{}.ffn_gate.{e}"),
    (Slot::ExpertUp, "blk.{}.ffn_up.{e}"),
    (Slot::ExpertDown, "blk.{}.ffn_down.{e}"),
];

/// The names of [`GGUF`] for a family without rows of its own.
pub const GGUF_NAMES: Names = Names { prefix: "", rows: &[GGUF], ignored: &[".attn_rot_embd.weight"] };
