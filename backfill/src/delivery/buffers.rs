//! How many bytes consumers may have buffered: read and not taken yet.
//!
//! A slice *reserves* what it may read before it reads, so that nothing has to wait while a db
//! snapshot is open; afterwards the reservation is settled to what was read. What a [`Charge`] holds
//! is released when it is dropped: with the batch when the consumer has taken it, or by any other way
//! out. What is read from memory is charged as well.
//!
//! # Rules
//! - A consumer may buffer up to its own limit. Once full, it stays full until a share of that is
//!   drained, so that its streams are not woken for every item.
//! - All consumers share one total. A consumer may use its equal share of it, counted over those that
//!   have something buffered.
//! - *A consumer that takes nothing costs nothing for long.* Until its reader has come, slices are read
//!   ahead for a consumer only while the total has room for them: it asks nobody to make room. When
//!   the total is short for a consumer that takes, the batches of those that have taken nothing for a
//!   while are dropped (see `watchdog`): they are read again when their readers come back.
//! - A consumer with nothing buffered may always read one item, however large; the limits are exceeded
//!   by one such item at most.
//!
//! # Locks
//! One lock for all accounts, a leaf. [`OnRoom::room`] is called without it, and takes the lock of the
//! scheduler: so a charge must not be dropped while that lock, or a mailbox's, is held.

use crate::stream::ConsumerId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

/// Wakes what waits for room.
pub(crate) trait OnRoom: Send + Sync {
    /// These consumers may have room now.
    fn room(&self, consumers: &[ConsumerId]);
}

/// Room that is worth a db snapshot, in bytes: with less a consumer counts as full.
const WORTHWHILE_MAX: u64 = 64 << 10;

/// Why a reservation is refused. What it waits for wakes its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The consumer's buffer is full; or the total is, and its reader has not come yet.
    Full,
    /// The total is used up by others.
    Short,
}

/// The buffers of all consumers.
pub(crate) struct Buffers {
    bytes_max: u64,
    state: Mutex<State>,
    on_room: Weak<dyn OnRoom>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    /// Consumers with something buffered.
    holders: u64,
    accounts: BTreeMap<ConsumerId, Account>,
    /// Consumers that were refused because the total was short, and take.
    short: BTreeSet<ConsumerId>,
}

#[derive(Debug)]
struct Account {
    bytes_max: u64,
    /// Once full, stays full until usage falls to this.
    resume_at: u64,
    /// With less room than this it is full: a db snapshot for a handful of items is not worth it.
    worthwhile: u64,
    used: u64,
    is_full: bool,
    /// Its reader has come since it was made, or since its batches were last dropped.
    is_awake: bool,
    /// The consumer was dropped. Its account stays until all charges are released.
    is_gone: bool,
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffers")
            .field("bytes_max", &self.bytes_max)
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

impl Buffers {
    pub(crate) fn new(bytes_max: u64, on_room: Weak<dyn OnRoom>) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            state: Mutex::default(),
            on_room,
        })
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub(crate) fn used(&self) -> u64 {
        self.state.lock().used
    }

    /// Returns the bytes of one consumer.
    pub(crate) fn used_by(&self, consumer: ConsumerId) -> u64 {
        let state = self.state.lock();
        state.accounts.get(&consumer).map_or(0, |a| a.used)
    }

    /// Adds a consumer. `drain_percent` is at most 100.
    pub(crate) fn add_consumer(&self, consumer: ConsumerId, bytes_max: u64, drain_percent: u8) {
        let drained = u128::from(bytes_max) * u128::from(drain_percent) / 100;
        // At most `bytes_max`.
        let drained = u64::try_from(drained).unwrap_or(bytes_max).max(1);
        let worthwhile = (bytes_max.min(self.bytes_max) / 8).clamp(1, WORTHWHILE_MAX);
        let account = Account {
            bytes_max,
            resume_at: bytes_max - drained,
            worthwhile,
            used: 0,
            is_full: false,
            is_awake: false,
            is_gone: false,
        };
        let before = self.state.lock().accounts.insert(consumer, account);
        assert!(before.is_none(), "a consumer is added twice");
    }

    /// Removes a consumer. What it has buffered counts until it is dropped.
    pub(crate) fn remove_consumer(&self, consumer: ConsumerId) {
        let mut state = self.state.lock();
        state.short.remove(&consumer);
        state.account(consumer).is_gone = true;
        state.forget_if_gone(consumer);
    }

    /// Notes that the reader of a consumer has come. Wakes its streams if they waited for that: to read
    /// on, or to ask others for room.
    pub(crate) fn wake_up(&self, consumer: ConsumerId) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.account(consumer).is_awake, true) {
            return;
        }
        let waits_for_drain = state.room(self.bytes_max, consumer) == Err(Refused::Full);
        drop(state);
        if !waits_for_drain {
            self.notify(&[consumer]);
        }
    }

    /// Notes that what a consumer had buffered was dropped because it took nothing.
    pub(crate) fn put_to_sleep(&self, consumer: ConsumerId) {
        self.state.lock().account(consumer).is_awake = false;
    }

    /// Returns whether a consumer that takes was refused because the total is short, and has not had
    /// another try since.
    pub(crate) fn is_short(&self) -> bool {
        !self.state.lock().short.is_empty()
    }

    /// Reserves up to `wanted` bytes for a slice.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        consumer: ConsumerId,
        wanted: u64,
    ) -> Result<Charge, Refused> {
        let mut state = self.state.lock();
        let bytes = state.room(self.bytes_max, consumer)?.min(wanted).max(1);
        state.add(consumer, bytes);
        drop(state);
        Ok(self.charge(consumer, bytes))
    }

    /// Reserves up to `wanted` bytes for a read from memory by the consumer itself: at least one,
    /// which one item may exceed, since its reader is there and takes it.
    pub(crate) fn reserve_for_reader(
        self: &Arc<Self>,
        consumer: ConsumerId,
        wanted: u64,
    ) -> Charge {
        let mut state = self.state.lock();
        let own = state.own_room(self.bytes_max, consumer);
        let left = self.bytes_max.saturating_sub(state.used);
        let bytes = wanted.min(own).min(left).max(1);
        state.add(consumer, bytes);
        drop(state);
        self.charge(consumer, bytes)
    }

    fn charge(self: &Arc<Self>, consumer: ConsumerId, bytes: u64) -> Charge {
        Charge {
            buffers: Arc::clone(self),
            consumer,
            bytes,
        }
    }

    /// Looks again, after something was put to sleep because of a refusal: bytes may have been
    /// released in between. Returns whether a reservation would still be refused; if so, what is
    /// released from now on wakes the consumer.
    pub(crate) fn is_still_refused(&self, consumer: ConsumerId) -> bool {
        self.state.lock().room(self.bytes_max, consumer).is_err()
    }

    fn release(&self, consumer: ConsumerId, bytes: u64) {
        let mut state = self.state.lock();
        state.subtract(consumer, bytes);
        let share = self.bytes_max / state.holders.max(1);
        let account = state.account(consumer);
        // Below the share, too: at it there is no room.
        let is_drained = account.used <= account.resume_at.min(share.saturating_sub(1));
        let mut woken = Vec::new();
        if account.is_full && (is_drained || account.used == 0) {
            account.is_full = false;
            woken.push(consumer);
        }
        let short = std::mem::take(&mut state.short);
        woken.extend(short.into_iter().filter(|other| *other != consumer));
        state.forget_if_gone(consumer);
        drop(state);
        if !woken.is_empty() {
            self.notify(&woken);
        }
    }

    fn notify(&self, consumers: &[ConsumerId]) {
        if let Some(on_room) = self.on_room.upgrade() {
            on_room.room(consumers);
        }
    }
}

impl State {
    fn account(&mut self, consumer: ConsumerId) -> &mut Account {
        let account = self.accounts.get_mut(&consumer);
        // A charge or a consumer keeps it.
        #[expect(
            clippy::expect_used,
            reason = "an account is kept while anything is charged to it"
        )]
        account.expect("a consumer without an account")
    }

    /// Returns what a consumer may buffer more, by its own limit and its share of the total.
    fn own_room(&mut self, total_max: u64, consumer: ConsumerId) -> u64 {
        let holders = self.holders;
        let account = self.account(consumer);
        let holders = holders + u64::from(account.used == 0);
        let limit = account.bytes_max.min(total_max / holders);
        // One large item, or a share that has become smaller, can make it more.
        limit.saturating_sub(account.used)
    }

    /// Returns how much a slice of a consumer may take, or notes why it must wait. A worker may ask
    /// for a consumer that was dropped meanwhile.
    fn room(&mut self, total_max: u64, consumer: ConsumerId) -> Result<u64, Refused> {
        if self.accounts.get(&consumer).is_none_or(|a| a.is_gone) {
            return Err(Refused::Full);
        }
        let own = self.own_room(total_max, consumer);
        // One large item can make it more.
        let left = total_max.saturating_sub(self.used);
        let account = self.account(consumer);
        if account.is_full {
            return Err(Refused::Full);
        }
        if own < account.worthwhile && account.used > 0 {
            account.is_full = true;
            return Err(Refused::Full);
        }
        if left < account.worthwhile {
            // One that does not take waits until its reader comes.
            if account.is_awake {
                self.short.insert(consumer);
                return Err(Refused::Short);
            }
            return Err(Refused::Full);
        }
        self.short.remove(&consumer);
        Ok(own.min(left))
    }

    fn add(&mut self, consumer: ConsumerId, bytes: u64) {
        self.used += bytes;
        let account = self.account(consumer);
        let was_empty = account.used == 0;
        account.used += bytes;
        self.holders += u64::from(was_empty && bytes > 0);
    }

    /// Panics when more is released than was added: overflow checks are on.
    fn subtract(&mut self, consumer: ConsumerId, bytes: u64) {
        self.used -= bytes;
        let account = self.account(consumer);
        account.used -= bytes;
        let is_empty = account.used == 0;
        self.holders -= u64::from(is_empty && bytes > 0);
    }

    fn forget_if_gone(&mut self, consumer: ConsumerId) {
        let account = self.account(consumer);
        if account.is_gone && account.used == 0 {
            self.accounts.remove(&consumer);
        }
    }
}

/// Bytes that a consumer has buffered, released when this is dropped. Must not be dropped while the
/// lock of the scheduler or of a mailbox is held.
#[derive(Debug)]
pub(crate) struct Charge {
    buffers: Arc<Buffers>,
    consumer: ConsumerId,
    /// Never 0, but between [`Self::settle`] and a drop.
    bytes: u64,
}

impl Charge {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Settles the reservation to what is really used, which one large item may make more.
    pub(crate) fn settle(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes >= before {
            let mut state = self.buffers.state.lock();
            state.add(self.consumer, bytes - before);
        } else {
            self.buffers.release(self.consumer, before - bytes);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.buffers.release(self.consumer, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Ids;

    #[derive(Default)]
    struct Woken(Mutex<Vec<ConsumerId>>);

    impl OnRoom for Woken {
        fn room(&self, consumers: &[ConsumerId]) {
            self.0.lock().extend(consumers);
        }
    }

    struct Fixture {
        buffers: Arc<Buffers>,
        woken: Arc<Woken>,
    }

    impl Fixture {
        fn new(total: u64) -> Self {
            let woken = Arc::new(Woken::default());
            let weak: Weak<Woken> = Arc::downgrade(&woken);
            Self {
                buffers: Buffers::new(total, weak),
                woken,
            }
        }

        fn consumer(&self, number: u64, max: u64, drain: u8) -> ConsumerId {
            let id = Ids::test_consumer(number);
            self.buffers.add_consumer(id, max, drain);
            id
        }

        fn awake(&self, number: u64, max: u64, drain: u8) -> ConsumerId {
            let id = self.consumer(number, max, drain);
            self.buffers.wake_up(id);
            self.take_woken();
            id
        }

        fn take_woken(&self) -> Vec<ConsumerId> {
            std::mem::take(&mut *self.woken.0.lock())
        }

        fn holders(&self) -> u64 {
            self.buffers.state.lock().holders
        }
    }

    #[test]
    fn a_full_buffer_stays_full_until_a_share_is_drained() {
        let f = Fixture::new(1_000_000);
        let id = f.awake(1, 1_000, 25);
        let reserve = || f.buffers.reserve(id, 100);
        let mut charges: Vec<Charge> = (0..10).map_while(|_| reserve().ok()).collect();
        assert_eq!(charges.len(), 9, "the last eighth is not worth a slice");
        charges[0].settle(200);
        assert_eq!(reserve().unwrap_err(), Refused::Full);
        for _ in 0..2 {
            charges.pop();
            assert!(f.buffers.is_still_refused(id), "200 of 1,000 drained");
        }
        // One byte short of the share.
        charges.last_mut().unwrap().settle(51);
        assert!(f.buffers.is_still_refused(id));
        assert!(f.take_woken().is_empty());
        charges.last_mut().unwrap().settle(50);
        assert!(!f.buffers.is_still_refused(id));
        assert_eq!(f.take_woken(), [id]);
        charges.clear();
        assert_eq!((f.buffers.used_by(id), f.buffers.used()), (0, 0));
        assert_eq!(f.holders(), 0);
    }

    #[test]
    fn one_item_passes_whatever_its_size_and_drains_at_nothing() {
        let f = Fixture::new(10);
        let id = f.awake(7, 10, 100);
        let mut charge = f.buffers.reserve(id, 4_000).unwrap();
        assert_eq!(charge.bytes(), 10);
        charge.settle(5_000);
        assert_eq!(f.buffers.used(), 5_000);
        assert!(f.buffers.reserve(id, 1).is_err());
        drop(charge);
        assert!(!f.buffers.is_still_refused(id));
        assert_eq!((f.buffers.used(), f.holders()), (0, 0));
    }

    #[test]
    fn until_its_reader_comes_a_consumer_asks_nobody_for_room() {
        let f = Fixture::new(1_000);
        let id = f.consumer(1, 1_000, 25);
        let first = f.buffers.reserve(id, 100).unwrap();
        f.buffers.wake_up(id);
        assert_eq!(f.take_woken(), [id]);
        f.buffers.wake_up(id);
        assert!(f.take_woken().is_empty(), "it is awake");
        let second = f.buffers.reserve(id, 800).unwrap();
        // No room for another one that does not take: it does not even ask for it.
        let other = f.consumer(2, 1_000, 25);
        assert_eq!(f.buffers.reserve(other, 100).unwrap_err(), Refused::Full);
        assert!(!f.buffers.is_short());
        f.buffers.wake_up(other);
        assert_eq!(f.take_woken(), [other]);
        assert_eq!(f.buffers.reserve(other, 100).unwrap_err(), Refused::Short);
        assert!(f.buffers.is_short());
        f.buffers.put_to_sleep(id);
        drop((first, second));
        assert_eq!(f.take_woken(), [other]);
        assert!(!f.buffers.is_short());
        assert_eq!(f.buffers.reserve(other, 5_000).unwrap().bytes(), 1_000);
    }

    #[test]
    fn those_that_buffer_something_have_equal_shares() {
        let f = Fixture::new(900);
        let ids: Vec<ConsumerId> = (0..3).map(|n| f.awake(n, 1_000, 25)).collect();
        let one = f.buffers.reserve(ids[0], 5_000).unwrap();
        assert_eq!(one.bytes(), 900, "nobody else has anything");
        assert_eq!(f.buffers.reserve(ids[1], 100).unwrap_err(), Refused::Short);
        drop(one);
        assert_eq!(f.take_woken(), [ids[1]]);
        let mut one = f.buffers.reserve(ids[0], 5_000).unwrap();
        one.settle(100);
        let two = f.buffers.reserve(ids[1], 5_000).unwrap();
        assert_eq!(two.bytes(), 450);
        let three = f.buffers.reserve(ids[2], 5_000).unwrap();
        assert_eq!(three.bytes(), 300);
        // Its share is 300 now.
        assert_eq!(f.buffers.reserve(ids[1], 1).unwrap_err(), Refused::Full);
        assert_eq!(f.holders(), 3);
        // A reader is never refused: one item always passes.
        assert_eq!(f.buffers.reserve_for_reader(ids[1], 100).bytes(), 1);
        drop((one, two, three));
        assert_eq!((f.buffers.used(), f.holders()), (0, 0));
    }

    #[test]
    fn what_a_consumer_that_is_gone_had_counts_until_it_is_dropped() {
        let f = Fixture::new(1_000);
        let id = f.awake(1, 1_000, 25);
        let charge = f.buffers.reserve(id, 600).unwrap();
        f.buffers.remove_consumer(id);
        assert!(f.buffers.reserve(id, 1).is_err());
        assert_eq!(f.buffers.used(), 600);
        drop(charge);
        assert_eq!((f.buffers.used(), f.holders()), (0, 0));
        assert!(f.buffers.state.lock().accounts.is_empty());
        assert!(f.buffers.is_still_refused(id));
        assert_eq!(f.buffers.reserve(id, 1).unwrap_err(), Refused::Full);
    }
}
