//! A guarded mapping against files that shrink while they are read. In a process of its own, with a single test: signal
//! handlers belong to the whole process.
#![cfg(target_os = "linux")]

use engine::ErrorKind;
use engine::format::MapMode;
use engine::format::mmap::Mapping;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

const LEN: usize = 1 << 20;

/// What the host's own handler has seen, and where it may put a page to go on.
static HOST_CALLS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn host_handler(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    HOST_CALLS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the kernel passes a valid siginfo; the page at the faulting address belongs to this test's unguarded mapping.
    unsafe {
        let page = (*info).si_addr() as usize & !4095;
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(page as *mut libc::c_void, 4096, libc::PROT_READ, flags, -1, 0);
    }
}

/// Installs `handler` for SIGBUS, or only asks if there is none; gives the address of the one before.
fn sigbus(handler: Option<usize>) -> usize {
    // SAFETY: all zeros is a valid sigaction; both pointers are to live values or null.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        let mut old: libc::sigaction = std::mem::zeroed();
        new.sa_flags = libc::SA_SIGINFO;
        new.sa_sigaction = handler.unwrap_or_default();
        let new = if handler.is_some() { &raw const new } else { std::ptr::null() };
        assert_eq!(libc::sigaction(libc::SIGBUS, new, &mut old), 0);
        old.sa_sigaction
    }
}

fn file(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("engine-guarded-{}-{name}", std::process::id()));
    std::fs::write(&path, vec![7; LEN]).unwrap();
    path
}

fn truncate(path: &PathBuf) {
    File::options().write(true).open(path).unwrap().set_len(0).unwrap();
}

/// Reads in a way that the optimiser must keep.
fn read(mapping: &Mapping, at: usize) -> u8 {
    std::hint::black_box(mapping)[at]
}

#[test]
fn truncated_files_are_an_error_and_not_the_end() {
    let host = host_handler as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) as usize;
    sigbus(Some(host));
    let (a, b, c) = (file("a"), file("b"), file("c"));

    // Nothing is installed until someone asks.
    let plain = Mapping::open(&c, MapMode::Map).unwrap();
    assert_eq!(sigbus(None), host);
    let guarded = Mapping::open(&a, MapMode::Guarded).unwrap();
    let other = Mapping::open(&b, MapMode::Guarded).unwrap();
    assert_ne!(sigbus(None), host);
    assert_eq!((read(&guarded, 0), read(&guarded, LEN - 1)), (7, 7));
    guarded.check().unwrap();

    // A guarded file shrinks: zeros, an error that names it, and no call of the host's handler. The others go on.
    truncate(&a);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let guarded = &guarded;
            scope.spawn(move || assert_eq!(read(guarded, LEN / 2 + thread * 8192), 0));
        }
    });
    let error = guarded.check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains(a.to_str().unwrap()) && error.message().contains("truncated"), "{error}");
    assert_eq!((read(&guarded, 0), read(&guarded, LEN - 1)), (0, 0));
    other.check().unwrap();
    assert_eq!((read(&other, LEN - 1), HOST_CALLS.load(Ordering::SeqCst)), (7, 0));

    // A fault elsewhere is the host's, as if we were not there.
    truncate(&c);
    assert_eq!((read(&plain, 0), HOST_CALLS.load(Ordering::SeqCst)), (0, 1));
    plain.check().unwrap();

    // The last guarded mapping takes the handler with it; a new one in the same slot starts unharmed.
    drop((guarded, other));
    assert_eq!(sigbus(None), host);
    let again = Mapping::open(&b, MapMode::Guarded).unwrap();
    again.check().unwrap();
    assert_ne!(sigbus(None), host);
    truncate(&b);
    assert_eq!(read(&again, LEN - 1), 0);
    again.check().unwrap_err();

    [a, b, c].iter().for_each(|path| std::fs::remove_file(path).unwrap());
}
