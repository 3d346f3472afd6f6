//! Accounting of buffered bytes: those that were read and that the consumer has not taken yet.
//!
//! A slice *reserves* what it may read before it reads, so that nothing must wait while a db
//! snapshot is open. Afterwards the reservation is settled to what was read. A [`Charge`] releases
//! its bytes when it is dropped: with its batch when the consumer has taken it, or on any other
//! path. Reads from memory are charged as well.
//!
//! # Rules
//! - A consumer may buffer up to its own limit. Once full, it stays full until a share of that
//!   limit is drained, so that its streams are not woken for every item.
//! - All consumers share one total. A consumer may use an equal share of it, where only consumers
//!   with something buffered are counted.
//! - *An idle consumer costs nothing for long.* A consumer is *awake* while its reader waits, and
//!   for [`AWAKE_FOR`] after its reader's last visit. For a consumer that is not awake, slices are
//!   read ahead only while the total has room: it does not make others release room, and does not
//!   queue for it. When the total is too small for an awake consumer, the batches of consumers that
//!   have taken nothing for a while are dropped (see `watchdog`). They are read again when those
//!   readers return.
//! - The limits can be exceeded, because some things cannot be read in parts. These are the first
//!   item of each slice being read and of each batch from memory, however large, and 512 bytes for
//!   each additional stream of a shared db snapshot.
//! - A slice waits until the total has enough room to be worth a db snapshot. A read from memory
//!   does not wait: one item is always allowed, since its reader is present and takes it.
//!
//! # Locks
//! One lock protects all accounts, and is a leaf. [`RoomWaker::room`] is called without it, and
//! takes the scheduler's lock. So a charge must not be dropped while that lock or a mailbox's is
//! held. The clock is read under the lock. If it were read before, a reader's visit could be
//! recorded with an earlier time than a refusal that did not see that visit.
//!
//! This module does not depend on the engine, so that a model checker can run these very sources
//! (`core/tests/scheduling.rs`).

use crate::stream::ConsumerId;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use vbstore_core::lock_order::LockRank;
use vbstore_core::sync::Mutex;
use vbstore_core::{Clock, u64_from};

/// Wakes backfills that wait for room.
pub(crate) trait RoomWaker: Send + Sync {
    /// Called when a consumer may have room. Returns whether any of its backfills waited for that.
    fn room(&self, consumer: ConsumerId) -> bool;
}

/// How long a consumer counts as awake after its reader's last visit.
pub(crate) const AWAKE_FOR: Duration = Duration::from_secs(1);

/// The largest amount of room, in bytes, that is required before a db snapshot is opened. With less
/// room, a consumer counts as full.
const WORTHWHILE_MAX: u64 = 64 << 10;

/// Why a reservation was refused. Its consumer is woken when the reason no longer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReserveError {
    /// The consumer's buffer is full. Or the total is, and the consumer is not awake.
    Full,
    /// The other consumers use up the total.
    Short,
}

/// The buffers of all consumers.
pub(crate) struct Buffers {
    bytes_max: u64,
    state: Mutex<BuffersState>,
    on_room: Weak<dyn RoomWaker>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct BuffersState {
    used: u64,
    /// Number of consumers with something buffered.
    holders: u64,
    accounts: BTreeMap<ConsumerId, ConsumerAccount>,
    /// Awake consumers that were refused because the total was short, by ticket. They are served in
    /// this order. Each consumer appears at most once.
    short: BTreeMap<u64, ConsumerId>,
    /// The ticket for the next consumer that joins `short`.
    next_ticket: u64,
}

#[derive(Debug)]
struct ConsumerAccount {
    bytes_max: u64,
    /// Once full, stays full until usage falls to this.
    resume_at: u64,
    /// With less room than this, in bytes, the consumer is full: a db snapshot for a handful of
    /// items is not worthwhile.
    worthwhile: u64,
    /// Maximum number of bytes of one reservation, so that all slices that may be read at once have
    /// room.
    slice_max: u64,
    used: u64,
    is_full: bool,
    /// When its reader last visited; `None` if it never did, or was put to sleep since.
    visited: Option<Duration>,
    /// Whether its reader waits for an event.
    is_waiting: bool,
    /// Its ticket in [`BuffersState::short`]; `None` if it is not there.
    ticket: Option<u64>,
    /// Whether the consumer was dropped. Its account stays until all charges are released.
    is_gone: bool,
}

/// A consumer that was put to sleep, with the previous state of its reader.
#[derive(Debug)]
#[must_use = "if the consumer is not paused, wake it again"]
pub(crate) struct SleepingConsumer {
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
        on_room: Weak<dyn RoomWaker>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            state: Mutex::new(LockRank::Leaf, BuffersState::default()),
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

    /// Returns the number of bytes buffered for one consumer.
    pub(crate) fn used_by(&self, consumer: ConsumerId) -> u64 {
        let state = self.state.lock();
        state.accounts.get(&consumer).map_or(0, |a| a.used)
    }

    /// Adds a consumer. `drain_percent` is at most 100. `slices` is the number of slices that may
    /// be read for it at once, at least 1.
    pub(crate) fn add_consumer(
        &self,
        consumer: ConsumerId,
        bytes_max: u64,
        drain_percent: u8,
        slices: usize,
    ) {
        let drained = u128::from(bytes_max) * u128::from(drain_percent) / 100;
        // The result is at most `bytes_max`, so the conversion cannot fail.
        let drained = u64::try_from(drained).unwrap_or(bytes_max).max(1);
        let worthwhile = (bytes_max.min(self.bytes_max) / 8).clamp(1, WORTHWHILE_MAX);
        let account = ConsumerAccount {
            bytes_max,
            resume_at: bytes_max - drained,
            worthwhile,
            slice_max: (bytes_max / u64_from(slices)).max(worthwhile),
            used: 0,
            is_full: false,
            visited: None,
            is_waiting: false,
            ticket: None,
            is_gone: false,
        };
        let before = self.state.lock().accounts.insert(consumer, account);
        assert!(before.is_none(), "a consumer is added twice");
    }

    /// Removes a consumer. Its buffered bytes count until their charges are dropped.
    pub(crate) fn remove_consumer(&self, consumer: ConsumerId) {
        let mut state = self.state.lock();
        state.leave_short(consumer);
        state.account(consumer).is_gone = true;
        state.forget_if_gone(consumer);
    }

    /// Records a visit of a consumer's reader, and whether it waits for an event. If the consumer
    /// was not awake, this wakes its streams, to continue reading or to queue for room.
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
        // A full consumer is woken when it is drained, and not by its reader.
        let waits_for_drain = state.room(self.bytes_max, consumer, now) == Err(ReserveError::Full);
        drop(state);
        if !waits_for_drain {
            self.notify(consumer);
        }
    }

    /// Marks an idle consumer as not awake, if it has something buffered. Returns `None` if it has
    /// nothing buffered, or was dropped.
    ///
    /// A reader that waits no longer keeps the consumer awake: it may be a future that the program
    /// dropped. If the consumer is not paused afterwards, the caller must call
    /// [`Self::wake_again`], since a reader reports only once that it waits.
    pub(crate) fn put_to_sleep(&self, consumer: ConsumerId) -> Option<SleepingConsumer> {
        let mut state = self.state.lock();
        let account = state.accounts.get_mut(&consumer);
        let account = account.filter(|account| !account.is_gone && account.used > 0)?;
        Some(SleepingConsumer {
            consumer,
            visited: account.visited.take(),
            is_waiting: std::mem::take(&mut account.is_waiting),
        })
    }

    /// Undoes [`Self::put_to_sleep`], unless the reader has visited since. Wakes the consumer's
    /// streams as if its reader visited now, since they may have been refused in between.
    pub(crate) fn wake_again(&self, before: &SleepingConsumer) {
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
        // As in `visit`.
        let waits_for_drain = state.room(self.bytes_max, consumer, now) == Err(ReserveError::Full);
        drop(state);
        if !waits_for_drain {
            self.notify(consumer);
        }
    }

    /// Returns whether an awake consumer waits for the total to have room.
    pub(crate) fn is_short(&self) -> bool {
        !self.state.lock().short.is_empty()
    }

    /// Reserves up to `wanted` bytes for a slice, and at least one. Does not block.
    ///
    /// # Errors
    /// Why there is no room. The consumer's backfills are woken when there is.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        consumer: ConsumerId,
        wanted: u64,
    ) -> Result<Charge, ReserveError> {
        let mut state = self.state.lock();
        let now = self.clock.monotonic();
        let room = state.room(self.bytes_max, consumer, now)?;
        let wanted = wanted.min(state.account(consumer).slice_max);
        let bytes = room.min(wanted).max(1);
        state.add(consumer, bytes);
        drop(state);
        let charge = self.charge(consumer, bytes);
        // The remaining room may be enough for the next consumer.
        self.wake_next_short();
        Ok(charge)
    }

    /// Creates a charge of one byte for a slice that is read within the bytes of another charge of
    /// the same consumer, through the same db snapshot.
    pub(crate) fn beside(self: &Arc<Self>, charge: &Charge) -> Charge {
        self.state.lock().add(charge.consumer, 1);
        self.charge(charge.consumer, 1)
    }

    /// Reserves up to `wanted` bytes, but at least one, for a read from memory by the consumer
    /// itself. Never refused. One item may exceed the reservation, since the reader is present and
    /// takes it.
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

    /// Checks again after a refused backfill was snoozed, since bytes may have been released in
    /// between. Returns whether a reservation would still be refused. If so, the next release wakes
    /// the consumer.
    pub(crate) fn is_still_refused(&self, consumer: ConsumerId) -> bool {
        let mut state = self.state.lock();
        let now = self.clock.monotonic();
        state.room(self.bytes_max, consumer, now).is_err()
    }

    /// Releases bytes of a consumer, and wakes those that may continue.
    fn release(&self, consumer: ConsumerId, bytes: u64) {
        let mut state = self.state.lock();
        state.subtract(consumer, bytes);
        let share = self.bytes_max / state.holders.max(1);
        let account = state.account(consumer);
        // Usage must also be below the consumer's share of the total: exactly at the share there is
        // no room.
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
        self.wake_next_short();
    }

    /// Wakes the first consumer in `short` that has a waiting backfill, if the room left is worth a
    /// slice for the first in the queue. Consumers without a waiting backfill leave the queue.
    fn wake_next_short(&self) {
        loop {
            let mut state = self.state.lock();
            let left = state.left(self.bytes_max);
            let first = state.short.values().next().copied();
            let Some(consumer) = first.filter(|id| left >= state.account(*id).worthwhile) else {
                return;
            };
            state.leave_short(consumer);
            drop(state);
            if self.notify(consumer) {
                return;
            }
        }
    }

    /// Wakes the waiting backfills of a consumer. Returns whether there were any.
    fn notify(&self, consumer: ConsumerId) -> bool {
        let on_room = self.on_room.upgrade();
        on_room.is_some_and(|on_room| on_room.room(consumer))
    }
}

impl BuffersState {
    fn account(&mut self, consumer: ConsumerId) -> &mut ConsumerAccount {
        let account = self.accounts.get_mut(&consumer);
        // An account exists until its consumer is dropped and its last charge is released.
        #[expect(
            clippy::expect_used,
            reason = "an account is kept while anything is charged to it"
        )]
        account.expect("the consumer has no account")
    }

    /// Returns how many bytes of the total are left. Large items, one of which is always allowed,
    /// can exceed the total; then the result is 0.
    fn left(&self, total_max: u64) -> u64 {
        total_max.saturating_sub(self.used)
    }

    /// Returns how many more bytes a consumer may buffer, by its own limit and by its share of the
    /// total.
    fn own_room(&mut self, total_max: u64, consumer: ConsumerId) -> u64 {
        let holders = self.holders;
        let account = self.account(consumer);
        let holders = holders + u64::from(account.used == 0);
        let limit = account.bytes_max.min(total_max / holders);
        // One large item, or a share that has become smaller, can push usage above the limit.
        limit.saturating_sub(account.used)
    }

    /// Returns how many bytes a slice of a consumer may use.
    ///
    /// # Errors
    /// Why the slice must wait; this is recorded, so that the consumer is woken later.
    /// [`ReserveError::Full`] also for a consumer that was dropped, since a worker may still ask.
    fn room(
        &mut self,
        total_max: u64,
        consumer: ConsumerId,
        now: Duration,
    ) -> Result<u64, ReserveError> {
        if self.accounts.get(&consumer).is_none_or(|a| a.is_gone) {
            return Err(ReserveError::Full);
        }
        let own = self.own_room(total_max, consumer);
        let left = self.left(total_max);
        let account = self.account(consumer);
        if account.is_full {
            return Err(ReserveError::Full);
        }
        if own < account.worthwhile && account.used > 0 {
            account.is_full = true;
            return Err(ReserveError::Full);
        }
        if left < account.worthwhile {
            if !account.is_awake(now) {
                // Not queued: it waits until its reader visits.
                return Err(ReserveError::Full);
            }
            self.join_short(consumer);
            return Err(ReserveError::Short);
        }
        self.leave_short(consumer);
        Ok(own.min(left))
    }

    /// Adds a consumer to the end of `short`, unless it is there already.
    fn join_short(&mut self, consumer: ConsumerId) {
        let ticket = self.next_ticket;
        let account = self.account(consumer);
        if account.ticket.is_none() {
            account.ticket = Some(ticket);
            self.next_ticket += 1;
            self.short.insert(ticket, consumer);
        }
    }

    fn leave_short(&mut self, consumer: ConsumerId) {
        if let Some(ticket) = self.account(consumer).ticket.take() {
            let left = self.short.remove(&ticket);
            assert_eq!(
                left,
                Some(consumer),
                "the ticket belongs to another consumer"
            );
        }
    }

    fn add(&mut self, consumer: ConsumerId, bytes: u64) {
        self.used += bytes;
        let account = self.account(consumer);
        let was_empty = account.used == 0;
        account.used += bytes;
        self.holders += u64::from(was_empty && bytes > 0);
    }

    /// Panics if more is released than was added: overflow checks are enabled in every build.
    fn subtract(&mut self, consumer: ConsumerId, bytes: u64) {
        self.used -= bytes;
        let account = self.account(consumer);
        account.used -= bytes;
        let is_empty = account.used == 0;
        self.holders -= u64::from(is_empty && bytes > 0);
    }

    /// Removes the account of a dropped consumer once nothing is charged to it.
    fn forget_if_gone(&mut self, consumer: ConsumerId) {
        let account = self.account(consumer);
        if account.is_gone && account.used == 0 {
            self.accounts.remove(&consumer);
        }
    }
}

impl ConsumerAccount {
    fn is_awake(&self, now: Duration) -> bool {
        let recently = |visited| now.saturating_sub(visited) < AWAKE_FOR;
        self.is_waiting || self.visited.is_some_and(recently)
    }
}

/// Buffered bytes of a consumer, released on drop. Must not be dropped while the lock of the
/// scheduler or of a mailbox is held.
#[derive(Debug)]
pub(crate) struct Charge {
    buffers: Arc<Buffers>,
    consumer: ConsumerId,
    /// Never 0, except between [`Self::settle`] and the drop.
    bytes: u64,
}

impl Charge {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Moves up to `bytes` bytes to another charge of the same consumer, but keeps at least `kept`.
    pub(crate) fn share(&mut self, other: &mut Self, bytes: u64, kept: u64) {
        assert_eq!(
            self.consumer, other.consumer,
            "the charges belong to different consumers"
        );
        if self.bytes <= kept {
            return;
        }
        let moved = bytes.min(self.bytes - kept);
        self.bytes -= moved;
        other.bytes += moved;
    }

    /// Adjusts the reservation to the bytes that are really used. One large item can make this more
    /// than was reserved.
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

// With the feature `shuttle`, locks work only inside the model checker's tests.
#[cfg(not(feature = "shuttle"))]
#[cfg(test)]
#[path = "buffers/tests.rs"]
mod tests;
