//! The table of open db snapshots. A db snapshot is a RocksDB read view; it pins disk space while
//! it is open.

mod sample;

use crate::counter::Counter;
use crate::histogram::{Histogram, micros};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The purpose that a db snapshot is open for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DbSnapshotHolder {
    /// A slice of a vBucket in seqno order, read by a worker for a stream.
    Backfill,
    /// A slice of a vBucket in seqno order, read by the program.
    Slice,
    /// A page of keys in key order.
    Page,
    /// Administration: verification, and the retry of a point read that raced with writes.
    Admin,
}

impl DbSnapshotHolder {
    /// All purposes.
    pub const ALL: [Self; 4] = [Self::Backfill, Self::Slice, Self::Page, Self::Admin];

    /// The names of all purposes.
    pub const NAMES: [&'static str; Self::ALL.len()] = {
        let [backfill, slice, page, admin] = Self::ALL;
        [backfill.name(), slice.name(), page.name(), admin.name()]
    };

    /// Returns the value of the label `holder`.
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

/// Bucket bounds of hold times, in microseconds.
pub const HOLD_BOUNDS_MICROS: [u64; 13] = [
    100, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    5_000_000,
];

/// Holds longer than this are counted as over the limit and logged: ten times the default time
/// budget of a slice.
pub const HOLD_LIMIT: Duration = Duration::from_millis(100);
/// Holds longer than this are listed individually.
const LONG_HOLD: Duration = Duration::from_millis(20);
/// Capacity of the list of long holds.
const LONG_HOLDS_MAX: usize = 1_000;

/// A db snapshot that was held for more than 20 ms, twice the default time budget of a slice.
#[derive(Clone, Copy, Debug)]
pub struct LongHold {
    /// The purpose of the db snapshot.
    pub holder: DbSnapshotHolder,
    /// The time it was held.
    pub held: Duration,
    /// The part of that time for which its thread waited for a processor; `None` if not measured.
    pub waited: Option<Duration>,
}

/// Returns how long the calling thread has waited for a processor since it was started.
pub type WaitedFn = fn() -> Option<Duration>;

#[derive(Debug, Default)]
struct OpenDbSnapshots {
    next: u64,
    open: BTreeMap<u64, (DbSnapshotHolder, Duration)>,
}

/// Counters for one purpose.
#[derive(Debug)]
struct HolderMetrics {
    opened: Counter,
    closed: Counter,
    over_limit: Counter,
    holds: Histogram,
}

impl Default for HolderMetrics {
    fn default() -> Self {
        Self {
            opened: Counter::default(),
            closed: Counter::default(),
            over_limit: Counter::default(),
            holds: Histogram::new(&HOLD_BOUNDS_MICROS),
        }
    }
}

/// The db snapshots of one engine. All times are read from the engine's monotonic clock.
#[derive(Debug, Default)]
pub struct DbSnapshots {
    /// `opened` and `closed` are updated under this lock, so that opened minus closed is the number
    /// of entries for every thread that holds it.
    table: Mutex<OpenDbSnapshots>,
    by_holder: [HolderMetrics; DbSnapshotHolder::ALL.len()],
    longest_hold_micros: AtomicU64,
    long_holds: Mutex<Vec<LongHold>>,
    waited: OnceLock<WaitedFn>,
}

impl DbSnapshots {
    /// Counts a db snapshot as open until the guard is dropped. Create the guard before the db
    /// snapshot and drop it after the db snapshot is released, so that the count is never too low.
    pub fn open(self: &Arc<Self>, holder: DbSnapshotHolder, clock: ClockFn) -> DbSnapshotGuard {
        let waited = self.waited.get().and_then(|waited| waited());
        let since = clock();
        let mut table = self.table.lock();
        let id = table.next;
        table.next += 1;
        table.open.insert(id, (holder, since));
        self.of(holder).opened.add(1);
        drop(table);
        DbSnapshotGuard {
            snapshots: Arc::clone(self),
            id,
            holder,
            since,
            clock,
            waited,
        }
    }

    /// Makes listed holds include the time for which their thread waited for a processor. Costs a
    /// call of `waited` whenever a db snapshot is opened or closed. Only the first call has an
    /// effect.
    pub fn measure_waiting(&self, waited: WaitedFn) {
        let _ = self.waited.set(waited);
    }

    fn of(&self, holder: DbSnapshotHolder) -> &HolderMetrics {
        let [backfill, slice, page, admin] = &self.by_holder;
        match holder {
            DbSnapshotHolder::Backfill => backfill,
            DbSnapshotHolder::Slice => slice,
            DbSnapshotHolder::Page => page,
            DbSnapshotHolder::Admin => admin,
        }
    }

    /// Returns the number of holds in each bucket of [`HOLD_BOUNDS_MICROS`], not cumulative. The
    /// last number counts the holds above the last bound.
    #[must_use]
    pub fn holds(&self) -> [u64; HOLD_BOUNDS_MICROS.len() + 1] {
        let mut sums = [0_u64; HOLD_BOUNDS_MICROS.len() + 1];
        for holder in &self.by_holder {
            for (sum, count) in sums.iter_mut().zip(holder.holds.counts()) {
                *sum += count;
            }
        }
        sums
    }

    /// Lists a hold. If the list is full, replaces the shortest hold if this one is longer.
    fn list(&self, hold: LongHold) {
        let mut long_holds = self.long_holds.lock();
        if long_holds.len() < LONG_HOLDS_MAX {
            long_holds.push(hold);
            return;
        }
        let shortest = long_holds.iter_mut().min_by_key(|listed| listed.held);
        if let Some(shortest) = shortest.filter(|shortest| shortest.held < hold.held) {
            *shortest = hold;
        }
    }

    /// Returns the holds of more than 20 ms, in no particular order. If there were more than 1,000,
    /// returns the longest ones.
    #[must_use]
    pub fn long_holds(&self) -> Vec<LongHold> {
        self.long_holds.lock().clone()
    }

    /// Returns the number of open db snapshots.
    #[must_use]
    pub fn open_now(&self) -> usize {
        self.table.lock().open.len()
    }

    /// Returns the number of open db snapshots with this purpose.
    #[must_use]
    pub fn open_by(&self, holder: DbSnapshotHolder) -> usize {
        self.table
            .lock()
            .open
            .values()
            .filter(|(by, _)| *by == holder)
            .count()
    }

    /// Returns the number of db snapshots opened so far.
    #[must_use]
    pub fn opened(&self) -> u64 {
        let opened = self.by_holder.iter().map(|holder| holder.opened.get());
        opened.sum()
    }

    /// Returns the age of the oldest open db snapshot at `now`, or `None` if none is open.
    #[must_use]
    pub fn oldest_age(&self, now: Duration) -> Option<Duration> {
        // Ids are assigned in the order of opening, so the first entry is the oldest.
        self.table
            .lock()
            .open
            .values()
            .next()
            .map(|(_, since)| now.saturating_sub(*since))
    }

    /// Returns the longest hold of all db snapshots that are closed.
    #[must_use]
    pub fn longest_hold(&self) -> Duration {
        Duration::from_micros(self.longest_hold_micros.load(Ordering::Relaxed))
    }
}

/// Reads the engine's monotonic clock.
pub type ClockFn = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Counts one db snapshot as open until it is dropped.
#[must_use]
pub struct DbSnapshotGuard {
    snapshots: Arc<DbSnapshots>,
    id: u64,
    holder: DbSnapshotHolder,
    since: Duration,
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
        let mut table = self.snapshots.table.lock();
        let was_open = table.open.remove(&self.id).is_some();
        self.snapshots.of(self.holder).closed.add(1);
        drop(table);
        assert!(was_open, "db snapshot {} closed twice", self.id);
        // The clock of a test may go back.
        self.note((self.clock)().saturating_sub(self.since));
    }
}

impl DbSnapshotGuard {
    fn note(&self, held: Duration) {
        let snapshots = &self.snapshots;
        let micros = micros(held);
        snapshots
            .longest_hold_micros
            .fetch_max(micros, Ordering::Relaxed);
        let of = snapshots.of(self.holder);
        of.holds.observe(micros);
        if held > HOLD_LIMIT {
            of.over_limit.add(1);
            tracing::warn!(
                holder = self.holder.name(),
                ?held,
                "a db snapshot was held for more than 100 ms"
            );
        }
        if held > LONG_HOLD {
            let now = snapshots.waited.get().and_then(|waited| waited());
            let waited = now
                .zip(self.waited)
                .map(|(now, then)| now.saturating_sub(then));
            snapshots.list(LongHold {
                holder: self.holder,
                held,
                waited,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;
    use crate::snapshot::MetricsSnapshot;

    #[test]
    #[should_panic(expected = "closed twice")]
    fn a_db_snapshot_is_closed_once() {
        let clock: ClockFn = Arc::new(|| Duration::ZERO);
        let snapshots = Arc::new(DbSnapshots::default());
        let guard = snapshots.open(DbSnapshotHolder::Page, Arc::clone(&clock));
        drop(DbSnapshotGuard {
            snapshots: Arc::clone(&snapshots),
            id: guard.id,
            holder: guard.holder,
            since: guard.since,
            clock,
            waited: None,
        });
        drop(guard);
    }

    #[test]
    fn of_too_many_long_holds_the_longest_are_listed() {
        let snapshots = DbSnapshots::default();
        let most = u64::try_from(LONG_HOLDS_MAX).unwrap();
        for n in 0..2 * most {
            // Short and long ones by turns.
            let millis = if n % 2 == 0 { 21 } else { 100 + n };
            snapshots.list(LongHold {
                holder: DbSnapshotHolder::Backfill,
                held: Duration::from_millis(millis),
                waited: None,
            });
        }
        let listed = snapshots.long_holds();
        assert_eq!(listed.len(), LONG_HOLDS_MAX);
        let limit = Duration::from_millis(100);
        assert!(listed.iter().all(|hold| hold.held > limit));
    }

    #[test]
    fn a_guard_counts_until_it_is_dropped() {
        let now = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&now);
        let clock: ClockFn = Arc::new(move || Duration::from_micros(read.load(Ordering::SeqCst)));
        let snapshots = Arc::new(DbSnapshots::default());

        let first = snapshots.open(DbSnapshotHolder::Slice, Arc::clone(&clock));
        now.store(7, Ordering::SeqCst);
        let second = snapshots.open(DbSnapshotHolder::Admin, Arc::clone(&clock));
        assert_eq!(
            (
                snapshots.open_now(),
                snapshots.open_by(DbSnapshotHolder::Slice)
            ),
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

        let mut sampled = MetricsSnapshot::default();
        snapshots.sample(Duration::from_micros(10), &mut sampled);
        assert_eq!(sampled.sum(&names::DB_SNAPSHOT_HOLD).to_string(), "2");
        assert_eq!(sampled.sum(&names::DB_SNAPSHOTS_CLOSED).to_string(), "2");
        assert_eq!((snapshots.open_now(), snapshots.opened()), (0, 2));
        assert_eq!(snapshots.oldest_age(Duration::ZERO), None);
        assert_eq!(snapshots.longest_hold(), Duration::from_micros(10));
        assert_eq!(snapshots.holds()[0], 2);
    }
}
