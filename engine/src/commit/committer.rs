//! Group commit: the thread that needs a change on disk flushes the changes of all writers.
//!
//! # Protocol
//! There is one *lead*. It is a role, not a mutex: only the thread that holds it, the leader, may
//! flush, sync or delete a vBucket. A thread waits for one of these conditions: its change is
//! persisted or synced, memory has room, or the thread has the lead itself. Holding no lock, it
//! does this:
//!
//! 1. It checks whether its condition is settled: met, or impossible to meet after a failure. If
//!    so, it is done.
//! 2. Under the queue's lock it checks again. If there is no leader it becomes the leader, flushes
//!    once, resigns, and starts over. Otherwise it joins the queue.
//! 3. It parks until the leader wakes it: because its condition is settled, or to hand it the lead.
//!
//! A leader resigns after its flush has been published. Under the queue's lock it removes every
//! waiter whose condition is settled. Then it hands the lead to the first thread that is left, if
//! any. Wakers may run the program's own code, and freeing changes takes time. So the leader
//! collects both, and runs them after it has resigned and holds no lock.
//!
//! Why no wake-up is lost: the flush publishes *before* the leader takes the queue's lock, and a
//! thread checks *after* it has taken that lock. Either the thread sees what was published, or the
//! leader sees the thread in the queue. A thread that times out leaves under the queue's lock. If
//! it was handed the lead at the same moment, it resigns at once and so passes the lead on.
//!
//! A writer never waits for a change that no flush will take. Its vBucket was put onto the dirty
//! list when the change was appended, under the vBucket's lock, and so before the writer waits
//! here. A flush that fails puts back what it took, so the next flush takes it again.

use super::flush::{Flush, FlushOutcome};
use super::lead::{Lead, LeadCandidate};
use super::queue::{CommitQueue, JoinOutcome};
use super::wait_condition::WaitCondition;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::health::Health;
use crate::memory::Memory;
use crate::tuning::CurrentTuning;
use crate::vbuckets::VBuckets;
use crate::wakers::Wakers;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;
use vbstore_core::lock_order::assert_none_held;

/// Hands out the lead, and flushes on behalf of the threads that wait.
pub(crate) struct Committer {
    queue: CommitQueue,
    flush: Flush,
    gate: Arc<Gate>,
    vbs: Arc<VBuckets>,
    health: Arc<Health>,
    memory: Arc<Memory>,
    tuning: Arc<CurrentTuning>,
    /// Set after the last flush. A change that is not durable by then does not become durable in
    /// this engine any more.
    is_closed: AtomicBool,
}

impl Committer {
    pub(crate) fn new(
        flush: Flush,
        gate: Arc<Gate>,
        vbs: Arc<VBuckets>,
        health: Arc<Health>,
        memory: Arc<Memory>,
        tuning: Arc<CurrentTuning>,
        wakers: Wakers,
    ) -> Self {
        Self {
            queue: CommitQueue::new(wakers),
            flush,
            gate,
            vbs,
            health,
            memory,
            tuning,
            is_closed: AtomicBool::new(false),
        }
    }

    /// Returns the outcome of a condition once it is settled: `Ok` if it is met, the error if it
    /// cannot be met. Returns `None` while the caller must keep waiting. Takes no locks except
    /// leaves.
    fn outcome_of(&self, condition: &WaitCondition) -> Option<Result<()>> {
        match condition {
            WaitCondition::Durable {
                vb,
                generation,
                seqno,
                level,
            } => {
                // ORDER: read the seqno first, the generation second; see `VbCell`.
                let reached = match level {
                    Durability::Memory => *seqno,
                    Durability::Logged => vb.cell.persisted(),
                    Durability::Synced => vb.cell.synced(),
                };
                if vb.cell.check_generation(*generation).is_err() {
                    return Some(Err(Error::VbGone { vb: vb.id() }));
                }
                if reached >= *seqno {
                    return Some(Ok(()));
                }
                if let Err(failed) = vb.check() {
                    return Some(Err(failed));
                }
            }
            WaitCondition::Room { bytes } => {
                if self.memory.has_room(*bytes, self.tuning.get().memory_quota) {
                    return Some(Ok(()));
                }
            }
        }
        // Checked after the condition itself: a change that became durable before a failure is
        // still acknowledged.
        if let Err(unhealthy) = self.health.check() {
            return Some(Err(unhealthy));
        }
        let is_closed = self.is_closed.load(Ordering::Acquire);
        is_closed.then_some(Err(Error::Closed))
    }

    /// Like [`Self::outcome_of`], for a caller that does not wait in the queue. Fails in a forked
    /// process.
    pub(super) fn poll(&self, condition: &WaitCondition) -> Option<Result<()>> {
        match self.gate.check_process() {
            Ok(()) => self.outcome_of(condition),
            Err(forked) => Some(Err(forked)),
        }
    }

    fn is_settled(&self, condition: &WaitCondition) -> bool {
        self.outcome_of(condition).is_some()
    }

    /// Blocks until the condition is met. `timeout` is real time. May flush on this thread. The
    /// caller holds no lock.
    ///
    /// # Errors
    /// The reason why the condition cannot be met. When the time is over, [`Error::NotYetDurable`],
    /// or [`Error::Busy`] for room in memory. [`Error::Forked`].
    pub(crate) fn wait(&self, condition: &WaitCondition, timeout: Option<Duration>) -> Result<()> {
        assert_none_held();
        self.gate.check_process()?;
        let deadline = timeout.map(|timeout| self.queue.now().saturating_add(timeout));
        loop {
            if let Some(answer) = self.outcome_of(condition) {
                return answer;
            }
            let candidate = LeadCandidate::new();
            match self
                .queue
                .join(Some(condition), |condition| self.is_settled(condition))
            {
                JoinOutcome::Fulfilled => {}
                JoinOutcome::Leads => {
                    // Read before the flush, so that a release during the flush is not missed
                    // below.
                    let seen = self.memory.releases();
                    let flushed = self.flush_as_leader(candidate, condition);
                    let is_idle = flushed.is_ok_and(|flushed| flushed.is_idle());
                    let is_stuck = is_idle && matches!(condition, WaitCondition::Room { .. });
                    // The flush found nothing to do, so another one would free nothing. Room can
                    // only come from reservations that end.
                    if is_stuck && self.outcome_of(condition).is_none() {
                        let left = deadline.map(|at| at.saturating_sub(self.queue.now()));
                        if !self.memory.wait_for_release(seen, left) {
                            return self
                                .outcome_of(condition)
                                .unwrap_or(Err(condition.timeout_error()));
                        }
                    }
                }
                JoinOutcome::Waits(slot) => {
                    if !slot.park(deadline, &self.queue) {
                        // The lead may have been handed over between the time-out and the
                        // departure. It must be passed on, or no thread would lead any more.
                        if self.queue.leave(&slot) {
                            let is_settled = |condition: &WaitCondition| self.is_settled(condition);
                            drop(candidate.lead(&self.queue, &is_settled));
                        }
                        return self
                            .outcome_of(condition)
                            .unwrap_or(Err(condition.timeout_error()));
                    }
                    if slot.was_handed_lead() {
                        // The error is recorded in the health, where `outcome_of` finds it.
                        drop(self.flush_as_leader(candidate, condition));
                    }
                }
            }
            if deadline.is_some_and(|deadline| self.queue.now() >= deadline) {
                return self
                    .outcome_of(condition)
                    .unwrap_or(Err(condition.timeout_error()));
            }
        }
    }

    /// Blocks until this thread has the lead, runs `work` with it and resigns. A panic in `work`
    /// fails the engine. The caller holds no lock.
    pub(crate) fn with_lead<R>(&self, work: impl FnOnce(&mut Lead<'_>) -> Result<R>) -> Result<R> {
        self.gate.opener().check_id()?;
        let candidate = LeadCandidate::new();
        if let JoinOutcome::Waits(slot) = self.queue.join(None, |_| false) {
            while !slot.was_handed_lead() {
                slot.park(None, &self.queue);
            }
        }
        self.lead(candidate, work)
    }

    /// Waits for the lead and flushes once. Returns the number of vBuckets that were written.
    pub(crate) fn flush_in_turn(&self, sync: bool) -> Result<usize> {
        let flushed = self.with_lead(|lead| self.flush.run(lead, sync, 0))?;
        Ok(flushed.vbuckets)
    }

    /// Waits for the lead and resigns. That makes all waiting threads and tickets check their
    /// conditions again.
    pub(crate) fn recheck_waiters(&self) -> Result<()> {
        self.with_lead(|_| Ok(()))
    }

    /// Flushes and syncs every change that was made before the call. Does not wait for changes that
    /// other threads make meanwhile.
    ///
    /// # Errors
    /// [`Error::VbFailed`] if the changes of a vBucket cannot be flushed. The changes of all other
    /// vBuckets are synced by then.
    pub(crate) fn flush_all(&self) -> Result<()> {
        let now: Vec<_> = self
            .vbs
            .iter()
            .map(|vb| {
                // ORDER: read the generation first. The seqno then belongs to that generation or to
                // a later one. In the second case the loop below sees that the generation has
                // changed, and does not wait for the seqno.
                let generation = vb.cell.generation();
                (vb, generation, vb.cell.lock().checkpoints.high_seqno())
            })
            .collect();
        // One flush may not be enough: it is limited by `flush_bytes_max`.
        loop {
            self.flush_in_turn(true)?;
            let is_done = now.iter().all(|(vb, generation, high)| {
                vb.cell.synced() >= *high
                    || vb.cell.check_generation(*generation).is_err()
                    || vb.has_failed()
            });
            if is_done {
                return now.iter().try_for_each(|(vb, ..)| vb.check());
            }
        }
    }

    /// Marks the last flush as done. [`Self::recheck_waiters`] then wakes the threads that still
    /// wait.
    pub(crate) fn mark_closed(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Returns whether this process is a fork of the one that opened the store.
    pub(super) fn is_in_other_process(&self) -> bool {
        self.gate.check_process().is_err()
    }

    /// Registers a ticket's waker in place of its previous one. Returns false if the condition is
    /// settled.
    pub(super) fn register(&self, ticket: u64, condition: &WaitCondition, waker: &Waker) -> bool {
        self.queue.register(ticket, condition, waker, |condition| {
            self.is_settled(condition)
        })
    }

    /// Removes a ticket's waker from the queue.
    pub(super) fn unregister(&self, ticket: u64) {
        self.queue.unregister(ticket);
    }

    fn flush_as_leader(
        &self,
        candidate: LeadCandidate,
        condition: &WaitCondition,
    ) -> Result<FlushOutcome> {
        self.lead(candidate, |lead| {
            self.flush
                .run(lead, condition.wants_sync(), condition.room())
        })
    }

    /// Runs `work` and resigns. The queue has already given the lead to this thread.
    fn lead<R>(
        &self,
        candidate: LeadCandidate,
        work: impl FnOnce(&mut Lead<'_>) -> Result<R>,
    ) -> Result<R> {
        let is_settled = |condition: &WaitCondition| self.is_settled(condition);
        let mut lead = candidate.lead(&self.queue, &is_settled);
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut lead)));
        outcome.unwrap_or_else(|panic| {
            let failed = self
                .health
                .fail(format!("a flush panicked: {}", message_of(&*panic)));
            lead.run_after(failed);
            Err(self.health.check().err().unwrap_or(Error::Closed))
        })
    }
}

/// Returns the message of a panic, or an empty string if its payload is not a string.
fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or_default()
}
