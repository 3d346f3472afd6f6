//! Memory accounting: bytes used by the checkpoints of all vBuckets, and bytes reserved by writes.
//!
//! # Protocol
//! A write reserves room before its work, holding no lock. Under the vBucket's lock it settles the
//! reservation to what it has appended. A write that is refused releases its reservation. So the
//! sum never exceeds the quota, except by one write that is larger than the quota. Such a write
//! passes while the sum is at or below the quota, and no other write does until the sum is below it
//! again.
//!
//! A thread that finds no room flushes and frees memory ([`crate::commit`]). If that frees nothing,
//! room can only come from reservations in progress: [`Memory::wait_for_release`] waits for one to
//! end.
//!
//! ORDER: ending a reservation first increments `releases`, then subtracts from `reserved`, then
//! looks for waiters. A waiter first registers and then reads `reserved` before `releases`. So a
//! waiter that finds nothing reserved has seen the ends of all reservations, and no wake-up is
//! lost.

use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use vbstore_core::{Clock, SystemClock};

/// Counts the bytes of all checkpoints, and the bytes reserved for them.
pub(crate) struct Memory {
    used: AtomicU64,
    /// The part of `used` that is reserved and not yet settled.
    reserved: AtomicU64,
    /// The number of reservations that have ended.
    releases: AtomicU64,
    waiting: AtomicUsize,
    /// A leaf in the lock order.
    lock: Mutex<()>,
    released: Condvar,
    /// For time-outs, which are in real time even if the engine was given another clock.
    real_clock: SystemClock,
}

/// Reserved room. Dropping it releases the room.
#[must_use = "dropping it releases the room"]
pub(crate) struct MemoryReservation {
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
            real_clock: SystemClock::new(),
        }
    }

    /// Returns the bytes of all checkpoints and reservations.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Returns the bytes of all checkpoints alone, or `None` if a reservation is in progress. Lets
    /// debug builds compare the count with the checkpoints.
    #[cfg(debug_assertions)]
    pub(crate) fn used_by_checkpoints(&self) -> Option<u64> {
        // ORDER: read the reservations before and after `used`. A reservation counted in between is
        // still in progress, or has ended since, and both show.
        let reservations = || (self.releases(), self.reserved.load(Ordering::SeqCst));
        let before = reservations();
        let used = self.used();
        let is_settled = before.1 == 0 && reservations() == before;
        is_settled.then_some(used)
    }

    /// Returns whether there is room for `bytes` now.
    pub(crate) fn has_room(&self, bytes: u64, quota: u64) -> bool {
        has_room(self.used(), bytes, quota)
    }

    /// Reserves `bytes`, or returns `None` if there is no room.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64, quota: u64) -> Option<MemoryReservation> {
        // ORDER: count the bytes as reserved first. A waiter that finds no room because of them
        // then also finds a reservation to wait for.
        self.reserved.fetch_add(bytes, Ordering::SeqCst);
        let room = MemoryReservation {
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

    /// Returns the number of reservations that have ended. Pass it to [`Self::wait_for_release`].
    pub(crate) fn releases(&self) -> u64 {
        self.releases.load(Ordering::SeqCst)
    }

    /// Blocks until a reservation has ended after `seen` was read from [`Self::releases`]. Returns
    /// false if none has ended, because none is in progress or the time is over. `timeout` is real
    /// time. The caller holds no lock.
    pub(crate) fn wait_for_release(&self, seen: u64, timeout: Option<Duration>) -> bool {
        let deadline = timeout.map(|timeout| self.real_clock.monotonic().saturating_add(timeout));
        let mut held = self.lock.lock();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let has_released = loop {
            // ORDER: read `reserved` first, `releases` second; see the module docs.
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
            let left = deadline.saturating_sub(self.real_clock.monotonic());
            if left.is_zero() {
                break false;
            }
            self.released.wait_for(&mut held, left);
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        has_released
    }

    /// Subtracts freed bytes. Called under the lock of the vBucket that freed them.
    ///
    /// # Panics
    /// When more is freed than was added: then the count, and with it the quota, is wrong.
    pub(crate) fn subtract(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::SeqCst);
        assert!(before >= bytes, "{bytes} bytes freed, {before} in use");
    }

    /// Ends a reservation and counts its end, because a waiter can use it: it either released room,
    /// or filled memory that can be flushed.
    fn end_reservation(&self, bytes: u64) {
        self.releases.fetch_add(1, Ordering::SeqCst);
        self.unreserve(bytes);
    }

    fn unreserve(&self, bytes: u64) {
        let before = self.reserved.fetch_sub(bytes, Ordering::SeqCst);
        assert!(before >= bytes, "{bytes} bytes released, {before} reserved");
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Waits for a thread that has registered but not yet blocked, so that it cannot
            // miss the notification.
            drop(self.lock.lock());
            self.released.notify_all();
        }
    }
}

impl MemoryReservation {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps `appended` bytes for what was appended and releases the rest. Called under the lock of
    /// the vBucket.
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
        // Taken, so that the drop of this room releases nothing.
        let bytes = std::mem::take(&mut self.bytes);
        self.memory.end_reservation(bytes);
    }

    /// Ends a reservation that found no room. Its end is not counted, because it releases no room
    /// that a waiter could use.
    fn withdraw(mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.memory.unreserve(bytes);
    }
}

impl Drop for MemoryReservation {
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
    fn only_one_reservation_larger_than_the_quota_may_exceed_it() {
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
    fn a_waiter_wakes_at_each_end_and_never_waits_without_a_reservation() {
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
