//! What all streams of an engine count.

use super::event::EndReason;
use vbstore_core::RollbackReason;
use vbstore_metrics::{Counter, Histogram, ITEMS_BOUNDS};

/// Upper bounds of waits for a worker that are counted apart, in microseconds. Few: their order of
/// magnitude is what matters, and one scrape is to have at most 500 series.
const QUEUE_WAIT_BOUNDS: &[u64] = &[
    100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 60_000_000,
];

/// What all streams of an engine count, since they were started.
#[derive(Debug)]
pub struct StreamCounters {
    /// Streams opened; those that were refused because too many backfills wait are closed again.
    pub opened: Counter,
    /// Streams whose end was taken, or whose consumer is gone.
    pub closed: ByEnd,
    /// Requests answered with a rollback.
    pub rollbacks: ByRollback,
    /// Streams that found their cursor dropped and went back to the disk.
    pub cursor_drops: Counter,
    /// Streams whose buffered batches were dropped because their consumers took nothing while others
    /// were short.
    pub pauses: Counter,
    /// Backfills begun.
    pub backfills_started: Counter,
    /// Backfills over.
    pub backfills_ended: Counter,
    /// Slices.
    pub slices: SliceCounters,
    /// One invocation of a backfill, in microseconds.
    pub slice_micros: Histogram,
    /// Changes in one slice that was read.
    pub slice_items: Histogram,
    /// Time a runnable backfill waited for a place or a worker, in microseconds.
    pub queue_wait_micros: Histogram,
    /// From the beginning of a backfill to its first hand-over, in microseconds.
    pub first_item_micros: Histogram,
    /// From the beginning of a backfill to its end, in microseconds.
    pub duration_micros: Histogram,
    /// How long slices that were not synced waited for it, in microseconds.
    pub sync_wait_micros: Histogram,
    /// Changes from disk that were handed on.
    pub items_from_disk: Counter,
    /// Changes from memory that were handed on.
    pub items_from_memory: Counter,
    /// Bytes of keys and values of the changes from disk.
    pub bytes_from_disk: Counter,
    /// Bytes of keys and values of the changes from memory.
    pub bytes_from_memory: Counter,
    /// Slices whose reading panicked.
    pub panics: Counter,
}

impl Default for StreamCounters {
    fn default() -> Self {
        Self {
            opened: Counter::default(),
            closed: ByEnd::default(),
            rollbacks: ByRollback::default(),
            cursor_drops: Counter::default(),
            pauses: Counter::default(),
            backfills_started: Counter::default(),
            backfills_ended: Counter::default(),
            slices: SliceCounters::default(),
            slice_micros: Histogram::latency(),
            slice_items: Histogram::new(ITEMS_BOUNDS),
            queue_wait_micros: Histogram::new(QUEUE_WAIT_BOUNDS),
            first_item_micros: Histogram::latency(),
            duration_micros: Histogram::latency(),
            sync_wait_micros: Histogram::latency(),
            items_from_disk: Counter::default(),
            items_from_memory: Counter::default(),
            bytes_from_disk: Counter::default(),
            bytes_from_memory: Counter::default(),
            panics: Counter::default(),
        }
    }
}

/// Slices.
#[derive(Debug, Default)]
pub struct SliceCounters {
    /// Read, up to the end of their view.
    pub complete: Counter,
    /// Read, up to their budget.
    pub budget: Counter,
    /// Taken from another stream.
    pub shared: Counter,
}

/// Streams ended, by reason.
#[derive(Debug, Default)]
pub struct ByEnd {
    reached_end: Counter,
    closed: Counter,
    rollback: Counter,
    stalled: Counter,
    vbucket_gone: Counter,
    error: Counter,
    shutdown: Counter,
    /// Never begun: too many backfills wait.
    pub refused: Counter,
}

impl ByEnd {
    /// Returns the counter of a reason.
    #[must_use]
    pub fn of(&self, reason: &EndReason) -> &Counter {
        match reason {
            EndReason::ReachedEnd => &self.reached_end,
            EndReason::Closed => &self.closed,
            EndReason::Rollback { .. } => &self.rollback,
            EndReason::Stalled => &self.stalled,
            EndReason::VbucketGone => &self.vbucket_gone,
            EndReason::Error(_) => &self.error,
            EndReason::Shutdown => &self.shutdown,
        }
    }

    /// Returns all counters with their names.
    #[must_use]
    pub fn all(&self) -> [(&'static str, &Counter); 8] {
        [
            ("reached_end", &self.reached_end),
            ("closed", &self.closed),
            ("rollback", &self.rollback),
            ("stalled", &self.stalled),
            ("vbucket_gone", &self.vbucket_gone),
            ("error", &self.error),
            ("shutdown", &self.shutdown),
            ("refused", &self.refused),
        ]
    }
}

/// Rollbacks answered, by reason: in the order of [`RollbackReason::ALL`].
#[derive(Debug, Default)]
pub struct ByRollback([Counter; RollbackReason::ALL.len()]);

impl ByRollback {
    /// Returns the counters with their reasons.
    pub fn all(&self) -> impl Iterator<Item = (RollbackReason, &Counter)> {
        RollbackReason::ALL.into_iter().zip(&self.0)
    }

    /// Counts one.
    pub fn add(&self, reason: RollbackReason) {
        if let Some((_, counter)) = self.all().find(|(of, _)| *of == reason) {
            counter.add(1);
        }
    }
}
