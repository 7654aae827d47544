//! The profile counts what a model does, changes nothing about it, and adds up.

mod common;

use common::{new_cache, repository, step};
use engine::model::{Logits, Op, Request, step_batch};
use engine::{LoadOptions, Model};
use std::sync::Arc;

fn load(case: &str, profile: bool) -> Arc<Model> {
    let path = repository("tests/golden").join(case).join("model");
    Model::load(path, LoadOptions { threads: 2, profile, ..Default::default() }).unwrap()
}

#[test]
fn it_counts_calls_and_bytes() {
    let model = load("llama-mha", true);
    let (info, mut cache) = (model.info().clone(), new_cache(&model));
    let plain = load("llama-mha", false);
    let mut beside = new_cache(&plain);
    assert!(beside.profile().is_none());
    for tokens in [&[1, 2, 3][..], &[4]] {
        assert_eq!(step(&mut cache, tokens), step(&mut beside, tokens));
    }
    assert!(beside.profile().is_none());

    let profile = cache.profile().unwrap().clone();
    let layers = 2 * info.n_layers as u64;
    let once_a_layer = [Op::Qkv, Op::Rope, Op::KvWrite, Op::Attention, Op::AttentionOutput, Op::GateUp, Op::Activation, Op::Down];
    once_a_layer.into_iter().for_each(|op| assert_eq!(profile.of(op).calls, layers, "{}", op.name()));
    assert_eq!((profile.of(Op::Norm).calls, profile.of(Op::Residual).calls), (2 * layers + 2, 2 * layers));
    assert_eq!((profile.of(Op::Embedding).calls, profile.of(Op::Head).calls, profile.passes().calls), (2, 2, 2));
    for never in [Op::Quantise, Op::QkvShape, Op::Router, Op::Experts, Op::Logits] {
        assert_eq!(profile.of(never).calls, 0, "{}", never.name());
    }

    // Each pass reads every matrix, but of the embedding only its tokens' rows, and norms are not counted.
    let (hidden, row) = (info.hidden_size as u64, 4 * info.hidden_size as u64);
    let norms = 4 * (1 + 2 * info.n_layers as u64) * hidden;
    let embedding = model.vocab_size() as u64 * row;
    let bytes = |op: Op| profile.of(op).bytes;
    let matrices = [Op::Qkv, Op::AttentionOutput, Op::GateUp, Op::Down, Op::Head].map(bytes).iter().sum::<u64>();
    assert_eq!(matrices, 2 * (info.weight_bytes - norms - embedding));
    assert_eq!(bytes(Op::Embedding), 4 * row);
    let position = (2 * 4 * info.n_layers * info.n_kv_heads * info.head_dim) as u64;
    assert_eq!((bytes(Op::KvWrite), bytes(Op::Attention)), ((3 + 1) * position, (3 + 4) * position));

    let of_all = || Op::ALL.into_iter().map(|op| profile.of(op));
    assert_eq!(profile.passes().bytes, of_all().map(|taken| taken.bytes).sum::<u64>());
    assert_eq!(profile.passes().time, of_all().map(|taken| taken.time).sum());
    cache.reset_profile();
    assert_eq!(cache.profile().unwrap().passes().calls, 0);
}

#[test]
fn windows_mixtures_and_eight_bits() {
    let position = |model: &Model| 8 * model.info().n_kv_heads * model.info().head_dim;
    let model = load("mistral-window-4", true);
    let window = model.spec().layers[0].window.unwrap();
    let mut cache = new_cache(&model);
    cache.step(&vec![1; window + 5], None).unwrap();
    cache.reset_profile();
    cache.step(&[2], None).unwrap();
    let seen = cache.profile().unwrap().of(Op::Attention).bytes as usize;
    assert_eq!(seen, window * model.info().n_layers * position(&model));

    let mut cache = new_cache(&load("mixtral-4", true));
    cache.step(&[1, 2], None).unwrap();
    let profile = cache.profile().unwrap();
    assert!(profile.of(Op::Router).calls > 0 && profile.of(Op::Experts).calls > profile.of(Op::Router).calls);

    let path = repository("examples/models/fourscore");
    let weights = engine::Weights::Quantise(engine::Recipe::Q8_0);
    let model = Model::load(path, LoadOptions { weights, profile: true, ..Default::default() }).unwrap();
    let mut cache = new_cache(&model);
    step(&mut cache, &[1, 2]);
    assert!(cache.profile().unwrap().of(Op::Quantise).calls > 0);
}

#[test]
fn a_shared_pass_is_the_first_requests() {
    let model = load("llama-mha", true);
    let (mut first, mut second) = (new_cache(&model), new_cache(&model));
    let request = |cache, tokens| Request { cache, tokens, logits: Logits::None, result: Ok(()) };
    step_batch(&mut [request(&mut first, &[1]), request(&mut second, &[2])]);
    let calls = |cache: &engine::Cache| cache.profile().unwrap().passes().calls;
    assert_eq!((calls(&first), calls(&second)), (1, 0));
    assert_eq!(first.profile().unwrap().of(Op::Qkv).calls, model.info().n_layers as u64);
}
