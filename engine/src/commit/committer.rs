//! Group commit: whoever needs a change on disk flushes for everybody.
//!
//! # Protocol
//! There is one *lead*. It is a role, not a mutex: whoever has it may flush, sync or delete a
//! vBucket, and nobody else may. A thread that wants something (its change persisted or synced,
//! room in memory, or the lead itself) does this, holding no lock:
//!
//! 1. It looks whether it has what it wants. Then it is done.
//! 2. Under the queue's lock it looks again. If there is no leader it becomes the leader, flushes
//!    once, resigns, and starts again. Otherwise it joins the queue.
//! 3. It parks until the leader wakes it: because it has what it wants, because of an error, or to
//!    hand it the lead.
//!
//! A leader resigns after its flush has been published: under the queue's lock it takes everybody
//! out who has what they want, hands the lead to the first thread that has not, or to nobody. Wakers
//! may be the program's own code, and freeing changes takes time that nobody should wait for: the leader
//! collects both and comes to them after it has resigned, when it holds nothing.
//!
//! Why nobody is forgotten: the flush publishes *before* the leader takes the queue's lock, and a
//! thread looks *after* it has taken it. Either the thread sees what was published, or the leader
//! sees the thread in the queue. A thread that gives up (time-out) leaves under the queue's lock; if
//! it was handed the lead in the same moment, it resigns at once and so passes it on.
//!
//! A change is on the dirty list, and so in the next flush, before its writer comes here: the list
//! is filled under the vBucket's lock when the change is appended. A flush that fails puts back what
//! it took, so the next one takes it again.

use super::flush::{Flush, Flushed};
use super::lead::{Candidate, Lead};
use super::queue::{CommitQueue, Joined};
use super::want::Want;
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

/// Hands out the lead, and flushes with it for whoever waits.
pub(crate) struct Committer {
    queue: CommitQueue,
    flush: Flush,
    gate: Arc<Gate>,
    vbs: Arc<VBuckets>,
    health: Arc<Health>,
    memory: Arc<Memory>,
    tuning: Arc<CurrentTuning>,
    /// The last flush has been done: what is not durable now never will be by this engine.
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

    /// Returns whether the want is fulfilled, or why it never will be; `None` to go on waiting.
    /// Takes no locks except leaves.
    fn look(&self, want: &Want) -> Option<Result<()>> {
        match want {
            Want::Durable {
                vb,
                generation,
                seqno,
                level,
            } => {
                // ORDER: the seqno first, the generation second; see `VbCell`.
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
            Want::Room { bytes } => {
                if self.memory.has_room(*bytes, self.tuning.get().memory_quota) {
                    return Some(Ok(()));
                }
            }
        }
        if let Err(unhealthy) = self.health.check() {
            return Some(Err(unhealthy));
        }
        let is_closed = self.is_closed.load(Ordering::Acquire);
        is_closed.then_some(Err(Error::Closed))
    }

    /// Like [`Self::look`], for a caller outside the queue.
    pub(super) fn poll(&self, want: &Want) -> Option<Result<()>> {
        match self.gate.check_process() {
            Ok(()) => self.look(want),
            Err(forked) => Some(Err(forked)),
        }
    }

    fn is_settled(&self, want: &Want) -> bool {
        self.look(want).is_some()
    }

    /// Waits until the want is fulfilled. `timeout` is real time. The caller holds no lock.
    ///
    /// # Errors
    /// Why it never will be fulfilled; [`Error::NotYetDurable`], or [`Error::Busy`] for room in memory,
    /// when the time is over; [`Error::Forked`].
    pub(crate) fn wait(&self, want: &Want, timeout: Option<Duration>) -> Result<()> {
        assert_none_held();
        self.gate.check_process()?;
        let deadline = timeout.map(|timeout| self.queue.now().saturating_add(timeout));
        loop {
            if let Some(answer) = self.look(want) {
                return answer;
            }
            let candidate = Candidate::new();
            match self.queue.join(Some(want), |want| self.is_settled(want)) {
                Joined::Fulfilled => {}
                Joined::Leads => {
                    let seen = self.memory.releases();
                    let flushed = self.flush_as_leader(candidate, want);
                    let is_idle = flushed.is_ok_and(|flushed| flushed.is_idle());
                    let is_stuck = is_idle && matches!(want, Want::Room { .. });
                    if is_stuck && self.look(want).is_none() {
                        let left = deadline.map(|at| at.saturating_sub(self.queue.now()));
                        if !self.memory.wait_for_release(seen, left) {
                            return self.look(want).unwrap_or(Err(want.time_is_over()));
                        }
                    }
                }
                Joined::Waits(slot) => {
                    if !slot.park(deadline, &self.queue) {
                        if self.queue.leave(&slot) {
                            let is_settled = |want: &Want| self.is_settled(want);
                            drop(candidate.lead(&self.queue, &is_settled));
                        }
                        return self.look(want).unwrap_or(Err(want.time_is_over()));
                    }
                    if slot.was_handed_lead() {
                        // An error is in the health, where `look` finds it.
                        drop(self.flush_as_leader(candidate, want));
                    }
                }
            }
            if deadline.is_some_and(|deadline| self.queue.now() >= deadline) {
                return self.look(want).unwrap_or(Err(want.time_is_over()));
            }
        }
    }

    /// Waits for the lead, runs `work` with it and resigns. A panic in `work` fails the engine. The
    /// caller holds no lock.
    pub(crate) fn with_lead<R>(&self, work: impl FnOnce(&mut Lead<'_>) -> Result<R>) -> Result<R> {
        self.gate.opener().check_id()?;
        let candidate = Candidate::new();
        if let Joined::Waits(slot) = self.queue.join(None, |_| false) {
            while !slot.was_handed_lead() {
                slot.park(None, &self.queue);
            }
        }
        self.lead(candidate, work)
    }

    /// Waits for the lead and flushes once. Returns how many vBuckets took part.
    pub(crate) fn flush_in_turn(&self, sync: bool) -> Result<usize> {
        let flushed = self.with_lead(|lead| self.flush.run(lead, sync, 0))?;
        Ok(flushed.vbuckets)
    }

    /// Waits for the lead and resigns, so that whoever waits looks again.
    pub(crate) fn let_all_look(&self) -> Result<()> {
        self.with_lead(|_| Ok(()))
    }

    /// Flushes and syncs what there is now. What others write meanwhile is not waited for.
    ///
    /// # Errors
    /// [`Error::VbFailed`] if a vBucket's changes cannot be flushed; those of all others are synced then.
    pub(crate) fn flush_all(&self) -> Result<()> {
        let now: Vec<_> = self
            .vbs
            .iter()
            .map(|vb| {
                // ORDER: the generation first, so that what is waited for is of that life or older.
                let generation = vb.cell.generation();
                (vb, generation, vb.cell.lock().checkpoints.high_seqno())
            })
            .collect();
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

    /// Says that the last flush has been done. Whoever waits is told by [`Self::let_all_look`].
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Returns whether this is another process than the one that opened the store.
    pub(super) fn is_in_other_process(&self) -> bool {
        self.gate.check_process().is_err()
    }

    /// Registers a ticket's waker in place of the one it had. Returns false if the want is settled.
    pub(super) fn register(&self, ticket: u64, want: &Want, waker: &Waker) -> bool {
        self.queue
            .register(ticket, want, waker, |want| self.is_settled(want))
    }

    /// Removes a ticket's waker.
    pub(super) fn unregister(&self, ticket: u64) {
        self.queue.unregister(ticket);
    }

    fn flush_as_leader(&self, candidate: Candidate, want: &Want) -> Result<Flushed> {
        self.lead(candidate, |lead| {
            self.flush.run(lead, want.wants_sync(), want.room())
        })
    }

    /// Runs `work` and resigns. The queue has given this thread the lead.
    fn lead<R>(
        &self,
        candidate: Candidate,
        work: impl FnOnce(&mut Lead<'_>) -> Result<R>,
    ) -> Result<R> {
        let is_settled = |want: &Want| self.is_settled(want);
        let mut lead = candidate.lead(&self.queue, &is_settled);
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut lead)));
        outcome.unwrap_or_else(|panic| {
            let failed = self
                .health
                .fail(format!("a flush panicked: {}", text_of(&*panic)));
            lead.run_after(failed);
            Err(self.health.check().err().unwrap_or(Error::Closed))
        })
    }
}

/// Returns what a panic said.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or_default()
}
