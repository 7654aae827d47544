//! The benchmarks: what this machine can do, what our kernels and whole models do of it, and what this project's predecessors
//! published.
//!
//!     cargo bench -- [NAME...] [--quick] [--threads N] [--json FILE] [--dir DIR] [--list]
//!
//! Every row has a name such as `models/gpt2-124m-f32/decode/512`; NAME selects the rows whose name contains it, and `--list`
//! tells all names. `--quick` measures fewer rows, each in less time. Models have real shapes and random weights and are written
//! once to target/bench-models, or to DIR (18 GB for all of them).
//!
//! | section | subject |
//! |---|---|
//! | `limits` | memory and cache bandwidth, peaks of the arithmetic units |
//! | `kernels` | fork-join, products and vector kernels, by instruction set, against their oracles and limits |
//! | `models` | load, first token, memory, prefill, decode, batches, and where the time of a step goes |
//! | `predecessors` | the work that this project's predecessors published figures of |
//!
//! Other programs on the same files, in turns: `benches/peers/speed.py`.
//!
//! Figures are medians of several runs, with their number, unless a row says "best". Limits are measured again before each group
//! of rows, because other guests of the same host change them by the minute.

mod kernels;
mod limits;
mod machine;
mod models;
mod options;
mod predecessors;
mod random;
mod report;
mod timing;
mod weights;

use options::Options;
use report::Report;

fn main() {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("bench: {message}");
            std::process::exit(2);
        }
    };
    if let Err(message) = run(&options) {
        eprintln!("bench: {message}");
        std::process::exit(1);
    }
}

fn run(options: &Options) -> Result<(), String> {
    if let Some(path) = &options.start {
        return models::start::child(path, options);
    }
    let mut report = Report::new(options)?;
    limits::run(&mut report)?;
    kernels::run(&mut report)?;
    models::run(&mut report)?;
    predecessors::run(&mut report)?;
    report.finish()
}
