//! The parts by themselves: fork-join, our few-token product by type and number of tokens, and sgemm beside it.
//!
//!     cargo bench --bench kernels [-- --quick] [type…]

#[path = "common/machine.rs"]
mod machine;

use engine::blas;
use engine::format::{DType, Quant};
use engine::kernels::{Activations, Kernels, Layout, Matrix, Scaling, bytes_of};
use engine::threads::{Pool, available_cores};
use std::time::Instant;

/// A layer's largest matrix in a model of a billion parameters.
const N_OUT: usize = 5632;
const N_IN: usize = 2048;
/// Bytes of different ones, so many that none stays in cache from one use to the next.
const IN_MEMORY: usize = 160 << 20;

fn main() {
    let quick = std::env::args().any(|a| a == "--quick");
    let types: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| types.is_empty() || types.iter().any(|t| t == name);
    let threads = available_cores();
    let (pool, kernels) = match (Pool::new(threads), Kernels::select(None)) {
        (Ok(pool), Ok(kernels)) => (pool, kernels),
        (Err(e), _) | (_, Err(e)) => {
            eprintln!("kernels: {e}");
            std::process::exit(1);
        }
    };
    let memory = machine::Memory::new(512 << 20);
    let peak = machine::fma_peak(kernels.isa(), threads, 3) / 1e9;
    let bandwidth = memory.bandwidth(threads, 8, 5) / 1e9;
    println!("{threads} threads, {}: {bandwidth:.1} GB/s, {peak:.0} GFLOP/s at most", kernels.isa().name());
    drop(memory);

    fork_join(&pool);
    println!("\nproducts with [{N_OUT}, {N_IN}], by number of tokens: GB/s of weights (of what can be read), GFLOP/s");
    let floats = [(DType::F32, Layout::OutIn), (DType::F32, Layout::InOut), (DType::BF16, Layout::OutIn)];
    let quants = Quant::ALL.map(|quant| (DType::Quant(quant), Layout::OutIn));
    for (dtype, layout) in floats.into_iter().chain(quants).filter(|(dtype, _)| wanted(dtype.name())) {
        let size = N_OUT * N_IN / dtype.block_elements() * dtype.block_bytes();
        let copies = IN_MEMORY.div_ceil(size);
        // As floats 0.01 or so; as blocks, scales of the same kind.
        let weights = vec![0x3c; copies * size];
        let matrix = |copy: usize| {
            let data = &weights[copy % copies * size..][..size];
            Matrix { dtype, layout, n_out: N_OUT, n_in: N_IN, data }
        };
        for m in [1, 2, 4, 8, 16, 32, 64, 128, 512] {
            let [few, many] = race(if quick { 0.1 } else { 1.0 }, |way, copy| product(&pool, kernels, matrix(copy), m, way == 1));
            let show = |seconds: f64| {
                let (bytes, flops) = (size as f64 / seconds / 1e9, (2 * m * N_OUT * N_IN) as f64 / seconds / 1e9);
                format!("{bytes:7.1} ({:3.0} %) {flops:7.1}", bytes / bandwidth * 100.0)
            };
            println!("{:6} {layout:5?} m={m:<3}  own {}   sgemm {}", dtype.name(), show(few), show(many));
        }
    }
}

/// The best seconds of two ways, run in turns for `budget` seconds and at least twice: what disturbs one disturbs the other.
fn race(budget: f64, mut run: impl FnMut(usize, usize) -> f64) -> [f64; 2] {
    let (start, mut best) = (Instant::now(), [f64::INFINITY; 2]);
    for round in 0.. {
        if round >= 2 && start.elapsed().as_secs_f64() > budget {
            break;
        }
        for (way, best) in best.iter_mut().enumerate() {
            *best = best.min(run(way, 2 * round + way));
        }
    }
    best
}

/// The time from a call to its end when there is nothing to do: half of them with the workers awake, and after a pause.
fn fork_join(pool: &Pool) {
    let mut scratch = vec![(); pool.threads()];
    let mut measure = |calls: usize, pause: std::time::Duration| {
        let mut times: Vec<_> = (0..calls)
            .map(|_| {
                std::thread::sleep(pause);
                let start = Instant::now();
                pool.for_each(&mut scratch, pool.threads(), |_, task| {
                    std::hint::black_box(task);
                });
                start.elapsed().as_nanos()
            })
            .collect();
        times.sort_unstable();
        (times[calls / 2], times[calls * 99 / 100])
    };
    measure(10_000, std::time::Duration::ZERO);
    let (p50, p99) = measure(100_000, std::time::Duration::ZERO);
    println!("fork-join, workers awake:  p50 {p50} ns, p99 {p99} ns");
    let (p50, p99) = measure(300, std::time::Duration::from_millis(1));
    println!("fork-join, workers asleep: p50 {p50} ns, p99 {p99} ns");
}

/// Seconds for the product of `m` tokens with `w`: by our own kernel, or by sgemm on panels (unpacked first, unless f32);
/// infinite if there is no sgemm.
fn product(pool: &Pool, kernels: &Kernels, w: Matrix<'_>, m: usize, by_sgemm: bool) -> f64 {
    /// Outputs to a task: few so that a slow core gets fewer tasks, many so that BLAS can block.
    const FEW: usize = 64;
    const MANY: usize = 512;
    let x: Vec<f32> = (0..m * N_IN).map(|i| (i % 17) as f32 * 0.01 - 0.08).collect();
    let mut quantised = vec![Activations::ZERO; m * N_IN.div_ceil(Activations::BLOCK)];
    let mut y = vec![0.0; m * N_OUT];
    let mut scratch = vec![(true, vec![0.0; MANY * N_IN]); pool.threads()];
    let start = Instant::now();
    if matches!(w.dtype, DType::Quant(_)) && !by_sgemm {
        kernels.quantise(&x, N_IN, Scaling::for_types([w.dtype].into_iter()), &mut quantised);
    }
    pool.for_each_columns(&mut scratch, &mut y, m, N_OUT, if by_sgemm { MANY } else { FEW }, |(ok, panel), mut part| {
        let cols = part.cols();
        match w.dtype {
            DType::Float(_) if !by_sgemm => kernels.matmul(w, cols.start, &x, &mut part),
            DType::Quant(_) if !by_sgemm => kernels.matmul_quantised(w, cols.start, &quantised, &mut part),
            DType::F32 => *ok &= blas::sgemm(w, cols.start, &x, &mut part),
            _ => {
                let panel = &mut panel[..cols.len() * N_IN];
                kernels.unpack(w.dtype, w.data, cols.start * N_IN, panel);
                *ok &= blas::sgemm(Matrix { dtype: DType::F32, n_out: cols.len(), data: bytes_of(panel), ..w }, 0, &x, &mut part);
            }
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    if scratch.iter().all(|(ok, _)| *ok) { seconds } else { f64::INFINITY }
}
