//! Counting open db snapshots: RocksDB read views, which pin disk space while they are open.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// On whose behalf a db snapshot is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// A slice of a vBucket in seqno order.
    Slice,
    /// A page of keys in key order.
    Page,
    /// Administration: recovery of a read that raced with writes, and verification.
    Admin,
}

impl Holder {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Slice, Self::Page, Self::Admin];

    /// Returns the name used as a label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slice => "slice",
            Self::Page => "page",
            Self::Admin => "admin",
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, (Holder, Duration)>,
}

/// The db snapshots of one engine. All times are of the engine's monotonic clock.
#[derive(Debug, Default)]
pub struct DbSnapshots {
    table: Mutex<Table>,
    opened: AtomicU64,
    longest_hold_micros: AtomicU64,
}

impl DbSnapshots {
    /// Counts a db snapshot as open until the guard is dropped. The guard is made before the db
    /// snapshot is taken and dropped after it is given back, so that the count is never too low.
    pub fn open(self: &Arc<Self>, holder: Holder, clock: ClockFn) -> DbSnapshotGuard {
        let since = clock();
        let mut table = self.table.lock();
        let id = table.next;
        table.next = table.next.saturating_add(1);
        table.open.insert(id, (holder, since));
        self.opened.fetch_add(1, Ordering::Relaxed);
        drop(table);
        DbSnapshotGuard {
            snapshots: Arc::clone(self),
            id,
            clock,
        }
    }

    /// Returns how many are open.
    #[must_use]
    pub fn open_now(&self) -> usize {
        self.table.lock().open.len()
    }

    /// Returns how many this holder has open.
    #[must_use]
    pub fn open_by(&self, holder: Holder) -> usize {
        self.table
            .lock()
            .open
            .values()
            .filter(|(by, _)| *by == holder)
            .count()
    }

    /// Returns how many have been opened.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Returns the age of the oldest open one at `now`, or `None` if none is open.
    #[must_use]
    pub fn oldest_age(&self, now: Duration) -> Option<Duration> {
        // Ids rise with time, so the first is the oldest.
        self.table
            .lock()
            .open
            .values()
            .next()
            .map(|(_, since)| now.saturating_sub(*since))
    }

    /// Returns the longest time that one was held, over all that are closed.
    #[must_use]
    pub fn longest_hold(&self) -> Duration {
        Duration::from_micros(self.longest_hold_micros.load(Ordering::Relaxed))
    }
}

/// Reads the engine's monotonic clock.
pub type ClockFn = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Counts one db snapshot as open while it lives.
#[must_use]
pub struct DbSnapshotGuard {
    snapshots: Arc<DbSnapshots>,
    id: u64,
    clock: ClockFn,
}

impl std::fmt::Debug for DbSnapshotGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DbSnapshotGuard")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Drop for DbSnapshotGuard {
    fn drop(&mut self) {
        let closed = self.snapshots.table.lock().open.remove(&self.id);
        if let Some((_, since)) = closed {
            let held = (self.clock)().saturating_sub(since).as_micros();
            let held = u64::try_from(held).unwrap_or(u64::MAX);
            self.snapshots
                .longest_hold_micros
                .fetch_max(held, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_counts_until_it_is_dropped() {
        let now = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&now);
        let clock: ClockFn = Arc::new(move || Duration::from_micros(read.load(Ordering::SeqCst)));
        let snapshots = Arc::new(DbSnapshots::default());

        let first = snapshots.open(Holder::Slice, Arc::clone(&clock));
        now.store(7, Ordering::SeqCst);
        let second = snapshots.open(Holder::Admin, Arc::clone(&clock));
        assert_eq!(
            (snapshots.open_now(), snapshots.open_by(Holder::Slice)),
            (2, 1)
        );
        assert_eq!(
            snapshots.oldest_age(Duration::from_micros(9)),
            Some(Duration::from_micros(9))
        );

        now.store(10, Ordering::SeqCst);
        drop(first);
        assert_eq!(
            snapshots.oldest_age(Duration::from_micros(10)),
            Some(Duration::from_micros(3))
        );
        drop(second);

        assert_eq!((snapshots.open_now(), snapshots.opened()), (0, 2));
        assert_eq!(snapshots.oldest_age(Duration::ZERO), None);
        assert_eq!(snapshots.longest_hold(), Duration::from_micros(10));
    }
}
