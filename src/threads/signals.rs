//! The host's signals are the host's: a new thread inherits its maker's mask, so the workers are made with all blocked but
//! those that a thread raises itself (a blocked SIGBUS would kill without asking its handler) and a profiler's clock.

#[cfg(unix)]
pub use unix::Masked;

#[cfg(unix)]
mod unix {
    use std::mem::MaybeUninit;

    /// Blocks this thread's signals until dropped.
    pub struct Masked(libc::sigset_t);

    impl Masked {
        pub fn new() -> Option<Self> {
            let (mut block, mut old) = (MaybeUninit::uninit(), MaybeUninit::uninit());
            // SAFETY: sigfillset and pthread_sigmask write the sets they are given; the mask is read only where they succeeded.
            unsafe {
                libc::sigfillset(block.as_mut_ptr());
                let own = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS, libc::SIGABRT];
                for signal in own.into_iter().chain([libc::SIGPROF]) {
                    libc::sigdelset(block.as_mut_ptr(), signal);
                }
                let rc = libc::pthread_sigmask(libc::SIG_SETMASK, block.as_ptr(), old.as_mut_ptr());
                (rc == 0).then(|| Self(old.assume_init()))
            }
        }
    }

    impl Drop for Masked {
        fn drop(&mut self) {
            // SAFETY: the set is the one that this thread had; a null pointer means that the present one is not asked for.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
        }
    }
}

/// Nothing to block.
#[cfg(not(unix))]
pub struct Masked;

#[cfg(not(unix))]
impl Masked {
    pub fn new() -> Option<Self> {
        None
    }
}
