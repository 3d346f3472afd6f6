//! Work that is deferred until a thread holds no lock: calling wakers and freeing changes.
//!
//! A waker may take locks of its own and of the engine. Freeing changes runs no code of the
//! program, but a checkpoint has thousands of changes. Freeing them under a lock or in the lead
//! would make other threads wait.

use crate::wakers::Wakers;
use std::sync::Arc;
use vbstore_core::lock_order::assert_none_held;
use vbstore_core::vbucket::FiredWakers;
use vbstore_core::{Checkpoints, Item, SealedCheckpoint};

/// Collects wakers to call and changes to drop once no lock is held.
#[derive(Default)]
#[must_use = "call `run` once no lock is held"]
pub(crate) struct DeferredWork {
    fired: Vec<FiredWakers>,
    freed: Vec<Arc<SealedCheckpoint>>,
    replaced: Vec<Arc<Item>>,
    forgotten: Vec<Checkpoints>,
}

impl DeferredWork {
    /// Adds wakers to call.
    pub(crate) fn wake(&mut self, fired: FiredWakers) {
        // Usually there are none. Skipping those avoids an allocation in every write.
        if !fired.is_empty() {
            self.fired.push(fired);
        }
    }

    /// Adds a freed checkpoint.
    pub(crate) fn free(&mut self, freed: Arc<SealedCheckpoint>) {
        self.freed.push(freed);
    }

    /// Adds the change that a newer one has replaced, if any.
    pub(crate) fn free_replaced(&mut self, replaced: Option<Arc<Item>>) {
        self.replaced.extend(replaced);
    }

    /// Adds the checkpoints of a deleted vBucket.
    pub(crate) fn forget(&mut self, forgotten: Checkpoints) {
        self.forgotten.push(forgotten);
    }

    /// Adds everything from another collection.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.fired.append(&mut other.fired);
        self.freed.append(&mut other.freed);
        self.replaced.append(&mut other.replaced);
        self.forgotten.append(&mut other.forgotten);
    }

    /// Calls the wakers on this thread and drops the changes. The caller holds no lock.
    pub(crate) fn run(self) {
        self.run_with(&Wakers::inline());
    }

    /// Like [`Self::run`], but may call the wakers on another thread if there are many.
    pub(crate) fn run_with(self, wakers: &Wakers) {
        assert_none_held();
        if !self.fired.is_empty() {
            wakers.wake_streams(self.fired);
        }
        drop((self.freed, self.replaced, self.forgotten));
    }
}
