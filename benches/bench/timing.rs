//! Repeated timings.

use std::time::{Duration, Instant};

/// Seconds of each run.
#[derive(Clone, Default)]
pub struct Times(Vec<f64>);

impl Times {
    /// `runs` runs of `run`, which may time a part of itself only; no more begin after `budget`.
    pub fn of<E>(runs: usize, budget: Duration, mut run: impl FnMut() -> Result<f64, E>) -> Result<Self, E> {
        let start = Instant::now();
        let mut times = Self::default();
        while times.0.len() < runs && (times.0.is_empty() || start.elapsed() < budget) {
            times.0.push(run()?);
        }
        Ok(times)
    }

    pub fn push(&mut self, seconds: f64) {
        self.0.push(seconds);
    }
    pub fn runs(&self) -> usize {
        self.0.len()
    }
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
    /// The time that this part of the runs are below.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN)
    }
    pub fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }
    /// How far the runs are apart: the largest over the smallest, less one.
    pub fn spread(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max) / self.best() - 1.0
    }
}

/// Seconds that `run` takes.
pub fn seconds<T>(run: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    std::hint::black_box(run());
    start.elapsed().as_secs_f64()
}
