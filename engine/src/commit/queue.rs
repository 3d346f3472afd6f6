//! The commit queue: the threads and tickets that wait, and whether there is a leader. The protocol
//! is in [`super::committer`].

use super::wait_condition::WaitCondition;
use crate::wakers::Wakers;
use crossbeam::sync::{Parker, Unparker};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Waker;
use std::time::Duration;
use vbstore_core::lock_order::LockRank;
use vbstore_core::sync::Mutex;
use vbstore_core::{Clock, SystemClock};

const WAITING: u8 = 0;
const WOKEN: u8 = 1;
const LEADS: u8 = 2;

/// A thread in the queue, parked or about to park.
pub(super) struct ParkSlot {
    state: AtomicU8,
    unparker: Unparker,
    /// The parker of this wait alone. Set only when the thread's own parker is destroyed already.
    parker: Option<Mutex<Parker>>,
}

thread_local! {
    /// One parker per thread: making one costs an allocation, and a writing thread parks often.
    static PARKER: RefCell<Parker> = RefCell::new(Parker::new());
}

impl ParkSlot {
    fn new() -> Arc<Self> {
        let own = PARKER.try_with(|parker| parker.borrow().unparker().clone());
        // At thread exit the thread-local may be destroyed already. A destructor of another
        // thread-local may still write then.
        let (unparker, parker) = own.map_or_else(
            |_| {
                let parker = Parker::new();
                let unparker = parker.unparker().clone();
                (unparker, Some(Mutex::new(LockRank::Leaf, parker)))
            },
            |unparker| (unparker, None),
        );
        Arc::new(Self {
            state: AtomicU8::new(WAITING),
            unparker,
            parker,
        })
    }

    /// Parks the thread until it is woken or handed the lead. Returns false if the deadline passed
    /// first.
    pub(super) fn park(&self, deadline: Option<Duration>, queue: &CommitQueue) -> bool {
        loop {
            // Checked before each park, because `park` may return at once: the token of an earlier
            // wait may be left over.
            if self.state.load(Ordering::Acquire) != WAITING {
                return true;
            }
            match deadline {
                None => self.with_parker(Parker::park),
                Some(deadline) => {
                    let left = deadline.saturating_sub(queue.now());
                    if left.is_zero() {
                        return false;
                    }
                    self.with_parker(|parker| parker.park_timeout(left));
                }
            }
        }
    }

    fn with_parker(&self, park: impl FnOnce(&Parker)) {
        match &self.parker {
            Some(parker) => park(&parker.lock()),
            None => PARKER.with_borrow(park),
        }
    }

    pub(super) fn was_handed_lead(&self) -> bool {
        self.state.load(Ordering::Acquire) == LEADS
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        self.unparker.unpark();
    }
}

/// A thread that waits in the queue.
struct WaitingThread {
    /// `None` if the thread waits for the lead itself.
    condition: Option<WaitCondition>,
    slot: Arc<ParkSlot>,
}

impl WaitingThread {
    fn is_settled(&self, is_settled: impl Fn(&WaitCondition) -> bool) -> bool {
        self.condition.as_ref().is_some_and(is_settled)
    }
}

/// A ticket that waits in the queue.
struct WaitingTicket {
    condition: WaitCondition,
    waker: Waker,
}

/// The waiting threads and tickets. A program may have many thousand tickets in flight. So
/// registering or dropping one ticket must not visit the others. Only a leader that resigns visits
/// all of them, once per flush.
#[derive(Default)]
struct CommitQueueState {
    has_leader: bool,
    /// In order of arrival.
    threads: VecDeque<WaitingThread>,
    /// By ticket number.
    tickets: BTreeMap<u64, WaitingTicket>,
    wanted: WantedTotals,
}

/// The sums of the conditions of all waiters in the queue, so that a flush need not visit the
/// waiters.
#[derive(Debug, Default, PartialEq, Eq)]
struct WantedTotals {
    /// The number of waiters that want a sync.
    syncs: usize,
    /// For each amount of room, in bytes, the number of waiters that want it.
    rooms: BTreeMap<u64, usize>,
}

impl WantedTotals {
    fn add(&mut self, condition: &WaitCondition) {
        self.syncs += usize::from(condition.wants_sync());
        if let WaitCondition::Room { bytes } = condition {
            *self.rooms.entry(*bytes).or_insert(0) += 1;
        }
    }

    /// Subtracts a condition that was added before.
    fn remove(&mut self, condition: &WaitCondition) {
        self.syncs -= usize::from(condition.wants_sync());
        if let WaitCondition::Room { bytes } = condition {
            let left = self
                .rooms
                .remove(bytes)
                .and_then(|count| count.checked_sub(1));
            assert!(left.is_some(), "no counted waiter wants {bytes} bytes");
            if let Some(left) = left.filter(|left| *left > 0) {
                self.rooms.insert(*bytes, left);
            }
        }
    }
}

impl CommitQueueState {
    fn put_thread(&mut self, thread: WaitingThread) {
        if let Some(condition) = &thread.condition {
            self.wanted.add(condition);
        }
        self.threads.push_back(thread);
    }

    fn put_ticket(&mut self, id: u64, ticket: WaitingTicket) {
        self.wanted.add(&ticket.condition);
        let before = self.tickets.insert(id, ticket);
        assert!(before.is_none(), "ticket {id} is in the queue already");
    }

    /// Removes a ticket from the queue.
    fn take_ticket(&mut self, id: u64) -> Option<WaitingTicket> {
        let ticket = self.tickets.remove(&id)?;
        self.wanted.remove(&ticket.condition);
        Some(ticket)
    }

    /// Removes the threads for which `is_taken` returns true.
    fn take_threads(
        &mut self,
        is_taken: impl FnMut(&WaitingThread) -> bool,
    ) -> VecDeque<WaitingThread> {
        let all = std::mem::take(&mut self.threads);
        let (taken, left): (VecDeque<_>, _) = all.into_iter().partition(is_taken);
        self.threads = left;
        for condition in taken.iter().filter_map(|thread| thread.condition.as_ref()) {
            self.wanted.remove(condition);
        }
        taken
    }
}

/// The result of joining the queue.
pub(super) enum JoinOutcome {
    /// The condition is settled: it is met, or it cannot be met any more.
    Fulfilled,
    /// The caller is now the leader.
    Leads,
    /// The caller is in the queue and must park on this slot.
    Waits(Arc<ParkSlot>),
}

/// The commit queue, and the wakers to run when the leader resigns.
pub(super) struct CommitQueue {
    queue: Mutex<CommitQueueState>,
    wakers: Wakers,
    /// For time-outs, which are in real time even if the engine was given another clock.
    real_clock: SystemClock,
}

impl CommitQueue {
    pub(super) fn new(wakers: Wakers) -> Self {
        Self {
            queue: Mutex::new(LockRank::Queue, CommitQueueState::default()),
            wakers,
            real_clock: SystemClock::new(),
        }
    }

    /// Returns the queue of wakers, which run once no lock is held.
    pub(super) fn wakers(&self) -> &Wakers {
        &self.wakers
    }

    pub(super) fn now(&self) -> Duration {
        self.real_clock.monotonic()
    }

    /// Joins the queue: step 2 of the protocol. With the condition `None`, the caller waits for the
    /// lead itself.
    pub(super) fn join(
        &self,
        condition: Option<&WaitCondition>,
        is_settled: impl Fn(&WaitCondition) -> bool,
    ) -> JoinOutcome {
        let mut queue = self.queue.lock();
        if condition.is_some_and(is_settled) {
            return JoinOutcome::Fulfilled;
        }
        if !queue.has_leader {
            queue.has_leader = true;
            return JoinOutcome::Leads;
        }
        let slot = ParkSlot::new();
        queue.put_thread(WaitingThread {
            condition: condition.cloned(),
            slot: Arc::clone(&slot),
        });
        JoinOutcome::Waits(slot)
    }

    /// Registers a ticket's waker in the queue in place of its previous one. Returns false, and
    /// registers nothing, if the condition is settled.
    pub(super) fn register(
        &self,
        id: u64,
        condition: &WaitCondition,
        waker: &Waker,
        is_settled: impl Fn(&WaitCondition) -> bool,
    ) -> bool {
        // Cloning and dropping a waker runs the program's code, which must not run under the lock.
        let ticket = WaitingTicket {
            condition: condition.clone(),
            waker: waker.clone(),
        };
        let mut queue = self.queue.lock();
        let replaced = queue.take_ticket(id);
        let must_wait = !is_settled(condition);
        let refused = if must_wait {
            queue.put_ticket(id, ticket);
            None
        } else {
            Some(ticket)
        };
        drop(queue);
        drop((replaced, refused));
        must_wait
    }

    /// Removes a ticket's waker from the queue.
    pub(super) fn unregister(&self, id: u64) {
        let taken = self.queue.lock().take_ticket(id);
        drop(taken);
    }

    /// Removes a thread from the queue. Returns true if it had been handed the lead, which it must
    /// then take and resign.
    pub(super) fn leave(&self, slot: &Arc<ParkSlot>) -> bool {
        let mut queue = self.queue.lock();
        queue.take_threads(|thread| Arc::ptr_eq(&thread.slot, slot));
        slot.was_handed_lead()
    }

    /// Resigns the lead: wakes every thread whose condition is settled, and hands the lead to the
    /// first thread that is left. Returns the wakers of settled tickets, to be called once the
    /// caller holds no lock.
    pub(super) fn resign(&self, is_settled: impl Fn(&WaitCondition) -> bool) -> TicketWakers {
        let mut queue = self.queue.lock();
        assert!(queue.has_leader, "resigned without the lead");
        let woken = queue.take_threads(|thread| thread.is_settled(&is_settled));
        let tickets = queue.tickets.iter();
        let settled: Vec<u64> = tickets
            .filter(|(_, ticket)| is_settled(&ticket.condition))
            .map(|(id, _)| *id)
            .collect();
        let tickets: Vec<WaitingTicket> = settled
            .into_iter()
            .filter_map(|id| queue.take_ticket(id))
            .collect();
        let next_leader = queue.threads.pop_front();
        queue.has_leader = next_leader.is_some();
        if let Some(next_leader) = next_leader {
            if let Some(condition) = &next_leader.condition {
                queue.wanted.remove(condition);
            }
            // Set under the lock, so that a thread that leaves the queue meanwhile sees that it
            // leads.
            next_leader.slot.set(LEADS);
        }
        drop(queue);
        for thread in woken {
            thread.slot.set(WOKEN);
        }
        TicketWakers {
            wakers: tickets.into_iter().map(|ticket| ticket.waker).collect(),
            calls: self.wakers.clone(),
        }
    }

    /// Returns the largest room, in bytes, that a waiter in the queue wants; 0 if none wants room.
    pub(super) fn room_awaited(&self) -> u64 {
        let queue = self.queue.lock();
        let most = queue.wanted.rooms.last_key_value();
        most.map_or(0, |(bytes, _)| *bytes)
    }

    /// Returns whether a waiter in the queue wants a sync.
    pub(super) fn is_sync_awaited(&self) -> bool {
        self.queue.lock().wanted.syncs > 0
    }
}

/// Wakers of settled tickets. They run the program's code, so they are posted when no lock is held.
#[must_use = "call `wake` once no lock is held"]
pub(super) struct TicketWakers {
    wakers: Vec<Waker>,
    calls: Wakers,
}

impl TicketWakers {
    pub(super) fn wake(self) {
        for waker in self.wakers {
            self.calls.post(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durability::Durability;
    use crate::vbuckets::Vb;
    use std::cell::Cell;
    use vbstore_core::record::VbState;
    use vbstore_core::{FailoverLog, Seqno, VbCell, VbId, VbUuid};

    fn durable(seqno: u64, level: Durability) -> WaitCondition {
        let uuid = VbUuid::new(1);
        let cell = VbCell::new(VbId::new(0), VbState::new(uuid), FailoverLog::new(uuid, 0));
        WaitCondition::Durable {
            vb: Arc::new(Vb::new(cell)),
            generation: 0,
            seqno: Seqno::new(seqno),
            level,
        }
    }

    /// Counts the conditions of all waiters one by one.
    fn counted(queue: &CommitQueue) -> WantedTotals {
        let queue = queue.queue.lock();
        let mut wanted = WantedTotals::default();
        let threads = queue.threads.iter().filter_map(|t| t.condition.as_ref());
        threads.for_each(|condition| wanted.add(condition));
        queue
            .tickets
            .values()
            .for_each(|ticket| wanted.add(&ticket.condition));
        wanted
    }

    #[test]
    fn the_totals_match_the_waiters_in_the_queue() {
        let queue = CommitQueue::new(Wakers::inline());
        let waker = Waker::noop();
        // The highest synced seqno.
        let synced = Cell::new(0);
        let is_settled = |condition: &WaitCondition| match condition {
            WaitCondition::Durable { seqno, .. } => seqno.get() <= synced.get(),
            WaitCondition::Room { .. } => false,
        };
        let conditions = [
            durable(1, Durability::Synced),
            durable(2, Durability::Logged),
            durable(3, Durability::Synced),
        ];
        let check = |syncs, room| {
            let queue = (counted(&queue), &queue);
            assert_eq!(queue.0, queue.1.queue.lock().wanted);
            assert_eq!((queue.0.syncs, queue.1.room_awaited()), (syncs, room));
            assert_eq!(queue.1.is_sync_awaited(), syncs > 0);
        };
        assert!(matches!(queue.join(None, is_settled), JoinOutcome::Leads));
        for (id, condition) in (0..).zip(&conditions) {
            assert!(queue.register(id, condition, waker, is_settled));
            assert!(queue.register(id, condition, waker, is_settled), "again");
        }
        check(2, 0);
        let rooms =
            [10, 30, 10].map(|bytes| queue.join(Some(&WaitCondition::Room { bytes }), is_settled));
        check(2, 30);
        let [
            JoinOutcome::Waits(first),
            JoinOutcome::Waits(second),
            JoinOutcome::Waits(third),
        ] = rooms
        else {
            panic!("a waiter for room was settled");
        };
        assert!(!queue.leave(&third));
        check(2, 30);

        synced.set(1);
        queue.resign(is_settled).wake();
        assert!(first.was_handed_lead(), "the first to arrive leads next");
        check(1, 30);
        assert!(
            !queue.register(0, &conditions[0], waker, is_settled),
            "settled"
        );
        queue.unregister(2);
        queue.unregister(2);
        check(0, 30);
        queue.resign(is_settled).wake();
        assert!(second.was_handed_lead());
        check(0, 0);
        synced.set(2);
        queue.resign(is_settled).wake();
        assert_eq!(queue.queue.lock().tickets.len(), 0);
        assert!(matches!(queue.join(None, is_settled), JoinOutcome::Leads));
    }
}
