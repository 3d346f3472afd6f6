//! How streams are doing.

use crate::event::EndReason;
use crate::inbox::Seen;
use crate::stream::StreamState;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use vbstore_core::{RollbackReason, Seqno, VbId};
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
    /// Streams ended.
    pub closed: ByEnd,
    /// Requests answered with a rollback.
    pub rollbacks: ByRollback,
    /// Streams that found their cursor dropped and went back to the disk.
    pub cursor_drops: Counter,
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
    /// From when a backfill could run but for a place or a worker to when it ran, in microseconds.
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

/// How one stream is doing.
#[derive(Clone, Debug)]
pub struct StreamStats {
    /// Its consumer.
    pub consumer: Arc<str>,
    /// Its vBucket.
    pub vb: VbId,
    /// What it is doing.
    pub state: StreamState,
    /// The last seqno its consumer has taken.
    pub taken_seqno: Seqno,
    /// Up to where it has read.
    pub read_seqno: Seqno,
    /// The end it has announced.
    pub announced_seqno: Seqno,
    /// Slices read for it.
    pub slices: u64,
    /// Slices it took that were read for another stream.
    pub shared_slices: u64,
    /// Changes read from disk.
    pub items_from_disk: u64,
    /// Changes read from memory.
    pub items_from_memory: u64,
    /// Times its cursor was dropped.
    pub cursor_drops: u64,
    /// Changes in memory that it has not read; `None` if it is not in memory.
    pub lag_items: Option<u64>,
    /// Their memory, in bytes.
    pub lag_bytes: Option<u64>,
    /// Age of the first of them; zero if there is none.
    pub lag_age: Option<Duration>,
    /// The end of its view runs away faster than it reads.
    pub is_diverging: bool,
    /// Its consumer has taken nothing for the stall limit.
    pub is_stalled: bool,
}

impl StreamStats {
    pub(crate) fn of(consumer: &Arc<str>, seen: &Seen, now: Duration) -> Self {
        let stream = &seen.stream;
        let figures = &stream.figures;
        let number = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let lag = seen.cursor.as_ref().and_then(|cursor| cursor.lag());
        Self {
            consumer: Arc::clone(consumer),
            vb: stream.vb(),
            state: stream.state(),
            taken_seqno: Seqno::new(number(&figures.taken_seqno)),
            read_seqno: Seqno::new(number(&figures.read_seqno)),
            announced_seqno: Seqno::new(number(&figures.announced_seqno)),
            slices: number(&figures.slices),
            shared_slices: number(&figures.shared_slices),
            items_from_disk: number(&figures.items_from_disk),
            items_from_memory: number(&figures.items_from_memory),
            cursor_drops: number(&figures.cursor_drops),
            lag_items: lag.map(|lag| lag.items),
            lag_bytes: lag.map(|lag| lag.bytes),
            lag_age: lag.map(|lag| lag.since.map_or(Duration::ZERO, |s| now.saturating_sub(s))),
            is_diverging: figures.is_diverging.load(Ordering::Acquire),
            is_stalled: figures.is_stalled.load(Ordering::Acquire),
        }
    }
}

/// How the streams of an engine are doing.
#[derive(Clone, Debug, Default)]
pub struct StreamsStats {
    /// Backfills that wait for others to end, and hold nothing.
    pub pending: usize,
    /// Backfills that wait for a worker.
    pub ready: usize,
    /// Backfills of which a slice is being read.
    pub running: usize,
    /// Backfills that wait for room, for a sync or for a boundary.
    pub snoozed: usize,
    /// Bytes in the buffers of all consumers.
    pub buffered_bytes: u64,
    /// Each stream.
    pub streams: Vec<StreamStats>,
}
