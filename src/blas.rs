//! The only call of `cblas_sgemm`, and the BLAS thread policy: our pool cuts the work, BLAS runs one thread a call.
//!
//! OpenBLAS does not keep this library's promises by itself, so its ways are fenced in here:
//! - It maps 128 MiB of work space for each call that runs beside others, and tries again for ever when the system has none.
//!   [`buffers`] lets a call in only when the space for it is already mapped; without it [`sgemm`] says no, and the caller's own
//!   kernels do the work.
//! - Its pthread builds make threads when loaded, and end the process when they cannot. build.rs takes a single-threaded build,
//!   as a private copy.
//! - The order of its sums depends on the shape of the call: results are within the usual bound for any order,
//!   |y − Σ x·w| ≤ k·2⁻²⁴/(1 − k·2⁻²⁴) · Σ|x·w|, but not the same bits for another cut of the work.

use crate::kernels::{Isa, Kernels, Matrix};
use crate::threads::ColumnsMut;

/// Whether [`sgemm`] can be expected to work and to be the fastest there is beside `kernels`. Where those have AVX-512, it may choose, or be told by
/// `OPENBLAS_CORETYPE`, the kernels of a CPU without.
pub fn best_with(kernels: &Kernels) -> bool {
    imp::available() && kernels.prefers_blas() && (!matches!(kernels.isa(), Isa::Avx512 | Isa::Amx) || imp::has_avx512())
}

/// The product of many tokens: `out[t, c] = Σ_k w[first + c, k] · x[t, k]` for every row `t` of `x: [out.rows(), n_in]` and for as
/// many outputs `c` of `w` as `out` has columns. Returns false, with nothing done, if this is not possible: no BLAS, weights that
/// are not aligned f32, no memory for it, sizes beyond BLAS's.
///
/// # Panics
/// If `w`, `x` and `out` do not fit together, a defect of the caller.
pub fn sgemm(w: Matrix<'_>, first: usize, x: &[f32], out: &mut ColumnsMut<'_>) -> bool {
    imp::sgemm(w, first, x, out)
}

#[cfg(not(any(engine_openblas, feature = "blas-system")))]
mod imp {
    use super::*;

    pub fn available() -> bool {
        false
    }

    pub fn has_avx512() -> bool {
        false
    }

    pub fn sgemm(_: Matrix<'_>, _: usize, _: &[f32], _: &mut ColumnsMut<'_>) -> bool {
        false
    }
}

#[cfg(any(engine_openblas, feature = "blas-system"))]
mod imp {
    use super::*;
    use crate::format::DType;
    use crate::kernels::Layout;
    use cblas_sys::{CBLAS_LAYOUT, CBLAS_TRANSPOSE, cblas_sgemm};
    #[cfg(feature = "blas-system")]
    use openblas_src as _;
    use std::ffi::{CStr, c_char, c_int};
    use std::sync::LazyLock;

    pub fn available() -> bool {
        // The kernels for older CPUs are not in the private copy (build.rs).
        #[cfg(target_arch = "x86_64")]
        return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        #[cfg(not(target_arch = "x86_64"))]
        return true;
    }

    unsafe extern "C" {
        /// Which CPU's kernels OpenBLAS runs.
        fn openblas_get_corename() -> *const c_char;
    }

    pub fn has_avx512() -> bool {
        // It chooses when it is loaded; every product asks.
        static ANSWER: LazyLock<bool> = LazyLock::new(|| {
            // SAFETY: it gives a string that stays.
            let core = unsafe { CStr::from_ptr(openblas_get_corename()) };
            ["SkylakeX", "Cooperlake", "SapphireRapids"].iter().any(|name| name.as_bytes().eq_ignore_ascii_case(core.to_bytes()))
        });
        *ANSWER
    }

    pub fn sgemm(w: Matrix<'_>, first: usize, x: &[f32], out: &mut ColumnsMut<'_>) -> bool {
        let (m, n, k, ldy) = (out.rows(), out.cols().len(), w.n_in, out.ld());
        let weights = w.n_out.checked_mul(k);
        assert!(first.checked_add(n).is_some_and(|end| end <= w.n_out), "outputs {first}..+{n} of {}", w.n_out);
        assert!(m.checked_mul(k).is_some_and(|len| len <= x.len()), "[{m}, {k}] in {} elements", x.len());
        // SAFETY: every bit pattern is an f32.
        let (before, data, _) = unsafe { w.data.align_to::<f32>() };
        if w.dtype != DType::F32 || !before.is_empty() || !available() {
            return false;
        }
        assert!(weights.is_some_and(|len| len <= data.len()), "[{}, {k}] in {} elements", w.n_out, data.len());
        if m == 0 || n == 0 {
            return true;
        }
        if k == 0 {
            (0..m).for_each(|t| out.row_mut(t).fill(0.0));
            return true;
        }
        let (trans, ldw, start) = match w.layout {
            Layout::OutIn => (CBLAS_TRANSPOSE::CblasTrans, k, first * k),
            Layout::InOut => (CBLAS_TRANSPOSE::CblasNoTrans, w.n_out, first),
        };
        let sizes = [m, n, k, ldw, ldy].map(|size| c_int::try_from(size).ok());
        let [Some(m), Some(n), Some(k), Some(ldw), Some(ldy)] = sizes else { return false };
        let Some(_permit) = super::buffers::admit() else { return false };
        let (row_major, no_trans) = (CBLAS_LAYOUT::CblasRowMajor, CBLAS_TRANSPOSE::CblasNoTrans);
        let (x, w, y) = (x.as_ptr(), data[start..].as_ptr(), out.as_mut_ptr());
        // SAFETY: x holds m·k elements, w n_out·k of which the rows (OutIn) or columns (InOut) first..first + n are read, all
        // asserted above; y is valid for m rows of n elements, ldy apart (ColumnsMut), and nobody else touches those. With beta 0,
        // y is only written. A permit is held.
        unsafe { cblas_sgemm(row_major, no_trans, trans, m, n, k, 1.0, x, k, w, ldw, 0.0, y, ldy) };
        true
    }
}

/// OpenBLAS's work space: a call that finds all its buffers in use by other calls maps one more. The private copy's `mmap` is
/// [`map`] here, which hands out what [`admit`] mapped before it let the call in. It never comes up empty: OpenBLAS asks only
/// when every buffer that it has is in use by another admitted call, and there are never more admitted calls than buffers
/// mapped for them.
#[cfg(engine_openblas)]
mod buffers {
    use std::ffi::{c_int, c_void};
    use std::ptr::null_mut;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, PoisonError};

    /// What OpenBLAS maps for one call (BUFFER_SIZE of its x86-64 builds with many CPUs' code; a test sees that it is).
    pub const SIZE: usize = 128 << 20;
    /// Calls let in at once: half of the buffers that OpenBLAS can keep account of.
    const MOST: usize = 64;

    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    /// Buffers mapped so far, whether OpenBLAS has them yet or not; only grows.
    pub static MAPPED: AtomicUsize = AtomicUsize::new(0);
    /// The addresses of those that OpenBLAS does not have yet: a stack, and its height.
    pub static SPARE: Mutex<([usize; MOST], usize)> = Mutex::new(([0; MOST], 0));

    /// The right to run one call.
    pub struct Permit(());

    impl Drop for Permit {
        fn drop(&mut self) {
            // Release: the next call finds this one's buffer given back.
            RUNNING.fetch_sub(1, Ordering::Release);
        }
    }

    /// Lets a call in, unless there is no memory for it.
    pub fn admit() -> Option<Permit> {
        let running = RUNNING.fetch_add(1, Ordering::Acquire) + 1;
        let permit = Permit(()); // takes the number back where we say no
        if running > MAPPED.load(Ordering::Acquire) && !grow(running) {
            return None;
        }
        Some(permit)
    }

    /// Maps buffers until there are `needed`.
    fn grow(needed: usize) -> bool {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        while MAPPED.load(Ordering::Relaxed) < needed {
            let address = if needed <= MOST { anonymous(SIZE) } else { libc::MAP_FAILED };
            if address == libc::MAP_FAILED {
                return false;
            }
            let (addresses, height) = &mut *spare;
            // The height is at most MAPPED, which is below MOST here.
            addresses[*height] = address as usize;
            *height += 1;
            MAPPED.fetch_add(1, Ordering::Release);
        }
        true
    }

    fn anonymous(len: usize) -> *mut c_void {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping, at no address asked for, touches no other memory.
        unsafe { libc::mmap(null_mut(), len, prot, flags, -1, 0) }
    }

    /// OpenBLAS's `mmap`.
    extern "C" fn map(_at: *mut c_void, len: usize, _prot: c_int, _flags: c_int, _fd: c_int, _offset: i64) -> *mut c_void {
        if len == SIZE {
            let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
            let (addresses, height) = &mut *spare;
            if let Some(lower) = height.checked_sub(1) {
                *height = lower;
                return addresses[lower] as *mut c_void;
            }
        }
        anonymous(len)
    }

    unsafe extern "C" {
        /// OpenBLAS's own choice of a buffer (`blas_memory_alloc`).
        fn engine_openblas_choose(procedure: c_int) -> *mut c_void;
    }

    /// What sgemm calls for a buffer. A single-threaded build looks for one that is not in use and marks it so without a lock:
    /// two calls at once could take the same one and spoil each other's result. To give one back it only clears that mark.
    extern "C" fn alloc(procedure: c_int) -> *mut c_void {
        static CHOOSING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = CHOOSING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the function that sgemm would have called, with sgemm's argument.
        unsafe { engine_openblas_choose(procedure) }
    }

    /// OpenBLAS's `munmap`, called when the library is unloaded or the process exits. A thread that the host has not stopped
    /// may then be inside a call: it keeps its memory.
    extern "C" fn unmap(at: *mut c_void, len: usize) -> c_int {
        if RUNNING.load(Ordering::Acquire) != 0 {
            return 0;
        }
        // SAFETY: OpenBLAS gives back a mapping that `map` gave it, and no call is running that could use it.
        unsafe { libc::munmap(at, len) }
    }

    // The names that build.rs gave the private copy's references, hidden so that the shared library does not export them, as
    // it would a `#[no_mangle]` function.
    std::arch::global_asm!(
        ".pushsection .text.engine_openblas,\"ax\",@progbits",
        ".globl engine_openblas_map",
        ".hidden engine_openblas_map",
        ".type engine_openblas_map,@function",
        "engine_openblas_map: jmp {map}",
        ".globl engine_openblas_unmap",
        ".hidden engine_openblas_unmap",
        ".type engine_openblas_unmap,@function",
        "engine_openblas_unmap: jmp {unmap}",
        ".globl engine_openblas_alloc",
        ".hidden engine_openblas_alloc",
        ".type engine_openblas_alloc,@function",
        "engine_openblas_alloc: jmp {alloc}",
        ".popsection",
        map = sym map,
        alloc = sym alloc,
        unmap = sym unmap,
    );
}

/// With the system's shared OpenBLAS its buffers are out of reach: the space is only looked for before the call.
#[cfg(all(feature = "blas-system", not(engine_openblas)))]
mod buffers {
    use std::ffi::c_int;
    use std::sync::Once;

    unsafe extern "C" {
        fn openblas_set_num_threads(n: c_int);
    }

    /// Room for a buffer of any build, and some.
    const ROOM: usize = 256 << 20;

    /// The right to run one call.
    pub struct Permit(());

    /// Lets a call in, unless there is no memory for it now.
    pub fn admit() -> Option<Permit> {
        static ONE_THREAD: Once = Once::new();
        // SAFETY: a plain setter.
        ONE_THREAD.call_once(|| unsafe { openblas_set_num_threads(1) });
        memmap2::MmapMut::map_anon(ROOM).ok().map(|_| Permit(()))
    }
}

#[cfg(all(test, any(engine_openblas, feature = "blas-system")))]
mod tests {
    use super::*;
    use crate::format::DType;
    use crate::kernels::Layout;
    use crate::threads::Pool;

    /// Numbers in −1..1 from a small generator.
    fn random(seed: u32, len: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as i32 as f32 / 2_147_483_648.0
        };
        (0..len).map(|_| next()).collect()
    }

    fn bytes(w: &[f32]) -> &[u8] {
        // SAFETY: any f32 is four bytes.
        unsafe { std::slice::from_raw_parts(w.as_ptr().cast(), size_of_val(w)) }
    }

    fn matrix(layout: Layout, n_out: usize, n_in: usize, w: &[f32]) -> Matrix<'_> {
        Matrix { dtype: DType::F32, layout, n_out, n_in, data: bytes(w) }
    }

    /// Checks columns `cols` of `y: [m, ld]`, which are the outputs of `w` from `first` on, by the bound for sums in any order.
    fn check(w: Matrix<'_>, first: usize, x: &[f32], y: &[f32], ld: usize, cols: std::ops::Range<usize>) {
        let k = w.n_in;
        let ku = k as f64 * f64::powi(2.0, -24);
        let gamma = ku / (1.0 - ku);
        let data: Vec<f32> = w.data.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect();
        for (t, c) in (0..y.len() / ld).flat_map(|t| cols.clone().map(move |c| (t, c))) {
            let output = first + c - cols.start;
            let weight = |i: usize| match w.layout {
                Layout::OutIn => data[output * k + i],
                Layout::InOut => data[i * w.n_out + output],
            };
            let terms = (0..k).map(|i| weight(i) as f64 * x[t * k + i] as f64);
            let (sum, size) = terms.fold((0.0, 0.0), |(s, a), p| (s + p, a + p.abs()));
            let got = y[t * ld + c] as f64;
            assert!((got - sum).abs() <= gamma * size, "{:?} k {k}, row {t}, column {c}: {got}, should be {sum}", w.layout);
        }
    }

    #[test]
    fn agrees_with_f64_in_both_layouts() {
        for (i, (m, n, k)) in
            [(1, 1, 1), (3, 5, 7), (17, 33, 65), (32, 64, 128), (50, 129, 300), (5, 4, 0)].into_iter().enumerate()
        {
            for layout in [Layout::OutIn, Layout::InOut] {
                let (w, x) = (random(i as u32 + 1, n * k), random(i as u32 + 100, m * k));
                let mut y = vec![f32::NAN; m * n];
                assert!(sgemm(matrix(layout, n, k, &w), 0, &x, &mut ColumnsMut::whole(&mut y, m, n)));
                check(matrix(layout, n, k, &w), 0, &x, &y, n, 0..n);
            }
        }
    }

    #[test]
    fn panels_of_a_wider_result_leave_the_rest_alone() {
        let (m, n, k, ld) = (9, 40, 31, 100);
        for layout in [Layout::OutIn, Layout::InOut] {
            let (w, x) = (random(3, n * k), random(4, m * k));
            let mut y = vec![7.0; m * ld];
            let mut whole = ColumnsMut::whole(&mut y, m, ld);
            assert!(sgemm(matrix(layout, n, k, &w), 11, &x, &mut whole.sub(30..50)));
            check(matrix(layout, n, k, &w), 11, &x, &y, ld, 30..50);
            for row in y.chunks_exact(ld) {
                assert!(row[..30].iter().chain(&row[50..]).all(|v| *v == 7.0));
            }
        }
    }

    #[test]
    fn what_it_cannot_take_it_says() {
        let (w, x, mut y) = (random(1, 7), random(2, 3), [0.0; 2]);
        let mut out = ColumnsMut::whole(&mut y, 1, 2);
        let skewed = Matrix { data: &bytes(&w)[1..25], ..matrix(Layout::OutIn, 2, 3, &w) };
        assert!(!sgemm(skewed, 0, &x, &mut out));
        assert!(!sgemm(Matrix { dtype: DType::BF16, ..matrix(Layout::OutIn, 2, 3, &w) }, 0, &x, &mut out));
    }

    /// Calls so short that most of their time goes into choosing a buffer, where a build without locks lets two take the same.
    #[test]
    fn no_two_calls_share_a_buffer() {
        let (m, n, k) = (8, 8, 8);
        std::thread::scope(|s| {
            for host in 0..8 {
                s.spawn(move || {
                    let (w, x) = (random(host + 1, n * k), random(host + 50, m * k));
                    let product = || {
                        let mut y = [0.0; 64];
                        assert!(sgemm(matrix(Layout::OutIn, n, k, &w), 0, &x, &mut ColumnsMut::whole(&mut y, m, n)));
                        y
                    };
                    let first = product();
                    check(matrix(Layout::OutIn, n, k, &w), 0, &x, &first, n, 0..n);
                    for call in 0..1_000_000 {
                        assert_eq!(product(), first, "host thread {host}, call {call}");
                    }
                });
            }
        });
    }

    /// Many callers at once, each with panels on a pool of its own: OpenBLAS's buffers are shared by all of them.
    #[test]
    fn concurrent_calls_do_not_disturb_each_other() {
        let (m, n, k) = (37, 96, 130);
        std::thread::scope(|s| {
            for host in 0..6 {
                s.spawn(move || {
                    let pool = Pool::new(2).unwrap();
                    let (w, x) = (random(host + 1, n * k), random(host + 50, m * k));
                    let w_matrix = matrix(Layout::OutIn, n, k, &w);
                    let mut y = vec![0.0; m * n];
                    for _ in 0..60 {
                        y.fill(f32::NAN);
                        pool.for_each_columns(&mut [(); 2], &mut y, m, n, 24, |_, mut part| {
                            assert!(sgemm(w_matrix, part.cols().start, &x, &mut part));
                        });
                    }
                    check(w_matrix, 0, &x, &y, n, 0..n);
                });
            }
        });
        #[cfg(engine_openblas)]
        {
            // Both under the lock: other tests make them grow meanwhile.
            let spare = buffers::SPARE.lock().unwrap();
            let (mapped, spare) = (buffers::MAPPED.load(std::sync::atomic::Ordering::SeqCst), spare.1);
            assert!(mapped >= 1 && spare < mapped, "OpenBLAS took none of the buffers mapped for it: is SIZE still its size?");
        }
    }

    /// OpenBLAS tries for ever to map its work space. The limit holds for the whole process, so a process of its own has it.
    #[cfg(engine_openblas)]
    #[test]
    fn short_of_address_space_it_says_no_and_later_yes() {
        const CHILD: &str = "ENGINE_TEST_ADDRESS_SPACE";
        if std::env::var_os(CHILD).is_none() {
            let name = "blas::tests::short_of_address_space_it_says_no_and_later_yes";
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            let mut child = child.args(["--exact", name]).env(CHILD, "1").stdout(std::process::Stdio::null()).spawn().unwrap();
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
            let status = loop {
                match child.try_wait().unwrap() {
                    Some(status) => break Some(status),
                    None if std::time::Instant::now() > deadline => break None,
                    None => std::thread::sleep(std::time::Duration::from_millis(5)),
                }
            };
            let _ = child.kill();
            assert!(status.is_some_and(|s| s.success()), "the child ended with {status:?} (None: it hung)");
            return;
        }
        let (m, n, k) = (40, 50, 60);
        let (w, x, mut y) = (random(1, n * k), random(2, m * k), vec![7.0; m * n]);
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let used = pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096;
        let limit = |bytes: u64| {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: the limit is read only.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        };
        limit(used + buffers::SIZE as u64 / 2);
        assert!(!sgemm(matrix(Layout::OutIn, n, k, &w), 0, &x, &mut ColumnsMut::whole(&mut y, m, n)));
        assert!(y.iter().all(|v| *v == 7.0));
        // Room for one call, not for two at once: some of them are refused, and none hangs.
        limit(used + buffers::SIZE as u64 * 3 / 2);
        assert!(sgemm(matrix(Layout::OutIn, n, k, &w), 0, &x, &mut ColumnsMut::whole(&mut y, m, n)));
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    let mut y = vec![7.0; m * n];
                    for _ in 0..200 {
                        let done = sgemm(matrix(Layout::OutIn, n, k, &w), 0, &x, &mut ColumnsMut::whole(&mut y, m, n));
                        if done {
                            check(matrix(Layout::OutIn, n, k, &w), 0, &x, &y, n, 0..1);
                        }
                    }
                });
            }
        });
        assert_eq!(buffers::MAPPED.load(std::sync::atomic::Ordering::SeqCst), 1);
        check(matrix(Layout::OutIn, n, k, &w), 0, &x, &y, n, 0..n);
    }
}
