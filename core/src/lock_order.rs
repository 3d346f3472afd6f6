//! The order in which a thread takes locks, checked in builds with debug assertions.
//!
//! Each lock has a [`LockRank`]. A thread that holds a lock takes none of a lower rank, and no second one
//! of the same rank, except that the gate may be passed again inside itself. Two threads that keep to
//! this order cannot wait for each other in a circle.
//!
//! [`RankGuard`] is the token of one lock that is held. It is taken *before* the lock is waited
//! for, so that a wrong order panics where a deadlock would need a second thread at the wrong
//! moment. In builds without debug assertions, and for the model checker, which runs its threads on
//! one, the token is empty and nothing is checked.

use std::marker::PhantomData;

/// The place of a lock in the order, from the one that is taken first to the one that is taken last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockRank {
    /// The lead of the commit queue. A role rather than a lock: who has it flushes, syncs or deletes.
    Lead,
    /// The gate that lends the storage. May be passed again inside itself.
    Gate,
    /// The stripes of the keys of one write, all taken in one step and in ascending order.
    Stripes,
    /// The lock of one vBucket.
    VBucket,
    /// The commit queue. Who holds it looks at what others wait for, which takes leaves.
    Queue,
    /// A lock under which no other is taken.
    Leaf,
}

/// The token of a lock that this thread holds or is about to wait for. Dropping it says that the lock
/// is released. It stays on its thread.
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
        /// How many locks of each rank this thread holds. Has no destructor, so that locks can be
        /// taken while a thread's other locals are destroyed.
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

    /// Returns the highest rank that this thread holds.
    fn highest() -> Option<LockRank> {
        let held = HELD.get();
        let mut held = RANKS.into_iter().zip(held).filter(|(_, count)| *count > 0);
        held.next_back().map(|(rank, _)| rank)
    }

    impl RankGuard {
        /// Says that this thread is about to take a lock.
        ///
        /// # Panics
        /// When the thread holds a lock that must not be held then.
        pub fn take(rank: LockRank) -> Self {
            if let Some(highest) = highest() {
                let is_nested_gate = rank == LockRank::Gate && highest == LockRank::Gate;
                assert!(
                    highest < rank || is_nested_gate,
                    "lock order: {rank:?} is taken while {highest:?} is held"
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

    /// Checks that this thread holds no lock: it is about to wait, or to run a program's code.
    ///
    /// # Panics
    /// When the thread holds a lock.
    #[track_caller]
    pub fn assert_none_held() {
        let highest = highest();
        assert!(
            highest.is_none(),
            "lock order: {highest:?} is held where no lock may be"
        );
    }
}

#[cfg(not(all(debug_assertions, not(feature = "shuttle"))))]
mod unchecked {
    use super::{LockRank, RankGuard};
    use std::marker::PhantomData;

    impl RankGuard {
        /// Says that this thread is about to take a lock.
        #[inline]
        pub fn take(_: LockRank) -> Self {
            Self {
                stays_on_thread: PhantomData,
            }
        }
    }

    /// Checks nothing in this build.
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
