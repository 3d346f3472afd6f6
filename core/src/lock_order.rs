//! The order in which a thread takes locks, checked in builds with debug assertions.
//!
//! Each lock has a [`Rank`]. A thread that holds a lock takes none of a lower rank, and no second one
//! of the same rank, except that the gate may be passed again inside itself. Two threads that keep to
//! this order cannot wait for each other in a circle.
//!
//! [`Held`] is the token of one lock that is held. It is taken *before* the lock is waited for, so
//! that a wrong order panics where a deadlock would need a second thread at the wrong moment. In
//! builds without debug assertions, and for the model checker, which runs its threads on one, the
//! token is empty and nothing is checked.

use std::marker::PhantomData;

/// The place of a lock in the order, from the one that is taken first to the one that is taken last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
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
pub struct Held {
    #[cfg(all(debug_assertions, not(feature = "shuttle")))]
    rank: Rank,
    stays_on_thread: PhantomData<*const ()>,
}

#[cfg(all(debug_assertions, not(feature = "shuttle")))]
mod checked {
    use super::{Held, Rank};
    use std::cell::Cell;
    use std::marker::PhantomData;

    const RANKS: [Rank; 6] = [
        Rank::Lead,
        Rank::Gate,
        Rank::Stripes,
        Rank::VBucket,
        Rank::Queue,
        Rank::Leaf,
    ];

    thread_local! {
        /// How many locks of each rank this thread holds. Has no destructor, so that locks can be
        /// taken while a thread's other locals are destroyed.
        static HELD: Cell<[u16; RANKS.len()]> = const { Cell::new([0; RANKS.len()]) };
    }

    fn change(rank: Rank, change: impl FnOnce(u16) -> u16) {
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
    fn highest() -> Option<Rank> {
        let held = HELD.get();
        let mut held = RANKS.into_iter().zip(held).filter(|(_, count)| *count > 0);
        held.next_back().map(|(rank, _)| rank)
    }

    impl Held {
        /// Says that this thread is about to take a lock.
        ///
        /// # Panics
        /// When the thread holds a lock that must not be held then.
        pub fn take(rank: Rank) -> Self {
            if let Some(highest) = highest() {
                let is_nested_gate = rank == Rank::Gate && highest == Rank::Gate;
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

    impl Drop for Held {
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
    use super::{Held, Rank};
    use std::marker::PhantomData;

    impl Held {
        /// Says that this thread is about to take a lock.
        #[inline]
        pub fn take(_: Rank) -> Self {
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
        let _lead = Held::take(Rank::Lead);
        let _gate = Held::take(Rank::Gate);
        let nested = Held::take(Rank::Gate);
        let stripes = Held::take(Rank::Stripes);
        let vbucket = Mutex::new(Rank::VBucket, ());
        let leaf = Mutex::new(Rank::Leaf, ());
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
            (Rank::Gate, Rank::Lead),
            (Rank::VBucket, Rank::Gate),
            (Rank::VBucket, Rank::Stripes),
            (Rank::Leaf, Rank::VBucket),
            (Rank::Leaf, Rank::Queue),
            (Rank::Lead, Rank::Lead),
            (Rank::Stripes, Rank::Stripes),
            (Rank::VBucket, Rank::VBucket),
            (Rank::Leaf, Rank::Leaf),
        ];
        for (first, second) in wrong {
            let _first = Held::take(first);
            let panicked = catch_unwind(|| drop(Held::take(second)));
            assert!(panicked.is_err(), "{second:?} under {first:?} passed");
        }
        assert_none_held();
    }

    #[test]
    fn waiting_with_a_lock_is_caught() {
        let leaf = Mutex::new(Rank::Leaf, ());
        let held = leaf.lock();
        assert!(catch_unwind(assert_none_held).is_err());
        drop(held);
        assert_none_held();
    }
}
