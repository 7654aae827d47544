//! OLMo-2: as Llama, but with the norms behind the sub-layers and RMSNorm over whole queries and keys. OLMo-3: the same with
//! sliding windows in three layers of four, whose RoPE is not stretched.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::names::{GGUF_NAMES, HF};
use super::rope::{Rope, Scaling, settings};
use super::spec::window;
use super::{Family, Names, NormPlace, QkNorm, Slot, Spec};
use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::ops::elementwise::NormKind;
use crate::ops::rope::Pairing;

const NAMES: Names = Names {
    prefix: "model.",
    rows: &[
        &[
            (Slot::AttentionPostNorm, "model.layers.{}.post_attention_layernorm"),
            (Slot::MlpPostNorm, "model.layers.{}.post_feedforward_layernorm"),
        ],
        HF,
    ],
    ignored: &[".rotary_emb.inv_freq"],
};

pub(super) static FAMILY: Family = Family {
    name: "olmo2",
    model_types: &["olmo2"],
    gguf: &["olmo2"],
    from_config: |c| from_config(FAMILY.name, c),
    from_metadata,
    names: NAMES,
    gguf_names: GGUF_NAMES,
};

/// In GGUF it is `olmo2` with a window.
pub(super) static OLMO3: Family = Family {
    name: "olmo3",
    model_types: &["olmo3"],
    gguf: &[],
    from_config: olmo3,
    from_metadata,
    names: NAMES,
    gguf_names: GGUF_NAMES,
};

fn from_config(family: &'static str, c: &Config<'_>) -> Result<Spec> {
    let spec = Spec::from_config(family, c)?;
    let norm_eps = c.f64("rms_norm_eps")?.unwrap_or(1e-5) as f32;
    Ok(Spec { norm_eps, norm_place: NormPlace::After, qk_norm: QkNorm::Whole, ..spec })
}

fn olmo3(c: &Config<'_>) -> Result<Spec> {
    let mut spec = from_config(OLMO3.name, c)?;
    spec.set_windows(c, window(c)?, |i| i % 4 != 3)?;
    // transformers 4 has one set of settings, which stretches the layers that see everything; transformers 5 one for each kind.
    let theta = 500_000.0;
    let full =
        Rope::of_layers(c, spec.head_dim, "full_attention", theta, || Rope::new(c, settings(c)?.as_ref(), spec.head_dim, theta))?;
    let sliding = Rope::of_layers(c, spec.head_dim, "sliding_attention", theta, || Rope::new(c, None, spec.head_dim, theta))?;
    spec.set_ropes(full, sliding);
    Ok(spec)
}

fn from_metadata(m: &Meta<'_>) -> Result<Spec> {
    let mut spec = Spec::from_metadata(FAMILY.name, m, Pairing::HalfSplit, NormKind::RmsNorm)?;
    spec.norm_place = NormPlace::After;
    spec.qk_norm = QkNorm::Whole;
    spec.set_windows_of(m, 4, None)?;
    if let Some(full) = spec.ropes.first().cloned().filter(|_| spec.layers.iter().any(|l| l.window.is_some())) {
        let theta = m.f64("rope.freq_base_swa")?.unwrap_or(full.theta);
        let sliding = Rope { theta, scaling: Scaling::None, ..full.clone() };
        spec.set_ropes(full, sliding);
    }
    Ok(spec)
}

/// OLMo-2 from the tensors alone: a directory of `.npy` files without a config.json, as DirkTensor has it. What no shape
/// tells is OLMo-2-0425-1B's: head_dim 128, RoPE theta 500000, eps 1e-6, 4096 positions.
pub(super) fn infer(checkpoint: &Checkpoint) -> Result<Spec> {
    let name = |slot: Slot, layer: usize| NAMES.stems(slot, layer).next().unwrap_or_default() + ".weight";
    let shape = |slot: Slot| -> Result<[usize; 2]> {
        let name = name(slot, 0);
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
    let n_layers = (0..).take_while(|&i| checkpoint.tensors.contains_key(&name(Slot::Q, i))).count();
    let plain = Spec::plain(FAMILY.name, n_layers, hidden_size, q_size / HEAD_DIM, HEAD_DIM)
        .map_err(|e| e.context(checkpoint.path.display()))?;
    Ok(Spec {
        vocab_size,
        context_length: 4096,
        ffn_size,
        n_kv_heads: kv_size / HEAD_DIM,
        norm_eps: 1e-6,
        norm_place: NormPlace::After,
        qk_norm: QkNorm::Whole,
        ropes: vec![Rope { theta: 500_000.0, rotary_dim: HEAD_DIM, pairing: Pairing::HalfSplit, scaling: Scaling::None }],
        ..plain
    })
}
