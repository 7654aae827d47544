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
    /// Norm of the attention sub-layer, `[hidden_size]`.
    AttentionNorm,
    /// q, k and v as one matrix.
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
    /// Norm of the feed-forward sub-layer, `[hidden_size]`.
    MlpNorm,
    /// `[ffn_size, hidden_size]`, the part that is activated in a gated block.
    Gate,
    /// `[ffn_size, hidden_size]`.
    Up,
    /// `[hidden_size, ffn_size]`.
    Down,
}

/// A slot and the name of its tensor without `.weight` / `.bias`; `{}` stands for the layer.
pub type Row = (Slot, &'static str);

/// The tensors of a family in one kind of file.
pub struct Names {
    /// A leading part that some writers leave out ("model.").
    pub prefix: &'static str,
    /// The rows.
    pub rows: &'static [Row],
    /// Endings of tensors that may be there and are not needed (masks, frequency tables).
    pub ignored: &'static [&'static str],
}

impl Names {
    /// The name of `slot` (in layer `layer`), without `.weight` / `.bias`, if this family has that slot.
    pub fn stem(&self, slot: Slot, layer: usize) -> Option<String> {
        let row = self.rows.iter().find(|row| row.0 == slot)?;
        Some(row.1.replace("{}", &layer.to_string()))
    }

    /// Whether a tensor that no slot took is no error.
    pub fn is_ignored(&self, name: &str) -> bool {
        self.ignored.iter().any(|ending| name.ends_with(ending))
    }
}
