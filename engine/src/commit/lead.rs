//! The lead as a token: only the thread that holds it may flush, sync or delete a vBucket.

use super::queue::{CommitQueue, TicketWakers};
use super::wait_condition::WaitCondition;
use crate::deferred::DeferredWork;
use std::sync::Arc;
use vbstore_core::lock_order::{LockRank, RankGuard};
use vbstore_core::vbucket::FiredWakers;
use vbstore_core::{Checkpoints, SealedCheckpoint};

/// The lead. Dropping it resigns, and then runs the collected work: calling wakers and freeing
/// changes ([`crate::deferred`]).
pub(crate) struct Lead<'a> {
    queue: &'a CommitQueue,
    is_settled: &'a dyn Fn(&WaitCondition) -> bool,
    after: DeferredWork,
    /// `None` once the lead has been resigned.
    held: Option<RankGuard>,
}

/// A thread that is about to wait for the lead. It holds no lock, and takes none while it waits.
pub(super) struct LeadCandidate(RankGuard);

impl LeadCandidate {
    /// Registers with the lock-order check that this thread is about to wait for the lead.
    ///
    /// # Panics
    /// When the thread holds a lock, or the lead itself, in builds with debug assertions.
    pub(super) fn new() -> Self {
        Self(RankGuard::take(LockRank::Lead))
    }

    /// Converts the candidate into the lead. The queue has already given the lead to this thread.
    pub(super) fn lead<'a>(
        self,
        queue: &'a CommitQueue,
        is_settled: &'a dyn Fn(&WaitCondition) -> bool,
    ) -> Lead<'a> {
        Lead {
            queue,
            is_settled,
            after: DeferredWork::default(),
            held: Some(self.0),
        }
    }
}

impl Lead<'_> {
    /// Calls these wakers after the leader has resigned.
    pub(crate) fn wake_after(&mut self, fired: FiredWakers) {
        self.after.wake(fired);
    }

    /// Runs work that was collected elsewhere after the leader has resigned.
    pub(crate) fn run_after(&mut self, deferred: DeferredWork) {
        self.after.append(deferred);
    }

    /// Drops these changes after the leader has resigned: freeing them takes time.
    pub(crate) fn free_after(&mut self, freed: Arc<SealedCheckpoint>) {
        self.after.free(freed);
    }

    /// Drops the checkpoints of a deleted vBucket after the leader has resigned.
    pub(super) fn forget_after(&mut self, forgotten: Checkpoints) {
        self.after.forget(forgotten);
    }

    /// Returns the largest room, in bytes, that a waiter in the queue wants; 0 if none wants room.
    pub(super) fn room_awaited(&self) -> u64 {
        self.queue.room_awaited()
    }

    /// Returns whether a waiter in the queue wants a sync.
    pub(super) fn is_sync_awaited(&self) -> bool {
        self.queue.is_sync_awaited()
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let tickets: TicketWakers = self.queue.resign(self.is_settled);
        // Releases the rank of the lead before the wakers run: they may take any lock.
        self.held = None;
        tickets.wake();
        let after = std::mem::take(&mut self.after);
        after.run_with(self.queue.wakers());
    }
}
