//! What was measured: lines for a person as it goes, and all of it as JSON at the end.

use crate::machine;
use crate::options::Options;
use engine::kernels::Kernels;
use serde_json::{Value, json};

pub struct Report<'a> {
    pub options: &'a Options,
    machine: Value,
    rows: Vec<Value>,
}

impl<'a> Report<'a> {
    pub fn new(options: &'a Options) -> Result<Self, String> {
        let isa = Kernels::select(None).map_err(|e| e.to_string())?.isa().name();
        let (cpu, threads) = (machine::cpu_name(), options.threads);
        let version = env!("CARGO_PKG_VERSION");
        if !options.list {
            println!("engine {version}, {threads} threads, {isa}, {cpu}");
        }
        let machine = json!({"cpu": cpu, "l2_bytes": machine::l2_bytes(), "threads": threads, "isa": isa, "engine": version});
        Ok(Self { options, machine, rows: Vec::new() })
    }

    /// Whether the row called `name` is to be measured now; with --list, tells it instead.
    pub fn wants(&self, name: &str) -> bool {
        let wanted = self.options.wants(name);
        if wanted && self.options.list {
            println!("{name}");
        }
        wanted && !self.options.list
    }

    /// The heading of a group of rows.
    pub fn heading(&self, text: &str) {
        println!("\n{text}");
    }

    /// A line that is no row.
    pub fn remark(&self, line: &str) {
        println!("  {line}");
    }

    /// A row: its line, and its figures.
    pub fn row(&mut self, name: &str, line: &str, figures: Value) {
        println!("  {line}");
        self.rows.push(json!({"row": name, "figures": figures}));
    }

    /// Writes the JSON file, if one was asked for.
    pub fn finish(self) -> Result<(), String> {
        let Some(path) = &self.options.json else { return Ok(()) };
        let all = json!({"machine": self.machine, "quick": self.options.quick, "rows": self.rows});
        std::fs::write(path, format!("{all:#}\n")).map_err(|e| format!("{}: {e}", path.display()))
    }
}
