//! What this machine can do at most, measured now: other guests of the same host change it by the minute.

use engine::kernels::Isa;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Runs `f(thread)` on `threads` threads at once and says how long the slowest took.
fn together(threads: usize, f: impl Fn(usize) + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    std::thread::scope(|s| {
        let runs: Vec<_> = (0..threads)
            .map(|thread| {
                let (barrier, f) = (&barrier, &f);
                s.spawn(move || {
                    barrier.wait();
                    let start = Instant::now();
                    f(thread);
                    start.elapsed()
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().expect("a measuring thread panicked")).max().unwrap_or_default()
    })
}

/// Memory to read, larger than any cache.
pub struct Memory(Vec<u64>);

impl Memory {
    /// `bytes` of it, touched.
    pub fn new(bytes: usize) -> Self {
        Self((0..bytes as u64 / 8).collect())
    }

    /// Bytes per second that `threads` threads read together, each following 1 or 8 places at once; the best of `runs`.
    pub fn bandwidth(&self, threads: usize, streams: usize, runs: usize) -> f64 {
        let part = self.0.len() / threads;
        let once = || {
            together(threads, |thread| {
                let mine = &self.0[thread * part..(thread + 1) * part];
                black_box(match streams {
                    1 => read::<1>(mine),
                    _ => read::<8>(mine),
                });
            })
        };
        let best = (0..runs).map(|_| once()).min().unwrap_or_default();
        (part * threads * 8) as f64 / best.as_secs_f64()
    }
}

/// The exclusive or of all of `data`, read at `S` places at once.
fn read<const S: usize>(data: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: this CPU was just seen to have AVX2.
        return unsafe { read_avx2::<S>(data) };
    }
    read_any::<S>(data)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read_avx2<const S: usize>(data: &[u64]) -> u64 {
    read_any::<S>(data)
}

#[inline(always)]
fn read_any<const S: usize>(data: &[u64]) -> u64 {
    let (lines, _) = data.as_chunks::<8>();
    let part = lines.len() / S;
    let streams: [&[[u64; 8]]; S] = std::array::from_fn(|s| &lines[s * part..(s + 1) * part]);
    let mut sums = [[0; 8]; S];
    for i in 0..part {
        for (sum, stream) in sums.iter_mut().zip(&streams) {
            for (a, b) in sum.iter_mut().zip(&stream[i]) {
                *a ^= b;
            }
        }
    }
    sums.iter().flatten().fold(0, |a, b| a ^ b)
}

/// Floating-point operations per second of `threads` threads that do nothing but fused multiply-adds of f32 with the
/// instructions of `isa`; the best of `runs`.
pub fn fma_peak(isa: Isa, threads: usize, runs: usize) -> f64 {
    const ROUNDS: usize = 4_000_000;
    let once = || {
        let lanes = std::sync::atomic::AtomicUsize::new(0);
        let time = together(threads, |_| {
            lanes.store(multiply_add(isa, ROUNDS), std::sync::atomic::Ordering::Relaxed);
        });
        (2 * ROUNDS * CHAINS * lanes.into_inner() * threads) as f64 / time.as_secs_f64()
    };
    (0..runs).map(|_| once()).fold(0.0, f64::max)
}

/// Independent sums: enough to fill two units of latency 5.
const CHAINS: usize = 12;

/// `rounds` fused multiply-adds on each of [`CHAINS`] vectors; returns the floats in a vector.
fn multiply_add(isa: Isa, rounds: usize) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if is_x86_feature_detected!("avx512f") => {
            // SAFETY: this CPU was just seen to have AVX-512 F.
            unsafe { multiply_add_avx512(rounds) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => {
            // SAFETY: this CPU was just seen to have AVX2 and FMA.
            unsafe { multiply_add_avx2(rounds) }
        }
        _ => {
            let mut sums = black_box([1.0f32; CHAINS]);
            for _ in 0..rounds {
                sums.iter_mut().for_each(|s| *s = *s * 0.999 + 0.001);
            }
            black_box(sums);
            1
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_add_avx2(rounds: usize) -> usize {
    use std::arch::x86_64::*;
    let (a, b) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
    let mut sums = [_mm256_set1_ps(black_box(1.0)); CHAINS];
    for _ in 0..rounds {
        sums.iter_mut().for_each(|s| *s = _mm256_fmadd_ps(*s, a, b));
    }
    black_box(sums.map(|s| _mm256_cvtss_f32(s)));
    8
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn multiply_add_avx512(rounds: usize) -> usize {
    use std::arch::x86_64::*;
    let (a, b) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
    let mut sums = [_mm512_set1_ps(black_box(1.0)); CHAINS];
    for _ in 0..rounds {
        sums.iter_mut().for_each(|s| *s = _mm512_fmadd_ps(*s, a, b));
    }
    black_box(sums.map(|s| _mm512_cvtss_f32(s)));
    16
}
