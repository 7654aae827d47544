//! AMX: whether this CPU and this system allow it, and its peaks.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

/// Types of products that the tiles have.
#[derive(Clone, Copy)]
pub struct Amx {
    pub bf16: bool,
    pub int8: bool,
}

#[cfg(target_arch = "x86_64")]
pub use x86_64::{multiply_bf16, multiply_int8, permitted};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::Amx;
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    use std::sync::OnceLock;

    /// What there is, once the system has permitted this process to use it; asked once.
    pub fn permitted() -> Option<Amx> {
        static ANSWER: OnceLock<Option<Amx>> = OnceLock::new();
        *ANSWER.get_or_init(ask)
    }

    fn ask() -> Option<Amx> {
        const TILES: u32 = 24;
        if __cpuid(0).eax < 7 || !is_x86_feature_detected!("xsave") {
            return None;
        }
        let edx = __cpuid_count(7, 0).edx;
        // SAFETY: this CPU was just seen to have XSAVE, and XGETBV with it.
        let state = unsafe { enabled_state() };
        if edx >> TILES & 1 == 0 || state >> 17 & 3 != 3 || !permit() {
            return None;
        }
        Some(Amx { bf16: edx >> 22 & 1 == 1, int8: edx >> 25 & 1 == 1 })
    }

    #[target_feature(enable = "xsave")]
    fn enabled_state() -> u64 {
        // SAFETY: register 0 is there wherever XGETBV is.
        unsafe { _xgetbv(0) }
    }

    /// Asks Linux for the tiles' data; other systems have no such question, and no answer here.
    #[cfg(target_os = "linux")]
    fn permit() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XTILEDATA: libc::c_long = 18;
        // SAFETY: takes numbers only, and changes nothing but what this process may use.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    fn permit() -> bool {
        false
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
            /// [`permitted`] has this type.
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
