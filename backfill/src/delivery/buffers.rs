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
//! - Limits are exceeded by what cannot be read in parts: by the first item of each slice that is being
//!   read and of each batch from memory, however large, and by 512 bytes for each other stream whose slice
//!   is read through the same db snapshot.
//! - A slice waits until the total has room that is worth one. A read from memory does not wait: one
//!   item passes, since its reader is there and takes it.
//!
//! # Locks
//! One lock for all accounts, a leaf. [`OnRoom::room`] is called without it, and takes the lock of the
//! scheduler: so a charge must not be dropped while that lock, or a mailbox's, is held. The clock is
//! read under the lock: with a time from before it, a reader could be noted as having come earlier than
//! a refusal that did not know of it.
//!
//! Nothing here knows the engine, so that a model checker tries these very sources
//! (`core/tests/scheduling.rs`).

use crate::stream::ConsumerId;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use vbstore_core::lock_order::Rank;
use vbstore_core::sync::Mutex;
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
    /// Consumers that were refused because the total was short, though they are awake, by their place in
    /// the line in which they get what is released; each once.
    short: BTreeMap<u64, ConsumerId>,
    /// The next place at the end of that line.
    line_end: u64,
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
    /// Its place in the line of those that are short; `None` if it is not there.
    in_line: Option<u64>,
    /// The consumer was dropped. Its account stays until all charges are released.
    is_gone: bool,
}

/// A consumer that was put to sleep, and what it was before.
#[derive(Debug)]
#[must_use = "if nothing comes of it, it must be taken back"]
pub(crate) struct PutToSleep {
    consumer: ConsumerId,
    visited: Option<Duration>,
    is_waiting: bool,
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
            state: Mutex::new(Rank::Leaf, State::default()),
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
            in_line: None,
            is_gone: false,
        };
        let before = self.state.lock().accounts.insert(consumer, account);
        assert!(before.is_none(), "a consumer is added twice");
    }

    /// Removes a consumer. What it has buffered counts until it is dropped.
    pub(crate) fn remove_consumer(&self, consumer: ConsumerId) {
        let mut state = self.state.lock();
        state.leave_line(consumer);
        state.account(consumer).is_gone = true;
        state.forget_if_gone(consumer);
    }

    /// Notes that the reader of a consumer has come, and whether it waits until something is there.
    /// Wakes its streams if they waited for that: to read on, or to ask others for room.
    pub(crate) fn visit(&self, consumer: ConsumerId, waits: bool) {
        let mut state = self.state.lock();
        let now = self.clock.monotonic();
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

    /// Puts a consumer that takes nothing to sleep if it has something buffered; `None` if it has not.
    /// One that was dropped meanwhile has nothing. A reader that waited counts no more: it may have been a
    /// future that the program dropped. If nothing comes of it, [`Self::wake_again`] must follow: a reader
    /// that waits says so only once.
    pub(crate) fn put_to_sleep(&self, consumer: ConsumerId) -> Option<PutToSleep> {
        let mut state = self.state.lock();
        let account = state.accounts.get_mut(&consumer);
        let account = account.filter(|account| !account.is_gone && account.used > 0)?;
        Some(PutToSleep {
            consumer,
            visited: account.visited.take(),
            is_waiting: std::mem::take(&mut account.is_waiting),
        })
    }

    /// Takes back that a consumer was put to sleep, unless its reader has come since. Wakes its streams as
    /// if it came now: they may have been refused in between.
    pub(crate) fn wake_again(&self, before: &PutToSleep) {
        let consumer = before.consumer;
        let mut state = self.state.lock();
        let now = self.clock.monotonic();
        let account = state.accounts.get_mut(&consumer);
        let Some(account) = account.filter(|account| !account.is_gone) else {
            return;
        };
        if account.visited.is_some() || account.is_waiting {
            return;
        }
        account.visited = before.visited;
        account.is_waiting = before.is_waiting;
        if !account.is_awake(now) {
            return;
        }
        let waits_for_drain = state.room(self.bytes_max, consumer, now) == Err(Refused::Full);
        drop(state);
        if !waits_for_drain {
            self.notify(consumer);
        }
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
        let mut state = self.state.lock();
        let now = self.clock.monotonic();
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
        let left = state.left(self.bytes_max);
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
        let mut state = self.state.lock();
        let now = self.clock.monotonic();
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
            let left = state.left(self.bytes_max);
            let first = state.short.values().next().copied();
            let Some(consumer) = first.filter(|id| left >= state.account(*id).worthwhile) else {
                return;
            };
            state.leave_line(consumer);
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

    /// Returns how much of the total is left: nothing if large items, of which one always passes, have
    /// exceeded it.
    fn left(&self, total_max: u64) -> u64 {
        total_max.saturating_sub(self.used)
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
        let left = self.left(total_max);
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
            self.enter_line(consumer);
            return Err(Refused::Short);
        }
        self.leave_line(consumer);
        Ok(own.min(left))
    }

    /// Puts a consumer at the end of the line of those that are short, unless it is there.
    fn enter_line(&mut self, consumer: ConsumerId) {
        let place = self.line_end;
        let account = self.account(consumer);
        if account.in_line.is_none() {
            account.in_line = Some(place);
            self.line_end += 1;
            self.short.insert(place, consumer);
        }
    }

    fn leave_line(&mut self, consumer: ConsumerId) {
        if let Some(place) = self.account(consumer).in_line.take() {
            let left = self.short.remove(&place);
            assert_eq!(left, Some(consumer), "another consumer stood there");
        }
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

    /// Moves up to `bytes` of it to another charge of the same consumer, but leaves at least `kept`.
    pub(crate) fn share(&mut self, other: &mut Self, bytes: u64, kept: u64) {
        assert_eq!(self.consumer, other.consumer, "bytes of another consumer");
        if self.bytes <= kept {
            return;
        }
        let moved = bytes.min(self.bytes - kept);
        self.bytes -= moved;
        other.bytes += moved;
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

// The model checker's locks work in its own tests only.
#[cfg(not(feature = "shuttle"))]
#[cfg(test)]
#[path = "buffers/tests.rs"]
mod tests;
