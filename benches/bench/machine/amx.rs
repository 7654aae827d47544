//! The peaks of AMX, on CPUs and systems where the library uses it too.

#[cfg(target_arch = "x86_64")]
pub use x86_64::{has_int8, multiply_bf16, multiply_int8};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use engine::kernels::Isa;
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;

    /// Whether the tiles take bytes as well as bf16, for which `Isa::Amx` stands.
    pub fn has_int8() -> bool {
        Isa::Amx.available() && __cpuid_count(7, 0).edx >> 25 & 1 == 1
    }

    /// Eight tiles of 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }
    const EIGHT: Configuration = Configuration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    /// `rounds` times four products of tiles of zeros; `$operations` are those of one product.
    macro_rules! multiply {
        ($name:ident, $product:literal, $operations:expr) => {
            /// # Safety
            /// `Isa::Amx` is available, and for bytes [`has_int8`] too.
            pub unsafe fn $name(rounds: usize) -> usize {
                // SAFETY: the tiles are there and permitted (the caller's promise), configured, zeroed and released in here; no
                // memory but the configuration is touched.
                unsafe {
                    asm!(
                        "ldtilecfg [{configuration}]",
                        "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                        "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                        "2:",
                        concat!($product, " tmm0, tmm4, tmm6"),
                        concat!($product, " tmm1, tmm4, tmm7"),
                        concat!($product, " tmm2, tmm5, tmm6"),
                        concat!($product, " tmm3, tmm5, tmm7"),
                        "dec {rounds}",
                        "jnz 2b",
                        "tilerelease",
                        configuration = in(reg) &EIGHT,
                        rounds = inout(reg) rounds.max(1) => _,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack, readonly)
                    );
                }
                4 * rounds.max(1) * $operations
            }
        };
    }
    multiply!(multiply_bf16, "tdpbf16ps", 2 * 16 * 16 * 32);
    multiply!(multiply_int8, "tdpbusd", 2 * 16 * 16 * 64);
}
