//! Tiny random models against the logits that Hugging Face transformers computes for them; golden/make_golden.py makes the
//! cases, and asserts there that a wrong setting moves the logits by ten times what is allowed here.

mod common;

use common::{chunked, golden, isas, load, matrix_unit_noise, read_npy, relative_difference, relative_l2, repository, same_bits};
use engine::format::MapMode;
use engine::{LoadOptions, Model, Weights};

/// Of the largest logit. f32 forwards of these models differ from f64 ones by 2e-6 of it at most (asserted by the script to be
/// under 2e-5), so another order of summation stays far below; every wrong setting tried moves the logits by 1e-3 or more.
const TOLERANCE: f32 = 1e-4;

/// How the tokens are cut into calls: all at once and one by one; within the few-token path, beyond it, and across the limit.
const CHUNKS: &[&[usize]] = &[&[usize::MAX], &[1], &[7], &[16], &[17], &[1, 17, 3, 16, 19, 2], &[33, 1], &[20, 20, 1, 1, 1]];

/// Where a matrix unit rounds 16-bit factors, the script has measured what that does when transformers does it. That is one sample of the
/// noise and ours is another, so ours may be up to twice it.
fn check(case: &str) {
    let (path, tokens) = golden(case);
    let (shape, want) = read_npy(&repository("tests/golden").join(case).join("logits.npy"));
    for isa in isas() {
        let model = load(&path, Some(isa), 2);
        assert_eq!(shape, [tokens.len(), model.vocab_size()], "{case}: tokens and vocabulary");
        for sizes in CHUNKS {
            let got = chunked(&model, &tokens, sizes);
            if let Some(noise) = matrix_unit_noise(case, &model).filter(|_| sizes.iter().any(|&size| size > 16)) {
                let off = relative_l2(&got, &want);
                assert!(off <= 2.0 * noise, "{case}, {isa:?}, calls of {sizes:?} tokens: off by {off:e}, the noise is {noise:e}");
                continue;
            }
            let worst = relative_difference(&got, &want);
            assert!(worst <= TOLERANCE, "{case}, {isa:?}, calls of {sizes:?} tokens: off by {worst:e} of the largest logit");
        }
    }
}

/// 16-bit weights are exact in f32, so converting them changes only the order of sums; how a file comes into memory changes nothing.
#[test]
fn every_way_to_load() {
    for case in ["gpt2-f16", "llama-bf16", "llama-f16-tied", "llama-gguf-f16", "olmo2-gqa-bf16", "olmo2-gguf-bf16", "olmo2-npy"] {
        let (path, tokens) = golden(case);
        let (_, want) = read_npy(&repository("tests/golden").join(case).join("logits.npy"));
        let mapped = chunked(&load(&path, None, 2), &tokens, &[1, 17]);
        let load = |options| Model::load(&path, LoadOptions { threads: 2, ..options }).unwrap();
        let f32_weights = load(LoadOptions { weights: Weights::F32, ..Default::default() });
        let worst = relative_difference(&chunked(&f32_weights, &tokens, &[1, 17]), &want);
        assert!(worst <= TOLERANCE, "{case}, converted to f32: off by {worst:e} of the largest logit");
        for mapping in [MapMode::Copy, MapMode::Guarded] {
            let copied = load(LoadOptions { mapping, ..Default::default() });
            assert!(same_bits(&chunked(&copied, &tokens, &[1, 17]), &mapped), "{case}, {mapping:?}");
        }
    }
}

macro_rules! cases {
    ($($case:ident)*) => {
        $(#[test] fn $case() { check(&stringify!($case).replace('_', "-")); })*

        #[test]
        fn every_case_is_here() {
            let mut here: Vec<String> = [$(stringify!($case)),*].iter().map(|name| name.replace('_', "-")).collect();
            let mut there: Vec<String> = std::fs::read_dir(repository("tests/golden")).unwrap().map(|entry| entry.unwrap())
                .filter(|entry| entry.path().join("logits.npy").exists()).map(|entry| entry.file_name().into_string().unwrap()).collect();
            here.sort();
            there.sort();
            assert_eq!(here, there);
        }
    };
}

cases! {
    gpt2_hub gpt2_prefixed gpt2_f16 gpt2_gguf
    llama_mha llama_gqa_sharded llama_mqa_tied llama_bias llama_head_dim llama_bf16 llama_f16_tied
    llama_linear_4 llama_linear_5 llama_llama3_4 llama_llama3_5 llama_yarn_4 llama_yarn_5 llama_yarn_mscale
    llama_gguf_f16 llama_gguf_llama3 llama_gguf_yarn llama_gguf_linear
    olmo2_mha olmo2_gqa_bf16 olmo2_npy olmo2_npy_config olmo2_gguf_bf16
    mistral_window_4 mistral_window_5 mistral_full
    gemma_4 gemma_hidden_activation gemma_5
    gemma2_4 gemma2_5 gemma2_no_caps
    gemma3_4 gemma3_default_pattern gemma3_5
    gpt2_inverse_layer gpt2_unscaled gpt2_hub_untied
    smollm3_4 smollm3_interval smollm3_window_5
    granite_4 granite_5 granite_f16_bias
    mixtral_4 mixtral_window_5 mixtral_f16
    qwen3_moe_4 qwen3_moe_dense_layers_5 qwen3_moe_f16
    olmoe_4 olmoe_clip_5 olmoe_f16
    olmo_4 olmo_5 olmo_f16_bias
    olmo3_4 olmo3_default_pattern olmo3_5
    gpt_neox_4 gpt_neox_serial_5 gpt_neox_no_bias
    falcon_4 falcon_new_5 falcon_new_one_norm falcon_serial_bias
    cohere_4 cohere_qk_norm_5 cohere_bias
    phi3_window_4 phi3_partial_5 phi3_longrope_short phi3_longrope_4 phi3_longrope_5
    qwen2_4 qwen2_window_4 qwen2_window_5 qwen2_f16
    qwen3_4 qwen3_5 qwen3_window_bias
    gpt2_gguf_f16
    mistral_gguf
    olmo_gguf
    olmo3_gguf
    qwen2_gguf
    qwen3_gguf
    gemma_gguf
    gemma2_gguf gemma2_gguf_27b
    gemma3_gguf
    smollm3_gguf
    granite_gguf
    phi3_gguf_long phi3_gguf_window phi3_gguf_short
    gpt_neox_gguf gpt_neox_gguf_serial
    falcon_gguf falcon_gguf_new
    cohere_gguf cohere_gguf_qk_norm
    mixtral_gguf
    qwen3_moe_gguf
    olmoe_gguf
    gpt2_quick_gelu gpt2_tanh gpt2_relu2
    qwen2_yarn_4
    gemma3_gguf_27b
    cohere2_4 cohere2_5 cohere2_gguf
}
