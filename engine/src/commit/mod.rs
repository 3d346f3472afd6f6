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
//! out who has what they want, hands the lead to the first thread that has not, or to nobody.
//!
//! Why nobody is forgotten: the flush publishes *before* the leader takes the queue's lock, and a
//! thread looks *after* it has taken it. Either the thread sees what was published, or the leader
//! sees the thread in the queue. A thread that gives up (time-out) leaves under the queue's lock; if
//! it was handed the lead in the same moment, it resigns at once and so passes it on.
//!
//! A change is on the dirty list, and so in the next flush, before its writer comes here: the list
//! is filled under the vBucket's lock when the change is appended. A flush that fails puts back what
//! it took, so the next one takes it again.

mod build;
mod delete;
mod flush;
mod purge;
mod queue;
mod recover;
mod retire;
mod sync;
mod ticket;

pub(crate) use queue::{Committer, Want};
pub use ticket::Ticket;

use crate::config::Durability;
use crate::error::{Error, Result};
use crate::inner::Inner;
use queue::Joined;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Inner {
    /// Returns whether the want is fulfilled, or why it never will be; `None` to go on waiting.
    /// Takes no lock but that of the health, and that only if it is not `Open`.
    fn look(&self, want: &Want) -> Option<Result<()>> {
        match *want {
            Want::Durable {
                vb,
                generation,
                seqno,
                level,
            } => {
                let Some(cell) = self.vbs.get(vb.index()) else {
                    return Some(Err(Error::VbGone { vb }));
                };
                // ORDER: the seqno first, the generation second; see `VbCell`.
                let reached = match level {
                    Durability::Memory => seqno,
                    Durability::Logged => cell.persisted(),
                    Durability::Synced => cell.synced(),
                };
                if cell.check_generation(generation).is_err() {
                    return Some(Err(Error::VbGone { vb }));
                }
                if reached >= seqno {
                    return Some(Ok(()));
                }
            }
            Want::Room => {
                if self.memory.used() < self.tuning().memory_quota {
                    return Some(Ok(()));
                }
            }
            Want::Lead => return None,
        }
        if let Err(unwell) = self.health.check() {
            return Some(Err(unwell));
        }
        self.commit.is_closed().then_some(Err(Error::Closed))
    }

    /// Waits until the want is fulfilled. `timeout` is real time. The caller holds no lock.
    pub(crate) fn wait(&self, want: &Want, timeout: Option<Duration>) -> Result<()> {
        let deadline = timeout.map(|timeout| self.commit.now().saturating_add(timeout));
        loop {
            if let Some(answer) = self.look(want) {
                return answer;
            }
            match self.commit.join(want, |want| self.look(want).is_some()) {
                Joined::Fulfilled => {}
                Joined::Leads => {
                    let flushed = self.flush_as_leader(want.wants_sync());
                    let is_stuck = matches!(flushed, Ok(0)) && matches!(want, Want::Room);
                    if is_stuck && self.look(want).is_none() {
                        return Err(Error::Busy {
                            what: "memory quota",
                        });
                    }
                }
                Joined::Waits(slot) => {
                    if !slot.park(deadline, &self.commit) {
                        if self.commit.leave(&slot) {
                            self.resign();
                        }
                        return self
                            .look(want)
                            .unwrap_or(Err(Error::Busy { what: want.what() }));
                    }
                    if slot.was_handed_lead() {
                        // An error is in the health, where `look` finds it.
                        drop(self.flush_as_leader(want.wants_sync()));
                    }
                }
            }
            if deadline.is_some_and(|deadline| self.commit.now() >= deadline) {
                return self
                    .look(want)
                    .unwrap_or(Err(Error::Busy { what: want.what() }));
            }
        }
    }

    /// Waits for the lead, runs `work` with it and resigns. A panic in `work` fails the engine.
    pub(crate) fn with_lead<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        if let Joined::Waits(slot) = self.commit.join(&Want::Lead, |_| false) {
            while !slot.was_handed_lead() {
                slot.park(None, &self.commit);
            }
        }
        self.lead(work)
    }

    /// Waits for the lead and flushes once. Returns how many vBuckets took part.
    pub(crate) fn flush_in_turn(&self, sync: bool) -> Result<usize> {
        self.with_lead(|| self.flush(sync))
    }

    fn flush_as_leader(&self, sync: bool) -> Result<usize> {
        self.lead(|| self.flush(sync))
    }

    /// Runs `work` and resigns. The caller has the lead.
    fn lead<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let outcome = catch_unwind(AssertUnwindSafe(work));
        let result = outcome.unwrap_or_else(|panic| {
            let said = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            self.fail(format!("a flush panicked: {said}"));
            Err(self.health.check().err().unwrap_or(Error::Closed))
        });
        self.resign();
        result
    }

    fn resign(&self) {
        self.commit.resign(|want| self.look(want).is_some());
    }

    /// Asks the syncer to sync soon: a stream has read what is not synced yet.
    pub(crate) fn demand_sync(&self) {
        if !self.commit.sync_demanded.swap(true, Ordering::AcqRel) {
            self.signals.syncer.wake();
        }
    }

    /// Asks the flusher to flush soon: somebody has a ticket and may not be waiting.
    pub(crate) fn demand_flush(&self) {
        if !self.commit.demanded.swap(true, Ordering::AcqRel) {
            self.signals.flusher.wake();
        }
    }
}
