//! What is in the file that is written, byte for byte.

use super::*;
use crate::format::Quant;
use crate::format::testing::{Gguf, TempDir, gguf_array, gguf_string};

/// 32 rows of 256, mostly small.
fn matrix() -> Vec<u8> {
    (0..32 * 256).map(|i| ((i * 7919 % 1009) as f32 / 500.0 - 1.0).powi(3)).flat_map(f32::to_le_bytes).collect()
}

const F32: u32 = 0;
/// Types of metadata values.
const U32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// A model of one layer, as far as quantising asks, its keys and tensors in no order; `more` goes before the last key.
fn model(more: impl Fn(Gguf) -> Gguf) -> Vec<u8> {
    let tokens = [gguf_string("<s>"), gguf_string("\u{2581}a"), gguf_string("")].concat();
    let gguf = Gguf::new()
        .entry("tokenizer.ggml.tokens", ARRAY, &gguf_array(STRING, 3, &tokens))
        .entry("general.architecture", STRING, &gguf_string("llama"))
        .entry("split.count", U32, &1u32.to_le_bytes())
        .entry("general.file_type", U32, &0u32.to_le_bytes());
    more(gguf)
        .entry("llama.block_count", U32, &1u32.to_le_bytes())
        .tensor("output.weight", &[256, 32], F32, &matrix())
        .tensor("blk.0.ffn_down.weight", &[256, 32], F32, &matrix())
        .tensor("blk.0.attn_norm.weight", &[256], F32, &matrix()[..1024])
        .tensor("blk.0.ffn_gate_inp.weight", &[256, 2], F32, &matrix()[..2048])
        .tensor("blk.0.ffn_up_exps.weight", &[64, 16, 8], F32, &matrix())
        .tensor("token_embd.weight", &[48, 10], F32, &matrix()[..1920])
        .build()
}

fn quantized(bytes: &[u8], recipe: Recipe) -> (TempDir, Vec<u8>) {
    let dir = TempDir::new();
    let (input, output) = (dir.write("in.gguf", bytes), dir.path().join("out.gguf"));
    quantize(&input, &output, recipe, QuantizeOptions::default()).unwrap();
    let written = std::fs::read(output).unwrap();
    (dir, written)
}

fn tensors(dir: &TempDir) -> Vec<(String, DType, Vec<usize>)> {
    let source = format::open(&dir.path().join("out.gguf"), MapMode::Map).unwrap();
    let tensors = in_file_order(source.tensors.iter());
    tensors.into_iter().map(|(name, tensor)| (name.to_string(), tensor.dtype, tensor.shape.clone())).collect()
}

#[test]
fn metadata_stays_byte_for_byte() {
    let (_dir, written) = quantized(&model(|gguf| gguf), Recipe::Q4KM);
    let tokens = [gguf_string("<s>"), gguf_string("\u{2581}a"), gguf_string("")].concat();
    let expected = Gguf::new()
        .entry("tokenizer.ggml.tokens", ARRAY, &gguf_array(STRING, 3, &tokens))
        .entry("general.architecture", STRING, &gguf_string("llama"))
        .entry("general.file_type", U32, &15u32.to_le_bytes())
        .entry("llama.block_count", U32, &1u32.to_le_bytes())
        .entry("general.quantization_version", U32, &2u32.to_le_bytes());
    let start = 4 + 4 + 8 + 8;
    assert_eq!(written[..start], *[b"GGUF", &3u32.to_le_bytes()[..], &6u64.to_le_bytes(), &5u64.to_le_bytes()].concat());
    assert_eq!(written[start..start + expected.entries.len()], expected.entries);
}

#[test]
fn tensors_keep_their_order_and_shapes() {
    let (dir, _) = quantized(&model(|gguf| gguf), Recipe::Q4KM);
    let tensor = |name: &str, dtype: DType, shape: &[usize]| (name.to_string(), dtype, shape.to_vec());
    assert_eq!(
        tensors(&dir),
        [
            tensor("output.weight", Quant::Q6K.into(), &[32, 256]),
            // The only layer is in the last eighth.
            tensor("blk.0.ffn_down.weight", Quant::Q6K.into(), &[32, 256]),
            tensor("blk.0.attn_norm.weight", DType::F32, &[256]),
            tensor("blk.0.ffn_gate_inp.weight", DType::F32, &[2, 256]),
            tensor("blk.0.ffn_up_exps.weight", Quant::Q5_0.into(), &[8, 16, 64]),
            tensor("token_embd.weight", DType::F16, &[10, 48]),
        ]
    );
}

#[test]
fn alignment_stays() {
    const ALIGNMENT: u32 = 256;
    let mut gguf = Gguf { alignment: ALIGNMENT as usize, ..Gguf::new() };
    gguf = gguf.entry("general.alignment", U32, &ALIGNMENT.to_le_bytes()).tensor("a.weight", &[32, 3], F32, &matrix()[..384]);
    let gguf = gguf.tensor("b.weight", &[32, 3], F32, &matrix()[384..768]);
    let (dir, written) = quantized(&gguf.build(), Recipe::Q8_0);
    assert_eq!(written.len() % 256, 0);
    assert_eq!(tensors(&dir).len(), 2);
}

/// The elements that come back are what the packing of the rows gives.
#[test]
fn elements_are_those_of_the_rows() {
    let (dir, _) = quantized(&model(|gguf| gguf), Recipe::Q8_0);
    let source = format::open(&dir.path().join("out.gguf"), MapMode::Map).unwrap();
    let x: Vec<f32> = matrix().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let mut blocks = vec![0; DType::from(Quant::Q8_0).bytes(x.len()).unwrap()];
    crate::kernels::pack_quant(Quant::Q8_0, &x, &mut blocks);
    assert!(source.tensors["blk.0.ffn_down.weight"].data[..] == blocks);
}

#[test]
fn what_is_no_number_is_named() {
    let mut bytes = model(|gguf| gguf);
    let dir = TempDir::new();
    // Element [7, 3] of the first tensor.
    let data = bytes.len() - [matrix().len() * 3, 1024, 2048, 1920].iter().sum::<usize>();
    for (bad, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (7e4, "70000")] {
        bytes[data + (7 * 256 + 3) * 4..][..4].copy_from_slice(&bad.to_le_bytes());
        let (input, output) = (dir.write("in.gguf", &bytes), dir.path().join("out.gguf"));
        let error = quantize(&input, &output, Recipe::Q8_0, QuantizeOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadFile);
        for part in ["in.gguf", "output.weight", "[7, 3]", text] {
            assert!(error.message().contains(part), "{error}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "something is left behind");
    }
}

#[test]
fn the_same_file_for_any_number_of_threads() {
    let dir = TempDir::new();
    let input = dir.write("in.gguf", &model(|gguf| gguf));
    for recipe in Recipe::ALL {
        let file = |threads| {
            let output = dir.path().join(format!("{threads}.gguf"));
            quantize(&input, &output, recipe, QuantizeOptions { threads, progress: None }).unwrap();
            std::fs::read(output).unwrap()
        };
        assert!(file(1) == file(3), "{recipe:?}");
    }
}
