//! Inspection of a mailbox, for the watchdog and for metrics.

use super::state::{EventSource, Mailbox};
use crate::stream::{BackfillId, Stream};
use std::sync::Arc;
use vbstore_engine::CursorGuard;

/// The state of a stream, for the watchdog and for metrics.
#[derive(Debug)]
pub(crate) struct StreamSummary {
    pub(crate) stream: Arc<Stream>,
    pub(crate) source: SourceKind,
    /// Whether it has an event that its consumer has not taken, or changes in memory to read.
    pub(crate) has_untaken: bool,
    /// Its cursor, if it reads from memory. Asking for its lag takes the vBucket's lock.
    pub(crate) cursor: Option<Arc<CursorGuard>>,
}

/// Where the next events of a stream come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceKind {
    Disk(BackfillId),
    Memory,
    Paused,
    Ended,
}

impl Mailbox {
    /// Returns whether any stream has something that the consumer has not taken.
    pub(crate) fn has_untaken(&self) -> bool {
        let state = self.state.lock();
        let current = self.current.lock().is_some();
        current || !state.ready.is_empty() || !state.memory.is_empty()
    }

    /// Returns the state of all streams.
    pub(crate) fn inspect(&self) -> Vec<StreamSummary> {
        let state = self.state.lock();
        let current = self.current.lock();
        let current_stream = current.as_ref().map(|batch| batch.stream.id);
        drop(current);
        let entries = state.streams.iter();
        entries
            .map(|(id, entry)| StreamSummary {
                stream: Arc::clone(&entry.stream),
                source: match &entry.source {
                    EventSource::Disk(backfill) => SourceKind::Disk(*backfill),
                    EventSource::Memory(_) => SourceKind::Memory,
                    EventSource::Paused => SourceKind::Paused,
                    EventSource::Ended(_) => SourceKind::Ended,
                },
                has_untaken: entry.is_ready
                    || entry.is_in_memory_turn
                    || current_stream == Some(*id),
                cursor: match &entry.source {
                    EventSource::Memory(Some(tail)) => Some(Arc::clone(&tail.cursor)),
                    _ => None,
                },
            })
            .collect()
    }
}
