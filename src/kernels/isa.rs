//! Instruction sets: their names, what this CPU has, and which one a request means.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// Instruction set of a kernel table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust; the oracle.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL, DQ; with VNNI and, on AMD's CPUs, BF16 where there are.
    Avx512,
    /// AVX-512 with VNNI, and AMX tiles of bf16.
    Amx,
    /// NEON of 64-bit ARM.
    Neon,
}

impl Isa {
    /// Every instruction set of this version, from the plainest to the widest.
    pub const ALL: [Isa; 5] = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Amx, Isa::Neon];

    /// The name that [`Isa::from_name`] and `ENGINE_ISA` take.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
            Isa::Neon => "neon",
        }
    }

    /// The instruction set called `name`; any other name is a bad argument.
    pub fn from_name(name: &str) -> Result<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| {
            Error::bad_argument(format!("unknown instruction set '{name}': expected scalar, avx2, avx512, amx or neon"))
        })
    }

    /// Whether this CPU, under this operating system, has it. For [`Isa::Amx`] the first call asks the system for leave to use tiles,
    /// which holds for the whole process.
    pub fn available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                has_avx2()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512.available() && is_x86_feature_detected!("avx512vnni") && super::tiles::permission::granted(),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 | Isa::Amx => false,
            Isa::Neon => cfg!(target_arch = "aarch64"), // part of the base instruction set
        }
    }

    /// What is meant by `asked`, or by `ENGINE_ISA` if that is `None`, or the widest there is if neither says.
    pub(super) fn resolve(asked: Option<Isa>) -> Result<Isa> {
        if let Some(isa) = asked {
            return isa.checked("the options ask");
        }
        match std::env::var_os("ENGINE_ISA") {
            Some(name) if !name.is_empty() => {
                Isa::from_name(&name.to_string_lossy()).map_err(|e| e.context("ENGINE_ISA"))?.checked("ENGINE_ISA asks")
            }
            _ => Ok(Isa::ALL.into_iter().rev().find(|isa| isa.available()).unwrap_or(Isa::Scalar)),
        }
    }

    fn checked(self, who_asks: &str) -> Result<Isa> {
        if self.available() {
            return Ok(self);
        }
        let name = self.name();
        Err(Error::unsupported(format!("{who_asks} for the instruction set '{name}', which this CPU does not have")))
    }
}

/// Whether AMD made this CPU: no feature tells how fast an instruction is.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_amd() -> bool {
    let id = std::arch::x86_64::__cpuid(0);
    [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn names() {
        for isa in Isa::ALL {
            assert_eq!(Isa::from_name(isa.name()).unwrap(), isa);
        }
        for wrong in ["", "AVX2", "sse", "avx2 "] {
            assert_eq!(Isa::from_name(wrong).unwrap_err().kind(), ErrorKind::BadArgument);
        }
    }

    #[test]
    fn what_the_cpu_lacks_is_refused_by_name() {
        for isa in Isa::ALL {
            match Isa::resolve(Some(isa)) {
                Ok(found) => assert!(found == isa && isa.available()),
                Err(e) => {
                    assert!(!isa.available());
                    assert_eq!(e.kind(), ErrorKind::Unsupported);
                    assert!(e.message().contains(isa.name()), "{e}");
                }
            }
        }
    }
}
