//! The section `predecessors`: what this project's four predecessors published, and the same work here. Theirs ran on other
//! machines, so these are for orientation; where theirs leave something open, what is done here is said.

mod arrays;
mod checkpoints;
mod generation;

use crate::report::Report;

pub fn run(report: &mut Report<'_>) -> Result<(), String> {
    generation::run(report)?;
    arrays::run(report)?;
    checkpoints::run(report)
}

/// The heading of a group, once.
fn heading(report: &mut Report<'_>, headed: &mut bool, text: &str) {
    if !std::mem::replace(headed, true) {
        report.heading(text);
    }
}
