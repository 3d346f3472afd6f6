//! The order in which a thread takes locks, checked in builds with debug assertions.
//!
//! Each lock has a [`LockRank`]. A thread may take only locks of a higher rank than those it holds;
//! the one exception is the gate, which may be entered again inside itself. Threads that keep to
//! this order cannot deadlock on these locks.
//!
//! [`RankGuard`] is the token of one lock. A thread takes it *before* it waits for the lock, so a
//! wrong order panics at once, in a single thread; a deadlock would show only if a second thread
//! came at the wrong moment. In builds without debug assertions the token is empty and nothing is
//! checked. The same holds for the model checker, which runs all its threads on one.

use std::marker::PhantomData;

/// The place of a lock in the order; lower ranks are taken first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockRank {
    /// The flush leader's role in the commit queue. Its holder flushes, syncs or deletes.
    Lead,
    /// The gate that lends out the storage. May be entered again inside itself.
    Gate,
    /// The stripes of the keys of one write, all taken in one step and in ascending order.
    Stripes,
    /// The lock of one vBucket.
    VBucket,
    /// The commit queue. Its holder looks at what other threads wait for, which takes leaf locks.
    Queue,
    /// A lock under which no other is taken.
    Leaf,
}

/// The token of a lock that this thread holds or is about to wait for. Dropping it marks the lock
/// as released. Not `Send`, because locks are counted for each thread.
#[derive(Debug)]
#[must_use = "the lock counts as released when the token is dropped"]
pub struct RankGuard {
    #[cfg(all(debug_assertions, not(feature = "shuttle")))]
    rank: LockRank,
    stays_on_thread: PhantomData<*const ()>,
}

#[cfg(all(debug_assertions, not(feature = "shuttle")))]
mod checked {
    use super::{LockRank, RankGuard};
    use std::cell::Cell;
    use std::marker::PhantomData;

    const RANKS: [LockRank; 6] = [
        LockRank::Lead,
        LockRank::Gate,
        LockRank::Stripes,
        LockRank::VBucket,
        LockRank::Queue,
        LockRank::Leaf,
    ];

    thread_local! {
        /// The number of locks of each rank that this thread holds. A `Cell` of plain numbers has
        /// no destructor, so locks can be taken while the thread's other locals are destroyed.
        static HELD: Cell<[u16; RANKS.len()]> = const { Cell::new([0; RANKS.len()]) };
    }

    fn change(rank: LockRank, change: impl FnOnce(u16) -> u16) {
        let mut held = HELD.get();
        for (count, of) in held.iter_mut().zip(RANKS) {
            if of == rank {
                *count = change(*count);
                break;
            }
        }
        HELD.set(held);
    }

    /// Returns the highest rank this thread holds, or `None` if it holds no lock.
    fn highest() -> Option<LockRank> {
        let held = HELD.get();
        let mut held = RANKS.into_iter().zip(held).filter(|(_, count)| *count > 0);
        held.next_back().map(|(rank, _)| rank)
    }

    impl RankGuard {
        /// Records that this thread is about to take a lock of `rank`.
        ///
        /// # Panics
        /// Panics if the thread holds a lock of the same or a higher rank. A nested gate is
        /// allowed.
        pub fn take(rank: LockRank) -> Self {
            if let Some(highest) = highest() {
                let is_nested_gate = rank == LockRank::Gate && highest == LockRank::Gate;
                assert!(
                    highest < rank || is_nested_gate,
                    "lock order: {rank:?} taken while {highest:?} is held"
                );
            }
            change(rank, |count| count + 1);
            Self {
                rank,
                stays_on_thread: PhantomData,
            }
        }
    }

    impl Drop for RankGuard {
        fn drop(&mut self) {
            change(self.rank, |count| count - 1);
        }
    }

    /// Asserts that this thread holds no lock. Called before it waits or runs the embedder's code.
    ///
    /// # Panics
    /// Panics if the thread holds a lock.
    #[track_caller]
    pub fn assert_none_held() {
        let highest = highest();
        assert!(
            highest.is_none(),
            "lock order: {highest:?} is held where no lock may be held"
        );
    }
}

#[cfg(not(all(debug_assertions, not(feature = "shuttle"))))]
mod unchecked {
    use super::{LockRank, RankGuard};
    use std::marker::PhantomData;

    impl RankGuard {
        /// Returns an empty token; this build checks nothing.
        #[inline]
        pub fn take(_: LockRank) -> Self {
            Self {
                stays_on_thread: PhantomData,
            }
        }
    }

    /// Does nothing in this build.
    #[inline]
    pub fn assert_none_held() {}
}

#[cfg(all(debug_assertions, not(feature = "shuttle")))]
pub use checked::assert_none_held;
#[cfg(not(all(debug_assertions, not(feature = "shuttle"))))]
pub use unchecked::assert_none_held;

#[cfg(all(test, debug_assertions, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use crate::sync::Mutex;
    use std::panic::catch_unwind;

    #[test]
    fn the_written_order_passes() {
        let _lead = RankGuard::take(LockRank::Lead);
        let _gate = RankGuard::take(LockRank::Gate);
        let nested = RankGuard::take(LockRank::Gate);
        let stripes = RankGuard::take(LockRank::Stripes);
        let vbucket = Mutex::new(LockRank::VBucket, ());
        let leaf = Mutex::new(LockRank::Leaf, ());
        let held = vbucket.lock();
        drop(leaf.lock());
        drop(leaf.lock());
        drop(held);
        drop(nested);
        drop(stripes);
        drop(vbucket.lock());
    }

    #[test]
    fn a_wrong_order_is_caught_before_the_lock_is_waited_for() {
        let wrong = [
            (LockRank::Gate, LockRank::Lead),
            (LockRank::VBucket, LockRank::Gate),
            (LockRank::VBucket, LockRank::Stripes),
            (LockRank::Leaf, LockRank::VBucket),
            (LockRank::Leaf, LockRank::Queue),
            (LockRank::Lead, LockRank::Lead),
            (LockRank::Stripes, LockRank::Stripes),
            (LockRank::VBucket, LockRank::VBucket),
            (LockRank::Leaf, LockRank::Leaf),
        ];
        for (first, second) in wrong {
            let _first = RankGuard::take(first);
            let panicked = catch_unwind(|| drop(RankGuard::take(second)));
            assert!(panicked.is_err(), "{second:?} under {first:?} passed");
        }
        assert_none_held();
    }

    #[test]
    fn waiting_with_a_lock_is_caught() {
        let leaf = Mutex::new(LockRank::Leaf, ());
        let held = leaf.lock();
        assert!(catch_unwind(assert_none_held).is_err());
        drop(held);
        assert_none_held();
    }
}
