//! What this machine can do at most, measured now: other guests of the same host change it by the minute.

pub mod amx;
pub mod arithmetic;
pub mod memory;

use arithmetic::Unit;
use engine::format::DType;
use memory::Memory;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

/// Limits that figures are compared with.
pub struct Limits {
    /// Bytes per second of all threads, 8 streams each.
    pub bandwidth: f64,
    /// Operations per second of all threads, of each unit there is.
    pub units: Vec<(Unit, f64)>,
}

impl Limits {
    /// Measures them with so many threads, in about a second.
    pub fn now(threads: usize, quick: bool) -> Self {
        let runs = if quick { 6 } else { 12 };
        let bandwidth = Memory::new(256 << 20).bandwidth(threads, 8, runs);
        let units = Unit::available().map(|unit| (unit, unit.peak(threads, runs))).collect();
        Self { bandwidth, units }
    }

    /// The fastest unit that a product with weights of `dtype` can use without losing accuracy that the type has.
    pub fn arithmetic(&self, dtype: DType) -> (Unit, f64) {
        let fits = |unit: &Unit| match dtype {
            DType::Quant(_) => true,
            DType::BF16 => !unit.is_int8(),
            _ => unit.is_f32(),
        };
        let best = self.units.iter().filter(|(unit, _)| fits(unit)).max_by(|a, b| a.1.total_cmp(&b.1));
        best.copied().unwrap_or((Unit::Scalar, f64::NAN))
    }

    /// Both as text.
    pub fn line(&self, dtype: DType) -> String {
        let (unit, peak) = self.arithmetic(dtype);
        format!("limits now: {:.1} GB/s, {:.0} Gop/s ({})", self.bandwidth / 1e9, peak / 1e9, unit.name())
    }
}

/// Runs `f(thread)` on `threads` threads at once, `runs` times, and says how long the slowest thread took in the best run. The
/// threads stay the same, because new ones may share a core until the system has spread them out.
fn together(threads: usize, runs: usize, f: impl Fn(usize) + Sync) -> Duration {
    let (barrier, slowest) = (Barrier::new(threads), Mutex::new(vec![Duration::ZERO; runs]));
    std::thread::scope(|s| {
        for thread in 0..threads {
            let (barrier, slowest, f) = (&barrier, &slowest, &f);
            s.spawn(move || {
                for run in 0..runs {
                    barrier.wait();
                    let start = Instant::now();
                    f(thread);
                    let time = start.elapsed();
                    let mut slowest = slowest.lock().expect("no measuring thread panicked");
                    slowest[run] = slowest[run].max(time);
                }
            });
        }
    });
    slowest.into_inner().expect("no measuring thread panicked").into_iter().min().unwrap_or_default()
}

/// What the CPU calls itself.
pub fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().into())
}

/// Bytes of a core's second cache; half a megabyte where the system does not say.
pub fn l2_bytes() -> usize {
    let size = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").unwrap_or_default();
    size.trim().strip_suffix('K').and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(512) << 10
}
