//! How many bytes a consumer may have in its buffer.
//!
//! # Protocol
//! A slice *reserves* what it may read before it reads, so that nothing has to wait while a db
//! snapshot is open; afterwards the reservation is settled to what was read. It goes back when it is
//! dropped: with the buffered slice when the consumer has taken it, or by any other way out.
//!
//! A consumer whose buffer is full stays full until a share of it is drained, so that its streams
//! are not woken for every item. All consumers share one total; each may use its equal share of it,
//! so that none can be starved by others that are frozen. A consumer that has nothing buffered may
//! always read a slice of one item, whatever its size.
//!
//! The lock of an account is taken before that of the total, and neither while anything is called:
//! whoever gave bytes back wakes the scheduler after both are free.

use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// Told when a consumer may read on.
pub(crate) trait OnRoom: Send + Sync {
    /// The consumer with this number, or all if `None`.
    fn room(&self, consumer: Option<u64>);
}

/// Room for a slice that is always worth a db snapshot, in bytes.
const LEAST_MAX: u64 = 64 << 10;

/// The bytes of all consumers.
#[derive(Debug)]
pub(crate) struct Total {
    bytes_max: u64,
    state: Mutex<TotalState>,
}

#[derive(Debug, Default)]
struct TotalState {
    used: u64,
    consumers: u64,
    /// Somebody was refused.
    is_short: bool,
}

impl Total {
    pub(crate) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            state: Mutex::default(),
        })
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub(crate) fn used(&self) -> u64 {
        self.state.lock().used
    }
}

/// The bytes of one consumer.
pub(crate) struct Account {
    consumer: u64,
    bytes_max: u64,
    /// After it was full it is so until it is at or below this.
    resume_at: u64,
    /// With less room than this it is full: a db snapshot for a handful of items is not worth it.
    least: u64,
    state: Mutex<State>,
    total: Arc<Total>,
    on_room: Weak<dyn OnRoom>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("consumer", &self.consumer)
            .field("state", &*self.state.lock())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    is_full: bool,
    /// It is so because of the total.
    is_total_short: bool,
}

impl Account {
    pub(crate) fn new(
        consumer: u64,
        bytes_max: u64,
        drain_percent: u8,
        total: Arc<Total>,
        on_room: Weak<dyn OnRoom>,
    ) -> Arc<Self> {
        total.state.lock().consumers += 1;
        let drained = (bytes_max / 100).saturating_mul(u64::from(drain_percent));
        Arc::new(Self {
            consumer,
            bytes_max,
            resume_at: bytes_max.saturating_sub(drained.max(1)),
            least: (bytes_max / 8).clamp(1, LEAST_MAX),
            state: Mutex::default(),
            total,
            on_room,
        })
    }

    pub(crate) fn used(&self) -> u64 {
        self.state.lock().used
    }

    /// Reserves up to `wanted` bytes, at least one; `None` if there is no room.
    pub(crate) fn reserve(self: &Arc<Self>, wanted: u64) -> Option<Charge> {
        let mut state = self.state.lock();
        if state.is_full {
            return None;
        }
        let mut total = self.total.state.lock();
        let share = self.total.bytes_max / total.consumers.max(1);
        let own = self.bytes_max.min(share).saturating_sub(state.used);
        let left = self.total.bytes_max.saturating_sub(total.used);
        let room = own.min(left);
        if room < self.least && state.used > 0 {
            state.is_full = true;
            state.is_total_short = left < self.least;
            total.is_short |= left < self.least;
            return None;
        }
        // With nothing buffered one item always passes.
        let bytes = wanted.min(room).max(1);
        state.used = state.used.saturating_add(bytes);
        total.used = total.used.saturating_add(bytes);
        drop(total);
        drop(state);
        Some(Charge {
            account: Arc::clone(self),
            bytes,
        })
    }

    /// Looks again, after somebody was put to sleep because of a refusal: bytes of others may have
    /// come back in between. Returns whether a reservation would be refused; if so, what comes back
    /// from now on wakes.
    pub(crate) fn is_still_full(&self) -> bool {
        let mut state = self.state.lock();
        if state.is_full && state.is_total_short {
            let mut total = self.total.state.lock();
            if self.total.bytes_max.saturating_sub(total.used) >= self.least {
                state.is_full = false;
            } else {
                total.is_short = true;
            }
        }
        state.is_full
    }

    fn give_back(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.used = state.used.saturating_sub(bytes);
        let mut total = self.total.state.lock();
        total.used = total.used.saturating_sub(bytes);
        let share = self.total.bytes_max / total.consumers.max(1);
        let has_room = state.used <= self.resume_at.min(share.saturating_sub(1)) || state.used == 0;
        let is_mine = state.is_full && has_room;
        if is_mine {
            state.is_full = false;
        }
        let is_for_all = std::mem::take(&mut total.is_short);
        drop(total);
        drop(state);
        if let Some(on_room) = self.on_room.upgrade() {
            if is_for_all {
                on_room.room(None);
            } else if is_mine {
                on_room.room(Some(self.consumer));
            }
        }
    }

    /// Lets a consumer that was refused because of the total try again.
    pub(crate) fn try_again(&self) {
        self.state.lock().is_full = false;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut total = self.total.state.lock();
        total.consumers = total.consumers.saturating_sub(1);
    }
}

/// Bytes that a consumer uses; dropping it gives them back. Must not be dropped while the lock of
/// the scheduler or of an inbox is held.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    bytes: u64,
}

impl Charge {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Settles the reservation to what is really used, which one large item may make more.
    pub(crate) fn settle(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if let Some(more) = bytes.checked_sub(before) {
            let mut state = self.account.state.lock();
            state.used = state.used.saturating_add(more);
            let mut total = self.account.total.state.lock();
            total.used = total.used.saturating_add(more);
        } else {
            self.account.give_back(before.saturating_sub(bytes));
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<Option<u64>>>);

    impl OnRoom for Told {
        fn room(&self, consumer: Option<u64>) {
            self.0.lock().push(consumer);
        }
    }

    fn account(told: &Arc<Told>, total: &Arc<Total>, n: u64, max: u64, drain: u8) -> Arc<Account> {
        let weak: Weak<Told> = Arc::downgrade(told);
        Account::new(n, max, drain, Arc::clone(total), weak)
    }

    #[test]
    fn a_full_buffer_stays_full_until_a_share_is_drained() {
        let told = Arc::new(Told::default());
        let total = Total::new(1_000_000);
        let account = account(&told, &total, 1, 1_000, 25);
        let mut charges: Vec<Charge> = (0..10).map_while(|_| account.reserve(100)).collect();
        assert_eq!(charges.len(), 9, "the last eighth is not worth a slice");
        charges.first_mut().unwrap().settle(200);
        assert!(account.reserve(1).is_none());
        for _ in 0..2 {
            charges.pop();
            assert!(account.is_still_full(), "200 of 1,000 drained");
        }
        // One byte short of the share.
        charges.last_mut().unwrap().settle(51);
        assert!(account.is_still_full());
        assert!(told.0.lock().is_empty());
        charges.last_mut().unwrap().settle(50);
        assert!(!account.is_still_full());
        assert_eq!(*told.0.lock(), [Some(1)]);
        charges.clear();
        assert_eq!((account.used(), total.used()), (0, 0));
    }

    #[test]
    fn one_item_passes_whatever_its_size_and_drains_at_nothing() {
        let told = Arc::new(Told::default());
        let total = Total::new(10);
        let account = account(&told, &total, 7, 10, 100);
        let mut charge = account.reserve(4_000).unwrap();
        assert_eq!(charge.bytes(), 10);
        charge.settle(5_000);
        assert!(account.reserve(1).is_none());
        drop(charge);
        assert!(!account.is_still_full());
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn frozen_consumers_leave_the_others_their_share() {
        let told = Arc::new(Told::default());
        let total = Total::new(900);
        let frozen = account(&told, &total, 1, 1_000, 25);
        let held = frozen.reserve(1_000).unwrap();
        assert_eq!(held.bytes(), 900);
        let other = account(&told, &total, 2, 1_000, 25);
        let one = other.reserve(1_000).unwrap();
        assert_eq!(one.bytes(), 1, "a slice of one item");
        assert!(other.reserve(1_000).is_none());
        drop(held);
        assert!(told.0.lock().contains(&None), "everybody may try again");
        other.try_again();
        assert_eq!(other.reserve(1_000).unwrap().bytes(), 449);
    }
}
