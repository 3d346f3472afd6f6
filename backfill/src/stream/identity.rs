//! What identifies a stream, and what it was asked for: plain data, shared by all that work for it.

use super::figures::Figures;
use super::request::StreamOptions;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vbstore_core::{Reader, Seqno, VbId};

/// Identifies a consumer among all that the streams of an engine ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConsumerId(u64);

/// Identifies a stream among all that the streams of an engine ever had: one that was opened, until
/// its end was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(u64);

/// Identifies a backfill. A stream that falls back to the disk gets another one each time, so that
/// what an earlier one still delivers is not taken for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BackfillId(u64);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}", self.0)
    }
}

/// Gives out identities, none twice.
#[derive(Debug, Default)]
pub(crate) struct Ids(AtomicU64);

impl Ids {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn consumer(&self) -> ConsumerId {
        ConsumerId(self.next())
    }

    pub(crate) fn stream(&self) -> StreamId {
        StreamId(self.next())
    }

    pub(crate) fn backfill(&self) -> BackfillId {
        BackfillId(self.next())
    }

    /// Returns identities of unit tests.
    #[cfg(test)]
    pub(crate) const fn test_consumer(number: u64) -> ConsumerId {
        ConsumerId(number)
    }

    #[cfg(test)]
    pub(crate) const fn test_backfill(number: u64) -> BackfillId {
        BackfillId(number)
    }
}

/// One stream. Holds neither the engine nor its consumer, so that a batch that the program keeps holds
/// neither.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) consumer: ConsumerId,
    pub(crate) vb: VbId,
    /// Which life of the vBucket it is of.
    pub(crate) generation: u64,
    pub(crate) options: StreamOptions,
    /// The end that was asked for.
    pub(crate) end: Seqno,
    /// What its consumer has taken, as its vBucket knows it. What keeps it registered there is in the
    /// mailbox.
    pub(crate) reader: Arc<Reader>,
    pub(crate) figures: Figures,
}
