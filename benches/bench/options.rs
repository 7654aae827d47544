//! The command line.

use std::path::{Path, PathBuf};

const USAGE: &str = "[NAME...] [--quick] [--threads N] [--json FILE] [--dir DIR] [--list]";

pub struct Options {
    /// Parts of names of rows; none: all.
    names: Vec<String>,
    pub quick: bool,
    /// Only tell the names of the rows.
    pub list: bool,
    pub threads: usize,
    pub json: Option<PathBuf>,
    /// Where the models are.
    pub dir: PathBuf,
    /// This is the process that a measurement of `start` began: the model to load.
    pub start: Option<PathBuf>,
}

impl Options {
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-models");
        let (names, threads) = (Vec::new(), engine::threads::available_cores());
        let mut options = Options { names, quick: false, list: false, threads, json: None, dir, start: None };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--bench" => (), // cargo says this
                "--quick" => options.quick = true,
                "--list" => options.list = true,
                "--threads" => options.threads = value()?.parse().map_err(|e| format!("--threads: {e}"))?,
                "--json" => options.json = Some(value()?.into()),
                "--dir" => options.dir = value()?.into(),
                "--start" => options.start = Some(value()?.into()),
                name if !name.starts_with('-') => options.names.push(name.into()),
                other => return Err(format!("{other} is unknown: {USAGE}")),
            }
        }
        match options.threads {
            0 => Err("--threads: at least 1".into()),
            _ => Ok(options),
        }
    }

    /// Whether the row called `name` was asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part.as_str()))
    }

    /// `full`, or `quick` with --quick.
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}
