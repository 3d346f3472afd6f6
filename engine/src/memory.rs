//! How much memory the checkpoints of all vBuckets take, and what writes have reserved of the rest.
//!
//! # Protocol
//! A write reserves room before its work, holding no lock, and settles the reservation to what it has
//! appended under the vBucket's lock; a write that is refused gives it back. So the sum never exceeds
//! the quota, whatever the threads, except by one write that is larger than the quota: it passes while
//! the sum is at or below the quota, and nobody else until it is below again.
//!
//! Who finds no room flushes and frees memory ([`crate::commit`]). If that frees nothing, room can only
//! come from reservations that are under way: [`Memory::wait_for_release`] waits for one to end. ORDER:
//! the end of a reservation is counted first, the reservation taken off second, and waiters are looked
//! for third; a waiter registers first and looks second. So whoever finds nothing reserved has seen the
//! ends of all, and no wake-up is lost.

use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use vbstore_core::{Clock, SystemClock};

/// Bytes of all checkpoints and of what is reserved for them.
pub(crate) struct Memory {
    used: AtomicU64,
    /// The part of `used` that is reserved and not settled.
    reserved: AtomicU64,
    /// Counts reservations that have ended.
    releases: AtomicU64,
    waiting: AtomicUsize,
    /// A leaf in the order of locks.
    lock: Mutex<()>,
    released: Condvar,
    /// Waiting is done in real time, whatever clock the engine was given.
    real: SystemClock,
}

/// Room that is reserved. Dropping it gives it back.
#[must_use = "dropping it gives the room back"]
pub(crate) struct Room {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            used: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            releases: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            lock: Mutex::new(()),
            released: Condvar::new(),
            real: SystemClock::new(),
        }
    }

    /// Returns the bytes of all checkpoints and reservations.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Returns the bytes of all checkpoints alone; `None` if a reservation is under way. For checks of the
    /// count.
    #[cfg(debug_assertions)]
    pub(crate) fn used_by_checkpoints(&self) -> Option<u64> {
        // ORDER: looked at before and after: a reservation that was counted in between is under way still,
        // or has ended since.
        let reservations = || (self.releases(), self.reserved.load(Ordering::SeqCst));
        let before = reservations();
        let used = self.used();
        let is_settled = before.1 == 0 && reservations() == before;
        is_settled.then_some(used)
    }

    /// Returns whether there is room for so many bytes now.
    pub(crate) fn has_room(&self, bytes: u64, quota: u64) -> bool {
        has_room(self.used(), bytes, quota)
    }

    /// Reserves room, if there is any.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64, quota: u64) -> Option<Room> {
        // ORDER: counted as reserved first, so that a waiter that sees the sum without room finds why.
        self.reserved.fetch_add(bytes, Ordering::SeqCst);
        let room = Room {
            memory: Arc::clone(self),
            bytes,
        };
        let taken = self
            .used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                has_room(used, bytes, quota).then(|| used + bytes)
            });
        if taken.is_err() {
            room.withdraw();
            return None;
        }
        Some(room)
    }

    /// Returns how many reservations have ended.
    pub(crate) fn releases(&self) -> u64 {
        self.releases.load(Ordering::SeqCst)
    }

    /// Waits until a reservation has ended after `seen` was read from [`Self::releases`]. Returns false
    /// if none has, because there is none or the time is over. `timeout` is real time. The caller holds
    /// no lock.
    pub(crate) fn wait_for_release(&self, seen: u64, timeout: Option<Duration>) -> bool {
        let deadline = timeout.map(|timeout| self.real.monotonic().saturating_add(timeout));
        let mut held = self.lock.lock();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let has_released = loop {
            let is_idle = self.reserved.load(Ordering::SeqCst) == 0;
            if self.releases() != seen {
                break true;
            }
            if is_idle {
                break false;
            }
            let Some(deadline) = deadline else {
                self.released.wait(&mut held);
                continue;
            };
            let left = deadline.saturating_sub(self.real.monotonic());
            if left.is_zero() {
                break false;
            }
            self.released.wait_for(&mut held, left);
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        has_released
    }

    /// Takes off what was freed. Called under the lock of the vBucket concerned.
    ///
    /// # Panics
    /// When more is freed than was ever added: the count is wrong, and with it the quota.
    pub(crate) fn subtract(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::SeqCst);
        assert!(before >= bytes, "{bytes} bytes freed of {before}");
    }

    /// Ends a reservation of so many bytes, which gave room back or filled what can be flushed.
    fn end_reservation(&self, bytes: u64) {
        self.releases.fetch_add(1, Ordering::SeqCst);
        self.unreserve(bytes);
    }

    fn unreserve(&self, bytes: u64) {
        let before = self.reserved.fetch_sub(bytes, Ordering::SeqCst);
        assert!(before >= bytes, "{bytes} bytes given back of {before}");
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock());
            self.released.notify_all();
        }
    }
}

impl Room {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps so many bytes for what was appended and gives the rest back. Called under the lock of the
    /// vBucket concerned.
    ///
    /// # Panics
    /// When more was appended than was reserved.
    pub(crate) fn settle(mut self, appended: u64) {
        assert!(
            appended <= self.bytes,
            "{appended} bytes appended, {} reserved",
            self.bytes
        );
        self.memory.subtract(self.bytes - appended);
        let bytes = std::mem::take(&mut self.bytes);
        self.memory.end_reservation(bytes);
    }

    /// Ends a reservation that found no room, which changes nothing for others who wait for some.
    fn withdraw(mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.memory.unreserve(bytes);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.memory.subtract(self.bytes);
            self.memory.end_reservation(self.bytes);
        }
    }
}

fn has_room(used: u64, bytes: u64, quota: u64) -> bool {
    let fits = used.checked_add(bytes).is_some_and(|sum| sum <= quota);
    fits || (bytes > quota && used <= quota)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_is_passed_by_one_reservation_that_is_larger_and_by_no_other() {
        let memory = Arc::new(Memory::new());
        let first = memory.reserve(60, 100).unwrap();
        assert!(memory.reserve(41, 100).is_none());
        let second = memory.reserve(40, 100).unwrap();
        assert!(memory.reserve(1, 100).is_none());
        let large = memory.reserve(101, 100).unwrap();
        assert_eq!(memory.used(), 201);
        assert!(memory.reserve(101, 100).is_none());
        assert!(memory.reserve(0, 100).is_none());
        first.settle(50);
        assert_eq!(memory.used(), 191);
        drop((second, large));
        assert_eq!(memory.used(), 50);
        memory.subtract(50);
        assert_eq!(
            (memory.used(), memory.reserved.load(Ordering::SeqCst)),
            (0, 0)
        );
    }

    #[test]
    fn a_waiter_is_told_of_each_end_and_never_waits_for_none() {
        let memory = Arc::new(Memory::new());
        let seen = memory.releases();
        assert!(!memory.wait_for_release(seen, None), "nothing is reserved");
        let room = memory.reserve(10, 100).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| memory.wait_for_release(seen, None));
            while memory.waiting.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            drop(room);
            assert!(waits.join().unwrap());
        });
        assert!(memory.wait_for_release(seen, None), "it has ended since");
    }

    #[test]
    #[should_panic(expected = "11 bytes appended, 10 reserved")]
    fn no_more_is_appended_than_was_reserved() {
        let memory = Arc::new(Memory::new());
        memory.reserve(10, 100).unwrap().settle(11);
    }
}
