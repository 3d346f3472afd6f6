//! Inspection of a mailbox, for the watchdog and for metrics.

use super::state::{Mailbox, Source};
use crate::stream::{BackfillId, Stream};
use std::sync::Arc;
use vbstore_engine::CursorGuard;

/// The state of a stream, for the watchdog and for metrics.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) stream: Arc<Stream>,
    pub(crate) source: SeenSource,
    /// Whether it has an event that its consumer has not taken, or changes in memory to read.
    pub(crate) has_untaken: bool,
    /// Its cursor, if it reads from memory. Asking for its lag takes the vBucket's lock.
    pub(crate) cursor: Option<Arc<CursorGuard>>,
}

/// Where the next events of a stream come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeenSource {
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
    pub(crate) fn inspect(&self) -> Vec<Seen> {
        let state = self.state.lock();
        let current = self.current.lock();
        let current_stream = current.as_ref().map(|batch| batch.stream.id);
        drop(current);
        let entries = state.streams.iter();
        entries
            .map(|(id, entry)| Seen {
                stream: Arc::clone(&entry.stream),
                source: match &entry.source {
                    Source::Disk(backfill) => SeenSource::Disk(*backfill),
                    Source::Memory(_) => SeenSource::Memory,
                    Source::Paused => SeenSource::Paused,
                    Source::Ended(_) => SeenSource::Ended,
                },
                has_untaken: entry.is_ready
                    || entry.is_in_memory_turn
                    || current_stream == Some(*id),
                cursor: match &entry.source {
                    Source::Memory(Some(tail)) => Some(Arc::clone(&tail.cursor)),
                    _ => None,
                },
            })
            .collect()
    }
}
