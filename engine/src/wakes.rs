//! What is done once a thread holds no lock: calling wakers, and freeing changes.
//!
//! A waker may take locks of its own and of the engine. Changes are ours, values included, but a
//! checkpoint has thousands, and freeing them takes time that nobody should wait for under a lock or in
//! the lead.

use crate::wakers::Wakers;
use std::sync::Arc;
use vbstore_core::lock_order::assert_none_held;
use vbstore_core::vbucket::Fired;
use vbstore_core::{Checkpoints, Item, Sealed};

/// Collects wakers to be called and changes to be dropped once no lock is held.
#[derive(Default)]
#[must_use = "call `run` once no lock is held"]
pub(crate) struct Wakes {
    fired: Vec<Fired>,
    freed: Vec<Arc<Sealed>>,
    replaced: Vec<Arc<Item>>,
    forgotten: Vec<Checkpoints>,
}

impl Wakes {
    /// Adds wakers.
    pub(crate) fn wake(&mut self, fired: Fired) {
        // Nearly always: what is collected for nobody would be allocated for nothing at every write.
        if !fired.is_empty() {
            self.fired.push(fired);
        }
    }

    /// Adds changes that nobody reads any more.
    pub(crate) fn free(&mut self, freed: Arc<Sealed>) {
        self.freed.push(freed);
    }

    /// Adds the change that a newer one has replaced, if it has replaced one.
    pub(crate) fn replace(&mut self, replaced: Option<Arc<Item>>) {
        self.replaced.extend(replaced);
    }

    /// Adds what a deleted vBucket held.
    pub(crate) fn forget(&mut self, forgotten: Checkpoints) {
        self.forgotten.push(forgotten);
    }

    /// Adds everything that another collection holds.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.fired.append(&mut other.fired);
        self.freed.append(&mut other.freed);
        self.replaced.append(&mut other.replaced);
        self.forgotten.append(&mut other.forgotten);
    }

    /// Calls the wakers, on this thread, and drops the changes. The caller holds no lock.
    pub(crate) fn run(self) {
        self.run_with(&Wakers::inline());
    }

    /// The same, but many wakers are called on another thread.
    pub(crate) fn run_with(self, wakers: &Wakers) {
        assert_none_held();
        if !self.fired.is_empty() {
            wakers.wake_streams(self.fired);
        }
        drop((self.freed, self.replaced, self.forgotten));
    }
}
