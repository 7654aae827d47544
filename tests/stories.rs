//! Real text: trained models continue a prompt greedily exactly as they should, on every instruction set, whether the text is
//! generated token by token or checked in one prefill.

mod common;

use common::{argmax, isas, load, new_cache, repository, shared, step, step_all};
use engine::{CacheOptions, KvType, Model};
use std::path::PathBuf;
use std::sync::Arc;

/// Feeds `prompt`, then its own argmax, until there are `total` tokens or the text ends; all tokens but the end.
fn continue_greedily(model: &Arc<Model>, kv_type: KvType, prompt: &[u32], total: usize) -> Vec<u32> {
    let tokenizer = model.tokenizer().unwrap();
    let mut cache = model.new_cache(&CacheOptions { kv_type, ..Default::default() }).unwrap();
    let mut tokens = prompt.to_vec();
    let mut logits = step(&mut cache, prompt);
    while tokens.len() < total {
        let next = argmax(&logits);
        if tokenizer.is_end(next) {
            break;
        }
        tokens.push(next);
        if tokens.len() < total {
            logits = step(&mut cache, &[next]);
        }
    }
    tokens
}

/// In one call with all of `tokens` (the prefill path), each position from `first` on is won by the token that follows it.
fn assert_prefill_agrees(model: &Arc<Model>, tokens: &[u32], first: usize) {
    let logits = step_all(&mut new_cache(model), tokens);
    let wins: Vec<u32> = logits.chunks_exact(model.vocab_size()).map(argmax).collect();
    assert_eq!(wins[first..tokens.len() - 1], tokens[first + 1..]);
}

/// 200 tokens after BOS, from BOS and the first words, and from BOS alone.
fn check_stories(file: &str) {
    let Some(path) = shared("models/stories260k", file) else { return };
    let want = std::fs::read_to_string(path.join("expected.txt")).unwrap();
    for (threads, isa) in isas().into_iter().enumerate() {
        let model = load(&path.join(file), Some(isa), threads + 1);
        let tokenizer = model.tokenizer().unwrap();
        let prompt = tokenizer.encode("Once upon a time", true).unwrap();
        assert_eq!(prompt, [1, 403, 407, 261, 378]);
        for prompt in [&prompt[..], &prompt[..1]] {
            let tokens = continue_greedily(&model, KvType::F32, prompt, 201);
            assert_eq!(tokenizer.decode(&tokens[1..]).unwrap(), want, "{isa:?}");
            assert_prefill_agrees(&model, &tokens, prompt.len() - 1);
        }
    }
}

#[test]
fn stories_hugging_face() {
    check_stories("hf");
}

#[test]
fn stories_gguf_f32() {
    check_stories("stories260k-f32.gguf");
}

#[test]
fn stories_gguf_f16() {
    check_stories("stories260k-f16.gguf");
}

/// The text that a file under examples/models/ holds.
fn demo_text(file: &str) -> String {
    std::fs::read_to_string(repository("examples/models").join(file)).unwrap()
}

fn demo() -> PathBuf {
    repository("examples/models/fourscore")
}

/// The demo knows the Gettysburg Address to its end, however keys and values are held.
#[test]
fn demo_is_exact_everywhere() {
    let want = demo_text("fourscore/expected.txt");
    assert_eq!(want, demo_text("texts/gettysburg-address.txt").trim_end());
    for (threads, isa) in isas().into_iter().enumerate() {
        let model = load(&demo(), Some(isa), threads + 1);
        let tokenizer = model.tokenizer().unwrap();
        let prompt = tokenizer.encode("Four score and seven years ago", true).unwrap();
        let [tokens, ..] = [KvType::F32, KvType::F16, KvType::Bf16, KvType::Q8_0].map(|kv_type| {
            let tokens = continue_greedily(&model, kv_type, &prompt, model.context_length());
            assert_eq!(tokenizer.decode(&tokens).unwrap(), want, "{isa:?}, {kv_type:?}");
            tokens
        });
        assert_prefill_agrees(&model, &tokens, prompt.len() - 1);
    }
}

/// Other beginnings: of a whole text, and of a paragraph inside one.
#[test]
fn demo_knows_its_other_texts() {
    let model = load(&demo(), None, 2);
    for (file, words) in [
        ("constitution-preamble", "We the People"),
        ("declaration-of-independence", "When in the Course of human events"),
        ("declaration-of-independence", "We hold these truths"),
        ("psalm-23", "The LORD is my shepherd"),
        ("sonnet-18", "Shall I compare thee"),
    ] {
        let text = demo_text(&format!("texts/{file}.txt"));
        let want = &text.trim_end()[text.find(words).unwrap()..];
        let prompt = model.tokenizer().unwrap().encode(words, true).unwrap();
        let tokens = continue_greedily(&model, KvType::F32, &prompt, model.context_length());
        let got = model.tokenizer().unwrap().decode(&tokens).unwrap();
        let ended = tokens.len() < model.context_length();
        assert!(if ended { got == want } else { want.starts_with(&got) }, "{words:?} became {got:?}");
    }
}

/// The prompt of the fourscore example is what its file says.
#[test]
fn demo_tokens_file() {
    let bytes = std::fs::read(demo().join("four.tokens.bin")).unwrap();
    let tokens: Vec<u32> = bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
    let model = load(&demo(), None, 1);
    assert_eq!(tokens, model.tokenizer().unwrap().encode("Four score and seven", true).unwrap());
}
