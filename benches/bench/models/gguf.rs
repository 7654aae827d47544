//! GGUF files with the shapes of real models and random weights, which llama.cpp loads too.

use super::shapes::{Family, Fill, Shape, TensorOf, Weights, gguf_type};
use crate::random::Random;
use crate::weights;
use engine::format::DType;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const ALIGNMENT: usize = 32;

/// The model's file in `dir`, written if it is not there.
pub fn file(dir: &Path, shape: &Shape, weights: Weights) -> io::Result<PathBuf> {
    let path = dir.join(format!("{}-{}.gguf", shape.name, weights.name()));
    if !path.exists() {
        eprintln!("writing {}", path.display());
        std::fs::create_dir_all(dir)?;
        let part = path.with_extension("part");
        write(BufWriter::with_capacity(1 << 20, File::create(&part)?), shape, weights)?;
        std::fs::rename(part, &path)?;
    }
    Ok(path)
}

fn write(mut out: impl Write, shape: &Shape, types: Weights) -> io::Result<()> {
    let tensors = shape.tensors(types);
    let mut head = Head::default();
    keys(&mut head, shape, types);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"GGUF");
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend(head.count.to_le_bytes());
    bytes.extend(head.bytes);
    let mut offset = 0;
    for tensor in &tensors {
        string(&mut bytes, &tensor.name);
        bytes.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&n| bytes.extend((n as u64).to_le_bytes()));
        bytes.extend(gguf_type(tensor.dtype).to_le_bytes());
        bytes.extend((offset as u64).to_le_bytes());
        offset += len(tensor).next_multiple_of(ALIGNMENT);
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    out.write_all(&bytes)?;

    let mut random = Random::new(1);
    let mut pools: HashMap<(DType, bool), Vec<u8>> = HashMap::new();
    for tensor in &tensors {
        let kind = (tensor.dtype, tensor.fill == Fill::Norm);
        let mean = if tensor.fill == Fill::Norm { 1.0 } else { 0.0 };
        let pool = pools.entry(kind).or_insert_with(|| weights::pool(&mut random, tensor.dtype, mean));
        weights::each_part(&mut random, tensor.dtype, pool, len(tensor), |part| out.write_all(part))?;
        out.write_all(&[0; ALIGNMENT][..len(tensor).next_multiple_of(ALIGNMENT) - len(tensor)])?;
    }
    out.flush()
}

fn len(tensor: &TensorOf) -> usize {
    tensor.dtype.bytes(tensor.shape.iter().product()).expect("the shapes are whole blocks")
}

/// Keys and values as the file has them.
#[derive(Default)]
struct Head {
    count: u64,
    bytes: Vec<u8>,
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

impl Head {
    fn key(&mut self, key: &str, kind: u32) {
        self.count += 1;
        string(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
    }
    fn number(&mut self, key: &str, value: usize) {
        self.key(key, 4);
        self.bytes.extend((value as u32).to_le_bytes());
    }
    fn float(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.bytes.extend(value.to_le_bytes());
    }
    fn flag(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.bytes.push(value.into());
    }
    fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        string(&mut self.bytes, value);
    }
    fn list<T>(&mut self, key: &str, kind: u32, values: &[T], push: impl Fn(&mut Vec<u8>, &T)) {
        self.key(key, 9);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| push(&mut self.bytes, value));
    }
    fn texts(&mut self, key: &str, values: &[String]) {
        self.list(key, 8, values, |out, text| string(out, text));
    }
}

fn keys(head: &mut Head, shape: &Shape, weights: Weights) {
    let architecture = shape.architecture();
    head.text("general.architecture", architecture);
    head.text("general.name", &format!("{}, random weights", shape.name));
    head.number("general.file_type", weights.file_type() as usize);
    head.number("general.quantization_version", 2);
    let mut number = |key: &str, value| head.number(&format!("{architecture}.{key}"), value);
    number("context_length", shape.context);
    number("embedding_length", shape.hidden);
    number("block_count", shape.layers);
    number("feed_forward_length", shape.ffn);
    number("attention.head_count", shape.heads);
    number("attention.head_count_kv", shape.kv_heads);
    number("vocab_size", shape.vocab);
    if shape.family != Family::Gpt2 {
        number("rope.dimension_count", shape.hidden / shape.heads);
    }
    let mut float = |key: &str, value| head.float(&format!("{architecture}.{key}"), value);
    match shape.family {
        Family::Gpt2 => float("attention.layer_norm_epsilon", 1e-5),
        Family::Llama => float("attention.layer_norm_rms_epsilon", 1e-5),
        Family::Olmo2 => float("attention.layer_norm_rms_epsilon", 1e-6),
    }
    match shape.family {
        Family::Gpt2 => byte_level(head, shape, "gpt-2", 50256),
        Family::Llama => {
            float("rope.freq_base", 10_000.0);
            sentence_piece(head, shape);
        }
        Family::Olmo2 => {
            float("rope.freq_base", 500_000.0);
            byte_level(head, shape, "dbrx", 100257);
        }
    }
}

/// A byte-level BPE vocabulary: the 256 bytes, pairs of letters, and names for the rest.
fn byte_level(head: &mut Head, shape: &Shape, pre: &str, end: usize) {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..256).filter(|byte| !printable(*byte));
    let mut tokens: Vec<String> = (0..256).filter(|byte| printable(*byte)).filter_map(char::from_u32).map(String::from).collect();
    tokens.extend(others.enumerate().filter_map(|(i, _)| char::from_u32(256 + i as u32)).map(String::from));
    let mut merges = Vec::new();
    for a in ['\u{120}'].into_iter().chain('a'..='z') {
        for b in 'a'..='z' {
            tokens.push(format!("{a}{b}"));
            merges.push(format!("{a} {b}"));
        }
    }
    let mut types = vec![1i32; tokens.len()];
    types.resize(shape.vocab, 5);
    tokens.extend((tokens.len()..shape.vocab).map(|i| format!("<x{i}>")));
    (tokens[end], types[end]) = ("<|endoftext|>".into(), 3);
    head.text("tokenizer.ggml.model", "gpt2");
    head.text("tokenizer.ggml.pre", pre);
    head.texts("tokenizer.ggml.tokens", &tokens);
    head.list("tokenizer.ggml.token_type", 5, &types, |out, kind| out.extend(kind.to_le_bytes()));
    head.texts("tokenizer.ggml.merges", &merges);
    head.number("tokenizer.ggml.bos_token_id", end);
    head.number("tokenizer.ggml.eos_token_id", end);
    head.flag("tokenizer.ggml.add_bos_token", false);
}

/// A SentencePiece vocabulary: specials, the 256 bytes, letters, pairs of letters, and names for the rest.
fn sentence_piece(head: &mut Head, shape: &Shape) {
    let mut pieces: Vec<(String, f32, i32)> =
        [("<unk>", 2), ("<s>", 3), ("</s>", 3)].map(|(text, kind)| (text.into(), 0.0, kind)).into();
    pieces.extend((0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    for a in ['\u{2581}'].into_iter().chain('a'..='z') {
        pieces.extend(('a'..='z').map(|b| (format!("{a}{b}"), -1.0, 1)));
    }
    pieces.extend(['\u{2581}'].into_iter().chain('!'..='~').map(|c| (c.into(), -10_000.0, 1)));
    let first = pieces.len();
    pieces.extend((first..shape.vocab).map(|i| (format!("\u{2581}zz{i}"), -20_000.0 - i as f32, 1)));
    let tokens: Vec<String> = pieces.iter().map(|piece| piece.0.clone()).collect();
    head.text("tokenizer.ggml.model", "llama");
    head.text("tokenizer.ggml.pre", "default");
    head.texts("tokenizer.ggml.tokens", &tokens);
    head.list("tokenizer.ggml.scores", 6, &pieces, |out, piece| out.extend(piece.1.to_le_bytes()));
    head.list("tokenizer.ggml.token_type", 5, &pieces, |out, piece| out.extend(piece.2.to_le_bytes()));
    head.number("tokenizer.ggml.bos_token_id", 1);
    head.number("tokenizer.ggml.eos_token_id", 2);
    head.number("tokenizer.ggml.unknown_token_id", 0);
}
