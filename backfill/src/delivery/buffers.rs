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
//! - *A consumer that takes nothing costs nothing for long.* A consumer is *awake* while its reader
//!   waits, and for [`AWAKE_FOR`] after its reader came last. For one that is not, slices are read ahead
//!   only while the total has room for them: it asks nobody to make room, and waits in no line. When
//!   the total is short for one that is awake, the batches of those that have taken nothing for a while
//!   are dropped (see `watchdog`): they are read again when their readers come back.
//! - A consumer with nothing buffered may always read one item, however large; the limits are exceeded
//!   by one such item at most.
//!
//! # Locks
//! One lock for all accounts, a leaf. [`OnRoom::room`] is called without it, and takes the lock of the
//! scheduler: so a charge must not be dropped while that lock, or a mailbox's, is held.

use crate::stream::ConsumerId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;
use vbstore_core::{Clock, u64_from};

/// Wakes what waits for room.
pub(crate) trait OnRoom: Send + Sync {
    /// A consumer may have room now. Returns whether something of it waited for that.
    fn room(&self, consumer: ConsumerId) -> bool;
}

/// For how long after its reader came a consumer counts as one that takes.
pub(crate) const AWAKE_FOR: Duration = Duration::from_secs(1);

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
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    /// Consumers with something buffered.
    holders: u64,
    accounts: BTreeMap<ConsumerId, Account>,
    /// Consumers that were refused because the total was short, though they are awake, in the order in
    /// which they get what is released; each once.
    short: VecDeque<ConsumerId>,
}

#[derive(Debug)]
struct Account {
    bytes_max: u64,
    /// Once full, stays full until usage falls to this.
    resume_at: u64,
    /// With less room than this it is full: a db snapshot for a handful of items is not worth it.
    worthwhile: u64,
    /// Bytes of one reservation at most, so that as many slices as may be read at once have room.
    slice_max: u64,
    used: u64,
    is_full: bool,
    /// When its reader came last; `None` if it never did.
    visited: Option<Duration>,
    /// Its reader waits for something.
    is_waiting: bool,
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
    pub(crate) fn new(
        bytes_max: u64,
        on_room: Weak<dyn OnRoom>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            state: Mutex::default(),
            on_room,
            clock,
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

    /// Adds a consumer. `drain_percent` is at most 100, `slices` at least 1: those that it may read at
    /// once.
    pub(crate) fn add_consumer(
        &self,
        consumer: ConsumerId,
        bytes_max: u64,
        drain_percent: u8,
        slices: usize,
    ) {
        let drained = u128::from(bytes_max) * u128::from(drain_percent) / 100;
        // At most `bytes_max`.
        let drained = u64::try_from(drained).unwrap_or(bytes_max).max(1);
        let worthwhile = (bytes_max.min(self.bytes_max) / 8).clamp(1, WORTHWHILE_MAX);
        let account = Account {
            bytes_max,
            resume_at: bytes_max - drained,
            worthwhile,
            slice_max: (bytes_max / u64_from(slices)).max(worthwhile),
            used: 0,
            is_full: false,
            visited: None,
            is_waiting: false,
            is_gone: false,
        };
        let before = self.state.lock().accounts.insert(consumer, account);
        assert!(before.is_none(), "a consumer is added twice");
    }

    /// Removes a consumer. What it has buffered counts until it is dropped.
    pub(crate) fn remove_consumer(&self, consumer: ConsumerId) {
        let mut state = self.state.lock();
        state.short.retain(|other| *other != consumer);
        state.account(consumer).is_gone = true;
        state.forget_if_gone(consumer);
    }

    /// Notes that the reader of a consumer has come, and whether it waits until something is there.
    /// Wakes its streams if they waited for that: to read on, or to ask others for room.
    pub(crate) fn visit(&self, consumer: ConsumerId, waits: bool) {
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        let account = state.account(consumer);
        let was_awake = account.is_awake(now);
        account.visited = Some(now);
        account.is_waiting = waits;
        if was_awake {
            return;
        }
        let waits_for_drain = state.room(self.bytes_max, consumer, now) == Err(Refused::Full);
        drop(state);
        if !waits_for_drain {
            self.notify(consumer);
        }
    }

    /// Notes that what a consumer had buffered was dropped because it took nothing.
    pub(crate) fn put_to_sleep(&self, consumer: ConsumerId) {
        self.state.lock().account(consumer).visited = None;
    }

    /// Returns whether a consumer that is awake was refused because the total is short, and has not had
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
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        let room = state.room(self.bytes_max, consumer, now)?;
        let wanted = wanted.min(state.account(consumer).slice_max);
        let bytes = room.min(wanted).max(1);
        state.add(consumer, bytes);
        drop(state);
        let charge = self.charge(consumer, bytes);
        // What is left may do for the next in line.
        self.serve_short();
        Ok(charge)
    }

    /// Makes a charge beside a reservation of the same consumer: for a slice that is read together with
    /// the one that was reserved for, within its bytes.
    pub(crate) fn beside(self: &Arc<Self>, charge: &Charge) -> Charge {
        self.state.lock().add(charge.consumer, 1);
        self.charge(charge.consumer, 1)
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
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        state.room(self.bytes_max, consumer, now).is_err()
    }

    fn release(&self, consumer: ConsumerId, bytes: u64) {
        let mut state = self.state.lock();
        state.subtract(consumer, bytes);
        let share = self.bytes_max / state.holders.max(1);
        let account = state.account(consumer);
        // Below the share, too: at it there is no room.
        let is_drained = account.used <= account.resume_at.min(share.saturating_sub(1));
        let is_woken = account.is_full && (is_drained || account.used == 0);
        if is_woken {
            account.is_full = false;
        }
        state.forget_if_gone(consumer);
        drop(state);
        if is_woken {
            self.notify(consumer);
        }
        self.serve_short();
    }

    /// Wakes the first in line that has something waiting, if there is room worth a slice.
    fn serve_short(&self) {
        loop {
            let mut state = self.state.lock();
            let left = self.bytes_max.saturating_sub(state.used);
            let first = state.short.front().copied();
            let Some(consumer) = first.filter(|id| left >= state.account(*id).worthwhile) else {
                return;
            };
            state.short.pop_front();
            drop(state);
            if self.notify(consumer) {
                return;
            }
        }
    }

    fn notify(&self, consumer: ConsumerId) -> bool {
        let on_room = self.on_room.upgrade();
        on_room.is_some_and(|on_room| on_room.room(consumer))
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
    fn room(
        &mut self,
        total_max: u64,
        consumer: ConsumerId,
        now: Duration,
    ) -> Result<u64, Refused> {
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
            if !account.is_awake(now) {
                // It waits until its reader comes.
                return Err(Refused::Full);
            }
            if !self.short.contains(&consumer) {
                self.short.push_back(consumer);
            }
            return Err(Refused::Short);
        }
        self.short.retain(|other| *other != consumer);
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

impl Account {
    fn is_awake(&self, now: Duration) -> bool {
        let recently = |visited| now.saturating_sub(visited) < AWAKE_FOR;
        self.is_waiting || self.visited.is_some_and(recently)
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
    use vbstore_core::ManualClock;

    #[derive(Default)]
    struct Woken(Mutex<Vec<ConsumerId>>);

    impl OnRoom for Woken {
        fn room(&self, consumer: ConsumerId) -> bool {
            self.0.lock().push(consumer);
            true
        }
    }

    struct Fixture {
        buffers: Arc<Buffers>,
        woken: Arc<Woken>,
        clock: Arc<ManualClock>,
    }

    impl Fixture {
        fn new(total: u64) -> Self {
            let woken = Arc::new(Woken::default());
            let weak: Weak<Woken> = Arc::downgrade(&woken);
            let clock = Arc::new(ManualClock::new());
            let shared: Arc<ManualClock> = Arc::clone(&clock);
            Self {
                buffers: Buffers::new(total, weak, shared),
                woken,
                clock,
            }
        }

        fn consumer(&self, number: u64, max: u64, drain: u8) -> ConsumerId {
            let id = Ids::test_consumer(number);
            self.buffers.add_consumer(id, max, drain, 1);
            id
        }

        fn awake(&self, number: u64, max: u64, drain: u8) -> ConsumerId {
            let id = self.consumer(number, max, drain);
            self.buffers.visit(id, true);
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
        f.buffers.visit(id, false);
        assert_eq!(f.take_woken(), [id]);
        f.buffers.visit(id, true);
        assert!(f.take_woken().is_empty(), "it is awake");
        let second = f.buffers.reserve(id, 800).unwrap();
        // No room for another one that does not take: it does not even ask for it.
        let other = f.consumer(2, 1_000, 25);
        assert_eq!(f.buffers.reserve(other, 100).unwrap_err(), Refused::Full);
        assert!(!f.buffers.is_short());
        f.buffers.visit(other, false);
        assert_eq!(f.take_woken(), [other]);
        assert_eq!(f.buffers.reserve(other, 100).unwrap_err(), Refused::Short);
        assert!(f.buffers.is_short());
        drop((first, second));
        assert_eq!(f.take_woken(), [other]);
        assert!(!f.buffers.is_short());
        assert_eq!(f.buffers.reserve(other, 5_000).unwrap().bytes(), 1_000);
    }

    #[test]
    fn a_consumer_is_awake_while_its_reader_waits_and_for_a_while_after_it_came() {
        let f = Fixture::new(1_000);
        let holder = f.awake(1, 1_000, 25);
        let held = f.buffers.reserve(holder, 1_000).unwrap();
        let (waits, came) = (f.awake(2, 1_000, 25), f.awake(3, 1_000, 25));
        f.buffers.visit(came, false);
        let refused = |id| f.buffers.reserve(id, 100).unwrap_err();
        assert_eq!(
            (refused(waits), refused(came)),
            (Refused::Short, Refused::Short)
        );
        f.clock.advance(AWAKE_FOR);
        assert_eq!(
            (refused(waits), refused(came)),
            (Refused::Short, Refused::Full)
        );
        // Served in line, one at a time; what one leaves is for the next.
        drop(held);
        assert_eq!(f.take_woken(), [waits]);
        let part = f.buffers.reserve(waits, 500).unwrap();
        assert_eq!(f.take_woken(), [came]);
        drop(part);
        f.buffers.put_to_sleep(waits);
        f.buffers.visit(waits, false);
        f.buffers.visit(came, false);
        assert_eq!(f.take_woken(), [came], "the other one was waiting");
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
    fn as_many_slices_as_may_be_read_at_once_have_room() {
        let f = Fixture::new(1_000_000);
        let id = Ids::test_consumer(1);
        f.buffers.add_consumer(id, 16_000, 25, 16);
        f.buffers.visit(id, true);
        let reserve = || f.buffers.reserve(id, 100_000).ok();
        // Each is worth a db snapshot: an eighth of what it may have.
        let charges: Vec<Charge> = std::iter::from_fn(reserve).collect();
        assert_eq!(charges.len(), 8);
        assert_eq!(f.buffers.used_by(id), 16_000);
        let beside = f.buffers.beside(&charges[0]);
        assert_eq!(f.buffers.used_by(id), 16_001);
        drop((charges, beside));
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
