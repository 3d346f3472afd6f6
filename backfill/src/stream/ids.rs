//! Identifiers of consumers, streams and backfills.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Identifies a consumer. Unique among all that the streams of an engine ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConsumerId(u64);

/// Identifies a stream from its opening until its end was taken. Unique among all that the streams
/// of an engine ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(u64);

/// Identifies a backfill. A stream gets a new one each time it falls back to the disk, so that late
/// deliveries of an earlier backfill are recognized and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BackfillId(u64);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}", self.0)
    }
}

/// Generates identifiers for consumers, streams and backfills. Never returns one twice.
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

    /// Returns an identifier for unit tests.
    #[cfg(test)]
    pub(crate) const fn test_consumer(number: u64) -> ConsumerId {
        ConsumerId(number)
    }

    #[cfg(test)]
    pub(crate) const fn test_stream(number: u64) -> StreamId {
        StreamId(number)
    }

    #[cfg(test)]
    pub(crate) const fn test_backfill(number: u64) -> BackfillId {
        BackfillId(number)
    }
}
