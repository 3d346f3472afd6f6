//! What the checkpoints of a vBucket say of themselves.

use super::{Checkpoints, CursorLag};
use crate::number::u64_from;
use std::time::Duration;

/// The state of the checkpoints of one vBucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckpointStats {
    /// Sealed checkpoints.
    pub sealed: u64,
    /// Whether the open one has changes.
    pub has_open: bool,
    /// Changes in all of them.
    pub items: u64,
    /// What may not be on disk yet: how far the persistence cursor lags.
    pub unpersisted: Lag,
    /// Stream cursors.
    pub cursors: u64,
    /// How far the stream cursors lag: the worst of each figure.
    pub worst: Lag,
    /// Their lags in items and bytes, added up.
    pub backlog: Lag,
}

/// How far behind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    /// Changes.
    pub items: u64,
    /// Their memory, in bytes.
    pub bytes: u64,
    /// When the first of them was appended; `None` if there is none.
    pub since: Option<Duration>,
}

impl Lag {
    /// Returns the larger of each figure, and the earlier time.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let since = self.since.into_iter().chain(other.since).min();
        Self {
            items: self.items.max(other.items),
            bytes: self.bytes.max(other.bytes),
            since,
        }
    }

    /// Returns the sum of the figures, and the earlier time.
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
    /// Returns how they are now. Takes time in proportion to the cursors.
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
