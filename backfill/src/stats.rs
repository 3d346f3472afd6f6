//! How streams are doing.

use crate::delivery::{Seen, SeenSource};
use crate::stream::{StreamState, get};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use vbstore_core::{Seqno, VbId};

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
    /// Times its buffered batches were dropped because its consumer took nothing while others were
    /// short.
    pub pauses: u64,
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
    /// `queued` is what the scheduler says of its backfill, if it has one.
    pub(crate) fn of(
        consumer: &Arc<str>,
        seen: &Seen,
        queued: Option<StreamState>,
        now: Duration,
    ) -> Self {
        let stream = &seen.stream;
        let figures = &stream.figures;
        let lag = seen.cursor.as_ref().and_then(|cursor| cursor.lag());
        Self {
            consumer: Arc::clone(consumer),
            vb: stream.vb,
            state: state_of(seen.source, queued),
            taken_seqno: stream.reader.taken(),
            read_seqno: Seqno::new(get(&figures.read_seqno)),
            announced_seqno: Seqno::new(get(&figures.announced_seqno)),
            slices: get(&figures.slices),
            shared_slices: get(&figures.shared_slices),
            items_from_disk: get(&figures.items_from_disk),
            items_from_memory: get(&figures.items_from_memory),
            cursor_drops: get(&figures.cursor_drops),
            pauses: get(&figures.pauses),
            lag_items: lag.map(|lag| lag.items),
            lag_bytes: lag.map(|lag| lag.bytes),
            lag_age: lag.map(|lag| lag.since.map_or(Duration::ZERO, |s| now.saturating_sub(s))),
            is_diverging: figures.is_diverging.load(Ordering::Acquire),
            is_stalled: figures.is_stalled.load(Ordering::Acquire),
        }
    }
}

/// Returns what a stream is doing. A backfill that the scheduler does not know is on its way into its
/// queues, or has just run for the last time.
pub(crate) fn state_of(source: SeenSource, queued: Option<StreamState>) -> StreamState {
    match source {
        SeenSource::Disk(_) => queued.unwrap_or(StreamState::Running),
        SeenSource::Memory => StreamState::InMemory,
        SeenSource::Paused => StreamState::Paused,
        SeenSource::Ended => StreamState::Ended,
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
