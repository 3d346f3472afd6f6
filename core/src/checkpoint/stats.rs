//! Metrics of the checkpoints of one vBucket.

use super::{Checkpoints, CursorLag};
use crate::number::u64_from;
use std::time::Duration;

/// The state of the checkpoints of one vBucket, for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckpointStats {
    /// Number of sealed checkpoints in memory.
    pub sealed: u64,
    /// Whether the open checkpoint has changes.
    pub has_open: bool,
    /// Number of changes in memory.
    pub items: u64,
    /// Lag of the persistence cursor: the changes that may not be on disk yet.
    pub unpersisted: Lag,
    /// Number of stream cursors.
    pub cursors: u64,
    /// The worst lag of a stream cursor, for items, bytes and age separately.
    pub worst: Lag,
    /// The lags of all stream cursors, added up in items and bytes; the age is the worst.
    pub backlog: Lag,
}

/// How far something is behind the newest change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    /// Number of changes behind.
    pub items: u64,
    /// Memory of these changes, in bytes.
    pub bytes: u64,
    /// When the oldest of them was appended, on the engine's monotonic clock. `None` if there is
    /// none.
    pub since: Option<Duration>,
}

impl Lag {
    /// Returns the larger count of items and of bytes, and the earlier time.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let since = self.since.into_iter().chain(other.since).min();
        Self {
            items: self.items.max(other.items),
            bytes: self.bytes.max(other.bytes),
            since,
        }
    }

    /// Returns the sum of items and of bytes, and the earlier time.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            items: self.items + other.items,
            bytes: self.bytes + other.bytes,
            ..self.worse(other)
        }
    }
}

impl From<CursorLag> for Lag {
    fn from(lag: CursorLag) -> Self {
        Self {
            items: lag.items,
            bytes: lag.bytes,
            since: lag.since.filter(|_| lag.items > 0),
        }
    }
}

impl Checkpoints {
    /// Returns the state of the checkpoints now. Takes time in proportion to the number of cursors.
    #[must_use]
    pub fn stats(&self) -> CheckpointStats {
        let open = self.open_total();
        let all = self.sealed_total.plus(open);
        let on_disk = self.on_disk();
        let first = self.sealed.partition_point(|sealed| sealed.end <= on_disk);
        let first = self.sealed.get(first);
        let unpersisted = all.minus(first.map_or(self.sealed_total, |sealed| sealed.before));
        let mut oldest = first
            .into_iter()
            .filter_map(|sealed| sealed.entries.first())
            .chain(self.open.entries.values().next());
        let mut stats = CheckpointStats {
            sealed: u64_from(self.sealed.len()),
            has_open: open.items > 0,
            items: all.minus(self.freed_total()).items,
            unpersisted: Lag {
                items: unpersisted.items,
                bytes: unpersisted.bytes,
                since: oldest.next().map(|entry| entry.appended),
            },
            ..CheckpointStats::default()
        };
        for lag in self.lags().map(Lag::from) {
            stats.cursors += 1;
            stats.worst = stats.worst.worse(lag);
            stats.backlog = stats.backlog.plus(lag);
        }
        stats
    }
}
