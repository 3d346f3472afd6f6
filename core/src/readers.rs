//! Readers: the streams in progress of a vBucket, and what their consumers have taken.
//!
//! What a stream may still need must not be removed from disk for good. How far that is goes by what
//! its consumer has *taken*: what was only read, announced or buffered may be lost and read again.
//!
//! # Protocol
//! - A stream is registered by [`crate::VbCell::admit`], under the vBucket's lock, in the critical
//!   section that compares its position with the purge seqno. Code that removes something for good
//!   decides under that lock: it reads [`Readers::stats`], and raises the purge seqno before it
//!   releases the lock. So a stream is admitted either before, and what it needs is seen, or after,
//!   and its position is compared with the raised purge seqno. Nothing comes in between.
//! - A stream that is paused (its buffers were dropped, and its reader has not come back) stays
//!   registered: [`crate::VbCell::readmit`] registers nothing.
//! - [`ReaderRegistration`] takes its reader out of the list when it is dropped, under the list's lock alone.
//!   It cannot be cloned, so nothing is taken out twice; a miscount panics.
//! - What was taken only rises within a stream ([`Reader::take`], which asserts it). A read without a
//!   lock may return less than was taken by then, never more.
//! - A list belongs to one generation of the vBucket. The next one begins with a list of its own;
//!   guards from before stay with theirs, which nobody asks any more.
//!
//! # Locks
//! The list's lock and that of a [`ConsumerActivity`] are leaves, never held together: [`Readers::stats`] copies
//! from the list, some readers at a time, and looks at them without its lock. So neither a scrape nor
//! any other look at many readers makes a writer wait. Under the vBucket's lock it takes as long as
//! that vBucket has readers, and no longer.

use crate::ids::Seqno;
use crate::lock_order::LockRank;
use crate::sync::{AtomicU64, Mutex, Ordering};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// Readers that one turn of [`Readers::stats`] copies under the list's lock: some microseconds.
const TURN: usize = 256;

/// What takes the events of one consumer, over all of its streams. Whether somebody takes is a
/// property of the consumer: as long as it takes events of one stream, the others wait their turn.
#[derive(Debug)]
pub struct ConsumerActivity {
    /// What the reader has ever done: events taken, looks that found nothing, paused streams gone on with.
    /// Written by the reader alone, like the next.
    acted: AtomicU64,
    /// Events taken that moved a position: all but markers.
    moved: AtomicU64,
    idle_check: Mutex<IdleCheck>,
}

/// What the last look found.
#[derive(Clone, Copy, Debug)]
struct IdleCheck {
    acted: u64,
    /// Whether there was something to take.
    has_events: bool,
    /// When one of the two changed.
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

    /// Notes that events were taken, of which `moving` move a position: all but markers. Called by the
    /// consumer's reader alone; takes no lock and looks at no clock.
    pub fn take(&self, events: u64, moving: u64) {
        add(&self.acted, events);
        add(&self.moved, moving);
    }

    /// Notes that the reader came and took nothing: it found nothing, or went on with a paused stream.
    /// Called by the reader alone.
    pub fn act(&self) {
        add(&self.acted, 1);
    }

    /// Returns a number that grows whenever the reader does something.
    #[must_use]
    pub fn acted(&self) -> u64 {
        self.acted.load(Ordering::Relaxed)
    }

    /// Returns how many events were ever taken that moved a position.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Looks at `now` whether the reader did something since the last look. `has_events` is whether there is
    /// something to take. Returns since when the reader has done nothing although there is. The more often
    /// this is called, the more exactly that is known; it is never longer than that.
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

    /// Returns since when the reader has done nothing although there was something to take, as of the last
    /// [`Self::check_idle`]; `None` if it did something after it.
    #[must_use]
    pub fn idle_since(&self) -> Option<Duration> {
        let idle_check = *self.idle_check.lock();
        let is_same = idle_check.acted == self.acted();
        (idle_check.has_events && is_same).then_some(idle_check.since)
    }
}

/// Adds to what one thread alone writes.
fn add(to: &AtomicU64, number: u64) {
    to.store(to.load(Ordering::Relaxed) + number, Ordering::Relaxed);
}

/// A stream in progress: what its consumer has taken of it. Plain data: keeping it keeps neither the
/// stream nor its vBucket.
#[derive(Debug)]
pub struct Reader {
    taken: AtomicU64,
    activity: Arc<ConsumerActivity>,
}

impl Reader {
    /// Returns up to where the consumer has taken everything.
    #[must_use]
    pub fn taken(&self) -> Seqno {
        Seqno::new(self.taken.load(Ordering::Relaxed))
    }

    /// Notes that the consumer has taken everything up to `seqno`. Called by the consumer's reader
    /// alone, so that a load and a store do.
    ///
    /// # Panics
    /// When it had taken more.
    pub fn take(&self, seqno: Seqno) {
        let before = self.taken();
        assert!(seqno >= before, "taken up to {seqno}, and {before} before");
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
    /// Given to the last one that was registered; never given twice.
    last_id: u64,
}

/// What the readers of a vBucket amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderStats {
    /// How many there are.
    pub count: u64,
    /// The least that one of them has taken; `None` if there is none.
    pub lowest_taken: Option<Seqno>,
    /// Since when one of their consumers has taken nothing although there was something to take
    /// ([`ConsumerActivity::idle_since`]), the longest; `None` if all take.
    pub idle_since: Option<Duration>,
}

impl ReaderStats {
    /// Adds what is known of one reader.
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

    /// Registers a stream that has taken everything up to `start`. Called under the vBucket's lock, by
    /// its admission.
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

    /// Returns how many readers there are, and how far they are. Under the vBucket's lock none comes
    /// meanwhile, so that nothing which a stream may need lies at or below the lowest that was taken.
    #[must_use]
    pub fn stats(&self) -> ReaderStats {
        let mut stats = ReaderStats::default();
        let mut after = 0;
        loop {
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

    /// Returns the next readers in the order in which they were registered.
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

/// Keeps a stream registered as a reader until it is dropped. Holds the list and neither the vBucket
/// nor the stream.
#[must_use = "the stream counts as a reader until the guard is dropped"]
pub struct ReaderRegistration {
    readers: Arc<Readers>,
    id: u64,
    reader: Arc<Reader>,
    is_registered: bool,
}

impl ReaderRegistration {
    /// Returns what the consumer notes in what it has taken.
    #[must_use]
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Leaves the reader in the list for good: in a child process another thread may have held the
    /// list's lock for ever.
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
        assert!(removed.is_some(), "a reader is taken out twice");
    }
}

// The model checker's locks work in its own tests only.
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
        // An event that moves nothing, such as a marker.
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
    #[should_panic(expected = "taken up to 4, and 5 before")]
    fn what_was_taken_does_not_go_back() {
        let readers = Readers::new();
        let guard = register(&readers, 5);
        guard.reader().take(Seqno::new(4));
    }

    #[test]
    #[should_panic(expected = "a reader is taken out twice")]
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
        assert_eq!(activity.idle_since(), None, "nobody has looked");
        // There may have been something to take from now on only.
        assert_eq!(activity.check_idle(seconds(5), true), Some(seconds(5)));
        assert_eq!(activity.idle_since(), Some(seconds(5)));
        activity.take(1, 1);
        assert_eq!(activity.idle_since(), None, "it has taken since");
        assert_eq!(activity.check_idle(seconds(6), true), Some(seconds(6)));
        assert_eq!(activity.check_idle(seconds(9), true), Some(seconds(6)));
        // With nothing to take it is not idle, however long.
        assert_eq!(activity.check_idle(seconds(20), false), None);
        assert_eq!(activity.idle_since(), None);
        assert_eq!(activity.check_idle(seconds(30), true), Some(seconds(30)));
        // A reader that comes is not idle, also if it takes nothing; that moves nothing.
        assert_eq!((activity.acted(), activity.moved()), (1, 1));
        activity.act();
        assert_eq!((activity.acted(), activity.moved()), (2, 1));
        assert_eq!(activity.idle_since(), None);
        assert_eq!(activity.check_idle(seconds(40), true), Some(seconds(40)));
    }

    #[test]
    fn the_longest_idle_of_the_readers_is_told() {
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
