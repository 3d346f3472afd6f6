//! The counts and violations that the threads of a stress run collect.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Violations that are described; further ones are only counted.
const EXAMPLES_MAX: usize = 20;

/// The operations of the writers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DriverCounts {
    /// Calls that write.
    pub(super) writes: u64,
    /// Changes that were made: acknowledged, or refused but found in the store.
    pub(super) changes: u64,
    pub(super) gets: u64,
    pub(super) pages: u64,
    /// Writes refused because the disk was full.
    pub(super) refused: u64,
}

impl DriverCounts {
    pub(super) fn add(&mut self, other: Self) {
        self.writes += other.writes;
        self.changes += other.changes;
        self.gets += other.gets;
        self.pages += other.pages;
        self.refused += other.refused;
    }
}

/// The counts and violations of one thread, or of all.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) operations: BTreeMap<&'static str, Histogram<u64>>,
    pub(super) violations: u64,
    pub(super) examples: Vec<String>,
    pub(super) slices: u64,
    pub(super) slice_items: u64,
    pub(super) done: DriverCounts,
}

impl Findings {
    /// Counts an operation and how long it took.
    pub(super) fn count(&mut self, kind: &'static str, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        if !self.operations.contains_key(kind) {
            // Three digits from a microsecond to an hour: valid bounds, so this does not fail.
            if let Ok(histogram) = Histogram::new_with_bounds(1, 3_600_000_000, 3) {
                self.operations.insert(kind, histogram);
            }
        }
        if let Some(histogram) = self.operations.get_mut(kind) {
            histogram.saturating_record(micros);
        }
    }

    /// Records something that must never happen.
    pub(super) fn violation(&mut self, what: String) {
        self.violations += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what);
        }
    }

    /// Adds the findings of another thread.
    pub(super) fn add(&mut self, other: Self) {
        for (kind, histogram) in other.operations {
            match self.operations.get_mut(kind) {
                Some(mine) => {
                    let added = mine.add(histogram);
                    debug_assert!(added.is_ok(), "histograms of the same bounds");
                }
                None => drop(self.operations.insert(kind, histogram)),
            }
        }
        self.violations += other.violations;
        self.slices += other.slices;
        self.slice_items += other.slice_items;
        self.done.add(other.done);
        let room = EXAMPLES_MAX - self.examples.len();
        self.examples.extend(other.examples.into_iter().take(room));
    }

    /// Returns how many operations the writers did.
    pub(super) fn operation_count(&self) -> u64 {
        let of_writers = self.operations.iter().filter(|(kind, _)| **kind != "slice");
        of_writers.map(|(_, histogram)| histogram.len()).sum()
    }

    /// Returns counts and latencies by kind, in microseconds.
    pub(super) fn latencies(&self) -> Value {
        let of = |histogram: &Histogram<u64>| {
            json!({
                "count": histogram.len(),
                "p50_us": histogram.value_at_quantile(0.5),
                "p99_us": histogram.value_at_quantile(0.99),
                "p999_us": histogram.value_at_quantile(0.999),
                "max_us": histogram.max(),
            })
        };
        self.operations
            .iter()
            .map(|(kind, h)| ((*kind).to_owned(), of(h)))
            .collect()
    }
}
