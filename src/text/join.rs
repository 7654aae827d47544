//! Joining the neighbouring symbols of a word, best join first: the part that all kinds of byte-pair encoding share. A queue of
//! possible joins over a linked list of symbols; the time grows with n log n.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A part of the word. Joining two makes the left one longer and the right one empty. 32 bits, for a long word's speed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    pub(super) start: u32,
    pub(super) end: u32,
    /// What it is in the vocabulary, where the encoder says so.
    pub(super) id: u32,
    /// Neighbours; [`NO_SYMBOL`] at the ends.
    previous: u32,
    next: u32,
}

const NO_SYMBOL: u32 = u32::MAX;

/// A join that was possible when it was queued. The largest priority goes first, then the leftmost.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Join<P> {
    priority: P,
    left: Reverse<u32>,
    end: u32,
    id: u32,
}

/// The symbols of one word and the joins among them; kept from word to word for its memory.
#[derive(Debug)]
pub(super) struct Work<P> {
    symbols: Vec<Symbol>,
    joins: BinaryHeap<Join<P>>,
}

impl<P: Ord> Work<P> {
    pub(super) fn new() -> Self {
        Self { symbols: Vec::new(), joins: BinaryHeap::new() }
    }

    /// Begins a word of `count` symbols, given with their lengths in bytes and their ids.
    pub(super) fn begin(&mut self, count: usize, symbols: impl Iterator<Item = (usize, u32)>) -> Result<()> {
        self.symbols.clear();
        self.joins.clear();
        let memory = count.saturating_mul(size_of::<Symbol>() + 2 * size_of::<Join<P>>());
        let failed = |_| Error::out_of_memory("the text's symbols", memory);
        self.symbols.try_reserve(count).map_err(failed)?;
        // One join for each pair at first; each join made takes one out and puts at most two in.
        self.joins.try_reserve(count.saturating_mul(2)).map_err(failed)?;
        let mut start = 0u32;
        for (at, (length, id)) in (0u32..).zip(symbols.take(count)) {
            let end = u32::try_from(length).ok().and_then(|length| start.checked_add(length)).filter(|end| *end < NO_SYMBOL);
            let end = end.ok_or_else(|| Error::unsupported("a text of 4 GiB cannot be encoded at once"))?;
            self.symbols.push(Symbol { start, end, id, previous: at.wrapping_sub(1), next: at.saturating_add(1) });
            start = end;
        }
        if let Some(last) = self.symbols.last_mut() {
            last.next = NO_SYMBOL;
        }
        Ok(())
    }

    /// Joins until no join is left. `possible` gives a join's priority and what it makes, if two neighbours can be joined.
    pub(super) fn run(&mut self, possible: impl Fn(&Symbol, &Symbol) -> Option<(P, u32)>) {
        for left in 0..self.symbols.len() {
            self.offer(left as u32, &possible);
        }
        while let Some(join) = self.joins.pop() {
            if let Some(previous) = self.apply(&join) {
                self.offer(previous, &possible);
                self.offer(join.left.0, &possible);
            }
        }
    }

    /// The symbols that are left.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.start < symbol.end)
    }

    /// Puts the join of symbol `left` with its right neighbour into the queue, if it is possible.
    fn offer(&mut self, left: u32, possible: &impl Fn(&Symbol, &Symbol) -> Option<(P, u32)>) {
        let Some((first, second)) = self.pair(left) else { return };
        if let Some((priority, id)) = possible(&first, &second) {
            self.joins.push(Join { priority, left: Reverse(left), end: second.end, id });
        }
    }

    /// Symbol `left` and its right neighbour.
    fn pair(&self, left: u32) -> Option<(Symbol, Symbol)> {
        let first = self.symbols.get(left as usize)?;
        Some((*first, *self.symbols.get(first.next as usize)?))
    }

    /// Makes the join and gives the symbol before it; `None` if one of the two symbols has changed since it was queued.
    fn apply(&mut self, join: &Join<P>) -> Option<u32> {
        let left = join.left.0;
        let (first, second) = self.pair(left)?;
        if first.start == first.end || second.end != join.end {
            return None;
        }
        *self.symbols.get_mut(left as usize)? = Symbol { end: second.end, next: second.next, id: join.id, ..first };
        let emptied = self.symbols.get_mut(first.next as usize)?;
        emptied.start = emptied.end;
        if let Some(after) = self.symbols.get_mut(second.next as usize) {
            after.previous = left;
        }
        Some(first.previous)
    }
}
