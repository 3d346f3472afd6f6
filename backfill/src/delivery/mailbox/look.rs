//! What the watchdog and the figures see of a mailbox.

use super::state::{Mailbox, Source};
use crate::stream::{BackfillId, Stream};
use std::sync::Arc;
use vbstore_engine::CursorGuard;

/// A stream as the watchdog and the figures see it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) stream: Arc<Stream>,
    pub(crate) source: SeenSource,
    /// Whether there is something to take.
    pub(crate) owes: bool,
    /// Its place in memory. Asking it for its lag takes the vBucket's lock.
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
    /// Returns whether there is something to take.
    pub(crate) fn owes(&self) -> bool {
        let state = self.state.lock();
        let taking = self.taking.lock().is_some();
        taking || !state.ready.is_empty() || !state.memory.is_empty()
    }

    /// Looks at all streams.
    pub(crate) fn look(&self) -> Vec<Seen> {
        let state = self.state.lock();
        let taking = self.taking.lock();
        let taken_of = taking.as_ref().map(|batch| batch.stream.id);
        drop(taking);
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
                owes: entry.is_ready || entry.is_in_memory_turn || taken_of == Some(*id),
                cursor: match &entry.source {
                    Source::Memory(Some(tail)) => Some(Arc::clone(&tail.cursor)),
                    _ => None,
                },
            })
            .collect()
    }
}
