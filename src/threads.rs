//! The pool: threads made once, spin then park. Work is shared out as whole outputs, so that no result depends on the number of
//! threads.
//!
//! # How a call runs
//!
//! A call publishes one job: a closure that takes tasks until none is left. The caller runs it, and so does every worker that
//! arrives in time; when the caller finds no task left it closes the job and waits only for the workers that did enter. So a
//! worker that the system has put aside never holds a call up. Each thread has a run of tasks of its own, from which it takes in
//! order, so that what it asks memory for ahead it will mostly need itself; then it takes from the others'.
//!
//! Everything goes through one word, [`Shared::state`]: `epoch · 2^16 | SHUTDOWN | OPEN | workers inside`.
//!
//! - The caller writes the job, then stores the word with a new epoch and OPEN (release). A worker enters by a compare-exchange
//!   of exactly that word to one more worker (acquire): so it sees the job, and the job stays, because the caller ends its call
//!   only at count 0.
//! - A worker leaves by subtracting 1 (release). The caller closes with `fetch_and(!OPEN)`, after which no compare-exchange can
//!   succeed, and waits for count 0 (acquire). All these are read-modify-writes on one word, so the last value that the caller
//!   reads heads no new release sequence: it synchronises with every worker that left, and sees all that they wrote.
//! - Idle workers spin for [`SPIN`], then sleep on a condition variable. `sleepers` and `state` are a Dekker pair, hence SeqCst:
//!   either the caller sees the sleeper and notifies (taking the mutex first, so never between the sleeper's last look and its
//!   wait), or the sleeper's last look sees the new epoch.
//!
//! A call allocates nothing. Two host threads may call at once: the second finds the pool busy and does all its tasks itself,
//! and so does a call from inside a task. After `fork()` the child has no workers: its calls do all their tasks in the calling
//! thread, unless the fork happened during a call; a child should only `exec` or exit.

mod columns;
mod cores;
mod signals;

pub use columns::{ColumnsMut, Cut};
pub use cores::available_cores;

use crate::error::{Error, ErrorKind, Result};
use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an idle worker spins before it sleeps: longer than the serial parts between two operations of a step, far shorter
/// than what a person or an energy meter would notice.
const SPIN: Duration = Duration::from_micros(50);
/// More threads than this is a mistake in the argument.
const MAX_THREADS: usize = 1024;
/// A worker's stack; tasks keep their scratch elsewhere.
const STACK: usize = 1 << 20;

const OPEN: u64 = 1 << 14;
const SHUTDOWN: u64 = 1 << 15;
const EPOCH: u64 = 1 << 16;
const INSIDE: u64 = OPEN - 1;

/// What the threads of a call run; the argument is the thread's number, the caller's being 0.
type Work<'a> = dyn Fn(usize) + Sync + 'a;
/// What a panic carries.
type Payload = Box<dyn Any + Send>;

/// Keeps its content from sharing a cache line (or the neighbour that the CPU fetches along) with anything else.
#[repr(align(128))]
struct Alone<T>(T);

struct Shared {
    state: Alone<AtomicU64>,
    /// The job; written by the caller while no worker is inside, read by the workers inside.
    job: UnsafeCell<Option<*const Work<'static>>>,
    /// The first panic of a worker in this job.
    panic: Mutex<Option<Payload>>,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is the only part that is not Sync by itself. It is written only by the thread that holds `Pool::busy` while
// the state's count is 0 and OPEN is not set, and read only by workers that are counted inside: see the module's text.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is to a closure that is Sync and outlives its job.
unsafe impl Send for Shared {}

/// A pool of `threads - 1` workers and the calling thread.
pub struct Pool {
    shared: Arc<Shared>,
    /// Held by the caller whose job the workers do.
    busy: Alone<AtomicBool>,
    /// How many tasks were taken of each thread's run.
    taken: Vec<AtomicUsize>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` threads, the caller counted in; 0 means [`available_cores`].
    pub fn new(threads: usize) -> Result<Self> {
        Self::make(threads, false)
    }

    /// The same, each worker on a core of its own for good. The first core is left to the caller, who is not moved.
    pub fn pinned(threads: usize) -> Result<Self> {
        Self::make(threads, true)
    }

    fn make(threads: usize, pinned: bool) -> Result<Self> {
        if threads > MAX_THREADS {
            return Err(Error::bad_argument(format!("{threads} threads asked for, the most is {MAX_THREADS}")));
        }
        let threads = if threads == 0 { available_cores().min(MAX_THREADS) } else { threads };
        let cores = if pinned { cores::for_each_thread(threads)? } else { Vec::new() };
        let shared = Shared {
            state: Alone(AtomicU64::new(0)),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        };
        let mut pool = Self {
            shared: Arc::new(shared),
            busy: Alone(AtomicBool::new(false)),
            taken: (0..threads).map(|_| AtomicUsize::new(0)).collect(),
            workers: Vec::with_capacity(threads - 1),
        };
        let _masked = signals::Masked::new();
        for thread in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = std::thread::Builder::new().name(format!("engine-{thread}")).stack_size(STACK);
            // On an error the workers made so far end when `pool` is dropped.
            let worker = builder.spawn(move || shared.serve(thread)).map_err(|e| {
                Error::new(ErrorKind::OutOfMemory, format!("cannot start worker thread {thread} of {}: {e}", threads - 1))
            })?;
            pool.workers.push(worker);
        }
        for (core, worker) in cores.iter().skip(1).zip(&pool.workers) {
            core.hold(worker)?;
        }
        Ok(pool)
    }

    /// Threads, the caller counted in.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(scratch, task)` once for each task in `0..tasks`. Each thread has one of `scratch` to itself
    /// (`scratch.len() >= self.threads()`; with fewer, fewer threads work). If another caller is using the pool, this caller does
    /// all tasks itself. A panic in a task is raised again here once no task is running; some tasks may then not have begun.
    ///
    /// # Panics
    /// If there is a task and `scratch` is empty, or if a task panics.
    pub fn for_each<S: Send, F>(&self, scratch: &mut [S], tasks: usize, f: F)
    where
        F: Fn(&mut S, usize) + Sync,
    {
        let helpers = self.workers.len().min(scratch.len().saturating_sub(1)).min(tasks.saturating_sub(1));
        if helpers == 0 || !self.try_acquire() {
            return (0..tasks).for_each(|task| f(&mut scratch[0], task));
        }
        // Relaxed: the counts only have to give each task once; the job's own data came with `state`, and so did these zeros.
        self.taken.iter().for_each(|taken| taken.store(0, Ordering::Relaxed));
        let runs = helpers + 1;
        let (slots, n_slots) = (Shareable(scratch.as_mut_ptr()), scratch.len());
        let result = self.run(&|thread| {
            let slots = &slots;
            if thread >= n_slots {
                return;
            }
            // SAFETY: thread < n_slots, and `run` never has two threads of one number inside a job: this thread alone has the
            // slot. `scratch` is borrowed mutably for the whole call, which outlives the job.
            let slot = unsafe { &mut *slots.0.add(thread) };
            for run in (thread..runs).chain(0..thread.min(runs)) {
                let all = run * tasks / runs..(run + 1) * tasks / runs;
                while let Some(task) = all.clone().nth(self.taken[run].fetch_add(1, Ordering::Relaxed)) {
                    f(slot, task);
                }
            }
        });
        // Release: the next to acquire the pool sees that nobody is inside.
        self.busy.0.store(false, Ordering::Release);
        if let Err(payload) = result {
            resume_unwind(payload);
        }
    }

    /// Cuts the `ld` columns of `y` (`[rows, ld]`) into runs of `chunk` and calls `f(scratch, part)` for each; otherwise as
    /// [`Pool::for_each`].
    pub fn for_each_columns<S: Send, F>(&self, scratch: &mut [S], y: &mut [f32], rows: usize, ld: usize, chunk: usize, f: F)
    where
        F: Fn(&mut S, ColumnsMut<'_>) + Sync,
    {
        let cut = Cut::new(ColumnsMut::whole(y, rows, ld), chunk);
        // SAFETY: every task number is given once.
        self.for_each(scratch, cut.tasks(), |slot, task| f(slot, unsafe { cut.part(task) }));
    }

    /// Calls `f(scratch, task, parts)` for each task in `0..tasks`, with that run of each of `cuts`; otherwise as [`Pool::for_each`].
    pub fn for_each_cut<S: Send, A: Send, B: Send, C: Send, F>(
        &self,
        scratch: &mut [S],
        tasks: usize,
        cuts: (Cut<'_, A>, Cut<'_, B>, Cut<'_, C>),
        f: F,
    ) where
        F: Fn(&mut S, usize, (ColumnsMut<'_, A>, ColumnsMut<'_, B>, ColumnsMut<'_, C>)) + Sync,
    {
        let (a, b, c) = &cuts;
        // SAFETY: every task number is given once.
        self.for_each(scratch, tasks, |slot, task| f(slot, task, unsafe { (a.part(task), b.part(task), c.part(task)) }));
    }

    /// Cuts `y` (`[rows, ld]`) at the rows `edges`, which ascend, and into runs of `chunk` columns, and calls `f(scratch, i, part)` for
    /// each, whose rows are `edges[i]..edges[i + 1]`; the last rows come first. Otherwise as [`Pool::for_each`].
    ///
    /// # Panics
    /// If `edges` do not ascend or go beyond `y`.
    pub fn for_each_tile<S: Send, F>(&self, scratch: &mut [S], y: &mut [f32], ld: usize, edges: &[usize], chunk: usize, f: F)
    where
        F: Fn(&mut S, usize, ColumnsMut<'_>) + Sync,
    {
        assert!(edges.is_sorted());
        let (chunk, tiles) = (chunk.max(1), edges.len().saturating_sub(1));
        let ptr = Shareable(ColumnsMut::whole(y, edges.last().copied().unwrap_or(0), ld).as_mut_ptr());
        let runs = ld.div_ceil(chunk);
        self.for_each(scratch, tiles * runs, |slot, task| {
            let ptr = &ptr;
            let (tile, start) = (tiles - 1 - task / runs, task % runs * chunk);
            let rows = edges[tile]..edges[tile + 1];
            // With no rows the matrix may be empty, hence wrapping.
            let ptr = ptr.0.wrapping_add(rows.start * ld);
            // SAFETY: each task has its own rows and columns of the matrix that `whole` checked, borrowed mutably until all have ended.
            f(slot, tile, unsafe { ColumnsMut::part(ptr, ld, rows.len(), start..ld.min(start + chunk)) });
        });
    }

    /// Cuts `y` (`[rows, row_len]`) into runs of `chunk` rows and calls `f(scratch, first_row, part)` for each; otherwise as
    /// [`Pool::for_each`].
    pub fn for_each_rows<S: Send, T: Send, F>(&self, scratch: &mut [S], y: &mut [T], row_len: usize, chunk: usize, f: F)
    where
        F: Fn(&mut S, usize, &mut [T]) + Sync,
    {
        let (chunk, row_len) = (chunk.max(1), row_len.max(1));
        let elements = y.len() / row_len * row_len;
        let cut = Cut::new(ColumnsMut::whole(y, 1, elements), chunk.saturating_mul(row_len));
        // SAFETY: every task number is given once.
        self.for_each(scratch, cut.tasks(), |slot, task| f(slot, task * chunk, unsafe { cut.part(task) }.row_mut(0)));
    }

    fn try_acquire(&self) -> bool {
        self.busy.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Runs `work` in this thread (number 0) and in every worker that arrives before it is done here; ends when all have
    /// left it. The caller holds `busy`.
    fn run(&self, work: &Work<'_>) -> Result<(), Payload> {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Nobody uses the pointer once this function ends: it ends at count 0, closed.
        let job = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        // SAFETY: this thread holds `busy` and the last job ended closed with count 0: no worker reads the cell.
        unsafe { *shared.job.get() = Some(job) };
        shared.open();
        let mine = catch_unwind(AssertUnwindSafe(|| work(0)));
        shared.close();
        let theirs = lock(&shared.panic).take();
        match theirs {
            None => mine,
            Some(payload) => Err(payload),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.0.fetch_or(SHUTDOWN, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of a task, so it ends in good order.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Publishes the job in the cell.
    fn open(&self) {
        let epoch = self.state.0.load(Ordering::Relaxed) & !(EPOCH - 1);
        self.state.0.store(epoch.wrapping_add(EPOCH) | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            drop(lock(&self.sleep));
            self.wake.notify_all();
        }
    }

    /// Lets no further worker in and waits for those inside.
    fn close(&self) {
        self.state.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spin = Spin::new();
        while self.state.0.load(Ordering::Acquire) & INSIDE != 0 {
            if !spin.again() {
                // The worker was put aside in the middle of its task, perhaps for want of a core: offer this one.
                std::thread::yield_now();
            }
        }
    }

    /// A worker's life.
    fn serve(&self, thread: usize) {
        let mut seen = 0;
        while let Some(state) = self.next_epoch(seen) {
            seen = state & !(EPOCH - 1);
            if !self.enter(state) {
                continue;
            }
            // SAFETY: this worker is counted inside, so the cell holds this epoch's job and nobody writes it.
            let job = unsafe { *self.job.get() };
            if let Some(job) = job {
                // SAFETY: the caller keeps the closure alive until the count is 0.
                let work = unsafe { &*job };
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(thread))) {
                    lock(&self.panic).get_or_insert(payload);
                }
            }
            self.state.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// Counts this worker into the job of `state`'s epoch, unless that is closed.
    fn enter(&self, mut state: u64) -> bool {
        let epoch = state & !(EPOCH - 1);
        loop {
            if state & OPEN == 0 || state & !(EPOCH - 1) != epoch {
                return false;
            }
            match self.state.0.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
    }

    /// Waits for an epoch other than `seen`, first spinning, then asleep; `None` when the pool ends.
    fn next_epoch(&self, seen: u64) -> Option<u64> {
        // Relaxed is enough to look: `enter` acquires what it then uses.
        let news = |state: u64| state & SHUTDOWN != 0 || state & !(EPOCH - 1) != seen;
        let mut spin = Spin::new();
        let mut state = self.state.0.load(Ordering::Relaxed);
        while !news(state) && spin.again() {
            state = self.state.0.load(Ordering::Relaxed);
        }
        if !news(state) {
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            let mut guard = lock(&self.sleep);
            loop {
                state = self.state.0.load(Ordering::SeqCst);
                if news(state) {
                    break;
                }
                guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            drop(guard);
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
        (state & SHUTDOWN == 0).then_some(state)
    }
}

/// A busy wait that ends after [`SPIN`].
struct Spin {
    turns: u32,
    start: Option<Instant>,
}

impl Spin {
    fn new() -> Self {
        Self { turns: 0, start: None }
    }
    /// Pauses for a moment; false when the time is over. The clock is read every 64 pauses (1 to 3 µs).
    fn again(&mut self) -> bool {
        std::hint::spin_loop();
        self.turns += 1;
        if !self.turns.is_multiple_of(64) {
            return true;
        }
        self.start.get_or_insert_with(Instant::now).elapsed() < SPIN
    }
}

/// No lock here is ever held over foreign code, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pointer that the threads of one call share; what each may touch through it is settled where it is used.
struct Shareable<T>(*mut T);
// SAFETY: the users (`for_each` and its kind) give each element to one thread at a time, and
// T: Send lets elements be used from another thread.
unsafe impl<T: Send> Sync for Shareable<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> (Pool, Vec<usize>) {
        (Pool::new(threads).unwrap(), vec![0; threads])
    }

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            let (pool, mut scratch) = pool(threads);
            for tasks in [0, 1, 2, 3, 7, 64, 1000] {
                let done: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                scratch.fill(0);
                pool.for_each(&mut scratch, tasks, |mine, task| {
                    *mine += 1;
                    done[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} threads, {tasks} tasks");
                assert_eq!(scratch.iter().sum::<usize>(), tasks);
            }
        }
    }

    #[test]
    fn short_scratch_means_fewer_threads() {
        let (pool, _) = pool(4);
        let mut scratch = [0; 2];
        for _ in 0..200 {
            pool.for_each(&mut scratch, 50, |mine, _| *mine += 1);
        }
        assert_eq!(scratch.iter().sum::<i32>(), 200 * 50);
        pool.for_each(&mut [] as &mut [()], 0, |_, _| ());
    }

    #[test]
    fn columns_and_rows_cover_the_matrix_once() {
        let (pool, mut scratch) = pool(3);
        for (rows, ld, chunk) in [(5, 17, 4), (1, 1, 1), (3, 8, 100), (4, 0, 2), (0, 6, 2), (2, 9, 0)] {
            let mut y = vec![0.0; rows * ld];
            pool.for_each_columns(&mut scratch, &mut y, rows, ld, chunk, |_, mut part| {
                let cols = part.cols();
                for r in 0..part.rows() {
                    part.row_mut(r).iter_mut().zip(cols.clone()).for_each(|(v, c)| *v += (r * ld + c) as f32);
                }
            });
            assert!(y.iter().enumerate().all(|(i, v)| *v == i as f32), "{rows} x {ld} by {chunk}");
            pool.for_each_rows(&mut scratch, &mut y, ld, chunk, |_, first, part| {
                part.iter_mut().enumerate().for_each(|(i, v)| *v -= (first * ld + i) as f32);
            });
            assert!(y.iter().all(|v| *v == 0.0), "{rows} x {ld} by {chunk}");
        }
    }

    #[test]
    fn cuts_cover_their_matrices_once() {
        let (pool, mut scratch) = pool(3);
        for (n, chunk) in [(17, 4), (8, 8), (3, 100), (1, 1), (0, 2)] {
            // 2 rows of n, one row of 3 to each column behind 6 that are not cut, and none.
            let (mut a, mut b) = (vec![0u8; 2 * n], vec![0u16; 6 + 3 * n]);
            let mut behind = ColumnsMut::whole(&mut b, 1, 6 + 3 * n);
            let cuts = (
                Cut::new(ColumnsMut::whole(&mut a, 2, n), chunk),
                Cut::new(behind.sub(6..6 + 3 * n), 3 * chunk),
                Cut::new(ColumnsMut::whole(&mut [(); 0], 0, 0), 5),
            );
            pool.for_each_cut(&mut scratch, n.div_ceil(chunk), cuts, |_, task, (mut a, mut b, c)| {
                assert!(a.cols().start == task * chunk && 3 * a.cols().len() == b.cols().len() && c.cols().is_empty());
                (0..2).for_each(|r| a.row_mut(r).iter_mut().for_each(|x| *x += 1));
                b.row_mut(0).iter_mut().for_each(|x| *x += 1);
            });
            assert!(a.iter().all(|x| *x == 1) && b[..6] == [0; 6] && b[6..].iter().all(|x| *x == 1), "{n} by {chunk}");
        }
    }

    #[test]
    fn tiles_cover_the_matrix_once() {
        let (pool, ld, edges) = (Pool::new(3).unwrap(), 7, [0, 2, 2, 3, 7]);
        let mut y = vec![0.0; 7 * ld];
        pool.for_each_tile(&mut [(); 3], &mut y, ld, &edges, 3, |_, tile, mut part| {
            assert_eq!(part.rows(), edges[tile + 1] - edges[tile]);
            let first = part.cols().start;
            for r in 0..part.rows() {
                for (c, y) in part.row_mut(r).iter_mut().enumerate() {
                    *y += ((edges[tile] + r) * ld + first + c) as f32 + 1.0;
                }
            }
        });
        assert!(y.iter().enumerate().all(|(i, y)| *y == i as f32 + 1.0), "{y:?}");
        pool.for_each_tile(&mut [(); 3], &mut [], ld, &[], 3, |_, _, _| unreachable!());
        for edges in [&[0, 3, 2][..], &[0, 8]] {
            let call = || pool.for_each_tile(&mut [(); 3], &mut vec![0.0; 7 * ld], ld, edges, 3, |_, _, _| ());
            assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        }
    }

    #[test]
    fn eight_host_threads_share_a_pool() {
        let (pool, _) = pool(3);
        std::thread::scope(|s| {
            for host in 0..8 {
                let pool = &pool;
                s.spawn(move || {
                    let mut scratch = [0usize; 3];
                    for round in 0..3000 {
                        scratch.fill(0);
                        let tasks = (host + round) % 9;
                        pool.for_each(&mut scratch, tasks, |mine, task| *mine += task + 1);
                        assert_eq!(scratch.iter().sum::<usize>(), tasks * (tasks + 1) / 2);
                    }
                });
            }
        });
    }

    #[test]
    fn nested_calls_run_inline() {
        let (pool, mut scratch) = pool(3);
        pool.for_each(&mut scratch, 20, |outer, _| {
            let mut inner = [0; 3];
            pool.for_each(&mut inner, 10, |n, _| *n += 1);
            assert_eq!(inner, [10, 0, 0]);
            *outer += inner[0];
        });
        assert_eq!(scratch.iter().sum::<usize>(), 200);
    }

    #[test]
    fn a_panic_comes_back_to_the_caller_and_the_pool_goes_on() {
        let (pool, mut scratch) = pool(3);
        for bad in [0, 1, 7, 39] {
            let running = AtomicUsize::new(0);
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.for_each(&mut scratch, 40, |_, task| {
                    running.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_micros(50));
                    running.fetch_sub(1, Ordering::SeqCst);
                    if task == bad {
                        // Not `panic!`, whose hook would write to the test's output.
                        resume_unwind(Box::new(bad));
                    }
                });
            }));
            assert_eq!(caught.unwrap_err().downcast_ref::<usize>(), Some(&bad));
            assert_eq!(running.load(Ordering::SeqCst), 0, "a task still ran when the call ended");
        }
        scratch.fill(0);
        pool.for_each(&mut scratch, 100, |n, _| *n += 1);
        assert_eq!(scratch.iter().sum::<usize>(), 100);
    }

    #[test]
    fn workers_take_part_awake_and_asleep() {
        let (pool, _) = pool(2);
        for pause in [Duration::ZERO, SPIN * 40] {
            for _ in 0..20 {
                std::thread::sleep(pause);
                let mut scratch = [false; 2];
                // Each task waits for the other to begin, so it takes two threads to end this call.
                let begun = AtomicUsize::new(0);
                pool.for_each(&mut scratch, 2, |mine, _| {
                    *mine = true;
                    begun.fetch_add(1, Ordering::SeqCst);
                    while begun.load(Ordering::SeqCst) < 2 {
                        std::thread::yield_now();
                    }
                });
                assert_eq!(scratch, [true; 2]);
            }
        }
    }

    #[test]
    fn pools_come_and_go() {
        for _ in 0..200 {
            let (pool, mut scratch) = pool(3);
            pool.for_each(&mut scratch, 4, |n, _| *n += 1);
        }
        assert_eq!(Pool::new(MAX_THREADS + 1).err().map(|e| e.kind()), Some(ErrorKind::BadArgument));
        assert_eq!(Pool::new(0).unwrap().threads(), available_cores());
    }

    /// Each worker sees another core's CPUs, none of them the first core's; the caller sees what it saw.
    #[cfg(target_os = "linux")]
    #[test]
    fn pinned_workers_stay_on_their_cores() {
        let before = cores::affinity().unwrap();
        let pool = Pool::pinned(0).unwrap();
        let threads = pool.threads();
        assert_eq!(threads, available_cores());
        let mut seen = vec![None; threads];
        // Every thread has a task, and waits in it for the others.
        let barrier = std::sync::Barrier::new(threads);
        pool.for_each(&mut seen, threads, |seen, _| {
            *seen = cores::affinity();
            barrier.wait();
        });
        let mut seen: Vec<Vec<usize>> = seen.into_iter().map(Option::unwrap).collect();
        assert_eq!(seen.remove(0), before);
        let of_workers: Vec<usize> = seen.concat();
        assert!(seen.iter().all(|cpus| !cpus.is_empty()) && of_workers.iter().all(|cpu| before[1..].contains(cpu)));
        assert_eq!(of_workers.len(), of_workers.iter().collect::<std::collections::BTreeSet<_>>().len());
        let most = cores::for_each_thread(1).unwrap().len();
        assert_eq!(Pool::pinned(most + 1).err().map(|e| e.kind()), Some(ErrorKind::BadArgument));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn idle_workers_use_no_cpu_and_take_no_signals() {
        let (pool, mut scratch) = pool(2);
        pool.for_each(&mut scratch, 2, |_, _| ());
        let task = std::fs::read_dir("/proc/self/task").unwrap().find_map(|t| {
            let dir = t.unwrap().path();
            (std::fs::read_to_string(dir.join("comm")).ok()?.trim() == "engine-1").then_some(dir)
        });
        // Other tests' pools have workers of that name too: any of them will do.
        if let Some(dir) = task
            && let Ok(status) = std::fs::read_to_string(dir.join("status"))
        {
            let blocked = status.lines().find_map(|l| l.strip_prefix("SigBlk:")).unwrap().trim();
            let blocked = u64::from_str_radix(blocked, 16).unwrap();
            assert_eq!(blocked >> (libc::SIGINT - 1) & 1, 1);
            assert_eq!(blocked >> (libc::SIGBUS - 1) & 1, 0);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while pool.shared.sleepers.load(Ordering::SeqCst) != 1 {
            assert!(Instant::now() < deadline, "the worker never went to sleep");
            std::thread::yield_now();
        }
    }
}
