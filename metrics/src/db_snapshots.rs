//! Counting open db snapshots: RocksDB read views, which pin disk space while they are open.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// On whose behalf a db snapshot is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// A slice of a vBucket in seqno order, read for a stream by a worker.
    Backfill,
    /// The same, read by a caller.
    Slice,
    /// A page of keys in key order.
    Page,
    /// Administration: recovery of a read that raced with writes, and verification.
    Admin,
}

impl Holder {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Backfill, Self::Slice, Self::Page, Self::Admin];

    /// Returns the name used as a label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::Slice => "slice",
            Self::Page => "page",
            Self::Admin => "admin",
        }
    }
}

/// Upper bounds of the hold times that are counted apart, in microseconds.
pub const HOLD_BOUNDS_MICROS: [u64; 13] = [
    100, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    5_000_000,
];

/// From here on a hold is listed one by one.
const LONG_HOLD: Duration = Duration::from_millis(20);
/// Long holds that are listed.
const LONG_HOLDS_MAX: usize = 1_000;

/// A db snapshot that was held for more than 20 ms: the default budget of a slice and 10 ms.
#[derive(Clone, Copy, Debug)]
pub struct LongHold {
    /// On whose behalf.
    pub holder: Holder,
    /// For how long.
    pub held: Duration,
    /// How much of that its thread waited for a processor; `None` if that is not measured.
    pub waited: Option<Duration>,
}

/// Returns how long the calling thread has waited for a processor since it began.
pub type WaitedFn = fn() -> Option<Duration>;

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
    /// Holds up to each bound, and above the last.
    holds: [AtomicU64; HOLD_BOUNDS_MICROS.len() + 1],
    long_holds: Mutex<Vec<LongHold>>,
    waited: OnceLock<WaitedFn>,
}

impl DbSnapshots {
    /// Counts a db snapshot as open until the guard is dropped. The guard is made before the db
    /// snapshot is taken and dropped after it is given back, so that the count is never too low.
    pub fn open(self: &Arc<Self>, holder: Holder, clock: ClockFn) -> DbSnapshotGuard {
        let waited = self.waited.get().and_then(|waited| waited());
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
            waited,
        }
    }

    /// From now on listed holds say how long their thread waited for a processor. Costs a call of
    /// `waited` at each opening and closing. Only the first call of this counts.
    pub fn measure_waiting(&self, waited: WaitedFn) {
        let _ = self.waited.set(waited);
    }

    /// Returns how many were held up to each of [`HOLD_BOUNDS_MICROS`] and above the one before it;
    /// the last number is of those above the last bound.
    #[must_use]
    pub fn holds(&self) -> [u64; HOLD_BOUNDS_MICROS.len() + 1] {
        self.holds
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed))
    }

    /// Returns holds of more than 20 ms, at most 1,000 of them.
    #[must_use]
    pub fn long_holds(&self) -> Vec<LongHold> {
        self.long_holds.lock().clone()
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
    waited: Option<Duration>,
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
        if let Some((holder, since)) = closed {
            let held = (self.clock)().saturating_sub(since);
            self.note(holder, held);
        }
    }
}

impl DbSnapshotGuard {
    fn note(&self, holder: Holder, held: Duration) {
        let snapshots = &self.snapshots;
        let micros = u64::try_from(held.as_micros()).unwrap_or(u64::MAX);
        snapshots
            .longest_hold_micros
            .fetch_max(micros, Ordering::Relaxed);
        let bucket = HOLD_BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(count) = snapshots.holds.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if held > LONG_HOLD {
            let now = snapshots.waited.get().and_then(|waited| waited());
            let waited = now
                .zip(self.waited)
                .map(|(now, then)| now.saturating_sub(then));
            let mut long_holds = snapshots.long_holds.lock();
            if long_holds.len() < LONG_HOLDS_MAX {
                long_holds.push(LongHold {
                    holder,
                    held,
                    waited,
                });
            }
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
        assert_eq!(snapshots.holds()[0], 2);
    }
}
