//! How fast memory can be read.

use super::together;
use std::hint::black_box;

/// Memory to read.
pub struct Memory(Vec<u64>);

impl Memory {
    /// `bytes` of it, touched.
    pub fn new(bytes: usize) -> Self {
        Self((0..bytes as u64 / 8).collect())
    }

    /// Bytes per second that `threads` threads read together, each its own part, at 1, 4 or 8 places at once; the best of `runs`.
    pub fn bandwidth(&self, threads: usize, streams: usize, runs: usize) -> f64 {
        self.repeated(threads, streams, 1, runs)
    }

    /// The same, where each thread reads its part `times` times over.
    pub fn repeated(&self, threads: usize, streams: usize, times: usize, runs: usize) -> f64 {
        let part = self.0.len() / threads;
        let best = together(threads, runs, |thread| {
            let mine = &self.0[thread * part..(thread + 1) * part];
            for _ in 0..times {
                black_box(match streams {
                    1 => read::<1>(black_box(mine)),
                    4 => read::<4>(black_box(mine)),
                    _ => read::<8>(black_box(mine)),
                });
            }
        });
        (part * threads * times * 8) as f64 / best.as_secs_f64()
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
