//! AMX for a CPU that lacks it: the signal that such a CPU sends at an instruction of tiles carries it out, so that tests run the very
//! machine code of [`amx`](super::amx) on any CPU with AVX-512 under Linux.
//!
//! Only what `amx` uses is known, and only with tiles that are whole; all else ends the process as it would without this.
//!
//! ```text
//! C4  RXBmmmmm  Wvvvv0pp  opcode  mod.reg.rm  [SIB]  [displacement]      mmmmm = 0F38, W = 0; R X B vvvv are inverted
//!
//! opcode 49  pp none  mod 11, reg 0, rm 0   tilerelease        opcode 4B  pp F2  tileloadd   reg, [SIB]: row i at base + i · index
//!            pp none  else, reg 0           ldtilecfg [rm]                pp F3  tilestored  [SIB], reg
//!            pp F2    mod 11                tilezero reg       opcode 5C  pp F3  tdpbf16ps   reg, rm, vvvv
//! ```
//! Intel's manual, volume 2.

use super::Tile;
use super::emulated::tdpbf16ps;
use std::cell::UnsafeCell;
use std::sync::Once;

/// The tiles of a thread.
struct Tiles {
    configured: bool,
    tiles: [Tile; 8],
}

thread_local! {
    // Nothing is made on first use and nothing dropped, so the handler may come here at any time.
    static TILES: UnsafeCell<Tiles> = const { UnsafeCell::new(Tiles { configured: false, tiles: [Tile::ZERO; 8] }) };
}

/// Makes instructions of tiles work from now on. The CPU must not have them.
pub(in crate::kernels) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: zeros are a value of this struct of numbers and a set of signals.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_illegal_instruction as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the handler takes what SA_SIGINFO gives.
        let set = unsafe { libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()) };
        assert_eq!(set, 0);
    });
}

/// Whether this thread has no tiles configured.
pub(super) fn released() -> bool {
    // SAFETY: no reference to it outlives an instruction.
    TILES.with(|tiles| unsafe { !(*tiles.get()).configured })
}

extern "C" fn on_illegal_instruction(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system hands over the registers of this thread, which stands still meanwhile.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    // SAFETY: it stands at an instruction whose operands are what `amx` says of them.
    let len = TILES.with(|tiles| unsafe { step(&mut *tiles.get(), registers) });
    match len {
        Some(len) => registers[libc::REG_RIP as usize] += len as i64,
        // The instruction comes again, and ends the process.
        // SAFETY: this is the signal's own handler.
        None => unsafe {
            libc::signal(signal, libc::SIG_DFL);
        },
    }
}

/// Carries out the instruction at which `registers` stand and returns its length; `None` if it is none of ours.
///
/// # Safety
/// Memory operands may be read, those of `tilestored` written.
unsafe fn step(state: &mut Tiles, registers: &[i64; 23]) -> Option<usize> {
    let at = registers[libc::REG_RIP as usize] as *const u8;
    // SAFETY: there is an instruction here. One byte after the other, as a shorter one may end where memory does.
    let byte = |i: usize| unsafe { at.add(i).read() };
    if byte(0) != 0xc4 || byte(1) & 0x9f != 0x82 || byte(2) & 0x84 != 0 {
        return None;
    }
    let (x, b) = (usize::from(!byte(1) >> 6 & 1) * 8, usize::from(!byte(1) >> 5 & 1) * 8);
    let (v, prefix, opcode) = (usize::from(!byte(2) >> 3 & 15), byte(2) & 3, byte(3));
    let (mode, reg, rm) = (byte(4) >> 6, usize::from(byte(4) >> 3 & 7), usize::from(byte(4) & 7));
    const NONE: u8 = 0;
    const F3: u8 = 2;
    const F2: u8 = 3;

    // Base and displacement; the index, scaled; and the instruction's length.
    let memory = || {
        let general = |i: usize| registers[GENERAL[i] as usize];
        let (base, index, used) = if rm == 4 {
            let sib = byte(5);
            let (index, base) = (usize::from(sib >> 3 & 7) + x, usize::from(sib & 7) + b);
            (base, if index == 4 { 0 } else { general(index) << (sib >> 6) }, 6)
        } else {
            (rm + b, 0, 5)
        };
        let (displacement, used) = match mode {
            // Without a base, or from the instruction.
            0 if base & 7 == 5 => return None,
            0 => (0, used),
            1 => (i64::from(byte(used) as i8), used + 1),
            _ => (i64::from(i32::from_le_bytes(std::array::from_fn(|i| byte(used + i)))), used + 4),
        };
        Some(((general(base) + displacement) as *mut u8, index as isize, used))
    };
    let row = |start: *mut u8, stride: isize, i: usize| start.wrapping_offset(stride * i as isize).cast::<[u32; 16]>();

    match (opcode, prefix, mode == 3) {
        (0x49, NONE, true) if (reg, rm) == (0, 0) => {
            *state = Tiles { configured: false, tiles: [Tile::ZERO; 8] };
            Some(5)
        }
        (0x49, NONE, false) if reg == 0 => {
            let (config, _, len) = memory()?;
            // SAFETY: the caller's word.
            let config = unsafe { config.cast::<[u8; 64]>().read() };
            let whole = |tile: usize| config[16 + 2 * tile..][..2] == [64, 0] && config[48 + tile] == 16;
            if config[..2] != [1, 0] || !(0..8).all(whole) {
                return None;
            }
            *state = Tiles { configured: true, tiles: [Tile::ZERO; 8] };
            Some(len)
        }
        _ if !state.configured => None,
        (0x49, F2, true) => {
            state.tiles[reg] = Tile::ZERO;
            Some(5)
        }
        (0x4b, F2, false) if rm == 4 => {
            let (start, stride, len) = memory()?;
            for (i, to) in state.tiles[reg].0.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                // SAFETY: the caller's word.
                *to = unsafe { row(start, stride, i).read_unaligned() };
            }
            Some(len)
        }
        (0x4b, F3, false) if rm == 4 => {
            let (start, stride, len) = memory()?;
            for (i, from) in state.tiles[reg].0.as_chunks::<16>().0.iter().enumerate() {
                // SAFETY: the caller's word.
                unsafe { row(start, stride, i).write_unaligned(*from) };
            }
            Some(len)
        }
        // Three different tiles, as the CPU demands.
        (0x5c, F3, true) if reg != rm && rm != v && v != reg && b == 0 => {
            let (left, right) = (state.tiles[rm], *state.tiles.get(v)?);
            tdpbf16ps(&mut state.tiles[reg], &left, &right);
            Some(5)
        }
        _ => None,
    }
}

/// Where the system puts the general registers, by their numbers.
const GENERAL: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];
