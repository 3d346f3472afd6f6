//! Tracks readers: the streams in progress of a vBucket, and what their consumers have taken.
//!
//! What a stream may still need must not be purged from disk. That is decided by what its consumer
//! has *taken*; what was only read, announced or buffered may be lost and read again.
//!
//! # Protocol
//! - [`crate::VbCell::admit`] registers a stream under the vBucket's lock, in the critical section
//!   that compares its position with the purge seqno. Code that purges decides under that lock too:
//!   it reads [`Readers::stats`], and raises the purge seqno before it releases the lock. So a
//!   stream is admitted either before, and the purge spares what it needs, or after, and its
//!   position is compared with the raised purge seqno.
//! - A stream that is paused (its buffers were dropped, and its consumer has not returned) stays
//!   registered: [`crate::VbCell::readmit`] registers nothing.
//! - [`ReaderRegistration`] removes its reader from the list when it is dropped, under the list's
//!   lock alone. It cannot be cloned, so no reader is removed twice; a miscount panics.
//! - The taken seqno only rises within a stream; [`Reader::take`] asserts it. A read without a lock
//!   may return an earlier value, never a later one.
//! - A list belongs to one generation of the vBucket. The next generation begins with a new list;
//!   older guards keep theirs, which is no longer consulted.
//!
//! # Locks
//! The list's lock and that of a [`ConsumerActivity`] are leaves and never held together.
//! [`Readers::stats`] copies a few readers at a time from the list and looks at them without the
//! list's lock. So neither a scrape nor any other look at many readers makes a writer wait. If the
//! caller holds the vBucket's lock, the time under it grows with that vBucket's readers only.

use crate::ids::Seqno;
use crate::lock_order::LockRank;
use crate::sync::{AtomicU64, Mutex, Ordering};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// Number of readers that [`Readers::stats`] copies at a time under the list's lock, which takes
/// some microseconds.
const TURN: usize = 256;

/// The activity of one consumer, over all of its streams. Being idle is a property of the consumer:
/// while it takes events of one stream, its other streams wait their turn.
#[derive(Debug)]
pub struct ConsumerActivity {
    /// Number of everything the consumer has done: events taken, calls that found nothing, paused
    /// streams resumed. Written only by the thread that takes its events, like `moved`.
    acted: AtomicU64,
    /// Number of events taken that moved a position: all except markers.
    moved: AtomicU64,
    idle_check: Mutex<IdleCheck>,
}

/// What the last [`ConsumerActivity::check_idle`] found.
#[derive(Clone, Copy, Debug)]
struct IdleCheck {
    acted: u64,
    /// Whether there was something to take.
    has_events: bool,
    /// When `acted` or `has_events` was last seen to change, on the engine's monotonic clock.
    since: Duration,
}

impl ConsumerActivity {
    /// Returns a taker that has taken nothing at `now`, on the engine's monotonic clock.
    #[must_use]
    pub fn new(now: Duration) -> Arc<Self> {
        let idle_check = IdleCheck {
            acted: 0,
            has_events: false,
            since: now,
        };
        Arc::new(Self {
            acted: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            idle_check: Mutex::new(LockRank::Leaf, idle_check),
        })
    }

    /// Records that the consumer took `events`, of which `moving` moved a position: all except
    /// markers. Called only by the thread that takes the events; takes no lock and reads no clock.
    pub fn take(&self, events: u64, moving: u64) {
        add(&self.acted, events);
        add(&self.moved, moving);
    }

    /// Records that the consumer called and took nothing: it found nothing, or resumed a paused
    /// stream. Called only by the thread that takes the events.
    pub fn act(&self) {
        add(&self.acted, 1);
    }

    /// Returns a number that grows whenever the consumer does something.
    #[must_use]
    pub fn acted(&self) -> u64 {
        self.acted.load(Ordering::Relaxed)
    }

    /// Returns the number of events taken that moved a position.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Checks at `now` whether the consumer did something since the last look. `has_events` tells
    /// whether there is something to take.
    ///
    /// Returns the time since which the consumer has been idle although there is something to take,
    /// or `None` if there is nothing. The reported idle time is never too long, and more exact the
    /// more often this is called.
    pub fn check_idle(&self, now: Duration, has_events: bool) -> Option<Duration> {
        let mut idle_check = self.idle_check.lock();
        let acted = self.acted();
        if idle_check.acted != acted || idle_check.has_events != has_events {
            *idle_check = IdleCheck {
                acted,
                has_events,
                since: now,
            };
        }
        has_events.then_some(idle_check.since)
    }

    /// Returns the time since which the consumer has been idle although there was something to
    /// take, as of the last [`Self::check_idle`]. `None` if there was nothing, or if the consumer
    /// did something since.
    #[must_use]
    pub fn idle_since(&self) -> Option<Duration> {
        let idle_check = *self.idle_check.lock();
        let is_same = idle_check.acted == self.acted();
        (idle_check.has_events && is_same).then_some(idle_check.since)
    }
}

/// Adds to a counter that one thread alone writes, so a load and a store suffice.
fn add(to: &AtomicU64, number: u64) {
    to.store(to.load(Ordering::Relaxed) + number, Ordering::Relaxed);
}

/// A stream in progress, with what its consumer has taken of it. Plain data: keeping it keeps
/// neither the stream nor its vBucket alive.
#[derive(Debug)]
pub struct Reader {
    taken: AtomicU64,
    activity: Arc<ConsumerActivity>,
}

impl Reader {
    /// Returns the seqno up to which the consumer has taken everything.
    #[must_use]
    pub fn taken(&self) -> Seqno {
        Seqno::new(self.taken.load(Ordering::Relaxed))
    }

    /// Records that the consumer has taken everything up to `seqno`. Called only by the thread that
    /// takes its events, so a load and a store suffice.
    ///
    /// # Panics
    /// Panics if it had taken more before.
    pub fn take(&self, seqno: Seqno) {
        let before = self.taken();
        assert!(
            seqno >= before,
            "a reader takes up to seqno {seqno} after {before}"
        );
        self.taken.store(seqno.get(), Ordering::Relaxed);
    }
}

/// The readers of one generation of a vBucket.
#[derive(Debug)]
pub struct Readers {
    list: Mutex<ReaderList>,
}

#[derive(Debug, Default)]
struct ReaderList {
    by_id: BTreeMap<u64, Arc<Reader>>,
    /// The id of the newest reader; never reused.
    last_id: u64,
}

/// A summary of the readers of a vBucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderStats {
    /// Number of readers.
    pub count: u64,
    /// The lowest taken seqno of a reader; `None` if there is no reader.
    pub lowest_taken: Option<Seqno>,
    /// The earliest time since which a consumer has been idle although there was something to take
    /// ([`ConsumerActivity::idle_since`]). `None` if none is idle.
    pub idle_since: Option<Duration>,
}

impl ReaderStats {
    fn add(&mut self, reader: &Reader) {
        let earliest = |a: Option<Duration>, b| a.into_iter().chain(b).min();
        self.count += 1;
        let taken = reader.taken();
        let lowest = self.lowest_taken.map_or(taken, |lowest| lowest.min(taken));
        self.lowest_taken = Some(lowest);
        self.idle_since = earliest(self.idle_since, reader.activity.idle_since());
    }
}

impl Readers {
    /// Returns a list without readers.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            list: Mutex::new(LockRank::Leaf, ReaderList::default()),
        })
    }

    /// Registers a stream whose consumer has taken everything up to `start`. Called by
    /// [`crate::VbCell::admit`] under the vBucket's lock.
    pub(crate) fn register(
        self: &Arc<Self>,
        start: Seqno,
        activity: &Arc<ConsumerActivity>,
    ) -> ReaderRegistration {
        let reader = Arc::new(Reader {
            taken: AtomicU64::new(start.get()),
            activity: Arc::clone(activity),
        });
        let mut list = self.list.lock();
        list.last_id += 1;
        let id = list.last_id;
        list.by_id.insert(id, Arc::clone(&reader));
        drop(list);
        ReaderRegistration {
            readers: Arc::clone(self),
            id,
            reader,
            is_registered: true,
        }
    }

    /// Returns a summary of the readers. While the caller holds the vBucket's lock no reader is
    /// added, so no stream needs anything at or below the lowest taken seqno.
    #[must_use]
    pub fn stats(&self) -> ReaderStats {
        let mut stats = ReaderStats::default();
        let mut after = 0;
        loop {
            // The list's lock is released between turns, so a long list does not block admissions.
            let turn = self.turn(after);
            for (id, reader) in &turn {
                stats.add(reader);
                after = *id;
            }
            if turn.len() < TURN {
                return stats;
            }
        }
    }

    /// Returns the next readers after the id `after`, at most [`TURN`], in the order of
    /// registration.
    fn turn(&self, after: u64) -> Vec<(u64, Arc<Reader>)> {
        let list = self.list.lock();
        let mut turn = Vec::with_capacity(list.by_id.len().min(TURN));
        let next = list.by_id.range((Bound::Excluded(after), Bound::Unbounded));
        turn.extend(
            next.take(TURN)
                .map(|(id, reader)| (*id, Arc::clone(reader))),
        );
        turn
    }
}

/// Keeps a stream registered as a reader until it is dropped. Holds the list, and neither the
/// vBucket nor the stream.
#[must_use = "the stream counts as a reader until the guard is dropped"]
pub struct ReaderRegistration {
    readers: Arc<Readers>,
    id: u64,
    reader: Arc<Reader>,
    is_registered: bool,
}

impl ReaderRegistration {
    /// Returns the reader, on which the consumer records what it has taken.
    #[must_use]
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Leaves the reader in the list for good. For a child process after `fork`: another thread may
    /// have held the list's lock at the fork, and it is never released there.
    pub fn leave_registered(&mut self) {
        self.is_registered = false;
    }
}

impl fmt::Debug for ReaderRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderRegistration")
            .field("taken", &self.reader.taken())
            .finish_non_exhaustive()
    }
}

impl Drop for ReaderRegistration {
    fn drop(&mut self) {
        if !self.is_registered {
            return;
        }
        let removed = self.readers.list.lock().by_id.remove(&self.id);
        assert!(removed.is_some(), "a reader is removed twice");
    }
}

// The model checker's locks work only inside its own tests.
#[cfg(not(feature = "shuttle"))]
#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn register(readers: &Arc<Readers>, taken: u64) -> ReaderRegistration {
        readers.register(Seqno::new(taken), &ConsumerActivity::new(Duration::ZERO))
    }

    fn lowest(readers: &Readers) -> Option<u64> {
        readers.stats().lowest_taken.map(Seqno::get)
    }

    #[test]
    fn the_lowest_taken_follows_what_is_taken_and_who_leaves() {
        let readers = Readers::new();
        assert_eq!(readers.stats(), ReaderStats::default());
        let guards = [7, 3, 9].map(|taken| register(&readers, taken));
        assert_eq!((readers.stats().count, lowest(&readers)), (3, Some(3)));
        guards[1].reader().take(Seqno::new(8));
        assert_eq!(lowest(&readers), Some(7));
        // An event that moves no position, such as a marker.
        guards[1].reader().take(Seqno::new(8));
        let [first, second, third] = guards;
        drop(first);
        assert_eq!((readers.stats().count, lowest(&readers)), (2, Some(8)));
        drop(second);
        assert_eq!((readers.stats().count, lowest(&readers)), (1, Some(9)));
        drop(third);
        assert_eq!(readers.stats(), ReaderStats::default());
    }

    #[test]
    fn as_many_readers_as_there_are_turns_for_are_all_looked_at() {
        for count in [TURN - 1, TURN, TURN + 1, 3 * TURN] {
            let readers = Readers::new();
            // The lowest comes last, in the last turn.
            let guards: Vec<_> = (0..count)
                .map(|n| register(&readers, u64::try_from(count - n).unwrap()))
                .collect();
            let stats = readers.stats();
            assert_eq!(stats.count, u64::try_from(count).unwrap());
            assert_eq!(stats.lowest_taken, Some(Seqno::new(1)));
            drop(guards);
            assert_eq!(readers.stats().count, 0);
        }
    }

    #[test]
    #[should_panic(expected = "a reader takes up to seqno 4 after 5")]
    fn what_was_taken_does_not_go_back() {
        let readers = Readers::new();
        let guard = register(&readers, 5);
        guard.reader().take(Seqno::new(4));
    }

    #[test]
    #[should_panic(expected = "a reader is removed twice")]
    fn a_reader_that_is_taken_out_twice_is_a_fault() {
        let readers = Readers::new();
        let guard = register(&readers, 5);
        readers.list.lock().by_id.clear();
        drop(guard);
    }

    #[test]
    fn what_is_kept_of_a_reader_keeps_it_in_no_list() {
        let readers = Readers::new();
        let guard = register(&readers, 5);
        let kept = Arc::clone(guard.reader());
        drop(guard);
        kept.take(Seqno::new(6));
        assert_eq!(readers.stats(), ReaderStats::default());
        assert_eq!(Arc::strong_count(&readers), 1, "nothing holds the list");
    }

    #[test]
    fn a_taker_is_idle_since_it_was_seen_to_take_last() {
        let activity = ConsumerActivity::new(seconds(1));
        assert_eq!(activity.idle_since(), None, "no look yet");
        // From the first look on only: what was there before it is unknown.
        assert_eq!(activity.check_idle(seconds(5), true), Some(seconds(5)));
        assert_eq!(activity.idle_since(), Some(seconds(5)));
        activity.take(1, 1);
        assert_eq!(activity.idle_since(), None, "it has taken since");
        assert_eq!(activity.check_idle(seconds(6), true), Some(seconds(6)));
        assert_eq!(activity.check_idle(seconds(9), true), Some(seconds(6)));
        // With nothing to take the consumer is not idle, however long.
        assert_eq!(activity.check_idle(seconds(20), false), None);
        assert_eq!(activity.idle_since(), None);
        assert_eq!(activity.check_idle(seconds(30), true), Some(seconds(30)));
        // A consumer that calls is not idle, even if it takes nothing; no position moves.
        assert_eq!((activity.acted(), activity.moved()), (1, 1));
        activity.act();
        assert_eq!((activity.acted(), activity.moved()), (2, 1));
        assert_eq!(activity.idle_since(), None);
        assert_eq!(activity.check_idle(seconds(40), true), Some(seconds(40)));
    }

    #[test]
    fn the_longest_idle_time_of_the_readers_is_returned() {
        let readers = Readers::new();
        let activities = [3, 2].map(|at| ConsumerActivity::new(seconds(at)));
        let guards = [0, 1, 0].map(|of| readers.register(Seqno::ZERO, &activities[of]));
        assert_eq!(readers.stats().idle_since, None);
        activities[0].check_idle(seconds(9), true);
        assert_eq!(readers.stats().idle_since, Some(seconds(9)));
        activities[1].check_idle(seconds(8), true);
        assert_eq!(readers.stats().idle_since, Some(seconds(8)));
        activities[1].take(1, 1);
        assert_eq!(readers.stats().idle_since, Some(seconds(9)));
        drop(guards);
    }
}
