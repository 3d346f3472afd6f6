//! The lead, as a token: whoever has it may flush, sync or delete, and nobody else may.

use super::queue::{CommitQueue, TicketWakers};
use super::want::Want;
use crate::wakes::Wakes;
use std::sync::Arc;
use vbstore_core::lock_order::{Held, Rank};
use vbstore_core::vbucket::Fired;
use vbstore_core::{Checkpoints, Sealed};

/// The lead. Dropping it resigns, and only then does what was collected meanwhile: calling wakers and
/// freeing changes ([`crate::wakes`]).
pub(crate) struct Lead<'a> {
    queue: &'a CommitQueue,
    is_settled: &'a dyn Fn(&Want) -> bool,
    after: Wakes,
    /// `None` once the lead is resigned.
    held: Option<Held>,
}

/// The right to lead, before it is taken: the thread holds no lock, and none while it waits.
pub(super) struct Candidate(Held);

impl Candidate {
    /// Says that this thread is about to wait for the lead.
    ///
    /// # Panics
    /// When it holds a lock, or the lead itself, in builds with debug assertions.
    pub(super) fn new() -> Self {
        Self(Held::take(Rank::Lead))
    }

    /// Makes the token. The queue has given the lead to this thread.
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
    /// Calls these wakers after the lead is resigned.
    pub(crate) fn wake_after(&mut self, fired: Fired) {
        self.after.wake(fired);
    }

    /// Runs what was collected elsewhere after the lead is resigned.
    pub(crate) fn run_after(&mut self, wakes: Wakes) {
        self.after.append(wakes);
    }

    /// Drops these changes after the lead is resigned.
    pub(crate) fn free_after(&mut self, freed: Arc<Sealed>) {
        self.after.free(freed);
    }

    /// Drops what a deleted vBucket held after the lead is resigned.
    pub(super) fn forget_after(&mut self, forgotten: Checkpoints) {
        self.after.forget(forgotten);
    }

    /// Returns the most bytes that anybody in the queue waits for room for.
    pub(super) fn room_awaited(&self) -> u64 {
        self.queue.room_awaited()
    }

    /// Returns whether somebody in the queue waits for a sync.
    pub(super) fn is_sync_awaited(&self) -> bool {
        self.queue.is_sync_awaited()
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let tickets: TicketWakers = self.queue.resign(self.is_settled);
        self.held = None;
        tickets.wake();
        let after = std::mem::take(&mut self.after);
        after.run_with(self.queue.wakers());
    }
}
