//! A tiny Llama whose matrices are of every block type of GGUF, against transformers with the dequantised weights;
//! golden/quant/make_model.py makes it.

mod common;

use common::{chunked, isas, load, read_npy, read_tokens, relative_difference, relative_l2, repository, same_bits};
use engine::kernels::Isa;
use engine::{LoadOptions, Model, Weights};

fn file(name: &str) -> std::path::PathBuf {
    repository("tests/golden/quant").join(name)
}

/// With the weights expanded nothing is rounded to 8 bits: as in golden.rs.
#[test]
fn expanded_weights_give_the_exact_logits() {
    let (tokens, (_, want)) = (read_tokens(&file("mixed.tokens.json")), read_npy(&file("mixed.npy")));
    for isa in isas() {
        let options = LoadOptions { isa: Some(isa), threads: 2, weights: Weights::F32, ..Default::default() };
        let model = Model::load(file("mixed.gguf"), options).unwrap();
        for sizes in [&[1][..], &[usize::MAX], &[17, 16, 7]] {
            let worst = relative_difference(&chunked(&model, &tokens, sizes), &want);
            assert!(worst <= 1e-4, "{isa:?}, calls of {sizes:?}: off by {worst:e} of the largest logit");
        }
    }
}

/// Rounding the inputs to 8 bits is the only error, and the script has measured what it does when transformers does it. That is one
/// sample of the noise and ours is another (a last bit decides which way an input is rounded), so ours may be up to twice it. A matrix unit
/// rounds inputs and weights to bf16, by 2^-8 of each: 8 bits err by as much and more, of all but the largest of a block.
#[test]
fn blocks_as_they_are_give_the_logits_but_for_noise() {
    let (tokens, (shape, want)) = (read_tokens(&file("mixed.tokens.json")), read_npy(&file("mixed.npy")));
    let noise: f64 = serde_json::from_str(&std::fs::read_to_string(file("mixed.noise.json")).unwrap()).unwrap();
    for isa in isas() {
        let model = load(&file("mixed.gguf"), Some(isa), 2);
        assert_eq!(shape, [tokens.len(), model.vocab_size()]);
        for size in [1, usize::MAX] {
            let got = chunked(&model, &tokens, &[size]);
            let off = relative_l2(&got, &want);
            assert!(off <= 2.0 * noise, "{isa:?}: off by {off:e}, where transformers with rounded inputs is off by {noise:e}");
        }
    }
}

/// Where there is no matrix unit calls of any size give the same bits. Where there is one, those of up to 16 tokens do, and those of more: it
/// rounds otherwise, and what that does is noise, of which the test above has the bound.
#[test]
fn calls_and_threads_change_nothing() {
    let tokens = read_tokens(&file("mixed.tokens.json"));
    for isa in isas() {
        let one_thread = load(&file("mixed.gguf"), Some(isa), 1);
        let (few, many) = (chunked(&one_thread, &tokens, &[1]), chunked(&one_thread, &tokens, &[usize::MAX]));
        assert!(isa == Isa::Amx || same_bits(&few, &many), "{isa:?}");
        for threads in [1, 2, 3] {
            let model = load(&file("mixed.gguf"), Some(isa), threads);
            for (sizes, want) in [(&[16][..], &few), (&[2, 7], &few), (&[4, 5], &few), (&[17], &many), (&[usize::MAX], &many)] {
                // The last call of 17 and 17 and what is left is of few tokens.
                let n = if sizes == [17] { tokens.len() / 17 * 17 } else { tokens.len() } * model.vocab_size();
                let got = chunked(&model, &tokens, sizes);
                assert!(same_bits(&got[..n], &want[..n]), "{isa:?}, {threads} threads, calls of {sizes:?}");
            }
        }
    }
}
