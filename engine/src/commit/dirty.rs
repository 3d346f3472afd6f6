//! The vBuckets with changes that no flush has taken.

use crate::vbuckets::Vb;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use vbstore_core::lock_order::LockRank;
use vbstore_core::sync::Mutex;

/// The vBuckets with changes that no flush has taken, oldest first, each at most once.
pub(crate) struct DirtyList(Mutex<DirtyVbs>);

/// The content of the list, as a flush takes it.
#[derive(Default)]
pub(super) struct DirtyVbs {
    pub(super) vbs: VecDeque<Arc<Vb>>,
    /// When the first of them was put on the list.
    since: Option<Duration>,
}

impl DirtyList {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LockRank::Leaf, DirtyVbs::default()))
    }

    /// Appends a vBucket that is not on the list. Called under the vBucket's lock. Returns whether
    /// the list was empty.
    pub(crate) fn mark(&self, vb: &Arc<Vb>, now: Duration) -> bool {
        let mut dirty = self.0.lock();
        dirty.vbs.push_back(Arc::clone(vb));
        let was_empty = dirty.since.is_none();
        dirty.since.get_or_insert(now);
        was_empty
    }

    /// Takes the whole list. Taking it whole ensures that no vBucket is in one flush twice: a
    /// change that is appended while the flush takes its checkpoints goes onto the next list.
    pub(super) fn take(&self) -> DirtyVbs {
        std::mem::take(&mut *self.0.lock())
    }

    /// Puts the vBuckets that did not fit into the flush back, in front of those that were added
    /// meanwhile.
    pub(super) fn put_back(&self, rest: DirtyVbs) {
        if rest.vbs.is_empty() {
            return;
        }
        let mut dirty = self.0.lock();
        let newer = std::mem::replace(&mut *dirty, rest);
        dirty.vbs.extend(newer.vbs);
        dirty.since = dirty.since.or(newer.since);
    }

    /// Returns the time since which there has been a change that no flush has taken.
    pub(crate) fn since(&self) -> Option<Duration> {
        self.0.lock().since
    }
}
