//! What the kernels' tests share.

use super::{Isa, Kernels, table};
use crate::format::Float;
use half::{bf16, f16};

/// Half a unit in the last place of 1: the largest relative error of one rounding.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;
/// The least denormal: the largest absolute error of one rounding to a denormal, twice over.
pub const TINY: f64 = 1.5e-45;

/// Every table that can run here, with its name; what cannot run is said.
pub fn tables() -> Vec<(&'static str, &'static Kernels)> {
    let mut tables = Vec::new();
    for isa in Isa::ALL {
        if isa.available() {
            tables.push((isa.name(), table::of(isa)));
        } else {
            eprintln!("SKIPPED: this CPU has no {}", isa.name());
        }
    }
    #[cfg(target_arch = "x86_64")]
    tables.push(("16 lanes, emulated", &table::EMULATED));
    eprintln!("ran: {:?}", tables.iter().map(|t| t.0).collect::<Vec<_>>());
    tables
}

/// Every table with tiles that can run here.
pub fn tables_with_tiles() -> Vec<(&'static str, &'static Kernels)> {
    let mut tables = Vec::new();
    #[cfg(target_arch = "x86_64")]
    tables.push(("emulated tiles", &table::EMULATED_TILES));
    #[cfg(target_arch = "x86_64")]
    tables.push(("emulated dot products", &table::EMULATED_DOTS));
    #[cfg(target_arch = "x86_64")]
    if Isa::Avx2.available() {
        tables.push(("emulated tiles, avx2", &table::AVX2_EMULATED_TILES));
    }
    if Isa::Avx512.available() && table::of(Isa::Avx512).tiles.is_some() {
        tables.push((Isa::Avx512.name(), table::of(Isa::Avx512)));
    } else {
        eprintln!("SKIPPED: this CPU has no dot products of bf16, or not for tiles");
    }
    match amx_or_emulated() {
        Some(amx) => tables.push(amx),
        None => eprintln!("SKIPPED: this CPU has no AVX-512 with VNNI beside which AMX could be emulated"),
    }
    tables
}

/// The table of AMX, with its name; on a CPU that has all of it but the tiles its instructions are emulated.
pub fn amx_or_emulated() -> Option<(&'static str, &'static Kernels)> {
    if Isa::Amx.available() {
        return Some((Isa::Amx.name(), table::of(Isa::Amx)));
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if Isa::Avx512.available() && is_x86_feature_detected!("avx512vnni") {
        super::tiles::trapped::install();
        return Some(("amx, its instructions emulated", &table::AMX));
    }
    None
}

/// A small generator of repeatable numbers (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    /// In −1..1, of mixed magnitude.
    pub fn f32(&mut self) -> f32 {
        let x = (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        if self.bits() & 7 == 0 { x / 64.0 } else { x }
    }
    pub fn vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.f32()).collect()
    }
}

/// Bytes at an odd address.
pub struct Unaligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Unaligned {
    pub fn of(data: &[u8]) -> Self {
        let mut bytes = vec![0; data.len() + 2];
        let start = 1 - bytes.as_ptr() as usize % 2;
        bytes[start..][..data.len()].copy_from_slice(data);
        bytes.truncate(start + data.len());
        Self { bytes, start }
    }
    /// An array of `dtype`.
    pub fn new(dtype: Float, x: &[f32]) -> Self {
        let data: Vec<u8> = match dtype {
            Float::F32 => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Float::F16 => x.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            Float::Bf16 => x.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        };
        Self::of(&data)
    }
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// `x` as an array of `dtype` holds it.
pub fn held(dtype: Float, x: f32) -> f32 {
    match dtype {
        Float::F32 => x,
        Float::F16 => f16::from_f32(x).to_f32(),
        Float::Bf16 => bf16::from_f32(x).to_f32(),
    }
}

pub const DTYPES: [Float; 3] = [Float::F32, Float::F16, Float::Bf16];

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}
