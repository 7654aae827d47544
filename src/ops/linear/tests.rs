use super::*;
use crate::format::mmap::Mapping;
use crate::format::{Bytes, Float, Quant};
use crate::kernels::testing::{Random, bits, tables, tables_with_tiles};
use crate::kernels::{Isa, pack_quant};
use crate::ops::elementwise::{Activation, Maker, Norm, NormKind};
use crate::threads::Pool;
use std::sync::Arc;

const N_IN: usize = 288;

/// A matrix of random weights, with a bias.
fn projection(random: &mut Random, dtype: DType, n_out: usize, split: bool) -> Linear {
    let w = random.vec(n_out * N_IN);
    let len = dtype.bytes(w.len()).unwrap();
    let mut data = vec![0; len];
    match dtype {
        DType::Float(float) => Kernels::select(Some(Isa::Scalar)).unwrap().pack(float, &w, &mut data),
        DType::Quant(quant) => pack_quant(quant, &w, &mut data),
    }
    let data = Bytes::new(Arc::new(Mapping::Owned(data)), 0..len).unwrap();
    let weight = Tensor { dtype, shape: vec![n_out, N_IN], data, file: Arc::new("test".into()) };
    Linear::new(weight, Layout::OutIn, Some(random.vec(n_out))).split(split)
}

fn run(kernels: &'static Kernels, path: Path, threads: usize, parts: &[Linear], x: &[f32]) -> Vec<f32> {
    run_both(kernels, path.few_of(x.len() / N_IN), threads, parts, x)
}

/// With the first `few` tokens on the few-token path.
fn run_both(kernels: &'static Kernels, few: usize, threads: usize, parts: &[Linear], x: &[f32]) -> Vec<f32> {
    run_source(kernels, few, threads, parts, Source::Ready(x), x.len() / N_IN)
}

fn run_source(
    kernels: &'static Kernels,
    few: usize,
    threads: usize,
    parts: &[Linear],
    x: Source<'_>,
    n_tokens: usize,
) -> Vec<f32> {
    let pool = Pool::new(threads).unwrap();
    let mut workers: Vec<Worker> = (0..threads).map(|_| Worker::default()).collect();
    Needs::of(kernels, parts.iter()).reserve(&mut workers, few, n_tokens).unwrap();
    let mut ctx = Ctx { kernels, pool: &pool, workers: &mut workers, few, profile: None };
    let mut y = vec![f32::NAN; n_tokens * parts.iter().map(Linear::n_out).sum::<usize>()];
    linear(&mut ctx, Op::Qkv, parts, x, n_tokens, &mut y);
    y
}

/// Matrices of several types side by side: those that go by tiles and those that do not, which take the input in 1, 2 or 3 terms, in
/// 8 bits or as it is. Each output is what it is alone, with any number of threads, and any token what it is without the others.
#[test]
fn side_by_side() {
    let mut random = Random(3);
    let types = [Quant::Q4_0.into(), DType::F32, DType::BF16, DType::Float(Float::F16), Quant::Q8_0.into()];
    for (name, kernels) in tables().into_iter().chain(tables_with_tiles()) {
        for split in [false, true] {
            let parts: Vec<Linear> = types.iter().map(|&dtype| projection(&mut random, dtype, 90, split)).collect();
            let x = random.vec(40 * N_IN);
            let together = run(kernels, Path::Many, 1, &parts, &x);
            assert_eq!(bits(&together), bits(&run(kernels, Path::Many, 3, &parts, &x)), "{name}, 3 threads");
            for (i, part) in parts.iter().enumerate() {
                let alone = run(kernels, Path::Many, 2, std::slice::from_ref(part), &x);
                let by_blas = part.way(kernels, Path::Many) == Way::Sgemm;
                for (t, (together, alone)) in together.chunks_exact(450).zip(alone.chunks_exact(90)).enumerate() {
                    let together = &together[90 * i..][..90];
                    // BLAS sums in another order where the work is cut otherwise.
                    assert!(by_blas || bits(together) == bits(alone), "{name}, {}, token {t}", types[i].name());
                }
                let last = run(kernels, Path::Many, 2, std::slice::from_ref(part), &x[39 * N_IN..]);
                assert!(by_blas || bits(&last) == bits(&alone[39 * 90..]), "{name}, {}, the last token alone", types[i].name());
            }
        }
    }
}

/// Tokens of both paths in one call have the bits that they have alone.
#[test]
fn both_paths_in_one_call() {
    let mut random = Random(6);
    for (name, kernels) in tables().into_iter().chain(tables_with_tiles()) {
        for dtypes in [&[DType::F32, Quant::Q4_0.into()][..], &[DType::BF16], &[Quant::Q8_0.into()]] {
            let parts: Vec<Linear> = dtypes.iter().map(|&dtype| projection(&mut random, dtype, 150, false)).collect();
            if parts.iter().any(|part| part.way(kernels, Path::Many) == Way::Sgemm) {
                continue;
            }
            let (x, width) = (random.vec(33 * N_IN), 150 * parts.len());
            for few in [1, 2, 13, 32] {
                let (first, rest) = x.split_at(few * N_IN);
                let both = run_both(kernels, few, 2, &parts, &x);
                assert_eq!(bits(&both[..few * width]), bits(&run(kernels, Path::Few, 2, &parts, first)), "{name}, {few}");
                assert_eq!(bits(&both[few * width..]), bits(&run(kernels, Path::Many, 2, &parts, rest)), "{name}, {few}");
            }
        }
    }
}

/// Rows that are made on their way to the forms that products take are those that are made before.
#[test]
fn rows_made_on_the_way() {
    let mut random = Random(7);
    let norm = Norm { kind: NormKind::RmsNorm, weight: random.vec(N_IN), bias: None, eps: 1e-5 };
    for (name, kernels) in tables().into_iter().chain(tables_with_tiles()) {
        for dtypes in [&[Quant::Q4_0.into()][..], &[DType::F32, Quant::Q8_0.into()], &[DType::BF16], &[DType::F32]] {
            let parts: Vec<Linear> = dtypes.iter().map(|&dtype| projection(&mut random, dtype, 70, false)).collect();
            // The last: fewer elements than are worth a parallel region.
            for (few, n_tokens, threads) in [(0, 35, 3), (1, 1, 2), (5, 40, 2), (16, 16, 3), (0, 9, 2), (9, 9, 2)] {
                let from = random.vec(2 * n_tokens * N_IN);
                let x = &from[..n_tokens * N_IN];
                for maker in [Maker::Norm(&norm, x), Maker::Activation(Activation::Gelu, x), Maker::Gate(Activation::Silu, &from)]
                {
                    let mut made = vec![f32::NAN; x.len()];
                    made.chunks_exact_mut(N_IN).enumerate().for_each(|(t, row)| maker.make(kernels, t, row));
                    let want = run_source(kernels, few, threads, &parts, Source::Ready(&made), n_tokens);
                    let mut rows = vec![f32::NAN; x.len()];
                    let source = Source::Made { maker, rows: &mut rows };
                    let got = run_source(kernels, few, threads, &parts, source, n_tokens);
                    assert_eq!(bits(&got), bits(&want), "{name}, {few} of {n_tokens} tokens, {:?}", maker.op());
                }
            }
        }
    }
}

/// A matrix by columns, which is cut otherwise for one token: an output's bits depend neither on the cut nor on the other tokens.
#[test]
fn columns() {
    const N_OUT: usize = WIDE_CHUNK + 67;
    let mut random = Random(5);
    for (name, kernels) in tables() {
        for dtype in [DType::F32, DType::BF16, DType::Float(Float::F16)] {
            let Linear { mut weight, bias, .. } = projection(&mut random, dtype, N_OUT, false);
            weight.shape.reverse();
            let parts = [Linear::new(weight, Layout::InOut, bias)];
            let x = random.vec(3 * N_IN);
            let all = run(kernels, Path::Few, 2, &parts, &x);
            for (t, (x, all)) in x.chunks_exact(N_IN).zip(all.chunks_exact(N_OUT)).enumerate() {
                for threads in 1..=3 {
                    let alone = run(kernels, Path::Few, threads, &parts, x);
                    assert_eq!(bits(&alone), bits(all), "{name}, {}, token {t}, {threads} threads", dtype.name());
                }
            }
        }
    }
}

/// One token's columns: as many tasks for each thread, whole vectors, and no task too long.
#[test]
fn wide_chunks() {
    for (n_out, threads, chunk) in [(768, 2, 384), (2304, 2, 1152), (3072, 2, 1536), (5632, 2, 1408), (768, 16, 64), (0, 2, 0)] {
        assert_eq!(wide_chunk(n_out, threads), chunk, "{n_out} outputs, {threads} threads");
    }
}

/// Many tokens: no thread has more outputs than it must, as far as tasks of 64 to 256 allow.
#[test]
fn even_chunks() {
    for (n_out, threads, chunk) in
        [(768, 2, 192), (2304, 2, 192), (5632, 2, 256), (2048, 1, 256), (768, 16, 64), (90, 2, 64), (0, 2, 256)]
    {
        assert_eq!(even_chunk(n_out, threads), chunk, "{n_out} outputs, {threads} threads");
    }
}

/// Both paths are the same product, but for rounding: of weights and activations to bf16 on the one, (2u + u²)·Σ|w·x| with u = 2⁻⁸,
/// of activations to 8 bits on the other, half of 1/127 + 1/8001 of the largest, and 2⁻¹² for all sums in f32: less than 1/64.
#[test]
fn both_paths_mean_the_same() {
    let mut random = Random(4);
    for (name, kernels) in tables().into_iter().chain(tables_with_tiles()) {
        for dtype in [DType::F32, DType::BF16, DType::Float(Float::F16), Quant::Q8_0.into()] {
            let parts = [projection(&mut random, dtype, 70, true)];
            let x = random.vec(20 * N_IN);
            let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
            let mut w = vec![0.0; 70 * N_IN];
            kernels.unpack(dtype, parts[0].matrix().data, 0, &mut w);
            let (few, many) = (run(kernels, Path::Few, 2, &parts, &x), run(kernels, Path::Many, 2, &parts, &x));
            for (i, (few, many)) in few.iter().zip(&many).enumerate() {
                let bound = w[i % 70 * N_IN..][..N_IN].iter().map(|w| w.abs() * largest).sum::<f32>() / 64.0;
                assert!((few - many).abs() <= bound, "{name}, {}: {few} and {many} ± {bound}", dtype.name());
            }
        }
    }
}
