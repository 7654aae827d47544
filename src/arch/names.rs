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

    /// The slot of the tensor `name` and its layer (0 for those of no layer); `None` if it has none.
    pub fn slot_of(&self, name: &str) -> Option<(Slot, usize)> {
        let stem = name.strip_suffix(".weight")?;
        let mut rows = self.rows.iter().copied().flatten();
        rows.find_map(|(slot, row)| {
            let layer = layer_in(row, stem).or_else(|| layer_in(row.strip_prefix(self.prefix)?, stem))?;
            Some((*slot, layer))
        })
    }

    /// Whether a tensor that no slot took is no error.
    pub fn is_ignored(&self, name: &str) -> bool {
        self.ignored.iter().any(|ending| name.ends_with(ending))
    }
}

/// The layer that makes `row` the name `stem`, whatever the expert; 0 if it has none.
fn layer_in(row: &str, stem: &str) -> Option<usize> {
    let Some((head, tail)) = row.split_once("{}") else { return (row == stem).then_some(0) };
    let rest = stem.strip_prefix(head)?;
    let (digits, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    let is_rest = match tail.split_once("{e}") {
        None => rest == tail,
        Some((head, tail)) => {
            let expert = rest.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
            expert.is_some_and(|e| !e.is_empty() && e.bytes().all(|b| b.is_ascii_digit()))
        }
    };
    digits.parse().ok().filter(|_| is_rest)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_slots() {
        let (hf, gguf) = (|name: &str| HF_NAMES.slot_of(name), |name: &str| GGUF_NAMES.slot_of(name));
        assert_eq!(hf("model.layers.12.mlp.down_proj.weight"), Some((Slot::Down, 12)));
        assert_eq!(hf("layers.3.self_attn.v_proj.weight"), Some((Slot::V, 3)));
        assert_eq!(hf("model.layers.1.mlp.experts.17.up_proj.weight"), Some((Slot::ExpertUp, 1)));
        assert_eq!(hf("model.layers.1.mlp.experts.x.up_proj.weight"), None);
        assert_eq!(hf("model.layers.1.self_attn.v_proj.bias"), None);
        assert_eq!(gguf("token_embd.weight"), Some((Slot::Embedding, 0)));
        assert_eq!(gguf("blk.7.ffn_down_exps.weight"), Some((Slot::ExpertDown, 7)));
        assert_eq!(gguf("blk.7.ffn_down.2.weight"), Some((Slot::ExpertDown, 7)));
        assert_eq!(gguf("blk..ffn_down.weight"), None);
    }
}
