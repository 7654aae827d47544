//! A sequence's bits are the same alone and in any batch; a request that fails leaves the others and its own cache alone.

mod common;

use common::{golden, isas, load, new_cache, same_bits, step_all};
use engine::model::{Logits, Request, step_batch};
use engine::{Cache, CacheOptions, ErrorKind, Model, Result};
use std::sync::Arc;

/// Float and quantised weights, windows, experts, learned positions, side by side.
const MODELS: &[&str] =
    &["llama-gqa-sharded", "gpt2-f16", "gemma3-5", "mixtral-4", "cohere-qk-norm-5", "phi3-longrope-5", "llama-gguf-f16"];

/// What a sequence is fed, call by call.
type Script<'a> = Vec<&'a [u32]>;

/// The logits of all fed positions when each sequence steps alone.
fn alone(model: &Arc<Model>, script: &Script<'_>) -> Vec<f32> {
    let mut cache = new_cache(model);
    script.iter().flat_map(|tokens| step_all(&mut cache, tokens)).collect()
}

/// Round `i` of every script as one batch.
fn rounds(caches: &mut [Cache], scripts: &[Script<'_>], vocab: usize) -> Vec<Vec<f32>> {
    let mut found = vec![Vec::new(); scripts.len()];
    for round in 0..scripts.iter().map(Vec::len).max().unwrap() {
        let mut logits: Vec<Vec<f32>> =
            scripts.iter().map(|script| vec![f32::NAN; script.get(round).map_or(0, |t| t.len()) * vocab]).collect();
        let parts = caches.iter_mut().zip(scripts).zip(&mut logits);
        let mut requests: Vec<Request<'_>> = parts
            .filter_map(|((cache, script), logits)| {
                let tokens = *script.get(round)?;
                Some(Request { cache, tokens, logits: Logits::All(logits), result: Ok(()) })
            })
            .collect();
        step_batch(&mut requests);
        requests.iter().for_each(|request| request.result.clone().unwrap());
        drop(requests);
        found.iter_mut().zip(logits).for_each(|(all, logits)| all.extend(logits));
    }
    found
}

#[test]
fn the_same_bits_alone_and_in_a_batch() {
    for (case, isa) in MODELS.iter().flat_map(|case| isas().into_iter().map(move |isa| (case, isa))) {
        let (path, tokens) = golden(case);
        let model = load(&path, Some(isa), 2);
        let vocab = model.vocab_size();
        // Prompts of different lengths on both paths, single tokens, pieces; they end at different times.
        let scripts: Vec<Script<'_>> = vec![
            tokens[..20].chunks(1).collect(),
            vec![&tokens[..33], &tokens[33..34], &tokens[34..50]],
            tokens[3..40].chunks(7).collect(),
            vec![&tokens[..1]],
            std::iter::once(&tokens[..16]).chain(tokens[16..30].chunks(1)).collect(),
        ];
        let mut caches: Vec<Cache> = scripts.iter().map(|_| new_cache(&model)).collect();
        for (i, (found, script)) in rounds(&mut caches, &scripts, vocab).iter().zip(&scripts).enumerate() {
            assert!(same_bits(found, &alone(&model, script)), "{case}, {isa:?}, sequence {i}");
            assert_eq!(caches[i].len(), script.iter().map(|tokens| tokens.len()).sum::<usize>());
        }
    }
}

/// 45 sequences of both paths are more than one pass, one of which ends inside a prompt, and more logits than the head takes at a time.
#[test]
fn more_than_one_pass() {
    for case in ["llama-gqa-sharded", "gemma3-5", "mixtral-4", "phi3-longrope-5"] {
        let (path, tokens) = golden(case);
        let model = load(&path, None, 2);
        let lengths = (0..45).map(|i| if i % 3 == 0 { 17 + i % 20 } else { 16 - i % 5 });
        let scripts: Vec<Script<'_>> = lengths.enumerate().map(|(i, n)| vec![&tokens[i % 9..][..n], &tokens[..1]]).collect();
        assert!(scripts.iter().map(|script| script[0].len()).sum::<usize>() > 512);
        let mut caches: Vec<Cache> = scripts.iter().map(|_| new_cache(&model)).collect();
        for (i, (found, script)) in rounds(&mut caches, &scripts, model.vocab_size()).iter().zip(&scripts).enumerate() {
            assert!(same_bits(found, &alone(&model, script)), "{case}, sequence {i}");
        }
    }
}

/// A long prompt that is cancelled while others share its passes: theirs go on, its cache is as it was.
#[test]
fn a_prompt_that_is_cancelled() {
    let (path, tokens) = golden("llama-gqa-sharded");
    let model = load(&path, None, 2);
    let (mut a, mut b) = (new_cache(&model), new_cache(&model));
    step_all(&mut b, &tokens[..2]);
    b.canceller().cancel();
    let mut logits = vec![0.0; 40 * model.vocab_size()];
    let mut requests = [
        Request { cache: &mut a, tokens: &tokens[..40], logits: Logits::All(&mut logits), result: Ok(()) },
        Request { cache: &mut b, tokens: &tokens[2..42], logits: Logits::None, result: Ok(()) },
    ];
    step_batch(&mut requests);
    assert!(requests[0].result.is_ok());
    assert_eq!(requests[1].result.as_ref().unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(same_bits(&logits, &alone(&model, &vec![&tokens[..40]])));
    assert_eq!((a.len(), b.len()), (40, 2));
    let whole = alone(&model, &vec![&tokens[..2], &tokens[2..42]]);
    assert!(same_bits(&step_all(&mut b, &tokens[2..42]), &whole[2 * model.vocab_size()..]));
}

#[test]
fn only_the_logits_that_are_asked_for() {
    let (path, tokens) = golden("qwen3-moe-4");
    let model = load(&path, None, 2);
    let vocab = model.vocab_size();
    let (mut a, mut b, mut c) = (new_cache(&model), new_cache(&model), new_cache(&model));
    let (mut last, mut all) = (vec![0.0; vocab], vec![0.0; 3 * vocab]);
    let mut requests = [
        Request { cache: &mut a, tokens: &tokens[..5], logits: Logits::Last(&mut last), result: Ok(()) },
        Request { cache: &mut b, tokens: &tokens[..4], logits: Logits::None, result: Ok(()) },
        Request { cache: &mut c, tokens: &tokens[..3], logits: Logits::All(&mut all), result: Ok(()) },
    ];
    step_batch(&mut requests);
    assert!(requests.iter().all(|request| request.result.is_ok()));
    let want = alone(&model, &vec![&tokens[..5]]);
    assert!(same_bits(&last, &want[4 * vocab..]) && same_bits(&all, &want[..3 * vocab]));
    assert_eq!((a.len(), b.len(), c.len()), (5, 4, 3));
    assert!(same_bits(&step_all(&mut b, &tokens[4..5]), &want[4 * vocab..]));
}

#[test]
fn a_request_that_fails_leaves_the_others_alone() {
    let (path, tokens) = golden("llama-mha");
    let model = load(&path, None, 2);
    let other = load(&path, None, 1);
    let vocab = model.vocab_size();
    let full = CacheOptions { max_tokens: 2, ..CacheOptions::default() };
    let mut caches =
        vec![new_cache(&model), model.new_cache(&full).unwrap(), new_cache(&other), new_cache(&model), new_cache(&model)];
    caches.push(new_cache(&model));
    let cancelled = caches[5].canceller();
    let bad = [vocab as u32];
    let mut logits = vec![vec![0.0; vocab]; 4];
    let mut long = vec![0.0; vocab + 1];
    let results: Vec<Result<()>> = {
        let [l0, l1, l2, l3] = &mut logits[..] else { unreachable!() };
        let fed: Vec<(&[u32], Logits<'_>)> = vec![
            (&tokens[..3], Logits::Last(l0)),
            (&tokens[..3], Logits::Last(l1)),
            (&tokens[..3], Logits::Last(l2)),
            (&bad, Logits::Last(l3)),
            (&tokens[..3], Logits::Last(&mut long)),
            (&tokens[..3], Logits::None),
        ];
        cancelled.cancel();
        let parts = caches.iter_mut().zip(fed);
        let mut requests: Vec<_> =
            parts.map(|(cache, (tokens, logits))| Request { cache, tokens, logits, result: Ok(()) }).collect();
        step_batch(&mut requests);
        requests.into_iter().map(|request| request.result).collect()
    };
    let kinds: Vec<Option<ErrorKind>> = results.iter().map(|result| result.as_ref().err().map(|e| e.kind())).collect();
    let bad = Some(ErrorKind::BadArgument);
    assert_eq!(kinds, [None, Some(ErrorKind::ContextFull), bad, bad, bad, Some(ErrorKind::Cancelled)]);
    assert_eq!(caches.iter().map(Cache::len).collect::<Vec<_>>(), [3, 0, 0, 0, 0, 0]);
    let want = alone(&model, &vec![&tokens[..3]]);
    assert!(same_bits(&logits[0], &want[2 * vocab..]));
    assert!(same_bits(&step_all(&mut caches[5], &tokens[..3]), &want), "a cancelled request's cache goes on");
    step_batch(&mut []);
}
