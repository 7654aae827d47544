//! Peaks of the arithmetic units: loops of nothing but one instruction on registers.

use super::{amx, together};
use engine::kernels::Isa;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What multiplies and adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// f32, one at a time.
    Scalar,
    /// f32, vectors of 8.
    Avx2,
    /// f32, vectors of 16.
    Avx512,
    /// Bytes by vpmaddubsw, vpmaddwd and vpaddd, vectors of 32.
    Avx2Bytes,
    /// Bytes by vpdpbusd, vectors of 32, of CPUs without AVX-512.
    AvxVnni,
    /// Bytes by vpdpbusd, vectors of 64.
    Avx512Vnni,
    /// bf16 by vdpbf16ps, vectors of 32.
    Avx512Bf16,
    /// bf16 by tdpbf16ps.
    AmxBf16,
    /// Bytes by tdpbusd.
    AmxInt8,
}

/// Independent sums: enough to fill two units of latency 5.
const CHAINS: usize = 12;
const ROUNDS: usize = 2_000_000;

impl Unit {
    const ALL: [Unit; 9] = [
        Unit::Scalar,
        Unit::Avx2,
        Unit::Avx512,
        Unit::Avx2Bytes,
        Unit::AvxVnni,
        Unit::Avx512Vnni,
        Unit::Avx512Bf16,
        Unit::AmxBf16,
        Unit::AmxInt8,
    ];

    /// Those of this CPU; `Scalar` only where there is nothing better.
    pub fn available() -> impl Iterator<Item = Unit> {
        let any = Self::ALL[1..].iter().any(|unit| unit.is_available());
        Self::ALL.into_iter().filter(move |unit| unit.is_available() && !(any && *unit == Unit::Scalar))
    }

    pub fn name(self) -> &'static str {
        match self {
            Unit::Scalar => "f32, scalar",
            Unit::Avx2 => "f32, AVX2 FMA",
            Unit::Avx512 => "f32, AVX-512 FMA",
            Unit::Avx2Bytes => "int8, AVX2",
            Unit::AvxVnni => "int8, AVX-VNNI",
            Unit::Avx512Vnni => "int8, AVX-512 VNNI",
            Unit::Avx512Bf16 => "bf16, AVX-512 BF16",
            Unit::AmxBf16 => "bf16, AMX",
            Unit::AmxInt8 => "int8, AMX",
        }
    }

    /// The end of its row's name.
    pub fn row(self) -> &'static str {
        match self {
            Unit::Scalar => "f32/scalar",
            Unit::Avx2 => "f32/avx2",
            Unit::Avx512 => "f32/avx512",
            Unit::Avx2Bytes => "int8/avx2",
            Unit::AvxVnni => "int8/avxvnni",
            Unit::Avx512Vnni => "int8/avx512vnni",
            Unit::Avx512Bf16 => "bf16/avx512bf16",
            Unit::AmxBf16 => "bf16/amx",
            Unit::AmxInt8 => "int8/amx",
        }
    }

    pub fn is_f32(self) -> bool {
        matches!(self, Unit::Scalar | Unit::Avx2 | Unit::Avx512)
    }
    pub fn is_int8(self) -> bool {
        matches!(self, Unit::Avx2Bytes | Unit::AvxVnni | Unit::Avx512Vnni | Unit::AmxInt8)
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Unit::Scalar => true,
            Unit::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Unit::Avx2Bytes => is_x86_feature_detected!("avx2"),
            Unit::AvxVnni => is_x86_feature_detected!("avxvnni"),
            Unit::Avx512 => is_x86_feature_detected!("avx512f"),
            Unit::Avx512Vnni => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
            Unit::Avx512Bf16 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16"),
            Unit::AmxBf16 => Isa::Amx.available(),
            Unit::AmxInt8 => amx::has_int8(),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        self == Unit::Scalar
    }

    /// Operations per second (a multiplication and an addition are two) of `threads` threads; the best of `runs`.
    pub fn peak(self, threads: usize, runs: usize) -> f64 {
        assert!(self.is_available());
        let done = AtomicUsize::new(0);
        let best = together(threads, runs, |_| done.store(self.run(), Ordering::Relaxed));
        (done.into_inner() * threads) as f64 / best.as_secs_f64()
    }

    /// Keeps the unit busy for some milliseconds; returns the number of operations.
    #[cfg(target_arch = "x86_64")]
    fn run(self) -> usize {
        // SAFETY: `peak` saw that this CPU has the unit.
        let per_instruction = unsafe {
            match self {
                Unit::Scalar => return scalar(),
                Unit::AmxBf16 => return amx::multiply_bf16(ROUNDS / 16),
                Unit::AmxInt8 => return amx::multiply_int8(ROUNDS / 16),
                Unit::Avx2 => fma_avx2(),
                Unit::Avx512 => fma_avx512(),
                Unit::Avx2Bytes => bytes_avx2(),
                Unit::AvxVnni => bytes_avxvnni(),
                Unit::Avx512Vnni => bytes_avx512vnni(),
                Unit::Avx512Bf16 => bf16_avx512(),
            }
        };
        per_instruction * CHAINS * ROUNDS
    }
    #[cfg(not(target_arch = "x86_64"))]
    fn run(self) -> usize {
        scalar()
    }
}

fn scalar() -> usize {
    let mut sums = black_box([1.0f32; CHAINS]);
    for _ in 0..ROUNDS {
        sums.iter_mut().for_each(|s| *s = *s * 0.999 + 0.001);
    }
    black_box(sums);
    2 * CHAINS * ROUNDS
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// `ROUNDS` times each of [`CHAINS`] vectors through one instruction; then the vectors count as used.
#[cfg(target_arch = "x86_64")]
macro_rules! chains {
    ($start:expr, $step:expr) => {{
        let mut sums = [$start; CHAINS];
        for _ in 0..ROUNDS {
            // Not a closure: it would not have the CPU's features.
            let mut i = 0;
            while i < CHAINS {
                sums[i] = $step(sums[i]);
                i += 1;
            }
        }
        black_box(&sums);
    }};
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fma_avx2() -> usize {
    let (a, b) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
    chains!(_mm256_set1_ps(black_box(1.0)), |s| _mm256_fmadd_ps(s, a, b));
    2 * 8
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn fma_avx512() -> usize {
    let (a, b) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
    chains!(_mm512_set1_ps(black_box(1.0)), |s| _mm512_fmadd_ps(s, a, b));
    2 * 16
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn bytes_avx2() -> usize {
    let (a, ones) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi16(black_box(1)));
    // The product's operand depends on the sum, or it would be taken out of the loop.
    chains!(_mm256_set1_epi32(black_box(1)), |s| _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(s, a), ones)));
    2 * 32
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avxvnni")]
fn bytes_avxvnni() -> usize {
    let (a, b) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(5)));
    chains!(_mm256_set1_epi32(black_box(1)), |s| _mm256_dpbusd_avx_epi32(s, a, b));
    2 * 32
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn bytes_avx512vnni() -> usize {
    let (a, b) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(5)));
    chains!(_mm512_set1_epi32(black_box(1)), |s| _mm512_dpbusd_epi32(s, a, b));
    2 * 64
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_avx512() -> usize {
    let ones = _mm512_cvtne2ps_pbh(_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
    chains!(_mm512_set1_ps(black_box(1.0)), |s| _mm512_dpbf16_ps(s, ones, ones));
    2 * 32
}
