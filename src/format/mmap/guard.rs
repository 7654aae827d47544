//! The guard against a mapped file that shrinks, or whose disk fails, while it is read. The kernel answers a read of a page
//! that is gone with SIGBUS, which ends the process. Our handler, installed while a guarded mapping lives and never
//! otherwise, looks whether the address is in a guarded mapping. If so it marks the mapping as damaged, puts zeros in its
//! place and lets the read go on: the numbers that come of it are wrong, and the mark is what tells the caller so. Any
//! other SIGBUS goes to the handler that was there before.
//!
//! The whole mapping becomes zeros, not just the page: a model with a part missing is no model, and one call of mmap for a
//! file cannot run into the kernel's limit on the number of maps, as one for each page could.
//!
//! A host that installs its own SIGBUS handler later takes the guard away unless it calls ours for what is not its own.

use crate::error::{Error, Result};
use libc::{c_int, c_void, siginfo_t};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Guarded mappings at one time; a `.npy` directory has one for each tensor. The handler may not take a lock or follow
/// memory that another thread frees, so the table is fixed.
const MAX_GUARDED: usize = 4096;

/// The addresses of one guarded mapping. Free while `end` is 0.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    damaged: AtomicBool,
}

static SLOTS: [Slot; MAX_GUARDED] =
    [const { Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), damaged: AtomicBool::new(false) } }; MAX_GUARDED];

/// The handler that was there before ours, for `on_sigbus`, which may not lock `STATE`.
static PREVIOUS_HANDLER: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static PREVIOUS_FLAGS: AtomicI32 = AtomicI32::new(0);

/// Who installs and removes the handler and hands out slots holds this lock.
static STATE: Mutex<State> = Mutex::new(State { live: 0, previous: None });

struct State {
    /// Slots in use.
    live: usize,
    /// What to put back; `Some` while our handler is installed.
    previous: Option<libc::sigaction>,
}

/// The right to a slot; giving it up unregisters the mapping.
pub(super) struct Guarded(&'static Slot);

impl Guarded {
    /// Guards `map`, the whole mapping of the file at `path` (which is for messages). Must be dropped before `map` is.
    pub(super) fn new(map: &memmap2::Mmap, path: &Path) -> Result<Self> {
        let mut state = lock();
        let free = SLOTS.iter().find(|slot| slot.end.load(Ordering::Relaxed) == 0);
        let slot = free.ok_or_else(|| {
            Error::unsupported(format!("{}: more than {MAX_GUARDED} files mapped under guard at once", path.display()))
        })?;
        if state.previous.is_none() {
            state.previous = Some(install().map_err(|e| Error::io(path, "install the SIGBUS handler of a guarded map", &e))?);
        }
        state.live += 1;
        let start = map.as_ptr() as usize;
        slot.damaged.store(false, Ordering::Relaxed);
        slot.start.store(start, Ordering::Relaxed);
        // Release: a handler that sees this end sees its start as well.
        slot.end.store(start + map.len(), Ordering::Release);
        Ok(Self(slot))
    }

    /// Whether a page of the mapping was found gone.
    pub(super) fn damaged(&self) -> bool {
        self.0.damaged.load(Ordering::Acquire)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let mut state = lock();
        self.0.end.store(0, Ordering::Release);
        state.live -= 1;
        if state.live == 0 {
            state.previous = state.previous.and_then(remove);
        }
    }
}

fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn handler_address() -> usize {
    on_sigbus as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize
}

/// Installs `on_sigbus` and returns what was there before.
fn install() -> std::io::Result<libc::sigaction> {
    let previous = current()?;
    PREVIOUS_HANDLER.store(previous.sa_sigaction, Ordering::Relaxed);
    PREVIOUS_FLAGS.store(previous.sa_flags, Ordering::Release);
    // SAFETY: all zeros is a valid sigaction: no flags, an empty mask, the default action.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = handler_address();
    // SA_ONSTACK: hosts whose threads have small stacks (Go) demand it of every handler.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    set(&ours)?;
    Ok(previous)
}

/// Puts `previous` back if the handler is still ours. Otherwise someone has put theirs over it and may call it, so it
/// stays, and `previous` is returned to be kept.
fn remove(previous: libc::sigaction) -> Option<libc::sigaction> {
    let ours = current().is_ok_and(|now| now.sa_sigaction == handler_address());
    if ours && set(&previous).is_ok() { None } else { Some(previous) }
}

fn current() -> std::io::Result<libc::sigaction> {
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only asks; `action` is a valid place for the answer.
    let rc = unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut action) };
    if rc == 0 { Ok(action) } else { Err(std::io::Error::last_os_error()) }
}

fn set(action: &libc::sigaction) -> std::io::Result<()> {
    // SAFETY: `action` is either the system's own earlier answer or ours, whose handler is async-signal-safe and lives as
    // long as this library is loaded.
    let rc = unsafe { libc::sigaction(libc::SIGBUS, action, std::ptr::null_mut()) };
    if rc == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Async-signal-safe: atomics, mmap, sigaction's kin and nothing else; errno is kept.
extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo to a SA_SIGINFO handler. Codes above 0 are faults, which have an address.
    let (fault, address) = unsafe { ((*info).si_code > 0, (*info).si_addr() as usize) };
    if !(fault && SLOTS.iter().any(|slot| slot.heal(address))) {
        chain(signal, info, context, fault);
    }
}

impl Slot {
    /// If `address` is in this slot's mapping: marks it damaged and puts zeros in its place.
    fn heal(&self, address: usize) -> bool {
        let end = self.end.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Acquire);
        // The second look at `end` makes sure that both ends are of one registration.
        if address < start || address >= end || self.end.load(Ordering::Acquire) != end {
            return false;
        }
        // Marked before the zeros appear, so that whoever has read zeros finds the mark.
        self.damaged.store(true, Ordering::SeqCst);
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: the interrupted thread is reading this mapping, so it is alive; [start, end) is exactly what `Guarded::new`
        // was given, and only its owner unmaps it, after the slot is free. errno has a place of its own in every thread.
        unsafe {
            let errno = *libc::__errno_location();
            let zeros = libc::mmap(start as *mut c_void, end - start, libc::PROT_READ, flags, -1, 0);
            *libc::__errno_location() = errno;
            zeros != libc::MAP_FAILED
        }
    }
}

/// Does what would have been done without us.
fn chain(signal: c_int, info: *mut siginfo_t, context: *mut c_void, fault: bool) {
    let flags = PREVIOUS_FLAGS.load(Ordering::Acquire);
    let handler = PREVIOUS_HANDLER.load(Ordering::Relaxed);
    // A fault cannot be ignored: the kernel ends the process for it even where SIG_IGN is set.
    if handler == libc::SIG_DFL || (handler == libc::SIG_IGN && fault) {
        // SAFETY: both are async-signal-safe. A fault happens again on return and ends the process with its own core dump; a
        // signal that was sent has to be sent again.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            if !fault {
                libc::raise(signal);
            }
        }
    } else if handler != libc::SIG_IGN {
        // SAFETY: `handler` is neither of the two constants, so it is the address of the function that the process had
        // installed for this signal, of the kind that its SA_SIGINFO flag says.
        unsafe {
            if flags & libc::SA_SIGINFO != 0 {
                let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = std::mem::transmute(handler);
                handler(signal, info, context);
            } else {
                let handler: extern "C" fn(c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}
