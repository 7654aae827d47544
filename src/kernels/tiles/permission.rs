//! Whether this process may use AMX tiles: the CPU has them, the system saves their state, and it has given this process leave.
//!
//! Linux gives leave once for a whole process, when it asks (`arch_prctl`, since 5.16): signal frames of threads that use tiles are
//! 8 KiB longer, so a program whose alternate signal stacks are too short for that is refused, and may set no such stack
//! afterwards. Whatever speaks against it only means that there are no tiles.

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

/// Whether bf16 tiles can be used; asks the system on the first call.
pub fn granted() -> bool {
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(|| cpu_has_tiles() && system_saves_tiles() && ask())
}

/// AMX-TILE and AMX-BF16, with eight tiles of at least 16 rows of 64 bytes.
fn cpu_has_tiles() -> bool {
    const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    const PALETTES: u32 = 0x1d;
    if __cpuid(0).eax < PALETTES || __cpuid_count(7, 0).edx & BF16_AND_TILE != BF16_AND_TILE {
        return false;
    }
    let palette = __cpuid_count(PALETTES, 1);
    let (row_bytes, tiles, rows) = (palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff);
    row_bytes >= 64 && tiles >= 8 && rows >= 16
}

/// Tile configuration and data (bits 17 and 18) are among the states that the system saves.
fn system_saves_tiles() -> bool {
    const TILES: u64 = 3 << 17;

    #[target_feature(enable = "xsave")]
    fn saved() -> u64 {
        // SAFETY: the CPU has xsave, and register 0 is always there.
        unsafe { _xgetbv(0) }
    }
    // The macro looks at OSXSAVE too: the system has made `xgetbv` usable.
    // SAFETY: it was seen that the CPU has xsave.
    is_x86_feature_detected!("xsave") && unsafe { saved() } & TILES == TILES
}

#[cfg(target_os = "linux")]
fn ask() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn ask() -> bool {
    false
}
