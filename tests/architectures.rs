//! docs/architectures.md has the table of family × option as the golden cases' specs have it; `ENGINE_BLESS=1 cargo test --test
//! architectures` writes it anew.

mod common;

use common::{golden, load, repository};
use engine::arch::rope::Scaling;
use engine::arch::{Bias, Mlp, NormPlace, NormWeight, QkNorm, Residual, Spec, families};
use engine::ops::elementwise::NormKind;
use engine::ops::rope::Pairing;
use std::collections::{BTreeMap, BTreeSet};

const BEGIN: &str = "<!-- table: begin -->\n";
const END: &str = "<!-- table: end -->";
const COLUMNS: [&str; 9] =
    ["family", "norm", "attention and MLP", "positions", "windows", "queries and keys", "MLP", "biases", "scales and caps"];

/// What the options of a spec are, a word each; one line of the table less the name.
fn options(spec: &Spec) -> [String; 8] {
    [norm(spec), residual(spec), positions(spec), windows(spec), queries(spec), mlp(spec), biases(spec), scales(spec)]
}

fn norm(spec: &Spec) -> String {
    let kind = if spec.norm == NormKind::RmsNorm { "RMSNorm" } else { "LayerNorm" };
    let weight = match spec.norm_weight {
        NormWeight::Plain => "",
        NormWeight::PlusOne => " 1+w",
        NormWeight::None => " without weights",
    };
    let bias = if spec.norm_bias { ", bias" } else { "" };
    let place = match spec.norm_place {
        NormPlace::Before => "before",
        NormPlace::After => "after",
        NormPlace::Both => "before and after",
    };
    format!("{kind}{weight}{bias}; {place}")
}

fn residual(spec: &Spec) -> String {
    match spec.residual {
        Residual::Sequential => "one after the other",
        Residual::Parallel => "side by side, two norms",
        Residual::ParallelSharedNorm => "side by side, one norm",
    }
    .into()
}

fn positions(spec: &Spec) -> String {
    if spec.learned_positions {
        return "learned".into();
    }
    let rope = &spec.ropes[0];
    let pairs = if rope.pairing == Pairing::HalfSplit { "halves" } else { "neighbours" };
    let mut words = vec![format!("RoPE, {pairs}")];
    if rope.rotary_dim < spec.head_dim {
        words.push("part of a head".into());
    }
    words.extend(match rope.scaling {
        Scaling::None => None,
        Scaling::Linear { .. } => Some("linear".into()),
        Scaling::Llama3 { .. } => Some("llama3".into()),
        Scaling::Yarn { .. } => Some("YaRN".into()),
        Scaling::LongRope { .. } => Some("LongRoPE".into()),
    });
    if spec.ropes.len() > 1 {
        words.push("another in windows".into());
    }
    if spec.layers.iter().any(|layer| layer.rope.is_none()) {
        words.push("not in every layer".into());
    }
    words.join(", ")
}

fn windows(spec: &Spec) -> String {
    match spec.layers.iter().filter(|layer| layer.window.is_some()).count() {
        0 => "no".into(),
        n if n == spec.n_layers() => "all layers".into(),
        _ => "some layers".into(),
    }
}

fn queries(spec: &Spec) -> String {
    let norm = match spec.qk_norm {
        QkNorm::None => "",
        QkNorm::Whole => "norm of the whole",
        QkNorm::PerHead => "norm per head",
        QkNorm::EachHead => "norm per head, own weights",
    };
    let clip = if spec.qkv_clip.is_some() { "clamped" } else { "" };
    [norm, clip].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ")
}

fn mlp(spec: &Spec) -> String {
    let shape = if spec.mlp == Mlp::Gated { "gated" } else { "plain" };
    let experts = match spec.layers.iter().filter(|layer| layer.sparse).count() {
        0 => "",
        n if n == spec.n_layers() => ", experts",
        _ => ", experts in some layers",
    };
    format!("{shape} {:?}{experts}", spec.activation)
}

fn biases(spec: &Spec) -> String {
    let of = [("qkv", spec.qkv_bias), ("o", spec.o_bias), ("mlp", spec.mlp_bias)];
    of.iter().filter(|(_, bias)| *bias == Bias::Yes).map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
}

fn scales(spec: &Spec) -> String {
    let standard = 1.0 / (spec.head_dim as f32).sqrt();
    let of = [
        ("embedding", spec.embedding_scale != 1.0),
        ("scores", spec.layers.iter().any(|layer| layer.attention_scale != standard)),
        ("residual", spec.residual_scale != 1.0),
        ("logits", spec.logit_scale != 1.0),
        ("cap of scores", spec.attention_softcap.is_some()),
        ("cap of logits", spec.logit_softcap.is_some()),
    ];
    of.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// By family, what each option is in its cases. The config of a Hugging Face directory says everything; GGUF files leave some of it
/// to the tensors, and lie otherwise.
fn table() -> String {
    let mut rows: BTreeMap<String, [BTreeSet<String>; 8]> = BTreeMap::new();
    for entry in std::fs::read_dir(repository("tests/golden")).unwrap() {
        let folder = entry.unwrap().path();
        if folder.join("model/config.json").exists() {
            let model = load(&golden(folder.file_name().unwrap().to_str().unwrap()).0, None, 1);
            let row = rows.entry(model.spec().family.into()).or_default();
            for (set, option) in row.iter_mut().zip(options(model.spec())) {
                set.insert(option);
            }
        }
    }
    let names: Vec<&str> = families().collect();
    assert_eq!(
        rows.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        names.iter().copied().collect(),
        "a case for each family"
    );
    let mut out = format!("| {} |\n|{}\n", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()));
    for name in names {
        let cell = |set: &BTreeSet<String>| {
            let words: Vec<&str> = set.iter().map(|word| if word.is_empty() { "–" } else { word }).collect();
            words.join(" / ")
        };
        let cells: Vec<String> = rows[name].iter().map(cell).collect();
        out += &format!("| `{name}` | {} |\n", cells.join(" | "));
    }
    out
}

#[test]
fn the_table_is_what_the_specs_say() {
    let path = repository("docs/architectures.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (start, end) = (text.find(BEGIN).unwrap() + BEGIN.len(), text.find(END).unwrap());
    let made = table();
    if std::env::var_os("ENGINE_BLESS").is_some() {
        std::fs::write(&path, format!("{}{made}{}", &text[..start], &text[end..])).unwrap();
    } else {
        assert_eq!(&text[start..end], made, "run ENGINE_BLESS=1 cargo test --test architectures");
    }
}
