//! The section `limits`.

use crate::machine::arithmetic::Unit;
use crate::machine::{l2_bytes, memory::Memory};
use crate::report::Report;
use serde_json::json;

pub fn run(report: &mut Report<'_>) -> Result<(), String> {
    let (threads, runs) = (thread_counts(report.options.threads), report.options.pick(20, 6));
    let dram = [1, 4, 8].map(|streams| (streams, format!("limits/dram/{streams}-streams")));
    let l2 = "limits/l2";
    let units: Vec<(Unit, String)> = Unit::available().map(|unit| (unit, format!("limits/{}", unit.row()))).collect();
    let dram: Vec<_> = dram.into_iter().filter(|(_, name)| report.wants(name)).collect();
    let units: Vec<_> = units.into_iter().filter(|(_, name)| report.wants(name)).collect();
    let wants_l2 = report.wants(l2);
    if dram.is_empty() && units.is_empty() && !wants_l2 {
        return Ok(());
    }
    let counts: Vec<String> = threads.iter().map(|n| format!("{n:>8}")).collect();
    report.heading(&format!("limits, the best of {runs} runs; threads: {:>19}", counts.join("")));

    if !dram.is_empty() {
        let memory = Memory::new(report.options.pick(1 << 30, 256 << 20));
        for (streams, name) in &dram {
            let rates: Vec<f64> = threads.iter().map(|&n| memory.bandwidth(n, *streams, runs) / 1e9).collect();
            row(report, name, &format!("memory, {streams} streams a thread, GB/s"), &threads, &rates);
        }
    }
    if wants_l2 {
        // Half of each core's cache, read 200 times over.
        let rate = |n: usize| Memory::new(n * l2_bytes() / 2).repeated(n, 4, 200, runs) / 1e9;
        let rates: Vec<f64> = threads.iter().map(|&n| rate(n)).collect();
        row(report, l2, &format!("L2 ({} KiB a core), GB/s", l2_bytes() >> 10), &threads, &rates);
    }
    for (unit, name) in &units {
        let rates: Vec<f64> = threads.iter().map(|&n| unit.peak(n, runs) / 1e9).collect();
        row(report, name, &format!("{}, Gop/s", unit.name()), &threads, &rates);
    }
    Ok(())
}

fn row(report: &mut Report<'_>, name: &str, what: &str, threads: &[usize], rates: &[f64]) {
    let cells: Vec<String> = rates.iter().map(|rate| format!("{rate:8.1}")).collect();
    let figures: Vec<_> = threads.iter().zip(rates).map(|(n, rate)| json!({"threads": n, "giga_per_s": rate})).collect();
    report.row(name, &format!("{what:45} {}", cells.join("")), figures.into());
}

/// 1, 2, 4, … and `most`.
fn thread_counts(most: usize) -> Vec<usize> {
    std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n < most).chain([most]).collect()
}
