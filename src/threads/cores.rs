//! The cores that a model's threads run on: how many there are where nobody says, and one for each thread where that is asked for.

use crate::error::{Error, Result};
use std::thread::JoinHandle;

/// Physical cores that this process may use, at least 1: a second thread on one core finds its arithmetic units busy. The
/// affinity mask and the cgroup's CPU quota count (the quota rounded down, for a thread beyond it would have the whole
/// process throttled).
pub fn available_cores() -> usize {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    allowed().map_or(threads, |cores| cores.len().clamp(1, threads))
}

/// The cores that this thread may use, at least one for each of `threads` threads.
pub(super) fn for_each_thread(threads: usize) -> Result<Vec<Core>> {
    let Some(cores) = allowed() else {
        return Err(Error::unsupported("threads cannot be held on cores of their own on this system"));
    };
    if threads > cores.len() {
        let n = cores.len();
        return Err(Error::bad_argument(format!(
            "{threads} threads asked for, each on a core of its own: this thread may use {n}"
        )));
    }
    Ok(cores)
}

/// The CPUs of a core that this thread may use.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Core(Vec<usize>);

#[cfg(target_os = "linux")]
use linux::allowed;

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::thread::JoinHandleExt;
    use std::path::Path;

    /// One bit for each of 8192 CPUs, the most that Linux is built for.
    type Mask = [u64; 128];

    /// The cores behind the CPUs of this thread's affinity mask.
    pub fn allowed() -> Option<Vec<Core>> {
        Some(of(Path::new("/sys/devices/system/cpu"), &affinity()?))
    }

    /// The CPUs that this thread may run on.
    pub fn affinity() -> Option<Vec<usize>> {
        let mut mask: Mask = [0; 128];
        // SAFETY: the kernel writes at most the given number of bytes, which is the array's size.
        let rc = unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) };
        let set = |cpu: &usize| mask[cpu / 64] >> (cpu % 64) & 1 == 1;
        (rc == 0).then(|| (0..64 * mask.len()).filter(set).collect())
    }

    /// The different cores that `cpus` are, by the list of each one's siblings, in the order of their first CPUs; one that has no list is a core of its own.
    pub fn of(sys: &Path, cpus: &[usize]) -> Vec<Core> {
        let mut by_siblings = BTreeMap::<String, Core>::new();
        for cpu in cpus {
            let file = sys.join(format!("cpu{cpu}/topology/thread_siblings_list"));
            let siblings = std::fs::read_to_string(file).unwrap_or_else(|_| format!("{cpu} alone"));
            by_siblings.entry(siblings).or_insert(Core(Vec::new())).0.push(*cpu);
        }
        let mut cores: Vec<Core> = by_siblings.into_values().collect();
        cores.sort_by_key(|core| core.0[0]);
        cores
    }

    impl Core {
        /// Lets a thread run here only.
        pub fn hold(&self, thread: &JoinHandle<()>) -> Result<()> {
            let mut mask: Mask = [0; 128];
            self.0.iter().for_each(|cpu| mask[cpu / 64] |= 1 << (cpu % 64));
            // SAFETY: the thread has not been joined, and the mask has the size that is said.
            let rc = unsafe { libc::pthread_setaffinity_np(thread.as_pthread_t(), size_of_val(&mask), mask.as_ptr().cast()) };
            if rc == 0 {
                return Ok(());
            }
            let (cpus, reason) = (&self.0, std::io::Error::from_raw_os_error(rc));
            Err(Error::unsupported(format!("a thread cannot be held on the CPUs {cpus:?}: {reason}")))
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> Option<Vec<Core>> {
    None
}
#[cfg(not(target_os = "linux"))]
impl Core {
    /// There is none.
    pub fn hold(&self, _: &JoinHandle<()>) -> Result<()> {
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
pub(super) use linux::affinity;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn cores_are_told_by_their_siblings() {
        let sys = std::env::temp_dir().join(format!("engine-cores-{}", std::process::id()));
        for (cpu, siblings) in [(0, "0,4"), (4, "0,4"), (1, "1,5"), (5, "1,5")] {
            let dir = sys.join(format!("cpu{cpu}/topology"));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("thread_siblings_list"), siblings).unwrap();
        }
        let cores = |cpus: &[usize]| -> Vec<Vec<usize>> { linux::of(&sys, cpus).into_iter().map(|core| core.0).collect() };
        assert_eq!(cores(&[0, 1, 4, 5]), [[0, 4], [1, 5]]);
        assert_eq!(cores(&[0, 4]), [[0, 4]]);
        assert_eq!(cores(&[1, 4]), [[1], [4]]);
        assert_eq!(cores(&[0, 7, 8, 10]), [[0], [7], [8], [10]]); // 7 and on say nothing of themselves
        std::fs::remove_dir_all(&sys).unwrap();
        assert!(available_cores() >= 1);
    }
}
