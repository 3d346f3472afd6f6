//! The lead as a token: only the thread that holds it may flush, sync or delete a vBucket.

use super::queue::{CommitQueue, TicketWakers};
use super::want::Want;
use crate::wakes::Wakes;
use std::sync::Arc;
use vbstore_core::lock_order::{Held, Rank};
use vbstore_core::vbucket::Fired;
use vbstore_core::{Checkpoints, Sealed};

/// The lead. Dropping it resigns. Only after that the collected work runs: calling wakers and
/// freeing changes ([`crate::wakes`]).
pub(crate) struct Lead<'a> {
    queue: &'a CommitQueue,
    is_settled: &'a dyn Fn(&Want) -> bool,
    after: Wakes,
    /// `None` once the lead has been resigned.
    held: Option<Held>,
}

/// A thread that is about to wait for the lead. It holds no lock, and takes none while it waits.
pub(super) struct Candidate(Held);

impl Candidate {
    /// Registers with the lock-order check that this thread is about to wait for the lead.
    ///
    /// # Panics
    /// When the thread holds a lock, or the lead itself, in builds with debug assertions.
    pub(super) fn new() -> Self {
        Self(Held::take(Rank::Lead))
    }

    /// Converts the candidate into the lead. The queue has already given the lead to this thread.
    pub(super) fn lead<'a>(
        self,
        queue: &'a CommitQueue,
        is_settled: &'a dyn Fn(&Want) -> bool,
    ) -> Lead<'a> {
        Lead {
            queue,
            is_settled,
            after: Wakes::default(),
            held: Some(self.0),
        }
    }
}

impl Lead<'_> {
    /// Calls these wakers after the leader has resigned.
    pub(crate) fn wake_after(&mut self, fired: Fired) {
        self.after.wake(fired);
    }

    /// Runs work that was collected elsewhere after the leader has resigned.
    pub(crate) fn run_after(&mut self, wakes: Wakes) {
        self.after.append(wakes);
    }

    /// Drops these changes after the leader has resigned: freeing them takes time.
    pub(crate) fn free_after(&mut self, freed: Arc<Sealed>) {
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
