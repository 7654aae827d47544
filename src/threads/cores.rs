//! How many threads a model gets where nobody says.

/// Physical cores that this process may use, at least 1: a second thread on one core finds its arithmetic units busy. The
/// affinity mask and the cgroup's CPU quota count (the quota rounded down, for a thread beyond it would have the whole
/// process throttled).
pub fn available_cores() -> usize {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    physical().map_or(threads, |cores| cores.clamp(1, threads))
}

#[cfg(target_os = "linux")]
use linux::physical;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Cores behind the CPUs of the affinity mask.
    pub fn physical() -> Option<usize> {
        Some(distinct(Path::new("/sys/devices/system/cpu"), &affinity()?))
    }

    /// The CPUs that this thread may run on.
    fn affinity() -> Option<Vec<usize>> {
        let mut mask = [0u64; 128]; // 8192 CPUs, the most that Linux is built for
        // SAFETY: the kernel writes at most the given number of bytes, which is the array's size.
        let rc = unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) };
        let set = |cpu: &usize| mask[cpu / 64] >> (cpu % 64) & 1 == 1;
        (rc == 0).then(|| (0..64 * mask.len()).filter(set).collect())
    }

    /// How many different cores `cpus` are, by the list of each one's siblings; one that has none counts for itself.
    pub fn distinct(sys: &Path, cpus: &[usize]) -> usize {
        let siblings = |cpu: &usize| {
            let file = sys.join(format!("cpu{cpu}/topology/thread_siblings_list"));
            std::fs::read_to_string(file).unwrap_or_else(|_| format!("{cpu} alone"))
        };
        cpus.iter().map(siblings).collect::<BTreeSet<_>>().len()
    }
}

#[cfg(not(target_os = "linux"))]
fn physical() -> Option<usize> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted_by_their_siblings() {
        let sys = std::env::temp_dir().join(format!("engine-cores-{}", std::process::id()));
        for (cpu, siblings) in [(0, "0,4"), (4, "0,4"), (1, "1,5"), (5, "1,5")] {
            let dir = sys.join(format!("cpu{cpu}/topology"));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("thread_siblings_list"), siblings).unwrap();
        }
        assert_eq!(linux::distinct(&sys, &[0, 1, 4, 5]), 2);
        assert_eq!(linux::distinct(&sys, &[0, 4]), 1);
        assert_eq!(linux::distinct(&sys, &[0, 7, 8]), 3); // 7 and 8 say nothing of themselves
        std::fs::remove_dir_all(&sys).unwrap();
        assert!(available_cores() >= 1);
    }
}
