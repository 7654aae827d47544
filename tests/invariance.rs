//! What must not change a result: how a prompt is cut into calls, the number of threads, forks, truncation, other caches, other
//! threads, errors. The same bits, except where BLAS (not with AVX2) or the change from one path to the other orders sums differently:
//! there the bound of [`bound`]. Where the prefill path multiplies on a matrix unit, it rounds: each path has its own bits.

mod common;

use common::{
    chunked, golden, isas, load, matrix_unit_noise, new_cache, relative_difference, relative_l2, repository, same_bits, step,
    step_all,
};
use engine::{CacheOptions, ErrorKind, KvType, Model};
use std::sync::Arc;

/// Every family, every float type, grouped heads and not; the second is longer than a block of the cache.
const MODELS: &[&str] = &[
    "gpt2-hub",
    "llama-gqa-sharded",
    "llama-f16-tied",
    "olmo2-gqa-bf16",
    "gpt2-gguf",
    "gemma3-5",
    "falcon-new-5",
    "cohere-qk-norm-5",
    "phi3-longrope-5",
    "qwen3-moe-4",
];

/// A call with up to this many tokens takes the few-token path, a longer one the prefill path.
const FEW: usize = 16;

/// How far, in units of the largest logit, two orders of summation may be apart on a golden case.
///
/// make_golden.py records for each case how far transformers' f32 logits are from its f64 ones: what the rounding of one order of
/// summation, torch's, costs on that model. Rounding errors add up like a random walk: √K units for a sum of K terms one
/// after the other, and fewer for torch, which sums at least 16 parts side by side (8 lanes, 2 accumulators), as √(K/16 + 4): for
/// K ≤ 150, the widest sum in these models, at most 3.4 times fewer. Two paths, each with such errors, are twice that apart
/// in the worst case: 2 × 3.4, rounded up.
fn bound(case: &str) -> f32 {
    let text = std::fs::read_to_string(repository("tests/golden/rounding.json")).unwrap();
    let table: serde_json::Value = serde_json::from_str(&text).unwrap();
    8.0 * table[case].as_f64().unwrap() as f32
}

/// The model and tokens of a golden case, on every instruction set.
fn each(mut test: impl FnMut(&str, &Arc<Model>, &[u32])) {
    for case in MODELS {
        let (path, tokens) = golden(case);
        for isa in isas() {
            test(&format!("{case}, {isa:?}"), &load(&path, Some(isa), 2), &tokens);
        }
    }
}

/// The name of the golden case in a label of [`each`].
fn case_of(label: &str) -> &str {
    label.split(',').next().unwrap()
}

fn assert_same(got: &[f32], want: &[f32], label: &str) {
    let difference = relative_difference(got, want);
    assert!(same_bits(got, want), "{label}: not the same bits, off by {difference:e} of the largest logit");
}

/// The same bits, or where BLAS multiplies, within the bound.
fn assert_same_prefill(model: &Model, got: &[f32], want: &[f32], label: &str) {
    if model.prefill_by_blas() {
        let (difference, bound) = (relative_difference(got, want), bound(case_of(label)));
        assert!(difference <= bound, "{label}: off by {difference:e} of the largest logit, the bound is {bound:e}");
    } else {
        assert_same(got, want, label);
    }
}

#[test]
fn few_token_calls_of_any_size() {
    each(|label, model, tokens| {
        let want = chunked(model, tokens, &[1]);
        for sizes in [&[FEW][..], &[2], &[7], &[FEW - 1, FEW], &[3, 5, 11, 1], &[1, FEW, 4]] {
            assert_same(&chunked(model, tokens, sizes), &want, &format!("{label}, calls of {sizes:?}"));
        }
    });
}

#[test]
fn prefill_calls_of_any_size() {
    each(|label, model, tokens| {
        let n = tokens.len();
        let want = chunked(model, tokens, &[n]);
        for sizes in
            [&[FEW + 1, n - FEW - 1][..], &[n - FEW - 1, FEW + 1], &[FEW + 4, n - 2 * FEW - 5, FEW + 1], &[n / 2, n - n / 2]]
        {
            assert!(sizes.iter().all(|&size| size > FEW));
            assert_same_prefill(model, &chunked(model, tokens, sizes), &want, &format!("{label}, calls of {sizes:?}"));
        }
    });
}

#[test]
fn few_token_calls_after_a_prefill() {
    each(|label, model, tokens| {
        let (head, tail) = tokens.split_at(FEW + 5);
        let mut prefilled = new_cache(model);
        step_all(&mut prefilled, head);
        let mut ends = [1, 2, 5, FEW].map(|size| {
            let mut cache = prefilled.fork().unwrap();
            tail.chunks(size).flat_map(|chunk| step_all(&mut cache, chunk)).collect::<Vec<f32>>()
        });
        let want = std::mem::take(&mut ends[0]);
        for got in &ends[1..] {
            assert_same(got, &want, label);
        }
    });
}

/// Where a matrix unit rounds 16-bit factors, as near as golden.rs has it.
#[test]
fn the_two_paths_agree() {
    each(|label, model, tokens| {
        let few = chunked(model, tokens, &[1]);
        let noise = matrix_unit_noise(case_of(label), model);
        for sizes in [&[tokens.len()][..], &[FEW + 1, FEW, 1, 1]] {
            let many = chunked(model, tokens, sizes);
            if let Some(noise) = noise {
                let off = relative_l2(&many, &few);
                assert!(off <= 2.0 * noise, "{label}: {sizes:?} is off by {off:e}, the noise is {noise:e}");
                continue;
            }
            let (difference, bound) = (relative_difference(&many, &few), bound(case_of(label)));
            assert!(
                difference <= bound,
                "{label}: {sizes:?} is off by {difference:e} of the largest logit, the bound is {bound:e}"
            );
        }
    });
}

/// The prefill too, with BLAS: the work is cut into the same runs of outputs whoever does them.
#[test]
fn any_number_of_threads() {
    for case in MODELS {
        let (path, tokens) = golden(case);
        for isa in isas() {
            let one = load(&path, Some(isa), 1);
            for threads in [2, 3] {
                let more = load(&path, Some(isa), threads);
                let label = format!("{case}, {isa:?}, {threads} threads");
                assert_same(&chunked(&more, &tokens, &[1, FEW]), &chunked(&one, &tokens, &[1, FEW]), &label);
                assert_same(&chunked(&more, &tokens, &[tokens.len()]), &chunked(&one, &tokens, &[tokens.len()]), &label);
            }
        }
    }
}

#[test]
fn the_last_logits_are_the_last_of_all() {
    each(|label, model, tokens| {
        for n in [1, FEW, FEW + 1, tokens.len()] {
            let all = step_all(&mut new_cache(model), &tokens[..n]);
            let last = step(&mut new_cache(model), &tokens[..n]);
            assert_same_prefill(model, &last, &all[all.len() - last.len()..], &format!("{label}, {n} tokens"));
            if n <= FEW {
                assert_same(&last, &all[all.len() - last.len()..], &format!("{label}, {n} tokens"));
            }
        }
    });
}

#[test]
fn no_logits_asked_for() {
    each(|label, model, tokens| {
        let (head, tail) = tokens.split_at(FEW + 9);
        let (mut quiet, mut loud) = (new_cache(model), new_cache(model));
        quiet.step(head, None).unwrap();
        step(&mut loud, head);
        assert_eq!((quiet.len(), loud.len()), (head.len(), head.len()));
        quiet.step(&tail[..3], None).unwrap();
        step(&mut loud, &tail[..3]);
        assert_same(&step(&mut quiet, &tail[3..5]), &step(&mut loud, &tail[3..5]), label);
    });
}

/// A fork goes on as the original would have, whichever writes first, and neither sees what the other feeds.
#[test]
fn forks() {
    each(|label, model, tokens| {
        for at in [1, 5, FEW, FEW + 1, 32, 33, tokens.len() - 9] {
            let (head, tail) = (&tokens[..at], &tokens[at..at + 8]);
            let other: Vec<u32> = tail.iter().rev().map(|t| (t + 1) % model.vocab_size() as u32).collect();
            let fresh = |tail: &[u32]| {
                let mut cache = new_cache(model);
                cache.step(head, None).unwrap();
                step_all(&mut cache, tail)
            };
            let mut first = new_cache(model);
            first.step(head, None).unwrap();
            let mut second = first.fork().unwrap();
            let mut third = second.fork().unwrap();
            assert_eq!((second.len(), third.len()), (at, at));
            assert_same(&step_all(&mut second, &other), &fresh(&other), &format!("{label}, fork at {at}"));
            assert_same(&step_all(&mut first, tail), &fresh(tail), &format!("{label}, original at {at}"));
            drop((first, second));
            assert_same(&step_all(&mut third, tail), &fresh(tail), &format!("{label}, fork of a fork at {at}"));
        }
    });
}

#[test]
fn truncate_and_feed_again() {
    each(|label, model, tokens| {
        let n = tokens.len();
        let want = chunked(model, tokens, &[1]);
        let width = model.vocab_size();
        // So far back that no window lets anything go; what windows do is for windows.rs.
        let mut cache = model.new_cache(&CacheOptions { rewind_tokens: n, ..CacheOptions::default() }).unwrap();
        step_all(&mut cache, &tokens[..3]);
        cache.truncate(0).unwrap();
        assert!(cache.is_empty());
        for chunk in tokens.chunks(FEW) {
            step_all(&mut cache, chunk);
        }
        let kept = cache.fork().unwrap();
        for len in [n, n - 1, n - FEW, 33, 32, 31, FEW, 1, 0] {
            let mut cache = kept.fork().unwrap();
            cache.truncate(len).unwrap();
            assert_eq!((cache.len(), kept.len()), (len, n));
            if len > 0 {
                // Something else in between, truncated away again.
                cache.truncate(len - 1).unwrap();
                step(&mut cache, &[tokens[len - 1]]);
                assert_eq!(cache.truncate(len + 1).unwrap_err().kind(), ErrorKind::BadArgument);
            }
            let end = n.min(len + FEW);
            if end > len {
                let got = step_all(&mut cache, &tokens[len..end]);
                assert_same(&got, &want[len * width..end * width], &format!("{label}, truncated to {len}"));
            }
        }
    });
}

#[test]
fn two_caches_in_turns() {
    each(|label, model, tokens| {
        let reversed: Vec<u32> = tokens.iter().rev().copied().collect();
        let (mut a, mut b) = (new_cache(model), new_cache(model));
        let (mut got_a, mut got_b) = (Vec::new(), Vec::new());
        for (chunk_a, chunk_b) in tokens.chunks(5).zip(reversed.chunks(5)) {
            got_a.extend(step_all(&mut a, chunk_a));
            got_b.extend(step_all(&mut b, chunk_b));
        }
        assert_same(&got_a, &chunked(model, tokens, &[1]), label);
        assert_same(&got_b, &chunked(model, &reversed, &[1]), label);
    });
}

/// Eight threads of the host, each with a cache of one model, all at once: the pool serves one, the others work alone.
#[test]
fn eight_host_threads() {
    each(|label, model, tokens| {
        let sizes: &[usize] = &[FEW + 3, 1, 7, FEW];
        let rotated = |by: usize| tokens.iter().cycle().skip(by).take(tokens.len()).copied().collect::<Vec<u32>>();
        let want: Vec<Vec<f32>> = (0..8).map(|i| chunked(model, &rotated(i), sizes)).collect();
        std::thread::scope(|scope| {
            for (i, want) in want.iter().enumerate() {
                scope.spawn(move || {
                    for _ in 0..3 {
                        assert_same(&chunked(model, &rotated(i), sizes), want, &format!("{label}, host thread {i}"));
                    }
                });
            }
        });
    });
}

/// A cache of 16-bit or 8-bit keys and values keeps the promises too.
#[test]
fn smaller_caches() {
    each(|label, model, tokens| {
        for kv_type in [KvType::F16, KvType::Bf16, KvType::Q8_0] {
            let run = |size: usize| {
                let mut cache = model.new_cache(&CacheOptions { kv_type, ..Default::default() }).unwrap();
                tokens.chunks(size).flat_map(|chunk| step_all(&mut cache, chunk)).collect::<Vec<f32>>()
            };
            assert_same(&run(FEW), &run(1), &format!("{label}, {kv_type:?}"));
            if !model.prefill_by_blas() {
                // With BLAS the last bit of a sum decides which value a key becomes, and the bound is not that of f32.
                assert_same(&run(tokens.len() / 2 + 1), &run(tokens.len()), &format!("{label}, {kv_type:?}"));
            }
        }
    });
}

/// `cache` behaves as one that was fed `tokens` without anything in between.
fn assert_untouched(cache: &engine::Cache, tokens: &[u32], label: &str) {
    assert_eq!(cache.len(), tokens.len(), "{label}");
    let mut undisturbed = new_cache(cache.model());
    for chunk in tokens.chunks(FEW) {
        step(&mut undisturbed, chunk);
    }
    assert_same(&step(&mut cache.fork().unwrap(), &[1, 2]), &step(&mut undisturbed, &[1, 2]), label);
}

#[test]
fn a_full_context_changes_nothing() {
    each(|label, model, tokens| {
        let max_tokens = tokens.len() - 5;
        let mut cache = model.new_cache(&CacheOptions { max_tokens, ..Default::default() }).unwrap();
        assert_eq!(cache.max_tokens(), max_tokens);
        let mut logits = vec![7.0; tokens.len() * model.vocab_size()];
        let full = cache.step_all(tokens, &mut logits).unwrap_err();
        assert_eq!((full.kind(), cache.len()), (ErrorKind::ContextFull, 0), "{label}: {full}");
        let held = max_tokens - 3;
        for chunk in tokens[..held].chunks(FEW) {
            step(&mut cache, chunk);
        }
        for too_many in [4, FEW, FEW + 1] {
            let full = cache.step(&tokens[..too_many], Some(&mut logits[..model.vocab_size()])).unwrap_err();
            assert_eq!(full.kind(), ErrorKind::ContextFull, "{label}: {full}");
        }
        assert!(logits.iter().all(|&x| x == 7.0), "{label}: a failed step wrote logits");
        assert_untouched(&cache, &tokens[..held], label);
        step(&mut cache, &tokens[held..max_tokens]);
        assert_eq!(cache.step(&[0], None).unwrap_err().kind(), ErrorKind::ContextFull);
        cache.truncate(max_tokens - 1).unwrap();
        step(&mut cache, &[0]);
        let more = CacheOptions { max_tokens: model.context_length() + 1, ..Default::default() };
        assert_eq!(model.new_cache(&more).err().map(|e| e.kind()), Some(ErrorKind::BadArgument));
    });
}

#[test]
fn bad_arguments_change_nothing() {
    each(|label, model, tokens| {
        let width = model.vocab_size();
        let mut cache = new_cache(model);
        step(&mut cache, &tokens[..9]);
        let mut logits = vec![7.0; 40 * width];
        for bad in [width as u32, u32::MAX] {
            for n in [1, 3, FEW + 3] {
                let mut fed = tokens[..n].to_vec();
                fed[n - 1] = bad;
                let error = cache.step_all(&fed, &mut logits[..n * width]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::BadArgument, "{label}: {error}");
                assert!(error.message().contains(&bad.to_string()), "{label}: {error}");
            }
        }
        assert!(cache.step(&tokens[..2], Some(&mut logits[..width - 1])).is_err());
        assert!(cache.step_all(&tokens[..2], &mut logits[..2 * width - 1]).is_err());
        assert!(logits.iter().all(|&x| x == 7.0), "{label}: a failed step wrote logits");
        assert_untouched(&cache, &tokens[..9], label);
    });
}

#[test]
fn a_cancelled_step_changes_nothing() {
    each(|label, model, tokens| {
        let mut cache = new_cache(model);
        step(&mut cache, &tokens[..9]);
        for n in [1, FEW + 3] {
            cache.canceller().cancel();
            let error = cache.step(&tokens[..n], None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{label}: {error}");
        }
        assert_untouched(&cache, &tokens[..9], label);
    });
}
