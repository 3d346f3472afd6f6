//! Statistics of streams, as a program reads them.

use crate::delivery::{SourceKind, StreamSummary};
use crate::stream::{StreamState, get};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use vbstore_core::{Seqno, VbId};

/// The state and the metrics of one stream.
#[derive(Clone, Debug)]
pub struct StreamStats {
    /// The name of its consumer.
    pub consumer: Arc<str>,
    /// The vBucket it follows.
    pub vb: VbId,
    /// Where it reads from, or what it waits for.
    pub state: StreamState,
    /// The last seqno that its consumer has taken.
    pub taken_seqno: Seqno,
    /// The seqno up to which it has read.
    pub read_seqno: Seqno,
    /// The end of the newest snapshot marker: the consumer's copy is complete there.
    pub announced_seqno: Seqno,
    /// Slices read from disk for it.
    pub slices: u64,
    /// Slices it used that were read for another stream.
    pub shared_slices: u64,
    /// Changes read from disk.
    pub items_from_disk: u64,
    /// Changes read from memory.
    pub items_from_memory: u64,
    /// Number of times its cursor was dropped, which sent it back to the disk.
    pub cursor_drops: u64,
    /// Number of times its buffered batches were dropped, because its consumer took nothing while
    /// other consumers were short of buffer space.
    pub pauses: u64,
    /// Cursor lag in changes: those in memory that it has not read yet. `None` if it does not read
    /// from memory.
    pub lag_items: Option<u64>,
    /// Cursor lag in bytes of memory.
    pub lag_bytes: Option<u64>,
    /// Cursor lag in time: the age of the oldest unread change, zero if there is none.
    pub lag_age: Option<Duration>,
    /// Whether its end moves away faster than it reads.
    pub is_diverging: bool,
    /// Whether its consumer has taken nothing for the stall limit.
    pub is_stalled: bool,
}

impl StreamStats {
    /// Collects the statistics of a stream. `queued` is the state of its backfill in the scheduler,
    /// if the scheduler has it.
    pub(crate) fn of(
        consumer: &Arc<str>,
        summary: &StreamSummary,
        queued: Option<StreamState>,
        now: Duration,
    ) -> Self {
        let stream = &summary.stream;
        let metrics = &stream.metrics;
        let lag = summary.cursor.as_ref().and_then(|cursor| cursor.lag());
        Self {
            consumer: Arc::clone(consumer),
            vb: stream.vb,
            state: state_of(summary.source, queued),
            taken_seqno: stream.reader.taken(),
            read_seqno: Seqno::new(get(&metrics.read_seqno)),
            announced_seqno: Seqno::new(get(&metrics.announced_seqno)),
            slices: get(&metrics.slices),
            shared_slices: get(&metrics.shared_slices),
            items_from_disk: get(&metrics.items_from_disk),
            items_from_memory: get(&metrics.items_from_memory),
            cursor_drops: get(&metrics.cursor_drops),
            pauses: get(&metrics.pauses),
            lag_items: lag.map(|lag| lag.items),
            lag_bytes: lag.map(|lag| lag.bytes),
            lag_age: lag.map(|lag| lag.since.map_or(Duration::ZERO, |s| now.saturating_sub(s))),
            is_diverging: metrics.is_diverging.load(Ordering::Acquire),
            is_stalled: metrics.is_stalled.load(Ordering::Acquire),
        }
    }
}

/// Returns the state of a stream. If the scheduler does not know a backfill, the backfill is about
/// to be submitted, or has just run for the last time. Both count as running.
pub(crate) fn state_of(source: SourceKind, queued: Option<StreamState>) -> StreamState {
    match source {
        SourceKind::Disk(_) => queued.unwrap_or(StreamState::Running),
        SourceKind::Memory => StreamState::InMemory,
        SourceKind::Paused => StreamState::Paused,
        SourceKind::Ended => StreamState::Ended,
    }
}

/// The state of all streams of an engine.
#[derive(Clone, Debug, Default)]
pub struct StreamsStats {
    /// Backfills that wait for others to end. They hold no resources.
    pub pending: usize,
    /// Backfills that wait for a worker.
    pub ready: usize,
    /// Backfills that a worker runs now.
    pub running: usize,
    /// Backfills that wait for buffer room, for a sync or for a boundary.
    pub snoozed: usize,
    /// Bytes buffered for all consumers.
    pub buffered_bytes: u64,
    /// The statistics of each stream.
    pub streams: Vec<StreamStats>,
}
